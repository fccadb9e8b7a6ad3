//! The judge is judged: a right dump passes, and every way of being wrong is noticed and named.

mod recipe;

use std::io::Write;

use anyhow::{Context, Result, ensure};
use qemu_tests::oracle::{KdumpFile, RawCore, compare, differences, read_back, unflatten};
use recipe::{BLOCK, Dump, Page, raw_core};
use tempfile::NamedTempFile;

/// What is done to a right dump, and a part of what the judge must then say.
type Corruption = (&'static str, fn(&mut Dump), &'static str);

const CORRUPTIONS: &[Corruption] = &[
    ("another signature", |dump| dump.header(0, b"DISKDUMP"), "the signature is"),
    ("an old version", |dump| dump.header(8, &5_u32.to_le_bytes()), "header version 5"),
    ("microseconds", |dump| dump.header(416, &4096_u64.to_le_bytes()), "microseconds"),
    ("an odd block size", |dump| dump.header(428, &4095_u32.to_le_bytes()), "block size 4095"),
    ("no CPU", |dump| dump.header(460, &0_u32.to_le_bytes()), "no CPU"),
    ("too few bitmap blocks", |dump| dump.header(436, &0_u32.to_le_bytes()), "bitmaps of 0 bytes"),
    ("bitmaps beyond the end", |dump| dump.header(436, &2000_u32.to_le_bytes()), "the bitmaps are cut off"),
    ("two values of max_mapnr", |dump| dump.header(440, &7_u32.to_le_bytes()), "max_mapnr"),
    ("notes elsewhere", |dump| dump.sub_header(48, &BLOCK.to_le_bytes()), "not behind the sub header"),
    ("notes too long", |dump| dump.sub_header(56, &BLOCK.to_le_bytes()), "reach into the bitmaps"),
    ("vmcoreinfo outside", |dump| dump.sub_header(32, &0_u64.to_le_bytes()), "outside the notes"),
    ("vmcoreinfo without a release", |dump| dump.sub_header(104, b"X"), "no kernel release"),
    ("a kept page that is not in the source", |dump| dump.set_bit(1, 3), "not within bitmap 1"),
    ("a page beyond the last", |dump| dump.set_bit(0, 15), "beyond max_mapnr"),
    ("cut off in the descriptors", |dump| dump.cut(dump.descriptors + 30), "do not fit"),
    ("cut off in the data", |dump| dump.cut(dump.bytes.len() as u64 - 1), "beyond the file"),
    ("a page never written", |dump| dump.descriptor(1, 0, &0_u64.to_le_bytes()), "never written"),
    ("data in the header", |dump| dump.descriptor(1, 0, &64_u64.to_le_bytes()), "before the page data"),
    ("data beyond the end", |dump| dump.descriptor(1, 0, &u64::MAX.to_le_bytes()), "beyond the file"),
    ("too much data", |dump| dump.oversize(1), "4097 bytes of data"),
    ("no data", |dump| dump.descriptor(1, 8, &0_u32.to_le_bytes()), "0 bytes of data"),
    ("an unknown codec", |dump| dump.descriptor(1, 12, &0x40_u32.to_le_bytes()), "unknown flags 0x40"),
    ("a codec for plain data", |dump| dump.descriptor(0, 12, &1_u32.to_le_bytes()), "flags 0x1 with 4096"),
    ("the wrong codec", |dump| dump.descriptor(1, 12, &0x20_u32.to_le_bytes()), "zstd frame is broken"),
    ("page flags", |dump| dump.descriptor(1, 16, &1_u64.to_le_bytes()), "page flags are not zero"),
    ("swapped pages", |dump| dump.swap_descriptors(1, 2), "differs from the source at byte 0x0"),
    ("a flipped byte in a plain page", |dump| dump.flip_data(0, 77), "differs from the source at byte 0x4d"),
    ("a flipped byte in a zlib page", |dump| dump.flip_data(1, 9), "zlib"),
    ("a flipped byte in an lzo page", |dump| dump.flip_data(3, 3), "pfn 0x6"),
    ("a flipped byte in a snappy page", |dump| dump.flip_data(4, 3), "pfn 0x7"),
    ("lzo for zlib data", |dump| dump.descriptor(1, 12, &2_u32.to_le_bytes()), "pfn 0x1"),
    ("snappy for zlib data", |dump| dump.descriptor(1, 12, &4_u32.to_le_bytes()), "the snappy block is broken"),
    ("a part that ends too late", |dump| dump.part(0, 13), "ends beyond max_mapnr"),
    ("a part that begins elsewhere", |dump| dump.part(1, 12), "pfn 0x1"),
    ("a flipped byte in a zstd page", |dump| dump.flip_data(2, 5), "pfn 0x4"),
];

#[test]
fn a_right_dump_passes() -> Result<()> {
    let verdict = judge(&Dump::new(&pages()))?;
    ensure!(verdict.is_empty(), "{verdict}");
    Ok(())
}

