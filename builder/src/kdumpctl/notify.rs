//! Tells of the dumps that the capture environment could not tell of: those on a disk of this machine.
//!
//! In: dump directories without the mark. Out: mail and requests, what became of each in the dump's `status.json`, and the
//! mark where all went through. What goes wrong is told and tried again at the next start; it changes nothing else. After a
//! start of the system `kdump-notify.service` does it, which has time to wait for the network.
//!
//! May surprise: a `status.json` in which there is something that this version does not know stays as it is, since it
//! would be lost. Of one crash there may be several dumps, where a target has failed: of those before the last, or beside
//! a complete one, nobody is told.

use super::dumps::{self, Dump};
use super::places::Places;
use super::{Machine, lock};
use crate::config::{Config, Origin, notify};
use crate::gather::programs::Programs;
use anyhow::{Context, ensure};
use kdump_hooks::net::Net;
use kdump_hooks::notify::tls::Lender;
use kdump_hooks::notify::{MARK, News, Notice, Notify};
use kdump_hooks::remote::{AUTHORITIES, PROGRAM};
use kdump_init::dump::{DumpDir, Place};
use kdump_init::status::{self, Status};
use kdump_init::sys::LinuxNet;
use std::fs;
use std::io::{Read, Write};
use std::iter;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For all of them together.
const LIMIT: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(10);
/// More at once would be a flood.
const MOST: usize = 8;
/// A longer status is none of ours.
const LONGEST: u64 = 1 << 20;
/// How it came out if nothing more is to be known of it.
const COMPLETE: &str = "complete";

/// Tells of every dump that nobody has been told of.
pub(super) fn run(machine: &Machine) {
    if let Err(error) = tell(machine, true) {
        log::warn!("{error:#}; trying again at the next start");
    }
}

/// The same, and as long as that fails again and again for so long: a network that is up may still have no way out.
pub(super) fn patiently(machine: &Machine, wait: Duration, out: &mut dyn Write) -> anyhow::Result<()> {
    let began = Instant::now();
    for first in iter::once(true).chain(iter::repeat(false)) {
        let told = {
            // Only so long: a reload has no time to wait.
            let _lock = lock::take(&machine.tree, out)?;
            tell(machine, first)
        };
        let Err(error) = told else { break };
        if began.elapsed() + BETWEEN_TRIES > wait {
            return Err(error.context("not everybody has been told; trying again at the next start"));
        }
        log::info!("{error:#}; trying again in {} s", BETWEEN_TRIES.as_secs());
        thread::sleep(BETWEEN_TRIES);
    }
    Ok(())
}

