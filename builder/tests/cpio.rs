//! The archive, written and read: by ourselves, by GNU cpio, and as hostile bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

use kdump_builder::cpio::layout::Header;
use kdump_builder::cpio::read::Archive;
use kdump_builder::cpio::write::{Packing, write};
use kdump_builder::plan::{Entry, Kind, Plan};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn archive(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    write(plan, 0, Packing::None, &mut out).unwrap();
    out
}

fn sample() -> Plan {
    let mut plan = Plan::default();
    plan.add(Entry::program("init", vec![7; 4097], "test")).unwrap();
    plan.add(Entry::symlink("sbin/modprobe", "/init", "test")).unwrap();
    plan.add(Entry::file("etc/empty", Vec::new(), "test")).unwrap();
    plan.add(Entry::file("etc/text", b"hello\n".to_vec(), "test")).unwrap();
    plan
}

/// Runs GNU cpio; `None`, with the reason on stderr, if there is none.
fn cpio(arguments: &[&str], dir: &Path, input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new("cpio")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no cpio program here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

#[test]
fn gnu_cpio_lists_and_unpacks_what_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(&sample());
    let Some(list) = cpio(&["-t", "--quiet"], dir.path(), &bytes) else { return };
    assert_eq!(String::from_utf8(list).unwrap(), "etc\nsbin\netc/empty\netc/text\ninit\nsbin/modprobe\n");
    cpio(&["-i", "--quiet", "--no-absolute-filenames"], dir.path(), &bytes).unwrap();
    assert_eq!(fs::read(dir.path().join("etc/text")).unwrap(), b"hello\n");
    assert_eq!(fs::metadata(dir.path().join("init")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(dir.path().join("sbin/modprobe")).unwrap(), Path::new("/init"));
}

#[test]
fn we_read_what_gnu_cpio_writes_hard_links_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), "shared").unwrap();
    fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
    for format in ["newc", "crc"] {
        let Some(bytes) = cpio(&["-o", "--quiet", "-H", format], dir.path(), b"one\ntwo\n") else { return };
        let archive = Archive::read(&bytes).unwrap();
        let files = archive.files();
        for name in ["one", "two"] {
            assert_eq!(archive.data(files[name]), b"shared", "{format} {name}");
        }
    }
}

#[test]
fn a_packed_image_has_the_same_entries_with_what_is_compressed_left_alone() {
    let mut plan = sample();
    let module = zstd::encode_all([3; 5000].as_slice(), 1).unwrap();
    plan.add(Entry::file("lib/x.ko.zst", module.clone(), "test")).unwrap();
    plan.add(Entry::file("lib/y.ko", vec![5; 4000], "test")).unwrap();
    plan.add(Entry::program("bin/tool", [b"\x7fELF".as_slice(), &[6; 3000]].concat(), "test")).unwrap();
    // Names of one file are known within an archive alone: what is in two of them is there twice.
    plan.add(Entry::file("lib/firmware/same", b"hello\n".to_vec(), "test")).unwrap();
    let plain_image = archive(&plan);
    let plain = Archive::read(&plain_image).unwrap();
    for packing in [Packing::Zstd, Packing::Xz, Packing::Gzip, Packing::Lz4] {
        let mut packed = Vec::new();
        write(&plan, 0, packing, &mut packed).unwrap();
        assert!(packed.len() < plain_image.len());
        assert!(packed.windows(module.len()).any(|window| window == module));
        // Something may follow, such as an overlay.
        packed.extend(&plain_image);
        let packed = Archive::read(&packed).unwrap();
        let codec = packing.codec();
        let expected = match packing {
            Packing::Lz4 => vec![None, codec, None],
            _ => vec![None, codec, codec, codec, None],
        };
        assert_eq!(packed.parts.iter().map(|part| part.codec).collect::<Vec<_>>(), expected);
        let own = packed.parts[expected.len() - 1].entries.start;
        assert_eq!(own, plain.entries.len());
        for entry in &packed.entries[..own] {
            let same = plain.entries.iter().find(|other| other.name == entry.name).unwrap();
            assert_eq!(packed.data(entry), plain.data(same), "{packing} {}", entry.path());
            let header = Header { ino: same.header.ino, nlink: same.header.nlink, ..entry.header };
            assert_eq!(
                Header { filesize: 0, ..header },
                Header { filesize: 0, ..same.header },
                "{packing} {}",
                entry.path()
            );
        }
    }
}

