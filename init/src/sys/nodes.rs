//! mknod(2) for `modules.devname`: nodes that the kernel makes only when the module is there, though opening them is what
//! would bring it (`/dev/mapper/control`, `/dev/loop-control`).

use kdump_hooks::kmod::DeviceNode;
use log::warn;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::path::Path;

/// Makes the nodes below `dev` that are not there. One that cannot be made is told.
pub fn make_device_nodes(dev: &Path, nodes: &[DeviceNode]) {
    for node in nodes {
        let path = dev.join(&node.path);
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

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::kmod::Index;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    #[test]
    fn a_node_is_made_with_its_directory_and_a_second_time_does_no_harm() {
        let dev = tempfile::tempdir().unwrap();
        let mut index = Index::default();
        index.add_devnames("dm_mod mapper/control c10:236\n");
        for _ in 0..2 {
            make_device_nodes(dev.path(), index.nodes());
        }
        assert!(dev.path().join("mapper").is_dir());
        // Only root may make nodes.
        if fs::metadata(dev.path()).unwrap().uid() == 0 {
            let node = fs::metadata(dev.path().join("mapper/control")).unwrap();
            assert!(node.file_type().is_char_device() && node.rdev() == makedev(10, 236));
        }
    }
}
