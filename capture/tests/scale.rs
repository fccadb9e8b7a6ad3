//! Memory of any size: the time per GiB stays, and so does the memory that the design allows.

#![allow(clippy::unwrap_used)]

mod vast;

use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

fn dump(dir: &Path, options: &[&str]) -> serde_json::Value {
    let ended = Command::new(env!("CARGO_BIN_EXE_kdump-capture"))
        .args(["-l", "-d", "31", "-f", "--message-level", "4", "--report", "report", "vmcore", "dump"])
        .args(options)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&std::fs::read(dir.join("report")).unwrap()).unwrap()
}

#[test]
fn a_machine_with_64_gib_is_filtered_within_its_budget() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let span = 64;
    vast::write(&dir.path().join("vmcore"), span).unwrap();
    let usual = dump(dir.path(), &[]);
    let pages = usual["pages"].clone();
    let count = |kind: &str| pages[kind].as_u64().unwrap();
    assert_eq!(count("total"), (span << 18) - 0x100);
    let [free, cache, user, kept] = vast::pages(span);
    assert_eq!([count("free"), count("cache"), count("user")], [free, cache, user]);
    assert_eq!(count("kept") + count("zero"), kept);

    for options in [vec![], vec!["--num-threads", "32"], vec!["--memory", "5M"], vec!["--cyclic-buffer", "256"]] {
        let report = dump(dir.path(), &options);
        assert_eq!(report["pages"], pages, "{options:?}");
        let (peak, budget) = (report["peak_rss"].as_u64().unwrap(), report["memory_budget"].as_u64().unwrap());
        assert!(peak <= budget, "{options:?}: {peak} of {budget}");
        assert!(budget <= 24 * MIB + span * 32 * MIB / 1024, "{options:?}: {budget}");
    }
}
