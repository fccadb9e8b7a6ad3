//! A disk of another machine, by iSCSI.
//!
//! In: the session that the host has with the target, as its sysfs shows it. *Into the image*: open-iscsi's `iscsid` and
//! `iscsiadm`, the initiator's name, and the node's record with its CHAP secrets, in files that only root reads. *At
//! boot*: once the network is up, iscsid is started and logs in; the disk that appears is what the next layer waits for.
//!
//! May surprise: the small `iscsistart` is not used, for it takes secrets on its command line, where every process sees
//! them. Where the host keeps no record of the node, as when its firmware logged in, one is made of what sysfs says. A
//! secret never stands in `image.toml`. iscsid stays: it logs in again when a connection breaks. Nobody logs out.

use super::{OVER_NETWORK, TOOL, load, module, tool};
use crate::host::{Contribution, FileNeed, Host, ProgramNeed};
use crate::machine::{Machine, MountPlan, Program};
use crate::{Hook, Moment, Next, Stage};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where open-iscsi keeps its records, which depends on how it was built.
pub const RECORDS: [&str; 2] = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];

const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";
const CONFIGURATION: &str = "/etc/iscsi/iscsid.conf";

/// open-iscsi makes a directory for its lock in one of these, and expects them to be there.
const LOCKS: [&str; 2] = ["/run/lock", "/var/lock"];

/// iscsid asks for the name of who speaks to it, and serves `root` alone. Old C libraries read names with a plug-in.
const PASSWD: (&str, &str) = ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
const NAME_PLUGIN: [&str; 3] =
    ["/lib64/libnss_files.so.2", "/lib/x86_64-linux-gnu/libnss_files.so.2", "/usr/lib64/libnss_files.so.2"];

/// iscsiadm's exit codes (`include/iscsi_err.h`).
const TIMED_OUT: i32 = 8;
const NO_CONNECTION: i32 = 4;
const THERE_ALREADY: i32 = 15;
const NO_RECORD: i32 = 21;
const NOT_ALLOWED: i32 = 24;

/// What the CHAP settings are called by sysfs, and in a record.
const SECRETS: [(&str, &str); 4] = [
    ("username", "node.session.auth.username"),
    ("password", "node.session.auth.password"),
    ("username_in", "node.session.auth.username_in"),
    ("password_in", "node.session.auth.password_in"),
];

/// A session with an iSCSI target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Iscsi {
    /// The target's name.
    pub target: String,
    /// Its portal's address.
    pub address: IpAddr,
    /// Its portal's port.
    pub port: u16,
    /// Its portal group.
    pub group: u16,
    /// Our own name.
    pub initiator: String,
    /// What open-iscsi calls the way to it; `default` unless somebody has configured one.
    pub interface: String,
    /// The host's record of the node, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<PathBuf>,
    /// What the host's sysfs calls the session.
    pub session: String,
}

impl Iscsi {
    /// Whether it is the same way to the same target, be it another session.
    pub fn is_same_way(&self, other: &Iscsi) -> bool {
        (&self.target, self.address, self.port) == (&other.target, other.address, other.port)
    }

    fn portal(&self) -> String {
        SocketAddr::new(self.address, self.port).to_string()
    }

    /// Where a record of this node is below a directory of records.
    fn place(&self) -> PathBuf {
        let portal = format!("{},{},{}", self.address, self.port, self.group);
        Path::new(&self.target).join(portal).join(&self.interface)
    }

    /// A record of what the host's sysfs says of the session.
    fn made_record(&self, host: &dyn Host) -> anyhow::Result<String> {
        let Iscsi { target, address, port, group, initiator, .. } = self;
        let mut text = format!(
            "node.name = {target}\nnode.tpgt = {group}\nnode.startup = manual\niface.iscsi_ifacename = default\n\
             iface.transport_name = tcp\niface.initiatorname = {initiator}\nnode.discovery_type = static\n"
        );
        let mut secret = false;
        for (fact, name) in SECRETS {
            let path = Path::new("/sys/class/iscsi_session").join(&self.session).join(fact);
            let bytes = host.read(&path).context("cannot take the CHAP secrets of the session along")?;
            let value = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
            let value = value.trim_end_matches('\n');
            if value.contains('\n') {
                bail!("{} has several lines", path.display());
            }
            // What has not been set is shown as printf(3) shows a null pointer.
            if !matches!(value, "" | "(null)" | "<NULL>") {
                writeln!(text, "{name} = {value}")?;
                secret = true;
            }
        }
        writeln!(text, "node.session.auth.authmethod = {}", if secret { "CHAP" } else { "None" })?;
        writeln!(text, "node.conn[0].address = {address}\nnode.conn[0].port = {port}")?;
        Ok(text)
    }