#[test]
fn equal_files_are_written_once_and_unpack_to_one_file_with_several_names() {
    let mut plan = sample();
    for name in ["a", "etc/b", "z"] {
        plan.add(Entry::file(name, vec![9; 10_000], "test")).unwrap();
    }
    plan.add(Entry::program("other-mode", vec![9; 10_000], "test")).unwrap();
    let bytes = archive(&plan);
    assert!(bytes.len() < 10_000 * 2 + 8000, "{}", bytes.len());
    let read = Archive::read(&bytes).unwrap();
    let files = read.files();
    for name in ["a", "etc/b", "z", "other-mode"] {
        assert_eq!(read.data(files[name]), [9; 10_000], "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    if cpio(&["-i", "--quiet", "--no-absolute-filenames"], dir.path(), &bytes).is_none() {
        return;
    }
    let inode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().ino();
    assert_eq!((inode("a"), inode("etc/b")), (inode("z"), inode("z")));
    assert_ne!(inode("a"), inode("other-mode"));
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), [9; 10_000]);
}

/// A compressed copy, by the program that distributions' builders call, with the options that they give; `None`, with the
/// reason on stderr, if it is not there.
fn packed(program: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let (name, options) = program.split_first().unwrap();
    let child = Command::new(name).args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no {name} here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

/// What lzop writes, all blocks stored or compressed by the collector's own.
fn stored_lzop(bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x89LZO\0\r\n\x1a\n\x10\x30\x20\xa0\x09\x40\x01\x05\x03\x00\x00\x01".to_vec();
    file.extend([0; 12]);
    file.extend([1, b'x', 0, 0, 0, 0]);
    for block in bytes.chunks(256 << 10) {
        let size = u32::try_from(block.len()).unwrap().to_be_bytes();
        file.extend([size, size, [0; 4]].concat());
        file.extend(block);
    }
    file.extend([0; 4]);
    file
}

#[test]
fn archives_behind_each_other_are_one_image_in_every_compression_that_kernels_know() {
    let mut plan = sample();
    let noise: Vec<u8> = (0..900_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
    plan.add(Entry::file("large", noise, "test")).unwrap();
    let plain = archive(&plan);
    let programs: [&[&str]; 9] = [
        &["gzip", "-9", "-n"],
        &["bzip2", "-9"],
        &["lzma", "-9"],
        &["xz", "--check=crc32"],
        &["xz", "-9e"],
        &["lzop", "-9"],
        &["lz4", "-l", "-9"],
        &["zstd", "-q", "-3"],
        &["zstd", "-q", "-19", "--long=27"],
    ];
    let compressed = programs.iter().filter_map(|program| packed(program, &plain)).chain([stored_lzop(&plain)]);
    let early = {
        let mut plan = Plan::default();
        plan.add(Entry::file("kernel/x86/microcode/GenuineIntel.bin", vec![1; 2048], "test")).unwrap();
        archive(&plan)
    };
    for second in compressed.chain([plain.clone()]) {
        // A legacy frame of lz4 has no end, so that padding has to follow.
        let image = [early.as_slice(), &[0; 512], &second, &[0; 512], &plain, &[0; 5]].concat();
        let archive = Archive::read(&image).unwrap();
        assert_eq!((archive.parts.len(), archive.early_parts()), (3, 1));
        assert_eq!(archive.parts[2].entries.len(), archive.parts[1].entries.len());
        assert_eq!(archive.parts[1].unpacked, plain.len() as u64);
        let texts: Vec<_> = archive.entries.iter().filter(|entry| entry.path() == "etc/text").collect();
        assert!(texts.len() == 2 && texts.iter().all(|entry| archive.data(entry) == b"hello\n"));
        let large: Vec<_> = archive.entries.iter().filter(|entry| entry.path() == "large").collect();
        assert_eq!(archive.data(large[0]), archive.data(large[1]));
    }
}

#[test]
fn what_is_not_asked_for_is_measured_but_not_kept() {
    let image = archive(&sample());
    let archive = Archive::read_with(&image, &|entry| entry.path() == "etc/text").unwrap();
    let files = archive.files();
    assert_eq!((archive.size(files["init"]), archive.data(files["init"])), (4097, &[] as &[u8]));
    assert_eq!(archive.data(files["etc/text"]), b"hello\n");
    assert_eq!(archive.data(files["sbin/modprobe"]), b"/init");
}

#[test]
fn a_boot_configuration_behind_an_image_is_no_part_of_it() {
    let text = b"kernel { a = 1 }\0\0\0\0";
    let size = u32::try_from(text.len()).unwrap().to_le_bytes();
    let image = [archive(&sample()).as_slice(), text, &size, &[0; 4], b"#BOOTCONFIG\n"].concat();
    assert_eq!(Archive::read(&image).unwrap().entries.len(), 6);
}

#[test]
fn what_cannot_be_read_is_named() {
    let plain = archive(&sample());
    let windows = packed(&["zstd", "-q", "-19", "--long=31", "--ultra"], &vec![0; 1 << 20]);
    for (image, words) in [
        (b"BZh91AY".to_vec(), "cannot unpack bzip2"),
        (vec![2, 0x21, 0x4c, 0x18, 1, 2], "cannot unpack lz4"),
        (b"\x89LZO\0\r\n\x1a\nx".to_vec(), "cannot unpack lzo"),
        (b"hello".to_vec(), "neither a newc archive nor compressed"),
        (Vec::new(), "there is no archive in it"),
        (plain.get(..200).unwrap().to_vec(), "cut off"),
        (vec![0x1f, 0x8b, 8, 0], "cannot unpack gzip"),
        (windows.unwrap_or(vec![0x28, 0xb5, 0x2f, 0xfd]), "cannot unpack zstd"),
    ] {
        let error = format!("{:#}", Archive::read(&image).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[d-f]{1,3}){0,2}", proptest::collection::vec(any::<u8>(), 0..50), 0..8)
    ) {
        let mut plan = Plan::default();
        for (path, bytes) in &files {
            // A file may be in the way of a directory; the plan says so and goes on without it.
            let _ = plan.add(Entry::file(path, bytes.clone(), "test"));
        }
        plan.add(Entry::directory("always", "test")).unwrap();
        let bytes = archive(&plan);
        prop_assert_eq!(bytes.len() % 4, 0);
        let archive = Archive::read(&bytes).unwrap();
        let written: Vec<_> = plan.entries().collect();
        prop_assert_eq!(archive.entries.len(), written.len());
        for (entry, read) in written.iter().zip(&archive.entries) {
            prop_assert_eq!(&entry.path, &read.path());
            if let Kind::File(bytes) = &entry.kind {
                prop_assert_eq!(bytes.as_slice(), archive.data(read));
            }
        }
    }

    #[test]
    fn damaged_archives_end_in_a_result(
        how in 0usize..6,
        changes in proptest::collection::vec((0usize..5000, any::<u8>()), 0..6),
        cut in 0usize..6000,
    ) {
        let packings = [Packing::None, Packing::Zstd, Packing::Xz, Packing::Gzip, Packing::Lz4];
        let mut bytes = match packings.get(how) {
            None => stored_lzop(&archive(&sample())),
            Some(packing) => {
                let mut bytes = Vec::new();
                write(&sample(), 0, *packing, &mut bytes).unwrap();
                bytes
            }
        };
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        if let Ok(archive) = Archive::read(&bytes) {
            for entry in &archive.entries {
                let _ = archive.data(entry);
            }
        }
    }

    #[test]
    fn arbitrary_numbers_in_a_header_end_in_a_result(field in 0usize..13, value: u32) {
        let mut bytes = archive(&sample());
        let at = 6 + field * 8;
        bytes.get_mut(at..at + 8).unwrap().copy_from_slice(format!("{value:08x}").as_bytes());
        let _ = Archive::read(&bytes);
    }
}
