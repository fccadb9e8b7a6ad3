//! What the image is for: target by target, until one has a complete dump.
//!
//! # Nouns
//!
//! - **Target**: where a dump may go, a hook ([`kdump_hooks::Target`]). An **attempt** is everything that is done with
//!   one.
//! - **Place**: an opened target, as the files of one dump see it ([`Place`]). Its **address** is what another process
//!   needs to go on with it.
//! - **Collection**: one run of a collector.
//!
//! # Flow
//!
//! ```text
//!   to_targets ─▶ attempt: open ▶ pre hooks ▶ log ▶ vmcore ▶ post hooks ▶ status ▶ close ─▶ Came
//!        │                            │        └─▶ Collection ─▶ Place
//!        └◀─ the next target ◀── failed
//! ```
//!
//! Places are a directory ([`DumpDir`]), a device without a file system ([`RawDevice`]), another machine ([`Sender`]) and,
//! for the log alone, pstore ([`Pstore`]). Another kind of place is one
//! file here that implements [`Place`], and one line in [`Address`]. `space` is what is done where there is too little
//! room, `retention` which old dumps may go.

mod attempt;
mod collect;
mod device;
mod digest;
mod directory;
mod patient;
mod place;
mod pstore;
pub mod retention;
mod sender;
pub mod space;

pub use collect::{Collection, Collector, Output};
pub use device::RawDevice;
pub use digest::{hex, sha256_of};
pub use directory::DumpDir;
pub use patient::Patient;
pub use place::{Address, Place};
pub use pstore::Pstore;
pub use sender::Sender;
pub use space::SpaceReport;

use crate::beat::Beat;
use crate::config::ImageConfig;
use crate::run::{Run, act, act_knowing};
use crate::status::{Outcome, Status, TargetReport};
use anyhow::Context;
use kdump_hooks::kernel::KernelLog;
use kdump_hooks::notify::tls::Lender;
use kdump_hooks::notify::{News, Notice};
use kdump_hooks::{Machine, Next, Stage, Target};
use log::{info, warn};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The names of the files of a dump, in order of writing; `status.json` comes last.
pub const LOG: &str = "vmcore-dmesg.txt";
/// The dump.
pub const VMCORE: &str = "vmcore";
/// The log of the capture environment itself.
pub const ENVIRONMENT_LOG: &str = "kexec-dmesg.log";

/// How long it may take to tell others of the dump.
const NOTIFYING: Duration = Duration::from_secs(30);

/// What came of one target.
enum Came {
    /// A complete dump is on it.
    Complete,
    /// A complete dump is on it, and yet it counts as failed: why.
    Spoilt(String),
    /// No dump is wanted: why.
    Declined(String),
}

/// What is known for all targets.
struct Story<'a> {
    run: &'a mut Run,
    config: &'a ImageConfig,
    machine: &'a mut dyn Machine,
    /// May add to the status before it is written.
    last_words: &'a mut dyn FnMut(&mut Status),
    /// Whether the hooks have acted that do so once, before the first dump and after the first failure.
    pre_done: bool,
    emergency_done: bool,
    /// Whether those who are to know have been told, or it is known why not, and a dump's directory has it.
    told: bool,
}

/// Tries target by target until one has a complete dump, and gives the worker's last word. `last_words` may add to the
/// status before it is written.
pub fn to_targets(
    run: &mut Run,
    config: &ImageConfig,
    machine: &mut dyn Machine,
    last_words: &mut dyn FnMut(&mut Status),
) -> Beat {
    Story { run, config, machine, last_words, pre_done: false, emergency_done: false, told: false }.tell()
}

