//! A device without a file system as the target.
//!
//! In: the `raw` directive and the machine. Out: a target with a name that lasts even though everything on the device is
//! overwritten; or a refusal, since what is on the device now may be somebody's.
//!
//! May surprise: with `raw_force yes` in kdump.conf nothing is refused, not even what is in use.

use crate::config::{Given, Wanted};
use crate::host::{SystemHost, Tree, sysfs};
use crate::target;
use anyhow::{Context, bail};
use kdump_hooks::raw::Raw;
use kdump_hooks::raw::layout::{Bad, FLATTENED, HEADER, Header};
use kdump_hooks::{DeviceSpec, Target};
use kdump_init::devices;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The target of a `raw` directive.
///
/// # Errors
/// The device holds something or is in use, and `raw_force` does not say yes.
pub fn target(
    device: &DeviceSpec,
    line: &Given<Wanted>,
    force: Option<&Given<bool>>,
    host: &SystemHost,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Target> {
    let force = force.is_some_and(|given| given.value);
    let tree = &host.tree;
    let names = if host.devices_are_here { sysfs::block_names(tree, device) } else { Vec::new() };
    for name in &names {
        if let Some(what) = occupied(tree, name).with_context(|| format!("{}: raw {device}", line.origin))? {
            if !force {
                bail!(
                    "{}: raw {device}: {name} {what}, which a dump would overwrite; name another device, or write \
                     `raw_force yes` if it may be lost",
                    line.origin
                );
            }
            warnings.push(format!("{}: {name} {what}; the next dump overwrites it", line.origin));
        }
    }
    let device = match device {
        DeviceSpec::Path(path) if host.devices_are_here => match sysfs::lasting_name_of_place(tree, path) {
            Some(name) => name,
            None => target::unnamed(path, line, BETTER, warnings)?,
        },
        DeviceSpec::Path(path) => target::unnamed(path, line, BETTER, warnings)?,
        other => other.clone(),
    };
    Ok(Target::Raw(Raw { device, force }))
}

/// How a raw device is named so that it is the same one in the capture kernel.
const BETTER: &str = "PARTUUID=… or WWID=…";

/// What would be lost on the device with that name in sysfs, or who would be disturbed.
fn occupied(tree: &Tree, name: &str) -> anyhow::Result<Option<String>> {
    let place = tree.canonical(&Path::new("/sys/class/block").join(name))?;
    let class = place.to_string_lossy();
    let number = tree.line(&format!("{class}/dev")).unwrap_or_default();
    if let Some(point) = mounted_at(tree, &number) {
        return Ok(Some(format!("is mounted at {point}")));
    }
    if is_swap(tree, &number) {
        return Ok(Some("is in use as swap".to_owned()));
    }
    let mut holders = entries(tree, &format!("{class}/holders"));
    holders.sort();
    if let Some(holder) = holders.first() {
        return Ok(Some(format!("is part of {holder}")));
    }
    let is_partition = |entry: &String| tree.path(&place).join(entry).join("partition").is_file();
    if entries(tree, &class).iter().any(is_partition) {
        return Ok(Some("has partitions".to_owned()));
    }
    let node = tree.path("dev").join(name.replace('!', "/"));
    let mut device = File::open(&node).with_context(|| format!("cannot look at what is on {}", node.display()))?;
    Ok(content(&mut device).with_context(|| format!("cannot read {}", node.display()))?.map(|it| format!("holds {it}")))
}

/// What is on a device that is not a dump of ours or of makedumpfile.
fn content(device: &mut File) -> std::io::Result<Option<String>> {
    let mut first = Vec::new();
    device.seek(SeekFrom::Start(0)).and_then(|_| device.by_ref().take(HEADER as u64).read_to_end(&mut first))?;
    if first.starts_with(FLATTENED) || Header::decode(&first) != Err(Bad::Foreign) {
        return Ok(None);
    }
    if let Some(found) = devices::probe(device)? {
        return Ok(Some(found.fstype.to_owned()));
    }
    for (name, at, magic) in SIGNATURES {
        let mut bytes = vec![0; magic.len()];
        match device.read_exact_at(&mut bytes, *at) {
            Ok(()) if bytes == *magic => return Ok(Some((*name).to_owned())),
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// Signatures of what init has no need to know: name, place, bytes. The master boot record comes last, since boot sectors
/// of file systems end in the same way.
const SIGNATURES: &[(&str, u64, &[u8])] = &[
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 4086, b"SWAP-SPACE"),
    ("a hibernated system", 4086, b"S1SUSPEND"),
    ("a partition table", 512, b"EFI PART"),
    ("a partition table", 4096, b"EFI PART"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("bitlocker", 3, b"-FVE-FS-"),
    ("squashfs", 0, b"hsqs"),
    ("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("iso9660", 32769, b"CD001"),
    ("jfs", 32768, b"JFS1"),
    ("reiserfs", 65588, b"ReIsEr"),
    ("minix", 1040, &[0x7f, 0x13]),
    ("minix", 1040, &[0x8f, 0x13]),
    ("minix", 1040, &[0x68, 0x24]),
    ("minix", 1040, &[0x78, 0x24]),
    ("minix", 1048, &[0x5a, 0x4d]),
    ("bcache", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81]),
    (
        "bcachefs",
        4120,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef],
    ),
    ("ceph", 0, b"bluestore block device"),
    ("zfs", 131_072, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ("zfs", 132_096, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ("a boot sector or partition table", 510, &[0x55, 0xaa]),
];

fn mounted_at(tree: &Tree, number: &str) -> Option<String> {
    let text = fs::read_to_string(tree.path("proc/self/mountinfo")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next() == Some(number)).then(|| fields.nth(1).unwrap_or_default().to_owned())
    })
}

fn is_swap(tree: &Tree, number: &str) -> bool {
    let text = fs::read_to_string(tree.path("proc/swaps")).unwrap_or_default();
    let nodes = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let known = sysfs::node_of_number(tree, number).ok();
    nodes.filter_map(|node| tree.canonical(Path::new(node)).ok()).any(|node| Some(&node) == known.as_ref())
}

fn entries(tree: &Tree, dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(tree.path(dir)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn content_of(parts: &[(u64, &[u8])]) -> Option<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        file.flush().unwrap();
        content(&mut file).unwrap()
    }

    #[test]
    fn what_is_on_a_device_is_told_unless_it_is_a_dump() {
        assert_eq!(content_of(&[]), None);
        assert_eq!(content_of(&[(1024 + 56, &[0x53, 0xef])]).as_deref(), Some("ext"));
        for (name, at, magic) in SIGNATURES {
            assert_eq!(content_of(&[(*at, magic)]).as_deref(), Some(*name));
        }
        let header = Header::begun(7, "6.1").encode();
        let mut damaged = header;
        damaged[300] ^= 1;
        for dump in [&header[..], &damaged, FLATTENED] {
            assert_eq!(content_of(&[(0, dump), (510, &[0x55, 0xaa])]), None);
        }
    }

    #[test]
    fn a_device_too_small_for_any_signature_is_empty() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(content(&mut file).unwrap(), None);
        file.write_all(&[1; 100]).unwrap();
        assert_eq!(content(&mut file).unwrap(), None);
    }
}