/// Tells of them once. What is `first` seen is said, too.
fn tell(machine: &Machine, first: bool) -> anyhow::Result<()> {
    // What is wrong with the configuration has been told by the start itself.
    let Ok(config) = Config::read(&machine.files) else { return Ok(()) };
    let host = machine.tree.line("proc/sys/kernel/hostname").unwrap_or_default();
    let Some(notify) = notify::resolve(&config, &host) else { return Ok(()) };
    let lender = lender(machine, &notify).context("nobody can be told")?;
    let own = own_addresses();
    let places = Places::of(&config, &machine.tree);
    for unmounted in places.unmounted.iter().filter(|_| first) {
        log::warn!("{unmounted}, and nobody is told of dumps on it; have /etc/fstab mount it");
    }
    // Dumps on another machine may be of others.
    let dirs = [places.local, places.shared].concat();
    let mut news: Vec<(PathBuf, News)> = dirs.iter().flat_map(|dir| unheard(dir, &own)).collect();
    let mut dumps = dumps::below(&dirs);
    dumps.retain(|dump| !is_of_another(&dump.path, &own));
    let since = asked_since(&config);
    news.retain(|(dump, news)| {
        // Nobody wanted to know of it then, or needs to now; whether or not that can be noted.
        let is_of_no_use = since.is_some_and(|since| is_older(dump, news, since)) || is_superseded(dump, &dumps);
        if is_of_no_use {
            mark(dump).unwrap_or_else(|error| log::debug!("{error:#}"));
        }
        !is_of_no_use
    });
    // The newest first: one that cannot be told of keeps nobody from what has come since.
    news.sort_by(|a, b| b.0.file_name().cmp(&a.0.file_name()));
    let end = Instant::now() + LIMIT;
    let mut untold = Vec::new();
    for (dump, news) in news.iter().take(MOST) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let limit = LIMIT.as_secs();
            untold.push(format!("{}: {limit} s were over, for it and older dumps", dump.display()));
            break;
        }
        let mut status = whole(&news.status);
        let known = status.as_ref().map(|status| status.notices.as_slice()).unwrap_or_default();
        let notices = notify.tell(news, known, &mut LinuxNet::default(), &lender, left);
        let failures = Notice::failures(&notices);
        if let Some(status) = &mut status {
            Notice::settle(&mut status.notices, notices);
            let noted = DumpDir::existing(dump.clone()).replace(status::FILE, status.json());
            noted.unwrap_or_else(|error| log::warn!("who has been told is not in {}: {error:#}", status::FILE));
        }
        let told = failures.map_or(Ok(()), |failures| Err(anyhow::Error::msg(failures)));
        let marked = told.map(|()| mark(dump));
        let dump = dump.display();
        match marked {
            Ok(Ok(())) => log::info!("those who are to know have been told of {dump}"),
            Ok(Err(error)) => {
                log::warn!("all have been told of {dump}, and will be at the next start again: {error:#}")
            }
            // Others may fare better.
            Err(error) => untold.push(format!("{dump}: {error:#}")),
        }
    }
    ensure!(untold.is_empty(), untold.join("; "));
    Ok(())
}

/// Notes that a dump needs to be told of no more.
fn mark(dump: &Path) -> anyhow::Result<()> {
    let mark = dump.join(MARK);
    let made = fs::File::options().create(true).append(true).mode(0o600).open(&mark);
    made.map(drop).with_context(|| format!("cannot make {}", mark.display()))
}

/// When the file was written that says who is told.
fn asked_since(config: &Config) -> Option<SystemTime> {
    match &config.dump.notify.as_ref()?.origin {
        Origin::Line(file, _) => fs::metadata(file).and_then(|meta| meta.modified()).ok(),
        Origin::Default | Origin::Option(_) => None,
    }
}

/// Whether a dump was taken before anybody wanted to know: it is older, and the capture kernel did not try either.
fn is_older(dump: &Path, news: &News, since: SystemTime) -> bool {
    let written = fs::metadata(dump.join(status::FILE)).and_then(|meta| meta.modified());
    let read: Option<serde_json::Value> = serde_json::from_str(&news.status).ok();
    let tried = read.and_then(|status| Some(!status.get("notices")?.as_array()?.is_empty()));
    !tried.unwrap_or(false) && written.is_ok_and(|written| written < since)
}

/// Whether another dump tells more of the same crash: a complete one, or that of a target that was tried later.
fn is_superseded(dump: &Path, all: &[Dump]) -> bool {
    let Some(this) = all.iter().find(|other| other.path == dump) else { return false };
    let same = |other: &&Dump| other.path != this.path && other.time.is_some() && other.crash() == this.crash();
    this.outcome != COMPLETE
        && all.iter().filter(same).any(|other| {
            let is_later = !["unfinished", "foreign"].contains(&&*other.outcome) && other.stamp() > this.stamp();
            other.outcome == COMPLETE || is_later
        })
}

/// The addresses that dumps of this machine can be named after.
fn own_addresses() -> Vec<IpAddr> {
    let addresses = LinuxNet::default().addresses().unwrap_or_default();
    addresses.into_iter().map(|address| address.cidr.address).collect()
}

