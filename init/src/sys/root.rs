//! Changing the root: mounts that move, and the root that becomes `/`.

use nix::mount::{MntFlags, MsFlags};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use std::path::Path;

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Whether the files of that file system are in memory and nowhere else.
pub fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type()))
}

/// Moves a mount.
///
/// # Errors
/// The kernel's refusal.
pub fn move_mount(from: &Path, to: &Path) -> nix::Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
}

/// Takes a mount out of the tree; it lives until nobody uses it any more.
///
/// # Errors
/// The kernel's refusal.
pub fn detach(point: &Path) -> nix::Result<()> {
    nix::mount::umount2(point, MntFlags::MNT_DETACH)
}

/// Makes what is mounted at `point` the root of this process. pivot_root(2) cannot: the initramfs stays below for ever.
///
/// # Errors
/// The kernel's refusal.
pub fn make_root(point: &Path) -> std::io::Result<()> {
    std::env::set_current_dir(point)?;
    nix::mount::mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}
