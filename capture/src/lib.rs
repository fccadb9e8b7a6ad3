//! kdump-capture: a vmcore in, a filtered dump and the kernel log out.
//!
//! It runs in a small capture kernel, over the memory of one that has just crashed, as root. So memory is the budget,
//! the input is hostile, and bad data costs a page or a section, never the dump.
//!
//! ```text
//!  /proc/vmcore, an ELF file, a dump, a flattened stream of either
//!       |  bytes
//!  input/           one door for all of them           Input: memory, notes, what an earlier dump says
//!  vmcore/          ELF header, PT_LOADs, notes        Vmcore { segments, notes }
//!       |  segments              \  note text      arch: which machine, which page size
//!  memmap/   <---  paging/  <---  vmcoreinfo, kernel   Facts { symbol, size, offset, number }
//!       |  pfn -> struct page, in place
//!  classify/        struct page -> Verdict             Keep | Drop(Why)        (filter: on all threads)
//!       |  kept pfns                                   bitmap 2
//!  compress/        page -> packed page                none | zlib | lzo | snappy | zstd
//!       |  packed pages, in batches
//!  dumpfile/        places, then bytes                 kdump-compressed version 6, ELF; files, or a stream
//! ```
//!
//! The nouns:
//!
//! | noun | is |
//! |---|---|
//! | architecture | what differs between kinds of machine: [`arch`] is the table, `paging/` the page tables of each |
//! | segment | a range of physical memory that is in the vmcore |
//! | pfn, page frame | a physical page, by number |
//! | struct page | what the kernel notes about a page frame; the array of them is mem_map |
//! | section | a stretch of memory (128 MiB, on many machines) with a mem_map of its own |
//! | vmcoreinfo, facts | what the kernel says of itself: addresses, offsets, numbers |
//! | level | which kinds of page are left out |
//! | kept | the pages that are written: bitmap 2 |
//! | use | what a page is good for: where a dump may be cut, what is needed to open it comes first ([`uses`]) |
//! | batch | some hundred kept pages that one worker packs and writes |
//!
//! The other way round, `info` and `verify` read a dump: [`examine`], over [`dumpfile::read`]; and a dump can be filtered
//! once more: [`dumpfile::memory`] makes it the machine's memory again. What a dump would hold is asked of a running
//! machine by [`usage`], over /proc/kcore.
//!
//! Which live patches the crashed kernel had is told by [`live_patches`], over the kernel's own symbols ([`kallsyms`]).
//!
//! Where to look: [`pipeline`] tells the story from open to finish. [`classify`] has the order of the questions.
//! [`dumpfile`] has the picture of the file. `send` is the other program of this crate, kdump-send, which delivers a
//! flattened stream to another machine. `vmcore/map.rs` has the `unsafe` of the collector, `send/ftp/tls.rs` the other one. Memory as the rest of the
//! crate sees it is [`vmcore::read::PhysMem`]; [`fake::MemCore`] stands in for it in tests.

#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

pub mod arch;
pub mod classify;
pub mod cli;
pub mod compress;
pub mod dmesg;
pub mod dumpfile;
pub mod error;
pub mod examine;
pub mod fake;
pub mod filter;
pub mod input;
pub mod kallsyms;
pub mod kernel;
pub mod live_patches;
pub mod memmap;
pub mod output;
pub mod paging;
pub mod pipeline;
pub mod progress;
pub mod report;
#[cfg(feature = "send")]
pub mod send;
pub mod units;
pub mod usage;
pub mod uses;
pub mod vmcore;
pub mod vmcoreinfo;
pub mod workers;
