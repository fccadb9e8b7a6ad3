//! The kdump-compressed file, version 6, and its relatives. In: kept pages. Out: a file crash, drgn and libkdumpfile
//! open.
//! May surprise: all places are known before the first page is written, except where each page's data lies; the order
//! of data is free. It is that of page frames, so that the same vmcore gives the same bytes, or, where a dump may be cut,
//! that of use (`order.rs`): descriptors lie where they would anyway, so readers see no difference.
//!
//! ```text
//!  0                       header         layout.rs   status has bit 0x08 (incomplete) until the very end
//!  1 block                 sub header     layout.rs
//!    + 104                 notes          copied from the vmcore, vmcoreinfo among them
//!  1 + sub_hdr_size        bitmap 1       bitmap.rs   pages the machine had
//!                          bitmap 2                   pages with a descriptor
//!  + bitmap_blocks         descriptors    24 bytes per page of bitmap 2, by page frame
//!                          data           one page of zeros, then each page's data, shared by neighbours that are alike
//! ```
//!
//! `write.rs` tells how batches of pages get there, one after the other (`turn.rs`); `read.rs` reads a dump back and is
//! the judge in tests; `memory.rs` makes it the machine's memory again, for whoever follows the kernel's pointers.
//! `elf/` writes an ELF core instead. Through a pipe either goes as a flattened stream (`flatten.rs`), of which
//! `rebuild.rs` makes the file again and `flat_file.rs` reads it without that; a dump that was split becomes one by
//! `reassemble.rs`.

pub mod bitmap;
pub mod elf;
pub mod flat_file;
pub mod flatten;
pub mod layout;
pub mod memory;
pub mod order;
pub mod read;
pub mod reassemble;
pub mod rebuild;
pub mod runs;
pub mod turn;
pub mod write;
