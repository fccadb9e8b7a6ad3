//! The log ring buffer: wrapped, full, damaged.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use common::{Era, Leaf, Machine, TEXT_BITS};
use kdump_capture::dmesg::{self, Found};
use kdump_capture::kernel::Kernel;
use proptest::prelude::*;

fn machine() -> Machine {
    Machine::new(Era::V6_1, 4, Leaf::M2)
}

fn text(machine: &Machine) -> (String, Found) {
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut vec![]);
    let mut out = vec![];
    let found = dmesg::records(&kernel.facts, &mut kernel.memory(&memory).unwrap(), &mut |record| {
        record.print(&mut out);
        Ok(())
    });
    (String::from_utf8(out).unwrap(), found.unwrap_or(Found { records: 0, lost: u64::MAX }))
}

const SIZE: u64 = 1 << TEXT_BITS;

#[test]
fn a_record_that_wraps_is_read_from_the_start_of_the_ring() {
    let mut machine = machine();
    machine
        .log_at(&[(0, 1, b"before"), (0, 1, b"around the corner")], &[(SIZE - 40, SIZE - 24), (SIZE - 24, SIZE + 32)]);
    assert_eq!(text(&machine).0, "[    0.000000] [      T1] before\n[    0.000000] [      T1] around the corner\n");
}

#[test]
fn a_record_that_ends_with_the_ring_is_read_where_it_is() {
    let mut machine = machine();
    machine.log_at(&[(0, 1, b"to the brim"), (0, 1, b"next")], &[(SIZE - 24, SIZE), (SIZE, SIZE + 16)]);
    assert_eq!(text(&machine).0, "[    0.000000] [      T1] to the brim\n[    0.000000] [      T1] next\n");
}

#[test]
fn only_the_last_records_are_left_when_the_ring_went_round() {
    let mut machine = machine();
    let texts: Vec<String> = (0..20).map(|n| format!("record {n:02}")).collect();
    let records: Vec<(u64, u32, &[u8])> = texts.iter().map(|t| (0, 1, t.as_bytes())).collect();
    machine.log(&records);
    let (out, found) = text(&machine);
    assert_eq!(found, Found { records: 8, lost: 0 });
    assert!(out.starts_with("[    0.000000] [      T1] record 12\n") && out.ends_with("record 19\n"));
}

#[test]
fn a_record_without_text_vanishes_and_a_dropped_one_is_lost() {
    let mut machine = machine();
    machine.log_at(&[(0, 1, b""), (0, 1, b""), (0, 1, b"seen")], &[(3, 3), (1, 1), (0, 16)]);
    assert_eq!(text(&machine), ("[    0.000000] [      T1] seen\n".into(), Found { records: 1, lost: 1 }));
}

#[test]
fn a_text_never_reaches_beyond_its_block() {
    let mut machine = machine();
    machine.log_at(&[(0, 1, b"a long text in a short block")], &[(0, 16)]);
    assert_eq!(text(&machine).0, "[    0.000000] [      T1] a long t\n");
}

#[test]
fn a_broken_ring_ends() {
    for (bits, head, tail) in [(3, u64::MAX, 0), (3, 0, 5), (26, 1 << 60, 0), (63, 0, 0), (0, 0, 0), (32, 9, 0)] {
        let mut machine = machine();
        machine.damage_log(bits, head, tail);
        let (_, found) = text(&machine);
        assert!(found.records <= 8 && found.lost > 0, "{bits} {head} {tail}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn arbitrary_bytes_in_the_ring_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
        at in 0x28_3000u64..0x28_6000,
        bits in 1u64..7,
    ) {
        let mut machine = machine();
        machine.put(at, &bytes);
        machine.put64(0x28_3000, common::virt(0x28_3010));
        machine.put64(0x28_3018, bits);
        let _ = text(&machine);
    }
}
