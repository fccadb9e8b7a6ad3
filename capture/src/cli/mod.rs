//! The command line. In: arguments. Out: what is meant, or why it cannot be.
//! May surprise: options are data, from which help is made; those of makedumpfile that are not built in are refused by
//! name, with what to do instead. `--check-params` parses and does nothing, as mkdumprd wants it.
//!
//! | file | has |
//! |---|---|
//! | `table.rs` | every option, what it does, and the help made of it. A new option is a line here |
//! | `typed.rs` | from words to what was typed, and from that to what is meant |
//! | `meant.rs` | what is meant: a [`Command`] with all that it needs |
//! | `manual.rs` | the table as a manual page and as completions |

pub mod manual;
mod meant;
mod table;
mod typed;

pub use meant::{
    Command, DumpOptions, ExamineOptions, Format, LogOptions, MemoryOptions, ReassembleOptions, RebuildOptions,
    UsageOptions,
};
pub use typed::parse;
