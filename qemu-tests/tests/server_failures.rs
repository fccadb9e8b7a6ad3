//! What a server can do to a dump, and where it is tried.
//!
//! | | NFS | CIFS | SSH, SFTP, FTP, FTPS |
//! |---|---|---|---|
//! | absent | `targets`: *absent or stops* | `targets`: *a share refuses* | `send`: *not there* |
//! | unknown or another host | – | – | `send`: *unknown or changed*; FTPS: *passwords and certificates* |
//! | credentials | here: an export for others | `targets`: *a share refuses* | `send`: *keys*; FTP, FTPS: *passwords and certificates* |
//! | killed in mid-stream | here | here | `send`: *dies*; `sent_dumps`: *goes away* |
//! | black-holed in mid-stream | `targets`: *absent or stops* | here | `send`: *goes dead* |
//! | full in mid-stream | here | here | `send`: *full or read-only* |
//! | read-only | here | here | `send`: *full or read-only* |
//! | name already taken | here | here | `send`: *arrives whole* |
//!
//! - absent or stops: `a_server_that_is_absent_or_stops_answering_leaves_the_dump_to_the_next_target`
//! - a share refuses: `a_share_refuses_a_wrong_password_and_takes_the_dump_with_the_right_one`
//! - not there: `a_server_that_is_not_there_is_told_from_one_that_refuses`
//! - unknown or changed: `a_host_that_is_unknown_or_has_changed_is_refused_with_its_fingerprints`
//! - keys: `keys_of_every_kind_open_and_others_do_not`
//! - passwords and certificates: `passwords_and_certificates_are_looked_at`
//! - dies: `a_server_that_dies_in_mid_stream_leaves_no_final_name`
//! - goes away: `a_server_that_goes_away_leads_to_the_failure_action`
//! - goes dead: `a_line_that_goes_dead_in_mid_stream_is_noticed`
//! - full or read-only: `a_full_or_read_only_disk_is_told_in_the_server_s_words`
//! - arrives whole: `a_dump_arrives_whole_by_every_protocol_and_is_what_the_report_says`
//!
//! Where no kernel is in between, kdump-send alone is tried, on loopback. For the others there is one guest each, whose
//! targets fail one after the other. Its clock is set, so that every name that a dump can have may be taken before.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::crash::Outcome;
use qemu_tests::nfs_server::NfsServer;
use qemu_tests::prelude::*;
use qemu_tests::smb_server::{PASSWORD, SmbServer};
use qemu_tests::status::Status;
use qemu_tests::{folders, tools};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Room for a log, and for a dump of which something is in the way.
const SMALL_MIB: usize = 64;
/// What is said of a server that says nothing more.
const NO_ANSWER: &str = "it was stuck for 20 s and has been killed";
/// The minutes of the guest's clock in which it can crash.
const MINUTES: usize = 20;

fn place(name: &str) -> Result<PathBuf> {
    let place = folders::qemu().join("server-failures").join(name);
    folders::fresh(&place)?;
    Ok(place)
}

