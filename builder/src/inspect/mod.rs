//! `lsinitrd`: what is in an image, and why.
//!
//! In: an image, of any builder, and which words were typed. Out: lists, files of it, or its files below a directory.
//! Names and link targets come from strangers: none reaches a terminal as it is, and none leads out of the directory.

mod differ;
mod extract;
mod find;
mod inner;
mod list;

pub use differ::diff;
pub use extract::{Extract, Extracted, extract};
pub use find::{boot_image_of, image_of};
pub use list::{Order, describe, list, modules};

use crate::cpio::read::{Archive, Entry};
use anyhow::Context;
use kdump_init::config::{self as contract, ImageConfig};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path};

/// More links than this on the way to a file go in circles.
const MAX_LINKS: usize = 40;

/// Prints one file of an image; links on the way to it are followed.
///
/// # Errors
/// The image cannot be read, or has no such file.
pub fn print(image: &[u8], path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    // Where links lead is known when all of them have been seen. Mostly they lead to a file of the same name.
    let name = path.rsplit('/').next().unwrap_or(path).as_bytes();
    let archive = Archive::read_with(image, &|entry| entry.name.ends_with(name))?;
    let Place { entry, content } = find_file(&archive, path)?;
    if archive.size(entry) == archive.data(entry).len() as u64 {
        return Ok(out.write_all(archive.data(entry))?);
    }
    let (name, inode) = (entry.name.clone(), content);
    let archive =
        Archive::read_with(image, &|entry| entry.name == name || (inode.is_some() && entry.inode() == inode))?;
    let Place { entry, .. } = find_file(&archive, path)?;
    Ok(out.write_all(archive.data(entry))?)
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

/// The same of an image that has been read.
///
/// # Errors
/// As [`config`].
pub fn config_of(archive: &Archive) -> anyhow::Result<ImageConfig> {
    let Place { entry, .. } = find_file(archive, contract::PATH)?;
    ImageConfig::parse(&String::from_utf8_lossy(archive.data(entry)))
}

struct Place<'a> {
    entry: &'a Entry,
    /// The file that it is one of several names of.
    content: Option<(usize, u32, u32, u32)>,
}

fn find_file<'a>(archive: &'a Archive, path: &str) -> anyhow::Result<Place<'a>> {
    let files = archive.files();
    let missing = || {
        let inner = inner::of(archive).into_iter().map(|inner| format!(", but {}", inner.words()));
        format!("there is no {path} in it{}", inner.collect::<String>())
    };
    let real = follow(archive, &files, path).with_context(missing)?;
    let entry = files.get(real.as_str()).with_context(missing)?;
    Ok(Place { entry, content: entry.inode() })
}

/// The path without links, as the kernel would find it; the file itself need not be there.
fn follow(archive: &Archive, files: &BTreeMap<Cow<'_, str>, &Entry>, path: &str) -> Option<String> {
    let names = |path: &str| {
        let parts = Path::new(path).components().rev().filter_map(|part| match part {
            Component::Normal(name) => name.to_str().map(str::to_owned),
            Component::ParentDir => Some("..".to_owned()),
            _ => None,
        });
        parts.collect::<Vec<String>>()
    };
    let mut todo = names(path);
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(name);
        let Some(entry) = files.get(done.join("/").as_str()).filter(|entry| entry.is(libc::S_IFLNK)) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let target = String::from_utf8_lossy(archive.data(entry)).into_owned();
        match target.starts_with('/') {
            true => done.clear(),
            false => drop(done.pop()),
        }
        todo.extend(names(&target));
    }
    Some(done.join("/"))
}

/// As ls(1) writes it.
fn mode(entry: &Entry) -> String {
    let bits = "rwxrwxrwx".chars().zip((0..9).rev());
    let bits = bits.map(|(letter, bit)| if entry.header.mode >> bit & 1 == 1 { letter } else { '-' });
    let mut mode: Vec<char> = std::iter::once(kind(entry).0).chain(bits).collect();
    // These stand where the leave to execute does, as a capital where there is none.
    for (bit, at, letter) in [(libc::S_ISUID, 3, 's'), (libc::S_ISGID, 6, 's'), (libc::S_ISVTX, 9, 't')] {
        if entry.header.mode & bit != 0 {
            mode[at] = if mode[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    mode.into_iter().collect()
}

/// What an entry is: in a letter and in a word.
fn kind(entry: &Entry) -> (char, &'static str) {
    let kinds = [
        (libc::S_IFREG, ('-', "file")),
        (libc::S_IFDIR, ('d', "directory")),
        (libc::S_IFLNK, ('l', "symlink")),
        (libc::S_IFCHR, ('c', "character device")),
        (libc::S_IFBLK, ('b', "block device")),
        (libc::S_IFIFO, ('p', "fifo")),
        (libc::S_IFSOCK, ('s', "socket")),
    ];
    kinds.iter().find(|(kind, _)| entry.is(*kind)).map_or(('?', "unknown"), |(_, known)| *known)
}

/// What a terminal would act on is not sent to it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
