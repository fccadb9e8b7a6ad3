//! Whether the kernel has a driver for the devices that the image is for.
//!
//! In: what the hooks ask for, and the kernel's indexes. Out: devices for none of whose modaliases there is a driver, be
//! it a module or built in. May surprise: single modaliases without a driver are the normal case, bridges for one; and a
//! kernel that does not tell what is built in is believed.

use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::{Config, Index, Plan, plan};
use std::collections::BTreeMap;

/// A problem for each device without any driver.
pub fn check(index: &Index, config: &Config, needs: &[ModuleNeed], release: &str) -> Vec<anyhow::Error> {
    if index.builtin_aliases().next().is_none() {
        return Vec::new();
    }
    let mut devices: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for need in needs.iter().filter(|need| need.by_device) {
        devices.entry(&need.reason).or_default().push(&need.request);
    }
    let is_alias = |request: &str| request.contains(':');
    let is_uncovered = |requests: &[&str]| {
        requests.iter().any(|request| is_alias(request))
            && requests.iter().all(|request| matches!(plan(index, config, request), Plan::Unknown))
    };
    let uncovered = devices.iter().filter(|(_, requests)| is_uncovered(requests));
    uncovered
        .map(|(reason, requests)| {
            anyhow::anyhow!(
                "kernel {release} has no driver for any of {} ({reason}); install the package with the rest of its \
                 modules, or choose another kernel",
                requests.join(", ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_covered_by_any_driver_on_its_way_and_one_without_any_is_told() {
        let mut index = Index::default();
        index.add_dep("kernel/nvme.ko:\n");
        index.add_aliases("alias pci:v1* nvme\n");
        let need = |request: &str, reason: &str| ModuleNeed {
            request: request.to_owned(),
            reason: reason.to_owned(),
            required: false,
            by_device: true,
        };
        let needs = [
            need("pci:v1d2", "disk a"),
            need("acpi:BRIDGE", "disk a"),
            need("pci:v9d9", "disk b"),
            need("acpi:BRIDGE", "disk b"),
            need("pci:v8d8", "disk c"),
            need("virtio_blk", "driver of virtio disks"),
        ];
        assert!(check(&index, &Config::default(), &needs, "6.1").is_empty(), "what is built in is not known");
        index.add_builtin("kernel/ahci.ko\n");
        index.add_builtin_modinfo("ahci.alias=pci:v8*\0");
        let told: Vec<String> =
            check(&index, &Config::default(), &needs, "6.1").iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("kernel 6.1 has no driver for any of pci:v9d9, acpi:BRIDGE (disk b)"), "{told:?}");
    }
}