/// A crash of a guest with one card, a set clock and a native configuration.
fn scenario(name: &str, native: String) -> Result<Scenario> {
    let qemu = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56"];
    let clock = ["-rtc", "base=2026-02-03T04:00:00,clock=vm"];
    Ok(Scenario {
        native: Some(native),
        qemu: [qemu.map(str::to_owned).to_vec(), clock.map(str::to_owned).to_vec()].concat(),
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

/// Takes every name that a dump of the guest can have; `colon` is what the server has for one.
fn take_names(folder: &Path, colon: &str) -> Result<()> {
    for second in 0..MINUTES * 60 {
        let name = format!("10.0.2.15-2026-02-03-04:{:02}:{:02}", second / 60, second % 60);
        fs::create_dir_all(folder.join(name.replace(':', colon)))?;
    }
    Ok(())
}

/// What befalls servers, each when a dump is begun in its folder, in this order.
type Deed = (PathBuf, Box<dyn FnOnce() -> Result<()> + Send>);

/// Crashes, and does each deed when its dump is begun. All of them must have been done in the end.
fn crash_while(scenario: &Scenario, deeds: Vec<Deed>) -> Result<Outcome> {
    let (over, wanted) = (AtomicBool::new(false), deeds.len());
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<usize> {
            let mut done = 0;
            for (folder, deed) in deeds {
                while !begun(&folder) {
                    if over.load(Ordering::Relaxed) {
                        return Ok(done);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                deed()?;
                done += 1;
            }
            Ok(done)
        });
        let outcome = crash(scenario);
        over.store(true, Ordering::Relaxed);
        let done = watch.join().map_err(|_| anyhow::anyhow!("the servers' watch failed"))??;
        let outcome = outcome?;
        ensure!(done == wanted, "only {done} dumps were begun:\n{}", tools::tail(&outcome.console, 60));
        Ok(outcome)
    })
}

fn lock<T>(server: &Mutex<T>) -> MutexGuard<'_, T> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a dump is begun in a folder.
fn begun(folder: &Path) -> bool {
    let dumps = fs::read_dir(folder).into_iter().flatten().flatten();
    dumps.into_iter().any(|dump| dump.path().join("vmcore-incomplete").exists())
}

/// The one dump of a folder whose name has a suffix since it was taken.
fn suffixed(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("unable to list {}", folder.display()))?;
    let dumps: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| !is_empty(path)).collect();
    let [dump] = dumps.as_slice() else { bail!("{} has these dumps: {dumps:?}", folder.display()) };
    let name = dump.file_name().unwrap_or_default().to_string_lossy();
    ensure!(name.starts_with("10.0.2.15-2026-02-03-04") && name.ends_with(".1"), "the dump is called {name}");
    Ok(dump.clone())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// No file there has a final name that it does not deserve.
fn tells_no_lies(dump: &Path) -> Result<()> {
    ensure!(!dump.join("vmcore").exists(), "something is called vmcore that is none, in {}", dump.display());
    Ok(())
}

/// Holds what is said of the targets that were tried against these words, target by target; the last one has the dump.
fn tried(dump: &Path, wanted: &[(&str, &str)], console: &str) -> Result<()> {
    let status = Status::read(&dump.join("status.json"))?;
    let list = status.at("/targets")?.as_array().context("no list of targets")?;
    let text = |target: &serde_json::Value, key: &str| target[key].as_str().unwrap_or_default().to_owned();
    let shown: Vec<String> = list.iter().map(|target| format!("{target}")).collect();
    ensure!(list.len() == wanted.len() + 1, "these were tried: {}\n{}", shown.join("\n"), tools::tail(console, 60));
    for (target, (name, error)) in list.iter().zip(wanted) {
        ensure!(text(target, "target").contains(name), "{name} is not where it was to be: {}", shown.join("\n"));
        ensure!(text(target, "error").contains(error), "{name} does not say `{error}`: {}", shown.join("\n"));
    }
    ensure!(list.last().is_some_and(|last| text(last, "outcome") == "ok"), "{}", shown.join("\n"));
    Ok(())
}

/// Read-only, another machine's, full in mid-stream, and killed in mid-stream with all names taken; then the local disk.
#[test]
#[ignore = "a boot of its own: four failures of an NFS server"]
fn an_nfs_server_fails_in_four_ways_and_the_local_disk_has_the_dump() -> Result<()> {
    let server = NfsServer::with_bad_exports(&place("nfs")?, HERE, SMALL_MIB)?;
    let target = |export: &str| {
        format!(
            "[[target]]\nkind = \"nfs\"\nexport = \"10.0.2.2:/{export}\"\noptions = [\"vers=4.2\", \"port={}\"]\n\
             path = \"/dumps\"\n",
            server.port
        )
    };
    let targets: String = ["readonly", "denied", "small", "export"].map(target).concat();
    let local = "[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=guest-disk\"\n";
    let scenario = scenario("nfs-failures", format!("[limits]\nstall = 20\ndevice = 10\n{targets}{local}"))?;
    let (small, export) = (server.small().context("no small export")?.join("dumps"), server.folder.join("dumps"));
    take_names(&export, ":")?;
    let server = Arc::new(Mutex::new(server));
    let (full, killed) = (Arc::clone(&server), Arc::clone(&server));
    let outcome = crash_while(
        &scenario,
        vec![
            (small, Box::new(move || lock(&full).fill())),
            (
                export.clone(),
                Box::new(move || {
                    lock(&killed).kill();
                    Ok(())
                }),
            ),
        ],
    )?;
    let dump = outcome.dump()?;
    judge::dump_alone(dump, &scenario.kernel.release, &outcome.marker)?;
    tried(
        dump,
        &[
            (":/readonly", "Read-only file system"),
            (":/denied", "see whether 10.0.2.2 exports /denied to 10.0.2.15"),
            (":/small", "No space left on device"),
            (":/export", NO_ANSWER),
        ],
        &outcome.console,
    )?;
    tells_no_lies(&suffixed(&export)?)?;
    Ok(())
}

/// Read-only, full in mid-stream, black-holed and killed in mid-stream; the last share has the dump, under a name with a
/// suffix, since all names were taken.
#[test]
#[ignore = "a boot of its own: four failures of SMB servers"]
fn smb_servers_fail_in_four_ways_and_another_one_has_the_dump_though_its_name_is_taken() -> Result<()> {
    let hole = SmbServer::with_bad_shares(&place("cifs-hole")?, SMALL_MIB)?;
    let (killed, good) = (SmbServer::start(&place("cifs-killed")?)?, SmbServer::start(&place("cifs-good")?)?);
    let target = |server: &SmbServer, share: &str, path: &str| {
        format!(
            "[[target]]\nkind = \"cifs\"\nshare = \"//10.0.2.2/{share}\"\ncredentials = \"/etc/kdump/credentials\"\n\
             options = [\"port={}\"]\npath = \"{path}\"\n",
            server.port
        )
    };
    let targets = [
        target(&hole, "readonly", "/dumps"),
        target(&hole, "small", "/dumps"),
        target(&hole, "crash", "/dumps"),
        // One share of one server is one target, whatever its port.
        target(&killed, "other", "/dumps"),
        target(&good, "third", "/dumps"),
    ];
    let mut scenario = scenario("cifs-failures", format!("[limits]\nstall = 20\ndevice = 10\n{}", targets.concat()))?;
    scenario.files = vec![GuestFile::text("/etc/kdump/credentials", &good.credentials(PASSWORD))];
    let taken = good.folder.join("dumps");
    take_names(&taken, "\u{f022}")?;
    let small = hole.small().context("no small share")?.join("dumps");
    let folders = [small, hole.folder.join("dumps"), killed.folder.join("dumps")];
    let (hole, killed) = (Arc::new(Mutex::new(hole)), Arc::new(Mutex::new(killed)));
    let (full, paused, dead) = (Arc::clone(&hole), Arc::clone(&hole), Arc::clone(&killed));
    let deeds: [Box<dyn FnOnce() -> Result<()> + Send>; 3] = [
        Box::new(move || lock(&full).fill()),
        Box::new(move || {
            lock(&paused).pause();
            Ok(())
        }),
        Box::new(move || {
            lock(&dead).kill();
            Ok(())
        }),
    ];
    let outcome = crash_while(&scenario, folders.iter().cloned().zip(deeds).collect())?;
    let dump = suffixed(&taken).with_context(|| tools::tail(&outcome.console, 60))?;
    judge::dump_alone(&dump, &scenario.kernel.release, &outcome.marker)?;
    tried(
        &dump,
        &[
            ("/readonly", "Permission denied"),
            ("/small", "No space left on device"),
            ("/crash", NO_ANSWER),
            ("/other", NO_ANSWER),
        ],
        &outcome.console,
    )?;
    for folder in &folders[1..] {
        for dump in fs::read_dir(folder)?.flatten() {
            tells_no_lies(&dump.path())?;
        }
    }
    Ok(())
}
