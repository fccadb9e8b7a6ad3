//! PID 1 of the kernel that is going to crash.
//!
//! ```text
//!  mount /proc /sys /dev ─▶ modules ─▶ mount the disk ─▶ chroot ─▶ kdumpctl start ─▶ fill memory ─▶ marker ─▶ sysrq c
//! ```
//!
//! In: words of the kernel's command line, `guest.mode=crash|poweroff`, `guest.load=MIB` and `guest.huge=PAGES` for the
//! filling, or `guest.kinds=every guest.gigantic=PAGES guest.balloon=PAGES` to leave it to `page-kinds`, `guest.marker=TEXT`,
//! `guest.start=WORD,WORD` for `kdumpctl start`, `guest.crash=test` to let `kdumpctl test` crash it; modules packed under `/modules` in the order that `/modules/order` says. Out: lines that
//! begin with `GUEST: ` on the console. Whatever fails is such a line too, and then the machine is powered off.
//!
//! A target that the guest puts together itself (`stack.rs`) is made by the commands in [`PREPARE`]; with
//! `guest.mode=fetch` those in [`FETCH`] put it together again, the dump is copied to the disk, and there is no crash.
//!
//! With `guest.mode=prepare` that is all that is done: a root is put together for the next boot.
//!
//! With `guest.mode=serve` it stays as it is after [`PREPARE`]: another guest uses what it serves.
//!
//! With `guest.mode=commands` commands run, and what they say is kept (`live.rs`).
//!
//! With `guest.mode=mem-usage` there is no crash: its pages are counted instead (`mem_usage.rs`), and it is powered off.

mod commands;
mod fill;
mod live;
mod mem_usage;
mod prepare;

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::termios::tcdrain;
use qemu_tests::scenario::CRASH_FOLDER;
use qemu_tests::stack::{FETCH, PREPARE};
use std::path::Path;

fn main() {
    if let Err(error) = run() {
        say(&format!("failed: {error:#}"));
    }
    prepare::power_off();
}

fn run() -> Result<()> {
    prepare::mount_kernel_filesystems("")?;
    let words = Words::of_this_boot()?;
    if words.get("mode") == Some("poweroff") {
        say("booted");
        return Ok(());
    }
    say("loading modules");
    prepare::load_modules()?;
    say("mounting the disk");
    prepare::enter_disk()?;
    if words.get("mode") == Some("mem-usage") {
        say("filling memory");
        fill::memory(words.number("load")?, words.number("huge")?)?;
        mem_usage::measure()?;
        say("counted");
        return Ok(());
    }
    if words.get("mode") == Some("commands") {
        live::answer()?;
        say("answered");
        return Ok(());
    }
    if words.get("mode") == Some("fetch") {
        commands::run(FETCH)?;
        commands::copy(Path::new("/mnt/var/crash"), Path::new(CRASH_FOLDER))?;
        say("fetched");
        return Ok(());
    }
    commands::run(PREPARE)?;
    if words.get("mode") == Some("prepare") {
        say("prepared");
        return Ok(());
    }
    if words.get("mode") == Some("serve") {
        say("serving");
        loop {
            std::thread::park();
        }
    }
    say("kdumpctl start");
    load_crash_kernel(words.get("start").unwrap_or_default())?;
    say("filling memory");
    let loaded = match words.get("kinds") {
        Some(_) => fill::with_every_kind(words.number("gigantic")?, words.number("balloon")?)?,
        None => fill::memory(words.number("load")?, words.number("huge")?)?,
    };
    fs::write("/dev/kmsg", words.get("marker").unwrap_or("kdump-marker")).context("unable to write to /dev/kmsg")?;
    nix::unistd::sync();
    say(&format!("crashing now, with {loaded} MiB of memory in use"));
    if words.get("crash") == Some("test") {
        let ended = Command::new("/usr/sbin/kdumpctl").args(["test", "--force"]).status();
        bail!("kdumpctl test ended with {:?}", ended.context("unable to run kdumpctl")?);
    }
    fs::write("/proc/sysrq-trigger", "c").context("unable to crash the kernel")?;
    std::thread::sleep(Duration::from_secs(30));
    bail!("the kernel did not crash");
}

/// Says it, and waits until the serial port has sent it: what the kernel prints must not overtake it.
fn say(text: &str) {
    println!("GUEST: {text}");
    let _ = tcdrain(std::io::stdout());
}

fn load_crash_kernel(words: &str) -> Result<()> {
    let path = "/usr/bin:/usr/sbin:/bin:/sbin";
    let words = words.split(',').filter(|word| !word.is_empty());
    let status = Command::new("/usr/sbin/kdumpctl").arg("start").args(words).env("PATH", path).status();
    let status = status.context("unable to run kdumpctl")?;
    if !status.success() {
        bail!("kdumpctl start ended with {status}");
    }
    let loaded = fs::read_to_string("/sys/kernel/kexec_crash_loaded").context("unable to ask for the crash kernel")?;
    if loaded.trim() != "1" {
        bail!("kdumpctl start succeeded, yet kexec_crash_loaded is {}", loaded.trim());
    }
    Ok(())
}

/// The command line's words that begin with `guest.`.
struct Words(String);

impl Words {
    fn of_this_boot() -> Result<Words> {
        fs::read_to_string("/proc/cmdline").map(Words).context("unable to read the kernel's command line")
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.split_whitespace().find_map(|word| word.strip_prefix("guest.")?.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str) -> Result<usize> {
        let value = self.get(key).unwrap_or("0");
        value.parse().with_context(|| format!("guest.{key}={value} is not a number"))
    }
}
