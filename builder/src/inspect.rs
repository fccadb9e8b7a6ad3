//! `lsinitrd`: what is in an image, and why.
//!
//! In: an image, ours or not. Out: a line per entry with mode, size, path and, where the image has a manifest, the
//! reason; or one file of it.

use crate::build::MANIFEST;
use crate::cpio::read::{Archive, Entry};
use anyhow::Context;
use kdump_init::config::{self as contract, ImageConfig};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

/// Lists an image.
///
/// # Errors
/// It cannot be read, or `out` refuses.
pub fn list(image: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = Archive::read(image)?;
    let files = archive.files();
    let manifest =
        files.get(MANIFEST).map(|entry| String::from_utf8_lossy(archive.data(entry)).into_owned()).unwrap_or_default();
    let reasons: BTreeMap<&str, &str> = manifest.lines().filter_map(|line| line.split_once('\t')).collect();
    let widest = files.keys().map(|path| path.len()).max().unwrap_or(0).min(72);
    let mut total = 0;
    for entry in &archive.entries {
        let data = archive.data(entry);
        total += data.len();
        let path = entry.path();
        let name = match is(entry, libc::S_IFLNK) {
            true => Cow::Owned(format!("{path} -> {}", String::from_utf8_lossy(data))),
            false => path.clone(),
        };
        let line = match reasons.get(path.as_ref()) {
            Some(reason) => format!("{} {:>9} {name:widest$}  {reason}", mode(entry), size(entry, data)),
            None => format!("{} {:>9} {name}", mode(entry), size(entry, data)),
        };
        writeln!(out, "{}", line.chars().map(printable).collect::<String>())?;
    }
    writeln!(out, "{} entries, {total} bytes in them, {} bytes of image", archive.entries.len(), image.len())?;
    Ok(())
}

/// Prints one file of an image.
///
/// # Errors
/// The image cannot be read, or has no such file.
pub fn print(image: &[u8], path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = Archive::read(image)?;
    let wanted = path.trim_start_matches("./").trim_start_matches('/');
    let files = archive.files();
    let entry = files.get(wanted).with_context(|| format!("there is no {wanted} in it"))?;
    out.write_all(archive.data(entry))?;
    Ok(())
}

/// What an image of ours tells init.
///
/// # Errors
/// The image cannot be read, is none of ours, or is of another version.
pub fn config(image: &[u8]) -> anyhow::Result<ImageConfig> {
    let mut text = Vec::new();
    print(image, contract::PATH, &mut text)?;
    ImageConfig::parse(&String::from_utf8_lossy(&text))
}

fn is(entry: &Entry, kind: u32) -> bool {
    entry.header.mode & libc::S_IFMT == kind
}

fn size(entry: &Entry, data: &[u8]) -> String {
    match is(entry, libc::S_IFCHR) || is(entry, libc::S_IFBLK) {
        true => format!("{},{}", entry.header.rdevmajor, entry.header.rdevminor),
        false => data.len().to_string(),
    }
}

/// As ls(1) writes it.
fn mode(entry: &Entry) -> String {
    let kinds = [
        (libc::S_IFDIR, 'd'),
        (libc::S_IFLNK, 'l'),
        (libc::S_IFCHR, 'c'),
        (libc::S_IFBLK, 'b'),
        (libc::S_IFIFO, 'p'),
        (libc::S_IFSOCK, 's'),
    ];
    let kind = kinds.iter().find(|(kind, _)| is(entry, *kind)).map_or('-', |(_, letter)| *letter);
    let bits = "rwxrwxrwx".chars().zip((0..9).rev());
    let bits = bits.map(|(letter, bit)| if entry.header.mode >> bit & 1 == 1 { letter } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

/// Names come from strangers: what a terminal would act on is not sent to it.
fn printable(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}
