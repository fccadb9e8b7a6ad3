//! Ours and makedumpfile, in turn, on the same vmcore.
//!
//! ```text
//!  cargo bench -p kdump-capture                       a guest of 3 GB is crashed once and kept; makedumpfile is fetched
//!  cargo bench -p kdump-capture -- --input VMCORE     another vmcore; --makedumpfile PROGRAM another makedumpfile
//!  cargo bench -p kdump-capture -- --scale            ours alone, on machines of 64 GiB, 256 GiB and 1 TiB
//! ```
//!
//! More: `--runs N` (default 5, the best counts), `--levels 31,0`, `--codecs none,zlib,lzo,zstd`, `--json`, `--scratch DIR`
//! (where dumps go; default /dev/shm, so that no disk is measured).
//! May surprise: each run is started through this program once more, which waits for it alone and so learns what it took.

#![allow(clippy::panic, clippy::cast_precision_loss)]
#![allow(missing_docs)]

#[path = "../tests/vast/mod.rs"]
mod vast;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const OURS: &str = env!("CARGO_BIN_EXE_kdump-capture");
const CODECS: [(&str, &str); 5] = [("none", ""), ("zlib", "-c"), ("lzo", "-l"), ("snappy", "-p"), ("zstd", "-z")];

/// The goals of the design, as ratios of time: level, codec, ratio.
const GOALS: [(u8, &str, f64); 6] =
    [(31, "none", 0.8), (31, "zlib", 0.2), (31, "lzo", 0.7), (31, "zstd", 0.45), (0, "zlib", 0.2), (0, "lzo", 0.6)];

/// A run longer than this is not repeated.
const LONG: f64 = 8.0;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let Some((word, command)) = args.split_first()
        && word == "measure"
    {
        return measure(command);
    }
    let options = Options::parse(&args)?;
    if options.scale { scale(&options) } else { side_by_side(&options) }
}

/// What was typed.
struct Options {
    input: Option<PathBuf>,
    makedumpfile: Option<String>,
    runs: u32,
    levels: Vec<u8>,
    codecs: Vec<String>,
    scratch: PathBuf,
    scale: bool,
    json: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let shm = PathBuf::from("/dev/shm");
        let mut options = Options {
            input: None,
            makedumpfile: None,
            runs: 5,
            levels: vec![31, 0],
            codecs: ["none", "zlib", "lzo", "zstd"].map(String::from).to_vec(),
            scratch: if shm.is_dir() { shm } else { std::env::temp_dir() },
            scale: false,
            json: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} takes a value"));
            match arg.as_str() {
                "--input" => options.input = Some(value()?.into()),
                "--makedumpfile" => options.makedumpfile = Some(value()?.clone()),
                "--runs" => options.runs = value()?.parse()?,
                "--levels" => {
                    options.levels = value()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?
                }
                "--codecs" => options.codecs = value()?.split(',').map(String::from).collect(),
                "--scratch" => options.scratch = value()?.into(),
                "--scale" => options.scale = true,
                "--json" => options.json = true,
                _ => return Err(format!("{arg} is not known; see the top of benches/side_by_side.rs").into()),
            }
        }
        Ok(options)
    }
}

/// What one run took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Took {
    /// Seconds.
    wall: f64,
    /// Seconds of processor time, in the program and in the kernel.
    cpu: f64,
    /// Bytes resident at most.
    peak: u64,
    /// Bytes written.
    #[serde(default)]
    bytes: u64,
}

impl Took {
    /// The better of each.
    fn min(self, other: Took) -> Took {
        Took {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
            peak: self.peak.max(other.peak),
            bytes: other.bytes,
        }
    }
}

