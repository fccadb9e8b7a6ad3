//! `info` and `verify`: what is in a dump is told, and whatever is wrong with it is noticed.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use common::{Bytes, Era, Leaf, Machine};
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::flatten::Flattened;
use kdump_capture::dumpfile::layout::Descriptor;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::examine::{Verdict, check};
use kdump_capture::output::Output as _;
use kdump_capture::progress::Messages;
use kdump_capture::units::{FileOffset, Pfn};
use proptest::prelude::*;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine
});

fn dump(level: u8, codec: Kind) -> Vec<u8> {
    MACHINE.dump(&MACHINE.memory(), level, codec, 2, usize::MAX).1
}

fn verdict(bytes: &[u8]) -> Verdict {
    check(&Bytes(bytes.to_vec()), bytes.len() as u64, 2, Messages(0))
}

/// Where descriptor `index` lies, and what it says.
fn descriptor(bytes: &[u8], index: usize) -> (usize, Descriptor) {
    let source = Bytes(bytes.to_vec());
    let dump = Dump::open(&source).unwrap();
    let mut found = vec![];
    dump.descriptors(index as u64, 1, &mut found).unwrap();
    (dump.header.descriptors_at().0 as usize + 24 * index, found[0])
}

/// The first descriptor of a packed page.
fn packed(bytes: &[u8]) -> usize {
    (0..).find(|index| descriptor(bytes, *index).1.flags != 0).unwrap()
}

/// A stream of these records.
fn flattened(records: &[(u64, &[u8])]) -> Vec<u8> {
    let out = Flattened::new(Vec::new()).unwrap();
    for (at, bytes) in records {
        out.write_at(FileOffset(*at), bytes).unwrap();
        out.flush().unwrap();
    }
    out.finish().unwrap();
    out.into_inner()
}

fn program(word: &str, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kdump-capture")).args([word, "--json"]).arg(file).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_dump_of_every_codec_is_sound() {
    for codec in Kind::ALL {
        for level in [0, 31] {
            let verdict = verdict(&dump(level, codec));
            assert!(verdict.sound, "{}: {:?}", codec.name(), verdict.problems);
            assert_eq!((verdict.damaged, verdict.missing), (0, 0));
            assert!(verdict.good > 0 && verdict.good == verdict.pages);
        }
    }
}

#[test]
fn a_page_that_does_not_unpack_is_named_by_its_frame() {
    for codec in Kind::ALL.into_iter().filter(|codec| *codec != Kind::None) {
        let mut bytes = dump(0, codec);
        let index = packed(&bytes);
        let (_, d) = descriptor(&bytes, index);
        bytes[d.offset as usize..][..d.size as usize].fill(0xff);
        let verdict = verdict(&bytes);
        assert_eq!((verdict.sound, verdict.damaged), (false, 1), "{}", codec.name());
        let want = format!("page {} (descriptor {index}): ", Pfn(0x100 + index as u64));
        assert!(verdict.problems[0].starts_with(&want), "{:?}", verdict.problems);
        assert!(verdict.problems[0].contains(codec.name()), "{:?}", verdict.problems);
    }
}

#[test]
fn a_descriptor_that_points_outside_the_data_is_noticed() {
    let good = dump(0, Kind::Lzo);
    let index = packed(&good);
    let (at, d) = descriptor(&good, index);
    let outside = "not in the data";
    for (wrong, why) in [
        (Descriptor { offset: good.len() as u64, ..d }, outside),
        (Descriptor { offset: u64::MAX, ..d }, outside),
        (Descriptor { offset: 4096, ..d }, outside),
        (Descriptor { size: u32::MAX, ..d }, outside),
        (Descriptor { size: 4097, ..d }, "larger than a page"),
        (Descriptor { size: 0, ..d }, "lzo data is damaged"),
        (Descriptor { flags: 0, ..d }, "wrong size"),
        (Descriptor { flags: 0x40, ..d }, "not known"),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 24].copy_from_slice(&wrong.bytes());
        let verdict = verdict(&bytes);
        assert_eq!((verdict.sound, verdict.damaged), (false, 1), "{wrong:?}");
        assert!(verdict.problems[0].contains(why), "{wrong:?}: {:?}", verdict.problems);
    }
}

