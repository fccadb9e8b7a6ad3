//! The lockless ring buffer of Linux 5.10 and later (896fbe20b4e2, "printk: use the lockless ringbuffer"). In:
//! `SYMBOL(prb)` and the offsets of its structs. Out: records.
//! May surprise: positions in the text ring grow for ever and are taken modulo its size; a block that would cross the
//! end lies at the start instead, and one that ends exactly at the end does not. So a block has wrapped if its first
//! and its last byte are in different rounds.
//!
//! Every length comes from a crashed kernel: the walk is bounded by the number of descriptors, a text by 64 KiB.

use std::io;

use crate::paging::{Virtual, WalkError};
use crate::units::{VirtAddr, le16, le32, le64, to_usize};
use crate::vmcoreinfo::Facts;

use super::{Found, LogError, Record, Since, need};

/// The top two bits of a descriptor's state are its state, the rest its id.
const ID: u64 = u64::MAX >> 2;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
/// Given back; the ring begins its life with one such record.
const REUSABLE: u64 = 3;

/// `FAILED_LPOS`: the text of the record was dropped.
const FAILED: u64 = 1;

/// 2^26 descriptors are 64 times what the largest log_buf_len of 2 GiB makes.
const MAX_COUNT_BITS: u32 = 26;
const MAX_SIZE_BITS: u32 = 32;

/// So many lost records in a row mean that there is no log here.
const GIVE_UP: u64 = 1 << 16;

struct Layout {
    descriptor: usize,
    state: usize,
    begin: usize,
    next: usize,
    info: usize,
    time: usize,
    length: usize,
    caller: Option<usize>,
    sequence: Option<usize>,
}

struct Ring {
    count: u64,
    descriptors: VirtAddr,
    infos: VirtAddr,
    head: u64,
    tail: u64,
    size: u64,
    data: VirtAddr,
}

fn layout(facts: &Facts) -> Result<Layout, LogError> {
    let offset = |member: &str| need(facts.offset(member), &format!("OFFSET({member})"));
    let size = |name: &str| need(facts.size(name), &format!("SIZE({name})"));
    let text = offset("prb_desc.text_blk_lpos")?;
    Ok(Layout {
        descriptor: size("prb_desc")?,
        state: offset("prb_desc.state_var")? + offset("atomic_long_t.counter")?,
        begin: text + offset("prb_data_blk_lpos.begin")?,
        next: text + offset("prb_data_blk_lpos.next")?,
        info: size("printk_info")?,
        time: offset("printk_info.ts_nsec")?,
        length: offset("printk_info.text_len")?,
        caller: facts.offset("printk_info.caller_id"),
        sequence: facts.offset("printk_info.seq"),
    })
}

fn unread(error: &WalkError) -> LogError {
    LogError::Missing(format!("its ring buffer cannot be read ({})", crate::error::chain(error)))
}

/// The sequence number of the first record since the last clear. Where the kernel keeps two copies of it, the lowest
/// bit of the counter before them says which one is not being written ("printk: use seqcount_latch for clear_seq").
fn clear_sequence(facts: &Facts, mem: &mut Virtual<'_>) -> Result<u64, LogError> {
    let symbol = need(facts.symbol("clear_seq"), "SYMBOL(clear_seq)")?;
    let skip = match facts.offset("latched_seq.val") {
        None => 0,
        Some(values) => {
            let mut counter = [0; 4];
            mem.read(symbol, &mut counter).map_err(|e| unread(&e))?;
            values as u64 + 8 * u64::from(counter[0] & 1)
        }
    };
    let place = symbol.checked_add(skip).ok_or(LogError::Missing("SYMBOL(clear_seq) makes no sense".into()))?;
    mem.u64(place).map_err(|e| unread(&e))
}

fn ring(facts: &Facts, mem: &mut Virtual<'_>) -> Result<Ring, LogError> {
    let symbol = need(facts.symbol("prb"), "SYMBOL(prb)")?;
    let offset = |member: &str| need(facts.offset(member), &format!("OFFSET({member})"));
    let counter = offset("atomic_long_t.counter")?;
    let descs = offset("printk_ringbuffer.desc_ring")?;
    let texts = offset("printk_ringbuffer.text_data_ring")?;
    let prb = mem.pointer(symbol).map_err(|e| unread(&e))?;
    let mut word = |at: usize, bytes: usize| {
        let mut buffer = [0; 8];
        let place = prb.checked_add(at as u64).ok_or(LogError::Missing("its ring buffer is nowhere".into()))?;
        mem.read(place, &mut buffer[..bytes]).map_err(|e| unread(&e))?;
        Ok::<u64, LogError>(u64::from_le_bytes(buffer))
    };
    let bits = |value: u64, most: u32, what: &str| {
        let bits = u32::try_from(value).ok().filter(|bits| (1..=most).contains(bits));
        bits.map(|bits| 1 << bits).ok_or_else(|| LogError::Missing(format!("2^{value} {what} cannot be")))
    };
    Ok(Ring {
        count: bits(word(descs + offset("prb_desc_ring.count_bits")?, 4)?, MAX_COUNT_BITS, "records")?,
        descriptors: VirtAddr(word(descs + offset("prb_desc_ring.descs")?, 8)?),
        infos: VirtAddr(word(descs + offset("prb_desc_ring.infos")?, 8)?),
        head: word(descs + offset("prb_desc_ring.head_id")? + counter, 8)? & ID,
        tail: word(descs + offset("prb_desc_ring.tail_id")? + counter, 8)? & ID,
        size: bits(word(texts + offset("prb_data_ring.size_bits")?, 4)?, MAX_SIZE_BITS, "bytes of text")?,
        data: VirtAddr(word(texts + offset("prb_data_ring.data")?, 8)?),
    })
}

