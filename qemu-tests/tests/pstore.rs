//! A real crash of which nothing but the end of the log can be kept: ramoops, in memory that outlives the machine.

use anyhow::{Result, ensure};
use qemu_tests::folders;
use qemu_tests::prelude::*;
use std::fs;

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "a boot of its own: the log of a dump that failed everywhere"]
fn the_log_is_in_ramoops_after_a_dump_that_had_no_other_place() -> Result<()> {
    let memory = folders::qemu().join("runs").join("pstore-memory");
    fs::create_dir_all(folders::qemu().join("runs"))?;
    fs::File::create(&memory)?.set_len(4 * MIB)?;
    let scenario = Scenario {
        native: Some(
            "[limits]\ndevice = 5\n\n[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=missing\"\n\n\
             [[target]]\nkind = \"pstore\"\n"
                .into(),
        ),
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
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}", outcome.ending);
    ensure!(outcome.dump.is_none(), "there is a dump");
    for words in ["goes to pstore (ramoops) when this kernel ends", "pstore takes the log alone"] {
        ensure!(outcome.console.contains(words), "the console does not say: {words}");
    }
    let kept = fs::read(&memory)?;
    let kept = String::from_utf8_lossy(&kept);
    for words in ["old: ", "Kernel panic - not syncing: sysrq", "LABEL=missing did not appear within 5 s"] {
        ensure!(kept.contains(words), "the memory does not say: {words}");
    }
    fs::remove_file(&memory)?;
    Ok(())
}
