//! The last thing that PID 1 of the image does in a normal boot: it becomes the system's own init.
//!
//! In: a root mounted at [`SYSROOT`](super::SYSROOT) and the init in it. Out: nothing, if all goes well. The file
//! systems of the kernel move along, what else is mounted is let go, the image's own files are removed so that their
//! memory comes back, and the root becomes `/`.
//! May surprise: arguments and environment are those that the kernel gave to this program, as it would have given them
//! to the real one. `$container` and `/etc/initrd-release` are not there, so that systemd knows it is in no initramfs.

use crate::sys;
use anyhow::Context;
use log::{info, warn};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// File systems that the real init takes over.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// More files than that are no image of ours; the rest stays where it is.
const MOST_FILES: usize = 100_000;
/// So are directories that are nested deeper.
const DEEPEST: usize = 64;

/// What is done with one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes to the same place in the root.
    Move(PathBuf),
    /// The root has no place for it, or it is none of the real init's business.
    LetGo(PathBuf),
}

/// Becomes `init`.
///
/// # Errors
/// Comes back only with one: the system cannot be booted any more, and a part of the image may be gone.
pub fn switch(sysroot: &Path, init: &str, arguments: Vec<OsString>) -> anyhow::Error {
    match enter(sysroot) {
        Ok(()) => {
            let error = Command::new(init).args(arguments).exec();
            anyhow::Error::new(error).context(format!("cannot start {init}"))
        }
        Err(error) => error,
    }
}

fn enter(sysroot: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    info!("leaving the image for the root in {}", sysroot.display());
    let is_memory = sys::is_in_memory(Path::new("/"));
    for step in steps(&mounts, sysroot, &|point| fs::symlink_metadata(point).is_ok_and(|meta| meta.is_dir())) {
        match step {
            Step::Move(point) => {
                let new = below(sysroot, &point);
                sys::move_mount(&point, &new)
                    .with_context(|| format!("cannot move {} to {}", point.display(), new.display()))?;
            }
            Step::LetGo(point) => {
                if let Err(error) = sys::detach(&point) {
                    warn!("cannot unmount {}: {error}", point.display());
                }
            }
        }
    }
    if is_memory {
        sweep(Path::new("/"));
    }
    sys::make_root(sysroot).with_context(|| format!("cannot make {} the root", sysroot.display()))
}

/// What is to be done with each mount of the image, in order. `is_directory` answers for places in the new root.
pub fn steps(mountinfo: &str, sysroot: &Path, is_directory: &dyn Fn(&Path) -> bool) -> Vec<Step> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let stays = |point: &Path| {
        point == Path::new("/") || point.starts_with(sysroot) || MOVED.iter().any(|moved| is_below(point, moved))
    };
    let mut steps: Vec<Step> = Vec::new();
    // Later mounts may lie in or on earlier ones.
    let mut points: Vec<PathBuf> = points.filter(|point| !stays(point)).collect();
    points.reverse();
    for point in points {
        let is_moved = MOVED.iter().any(|moved| point == Path::new(moved));
        let step = match is_moved && is_directory(&below(sysroot, &point)) {
            true => Step::Move(point),
            false => Step::LetGo(point),
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    // Whatever has to be let go may be asked for in /proc or named in /dev.
    steps.sort_by_key(|step| matches!(step, Step::Move(_)));
    steps
}

/// Whether it is below, and not the same.
fn is_below(point: &Path, parent: &str) -> bool {
    point.starts_with(parent) && point != Path::new(parent)
}

fn below(sysroot: &Path, point: &Path) -> PathBuf {
    sysroot.join(point.strip_prefix("/").unwrap_or(point))
}

/// Removes every file below `root` that is on the same file system, and says how many there were.
pub fn sweep(root: &Path) -> usize {
    let Ok(meta) = fs::symlink_metadata(root) else { return 0 };
    let mut left = MOST_FILES;
    empty(root, meta.dev(), DEEPEST, &mut left);
    MOST_FILES - left
}

fn empty(directory: &Path, device: u64, depth: usize, left: &mut usize) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).take(*left).collect();
    for path in names.into_iter().map(|name| directory.join(name)) {
        if *left == 0 {
            return;
        }
        // What is mounted here is another device; it is neither looked into nor unmounted.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.dev() != device {
            continue;
        }
        let removed = if !meta.is_dir() {
            fs::remove_file(&path)
        } else if depth > 0 {
            empty(&path, device, depth - 1, left);
            fs::remove_dir(&path)
        } else {
            continue;
        };
        if removed.is_ok() {
            *left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "1 1 0:2 / / rw - rootfs none rw\n\
        20 1 0:21 / /proc rw - proc proc rw\n\
        21 1 0:22 / /sys rw - sysfs sysfs rw\n\
        22 1 0:6 / /dev rw - devtmpfs devtmpfs rw\n\
        23 1 0:23 / /run rw - tmpfs tmpfs rw\n\
        24 1 0:24 / /tmp rw - tmpfs tmpfs rw\n\
        25 22 0:25 / /dev/pts rw - devpts devpts rw\n\
        26 1 254:0 / /sysroot ro - ext4 /dev/vda ro\n\
        27 26 254:1 / /sysroot/usr ro - ext4 /dev/vdb ro\n\
        28 1 254:2 / /kdump/target rw - ext4 /dev/vdc rw\n";

    fn planned(has: &[&str]) -> Vec<String> {
        let has = |point: &Path| has.iter().any(|have| point == Path::new(have));
        let words = |step: Step| match step {
            Step::Move(point) => format!("move {}", point.display()),
            Step::LetGo(point) => format!("let go {}", point.display()),
        };
        steps(MOUNTS, Path::new("/sysroot"), &has).into_iter().map(words).collect()
    }

    #[test]
    fn the_kernel_s_file_systems_move_with_what_is_in_them_and_the_rest_is_let_go_first() {
        assert_eq!(
            planned(&["/sysroot/dev", "/sysroot/proc", "/sysroot/sys", "/sysroot/run"]),
            ["let go /kdump/target", "let go /tmp", "move /run", "move /dev", "move /sys", "move /proc"]
        );
    }

    #[test]
    fn what_the_root_has_no_place_for_is_let_go() {
        let steps = planned(&["/sysroot/dev", "/sysroot/proc", "/sysroot/sys"]);
        assert!(steps.contains(&"let go /run".to_owned()) && !steps.contains(&"move /run".to_owned()), "{steps:?}");
    }

    #[test]
    fn the_image_s_files_go_to_the_last_and_nothing_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(root.join("usr/bin/program"), "x").unwrap();
        fs::write(root.join("init"), "x").unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        assert_eq!(sweep(&root), 5);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(outside.join("file").exists());
    }

    #[test]
    fn other_file_systems_are_not_touched_and_the_number_of_files_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let device = fs::symlink_metadata(dir.path()).unwrap().dev();
        let mut left = 100;
        empty(dir.path(), device + 1, DEEPEST, &mut left);
        assert_eq!((left, fs::read_dir(dir.path()).unwrap().count()), (100, 3));
        let mut left = 2;
        empty(dir.path(), device, DEEPEST, &mut left);
        assert_eq!((left, fs::read_dir(dir.path()).unwrap().count()), (0, 1));
    }
}