#[test]
fn a_page_that_was_not_saved_makes_a_dump_unsound() {
    let mut memory = MACHINE.memory();
    memory.break_page(Pfn(0x150));
    let verdict = verdict(&MACHINE.dump(&memory, 0, Kind::Zstd, 1, usize::MAX).1);
    assert_eq!((verdict.sound, verdict.missing, verdict.problems.len()), (false, 1, 2));
    assert!(verdict.problems[0].contains("incomplete") && verdict.problems[1].contains("1 pages"));
}

#[test]
fn bitmaps_that_contradict_each_other_are_noticed() {
    let good = dump(0, Kind::Lzo);
    let source = Bytes(good.clone());
    let at = Dump::open(&source).unwrap().header.bitmap1_at().0 as usize;
    let mut bytes = good.clone();
    bytes[at + 0x100 / 8] &= 0xfc;
    assert_eq!(verdict(&bytes).problems, ["bitmap 2 has 2 pages that bitmap 1 does not have"]);
    let mut bytes = good;
    bytes[at + 0x600 / 8] |= 1;
    assert_eq!(verdict(&bytes).problems, ["the bitmaps have 1 pages beyond the highest page frame 0x600"]);
}

#[test]
fn the_named_problems_are_few_and_all_are_counted() {
    let mut bytes = dump(0, Kind::Zlib);
    let (at, _) = descriptor(&bytes, 0);
    for index in 0..1000 {
        bytes[at + 24 * index + 12] = 0x40;
    }
    let verdict = verdict(&bytes);
    assert_eq!((verdict.damaged, verdict.problems.len(), verdict.more_problems), (1000, 20, 980));
    assert!(verdict.problems[0].contains("(descriptor 0)") && verdict.problems[19].contains("(descriptor 19)"));
}

#[test]
fn info_tells_what_is_in_the_dump() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmcore");
    fs::write(&file, dump(31, Kind::Lzo)).unwrap();
    let found = json(&program("info", &file));
    assert_eq!(found["format"], "kdump-compressed");
    assert_eq!(found["version"], 6);
    assert_eq!(found["complete"], true);
    assert_eq!(found["kernel_release"], "6.0.0-test");
    assert_eq!(found["machine"], "x86_64");
    assert_eq!(found["crash_time"], 1_700_000_000);
    assert_eq!(found["panic_line"], "Kernel panic - not syncing: test");
    assert_eq!((found["level"].as_u64(), found["codec"].as_str()), (Some(31), Some("lzo")));
    assert_eq!(found["cpus"], 1);
    assert_eq!(found["problems"], serde_json::json!([]));
    let report = MACHINE.dump(&MACHINE.memory(), 31, Kind::Lzo, 1, usize::MAX).0;
    let p = report.pages;
    let want = serde_json::json!({"present": 0x500, "stored": p.kept, "zero": p.zero, "missing": 0});
    assert_eq!(found["pages"], want);
    let text = Command::new(env!("CARGO_BIN_EXE_kdump-capture")).arg("info").arg(&file).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for line in
        ["crashed    2023-11-14 22:13:20 UTC\n", "panic      Kernel panic - not syncing: test\n", "codec      lzo\n"]
    {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn info_and_verify_know_an_elf_vmcore() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmcore");
    let elf = MACHINE.elf();
    fs::write(&file, &elf).unwrap();
    let found = json(&program("info", &file));
    assert_eq!((found["format"].as_str(), found["complete"].as_bool()), (Some("elf"), Some(true)));
    assert_eq!(found["panic_line"], "Kernel panic - not syncing: test");
    assert_eq!(found["kernel_release"], "6.0.0-test");
    assert_eq!((found["level"].is_null(), &found["pages"]["stored"]), (true, &serde_json::json!(0x500)));
    assert_eq!(program("verify", &file).status.code(), Some(0));
    fs::write(&file, &elf[..elf.len() - 8192]).unwrap();
    assert_eq!(json(&program("info", &file))["complete"], false);
    let verdict = program("verify", &file);
    assert_eq!((verdict.status.code(), &json(&verdict)["missing"]), (Some(1), &serde_json::json!(2)));
}