    fn files(&self, host: &dyn Host) -> anyhow::Result<Vec<FileNeed>> {
        let secret = |path: PathBuf, bytes: Vec<u8>, reason: &str| FileNeed {
            path,
            bytes,
            secret: true,
            reason: format!("{reason} {}", self.target),
        };
        let name = match host.has_file(Path::new(INITIATOR)) {
            true => host.read(Path::new(INITIATOR))?,
            false => format!("InitiatorName={}\n", self.initiator).into_bytes(),
        };
        let mut files = vec![secret(INITIATOR.into(), name, "our name towards the iSCSI target")];
        if host.has_file(Path::new(CONFIGURATION)) {
            let text = host.read(Path::new(CONFIGURATION))?;
            files.push(secret(CONFIGURATION.into(), text, "how to log in to the iSCSI target"));
        }
        match &self.record {
            Some(path) => {
                let text = host.read(path).context("cannot take the record of the iSCSI target along")?;
                files.push(secret(path.clone(), text, "the record of the iSCSI target"));
                let interface = Path::new("/etc/iscsi/ifaces").join(&self.interface);
                if host.has_file(&interface) {
                    files.push(secret(interface.clone(), host.read(&interface)?, "the way to the iSCSI target"));
                }
            }
            None => {
                let text = self.made_record(host)?;
                let places = RECORDS.iter().map(|dir| Path::new(dir).join(self.place()));
                files.extend(places.map(|path| secret(path, text.clone().into(), "the record of the iSCSI target")));
            }
        }
        Ok(files)
    }

    /// Starts iscsid, which goes on in the background; a second one finds the first and ends.
    fn start_daemon(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        for point in LOCKS {
            let (source, fstype) = ("tmpfs".into(), "tmpfs".to_owned());
            machine.mount(&MountPlan { source, fstype, point: point.into(), options: vec!["mode=0755".to_owned()] })?;
        }
        machine.run(&Program::new(&["iscsid", "-p", "/run/iscsid.pid"], TOOL))?.well("iscsid")
    }
}

