//! What is in an image: for people, and as JSON.

use super::{inner, kind, mode, printable};
use crate::build::MANIFEST;
use crate::cpio::read::{Archive, Entry, Part};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the image.
    Image,
    /// By size, the largest last.
    Size,
}

/// dracut's list of its own modules.
const DRACUT_MODULES: [&str; 2] = ["usr/lib/dracut/modules.txt", "lib/dracut/modules.txt"];

/// Longer names do not push the reasons of others to the right.
const WIDEST: usize = 72;

/// Why each entry of an image of ours is in it.
fn reasons(archive: &Archive) -> BTreeMap<String, String> {
    let files = archive.files();
    let text = files.get(MANIFEST).map(|entry| String::from_utf8_lossy(archive.data(entry)).into_owned());
    let line = |line: &str| line.split_once('\t').map(|(path, reason)| (path.to_owned(), reason.to_owned()));
    text.iter().flat_map(|text| text.lines()).filter_map(line).collect()
}

/// Reads what a list shows of an image.
fn read(image: &[u8]) -> anyhow::Result<Archive> {
    Archive::read_with(image, &|entry| {
        let path = entry.path();
        path == MANIFEST || DRACUT_MODULES.contains(&path.as_ref())
    })
}

/// Lists an image.
///
/// # Errors
/// It cannot be read, or `out` refuses.
pub fn list(image: &[u8], order: Order, out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = read(image)?;
    let reasons = reasons(&archive);
    let mut entries: Vec<&Entry> = archive.entries.iter().collect();
    if order == Order::Size {
        entries.sort_by_key(|entry| archive.size(entry));
    }
    let widest = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).min(WIDEST);
    for entry in entries {
        let path = entry.path();
        let name = match entry.is(libc::S_IFLNK) {
            true => printable(&format!("{path} -> {}", String::from_utf8_lossy(archive.data(entry)))),
            false => printable(&path),
        };
        let (mode, size) = (mode(entry), size(&archive, entry));
        match reasons.get(path.as_ref()) {
            Some(reason) => writeln!(out, "{mode} {size:>9} {name:widest$}  {}", printable(reason))?,
            None => writeln!(out, "{mode} {size:>9} {name}")?,
        }
    }
    if archive.parts.len() > 1 {
        for (number, part) in archive.parts.iter().enumerate() {
            writeln!(out, "part {}: {}", number + 1, part_line(part, number < archive.early_parts()))?;
        }
    }
    for inner in inner::of(&archive) {
        writeln!(out, "{}", inner.words())?;
    }
    let total: u64 = archive.entries.iter().map(|entry| archive.size(entry)).sum();
    writeln!(out, "{} entries, {total} bytes in them, {} bytes of image", archive.entries.len(), image.len())?;
    Ok(())
}

fn part_line(part: &Part, early: bool) -> String {
    let how =
        part.codec.map_or("not compressed".to_owned(), |codec| format!("{codec}, {} bytes unpacked", part.unpacked));
    let early = if early { ", for the kernel before it unpacks the rest" } else { "" };
    format!("{} entries in {} bytes from byte {}, {how}{early}", part.entries.len(), part.place.len(), part.place.start)
}

fn size(archive: &Archive, entry: &Entry) -> String {
    match entry.is(libc::S_IFCHR) || entry.is(libc::S_IFBLK) {
        true => format!("{},{}", entry.header.rdevmajor, entry.header.rdevminor),
        false => archive.size(entry).to_string(),
    }
}

