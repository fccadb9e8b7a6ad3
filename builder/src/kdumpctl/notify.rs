//! Tells of the dumps that the capture environment could not tell of: those on a disk of this machine.
//!
//! In: dump directories without the mark. Out: mail and requests, and the mark where they went through. What goes wrong
//! is told and tried again at the next start; it changes nothing else.

use super::Machine;
use crate::config::{Config, TargetLine, notify};
use crate::host::{Tree, sysfs};
use kdump_hooks::notify::{MARK, News, date};
use kdump_init::sys::LinuxNet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For all of them together.
const LIMIT: Duration = Duration::from_secs(30);
/// More at once would be a flood.
const MOST: usize = 8;
/// A longer status is none of ours.
const LONGEST: u64 = 1 << 20;

/// Tells of every dump that nobody has been told of.
pub(super) fn run(machine: &Machine) {
    // What is wrong with the configuration has been told by the start itself.
    let Ok(config) = Config::read(&machine.files) else { return };
    let host = machine.tree.line("proc/sys/kernel/hostname").unwrap_or_default();
    let Some(notify) = notify::resolve(&config, &host) else { return };
    let mut news: Vec<(PathBuf, News)> =
        directories(&config, &machine.tree).iter().flat_map(|dir| unheard(dir)).collect();
    news.sort_by(|a, b| a.0.cmp(&b.0));
    for (dump, news) in news.iter().take(MOST) {
        let told = notify.tell(news, &mut LinuxNet::default(), LIMIT);
        let marked = told.and_then(|()| {
            let mark = fs::File::options().create(true).append(true).mode(0o600).open(dump.join(MARK));
            Ok(mark.map(drop)?)
        });
        match marked {
            Ok(()) => log::info!("those who are to know have been told of {}", dump.display()),
            // The others would fare no better.
            Err(error) => return log::warn!("{}: {error:#}; trying again at the next start", dump.display()),
        }
    }
}

/// Where dumps are on the disks of this machine.
pub(super) fn directories(config: &Config, tree: &Tree) -> Vec<PathBuf> {
    let path = &config.dump.path.value;
    if config.dump.targets.is_empty() {
        return vec![tree.path(relative(path))];
    }
    let mounts = fs::read_to_string(tree.path("proc/self/mounts")).unwrap_or_default();
    let mut found = Vec::new();
    for wanted in &config.dump.targets {
        let TargetLine::Filesystem { device, .. } = &wanted.value.line else { continue };
        let names = sysfs::block_names(tree, device);
        let point = mounts.lines().find_map(|line| {
            let (node, rest) = line.split_once(' ')?;
            let name = tree.canonical(Path::new(node)).ok()?.file_name()?.to_str()?.to_owned();
            names.contains(&name).then(|| rest.split(' ').next()).flatten()
        });
        let path = wanted.value.path.as_ref().unwrap_or(path);
        found.extend(point.map(|point| tree.path(relative(Path::new(point))).join(relative(path))));
    }
    found
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The dumps in a directory that nobody has been told of.
fn unheard(dir: &Path) -> Vec<(PathBuf, News)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dumps = entries.map(|entry| entry.path()).filter(|dump| !dump.join(MARK).exists());
    dumps
        .filter_map(|dump| {
            let mut status = String::new();
            fs::File::open(dump.join("status.json")).ok()?.take(LONGEST).read_to_string(&mut status).ok()?;
            let read: serde_json::Value = serde_json::from_str(&status).ok()?;
            let outcome = read.get("outcome")?.as_str()?.to_owned();
            Some((dump, News { outcome, status, date: date(now) }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use crate::kexec::fake::FakeKexec;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    #[test]
    fn dumps_are_told_of_once_oldest_first_and_a_failure_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (dump, status) in [("b", "{\"outcome\": \"failed\"}"), ("a", "{\"outcome\": \"complete\"}"), ("c", "{}")] {
            write(&format!("var/crash/{dump}/status.json"), status);
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        write("etc/kdump/kdump.toml", &format!("[notify]\nwebhook = \"http://{}/\"", server.local_addr().unwrap()));
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
                while !heard.ends_with('}') {
                    let bytes = stream.fill_buf().unwrap().to_owned();
                    stream.consume(bytes.len());
                    heard.push_str(&String::from_utf8_lossy(&bytes));
                }
                stream.get_mut().write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
                heard.lines().last().unwrap().to_owned()
            })
        });
        run(&machine);
        assert!(!root.path().join("var/crash/a").join(MARK).exists());
        run(&machine);
        run(&machine);
        let heard = serving.join().unwrap();
        assert!(heard[0].contains("complete") && heard[1].contains("complete") && heard[2].contains("failed"));
        assert!(["a", "b"].iter().all(|dump| root.path().join("var/crash").join(dump).join(MARK).exists()));
        assert!(!root.path().join("var/crash/c").join(MARK).exists(), "that is no dump of ours");
    }
}
