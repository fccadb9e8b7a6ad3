//! The record buffer of Linux 3.5 to 5.9 (7ff9554bb578, "printk: convert byte-buffer to variable-length record buffer").
//! In: `SYMBOL(log_buf)`, the indices into it and the offsets of a record's header. Out: records.
//!
//! ```text
//!  log_buf            log_next_idx        log_first_idx                     log_buf_len
//!  | header text pad | … | (old, being overwritten) | header text pad | … | header, len 0 | unused |
//! ```
//!
//! May surprise: a header with length 0 means "go on at the start". The oldest and the newest record meet only in an
//! empty log. So the walk goes upward, round the end once at most, and never past `log_next_idx`: it cannot go in
//! circles whatever the lengths say, and a length that leads elsewhere ends it, since nothing tells where the next
//! record begins.

use std::io;

use crate::paging::{Virtual, WalkError};
use crate::units::{VirtAddr, le16, le32, le64};
use crate::vmcoreinfo::Facts;

use super::{Found, LogError, Record, Since, need};

struct Layout {
    header: usize,
    time: usize,
    length: usize,
    text_length: usize,
    /// Since Linux 5.1, with CONFIG_PRINTK_CALLER (15ff2069cb7f).
    caller: Option<usize>,
}

struct Buffer {
    base: VirtAddr,
    len: u64,
    first: u64,
    next: u64,
}

/// The header was `struct log` until Linux 3.11 named it `struct printk_log` (62e32ac3505a).
fn layout(facts: &Facts) -> Result<Layout, LogError> {
    let name = if facts.size("printk_log").is_some() { "printk_log" } else { "log" };
    let offset = |member: &str| {
        let member = format!("{name}.{member}");
        need(facts.offset(&member), &format!("OFFSET({member})"))
    };
    let header = need(facts.size(name), "SIZE(printk_log)")?;
    let layout = Layout {
        header,
        time: offset("ts_nsec")?,
        length: offset("len")?,
        text_length: offset("text_len")?,
        caller: facts.offset(&format!("{name}.caller_id")),
    };
    let ends = [layout.time + 8, layout.length + 2, layout.text_length + 2, layout.caller.map_or(0, |at| at + 4)];
    if ends.into_iter().any(|end| end > header) {
        return Err(LogError::Missing(format!("the members of struct {name} lie outside it")));
    }
    Ok(layout)
}

fn unread(error: &WalkError) -> LogError {
    LogError::Missing(format!("its record buffer cannot be read ({})", crate::error::chain(error)))
}

/// The 4 bytes of the variable `name`.
fn number(facts: &Facts, mem: &mut Virtual<'_>, name: &str) -> Result<u64, LogError> {
    let at = need(facts.symbol(name), &format!("SYMBOL({name})"))?;
    let mut bytes = [0; 4];
    mem.read(at, &mut bytes).map_err(|e| unread(&e))?;
    Ok(u32::from_le_bytes(bytes).into())
}

fn buffer(facts: &Facts, mem: &mut Virtual<'_>) -> Result<Buffer, LogError> {
    let pointer = need(facts.symbol("log_buf"), "SYMBOL(log_buf)")?;
    Ok(Buffer {
        base: mem.pointer(pointer).map_err(|e| unread(&e))?,
        len: number(facts, mem, "log_buf_len")?,
        first: number(facts, mem, "log_first_idx")?,
        next: number(facts, mem, "log_next_idx")?,
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
    let buffer = buffer(facts, mem)?;
    let mut wanted = true;
    let mut cleared = None;
    if since == Since::Clear {
        let at = number(facts, mem, "clear_idx")?;
        let mut there = at == buffer.next;
        walk(&layout, &buffer, mem, &mut |_, place, _| {
            there |= place == at;
            Ok(())
        })?;
        // Where the walk does not come past that place, all that was cleared has been overwritten.
        wanted = !there;
        cleared = Some(at);
    }
    let mut text = Vec::new();
    let mut found = Found::default();
    let whole = walk(&layout, &buffer, mem, &mut |mem, place, header| {
        wanted |= cleared == Some(place);
        let Some(header) = header.filter(|_| wanted) else { return Ok(()) };
        match body(&layout, &buffer, mem, place, header, &mut text) {
            Some(record) => {
                found.records += 1;
                each(&record)
            }
            None => {
                found.lost += 1;
                Ok(())
            }
        }
    })?;
    // How many records lie behind the damage is not known.
    found.lost += u64::from(!whole);
    Ok(found)
}

/// Sees the place of a record and its header; without one, where the walk goes on at the start.
type See<'a> = dyn FnMut(&mut Virtual<'_>, u64, Option<&[u8]>) -> io::Result<()> + 'a;

/// Calls `see` for every record; false if the walk ended before the newest.
fn walk(layout: &Layout, buffer: &Buffer, mem: &mut Virtual<'_>, see: &mut See<'_>) -> io::Result<bool> {
    let header_len = layout.header as u64;
    let mut header = vec![0; layout.header];
    let (mut at, mut to_come) = (buffer.first, buffer.first > buffer.next);
    while to_come || at != buffer.next {
        let limit = if to_come { buffer.len } else { buffer.next };
        let fits = at.checked_add(header_len).is_some_and(|end| end <= limit && end <= buffer.len);
        let place = buffer.base.checked_add(at).filter(|_| fits);
        let Some(place) = place else { return Ok(false) };
        if mem.read(place, &mut header).is_err() {
            return Ok(false);
        }
        let length = u64::from(le16(&header, layout.length).unwrap_or(0));
        if length == 0 && to_come {
            see(mem, at, None)?;
            (at, to_come) = (0, false);
            continue;
        }
        if length < header_len || at + length > limit {
            return Ok(false);
        }
        see(mem, at, Some(&header))?;
        at += length;
    }
    Ok(true)
}

/// The record at `place`; `None` if its text cannot be read.
fn body<'a>(
    layout: &Layout,
    buffer: &Buffer,
    mem: &mut Virtual<'_>,
    place: u64,
    header: &[u8],
    text: &'a mut Vec<u8>,
) -> Option<Record<'a>> {
    let room = usize::from(le16(header, layout.length)?).checked_sub(layout.header)?;
    text.resize(usize::from(le16(header, layout.text_length)?).min(room), 0);
    mem.read(buffer.base.checked_add(place + layout.header as u64)?, text).ok()?;
    Some(Record { ts_nsec: le64(header, layout.time)?, caller: layout.caller.and_then(|at| le32(header, at)), text })
}
