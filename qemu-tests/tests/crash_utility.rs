//! The crash utility opens a dump. It needs the kernel's debug package, some 700 MB, so it is not run by default:
//!
//! ```text
//! cargo test -p qemu-tests --test crash_utility -- --ignored
//! ```

use std::fs;

use anyhow::{Result, ensure};
use qemu_tests::prelude::*;
use qemu_tests::{provision, tools};

#[test]
#[ignore = "downloads a debug package of some 700 MB"]
fn crash_shows_the_panic_and_a_backtrace() -> Result<()> {
    provision::crash_utility()?;
    let scenario = Scenario::of(kernel(Suite::Own)?, "crash-utility");
    let vmlinux = provision::debug_vmlinux(&scenario.kernel)?;
    let outcome = crash(&scenario)?;
    let commands = outcome.folder.join("commands");
    fs::write(&commands, "sys\nbt\nquit\n")?;
    let mut program = tools::command("crash");
    program.arg("-i").arg(&commands).arg(&vmlinux).arg(outcome.dump()?.join("vmcore"));
    let said = tools::text(&mut program)?;
    for expected in ["PANIC: \"Kernel panic - not syncing: sysrq triggered crash\"", "#0 [", "sysrq_handle_crash"] {
        ensure!(said.contains(expected), "crash does not show {expected}:\n{said}");
    }
    Ok(())
}
