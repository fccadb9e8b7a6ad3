//! The few calls of the kernel that the programs of several crates make: modules in and out, keys, and the kernel log.

mod keyring;
mod log;
mod modules;
mod signature;

pub use keyring::LinuxKeys;
pub use log::KernelLog;
pub use modules::{Facts, Refusal, explain, insert, is_there, remove};
pub use signature::is_signed;