impl Story<'_> {
    fn tell(mut self) -> Beat {
        let last_word = self.try_targets();
        if matches!(last_word, Beat::Failed(_)) && !self.told {
            let status = self.run.status.clone();
            notify(self.run, self.config, self.machine, &status);
        }
        last_word
    }

    fn try_targets(&mut self) -> Beat {
        let mut reasons = Vec::new();
        let mut targets = self.config.hooks.targets.iter().peekable();
        while let Some(target) = targets.next() {
            if target.hook().is_last_resort() && !reasons.is_empty() {
                self.run.status.reason = Some(reasons.join("; "));
                self.emergency();
            }
            let came = self.attempt(target, targets.peek().copied());
            self.run.status.targets.push(report_on(target, &came));
            match came {
                Ok(Came::Complete) => {
                    self.run.status.outcome = Outcome::Complete;
                    return Beat::Complete;
                }
                Ok(Came::Spoilt(reason)) => {
                    self.emergency();
                    return Beat::Failed(reason);
                }
                Ok(Came::Declined(reason)) => return Beat::Declined(reason),
                Err(error) => {
                    reasons.push(format!("target {target}: {error:#}"));
                    if let Some(next) = targets.peek() {
                        warn!("going on with the next target, {next}");
                    }
                }
            }
        }
        self.run.status.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        self.emergency();
        Beat::Failed(self.run.status.reason.clone().unwrap_or_else(|| "no target is configured".to_owned()))
    }

    /// The hooks that act before the first dump, once.
    fn before(&mut self) -> Next {
        match std::mem::replace(&mut self.pre_done, true) {
            true => Next::GoOn,
            false => act(self.run, self.config, Stage::Pre, self.machine),
        }
    }

    /// What belongs to a failure, once.
    fn emergency(&mut self) {
        if !std::mem::replace(&mut self.emergency_done, true) {
            let outcome = self.run.status.outcome;
            act_knowing(self.run, self.config, Stage::Emergency, Some(outcome), self.machine);
        }
    }
}

fn report_on(target: &Target, came: &anyhow::Result<Came>) -> TargetReport {
    let error = match came {
        Ok(Came::Complete) => None,
        Ok(Came::Spoilt(reason) | Came::Declined(reason)) => Some(reason.clone()),
        Err(error) => Some(format!("{error:#}")),
    };
    TargetReport::new(target.to_string(), error)
}

/// Tells those whom the configuration names, if there is a network; what became of each notice. Nothing else depends on
/// it.
fn notify(run: &mut Run, config: &ImageConfig, machine: &mut dyn Machine, status: &Status) -> Vec<Notice> {
    let Some(notify) = &config.hooks.notify else { return Vec::new() };
    let news = News {
        outcome: status.outcome.to_string(),
        status: String::from_utf8_lossy(&status.json()).into_owned(),
        time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        by: "capture kernel".to_owned(),
    };
    if config.hooks.network.is_none() {
        return notify.untold(&news, "there is no network here; kdumpctl start tells it after the reboot");
    }
    run.pulse.beat(Beat::Still(NOTIFYING + config.limits.stage()));
    let notices = notify.tell(&news, &[], machine.network(), &Lender::of_image(), NOTIFYING);
    match Notice::failures(&notices) {
        None => info!("those who are to know have been told"),
        Some(failures) => warn!("{failures}"),
    }
    notices
}

