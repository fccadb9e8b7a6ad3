//! The only calls of the kernel; everything else of this crate is told what happened.

mod machine;
mod modules;
mod mounts;
mod nodes;
mod root;

pub use machine::{CaptureMachine, end, kill_everything, memory_available, restart_on_panic};
pub use modules::{LinuxModules, explain};
pub use mounts::{mount, mount_kernel_filesystems, unmount};
pub use nodes::make_device_nodes;
pub use root::{detach, is_in_memory, make_root, move_mount};
