//! The newc archive that a kernel unpacks: written for us, read for anyone.
//!
//! ```text
//!   entry:  070701 | 13 numbers, 8 hex digits each | name NUL | pad to 4 | data | pad to 4
//!   last:   an entry named TRAILER!!!
//! ```

pub mod members;
pub mod read;
pub mod write;

pub use kdump_hooks::newc as layout;