/// Runs `command` and prints what it took: a process learns only of all its children together.
fn measure(command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().ok_or("nothing to measure")?;
    let clock = Instant::now();
    let ended =
        Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let wall = clock.elapsed().as_secs_f64();
    if !ended.status.success() {
        return Err(
            format!("{command:?} ended with {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr)).into()
        );
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    let cpu = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let peak = u64::try_from(usage.max_rss())? * 1024;
    println!("{}", serde_json::to_string(&Took { wall, cpu, peak, bytes: 0 })?);
    Ok(())
}

/// One run of a collector from `input` to `dump`.
fn run(program: &[String], args: &[&str], input: &Path, dump: &Path) -> Result<Took> {
    let _ = std::fs::remove_file(dump);
    let ended = Command::new(std::env::current_exe()?)
        .arg("measure")
        .args(program)
        .args(args)
        .args([input, dump])
        .stderr(Stdio::inherit())
        .output()?;
    if !ended.status.success() {
        return Err(format!("{} failed", program.join(" ")).into());
    }
    let took: Took = serde_json::from_slice(&ended.stdout)?;
    let bytes = std::fs::metadata(dump)?.len();
    std::fs::remove_file(dump)?;
    Ok(Took { bytes, ..took })
}

/// What a codec took at a level: ours with one thread and with all, theirs without threads and with as many.
#[derive(Debug, Serialize)]
struct Row {
    level: u8,
    codec: String,
    threads: usize,
    ours: [Took; 2],
    theirs: [Took; 2],
}

impl Row {
    /// One thread against none.
    fn one(&self) -> f64 {
        self.ours[0].wall / self.theirs[0].wall
    }

    /// All threads against the better of theirs.
    fn all(&self) -> f64 {
        self.ours[1].wall / self.theirs[0].wall.min(self.theirs[1].wall)
    }

    fn goal(&self) -> Option<f64> {
        GOALS.iter().find(|(level, codec, _)| *level == self.level && *codec == self.codec).map(|(_, _, goal)| *goal)
    }

    fn text(&self) -> String {
        let peak = |took: [Took; 2]| took[0].peak.max(took[1].peak) as f64 / 1048576.0;
        let goal = self.goal().map_or(String::new(), |goal| format!(" (goal {goal})"));
        format!(
            "{:>2} {:<6} {:>7.3} {:>7.3} | {:>7.3} {:>7.3} | {:>5.2} {:>5.2}{goal:<12} | {:>6.2} {:>6.2} | {:>5.1} {:>5.1} | {:.3}",
            self.level,
            self.codec,
            self.ours[0].wall,
            self.ours[1].wall,
            self.theirs[0].wall,
            self.theirs[1].wall,
            self.one(),
            self.all(),
            self.ours[0].cpu,
            self.theirs[0].cpu,
            peak(self.ours),
            peak(self.theirs),
            self.ours[1].bytes as f64 / self.theirs[0].bytes as f64,
        )
    }
}

/// What `bench-input` of qemu-tests prints.
#[derive(Deserialize)]
struct Provided {
    vmcore: Option<PathBuf>,
    makedumpfile: Vec<String>,
}

/// A vmcore and a makedumpfile: what was named, and what can be made and fetched.
fn provided(options: &Options) -> Result<(PathBuf, Vec<String>)> {
    let named = options.makedumpfile.clone().map(|program| vec![program]);
    if let (Some(input), Some(makedumpfile)) = (&options.input, &named) {
        return Ok((input.clone(), makedumpfile.clone()));
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "-p", "qemu-tests", "--bin", "bench-input", "--"]);
    if options.input.is_some() {
        command.arg("--only-makedumpfile");
    }
    let ended = command.stderr(Stdio::inherit()).output()?;
    if !ended.status.success() {
        return Err("there is nothing to compare with; --input and --makedumpfile name other files".into());
    }
    let found: Provided = serde_json::from_slice(&ended.stdout)?;
    let input = options.input.clone().or(found.vmcore).ok_or("no vmcore was made")?;
    Ok((input, named.unwrap_or(found.makedumpfile)))
}

fn side_by_side(options: &Options) -> Result<()> {
    let (input, makedumpfile) = provided(options)?;
    // From memory, as /proc/vmcore is.
    let bytes = std::io::copy(&mut std::fs::File::open(&input)?, &mut std::io::sink())?;
    let threads = std::thread::available_parallelism()?.get();
    if !options.json {
        println!("{} ({bytes} bytes), {threads} threads, best of {}", input.display(), options.runs);
        println!(
            "          ours, s         | makedumpfile, s | time, ours/theirs        | CPU, s, 1 each  | peak, MiB   | size"
        );
        println!(
            "-d codec        1     {threads:>3} |       0     {threads:>3} |     1   all              |   ours  theirs  |  ours theirs |"
        );
    }
    let mut rows = Vec::new();
    for level in &options.levels {
        for codec in &options.codecs {
            let row = compare(options, &input, &makedumpfile, *level, codec, threads)?;
            if !options.json {
                println!("{}", row.text());
                std::io::stdout().flush()?;
            }
            rows.push(row);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

fn compare(
    options: &Options,
    input: &Path,
    makedumpfile: &[String],
    level: u8,
    codec: &str,
    threads: usize,
) -> Result<Row> {
    let flag = CODECS.iter().find(|(name, _)| *name == codec).ok_or_else(|| format!("no codec {codec}"))?.1;
    let dump = options.scratch.join(format!("kdump-bench-{}", std::process::id()));
    let (level_text, all) = (level.to_string(), threads.to_string());
    let ours = [OURS.to_owned()];
    let contenders: [(&[String], &str); 4] = [(&ours, "1"), (&ours, &all), (makedumpfile, "0"), (makedumpfile, &all)];
    let mut best: [Option<Took>; 4] = [None; 4];
    for round in 0..options.runs.max(1) {
        for (best, (program, threads)) in best.iter_mut().zip(contenders) {
            if round > 0 && best.is_some_and(|best| best.wall > LONG) {
                continue;
            }
            let mut args = vec!["-d", &level_text, "--num-threads", threads, "--message-level", "4"];
            args.extend(Some(flag).filter(|flag| !flag.is_empty()));
            let took = run(program, &args, input, &dump)?;
            *best = Some(best.map_or(took, |best| best.min(took)));
        }
    }
    let [Some(one), Some(all), Some(none), Some(many)] = best else { return Err("no run".into()) };
    Ok(Row { level, codec: codec.into(), threads, ours: [one, all], theirs: [none, many] })
}

/// What a machine of a size took.
#[derive(Debug, Serialize)]
struct Size {
    gib: u64,
    threads: usize,
    took: Took,
    /// What the design allows.
    allowed: u64,
}

fn scale(options: &Options) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (input, dump) =
        (dir.path().join("vmcore"), options.scratch.join(format!("kdump-bench-{}", std::process::id())));
    let mut sizes = Vec::new();
    if !options.json {
        println!("-d 31 -l, best of {}\n   GiB threads       s  ms/GiB  peak, MiB  allowed, MiB", options.runs);
    }
    for gib in [64, 256, 1024] {
        vast::write(&input, gib)?;
        for threads in [1, threads] {
            let count = threads.to_string();
            let args = ["-d", "31", "-l", "--num-threads", &count, "--message-level", "4"];
            let mut best = run(&[OURS.to_owned()], &args, &input, &dump)?;
            for _ in 1..options.runs.max(1) {
                best = best.min(run(&[OURS.to_owned()], &args, &input, &dump)?);
            }
            let size = Size { gib, threads, took: best, allowed: (24 << 20) + (gib << 20) / 32 };
            if !options.json {
                let per_gib = Duration::from_secs_f64(best.wall).as_secs_f64() * 1e3 / gib as f64;
                let mib = |bytes: u64| bytes as f64 / 1048576.0;
                let (peak, allowed) = (mib(best.peak), mib(size.allowed));
                println!("{gib:>6} {threads:>7} {:>7.3} {per_gib:>7.3} {peak:>10.1} {allowed:>13.1}", best.wall);
                std::io::stdout().flush()?;
            }
            sizes.push(size);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&sizes)?);
    }
    Ok(())
}
