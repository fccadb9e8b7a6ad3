//! `saboteur DEED … VMCORE DUMP`: a core collector for tests, of the worst kind.
//!
//! | deed | does |
//! |---|---|
//! | `hang` | writes the first page of VMCORE to DUMP, then nothing for ever |
//! | `kill` | the same, but first kills the process that started it |
//! | `eat` | writes the first page of VMCORE to DUMP, then takes memory for ever |
//! | `full COLLECTOR …` | leaves no room on any file system in memory, then becomes that collector |
//! | `slow SECONDS COLLECTOR …` | says that it is at work for so long, then becomes that collector |
//! | `neglect SECONDS` | starts the watchdog and does not tend it for so long |
//! | `mount TYPE,TYPE COLLECTOR …` | tries to mount file systems of these types, so that the kernel asks for their modules, then becomes that collector |

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::getppid;

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("saboteur: {error:#}");
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hang", vmcore, dump] => first_page(vmcore, dump)?,
        ["kill", vmcore, dump] => {
            first_page(vmcore, dump)?;
            kill(getppid(), Signal::SIGKILL).context("unable to kill the parent")?;
        }
        ["eat", vmcore, dump] => {
            first_page(vmcore, dump)?;
            println!("saboteur: eating memory");
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1u8; 1 << 20]);
            }
        }
        ["full", collector @ ..] => {
            for point in ["/", "/run", "/tmp"] {
                fill(point)?;
            }
            return become_collector(collector);
        }
        ["mount", types, collector @ ..] => {
            for fstype in types.split(',') {
                // Without the options that they need none can be mounted; asking is enough.
                let refusal = mount(None::<&str>, "/", Some(fstype), MsFlags::empty(), None::<&str>);
                println!("saboteur: {fstype}: {refusal:?}");
            }
            return become_collector(collector);
        }
        ["slow", seconds, collector @ ..] => {
            be_at_work(seconds.parse()?);
            return become_collector(collector);
        }
        ["neglect", seconds, ..] => {
            let watchdog = File::options().write(true).open("/dev/watchdog0").context("unable to open the watchdog")?;
            be_at_work(seconds.parse()?);
            drop(watchdog);
            bail!("the watchdog did nothing");
        }
        _ => bail!("usage: saboteur hang|kill|eat|full|mount|slow|neglect … VMCORE DUMP"),
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn first_page(vmcore: &str, dump: &str) -> Result<()> {
    let mut page = [0; 4096];
    File::open(vmcore)?.read_exact(&mut page).with_context(|| format!("unable to read {vmcore}"))?;
    File::create(dump)?.write_all(&page).with_context(|| format!("unable to write {dump}"))
}

/// Lowers the size of a tmpfs to what is in it: it is full, and no memory is spent on that.
fn fill(point: &str) -> Result<()> {
    let stat = statvfs(point).with_context(|| format!("unable to look at {point}"))?;
    let used = (stat.blocks() - stat.blocks_free()).max(1) * stat.fragment_size();
    let size = format!("size={used}");
    mount(None::<&str>, point, None::<&str>, MsFlags::MS_REMOUNT, Some(size.as_str()))
        .with_context(|| format!("unable to fill {point}"))?;
    let probe = format!("{point}/room");
    if std::fs::write(&probe, [0; 8192]).is_ok() {
        bail!("there is still room on {point}");
    }
    let _ = std::fs::remove_file(&probe);
    println!("saboteur: no room on {point}");
    Ok(())
}

fn be_at_work(seconds: u64) {
    for second in 0..seconds {
        if second % 5 == 0 {
            println!("saboteur: at work for {second} s");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn become_collector(words: &[&str]) -> Result<std::convert::Infallible> {
    let [program, arguments @ ..] = words else { bail!("no collector is named") };
    Err(Command::new(program).args(arguments).exec().into())
}