/// Whether a dump is named after another machine, as on a share that several have.
fn is_of_another(dump: &Path, own: &[IpAddr]) -> bool {
    let name = dump.file_name().unwrap_or_default().to_string_lossy();
    let host = dumps::host_of(&name).and_then(|host| host.parse::<IpAddr>().ok());
    host.is_some_and(|host| !host.is_loopback() && !own.contains(&host))
}

/// What is needed to tell over TLS, if anybody is to be told so.
fn lender(machine: &Machine, notify: &Notify) -> anyhow::Result<Lender> {
    if !notify.needs_tls() {
        return Ok(Lender::of_image());
    }
    let own = || AUTHORITIES.iter().map(PathBuf::from).find(|file| machine.tree.path(file).is_file());
    let authorities = notify.authorities.clone().or_else(own);
    let authorities = authorities.context("no file says who vouches for servers; name one as [notify] authorities")?;
    let program = Programs::find(machine.programs.as_deref())?.place(PROGRAM)?;
    Ok(Lender { program, authorities: machine.tree.path(&authorities) })
}

/// A status of which nothing is lost when it is written once more.
fn whole(text: &str) -> Option<Status> {
    let status: Status = serde_json::from_str(text).ok()?;
    let again: serde_json::Value = serde_json::from_slice(&status.json()).ok()?;
    (serde_json::from_str::<serde_json::Value>(text).ok()? == again).then_some(status)
}

