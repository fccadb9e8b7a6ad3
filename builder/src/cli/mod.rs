//! What was typed. What it means is made of it elsewhere.
//!
//! One file for each program. The definitions here are the only ones: `--help`, manual pages and completions are made of
//! them.

mod dracut;
mod kdumpctl;
mod lsinitrd;
mod mkdumprd;

pub use dracut::{Divided, divide};
pub use kdumpctl::{Accel, ConfigWord, Dumps, Kdumpctl, Kexec, Loading, Place, Rehearsal, Reset, Told, Way, Word};
pub use lsinitrd::Lsinitrd;
pub use mkdumprd::Mkdumprd;