impl Hook for Iscsi {
    fn name(&self) -> &'static str {
        "iscsi"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let reason = format!("the target is on a disk of the iSCSI target {}", self.target);
        let mut modules = vec![module("iscsi_tcp", &reason, true), module("sd_mod", &reason, true)];
        modules.push(module("crypto-crc32c", &reason, false));
        let mut programs: Vec<ProgramNeed> = ["iscsid", "iscsiadm"].map(|name| tool(name, &reason)).into();
        let paths = NAME_PLUGIN.map(PathBuf::from).into();
        programs.push(ProgramNeed { paths, reason: "iscsid asks who root is".to_owned(), required: false });
        let mut files = self.files(host)?;
        let (path, text) = PASSWD;
        let reason = "iscsid asks who root is".to_owned();
        files.push(FileNeed { path: path.into(), bytes: text.into(), secret: false, reason });
        Ok(Contribution { modules, programs, files, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        OVER_NETWORK
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let (target, portal) = (&self.target, self.portal());
        let what = || format!("cannot log in to the iSCSI target {target} at {portal}");
        for module in ["iscsi_tcp", "sd_mod", "crypto-crc32c"] {
            load(machine, module);
        }
        // Several sessions share the daemon. Whether it is at work shows when it is asked.
        if machine.network().read("/run/iscsid.pid").is_none() {
            self.start_daemon(machine).with_context(what)?;
        }
        let argv = ["iscsiadm", "--mode", "node", "--targetname", target, "--portal", &portal, "--login"];
        let ended = machine.run(&Program::new(&argv, moment.limit)).with_context(|| {
            format!("{}; is {} reachable by the network of the capture kernel?", what(), self.address)
        })?;
        let remedy = match ended.code {
            0 | THERE_ALREADY => {
                log::info!("logged in to {target} at {portal}");
                return Ok(Next::GoOn);
            }
            TIMED_OUT | NO_CONNECTION => "; does the portal answer, and does the capture kernel's network lead there?",
            NOT_ALLOWED => {
                "; the image has the CHAP secrets of the time when it was made: make it anew if they have changed since"
            }
            NO_RECORD => "; the record of the node is not where this iscsiadm looks for it: make the image anew",
            _ => "",
        };
        ended.well("iscsiadm").with_context(|| what() + remedy)?;
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::machine::Ended;
    use std::time::Duration;

    fn disk() -> Iscsi {
        Iscsi {
            target: "iqn.2026-01.example:crash".into(),
            address: "10.0.2.2".parse().unwrap(),
            port: 3260,
            group: 1,
            initiator: "iqn.2026-01.example:host".into(),
            interface: "default".into(),
            record: None,
            session: "session1".into(),
        }
    }

    fn host() -> FakeHost {
        let mut host = FakeHost::default();
        for (name, text) in
            [("username", "me\n"), ("password", "a secret\n"), ("username_in", "(null)\n"), ("password_in", "(null)\n")]
        {
            host.files.insert(format!("/sys/class/iscsi_session/session1/{name}").into(), text.into());
        }
        host
    }

    #[test]
    fn the_host_s_record_is_taken_along_as_it_is_and_nobody_else_may_read_it() {
        let mut host = host();
        let record: PathBuf = "/etc/iscsi/nodes/iqn.2026-01.example:crash/10.0.2.2,3260,1/default".into();
        host.files.insert(record.clone(), b"node.session.auth.password = other".into());
        host.files.insert(INITIATOR.into(), b"InitiatorName=iqn.x".into());
        host.files.insert(CONFIGURATION.into(), b"# text".into());
        let asked = Iscsi { record: Some(record.clone()), ..disk() }.gather(&host).unwrap();
        let files: Vec<_> = asked.files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(files, [INITIATOR, CONFIGURATION, record.to_str().unwrap(), "/etc/passwd"]);
        assert!(asked.files[..3].iter().all(|file| file.secret));
        assert_eq!(asked.files[2].bytes, b"node.session.auth.password = other");
        let programs: Vec<_> = asked.programs.iter().map(|program| program.paths[0].to_str().unwrap()).collect();
        assert_eq!(programs[..2], ["/usr/sbin/iscsid", "/usr/sbin/iscsiadm"]);
        assert!(!asked.programs[2].required);
        assert_eq!(asked.modules[0].request, "iscsi_tcp");
    }

    #[test]
    fn without_a_record_one_is_made_of_the_session_in_both_places() {
        let asked = disk().gather(&host()).unwrap();
        let [name, records @ ..] = &asked.files[..] else { panic!("no files") };
        assert_eq!(name.bytes, b"InitiatorName=iqn.2026-01.example:host\n");
        for (file, dir) in records.iter().zip(RECORDS) {
            assert_eq!(file.path, Path::new(dir).join("iqn.2026-01.example:crash/10.0.2.2,3260,1/default"));
            assert!(file.secret);
            let text = String::from_utf8(file.bytes.clone()).unwrap();
            assert!(
                text.contains("\nnode.session.auth.username = me\nnode.session.auth.password = a secret\n"),
                "{text}"
            );
            assert!(text.contains("authmethod = CHAP") && !text.contains("_in"), "{text}");
        }
        assert_eq!(records.len(), 3);
        let error = disk().gather(&FakeHost::default()).unwrap_err();
        assert!(format!("{error:#}").contains("cannot take the CHAP secrets of the session along"), "{error:#}");
    }

    #[test]
    fn the_daemon_is_started_once_and_no_secret_is_on_a_command_line() {
        let mut machine = FakeMachine::default();
        let moment = Moment::at(Stage::Storage, Duration::from_secs(90));
        disk().act(&moment, &mut machine).unwrap();
        assert_eq!(
            machine.journal[3..],
            [
                "mount tmpfs /run/lock tmpfs mode=0755",
                "mount tmpfs /var/lock tmpfs mode=0755",
                "run iscsid -p /run/iscsid.pid",
                "run iscsiadm --mode node --targetname iqn.2026-01.example:crash --portal 10.0.2.2:3260 --login",
            ]
        );
        machine.net.files.insert("/run/iscsid.pid".into(), "70\n".into());
        machine.journal.clear();
        let six = Iscsi { address: "fd00::1".parse().unwrap(), ..disk() };
        six.act(&moment, &mut machine).unwrap();
        assert_eq!(machine.journal.len(), 4);
        assert!(machine.journal[3].contains("--portal [fd00::1]:3260"), "{:?}", machine.journal);
    }

    #[test]
    fn a_login_that_fails_says_why_and_what_to_do() {
        let moment = Moment::at(Stage::Storage, Duration::from_secs(7));
        for (code, words) in [
            (24, "make it anew if they have changed since: iscsiadm failed: exit code 24 (not today)"),
            (8, "does the portal answer"),
            (21, "not where this iscsiadm looks"),
            (1, "at 10.0.2.2:3260: iscsiadm failed: exit code 1"),
        ] {
            let mut machine = FakeMachine::default();
            machine.programs.insert("iscsiadm".into(), Ended { code, said: "not today".into() });
            let error = format!("{:#}", disk().act(&moment, &mut machine).unwrap_err());
            assert!(error.starts_with("cannot log in to the iSCSI target iqn.2026-01.example:crash"), "{error}");
            assert!(error.contains(words), "{error}");
        }
        let mut machine = FakeMachine::default();
        machine.programs.insert("iscsiadm".into(), Ended { code: 15, said: String::new() });
        assert_eq!(disk().act(&moment, &mut machine).unwrap(), Next::GoOn);
        machine.stuck.insert("iscsiadm".into());
        let error = format!("{:#}", disk().act(&moment, &mut machine).unwrap_err());
        assert!(error.contains("is 10.0.2.2 reachable") && error.contains("within 7 s"), "{error}");
    }
}
