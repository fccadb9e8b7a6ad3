//! systemd's generator: `kdump.service` waits for the network if the dump target is there.
//!
//! In: the configuration, and the directory that systemd gives to generators. Out: a drop-in for the unit, or none. May
//! surprise: it runs before anything else of the system does and has nobody to complain to, so that a configuration that
//! cannot be read is no error here. `kdumpctl start` says what is wrong with it.

use crate::config::{Config, Files, TargetLine};
use anyhow::Context;
use std::fs;
use std::path::Path;

/// What systemd reads, below the directory.
const DROP_IN: &str = "kdump.service.d/network.conf";

/// Writes the drop-in if it is wanted.
///
/// # Errors
/// It cannot be written.
pub fn run(files: &Files, dir: &Path) -> anyhow::Result<()> {
    match Config::read(files) {
        Ok(config) if is_on_network(&config) => {}
        Ok(_) => return Ok(()),
        Err(error) => {
            log::debug!("{error:#}");
            return Ok(());
        }
    }
    let path = dir.join(DROP_IN);
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(&path, "[Unit]\nWants=network-online.target\n")
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a dump may go to another machine. A disk of another machine comes with remote-fs.target.
fn is_on_network(config: &Config) -> bool {
    let lines = config.dump.targets.iter().map(|target| &target.value.line);
    lines.into_iter().any(|line| matches!(line, TargetLine::Nfs(_) | TargetLine::Cifs(_) | TargetLine::Remote(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drop-in for this kdump.conf.
    fn made_for(conf: &str) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
        let dir = root.path().join("run/systemd/generator");
        run(&Files::new(root.path(), None, None), &dir).unwrap();
        fs::read_to_string(dir.join(DROP_IN)).ok()
    }

    #[test]
    fn a_target_on_the_network_has_the_unit_wait_for_it() {
        for conf in ["nfs nas:/srv/crash", "ssh dump@nas"] {
            assert_eq!(made_for(conf).as_deref(), Some("[Unit]\nWants=network-online.target\n"), "{conf}");
        }
    }

    #[test]
    fn a_disk_waits_for_nothing_and_what_cannot_be_read_is_left_to_start() {
        for conf in ["", "ext4 LABEL=crash", "no_such_word", "nfs"] {
            assert_eq!(made_for(conf), None, "{conf}");
        }
    }
}
