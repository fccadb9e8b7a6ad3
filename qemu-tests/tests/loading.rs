//! The ways to load a capture kernel, and to crash a machine for a test.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::crash::{fill_disk, mkdumprd};
use qemu_tests::live::{self, Live, live};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::scenario::Content;
use qemu_tests::unified::unified;
use qemu_tests::{folders, provision, tools};

/// The dump is judged against its whole source: the headers of `/proc/vmcore` are ours here. `kdumpctl test` crashes the
/// machine, and finds what came of it.
#[test]
fn a_kernel_that_is_loaded_by_kexec_load_saves_the_dump_of_a_test() -> Result<()> {
    let scenario = Scenario {
        start: "--syscall load",
        by_test: true,
        keep_raw: true,
        ..Scenario::of(kernel(Suite::Own)?, "kexec-load")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("kdump.img by kexec_load"), "it was loaded by another call");
    judge::against_source(&scenario, &outcome)?;

    // The machine after the reboot, as far as the result is found there.
    let machine = scenario.folder().join("after");
    for folder in ["etc", "var/lib"] {
        fs::create_dir_all(machine.join(folder))?;
    }
    fs::write(machine.join("etc/kdump.conf"), "path /var/crash\n")?;
    fs::rename(scenario.folder().join("kdump"), machine.join("var/lib/kdump")).context("no test was noted")?;
    let dump = outcome.dump()?;
    fs::rename(dump.parent().context("the dump is in no folder")?, machine.join("var/crash"))?;
    let kdumpctl = || {
        let mut command = Command::new(programs()?.path("kdumpctl"));
        command.arg("--sysroot").arg(&machine);
        anyhow::Ok(command)
    };
    let said = tools::text(kdumpctl()?.args(["test", "--result"]))?;
    ensure!(said.contains("succeeded: "), "{said}");
    let listed = tools::text(kdumpctl()?.args(["dumps", "list"]))?;
    ensure!(listed.contains("complete") && listed.contains("sysrq triggered crash"), "{listed}");
    let verified = tools::text(kdumpctl()?.args(["dumps", "verify"]))?;
    ensure!(verified.contains(": sound, "), "{verified}");
    Ok(())
}

/// Linux 6.12 keeps the headers of the dump up to date itself, in the room that it asks for.
#[test]
#[ignore = "as the first one, with a newer kernel"]
fn a_kernel_that_follows_hotplug_saves_a_dump_when_it_is_loaded_by_kexec_load() -> Result<()> {
    let scenario = Scenario {
        start: "--syscall load",
        keep_raw: true,
        ..Scenario::of(kernel(Suite::Trixie)?, "kexec-load-newer")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("kdump.img by kexec_load"), "it was loaded by another call");
    judge::against_source(&scenario, &outcome)?;
    Ok(())
}

/// SUSE's words: what is reserved beyond the need is given back before the kernel is loaded, the rest is enough, and the
/// log is all that is saved.
#[test]
fn a_log_without_a_dump_is_saved_in_what_is_left_of_the_reservation() -> Result<()> {
    let scenario = Scenario {
        memory_mib: 1024,
        crashkernel_mib: 384,
        sysconfig: vec!["KDUMP_DUMPFORMAT=none".into(), "KDUMP_AUTO_RESIZE=true".into()],
        ..Scenario::of(kernel(Suite::Own)?, "log-only")
    };
    let outcome = crash(&scenario)?;
    let given = |line: &str| line.split_once("Gave back ")?.1.split_once(" MiB of the 384 MiB")?.0.parse().ok();
    let mib: u32 = outcome.console.lines().find_map(given).context("nothing was given back")?;
    ensure!((100..384).contains(&mib), "{mib} MiB were given back");
    let dump = outcome.dump()?;
    let log = fs::read_to_string(dump.join("vmcore-dmesg.txt"))?;
    ensure!(log.contains(&outcome.marker) && log.contains("Kernel panic"), "the log is not the crashed kernel's");
    let names = fs::read_dir(dump)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    ensure!(names == ["kexec-dmesg.log", "status.json", "vmcore-dmesg.txt"], "there are {names:?}");
    outcome.status()?.expect_outcome("complete")?;
    Ok(())
}