/// Lists the modules of an image: those of dracut, if it made it, and those of the kernel; with `json` as JSON.
///
/// # Errors
/// As [`list`].
pub fn modules(image: &[u8], json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = read(image)?;
    let (files, reasons) = (archive.files(), reasons(&archive));
    let listed = DRACUT_MODULES.iter().find_map(|path| files.get(*path));
    let listed = listed.map(|listed| String::from_utf8_lossy(archive.data(listed)).into_owned());
    let of_kernel = files.iter().filter(|(path, entry)| entry.is(libc::S_IFREG) && is_module(path));
    let kernel: Vec<DescribedModule> = of_kernel
        .map(|(path, entry)| DescribedModule {
            path,
            size: archive.size(entry),
            reason: reasons.get(path.as_ref()).map(String::as_str),
        })
        .collect();
    if json {
        let dracut = listed.as_deref().map(|listed| listed.lines().collect());
        serde_json::to_writer_pretty(&mut *out, &DescribedModules { dracut, kernel, inner: names(&archive) })?;
        return Ok(writeln!(out)?);
    }
    if let Some(listed) = listed {
        writeln!(out, "dracut modules:")?;
        listed.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))?;
        writeln!(out, "kernel modules:")?;
    }
    for DescribedModule { path, size, reason } in kernel {
        writeln!(out, "{size:>9} {}  {}", printable(path), printable(reason.unwrap_or_default()))?;
    }
    for inner in inner::of(&archive) {
        writeln!(out, "{}", inner.words())?;
    }
    Ok(())
}

#[derive(Serialize)]
struct DescribedModules<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dracut: Option<Vec<&'a str>>,
    kernel: Vec<DescribedModule<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inner: Vec<&'static str>,
}

#[derive(Serialize)]
struct DescribedModule<'a> {
    path: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The file systems in it that are not looked into.
fn names(archive: &Archive) -> Vec<&'static str> {
    inner::of(archive).into_iter().map(|inner| inner.path).collect()
}

fn is_module(path: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|suffix| path.ends_with(suffix))
}

#[derive(Serialize)]
struct Described<'a> {
    bytes: usize,
    parts: Vec<DescribedPart>,
    entries: Vec<DescribedEntry<'a>>,
    /// File systems with further files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inner: Vec<&'static str>,
}

#[derive(Serialize)]
struct DescribedPart {
    compression: Option<String>,
    offset: usize,
    bytes: usize,
    unpacked: u64,
    early: bool,
    entries: usize,
}

#[derive(Serialize)]
struct DescribedEntry<'a> {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: u32,
    size: u64,
    part: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Lists an image as JSON.
///
/// # Errors
/// As [`list`].
pub fn describe(image: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
    let archive = read(image)?;
    let reasons = reasons(&archive);
    let early = archive.early_parts();
    let parts = archive.parts.iter().enumerate();
    let described = |(number, part): (usize, &Part)| DescribedPart {
        compression: part.codec.map(|codec| codec.to_string()),
        offset: part.place.start,
        bytes: part.place.len(),
        unpacked: part.unpacked,
        early: number < early,
        entries: part.entries.len(),
    };
    let entry = |part: usize, entry: &Entry| {
        let is_device = entry.is(libc::S_IFCHR) || entry.is(libc::S_IFBLK);
        let path = entry.path().into_owned();
        DescribedEntry {
            kind: kind(entry).1,
            mode: format!("{:04o}", entry.header.mode & 0o7777),
            uid: entry.header.uid,
            gid: entry.header.gid,
            mtime: entry.header.mtime,
            size: archive.size(entry),
            part,
            target: entry.is(libc::S_IFLNK).then(|| String::from_utf8_lossy(archive.data(entry)).into_owned()),
            device: is_device.then_some([entry.header.rdevmajor, entry.header.rdevminor]),
            reason: reasons.get(&path).map(String::as_str),
            path,
        }
    };
    let of_part = |(number, part): (usize, &Part)| {
        let entries = archive.entries.get(part.entries.clone()).unwrap_or_default();
        entries.iter().map(|found| entry(number, found)).collect::<Vec<_>>()
    };
    let all = Described {
        bytes: image.len(),
        parts: parts.clone().map(described).collect(),
        entries: parts.flat_map(of_part).collect(),
        inner: names(&archive),
    };
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)?;
    Ok(())
}
