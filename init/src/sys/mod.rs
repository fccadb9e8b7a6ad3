//! The only calls of the kernel; everything else of this crate is told what happened.

mod machine;
mod modules;
mod mounts;
mod net;
mod nodes;
mod root;

pub use machine::{
    CaptureMachine, end, ignore_restart_keys, kill_everything, memory_available, offer_process, restart_on_panic,
    spare_this_process,
};
pub use modules::LinuxModules;
pub use mounts::{mount, mount_kernel_filesystems, targets, unmount};
pub use net::LinuxNet;
pub use nodes::make_device_nodes;
pub use root::{detach, is_in_memory, make_root, move_mount};
