//! The watchdogs that are at work on this machine, and their drivers.
//!
//! In: `/sys/class/watchdog`. Out: modaliases and driver modules from each watchdog's device up to the root of its bus.
//! What may surprise: one whose kernel does not tell its state counts as at work; a watchdog of software alone has no
//! device, and died with the kernel that ran it.

use super::Tree;
use kdump_hooks::watchdog::Watchdog;
use std::fs;
use std::path::Path;

const CLASS: &str = "/sys/class/watchdog";

/// What the image needs for them; `None` if there is nothing to tend.
pub fn active(tree: &Tree) -> Option<Watchdog> {
    let entries = fs::read_dir(tree.path(CLASS)).ok()?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let mut drivers: Vec<String> = Vec::new();
    for name in names {
        let place = Path::new(CLASS).join(name);
        let state = fs::read_to_string(tree.path(place.join("state"))).unwrap_or_else(|_| "active".to_owned());
        let Ok(device) = tree.canonical(&place.join("device")) else { continue };
        if state.trim() == "inactive" {
            continue;
        }
        for part in device.ancestors().take_while(|part| part.starts_with("/sys/devices")) {
            let alias = fs::read_to_string(tree.path(part.join("modalias"))).unwrap_or_default();
            let module = tree.canonical(&part.join("driver/module")).ok();
            let module = module.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
            for request in [alias.trim(), module] {
                if !request.is_empty() && !drivers.iter().any(|other| other == request) {
                    drivers.push(request.to_owned());
                }
            }
        }
    }
    (!drivers.is_empty()).then_some(Watchdog { drivers })
}

/// What keeps the drivers from acting on the crash themselves, which would cut the dump short: no early warning, which
/// some turn into an NMI, and no reset by hpwdt when the kernel boots for a dump.
pub fn options(watchdog: &Watchdog) -> Vec<String> {
    let modules = watchdog.drivers.iter().filter(|driver| !driver.contains(':'));
    modules
        .flat_map(|module| {
            let hpwdt = (module == "hpwdt").then(|| "hpwdt.kdumptimeout=0".to_owned());
            [Some(format!("{module}.pretimeout=0")), hpwdt].into_iter().flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn drivers_of_what_is_at_work_are_found_up_the_bus() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let pci = "/sys/devices/pci0000:00/0000:00:1f.0";
        let device = format!("{pci}/iTCO_wdt");
        for path in [&device, "/sys/class/watchdog", "/sys/module/iTCO_wdt", "/sys/module/lpc_ich", "/sys/idle"] {
            fs::create_dir_all(tree.path(path)).unwrap();
        }
        fs::write(tree.path(&device).join("modalias"), "platform:iTCO_wdt\n").unwrap();
        fs::write(tree.path(pci).join("modalias"), "pci:v00008086\n").unwrap();
        for (place, module) in [(device.as_str(), "iTCO_wdt"), (pci, "lpc_ich")] {
            fs::create_dir_all(tree.path(place).join("driver")).unwrap();
            symlink(format!("/sys/module/{module}"), tree.path(place).join("driver/module")).unwrap();
        }
        let watchdog = |name: &str, state: &str, device: Option<&str>| {
            let place = tree.path(CLASS).join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("state"), state).unwrap();
            if let Some(device) = device {
                symlink(device, place.join("device")).unwrap();
            }
        };
        watchdog("watchdog1", "active\n", None);
        assert_eq!(active(&tree), None);
        watchdog("watchdog0", "inactive\n", Some(&device));
        assert_eq!(active(&tree), None);
        fs::write(tree.path(CLASS).join("watchdog0/state"), "active\n").unwrap();
        let found = active(&tree).unwrap();
        assert_eq!(found.drivers, ["platform:iTCO_wdt", "iTCO_wdt", "pci:v00008086", "lpc_ich"]);
        assert_eq!(options(&found), ["iTCO_wdt.pretimeout=0", "lpc_ich.pretimeout=0"]);
    }

    #[test]
    fn hpwdt_is_told_not_to_reset_the_capture_kernel() {
        let watchdog = Watchdog { drivers: vec!["hpwdt".into()] };
        assert_eq!(options(&watchdog), ["hpwdt.pretimeout=0", "hpwdt.kdumptimeout=0"]);
    }
}