/// Puts the log of the capture environment itself beside the dump.
///
/// # Errors
/// The kernel log cannot be read or the file not be written.
pub fn save_environment_log(place: &mut dyn Place) -> anyhow::Result<()> {
    let mut log = KernelLog::from_start().context("cannot read the log of the capture environment")?;
    place.write(ENVIRONMENT_LOG, &mut std::iter::from_fn(|| log.next_line().map(|line| (line + "\n").into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Dump, Ending, Endings, Limits};
    use crate::run::Places;
    use crate::status;
    use kdump_hooks::fake::{self, FakeMachine, FakeNet};
    use kdump_hooks::filesystem::Filesystem;
    use kdump_hooks::net::Net;
    use kdump_hooks::raw::{Raw, layout};
    use kdump_hooks::rootfs::Rootfs;
    use kdump_hooks::user::Script;
    use kdump_hooks::{DeviceSpec, Settings};
    use std::fs;

    /// A capture environment in a directory, with a shell script for a collector.
    struct Rehearsal {
        tree: tempfile::TempDir,
        config: ImageConfig,
        machine: FakeMachine,
    }

    impl Rehearsal {
        fn new(collector: &str) -> Rehearsal {
            let tree = tempfile::tempdir().unwrap();
            let script = tree.path().join("collector");
            let text = format!("#!/bin/sh\nfor last; do :; done; out=$last\n{collector}\n");
            fake::program(&script, text.as_bytes()).unwrap();
            fs::create_dir(tree.path().join("state")).unwrap();
            let target = |label: &str| {
                Target::Filesystem(Filesystem {
                    fstype: "ext4".into(),
                    device: DeviceSpec::Label(label.into()),
                    options: Vec::new(),
                })
            };
            let config = ImageConfig {
                version: config::VERSION,
                kernel_release: "6.1".into(),
                built_by: "test".into(),
                dump: Dump::new("/var/crash".into(), vec![script.display().to_string(), "-z".into()]),
                endings: Endings {
                    failure_action: Ending::Halt.into(),
                    final_action: Ending::Reboot,
                    shell_first: false,
                },
                limits: Limits { device: 5, stall: 20, stage: 30, driver: 5 },
                normal: None,
                hooks: Settings { targets: vec![target("first"), target("second")], ..Settings::default() },
            };
            Rehearsal { tree, config, machine: FakeMachine::default() }
        }

        fn with_device(mut self, label: &str) -> Rehearsal {
            self.machine.devices.insert(format!("LABEL={label}"), "/dev/vda".into());
            self
        }

        fn run(&mut self) -> Status {
            self.end().0
        }

        fn end(&mut self) -> (Status, Beat) {
            let places = Places {
                root: self.tree.path().to_owned(),
                vmcore: Some(self.tree.path().join("vmcore")).filter(|it| it.exists()).unwrap_or("/dev/null".into()),
                collector: self.tree.path().join("collector"),
                state: self.tree.path().join("state"),
            };
            let mut run = Run::new(Status::new("6.1".into()), places, Box::<Vec<Beat>>::default());
            let last_word = to_targets(&mut run, &self.config, &mut self.machine, &mut |_| {});
            (run.status, last_word)
        }

        /// The files of the only dump directory, and its status.
        fn files(&self) -> (Vec<String>, serde_json::Value) {
            let base = self.tree.path().join("kdump/target/var/crash");
            let dirs: Vec<_> = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(dirs.len(), 1);
            let mut names: Vec<String> = fs::read_dir(&dirs[0])
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != ENVIRONMENT_LOG && name != "kexec-dmesg.log-incomplete")
                .collect();
            names.sort();
            let status = serde_json::from_slice(&fs::read(dirs[0].join(status::FILE)).unwrap()).unwrap();
            (names, status)
        }
    }

    #[test]
    fn a_good_collector_leaves_log_dump_and_status() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore", "vmcore-dmesg.txt"]);
        assert_eq!(status["outcome"], "complete");
        assert_eq!(status["ending"], "reboot");
        assert_eq!(status["targets"][0]["outcome"], "ok");
        assert_eq!(status["files"][1]["name"], "vmcore");
        assert_eq!(status["files"][1]["bytes"], 5);
        assert_eq!(rehearsal.machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn where_the_log_is_all_that_is_wanted_it_is_complete_without_a_dump() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        rehearsal.config.dump.log_only = true;
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore-dmesg.txt"]);
        assert_eq!((status["outcome"].as_str(), status["ending"].as_str()), (Some("complete"), Some("reboot")));
        let mut failing = Rehearsal::new("exit 1").with_device("first");
        failing.config.dump.log_only = true;
        let status = failing.run();
        assert_eq!(status.outcome, Outcome::Failed);
        let first = &status.targets[0].error;
        assert!(first.as_ref().unwrap().starts_with("the log was not saved"), "{first:?}");
    }

    #[test]
    fn a_dump_on_a_server_is_named_after_the_address_that_the_server_sees() {
        let mut rehearsal = Rehearsal::new("echo data > $out");
        rehearsal.config.hooks.targets = vec![Target::Nfs("10.0.2.2:/srv".parse().unwrap())];
        rehearsal.machine.net = FakeNet::with_cards(&["eth0"]);
        rehearsal.machine.net.add_address(2, "10.0.2.15/24".parse().unwrap()).unwrap();
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let base = rehearsal.tree.path().join("kdump/target/var/crash");
        let name = fs::read_dir(base).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("10.0.2.15-20"), "{name}");
    }

    #[test]
    fn a_failing_collector_leaves_an_incomplete_dump_and_a_status_that_says_why() {
        let script =
            "case $1 in --dump-dmesg) echo log > $out;; *) echo half > $out; echo disk is full >&2; exit 1;; esac";
        let mut rehearsal = Rehearsal::new(script).with_device("first");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Incomplete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore-dmesg.txt", "vmcore-incomplete"]);
        assert_eq!(status["outcome"], "incomplete");
        assert_eq!(status["ending"], "halt");
        assert!(status["reason"].as_str().unwrap().contains("disk is full"), "{status}");
    }

    #[test]
    fn a_log_that_cannot_be_read_does_not_stop_the_dump() {
        let mut rehearsal =
            Rehearsal::new("case $1 in --dump-dmesg) exit 1;; *) echo d > $out;; esac").with_device("first");
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore"]);
        assert_eq!(status["stages"][1]["name"], "log");
        assert_ne!(status["stages"][1]["outcome"], "ok");
    }

    #[test]
    fn the_directory_of_a_target_that_failed_says_which_was_to_be_next_and_a_good_or_last_one_does_not() {
        for (collector, label, next) in [
            ("echo half > $out; exit 1", "first", Some("ext4 LABEL=second")),
            ("echo half > $out; exit 1", "second", None),
            ("echo data > $out", "first", None),
        ] {
            let mut rehearsal = Rehearsal::new(collector).with_device(label);
            rehearsal.run();
            assert_eq!(rehearsal.files().1["next"].as_str(), next, "{collector}, {label}");
        }
    }

    #[test]
    fn the_next_target_is_tried_when_one_is_missing() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("second");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Complete);
        let targets: Vec<_> = status.targets.iter().map(|it| (it.target.as_str(), it.outcome.as_str())).collect();
        assert_eq!(targets, [("ext4 LABEL=first", "failed"), ("ext4 LABEL=second", "ok")]);
        let (_, status) = rehearsal.files();
        assert_eq!(status["targets"][0]["error"], "LABEL=first did not appear within 5 s");
    }

    /// A web server that hears one request and agrees, and its address.
    fn web_server() -> (String, std::thread::JoinHandle<String>) {
        use std::io::{Read, Write};
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let hearing = std::thread::spawn(move || {
            let mut stream = server.accept().unwrap().0;
            let (mut heard, mut bytes) = (String::new(), [0; 4096]);
            while !heard.ends_with("}\n") {
                let length = stream.read(&mut bytes).unwrap();
                heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            heard
        });
        (url, hearing)
    }

    #[test]
    fn those_who_are_to_know_are_told_once_the_dump_is_safe_and_the_dump_says_so() {
        let (url, hearing) = web_server();
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        let webhook = Some(url.parse().unwrap());
        rehearsal.config.hooks.notify = Some(kdump_hooks::notify::Notify { webhook, ..Default::default() });
        rehearsal.config.hooks.network = Some(kdump_hooks::net::Network::default());
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert!(names.contains(&kdump_hooks::notify::MARK.to_owned()), "{names:?}");
        let heard = hearing.join().unwrap();
        assert!(heard.contains("\"outcome\": \"complete\"") && !heard.contains("notices"), "{heard}");
        let notices = &status["notices"];
        assert_eq!((&notices[0]["by"], &notices[0]["error"]), (&"capture kernel".into(), &serde_json::Value::Null));
        assert!(url.starts_with(notices[0]["to"].as_str().unwrap()), "{notices}");
    }

    #[test]
    fn who_could_not_be_told_is_in_the_status_with_the_reason() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (network, why) in [(true, "cannot connect"), (false, "kdumpctl start tells it after the reboot")] {
            let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
            let webhook = Some(format!("http://{nobody}/").parse().unwrap());
            rehearsal.config.hooks.notify = Some(kdump_hooks::notify::Notify { webhook, ..Default::default() });
            rehearsal.config.hooks.network = network.then(kdump_hooks::net::Network::default);
            assert_eq!(rehearsal.run().outcome, Outcome::Complete);
            let (names, status) = rehearsal.files();
            assert_eq!(names, ["status.json", "vmcore", "vmcore-dmesg.txt"], "nobody has been told");
            assert!(status["notices"][0]["error"].as_str().unwrap().contains(why), "{status}");
        }
    }

    #[test]
    fn a_failure_is_told_once_and_the_incomplete_dump_says_so() {
        let (url, hearing) = web_server();
        let mut rehearsal = Rehearsal::new("echo half > $out; exit 1").with_device("second");
        let webhook = Some(url.parse().unwrap());
        rehearsal.config.hooks.notify = Some(kdump_hooks::notify::Notify { webhook, ..Default::default() });
        rehearsal.config.hooks.network = Some(kdump_hooks::net::Network::default());
        assert!(matches!(rehearsal.end().1, Beat::Failed(_)));
        let heard = hearing.join().unwrap();
        assert!(heard.contains("LABEL=first did not appear") && heard.contains("LABEL=second"), "{heard}");
        let (names, status) = rehearsal.files();
        assert!(names.contains(&kdump_hooks::notify::MARK.to_owned()), "{names:?}");
        let notices = status["notices"].as_array().unwrap();
        assert_eq!((notices.len(), &notices[0]["error"]), (1, &serde_json::Value::Null));
    }

    #[test]
    fn a_failure_is_told_too_and_telling_it_changes_nothing() {
        let (url, hearing) = web_server();
        let mut rehearsal = Rehearsal::new("exit 0");
        let webhook = Some(url.parse().unwrap());
        rehearsal.config.hooks.notify = Some(kdump_hooks::notify::Notify { webhook, ..Default::default() });
        rehearsal.config.hooks.network = Some(kdump_hooks::net::Network::default());
        assert!(matches!(rehearsal.end().1, Beat::Failed(_)));
        assert!(hearing.join().unwrap().contains("did not appear"));
        // Nobody listens any more.
        let (_, last_word) =
            Rehearsal { config: rehearsal.config, ..Rehearsal::new("echo data > $out") }.with_device("first").end();
        assert!(matches!(last_word, Beat::Failed(_) | Beat::Complete));
    }

    #[test]
    fn a_target_can_have_a_directory_of_its_own() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        rehearsal.config.hooks.paths.insert("ext4 LABEL=first".into(), "/elsewhere".into());
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        assert_eq!(fs::read_dir(rehearsal.tree.path().join("kdump/target/elsewhere")).unwrap().count(), 1);
    }

    #[test]
    fn without_any_target_the_reason_names_every_one_that_was_tried() {
        let status = Rehearsal::new("exit 0").run();
        assert_eq!(status.outcome, Outcome::Failed);
        assert_eq!(
            status.reason.unwrap(),
            "target ext4 LABEL=first: LABEL=first did not appear within 5 s; \
             target ext4 LABEL=second: LABEL=second did not appear within 5 s"
        );
    }

    #[test]
    fn a_target_is_let_go_even_if_there_is_no_room_for_a_directory_or_a_status() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        fs::create_dir_all(rehearsal.tree.path().join("kdump/target")).unwrap();
        fs::write(rehearsal.tree.path().join("kdump/target/var"), "in the way").unwrap();
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Failed);
        let unmounted = |rehearsal: &Rehearsal| {
            rehearsal.machine.journal.iter().filter(|line| *line == "unmount /kdump/target").count()
        };
        assert_eq!(unmounted(&rehearsal), 2);

        let script = "mkdir -p $(dirname $out)/status.json-incomplete; echo data > $out";
        let mut rehearsal = Rehearsal::new(script).with_device("first");
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        assert_eq!(unmounted(&rehearsal), 1);
    }

    #[test]
    fn a_raw_device_takes_log_dump_and_status() {
        let script = "case $1 in --dump-dmesg) echo log;; *) printf 'makedumpfile\\0\\0\\0\\0rest';; esac";
        let mut rehearsal = Rehearsal::new(script);
        let device = DeviceSpec::Wwid("dumps".into());
        rehearsal.machine.devices.insert(device.to_string(), "/dev/vdb".into());
        rehearsal.config.hooks.targets = vec![Target::Raw(Raw { device, force: false })];
        fs::create_dir(rehearsal.tree.path().join("dev")).unwrap();
        let disk = rehearsal.tree.path().join("dev/vdb");
        fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        let (status, last_word) = rehearsal.end();
        assert_eq!((status.outcome, last_word), (Outcome::Complete, Beat::Complete));
        let bytes = fs::read(&disk).unwrap();
        let header = layout::Header::decode(&bytes).unwrap();
        assert_eq!((header.state, header.kernel_release.as_str()), (layout::State::Complete, "6.1"));
        let text = |name| {
            let part = header.part(name);
            let [start, end] = [part.offset, part.end()].map(|at| usize::try_from(at).unwrap());
            String::from_utf8_lossy(&bytes[start..end]).into_owned()
        };
        assert_eq!(text(layout::Name::Log), "log\n");
        assert_eq!(text(layout::Name::Vmcore), "makedumpfile\0\0\0\0rest");
        let status: serde_json::Value = serde_json::from_str(&text(layout::Name::Status)).unwrap();
        assert_eq!((&status["outcome"], &status["files"][1]["name"]), (&"complete".into(), &"vmcore.flat".into()));
        assert_eq!(status["targets"][0]["target"], "raw WWID=dumps");

        // Without the device's room there is a reason, and no dump.
        fs::File::create(&disk).unwrap();
        let reason = rehearsal.run().reason.unwrap();
        assert!(reason.contains("too little for a dump"), "{reason}");
    }

    #[test]
    fn a_raw_device_that_is_too_small_is_known_before_it_is_written() {
        let collector = r#"#!/bin/sh
case "$*" in
*--dry-run*) while [ "$1" != --report ]; do shift; done
  echo '{"bytes":20000000,"level":31,"codec":"zstd","format":"kdump"}' > $2;;
