//! Ours, dracut and mkinitramfs, in turn, for the same kernel in the same run.
//!
//! ```text
//!  cargo bench -p kdump-builder               a small Debian with both and a kernel is made once, as root, and kept
//!  cargo bench -p kdump-builder -- --runs 5   the best of so many runs counts (default 3)
//! ```
//!
//! May surprise: files are in the page cache, as after any update of a system; nothing else is kept from run to run. What
//! is timed is the whole program, from its start to its end; of the up-to-date check `kdumpctl status`, which does more.
//! A goal that is missed is told where it is, and at the end it is an error. A target that is on no disk of the machine
//! gets the drivers of most machines; with xfs such an image has no goal.

#![allow(clippy::panic, clippy::cast_precision_loss)]
#![allow(missing_docs)]

#[path = "../tests/builders/mod.rs"]
mod builders;

use builders::{Builders, Result, run};
use kdump_builder::fake::described;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const OURS: &str = env!("CARGO_BIN_EXE_mkdumprd");
const CONTROL: &str = env!("CARGO_BIN_EXE_kdumpctl");

/// A machine with one virtio disk, and what is on it.
const MACHINE: &str = include_str!("../tests/hosts/cloud.toml");
const DISK: &str = "UUID=5e0f3c1a-0000-4000-8000-00000000abcd";

/// Where our programs are while they run in the small Debian, and what they make of it.
const INSIDE: &str = "tmp/kdump-bench";
const MADE: [&str; 2] = ["etc/kdump.conf", "etc/sysconfig/kdump"];

/// The goals: an image for a local target, and one for NFS or ssh, in bytes; seconds for the first; the check, and the list
/// as a part of dracut's.
const LOCAL: u64 = 4_000_000;
const REMOTE: u64 = 9_000_000;
const SECONDS: f64 = 0.4;
const CHECK: f64 = 0.05;
const LIST: f64 = 0.2;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runs = match args.as_slice() {
        [] => 3,
        [word, runs] if word == "--runs" => runs.parse()?,
        _ => return Err("only --runs N is known; see the top of benches/side_by_side.rs".into()),
    };
    let bench = Bench::new(runs)?;
    let local = bench.build("ours, local", "path /var/crash\next4 LABEL=crash\n", None)?;
    bench.judge("a local target", &local, LOCAL, SECONDS);
    bench.build("ours, xfs on any disk", "path /var/crash\nxfs LABEL=crash\n", None)?;
    let machine = tempfile::tempdir()?;
    described::machine(machine.path(), MACHINE, "")?;
    for kind in ["ext4", "xfs"] {
        let name = format!("ours, {kind} on its virtio disk");
        let built = bench.build(&name, &format!("path /var/crash\n{kind} {DISK}\n"), Some(machine.path()))?;
        bench.judge(&format!("{kind} on a disk of the machine"), &built, LOCAL, SECONDS);
    }
    let words = [("local", "path /var/crash\next4 LABEL=crash\n", ""), ("NFS", "nfs 192.0.2.1:/srv\n", "ip=dhcp")];
    for (name, conf, append) in words {
        let check = bench.check(conf, append)?;
        let verdict = bench.verdict(check <= CHECK, "50 ms");
        println!("{:<34} {:>9.1} ms{:>14}  {verdict}", format!("up-to-date check, {name}"), check * 1e3, "");
    }
    for how in ["none", "zstd"] {
        bench.rebuild(how)?;
    }
    let nfs = bench.build("ours, NFS", "path /crash\nnfs 192.0.2.1:/srv\n", None)?;
    bench.judge("NFS", &nfs, REMOTE, f64::MAX);
    let ssh = bench.build("ours, ssh", "path /crash\nssh dump@192.0.2.1\nsshkey /root/key\n", None)?;
    bench.judge("ssh", &ssh, REMOTE, f64::MAX);
    let strict =
        "--hostonly --hostonly-mode strict --no-hostonly-default-device --add-drivers 'ext4 virtio_blk virtio_pci'";
    bench.theirs(
        "dracut, local",
        &format!("dracut -q -f {strict} -o 'plymouth resume' /tmp/i {}", bench.builders.kver),
    )?;
    bench.theirs("mkinitramfs", &format!("mkinitramfs -o /tmp/i {} 2>/dev/null", bench.builders.kver))?;
    for how in ["zstd", "gzip", "xz"] {
        bench.lists(how)?;
    }
    match bench.missed.get() {
        0 => Ok(()),
        missed => Err(format!("{missed} goals are missed: see ABOVE").into()),
    }
}

