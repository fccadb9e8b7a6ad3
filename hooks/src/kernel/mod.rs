//! The few calls of the kernel that the programs of several crates make: modules in and out, keys, and the kernel log.

mod keyring;
mod log;
mod modules;
mod signature;

pub use keyring::LinuxKeys;
pub use log::KernelLog;
pub use modules::{Explain, Facts, Refusal, explain, insert, insert_explained, is_there, remove};
pub use signature::is_signed;