/// Debian's file, and kdump.toml's word for it.
#[test]
fn the_capture_kernel_may_be_in_a_unified_image_and_makes_the_settings_that_are_for_it_alone() -> Result<()> {
    const UNIFIED: &str = "/boot/EFI/Linux/linux.efi";
    let look = "/bin/busybox echo swappiness is $(/bin/busybox cat /proc/sys/vm/swappiness) > /dev/kmsg";
    let scenario = Scenario {
        native: Some(format!(
            "log_only = true\n[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL={}\"\n[programs]\n\
             pre = \"/usr/local/bin/look\"\n[kernel]\nsysctl = \"/etc/kdump/sysctl.conf\"\nfile = \"{UNIFIED}\"\n",
            qemu_tests::scenario::LABEL
        )),
        files: vec![
            GuestFile::text("/etc/kdump/sysctl.conf", "vm.swappiness = 37\n"),
            GuestFile { path: UNIFIED.into(), content: Content::Bytes(unified(&kernel(Suite::Own)?)?) },
            GuestFile::script("/usr/local/bin/look", look),
        ],
        busybox: true,
        ..Scenario::of(kernel(Suite::Own)?, "capture-sysctl")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains(&format!("Loaded {UNIFIED} with ")), "it is another kernel that was loaded");
    let log = fs::read_to_string(outcome.dump()?.join("kexec-dmesg.log"))?;
    ensure!(log.contains("swappiness is 37"), "the setting was not made: {}", tools::tail(&log, 40));
    let first = fs::read_to_string(outcome.dump()?.join("vmcore-dmesg.txt"))?;
    ensure!(!first.contains("swappiness is"), "it was made before the crash");
    Ok(())
}

/// Nothing crashes: the kernel says itself whether it follows what is plugged in, and how much it has reserved.
#[test]
fn a_kernel_that_is_loaded_by_kexec_load_is_told_to_follow_hotplug_and_gives_memory_back() -> Result<()> {
    const SIZE: &str = "/bin/busybox cat /sys/kernel/kexec_crash_size";
    const FOLLOWS: &str = "/bin/busybox cat /sys/devices/system/memory/crash_hotplug";
    let programs = programs()?;
    let scenario = Scenario::of(kernel(Suite::Trixie)?, "hotplug-flag");
    folders::fresh(&scenario.folder())?;
    let tree = scenario.folder().join("disk");
    fill_disk(&scenario, &programs, &tree)?;
    let image = format!("/boot/initramfs-{}kdump.img", scenario.kernel.release);
    tools::run(&mut mkdumprd(&scenario, &programs, &tree, &tree.join(image.trim_start_matches('/'))))?;
    let read = |path: &str| anyhow::Ok((path.to_owned(), fs::read(tree.join(path.trim_start_matches('/')))?));
    let guest = Live {
        name: "hotplug-flag-live",
        kernel: scenario.kernel.clone(),
        append: "crashkernel=256M nokaslr",
        qemu: Vec::new(),
        programs: vec!["kdumpctl"],
        files: vec![
            read(&format!("/boot/vmlinuz-{}", scenario.kernel.release))?,
            read(&image)?,
            read("/etc/kdump.conf")?,
        ],
        commands: [
            FOLLOWS,
            "/usr/sbin/kdumpctl reload --syscall load",
            FOLLOWS,
            SIZE,
            "/usr/sbin/kdumpctl reload --shrink",
            SIZE,
            FOLLOWS,
            "/usr/sbin/kdumpctl status",
        ]
        .map(str::to_owned)
        .into(),
    };
    let answers = live(&guest)?;
    let [before, loaded, follows, whole, shrunk, rest, still, status] = &answers[..] else {
        anyhow::bail!("there are {} answers", answers.len())
    };
    before.expect(0, &["0"])?;
    loaded.expect(0, &["by kexec_load"])?;
    follows.expect(0, &["1"])?;
    whole.expect(0, &["268435456"])?;
    shrunk.expect(0, &["Gave back ", " MiB of the 256 MiB", "by kexec_load"])?;
    let left: u64 = rest.out.trim().parse().with_context(|| format!("{:?} is no size", rest.out))?;
    ensure!((48 << 20..256 << 20).contains(&left), "{left} bytes are left");
    still.expect(0, &["1"])?;
    status.expect(0, &["Kdump is operational"])
}

