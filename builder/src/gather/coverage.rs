//! Whether the kernel has a driver for the devices that the image is for.
//!
//! In: what the hooks ask for, and the kernel's indexes. Out: devices for none of whose modaliases there is a driver, be
//! it a module or built in; and the drivers without which these devices do nothing. May surprise: single modaliases
//! without a driver are the normal case, bridges for one; and a kernel that does not tell what is built in is believed.

use super::modules::is_hard;
use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::{Config, Index, ModuleName, Plan, Reached, plan};
use std::collections::{BTreeMap, BTreeSet};

/// A problem for each device without any driver.
pub fn check(index: &Index, config: &Config, needs: &[ModuleNeed], release: &str) -> Vec<anyhow::Error> {
    if index.builtin_aliases().next().is_none() {
        return Vec::new();
    }
    let devices = devices(needs);
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

/// The drivers that devices cannot do without, each with its reason: those that are at work, or the only one that answers
/// where none is known to be, be it built in or a module, with all that these need themselves.
pub fn drivers(index: &Index, config: &Config, needs: &[ModuleNeed]) -> BTreeMap<ModuleName, String> {
    let mut drivers = BTreeMap::new();
    for (reason, requests) in devices(needs) {
        let named = requests.iter().any(|request| !is_alias(request));
        for request in requests.iter().filter(|request| !(named && is_alias(request))) {
            let steps = match plan(index, config, request) {
                Plan::Load(steps) => steps,
                Plan::BuiltIn => {
                    let answers: BTreeSet<&ModuleName> = index.builtin_by(request).into_iter().collect();
                    if answers.len() == 1 {
                        drivers.extend(answers.into_iter().map(|driver| (driver.clone(), reason.to_owned())));
                    }
                    continue;
                }
                Plan::Blacklisted(_) | Plan::Unknown => continue,
            };
            if steps.iter().filter(|step| step.reached == Reached::Request).count() == 1 {
                let hard = steps.iter().filter(|step| is_hard(&steps, &step.reached));
                drivers.extend(hard.map(|step| (step.module.clone(), reason.to_owned())));
            }
        }
    }
    drivers
}

/// What is asked for by devices that are known, by reason; not what most machines have.
fn devices(needs: &[ModuleNeed]) -> BTreeMap<&str, Vec<&str>> {
    let mut devices: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let known = needs.iter().filter(|need| need.by_device && (need.required || is_alias(&need.request)));
    for need in known {
        devices.entry(&need.reason).or_default().push(&need.request);
    }
    devices
}

fn is_alias(request: &str) -> bool {
    request.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_needs_the_driver_that_is_at_work_and_all_that_this_one_needs() {
        let mut index = Index::default();
        index.add_dep("kernel/qede.ko: kernel/qed.ko\nkernel/qed.ko:\nkernel/other.ko:\nkernel/one.ko:\n");
        index.add_aliases("alias pci:v1* qede\nalias pci:v1* other\nalias pci:v2* one\n");
        index.add_builtin_modinfo("in.alias=pci:v3*\0in.alias=pci:v3d1*\0in.alias=pci:v4*\0too.alias=pci:v4*\0");
        let need = |request: &str, reason: &str, required| ModuleNeed {
            request: request.to_owned(),
            reason: reason.to_owned(),
            required,
            by_device: true,
        };
        let told = |needs: &[ModuleNeed]| {
            let drivers = drivers(&index, &Config::default(), needs);
            drivers.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&[need("pci:v1d1", "card", false), need("qede", "card", true)]), ["qed", "qede"]);
        assert_eq!(told(&[need("pci:v1d1", "card", false)]), [] as [&str; 0], "which of the two is not known");
        assert_eq!(told(&[need("pci:v2d1", "card", false)]), ["one"]);
        assert_eq!(told(&[need("pci:v3d1", "card", false)]), ["in"]);
        assert_eq!(told(&[need("pci:v4d1", "card", false)]), [] as [&str; 0]);
        assert_eq!(told(&[need("other", "driver of most cards", false)]), [] as [&str; 0]);
    }

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
