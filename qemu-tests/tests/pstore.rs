//! Real crashes of which nothing but the end of the log can be kept: by ramoops, in memory that outlives the machine, and by
//! efi_pstore, in the variables of its firmware.
//!
//! Kernels of Debian have no `/dev/pmsg0` (`CONFIG_PSTORE_PMSG` is not set), so that nothing is tried with it.

use anyhow::{Context, Result, ensure};
use qemu_tests::crash::Outcome;
use qemu_tests::prelude::*;
use qemu_tests::provision::firmware;
use qemu_tests::{efi_variables, folders, tools};
use std::fs;

/// A target that is not there, and the last resort.
const TARGETS: &str = "[limits]\ndevice = 5\n\n[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\n\
                       device = \"LABEL=missing\"\n\n[[target]]\nkind = \"pstore\"\n";

/// No dump is there, and the log went to a backend whose name begins so.
fn has_gone_to(backend: &str, outcome: &Outcome) -> Result<()> {
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}", outcome.ending);
    ensure!(outcome.dump.is_none(), "there is a dump");
    for words in [&format!("the end of which goes to pstore ({backend}"), "pstore takes the log alone"] {
        ensure!(outcome.console.contains(words), "the console does not say: {words}");
    }
    Ok(())
}

/// What is kept has the end of the old log, and why there is no dump.
fn tells_it_all(kept: &str) -> Result<()> {
    for words in ["old: ", "Kernel panic - not syncing: sysrq", "LABEL=missing did not appear within 5 s"] {
        ensure!(kept.contains(words), "what is kept does not say: {words}\n{kept}");
    }
    Ok(())
}

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "a boot of its own: the log of a dump that failed everywhere"]
fn the_log_is_in_ramoops_after_a_dump_that_had_no_other_place() -> Result<()> {
    let memory = folders::qemu().join("runs").join("pstore-memory");
    fs::create_dir_all(folders::qemu().join("runs"))?;
    fs::File::create(&memory)?.set_len(4 * MIB)?;
    let scenario = Scenario {
        native: Some(TARGETS.into()),
        // An NVDIMM is where memory that can be added begins, and no part of either kernel's memory.
        files: vec![GuestFile::text(
            "/etc/modprobe.d/ramoops.conf",
            "options ramoops mem_address=0x100000000 mem_size=0x10000 record_size=0x8000\n",
        )],
        // Where memory may be added, the kernel keeps 64 MiB of its own for devices that cannot reach it.
        crashkernel_mib: 200,
        // What is packed cannot be read from outside.
        append: "pstore.compress=none".into(),
        qemu: [
            "-machine",
            "nvdimm=on",
            "-m",
            "512,slots=1,maxmem=2G",
            "-object",
            &format!("memory-backend-file,id=kept,share=on,size=4M,mem-path={}", memory.display()),
            "-device",
            "nvdimm,memdev=kept",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Scenario::of(kernel(Suite::Own)?, "pstore")
    };
    let outcome = crash(&scenario)?;
    has_gone_to("ramoops", &outcome)?;
    tells_it_all(&String::from_utf8_lossy(&fs::read(&memory)?))?;
    fs::remove_file(&memory)?;
    Ok(())
}

/// Each record is a variable of 1 KiB at most, named after its part of the log, the first of which is the newest.
#[test]
#[ignore = "a boot of its own, by EFI: the log of a dump that failed everywhere"]
fn the_log_is_in_variables_of_efi_after_a_dump_that_had_no_other_place() -> Result<()> {
    let firmware = firmware()?;
    let variables = folders::qemu().join("runs").join("pstore-variables");
    tools::copy(&firmware.variables, &variables)?;
    let scenario = Scenario {
        native: Some(TARGETS.into()),
        append: "pstore.compress=none".into(),
        qemu: [
            "-drive".to_owned(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file={}", firmware.code.display()),
            "-drive".to_owned(),
            format!("if=pflash,unit=1,format=raw,file={}", variables.display()),
        ]
        .into(),
        ..Scenario::of(kernel(Suite::Own)?, "pstore-efi")
    };
    let outcome = crash(&scenario)?;
    // Newer kernels call it efi_pstore.
    has_gone_to("efi", &outcome)?;
    let mut parts = Vec::new();
    for variable in efi_variables::read(&variables)? {
        let Some(rest) = variable.name.strip_prefix("dump-type0-") else { continue };
        let part: u32 = rest.split('-').next().unwrap_or_default().parse().context("a record has no number")?;
        parts.push((part, String::from_utf8_lossy(&variable.data).into_owned()));
    }
    parts.sort();
    let kept: String = parts.iter().rev().map(|(_, text)| text.split_once('\n').map_or("", |(_, text)| text)).collect();
    tells_it_all(&kept)?;
    fs::remove_file(&variables)?;
    Ok(())
}
