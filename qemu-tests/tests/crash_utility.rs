//! What crash and drgn can do with the kernel's debug package. It is some 700 MB, so this is not run by default:
//!
//! ```text
//! cargo test -p qemu-tests --test crash_utility -- --ignored
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use qemu_tests::collector::{Cut, Format, collect, collect_cut};
use qemu_tests::prelude::*;
use qemu_tests::provision::{debug_vmlinux, readers};
use qemu_tests::{folders, progress, tools};

const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

#[test]
#[ignore = "downloads a debug package of some 700 MB"]
fn crash_shows_the_panic_and_a_backtrace_of_a_captured_dump() -> Result<()> {
    let scenario = Scenario::of(kernel(Suite::Own)?, "crash-utility");
    let vmlinux = debug_vmlinux(&scenario.kernel)?;
    let outcome = crash(&scenario)?;
    let said = readers()?.ask_crash(&["sys", "bt"], &vmlinux, &outcome.dump()?.join("vmcore"))?;
    let panic = format!("PANIC: \"{PANIC}\"");
    for expected in [panic.as_str(), "#0 [", "sysrq_handle_crash"] {
        ensure!(said.contains(expected), "crash does not show {expected}:\n{said}");
    }
    Ok(())
}

/// Each command and a part of its answer.
const COMMANDS: [(&str, &str); 6] = [
    ("sys", "PANIC: \"Kernel panic - not syncing: sysrq triggered crash\""),
    ("bt", "sysrq_handle_crash"),
    ("log", PANIC),
    ("ps", "page-kinds"),
    ("kmem -s", "task_struct"),
    ("mod", "virtio_balloon"),
];

#[test]
#[ignore = "downloads a debug package of some 700 MB"]
fn crash_analyses_every_format() -> Result<()> {
    let readers = readers()?;
    let vmlinux = debug_vmlinux(&kernel(Suite::Own)?)?;
    for (name, dump) in dumps("crash-formats")? {
        let commands = COMMANDS.map(|(command, _)| command);
        let said = readers.ask_crash(&commands, &vmlinux, &dump).with_context(|| name.clone())?;
        for (command, expected) in COMMANDS {
            ensure!(said.contains(expected), "{name}: crash's {command} does not show {expected}:\n{said}");
        }
        for complaint in ["seek error", "read error", "page excluded", "page incomplete"] {
            ensure!(!said.contains(complaint), "{name}: crash complains:\n{said}");
        }
        progress::note(&format!("crash analyses {name}"));
    }
    Ok(())
}

/// Room for two fifths of a dump that has caches and user memory in it: in the order of use it opens, and has log, tasks
/// and stacks; in the order of memory neither reader opens it.
#[test]
#[ignore = "downloads a debug package of some 700 MB"]
fn a_dump_that_is_cut_opens_if_it_is_in_the_order_of_use() -> Result<()> {
    let (readers, source) = (readers()?, source::every_kind(Suite::Own)?);
    let vmlinux = debug_vmlinux(&kernel(Suite::Own)?)?;
    let folder = folders::qemu().join("runs/crash-cut");
    let tasks = folders::workspace().join("qemu-tests/tests/scripts/tasks.py");
    for cut in [Cut::ByUse, Cut::ByMemory] {
        folders::fresh(&folder)?;
        let dump = collect_cut(&source.raw, 17, 40, cut, &folder)?;
        let commands = COMMANDS.map(|(command, _)| command);
        let crash = readers.ask_crash(&commands, &vmlinux, &dump);
        let drgn = tools::text(readers.drgn(&tasks).arg(&dump).arg(&vmlinux));
        if cut == Cut::ByMemory {
            ensure!(crash.is_err() && drgn.is_err(), "it opens all the same: {crash:?}, {drgn:?}");
            continue;
        }
        let crash = crash?;
        for (command, expected) in COMMANDS {
            ensure!(crash.contains(expected), "crash's {command} does not show {expected}:\n{crash}");
        }
        let drgn = drgn?;
        for expected in ["panicked: init", "sysrq_handle_crash", "task: init", "task: page-kinds", "task: kthreadd"] {
            ensure!(drgn.contains(expected), "drgn does not show {expected}:\n{drgn}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "downloads a debug package of some 700 MB"]
fn drgn_walks_stack_and_tasks_in_every_format() -> Result<()> {
    let readers = readers()?;
    let vmlinux = debug_vmlinux(&kernel(Suite::Own)?)?;
    let script = folders::workspace().join("qemu-tests/tests/scripts/tasks.py");
    for (name, dump) in dumps("drgn-formats")? {
        let said = tools::text(readers.drgn(&script).arg(&dump).arg(&vmlinux)).with_context(|| name.clone())?;
        for expected in ["panicked: init", "sysrq_handle_crash", "task: init", "task: page-kinds", "task: kthreadd"] {
            ensure!(said.contains(expected), "{name}: drgn does not show {expected}:\n{said}");
        }
        progress::note(&format!("drgn analyses {name}"));
    }
    Ok(())
}

/// The same crash in every format; a split dump whole, as a reader wants all its parts.
fn dumps(run: &str) -> Result<Vec<(String, PathBuf)>> {
    let source = source::every_kind(Suite::Own)?;
    let folder = folders::qemu().join("runs").join(run);
    folders::fresh(&folder)?;
    let mut dumps = Vec::new();
    let mut add = |name: String, codec, format| -> Result<()> {
        let folder: &Path = &folder.join(&name);
        fs::create_dir_all(folder)?;
        dumps.push((name, collect(&source.raw, 31, codec, format, folder)?.files.remove(0)));
        Ok(())
    };
    for codec in Codec::ALL {
        add(format!("{codec:?}"), codec, Format::Kdump)?;
    }
    add("elf".into(), Codec::None, Format::Elf)?;
    add("flattened".into(), Codec::Zstd, Format::Flattened)?;
    Ok(dumps)
}
