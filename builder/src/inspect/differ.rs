//! How two images differ.

use super::{kind, mode, printable};
use crate::cpio::read::{Archive, Entry};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;

#[derive(Serialize)]
struct Difference {
    path: String,
    /// `+` only in the second, `-` only in the first, `*` in both.
    sign: char,
    /// What differs, in a few words.
    what: Vec<String>,
    /// The size in each.
    size: [Option<u64>; 2],
}

/// Tells how the second image differs from the first, whatever the order and the compression of both; whether it does.
/// Times do not count.
///
/// # Errors
/// One of them cannot be read, or `out` refuses.
pub fn diff(first: &[u8], second: &[u8], json: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    let archives = [Archive::read(first)?, Archive::read(second)?];
    let files = [archives[0].files(), archives[1].files()];
    let paths: BTreeSet<_> = files.iter().flat_map(|files| files.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let of = |number: usize| files.get(number)?.get(path).map(|entry| (&archives[number], *entry));
        let (sign, what) = match (of(0), of(1)) {
            (Some(old), Some(new)) => ('*', changes(old, new)),
            (Some(_), None) => ('-', Vec::new()),
            _ => ('+', Vec::new()),
        };
        if sign != '*' || !what.is_empty() {
            let size = [of(0), of(1)].map(|side| side.map(|(archive, entry)| archive.size(entry)));
            found.push(Difference { path: path.to_string(), sign, what, size });
        }
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &found)?;
        writeln!(out)?;
        return Ok(!found.is_empty());
    }
    for Difference { path, sign, what, size } in &found {
        let sizes = match size {
            [Some(old), Some(new)] if old != new => format!("{old} -> {new}"),
            [Some(size), _] | [_, Some(size)] => size.to_string(),
            [None, None] => String::new(),
        };
        writeln!(out, "{sign} {sizes:>20} {}{}", printable(path), printable(&told(what)))?;
    }
    let total = |archive: &Archive| archive.entries.iter().map(|entry| archive.size(entry)).sum::<u64>();
    let [old, new] = [&archives[0], &archives[1]].map(total);
    writeln!(
        out,
        "{} differences; {old} -> {new} bytes in them, {} -> {} bytes of image",
        found.len(),
        first.len(),
        second.len()
    )?;
    Ok(!found.is_empty())
}

fn told(what: &[String]) -> String {
    if what.is_empty() { String::new() } else { format!("  ({})", what.join(", ")) }
}

fn changes((old_archive, old): (&Archive, &Entry), (new_archive, new): (&Archive, &Entry)) -> Vec<String> {
    if kind(old) != kind(new) {
        return vec![format!("{} -> {}", kind(old).1, kind(new).1)];
    }
    let mut changes = Vec::new();
    if old.header.mode != new.header.mode {
        changes.push(format!("{} -> {}", mode(old), mode(new)));
    }
    let owner = |entry: &Entry| (entry.header.uid, entry.header.gid);
    if owner(old) != owner(new) {
        let [old, new] = [owner(old), owner(new)].map(|(user, group)| format!("{user}:{group}"));
        changes.push(format!("owner {old} -> {new}"));
    }
    let device = |entry: &Entry| (entry.header.rdevmajor, entry.header.rdevminor);
    if device(old) != device(new) {
        changes.push("another device".to_owned());
    }
    let (before, after) = (old_archive.data(old), new_archive.data(new));
    if before != after {
        changes.push(match old.is(libc::S_IFLNK) {
            true => format!("{} -> {}", String::from_utf8_lossy(before), String::from_utf8_lossy(after)),
            false => "content".to_owned(),
        });
    }
    changes
}
