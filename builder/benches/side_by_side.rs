//! Ours, dracut and mkinitramfs, in turn, for the same kernel in the same run.
//!
//! ```text
//!  cargo bench -p kdump-builder               a small Debian with both and a kernel is made once, as root, and kept
//!  cargo bench -p kdump-builder -- --runs 5   the best of so many runs counts (default 3)
//! ```
//!
//! May surprise: files are in the page cache, as after any update of a system; nothing else is kept from run to run. What
//! is timed is the whole program, from its start to its end; the up-to-date check alone is timed inside this one.

#![allow(clippy::panic, clippy::cast_precision_loss)]
#![allow(missing_docs)]

#[path = "../tests/builders/mod.rs"]
mod builders;

use builders::{Builders, Result, run};
use kdump_builder::host::Tree;
use kdump_builder::uptodate;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const OURS: &str = env!("CARGO_BIN_EXE_mkdumprd");

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
    let local = bench.build("ours, local", "path /var/crash\next4 LABEL=crash\n")?;
    bench.judge("a local target", &local, LOCAL, SECONDS);
    let check = bench.check(&local.image)?;
    println!("{:<34} {:>9.1} ms{:>14}  {}", "up-to-date check", check * 1e3, "", verdict(check <= CHECK, "50 ms"));
    for how in ["none", "zstd"] {
        bench.rebuild(how)?;
    }
    let nfs = bench.build("ours, NFS", "path /crash\nnfs 192.0.2.1:/srv\n")?;
    bench.judge("NFS", &nfs, REMOTE, f64::MAX);
    let ssh = bench.build("ours, ssh", "path /crash\nssh dump@192.0.2.1\nsshkey /root/key\n")?;
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
    Ok(())
}

fn verdict(good: bool, goal: &str) -> String {
    format!("{} {goal}", if good { "within" } else { "ABOVE" })
}

/// How long a command takes.
fn timed(command: &mut Command) -> Result<f64> {
    let clock = Instant::now();
    run(command)?;
    Ok(clock.elapsed().as_secs_f64())
}

/// What was built, how large it is, and how long it took.
struct Built {
    image: PathBuf,
    bytes: u64,
    seconds: f64,
}

struct Bench {
    builders: Builders,
    programs: PathBuf,
    scratch: tempfile::TempDir,
    runs: u32,
}

impl Bench {
    fn new(runs: u32) -> Result<Bench> {
        let builders = Builders::new(OURS)?;
        // The images are made of the programs as they are released.
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        run(Command::new(cargo).args(["build", "--quiet", "--release", "-p", "kdump-init", "-p", "kdump-capture"]))?;
        let programs = Path::new(OURS).parent().ok_or("mkdumprd is nowhere")?.to_owned();
        Ok(Bench { builders, programs, scratch: tempfile::tempdir()?, runs })
    }

    /// The least time that `command` takes.
    fn best(&self, mut command: impl FnMut() -> Command) -> Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..self.runs {
            best = best.min(timed(&mut command())?);
        }
        Ok(best)
    }

    fn build(&self, name: &str, conf: &str) -> Result<Built> {
        let config = self.scratch.path().join("kdump.conf");
        fs::write(&config, conf)?;
        for (file, text) in [("root/key", "KEY"), ("etc/ssh/ssh_known_hosts", "192.0.2.1 ssh-ed25519 AAAA\n")] {
            fs::write(self.builders.root.join(file), text)?;
        }
        let image = self.scratch.path().join(name.replace([' ', ','], "-"));
        let seconds = self.best(|| {
            let mut command = Command::new(OURS);
            command
                .args(["-f", "--kver", &self.builders.kver, "--sysroot"])
                .arg(&self.builders.root)
                .arg("--config")
                .arg(&config);
            command.arg("--programs").arg(&self.programs).arg(&image);
            command
        })?;
        let bytes = fs::metadata(&image)?.len();
        println!("{name:<34} {seconds:>9.3} s {bytes:>14} bytes");
        Ok(Built { image, bytes, seconds })
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
        println!("    {what}: {}", verdict(built.bytes <= bytes, &format!("{bytes} bytes")));
        if seconds < f64::MAX {
            println!("    {what}: {}", verdict(built.seconds <= seconds, &format!("{seconds} s")));
        }
    }

    /// How long it takes to see that an image is up to date.
    fn check(&self, image: &Path) -> Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..self.runs {
            let clock = Instant::now();
            let tree = Tree::new(&self.builders.root);
            let changed = uptodate::changed(&tree, &uptodate::read(&fs::read(image)?)?)?;
            best = best.min(clock.elapsed().as_secs_f64());
            // The configuration lies outside, and has been written anew since.
            if !changed.is_empty() {
                return Err(format!("it is not up to date: {}", changed.join("; ")).into());
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
            verdict(ratio <= LIST, "0.2")
        );
        Ok(())
    }
}
