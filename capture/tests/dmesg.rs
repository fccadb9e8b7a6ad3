//! The log ring buffer: wrapped, full, damaged.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use common::logs::RecordBuffer;
use common::{Era, Leaf, Machine, TEXT_BITS};
use kdump_capture::dmesg::{self, Found, Since};
use kdump_capture::kernel::Kernel;
use proptest::prelude::*;

fn machine() -> Machine {
    Machine::new(Era::V6_1, 4, Leaf::M2)
}

fn text(machine: &Machine) -> (String, Found) {
    text_since(machine, Since::Boot)
}

fn text_since(machine: &Machine, since: Since) -> (String, Found) {
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut vec![]);
    let mut out = vec![];
    let found = dmesg::records(&kernel.facts, &mut kernel.memory(&memory).unwrap(), since, &mut |record| {
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

#[test]
fn a_record_being_written_is_lost_and_one_given_back_is_not() {
    for (state, lost) in [(0u64, 1), (1, 0), (2, 0), (3, 0)] {
        let mut machine = machine();
        machine.log(&[(0, 1, b"one"), (0, 1, b"two"), (0, 1, b"three")]);
        machine.log_state(1, state);
        let (out, found) = text(&machine);
        let there = u64::from(state == 1 || state == 2);
        assert_eq!(found, Found { records: 2 + there, lost }, "state {state}");
        assert_eq!(out.contains("two"), there == 1, "state {state}");
    }
}

#[test]
fn only_records_since_the_last_clear_are_wanted() {
    let texts: Vec<String> = (0..20).map(|n| format!("record {n:02}")).collect();
    let records: Vec<(u64, u32, &[u8])> = texts.iter().map(|t| (0, 1, t.as_bytes())).collect();
    // 17 % 8 is above, 15 % 8 below the place of the newest record; 3 has been overwritten.
    for (clear, first, count) in [(17, "17", 3), (15, "15", 5), (3, "12", 8), (20, "", 0)] {
        for latch in [None, Some(0), Some(7)] {
            let mut machine = machine();
            machine.log(&records);
            machine.log_cleared(clear, latch);
            let (out, found) = text_since(&machine, Since::Clear);
            assert_eq!(found, Found { records: count, lost: 0 }, "{clear} {latch:?}");
            assert!(count == 0 || out.starts_with(&format!("[    0.000000] [      T1] record {first}\n")), "{out}");
        }
    }
}

#[test]
fn what_was_lost_before_the_last_clear_is_not_missed() {
    let mut machine = machine();
    machine.log(&[(0, 1, b"zero"), (0, 1, b"one"), (0, 1, b"two"), (0, 1, b"three")]);
    machine.log_state(0, 0);
    machine.log_state(3, 0);
    machine.log_cleared(2, Some(0));
    assert_eq!(text_since(&machine, Since::Clear).1, Found { records: 1, lost: 1 });
}

#[test]
fn without_the_means_to_tell_the_last_clear_there_is_an_error() {
    let machine = machine();
    assert_eq!(text_since(&machine, Since::Clear).1.lost, u64::MAX);
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

/// The log of an older kernel, and what is read of it.
fn old_text(log: &RecordBuffer, since: Since) -> (String, Found) {
    let mut machine = machine();
    machine.record_buffer(log);
    text_since(&machine, since)
}

#[test]
fn the_record_buffer_of_older_kernels_is_read_with_and_without_callers() {
    for (name, callers, prefix) in [
        ("printk_log", true, "[    1.500000] [     T42] "),
        ("printk_log", false, "[    1.500000] "),
        ("log", false, "[    1.500000] "),
    ] {
        let mut log = RecordBuffer { name, callers, ..RecordBuffer::new(4096) };
        log.push(1_500_000_000, 42, b"Linux version 4");
        log.push(1_500_000_000, 42, b"two\nlines");
        log.push(1_500_000_000, 42, b"");
        let indent = " ".repeat(prefix.len());
        let want = format!("{prefix}Linux version 4\n{prefix}two\n{indent}lines\n{prefix}\n");
        assert_eq!(old_text(&log, Since::Boot), (want, Found { records: 3, lost: 0 }));
    }
}

#[test]
fn an_empty_record_buffer_has_no_record_and_no_loss() {
    assert_eq!(old_text(&RecordBuffer::new(4096), Since::Boot), (String::new(), Found::default()));
}

#[test]
fn the_log_of_kernels_before_3_5_is_refused_by_name() {
    let mut machine = machine();
    machine.without_log();
    machine.vmcoreinfo += "SYMBOL(log_buf)=ffffffff81289000\nSYMBOL(log_end)=ffffffff81289008\n";
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut vec![]);
    let found = dmesg::records(&kernel.facts, &mut kernel.memory(&memory).unwrap(), Since::Boot, &mut |_| Ok(()));
    assert!(found.unwrap_err().to_string().contains("before 3.5"));
}

#[test]
fn a_length_that_leads_nowhere_ends_the_walk_and_is_a_loss() {
    for (length, left) in [(0u16, 1), (1, 1), (23, 1), (25, 1), (4000, 1), (u16::MAX, 1)] {
        let mut log = RecordBuffer::new(4096);
        for text in [b"one", b"two", b"six"] {
            log.push(0, 1, text);
        }
        let place = log.places[1];
        log.bytes[place + 8..place + 10].copy_from_slice(&length.to_le_bytes());
        let (_, found) = old_text(&log, Since::Boot);
        assert_eq!(found.lost, 1, "{length}: {found:?}");
        assert!(found.records >= left && found.records <= 2, "{length}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The buffer is written as the kernel wrote it, so that it wraps here and there.
    #[test]
    fn every_record_that_an_older_kernel_still_had_is_read(
        size in 256usize..1000,
        lens in proptest::collection::vec(0usize..60, 1..60),
        clear in 0usize..60,
    ) {
        let mut log = RecordBuffer::new(size / 8 * 8);
        let (mut lines, mut cleared) = (vec![], 0);
        for (number, len) in lens.iter().enumerate() {
            if number == clear {
                log.clear();
                cleared = number;
            }
            let text = format!("{number:02}{}", "x".repeat(*len));
            log.push(0, 1, text.as_bytes());
            lines.push(format!("[    0.000000] [      T1] {text}\n"));
        }
        let there = lines.len() - log.places.len();
        let (out, found) = old_text(&log, Since::Boot);
        prop_assert_eq!(found, Found { records: log.places.len() as u64, lost: 0 });
        prop_assert_eq!(out, lines[there..].concat());
        prop_assert_eq!(old_text(&log, Since::Clear).0, lines[there.max(cleared)..].concat());
    }

    #[test]
    fn arbitrary_bytes_in_the_record_buffer_never_panic_and_end(
        bytes in proptest::collection::vec(any::<u8>(), 64..400),
        numbers in (0usize..500, 0usize..500, 0usize..500),
    ) {
        let mut log = RecordBuffer::new(0);
        log.bytes = bytes;
        (log.first, log.next, log.clear) = numbers;
        for since in [Since::Boot, Since::Clear] {
            prop_assert!(old_text(&log, since).1.records <= 400 / 24);
        }
    }
}
