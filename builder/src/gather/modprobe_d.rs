//! The administrator's modprobe.d, as far as it counts.
//!
//! A file that another one shadows stays out, so one directory in the image is enough. `install` lines with a command
//! are told about now: an image has no shell to run them with.

use crate::host::Tree;
use crate::plan::Entry;
use anyhow::Context;
use kdump_hooks::kmod::Config;
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
    for (module, command) in config.installs() {
        let word = command.split_whitespace().next().unwrap_or_default();
        if !matches!(word, "/bin/true" | "/bin/false" | "/usr/bin/true" | "/usr/bin/false" | "true" | "false" | ":") {
            warnings.push(format!(
                "modprobe.d: `install {module} {command}`: an image has no shell for that; the module will not be loaded"
            ));
        }
    }
    Ok((entries, config))
}
