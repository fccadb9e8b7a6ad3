//! An independent judge of dumps, written from the format's description; it shares no code with the collector.
//!
//! ```text
//!  raw vmcore (ELF) ─▶ RawCore ─┐                     every kept page equals the source
//!                               ├─▶ compare ─▶ Verdict  bitmap 2 within bitmap 1, descriptors inside the file
//!  dump             ─▶ KdumpFile┘                     first wrong pages, by number
//!                          └─▶ differences(reference) which pages one keeps and the other does not
//! ```
//!
//! Surprising: a judge that never says no proves nothing. `tests/oracle.rs` feeds it dumps that are wrong in every way
//! it is there to notice.

mod compare;
mod flattened;
mod kdump_file;
mod raw_core;
mod struct_pages;

pub use compare::{Differences, Verdict, compare, compare_elf, differences, read_back};
pub use flattened::unflatten;
pub use kdump_file::{KdumpFile, PageReader, Place, Stored};
pub use raw_core::RawCore;
pub use struct_pages::{SECTION_PAGES, StructPage, StructPages};