/// How long a command takes.
fn timed(command: &mut Command) -> Result<f64> {
    let clock = Instant::now();
    run(command)?;
    Ok(clock.elapsed().as_secs_f64())
}

/// What was built, how large it is, and how long it took.
struct Built {
    bytes: u64,
    seconds: f64,
}

struct Bench {
    builders: Builders,
    programs: PathBuf,
    scratch: tempfile::TempDir,
    runs: u32,
    missed: Cell<u32>,
}

impl Bench {
    fn new(runs: u32) -> Result<Bench> {
        let builders = Builders::new(OURS)?;
        // The images are made of the programs as they are released.
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        run(Command::new(cargo).args(["build", "--quiet", "--release", "-p", "kdump-init", "-p", "kdump-capture"]))?;
        let programs = Path::new(OURS).parent().ok_or("mkdumprd is nowhere")?.to_owned();
        Ok(Bench { builders, programs, scratch: tempfile::tempdir()?, runs, missed: Cell::new(0) })
    }

    fn verdict(&self, good: bool, goal: &str) -> String {
        self.missed.set(self.missed.get() + u32::from(!good));
        format!("{} {goal}", if good { "within" } else { "ABOVE" })
    }

    /// The least time that `command` takes.
    fn best(&self, mut command: impl FnMut() -> Command) -> Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..self.runs {
            best = best.min(timed(&mut command())?);
        }
        Ok(best)
    }

    fn build(&self, name: &str, conf: &str, machine: Option<&Path>) -> Result<Built> {
        let config = self.scratch.path().join("kdump.conf");
        fs::write(&config, conf)?;
        for (file, text) in [
            ("root/key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
            ("etc/ssh/ssh_known_hosts", "192.0.2.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n"),
        ] {
            fs::write(self.builders.root.join(file), text)?;
        }
        let image = self.scratch.path().join(name.replace([' ', ','], "-"));
        let seconds = self.best(|| {
            let mut command = Command::new(OURS);
            command.args(["-f", "--kver", &self.builders.kver, "--config"]).arg(&config);
            command.arg("--sysroot").arg(machine.unwrap_or(&self.builders.root));
            command.arg("--modules-dir").arg(self.builders.root.join("lib/modules").join(&self.builders.kver));
            command.arg("--programs").arg(&self.programs).arg(&image);
            command
        })?;
        let bytes = fs::metadata(&image)?.len();
        println!("{name:<34} {seconds:>9.3} s {bytes:>14} bytes");
        Ok(Built { bytes, seconds })
    }

    /// An image that is there and of which one module has changed, beside one from nothing.
    fn rebuild(&self, how: &str) -> Result<()> {
        let config = self.scratch.path().join("kdump.conf");
        fs::write(&config, "path /var/crash\next4 LABEL=crash\n")?;
        let image = self.scratch.path().join(format!("rebuilt-{how}"));
        let module =
            self.builders.root.join("lib/modules").join(&self.builders.kver).join("kernel/drivers/block/virtio_blk.ko");
        let original = fs::read(&module)?;
        let build = || {
            let mut command = Command::new(OURS);
            command.args(["-f", "--compress", how, "--kver", &self.builders.kver, "--sysroot"]);
            command
                .arg(&self.builders.root)
                .arg("--config")
                .arg(&config)
                .arg("--programs")
                .arg(&self.programs)
                .arg(&image);
            command
        };
        let (mut cold, mut warm) = (f64::MAX, f64::MAX);
        for round in 0..self.runs {
            let _ = fs::remove_file(&image);
            cold = cold.min(timed(&mut build())?);
            fs::write(&module, [original.as_slice(), &round.to_le_bytes()].concat())?;
            warm = warm.min(timed(&mut build())?);
        }
        fs::write(&module, original)?;
        println!("{:<34} {cold:>9.3} s {:>14}", format!("ours, {how}, from nothing"), "");
        println!(
            "{:<34} {warm:>9.3} s {:>14} ratio {:.2}",
            format!("ours, {how}, one module changed"),
            "",
            warm / cold
        );
        Ok(())
    }

    fn judge(&self, what: &str, built: &Built, bytes: u64, seconds: f64) {
        println!("    {what}: {}", self.verdict(built.bytes <= bytes, &format!("{bytes} bytes")));
        if seconds < f64::MAX {
            println!("    {what}: {}", self.verdict(built.seconds <= seconds, &format!("{seconds} s")));
        }
    }

    /// How long it takes to see that an image is up to date, on the machine itself, the network compared if it needs one.
    fn check(&self, conf: &str, append: &str) -> Result<f64> {
        let root = &self.builders.root;
        fs::create_dir_all(root.join(INSIDE))?;
        fs::create_dir_all(root.join("etc/sysconfig"))?;
        fs::copy(CONTROL, root.join(INSIDE).join("kdumpctl"))?;
        for program in ["kdump-init", "kdump-capture"] {
            fs::copy(self.programs.join(program), root.join(INSIDE).join(program))?;
        }
        let sysconfig = format!("KDUMP_KERNELVER=\"{}\"\nKDUMP_COMMANDLINE_APPEND=\"{append}\"\n", self.builders.kver);
        for (file, text) in MADE.iter().zip([conf, &sysconfig]) {
            fs::write(root.join(file), text)?;
        }
        let checked = self.checked();
        let image = format!("boot/initramfs-{}kdump.img", self.builders.kver);
        for file in MADE.iter().copied().chain([image.as_str()]) {
            let _ = fs::remove_file(root.join(file));
        }
        fs::remove_dir_all(root.join(INSIDE))?;
        checked
    }

    fn checked(&self) -> Result<f64> {
        run(&mut self.builders.inside(&format!("/{INSIDE}/kdumpctl rebuild")))?;
        let clock = "date +%s%N";
        // Nothing is loaded here, which is an exit of 3.
        let line = format!(
            "from=$({clock}); /{INSIDE}/kdumpctl status --json > /{INSIDE}/status || [ $? = 3 ] || exit; \
             echo $(($({clock}) - from))"
        );
        let mut best = f64::MAX;
        for _ in 0..self.runs {
            let nanoseconds: u32 = run(&mut self.builders.inside(&line))?.trim().parse()?;
            best = best.min(f64::from(nanoseconds) / 1e9);
            let status = fs::read_to_string(self.builders.root.join(INSIDE).join("status"))?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let is_whole = status["configuration_error"].is_null() && status["image"].is_string();
            if !is_whole || status["stale"].as_array().is_none_or(|stale| !stale.is_empty()) {
                return Err(format!("it is not up to date: {status:#}").into());
            }
        }
        Ok(best)
    }

    fn theirs(&self, name: &str, line: &str) -> Result<()> {
        let seconds = self.best(|| self.builders.inside(line))?;
        println!("{name:<34} {seconds:>9.3} s {:>14} bytes", fs::metadata(self.builders.root.join("tmp/i"))?.len());
        Ok(())
    }

    /// Lists a large image of dracut's, by dracut and by ours.
    fn lists(&self, how: &str) -> Result<()> {
        let image = self.builders.root.join(format!("tmp/large-{how}.img"));
        if !image.is_file() {
            let noise = "test -f /tmp/noise-26 || head -c 26000000 /dev/urandom > /tmp/noise-26";
            let line = format!(
                "{noise}; dracut -q -f --no-hostonly --{how} --include /tmp/noise-26 /noise /tmp/large-{how}.img"
            );
            run(&mut self.builders.inside(&format!("{line} {}", self.builders.kver)))?;
        }
        let theirs = self.best(|| self.builders.inside(&format!("lsinitrd /tmp/large-{how}.img > /dev/null")))?;
        let link = self.scratch.path().join("lsinitrd");
        if !link.exists() {
            std::os::unix::fs::symlink(OURS, &link)?;
        }
        let ours = self.best(|| {
            let mut command = Command::new(&link);
            command.arg(&image);
            command
        })?;
        let (ratio, bytes) = (ours / theirs, fs::metadata(&image)?.len());
        println!(
            "lsinitrd, {how:<24} {ours:>9.3} s {bytes:>14} bytes; dracut's {theirs:.3} s, ratio {ratio:.3} {}",
            self.verdict(ratio <= LIST, "0.2")
        );
        Ok(())
    }
}
