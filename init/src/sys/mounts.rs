//! Mounting and unmounting.

use anyhow::{Context, anyhow};
use kdump_hooks::fstab;
use kdump_hooks::kernel::KernelLog;
use kdump_hooks::machine::MOUNT_POINT;
use kdump_hooks::{MountPlan, Refused};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The file systems of the kernel itself, in the order in which they are needed.
const KERNEL_FILESYSTEMS: [(&str, &str, MsFlags, &str); 5] = [
    ("proc", "/proc", STRICT, ""),
    ("sysfs", "/sys", STRICT, ""),
    ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755"),
    ("tmpfs", "/run", STRICT, "mode=0755,size=25%"),
    ("tmpfs", "/tmp", STRICT, "mode=1777,size=25%"),
];

const STRICT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts proc, sysfs, devtmpfs and tmpfs. What fails is told and does not stop the others.
pub fn mount_kernel_filesystems() -> Vec<anyhow::Error> {
    KERNEL_FILESYSTEMS
        .into_iter()
        .filter_map(|(fstype, point, flags, data)| {
            let _ = fs::DirBuilder::new().mode(0o755).create(point);
            let data = (!data.is_empty()).then_some(data);
            match nix::mount::mount(Some(fstype), point, Some(fstype), flags, data) {
                // The kernel mounts devtmpfs itself where it was built so.
                Ok(()) | Err(Errno::EBUSY) => None,
                Err(errno) => Some(anyhow!(errno).context(format!("cannot mount {fstype} at {point}"))),
            }
        })
        .collect()
}

/// One call of mount(2), with what the kernel says if it refuses. `secret` are options that no message shows.
///
/// # Errors
/// The kernel's errno and its own words.
pub fn mount(plan: &MountPlan, secret: &[String]) -> anyhow::Result<()> {
    fs::create_dir_all(&plan.point).with_context(|| format!("cannot make the mount point {}", plan.point.display()))?;
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in plan.options.iter().chain(secret) {
        match flag(option) {
            Some(flag) => flags |= flag,
            None => data.push(option.as_str()),
        }
    }
    let data = data.join(",");
    let mut log = KernelLog::from_now().ok();
    let data = (!data.is_empty()).then_some(data.as_str());
    nix::mount::mount(Some(&plan.source), &plan.point, Some(plan.fstype.as_str()), flags, data).map_err(|errno| {
        let device = plan.source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let words: Vec<String> = std::iter::from_fn(|| log.as_mut()?.next_line())
            .filter(|line| line.contains(&device) || line.to_lowercase().contains(&plan.fstype))
            .take(4)
            .collect();
        let hint = if errno == Errno::ENODEV { " (the kernel has no such file system)" } else { "" };
        let reason = match words.is_empty() {
            true => format!("{errno}{hint}"),
            false => format!("{errno}{hint}; the kernel says: {}", words.join(" | ")),
        };
        Refused { errno: errno as i32, reason }.into()
    })
}

/// The options that are flags of mount(2). Those for fstab's readers have no effect.
fn flag(option: &str) -> Option<MsFlags> {
    Some(match option {
        "ro" => MsFlags::MS_RDONLY,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "nosuid" => MsFlags::MS_NOSUID,
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        "exec" | "suid" | "dev" | "async" | "atime" => MsFlags::empty(),
        readers if fstab::is_for_readers(readers) => MsFlags::empty(),
        _ => return None,
    })
}

/// Flushes and unmounts. A file system that is still busy is flushed, and detached from the tree.
///
/// # Errors
/// The flush failed, so data may be lost.
pub fn unmount(point: &Path) -> anyhow::Result<()> {
    let directory = fs::File::open(point).with_context(|| format!("cannot open {}", point.display()))?;
    let flushed = nix::unistd::syncfs(&directory).with_context(|| format!("cannot flush {}", point.display()));
    drop(directory);
    // What cannot be flushed must still make room for the next target.
    flushed.and(let_go(point))
}

/// Takes a file system out of the tree that does not answer any more. What waits for it is told to give up, where the
/// file system can do that (NFS and CIFS can).
///
/// # Errors
/// Nothing is mounted there.
pub(super) fn give_up(point: &Path) -> anyhow::Result<()> {
    nix::mount::umount2(point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)
        .with_context(|| format!("cannot detach {}", point.display()))
}

/// Where targets are mounted, the last one first.
pub fn targets() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.rev().filter(|point| point.starts_with(MOUNT_POINT)).map(PathBuf::from).collect()
}

fn let_go(point: &Path) -> anyhow::Result<()> {
    match nix::mount::umount2(point, MntFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => nix::mount::umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot detach {}, which is in use", point.display())),
        Err(errno) => Err(errno).with_context(|| format!("cannot unmount {}", point.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_data_for_the_file_system() {
        assert_eq!(flag("noatime"), Some(MsFlags::MS_NOATIME));
        assert_eq!(flag("defaults"), Some(MsFlags::empty()));
        for option in ["users", "owner", "group", "comment=dumps", "x-systemd.automount", "rw", "_netdev"] {
            assert_eq!(flag(option), Some(MsFlags::empty()), "{option}");
        }
        for option in ["data=ordered", "user=kdump", "pass=secret"] {
            assert_eq!(flag(option), None, "{option}");
        }
    }
}
