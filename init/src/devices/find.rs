//! From a name in a configuration to a device node.

use super::superblock::{Superblock, probe};
use kdump_hooks::DeviceSpec;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a look waits for one disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at block devices. A disk that does not answer holds up one look, not the search; if it answers later, a later
/// look hears it.
#[derive(Debug)]
pub struct Finder {
    /// `/sys/class/block`.
    class: PathBuf,
    /// `/dev`.
    dev: PathBuf,
    /// Questions that have not been answered.
    open: BTreeMap<String, Receiver<Option<Superblock>>>,
}

impl Finder {
    /// Looks below these directories.
    pub fn new(class: &Path, dev: &Path) -> Finder {
        Finder { class: class.to_owned(), dev: dev.to_owned(), open: BTreeMap::new() }
    }

    /// The node of `spec`, if it is there now.
    pub fn find(&mut self, spec: &DeviceSpec) -> Option<PathBuf> {
        if let DeviceSpec::Path(path) = spec {
            let node = self.dev.join(path.strip_prefix("/dev").ok()?);
            return node.exists().then_some(node);
        }
        let found = block_devices(&self.class).into_iter().find(|name| {
            self.superblock(name)
                .is_some_and(|superblock| spec.matches(superblock.uuid.as_deref(), superblock.label.as_deref()))
        });
        Some(self.dev.join(found?))
    }

    /// What is there, for the message that says what is not.
    pub fn inventory(&mut self) -> Vec<String> {
        let names = block_devices(&self.class);
        let describe = |name: String| match self.superblock(&name) {
            None if self.open.contains_key(&name) => format!("{name} (does not answer)"),
            None => name,
            Some(Superblock { fstype, uuid, label }) => {
                let uuid = uuid.map(|uuid| format!(" UUID={uuid}")).unwrap_or_default();
                let label = label.map(|label| format!(" LABEL={label}")).unwrap_or_default();
                format!("{name} ({fstype}{uuid}{label})")
            }
        };
        names.into_iter().map(describe).collect()
    }

    /// Asks a disk what is on it, in a thread that may never come back.
    fn superblock(&mut self, name: &str) -> Option<Superblock> {
        let (answer, patience) = match self.open.remove(name) {
            Some(answer) => (answer, Duration::ZERO),
            None => {
                let (tell, answer) = mpsc::channel();
                let node = self.dev.join(name);
                thread::Builder::new().spawn(move || tell.send(superblock(&node))).ok()?;
                (answer, PATIENCE)
            }
        };
        match answer.recv_timeout(patience) {
            Ok(found) => found,
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                if !patience.is_zero() {
                    log::warn!("{name} does not answer; the search goes on without it");
                }
                self.open.insert(name.to_owned(), answer);
                None
            }
        }
    }
}

/// Block devices by name, those that hold no data of their own left out.
fn block_devices(class: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(class) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["ram", "loop", "zram"].iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names
}

fn superblock(node: &Path) -> Option<Superblock> {
    probe(&mut File::open(node).ok()?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_device_is_found_by_what_is_on_it_and_the_rest_is_listed() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        for name in ["vda", "vdb", "loop0"] {
            fs::create_dir_all(class.join(name)).unwrap();
        }
        fs::create_dir_all(&dev).unwrap();
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[108..113].copy_from_slice(b"crash");
        fs::write(dev.join("vda"), vec![0; 4096]).unwrap();
        fs::write(dev.join("vdb"), xfs).unwrap();
        let mut finder = Finder::new(&class, &dev);
        let mut find = |spec: &str| finder.find(&spec.parse().unwrap());
        assert_eq!(find("LABEL=crash"), Some(dev.join("vdb")));
        assert_eq!(find("/dev/vda"), Some(dev.join("vda")));
        assert_eq!(find("UUID=1"), None);
        assert_eq!(find("/dev/vdz"), None);
        assert_eq!(finder.inventory(), ["vda", "vdb (xfs LABEL=crash)"]);
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_one_look_only() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        fs::create_dir_all(class.join("sda")).unwrap();
        fs::create_dir_all(&dev).unwrap();
        // Opening a pipe that nobody writes to blocks.
        nix::unistd::mkfifo(&dev.join("sda"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut finder = Finder::new(&class, &dev);
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(finder.find(&"UUID=1".parse().unwrap()), None);
        }
        assert!(start.elapsed() < PATIENCE * 3);
        assert_eq!(finder.inventory(), ["sda (does not answer)"]);
    }
}