/// Calls `each` for every record, oldest first.
pub(super) fn records(
    facts: &Facts,
    mem: &mut Virtual<'_>,
    since: Since,
    each: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
) -> Result<Found, LogError> {
    let layout = layout(facts)?;
    let ring = ring(facts, mem)?;
    let first = match since {
        Since::Boot => 0,
        Since::Clear => {
            need(layout.sequence, "OFFSET(printk_info.seq)")?;
            clear_sequence(facts, mem)?
        }
    };
    let mut found = Found::default();
    let mut scratch = Scratch { descriptor: vec![0; layout.descriptor], info: vec![0; layout.info], text: Vec::new() };
    // A damaged tail must not make the walk longer than the ring.
    let steps = (ring.head.wrapping_sub(ring.tail) & ID).min(ring.count - 1);
    let mut in_a_row = 0;
    for back in (0..=steps).rev() {
        if in_a_row == GIVE_UP {
            found.lost += back + 1;
            break;
        }
        let id = ring.head.wrapping_sub(back) & ID;
        match scratch.read(&layout, &ring, mem, id) {
            // Not asked for, nor is what was lost before it.
            Some(Some((sequence, _))) if sequence < first => (found.lost, in_a_row) = (0, 0),
            Some(Some((_, record))) => {
                each(&record)?;
                found.records += 1;
                in_a_row = 0;
            }
            Some(None) => in_a_row = 0,
            None => {
                found.lost += 1;
                in_a_row += 1;
            }
        }
    }
    Ok(found)
}

struct Scratch {
    descriptor: Vec<u8>,
    info: Vec<u8>,
    text: Vec<u8>,
}

impl Scratch {
    /// The record with `id` and its sequence number; `Some(None)` if it has no text, `None` if it is lost.
    fn read(
        &mut self,
        layout: &Layout,
        ring: &Ring,
        mem: &mut Virtual<'_>,
        id: u64,
    ) -> Option<Option<(u64, Record<'_>)>> {
        let index = id % ring.count;
        mem.read(ring.descriptors.checked_add(index * layout.descriptor as u64)?, &mut self.descriptor).ok()?;
        let state = le64(&self.descriptor, layout.state)?;
        match state >> 62 {
            _ if state & ID != id => return None,
            COMMITTED | FINALIZED => {}
            REUSABLE => return Some(None),
            _ => return None,
        }
        let (begin, next) = (le64(&self.descriptor, layout.begin)?, le64(&self.descriptor, layout.next)?);
        if begin % ring.size == next % ring.size {
            return if begin == FAILED { None } else { Some(None) };
        }
        mem.read(ring.infos.checked_add(index * layout.info as u64)?, &mut self.info).ok()?;
        let (start, len) = block(begin, next, ring.size)?;
        let len = usize::from(le16(&self.info, layout.length)?).min(to_usize(len)?);
        self.text.resize(len, 0);
        mem.read(ring.data.checked_add(start)?, &mut self.text).ok()?;
        let record = Record {
            ts_nsec: le64(&self.info, layout.time)?,
            caller: layout.caller.and_then(|at| le32(&self.info, at)),
            text: &self.text,
        };
        Some(Some((layout.sequence.and_then(|at| le64(&self.info, at)).unwrap_or(u64::MAX), record)))
    }
}

/// Where in the ring of `size` bytes the text of a block lies, and the room it has; behind the block's 8-byte id.
fn block(begin: u64, next: u64, size: u64) -> Option<(u64, u64)> {
    let last = next.checked_sub(1)?;
    let start = if begin / size == last / size { begin % size } else { 0 };
    let len = (last % size + 1).checked_sub(start)?;
    Some((start + 8, len.checked_sub(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_ends_exactly_at_the_end_of_the_ring_has_not_wrapped() {
        assert_eq!(block(4096 - 64, 4096, 4096), Some((4096 - 64 + 8, 56)));
        assert_eq!(block(3 * 4096 - 64, 3 * 4096, 4096), Some((4096 - 64 + 8, 56)));
    }

    #[test]
    fn a_block_that_would_cross_the_end_lies_at_the_start() {
        assert_eq!(block(4096 - 16, 4096 + 48, 4096), Some((8, 40)));
    }

    #[test]
    fn a_block_without_room_for_its_id_is_no_block() {
        assert_eq!(block(100, 104, 4096), None);
        assert_eq!(block(200, 100, 4096), None);
        assert_eq!(block(1, 0, 4096), None);
    }
}
