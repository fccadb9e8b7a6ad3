//! The storage drivers for a machine that cannot be looked at.
//!
//! If the target's device is not here, its driver is unknown, and the image gets those that most machines have. A
//! driver that the kernel does not have is left out.

use kdump_hooks::ModuleNeed;

/// Drivers by the kind of machine that needs them.
const GENERIC: [(&str, &[&str]); 8] = [
    ("virtio disks", &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi"]),
    ("NVMe disks", &["nvme"]),
    ("SATA disks", &["ahci", "ata_piix"]),
    ("any SCSI-like disk", &["sd_mod"]),
    ("RAID controllers", &["megaraid_sas", "mpt3sas", "mpi3mr", "hpsa", "smartpqi", "aacraid"]),
    (
        "Hyper-V, Xen and VMware disks",
        &["hv_vmbus", "hv_storvsc", "pci_hyperv", "xen_blkfront", "vmw_pvscsi", "mptspi"],
    ),
    ("USB disks", &["xhci_pci", "ehci_pci", "usb_storage", "uas"]),
    ("memory cards", &["sdhci_pci", "sdhci_acpi", "mmc_block"]),
];

/// The needs of a machine of unknown make.
pub fn generic() -> Vec<ModuleNeed> {
    let need = |kind: &str, module: &str| ModuleNeed {
        request: module.to_owned(),
        reason: format!("driver of {kind}: the target's device is not on this machine"),
        required: false,
        by_device: true,
    };
    GENERIC.iter().flat_map(|(kind, modules)| modules.iter().map(move |module| need(kind, module))).collect()
}