#[test]
fn every_corruption_is_noticed_and_named() -> Result<()> {
    for (name, corrupt, expected) in CORRUPTIONS {
        let mut dump = Dump::new(&pages());
        corrupt(&mut dump);
        let said = judge(&dump).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(said.contains(expected), "{name}: \"{said}\" does not say \"{expected}\"");
    }
    Ok(())
}

#[test]
fn pages_that_unpack_to_another_size_are_wrong() -> Result<()> {
    for (content, expected) in [(vec![7; 4095], "4095 bytes after"), (vec![7; 4097], "zlib stream does not end")] {
        let said = judge(&Dump::new(&[Page { pfn: 1, content, flags: 1 }]))?;
        ensure!(said.contains(expected), "\"{said}\" does not say \"{expected}\"");
    }
    Ok(())
}

#[test]
fn pages_kept_by_one_dump_alone_are_listed() -> Result<()> {
    let all = open(&Dump::new(&pages()))?;
    let fewer = open(&Dump::new(&pages()[1..]))?;
    let found = differences(&all, &fewer);
    ensure!(found.more == [0] && found.fewer.is_empty() && found.source == [0], "{found}");
    let found = differences(&fewer, &all);
    ensure!(found.fewer == [0] && found.more.is_empty() && !found.are_none(), "{found}");
    ensure!(differences(&all, &all).are_none(), "a dump differs from itself");
    Ok(())
}

#[test]
fn a_part_of_a_split_dump_holds_the_pages_of_its_range() -> Result<()> {
    let mut dump = Dump::new(&pages()[..2]);
    dump.set_bit(1, 5);
    dump.set_bit(0, 5);
    dump.bytes.extend([0; 4096]);
    dump.part(0, 2);
    ensure!(open(&dump)?.kept() == [0, 1], "the part holds {:?}", open(&dump)?.kept());
    Ok(())
}

#[test]
fn a_flattened_stream_tells_the_file_that_it_was_made_of() -> Result<()> {
    let mut stream = b"makedumpfile".to_vec();
    stream.resize(23, 0);
    stream.extend([1, 0, 0, 0, 0, 0, 0, 0, 1]);
    stream.resize(4096, 0);
    let record = |offset: i64, bytes: &[u8]| {
        [offset.to_be_bytes().as_slice(), &(bytes.len() as i64).to_be_bytes(), bytes].concat()
    };
    stream.extend([record(3, b"def"), record(0, b"abc"), record(4, b"E")].concat());
    let told = tempfile::NamedTempFile::new()?;
    let cut = unflatten(file(&stream)?.path(), told.path());
    ensure!(format!("{:#}", cut.unwrap_err()).contains("ends without its last record"), "a stream that is cut off");
    stream.extend([0xff; 16]);
    ensure!(unflatten(file(&stream)?.path(), told.path())? == 3, "three records");
    ensure!(std::fs::read(told.path())? == b"abcdEf", "{:?}", std::fs::read(told.path())?);
    stream[0] = b'M';
    ensure!(unflatten(file(&stream)?.path(), told.path()).is_err(), "another signature");
    Ok(())
}

#[test]
fn a_page_that_the_source_does_not_cover_is_wrong() -> Result<()> {
    let beyond = [Page { pfn: 9, content: vec![1; 4096], flags: 0 }];
    let said = judge(&Dump::new(&beyond))?;
    ensure!(said.contains("pfn 0x9: is not in the source"), "{said}");
    Ok(())
}

#[test]
fn a_source_that_is_cut_off_is_an_error_and_not_a_pass() -> Result<()> {
    let mut source = raw_core(&pages());
    source.truncate(source.len() - 1);
    let raw = RawCore::open(file(&source)?.path())?;
    let Err(error) = compare(&raw, &open(&Dump::new(&pages()))?) else { anyhow::bail!("it passed") };
    ensure!(format!("{error:#}").contains("ends before physical address 0x8000"), "{error:#}");
    Ok(())
}

fn pages() -> Vec<Page> {
    vec![
        Page {
            pfn: 0,
            content: (0..4096_u32).map(|at| at.to_le_bytes()[usize::from(at % 3 == 0)]).collect(),
            flags: 0,
        },
        Page { pfn: 1, content: vec![b'a'; 4096], flags: 1 },
        Page { pfn: 4, content: vec![b'b'; 4096], flags: 0x20 },
        Page { pfn: 6, content: vec![b'c'; 4096], flags: 2 },
        Page { pfn: 7, content: vec![b'd'; 4096], flags: 4 },
    ]
}

/// The first thing that is wrong with a dump of [`pages`]; empty when nothing is.
fn judge(dump: &Dump) -> Result<String> {
    let source = file(&raw_core(&pages()))?;
    let dump = open(dump)?;
    let alone = read_back(&dump)?;
    let verdict = compare(&RawCore::open(source.path())?, &dump)?;
    ensure!(alone.wrong <= verdict.wrong, "the source makes a wrong page right");
    Ok(verdict.first_wrong.first().cloned().unwrap_or_default())
}

fn open(dump: &Dump) -> Result<KdumpFile> {
    KdumpFile::open(file(&dump.bytes)?.path())
}

fn file(bytes: &[u8]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("unable to make a temporary file")?;
    file.write_all(bytes)?;
    Ok(file)
}