#[test]
fn info_and_verify_look_into_a_flattened_dump() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmcore.flat");
    for whole in [dump(31, Kind::Zlib), MACHINE.elf()] {
        // Out of order, and twice: the last word is the right one.
        let half = whole.len() / 2;
        let stream =
            flattened(&[(half as u64, &whole[half..]), (0, b"wrong"), (2, &whole[2..9000]), (0, &whole[..half])]);
        fs::write(&file, &stream).unwrap();
        let plain = dir.path().join("vmcore");
        fs::write(&plain, &whole).unwrap();
        let (mut found, direct) = (json(&program("info", &file)), json(&program("info", &plain)));
        assert_eq!((&found["flattened"], &found["bytes"]), (&true.into(), &stream.len().into()));
        found["flattened"] = false.into();
        found["bytes"] = whole.len().into();
        assert_eq!(found, direct);
        let output = program("verify", &file);
        let verdict = json(&output);
        assert_eq!((output.status.code(), &verdict["problems"]), (Some(0), &serde_json::json!([])), "{verdict}");
        assert_eq!(verdict["stream"], serde_json::json!({"records": 4, "overlapping": 9003, "trailing": 0}));

        fs::write(&file, &stream[..stream.len() - 4000]).unwrap();
        assert_eq!(json(&program("info", &file))["complete"], false);
        let output = program("verify", &file);
        assert_eq!(output.status.code(), Some(1));
        assert!(json(&output)["problems"].to_string().contains("not whole: the stream ends early"));
    }
}

#[test]
fn the_sum_in_status_json_is_compared() {
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmcore");
    let bytes = dump(31, Kind::Zstd);
    fs::write(&file, &bytes).unwrap();
    let sum: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    for (status, code, compared) in [
        (format!(r#"{{"files":[{{"name":"x","sha256":"0"}},{{"name":"vmcore","sha256":"{sum}"}}]}}"#), 0, true),
        (r#"{"files":[{"name":"vmcore","sha256":"00ff"}]}"#.into(), 1, true),
        (r#"{"files":[{"name":"vmcore-dmesg.txt","sha256":"00ff"}]}"#.into(), 0, false),
        ("not json".into(), 1, false),
    ] {
        fs::write(dir.path().join("status.json"), &status).unwrap();
        let output = program("verify", &file);
        assert_eq!(output.status.code(), Some(code), "{status}");
        assert_eq!(json(&output)["sha256_compared"], compared, "{status}");
    }
}

#[test]
fn what_is_no_dump_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vmcore");
    for (bytes, why) in [
        (b"hello".to_vec(), "neither a kdump-compressed dump nor"),
        (b"makedumpfile\0\0\0\0".to_vec(), "as a flattened dump, it is a flattened dump of another version"),
        (flattened(&[]), "it is flattened, but not a dump"),
        (flattened(&[])[..4100].to_vec(), "it has no header: the stream ends early"),
    ] {
        fs::write(&file, bytes).unwrap();
        for word in ["info", "verify"] {
            let output = program(word, &file);
            assert_eq!(output.status.code(), Some(1));
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_dump_cut_anywhere_is_not_sound(cut in any::<prop::sample::Index>()) {
        let bytes = dump(31, Kind::Lzo);
        prop_assert!(!verdict(&bytes[..cut.index(bytes.len())]).sound);
    }

    #[test]
    fn a_damaged_dump_has_a_verdict(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        headers in any::<bool>(),
    ) {
        let mut bytes = dump(31, Kind::Zstd);
        let room = if headers { 0x4000 } else { bytes.len() };
        for (at, byte) in damage {
            let at = at.index(room);
            bytes[at] = byte;
        }
        let verdict = verdict(&bytes);
        prop_assert!(verdict.problems.len() <= 20);
        prop_assert_eq!(verdict.sound, verdict.problems.is_empty());
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let file = dir.path().join("vmcore");
        fs::write(&file, &bytes).unwrap();
        let code = program("info", &file).status.code();
        prop_assert!(code == Some(0) || code == Some(1), "{:?}", code);
    }
}
