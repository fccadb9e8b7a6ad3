//! The administrator's modprobe.d, as far as it counts.
//!
//! A file that another one shadows stays out, so one directory in the image is enough. `install` lines with a command
//! are told about now: an image has no shell to run them with. modules-load.d becomes one list.

use crate::host::Tree;
use crate::plan::Entry;
use anyhow::Context;
use kdump_hooks::ModuleNeed;
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::{Config, Listed, load_list};
use std::fs;
use std::io::ErrorKind;

/// The files, and the configuration that they make.
///
/// # Errors
/// A file is there but cannot be read, or has a name that is not UTF-8.
pub fn gather(tree: &Tree, warnings: &mut Vec<String>) -> anyhow::Result<(Vec<Entry>, Config)> {
    let mut entries = Vec::new();
    let mut config = Config::default();
    for path in Config::files(tree.root())? {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                warnings.push(format!("{} is a link to nothing and is passed over", path.display()));
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{} has no plain name", path.display()))?;
        config.add(&String::from_utf8_lossy(&bytes), &path.display().to_string());
        entries.push(Entry::file(&format!("etc/modprobe.d/{name}"), bytes, "the administrator's module options"));
    }
    warnings.extend(config.warnings.iter().map(|warning| format!("{}: {}", warning.place, warning.problem)));
    warnings.extend(config.foreign_installs().map(|warning| format!("{}: {}", warning.place, warning.problem)));
    Ok((entries, config))
}

/// The modules of modules-load.d and of `/etc/modules`, and those that the capture kernel's command line is to load:
/// what they need, and the list for the image. One that the kernel does not have costs the capture kernel nothing, as it
/// costs the system nothing.
///
/// # Errors
/// A file is there but cannot be read.
pub fn load_lists(tree: &Tree, append: &Cmdline) -> anyhow::Result<(Vec<Entry>, Vec<ModuleNeed>)> {
    let need = |request: &str, reason: String| ModuleNeed {
        request: request.to_owned(),
        reason,
        required: false,
        by_device: false,
    };
    let mut needs = Vec::new();
    for option in ["rd.driver.pre", "rd.driver.post", "modules_load", "rd.modules_load"] {
        let reason = format!("{option}= in KDUMP_COMMANDLINE_APPEND names it");
        needs.extend(append.list(option).map(|request| need(request, reason.clone())));
    }
    let list = load_list(tree.root(), &Cmdline::default())?;
    needs.extend(list.iter().map(|Listed { request, origin }| need(request, format!("{origin} names it"))));
    let text: String = list.iter().map(|listed| format!("{}\n", listed.request)).collect();
    let entry = Entry::file("etc/modules-load.d/kdump.conf", text.into_bytes(), "modules-load.d of the system");
    Ok((if list.is_empty() { Vec::new() } else { vec![entry] }, needs))
}
