//! The drivers for a machine that cannot be looked at: of disks, and of network cards.
//!
//! If the target's device is not here, its driver is unknown, and the image gets those that most machines have. A
//! driver that the kernel does not have is left out. May surprise: which drivers are for network cards is asked of the
//! kernel, by where it keeps them and by the devices they answer to, since there are too many for a list.

use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::{Index, ModuleFile};

/// Where a kernel keeps its network drivers, be it in its own tree or in one of somebody else's.
const NETWORK: &str = "drivers/net/";
/// Cards with a cable, and what is on them between card and cable.
const WIRED: [&str; 6] = ["ethernet/", "phy/", "mdio/", "pcs/", "usb/", "hyperv/"];
/// No way to a server with room for a dump, though their cards are found on the same buses.
const OTHERS: [&str; 9] =
    ["wireless/", "wwan/", "can/", "ieee802154/", "wan/", "hamradio/", "arcnet/", "fddi/", "hippi/"];
/// How devices of machines, virtual ones above all, are called whose drivers are in none of these folders.
const BUSES: [&str; 4] = ["pci:", "virtio:", "vmbus:", "xen:"];

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

/// The network drivers of a kernel, for a machine of unknown make whose dumps go to another one.
pub fn network(index: &Index) -> Vec<ModuleNeed> {
    let need = |module: &ModuleFile| ModuleNeed {
        request: module.name.to_string(),
        reason: "driver of network cards: any machine's will do".to_owned(),
        required: false,
        by_device: true,
    };
    index.modules().filter(|module| is_for_cards(index, module)).map(need).collect()
}

fn is_for_cards(index: &Index, module: &ModuleFile) -> bool {
    let Some((_, place)) = module.path.rsplit_once(NETWORK) else { return false };
    let within = |folders: &[&str]| folders.iter().any(|folder| place.starts_with(folder));
    let answers = || index.aliases_of(&module.name).any(|alias| BUSES.iter().any(|bus| alias.starts_with(bus)));
    within(&WIRED) || (!within(&OTHERS) && answers())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_drivers_are_told_by_their_place_and_by_the_devices_they_answer_to() {
        let mut index = Index::default();
        let files = [
            ("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz", "pci:v8086*", true),
            ("updates/drivers/net/ethernet/intel/ice/ice.ko", "pci:v8086d1*", true),
            ("kernel/drivers/net/phy/realtek.ko", "mdio:0000*", true),
            ("kernel/drivers/net/usb/r8152.ko", "usb:v0BDA*", true),
            ("kernel/drivers/net/virtio_net.ko", "virtio:d00000001v*", true),
            ("kernel/drivers/net/vmxnet3/vmxnet3.ko", "pci:v15AD*", true),
            ("kernel/drivers/net/xen-netfront.ko", "xen:vif", true),
            ("kernel/drivers/net/xen-netback/xen-netback.ko", "xen-backend:vif", false),
            ("kernel/drivers/net/tun.ko", "devname:net/tun", false),
            ("kernel/drivers/net/wireless/intel/iwlwifi/iwlwifi.ko", "pci:v8086d2*", false),
            ("kernel/drivers/net/wwan/iosm/iosm.ko", "pci:v8086d3*", false),
            ("kernel/drivers/nvme/host/nvme.ko", "pci:v*", false),
        ];
        for (path, alias, _) in files {
            index.add_dep(&format!("{path}:\n"));
            let name = path.rsplit('/').next().unwrap().split('.').next().unwrap();
            index.add_aliases(&format!("alias {alias} {name}\n"));
        }
        let found: Vec<String> = network(&index).into_iter().map(|need| need.request).collect();
        for (path, _, wanted) in files {
            let name = path.rsplit('/').next().unwrap().split('.').next().unwrap().replace('-', "_");
            assert_eq!(found.contains(&name), wanted, "{path}");
        }
    }
}
