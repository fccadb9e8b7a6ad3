//! The live patches of a crashed kernel: found in its memory however it writes addresses, and never believed blindly.

#![allow(clippy::unwrap_used)]

mod common;

use common::live::{Addresses, HEAD, MEMORY, PATCHES};
use common::{Era, Leaf, Machine, virt};
use kdump_capture::kallsyms;
use kdump_capture::kernel::Kernel;
use kdump_capture::live_patches::in_memory;

fn machine(patches: Option<&[&str]>, addresses: Addresses) -> Machine {
    let mut machine = Machine::new(Era::V6_1, 4, Leaf::M2);
    machine.live_patches(patches, addresses);
    machine
}

fn found(machine: &Machine) -> Result<Vec<String>, String> {
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut vec![]);
    in_memory(&kernel.facts, &mut kernel.memory(&memory).unwrap())
}

const ALL: [Addresses; 3] = [Addresses::Absolute, Addresses::Relative, Addresses::AbsolutePercpu];

#[test]
fn the_list_is_found_however_the_kernel_writes_addresses() {
    for addresses in ALL {
        let all = ["kpatch_1", "livepatch_CVE_2026_1", "x"];
        for count in 0..=all.len() {
            assert_eq!(found(&machine(Some(&all[..count]), addresses)).unwrap(), &all[..count], "{addresses:?}");
        }
    }
}

#[test]
fn a_kernel_without_live_patching_has_none() {
    assert_eq!(found(&machine(None, Addresses::AbsolutePercpu)), Ok(Vec::new()));
}

#[test]
fn a_kernel_that_does_not_tell_where_its_symbols_are_is_not_guessed_at() {
    let why = found(&Machine::new(Era::V6_1, 4, Leaf::M2)).unwrap_err();
    assert!(why.contains("no kallsyms_num_syms; kernels do since 6.0"), "{why}");
}

#[test]
fn several_symbols_are_had_at_once_and_those_that_are_nowhere_are_told() {
    let machine = machine(Some(&[]), Addresses::Relative);
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut vec![]);
    let mut mem = kernel.memory(&memory).unwrap();
    let [list, nothing] = kallsyms::symbols(&kernel.facts, &mut mem, ["klp_patches", "nothing"]).unwrap();
    assert_eq!((list.map(|at| at.0), nothing), (Some(virt(HEAD)), None));
}

#[test]
fn symbols_that_are_not_where_vmcoreinfo_says_are_not_believed() {
    let mut machine = machine(Some(&["kpatch_1"]), Addresses::Relative);
    // The base.
    machine.put64(MEMORY.0 + 8, virt(MEMORY.0));
    let why = found(&machine).unwrap_err();
    assert!(why.contains("init_uts_ns is not where vmcoreinfo says"), "{why}");
    machine.put64(MEMORY.0, u64::MAX);
    assert!(found(&machine).unwrap_err().contains("there are too many"));
}

#[test]
fn a_damaged_list_ends_and_is_told() {
    for damage in [virt(PATCHES), virt(PATCHES + 4), 0x1000, u64::MAX, u64::MAX << 12] {
        let mut machine = machine(Some(&["kpatch_1", "kpatch_2"]), Addresses::AbsolutePercpu);
        machine.put64(PATCHES, damage);
        let why = found(&machine).unwrap_err();
        assert!(why.contains("list of live patches"), "{why}");
    }
    for name in ["", "a name", "\u{1b}[31m", &"n".repeat(64)] {
        let why = found(&machine(Some(&["kpatch_1", name]), Addresses::Absolute)).unwrap_err();
        assert!(why.contains("is broken"), "{why}");
    }
}
