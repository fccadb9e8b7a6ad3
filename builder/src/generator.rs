//! systemd's generator: `kdump.service` waits for the network if the dump target is there, and where somebody is to be told
//! of dumps, `kdump-notify.service` does that once there is a network.
//!
//! In: the configuration, and the directory that systemd gives to generators. Out: drop-ins for the unit, or none. May
//! surprise: it runs before anything else of the system does and has nobody to complain to, so that a configuration that
//! cannot be read is no error here. `kdumpctl start` says what is wrong with it.

use crate::config::{Config, Files, TargetLine, notify};
use crate::host::Tree;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// What systemd reads, below the directory.
const NETWORK: (&str, &str) =
    ("kdump.service.d/network.conf", "[Unit]\nWants=network-online.target\nAfter=network-online.target\n");
const NOTIFY: (&str, &str) = ("kdump.service.d/notify.conf", "[Unit]\nWants=kdump-notify.service\n");

/// Where systemd has this write, below the root.
const PLACE: &str = "run/systemd/generator";

/// Whether `kdump-notify.service` comes after `kdump.service`, whose start then tells nobody itself.
pub(crate) fn has_notice(tree: &Tree) -> bool {
    tree.path(PLACE).join(NOTIFY.0).is_file()
}

/// Writes the drop-ins that are wanted.
///
/// # Errors
/// It cannot be written.
pub fn run(files: &Files, dir: &Path) -> anyhow::Result<()> {
    let config = match Config::read(files) {
        Ok(config) => config,
        Err(error) => {
            log::debug!("{error:#}");
            return Ok(());
        }
    };
    let wanted = [(is_on_network(&config), NETWORK), (notify::resolve(&config, "").is_some(), NOTIFY)];
    for (_, (name, text)) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
        let path = dir.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            fs::write(&path, text)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Whether a dump may go to another machine. A disk of another machine comes with remote-fs.target.
fn is_on_network(config: &Config) -> bool {
    let lines = config.dump.targets.iter().map(|target| &target.value.line);
    lines.into_iter().any(|line| matches!(line, TargetLine::Nfs(_) | TargetLine::Cifs(_) | TargetLine::Remote(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drop-ins for this kdump.conf and what stands beside it in `/etc/sysconfig/kdump`.
    fn made_for(conf: &str, variables: &str) -> [Option<String>; 2] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/sysconfig")).unwrap();
        fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
        fs::write(root.path().join("etc/sysconfig/kdump"), variables).unwrap();
        let dir = root.path().join(PLACE);
        run(&Files::new(root.path(), None, None), &dir).unwrap();
        assert_eq!(has_notice(&Tree::new(root.path())), dir.join(NOTIFY.0).exists());
        [NETWORK, NOTIFY].map(|(name, _)| fs::read_to_string(dir.join(name)).ok())
    }

    #[test]
    fn a_target_on_the_network_has_the_unit_wait_for_it() {
        for conf in ["nfs nas:/srv/crash", "ssh dump@nas"] {
            let [network, notice] = made_for(conf, "");
            let text = network.unwrap();
            assert!(text.contains("\nWants=network-online.target\n") && text.contains("\nAfter="), "{conf}: {text}");
            assert_eq!(notice, None, "{conf}");
        }
        let unit = include_str!("../dist/systemd/kdump.service");
        let after = unit.lines().find(|line| line.starts_with("After=")).unwrap();
        assert!(!after.contains("network-online"), "what others want would have every kdump wait: {after}");
    }

    #[test]
    fn who_is_to_be_told_is_told_when_there_is_a_network_for_which_nothing_is_loaded_later() {
        let [network, notice] = made_for("ext4 LABEL=crash", "KDUMP_NOTIFICATION_TO=root@nas\nKDUMP_SMTP_SERVER=nas\n");
        assert_eq!((network, notice.as_deref()), (None, Some(NOTIFY.1)));
        let unit = include_str!("../dist/systemd/kdump-notify.service");
        assert!(
            unit.contains("\nWants=network-online.target\n") && unit.contains("\nAfter=kdump.service network-online")
        );
    }

    #[test]
    fn a_disk_waits_for_nothing_and_what_cannot_be_read_is_left_to_start() {
        for conf in ["", "ext4 LABEL=crash", "no_such_word", "nfs"] {
            assert_eq!(made_for(conf, ""), [None, None], "{conf}");
        }
    }
}