/// The dumps of this machine in a directory that nobody has been told of.
fn unheard(dir: &Path, own: &[IpAddr]) -> Vec<(PathBuf, News)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dumps = entries.map(|entry| entry.path()).filter(|dump| !dump.join(MARK).exists() && !is_of_another(dump, own));
    dumps
        .filter_map(|dump| {
            let mut status = String::new();
            fs::File::open(dump.join("status.json")).ok()?.take(LONGEST).read_to_string(&mut status).ok()?;
            let read: serde_json::Value = serde_json::from_str(&status).ok()?;
            let outcome = read.get("outcome")?.as_str()?;
            let outcome = match read.get("next").and_then(serde_json::Value::as_str) {
                // It has not been seen here, or is not complete either.
                Some(next) => format!("{outcome}, and was to go on with {next}"),
                None => outcome.to_owned(),
            };
            Some((dump, News { outcome, status, time: now, by: "kdumpctl start".to_owned() }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use crate::host::Tree;
    use crate::kexec::fake::FakeKexec;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn dumps_are_told_of_once_newest_first_and_a_failure_is_tried_again_and_stops_no_other() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        // What is older than the configuration, and was not to be told of.
        let another = "127.0.0.1-2020-01-01-00:00:00";
        write(&format!("var/crash/{another}/status.json"), "{\"outcome\": \"complete\"}");
        let old = fs::File::open(root.path().join(format!("var/crash/{another}/status.json"))).unwrap();
        old.set_modified(UNIX_EPOCH + Duration::from_secs(7)).unwrap();
        // Where that cannot be noted, it is not told of either.
        let unmarked = root.path().join("var/crash/127.0.0.1-2020-01-02-00:00:00");
        fs::create_dir(&unmarked).unwrap();
        fs::hard_link(root.path().join(format!("var/crash/{another}/status.json")), unmarked.join(status::FILE))
            .unwrap();
        std::os::unix::fs::symlink("/nonexistent/mark", unmarked.join(MARK)).unwrap();
        write("etc/kdump/kdump.toml", &format!("[notify]\nwebhook = \"http://{}/\"", server.local_addr().unwrap()));
        let strange = "192.0.2.77-2026-01-01-00:00:00";
        write(&format!("var/crash/{strange}/status.json"), "{\"outcome\": \"complete\"}");
        let ours = String::from_utf8(Status::new("6.1".into()).json()).unwrap();
        for (dump, status) in [("b", &*ours), ("a", "{\"outcome\": \"complete\"}"), ("c", "{}")] {
            write(&format!("var/crash/{dump}/status.json"), status);
        }
        let kexec = FakeKexec::default();
        let machine = Machine {
            tree: Tree::new(root.path()),
            files: Files::new(root.path(), None, None),
            programs: None,
            kexec: &kexec,
        };
        let serving = std::thread::spawn(move || {
            let answers = ["500 no", "200 ok", "200 ok"];
            answers.map(|answer| {
                let mut stream = BufReader::new(server.accept().unwrap().0);
                let mut heard = String::new();
                while !heard.trim_end().ends_with('}') {
                    let bytes = stream.fill_buf().unwrap().to_owned();
                    stream.consume(bytes.len());
                    heard.push_str(&String::from_utf8_lossy(&bytes));
                }
                stream.get_mut().write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
                heard
            })
        });
        run(&machine);
        let is_marked = |dump: &str| root.path().join("var/crash").join(dump).join(MARK).exists();
        assert!(is_marked("a") && !is_marked("b"));
        run(&machine);
        patiently(&machine, Duration::ZERO, &mut Vec::new()).unwrap();
        let heard = serving.join().unwrap();
        assert!(heard[0].contains("failed") && heard[1].contains("complete") && heard[2].contains("failed"));
        assert!(["a", "b"].iter().all(|dump| root.path().join("var/crash").join(dump).join(MARK).exists()));
        let noted: Status =
            serde_json::from_slice(&fs::read(root.path().join("var/crash/b/status.json")).unwrap()).unwrap();
        assert_eq!((noted.notices.len(), noted.notices[0].by.as_str()), (1, "kdumpctl start"));
        assert_eq!(noted.notices[0].error, None);
        let other = fs::read_to_string(root.path().join("var/crash/a/status.json")).unwrap();
        assert_eq!(other, "{\"outcome\": \"complete\"}", "nothing of another's is lost");
        assert!(!root.path().join("var/crash/c").join(MARK).exists(), "that is no dump of ours");
        let marked = |dump: &str| root.path().join("var/crash").join(dump).join(MARK).exists();
        assert!(marked(another) && !marked(strange), "one is too old, one is another machine's");
    }

    #[test]
    fn of_a_crash_that_fell_back_only_the_dump_that_tells_most_is_told_of() {
        let dump = |day: u8, outcome: &str, time: Option<u64>, panic: &str| Dump {
            path: format!("/d/127.0.0.1-2026-01-{day:02}-00:00:00").into(),
            outcome: outcome.to_owned(),
            bytes: 0,
            kernel: None,
            panic: Some(panic.to_owned()),
            time,
        };
        let all = [
            dump(1, "incomplete", Some(7), "x"),
            dump(2, "failed", Some(7), "x"),
            dump(3, "unfinished", Some(7), "x"),
            dump(4, "incomplete", Some(8), "x"),
            dump(5, "complete", Some(9), "x"),
            dump(6, "failed", Some(9), "x"),
            dump(7, "failed", Some(9), "y"),
            dump(8, "incomplete", None, "x"),
            dump(9, "complete", None, "x"),
        ];
        let superseded = all.iter().filter(|dump| is_superseded(&dump.path, &all));
        let days: Vec<String> = superseded.map(|dump| dump.path.display().to_string()[21..23].to_owned()).collect();
        assert_eq!(days, ["01", "06"]);
    }

    #[test]
    fn where_the_next_target_is_out_of_sight_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dump = dir.path().join("127.0.0.1-2026-01-01-00:00:00");
        fs::create_dir(&dump).unwrap();
        let status = Status { next: Some("nfs nas:/x".into()), ..Status::new("6.1".into()) };
        fs::write(dump.join(status::FILE), status.json()).unwrap();
        assert_eq!(unheard(dir.path(), &[])[0].1.outcome, "failed, and was to go on with nfs nas:/x");
        assert!(whole(std::str::from_utf8(&status.json()).unwrap()).is_some());
    }
}