*" -L "*) printf 'makedumpfile\0\0\0\0part'; echo cut >&2; exit 1;;
*) exit 3;;
esac"#;
        let mut rehearsal = Rehearsal::new("echo log");
        let program = rehearsal.tree.path().join("kdump-capture");
        fake::program(&program, collector.as_bytes()).unwrap();
        rehearsal.config.dump.collector = vec![program.display().to_string(), "-z".into()];
        let device = DeviceSpec::Wwid("dumps".into());
        rehearsal.machine.devices.insert(device.to_string(), "/dev/vdb".into());
        rehearsal.config.hooks.targets = vec![Target::Raw(Raw { device, force: false })];
        fs::create_dir(rehearsal.tree.path().join("dev")).unwrap();
        for (file, mib) in [("dev/vdb", 16), ("vmcore", 32)] {
            fs::File::create(rehearsal.tree.path().join(file)).unwrap().set_len(mib << 20).unwrap();
        }
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Incomplete, "{:?}", status.reason);
        let space = status.space.unwrap();
        assert!((14 << 20..15 << 20).contains(&space.room), "{}", space.room);
        assert!(space.measures.last().unwrap().starts_with("an incomplete dump of 14."), "{:?}", space.measures);
    }

    fn script(path: &str) -> Script {
        Script { argv: vec![path.into()], named_by: "here".into(), decides: true }
    }

    fn ends_badly(rehearsal: &mut Rehearsal, program: &str) {
        rehearsal.machine.programs.insert(program.into(), kdump_hooks::Ended { code: 7, said: String::new() });
    }

    #[test]
    fn kdump_pre_can_say_no_and_the_final_action_follows() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        rehearsal.config.hooks.user.pre.push(script("/bin/pre"));
        ends_badly(&mut rehearsal, "pre");
        let (status, last_word) = rehearsal.end();
        assert_eq!(last_word, Beat::Declined("here /bin/pre ended with 7".into()));
        assert_eq!((status.outcome, status.targets.len()), (Outcome::Failed, 1));
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json"]);
        assert_eq!(status["ending"], "reboot");
        assert_eq!(status["reason"], "here /bin/pre ended with 7");
        assert_eq!(rehearsal.machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn kdump_post_can_spoil_a_good_dump_and_the_failure_action_follows_without_another_target() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        rehearsal.config.hooks.user.post.push(script("/bin/post"));
        rehearsal.config.hooks.user.emergency.push(script("/bin/emergency"));
        ends_badly(&mut rehearsal, "post");
        let (_, last_word) = rehearsal.end();
        assert_eq!(last_word, Beat::Failed("here /bin/post ended with 7".into()));
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore", "vmcore-dmesg.txt"]);
        assert_eq!((&status["outcome"], &status["ending"]), (&"complete".into(), &"halt".into()));
        assert!(
            rehearsal.machine.journal.last().unwrap().contains("/bin/emergency"),
            "{:?}",
            rehearsal.machine.journal
        );
    }

    #[test]
    fn pstore_takes_the_log_when_all_else_has_failed_and_the_dump_has_failed_all_the_same() {
        let mut rehearsal = Rehearsal::new("echo the end > $out");
        rehearsal.config.hooks.targets.push(Target::Pstore(kdump_hooks::pstore::Pstore {}));
        rehearsal.machine.files.insert("/sys/module/pstore/parameters/backend".into(), "efi_pstore".into());
        let kmsg = rehearsal.tree.path().join("dev/kmsg");
        fs::create_dir(kmsg.parent().unwrap()).unwrap();
        fs::write(&kmsg, "").unwrap();
        let (status, last_word) = rehearsal.end();
        assert_eq!((status.outcome, status.ending), (Outcome::Failed, Some(Ending::Halt.into())));
        let errors: Vec<_> = status.targets.iter().map(|it| it.error.clone().unwrap()).collect();
        assert_eq!(errors[2], "the dump was not saved: pstore takes the log alone");
        let Beat::Failed(reason) = last_word else { panic!("{last_word:?}") };
        assert!(reason.contains("LABEL=first did not appear") && reason.contains("pstore takes"), "{reason}");
        assert_eq!(fs::read_to_string(&kmsg).unwrap(), "<15>old: the end\n");
    }

    #[test]
    fn hooks_before_the_dump_run_once_and_those_of_a_failure_before_the_last_resort() {
        let mut rehearsal =
            Rehearsal::new("case $out in *rootdumps*) echo data > $out;; *) exit 1;; esac").with_device("first");
        let user = &mut rehearsal.config.hooks.user;
        (user.pre, user.post) = (vec![script("/bin/pre")], vec![script("/bin/post")]);
        user.emergency = vec![script("/bin/emergency")];
        let Target::Filesystem(filesystem) = rehearsal.config.hooks.targets.remove(0) else { panic!() };
        rehearsal.config.hooks.targets = vec![
            Target::Filesystem(filesystem.clone()),
            Target::Rootfs(Rootfs { path: "/rootdumps".into(), filesystem }),
        ];
        let (status, last_word) = rehearsal.end();
        assert_eq!((status.outcome, last_word), (Outcome::Complete, Beat::Complete));
        let order: Vec<&str> = rehearsal
            .machine
            .journal
            .iter()
            .filter_map(|line| line.split(' ').find(|word| word.starts_with("/bin/")))
            .collect();
        assert_eq!(order, ["/bin/pre", "/bin/post", "/bin/emergency", "/bin/post"]);
        let dumps = rehearsal.tree.path().join("kdump/target/rootdumps");
        assert_eq!(fs::read_dir(dumps).unwrap().count(), 1);
    }

    #[test]
    fn each_stage_notes_the_memory_that_is_left_at_its_end() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        rehearsal.run();
        let (_, status) = rehearsal.files();
        assert!(status["stages"].as_array().unwrap().iter().all(|stage| stage["available"].as_u64().unwrap() > 0));
    }

    #[test]
    fn a_collector_that_writes_nothing_has_not_dumped() {
        let mut rehearsal = Rehearsal::new("exit 0").with_device("first");
        assert!(rehearsal.run().reason.unwrap().contains("wrote nothing"));
    }
}
