//! mknod(2) for `modules.devname`: nodes that the kernel makes only when the module is there, though opening them is what
//! would bring it (`/dev/mapper/control`, `/dev/loop-control`).

use kdump_hooks::kmod::DeviceNode;
use log::warn;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::path::Path;

/// Makes the nodes below `/dev` that are not there. One that cannot be made is told.
pub fn make_device_nodes(nodes: &[DeviceNode]) {
    for node in nodes {
        let path = Path::new("/dev").join(&node.path);
        if let Some(parent) = path.parent() {
            let _ = fs::create_dir_all(parent);
        }
        let kind = if node.is_block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        let device = makedev(node.major.into(), node.minor.into());
        match mknod(&path, kind, Mode::S_IRUSR | Mode::S_IWUSR, device) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => warn!("cannot make {} for module {}: {errno}", path.display(), node.module),
        }
    }
}