/// The very kernel and image, in a virtual machine that kdumpctl makes itself. A second one has too little memory.
#[test]
fn a_rehearsal_tells_what_a_crash_would_come_to() -> Result<()> {
    provision::tools()?;
    let programs = programs()?;
    let scenario = Scenario { default_command_line: true, ..Scenario::of(kernel(Suite::Own)?, "rehearsal") };
    folders::fresh(&scenario.folder())?;
    let tree = scenario.folder().join("disk");
    fill_disk(&scenario, &programs, &tree)?;
    let image = tree.join("boot").join(format!("initramfs-{}kdump.img", scenario.kernel.release));
    tools::run(&mut mkdumprd(&scenario, &programs, &tree, &image))?;
    let _slot = folders::lock_any("slots", std::thread::available_parallelism().map_or(1, std::num::NonZero::get))?;
    let rehearse = |memory: &str, keep: &str| {
        let mut command = Command::new(programs.path("kdumpctl"));
        command.arg("--sysroot").arg(&tree).args(["rehearse", "--json", "--memory", memory, "--accel", "tcg"]);
        command.arg("--kernel").arg(&scenario.kernel.vmlinuz).arg("--image").arg(&image);
        command.args(["--qemu=-cpu", "--qemu=max,-cx16", "--limit", "240", "--keep"]).arg(scenario.folder().join(keep));
        let output = command.output().context("unable to run kdumpctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("no report but {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        anyhow::Ok((output.status.success(), report))
    };
    let (succeeded, report) = rehearse("128", "enough")?;
    ensure!(succeeded && report["complete"] == true && report["verified"] == true, "{report:#}");
    ensure!(report["memory_left"].as_u64().is_some_and(|left| left > 16 << 20), "{report:#}");
    let panic = report.pointer("/status/vmcore/panic_line").and_then(serde_json::Value::as_str);
    ensure!(panic.is_some_and(|line| line.contains("kdumpctl rehearsal")), "{report:#}");
    let (succeeded, report) = rehearse("40", "too-little")?;
    ensure!(
        !succeeded && report["complete"] == false && reason_of(&report).contains("ran out of memory"),
        "{report:#}"
    );
    Ok(())
}

/// The second boot takes the same way, and says where it has come.
#[test]
#[ignore = "the capture kernel's way is in the ordinary run"]
fn the_next_kernel_is_booted_by_either_call() -> Result<()> {
    provision::tools()?;
    let kernel = kernel(Suite::Own)?;
    let script = "if /bin/busybox grep -q guest.second /proc/cmdline; then echo arrived; exit 0; fi\n\
        exec kdumpctl kexec --kernel /boot/vmlinuz --initrd /boot/first.img --reuse-cmdline --append guest.second \
        --syscall $1 --now\n";
    for (name, call) in [("kexec-file", "file"), ("kexec-segments", "load")] {
        let guest = Live {
            name,
            kernel: kernel.clone(),
            append: "",
            qemu: Vec::new(),
            programs: vec!["kdumpctl"],
            files: vec![
                ("/boot/vmlinuz".into(), fs::read(&kernel.vmlinuz)?),
                ("/boot/first.img".into(), live::initramfs(&kernel)?),
                ("/etc/guest/next".into(), script.into()),
            ],
            commands: vec![format!("/bin/busybox sh /etc/guest/next {call}")],
        };
        live(&guest)?.first().context("nothing was said")?.expect(0, &["arrived"])?;
    }
    Ok(())
}

fn reason_of(report: &serde_json::Value) -> &str {
    report["reason"].as_str().unwrap_or_default()
}
