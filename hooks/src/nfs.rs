//! The hook for a dump target that is an NFS export, mounted without mount.nfs.
//!
//! In: `HOST:/EXPORT` and mount options. Out: a mounted target. mount.nfs only finds out what the kernel does not: the
//! server's address, our own, and the newest version that both sides speak. All that is done here, and mount(2) gets it
//! as text (nfs(5), "MOUNT OPTIONS"; `fs/nfs/fs_context.c`).
//!
//! May surprise: if nobody says otherwise the mount is `soft`: when the server is gone, writing fails after some hundred
//! seconds and the next target or the failure action follows. A `hard` mount would hold the machine down for ever, but
//! for the collector's own limit.

use crate::fstab;
use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::{Machine, MountPlan, Refused};
use crate::net::server;
use crate::{Destination, Hook, TargetHook};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// The versions that are tried, the best first.
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];
/// How long the server is tried again while it does not answer, such as while a switch learns our address.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// `EPROTONOSUPPORT` and `EINVAL`, `ENOENT` of a server that has no NFSv4 root: the version may be the cause.
const ANOTHER_VERSION_MAY_DO: [i32; 4] = [93, 22, 524, 2];
/// `ECONNREFUSED`, `ENETUNREACH`, `EHOSTUNREACH`, `ETIMEDOUT`, `ECONNRESET`, `EAGAIN`.
const LATER_MAY_DO: [i32; 6] = [111, 101, 113, 110, 104, 11];

/// `EPERM`, `ENOENT`, `EACCES`: there may be no such export for us.
const NOT_EXPORTED: [i32; 3] = [1, 2, 13];

/// Since Linux 6.19 the client asks for a delegation of every directory that it opens. A server that does not know the
/// request, as nfs-ganesha before 9, lets the whole call fail, and the client says EREMOTEIO. A dump needs none.
const DIRECTORY_DELEGATIONS: &str = "/sys/module/nfsv4/parameters/directory_delegations";

/// What an export is mounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A dump is written to it, and somebody has to know when that cannot be done.
    Dumps,
    /// It is a part of the system that is booted: whoever uses it waits for the server, as the kernel has it.
    System {
        /// Not to be written to.
        read_only: bool,
    },
}

impl Use {
    fn what(self) -> &'static str {
        match self {
            Use::Dumps => "the target",
            Use::System { .. } => "the export",
        }
    }
}

/// Options that only mount.nfs knows; the kernel would refuse them, or they are told it anew.
const NOT_FOR_THE_KERNEL: [&str; 7] = ["ro", "bg", "fg", "retry", "addr", "clientaddr", "mountaddr"];

/// An NFS export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nfs {
    /// The server's name or address, without brackets.
    pub server: String,
    /// The directory that it exports.
    pub export: String,
    /// What the name meant when the image was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Mount options as fstab writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// `HOST:/EXPORT`, an IPv6 address in brackets.
impl FromStr for Nfs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an NFS export; write HOST:/EXPORT, an IPv6 address in brackets");
        let (server, export) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").filter(|(server, _)| server.parse::<IpAddr>().is_ok()),
            None => text.split_once(':'),
        }
        .ok_or_else(wrong)?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
        if server.is_empty() || !server.chars().all(good) || !export.starts_with('/') || export.contains('\0') {
            return Err(wrong());
        }
        Ok(Nfs { server: server.to_owned(), export: export.to_owned(), address: None, options: Vec::new() })
    }
}

impl fmt::Display for Nfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nfs {}", self.source())
    }
}

impl Nfs {
    /// As mount(2) and its readers write it.
    fn source(&self) -> String {
        match self.server.contains(':') {
            true => format!("[{}]:{}", self.server, self.export),
            false => format!("{}:{}", self.server, self.export),
        }
    }

    fn option(&self, names: &[&str]) -> Option<&str> {
        // The last one wins.
        let mut pairs = self.options.iter().rev().filter_map(|option| option.split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    }

    /// Whether both name one export, however many `/` are written.
    pub fn is_same(&self, other: &Nfs) -> bool {
        self.server.eq_ignore_ascii_case(&other.server) && Path::new(&self.export) == Path::new(&other.export)
    }

    /// The versions that may be tried.
    fn versions(&self) -> Vec<&str> {
        match self.options.iter().rev().find_map(|option| version_of(option)) {
            Some("4") => VERSIONS.iter().copied().filter(|version| version.starts_with('4')).collect(),
            Some(version) => vec![version],
            None => match self.options.iter().any(|option| option.starts_with("minorversion=")) {
                true => vec!["4"],
                false => VERSIONS.to_vec(),
            },
        }
    }

    /// Refuses what an image cannot do.
    ///
    /// # Errors
    /// The option, and what to do about it.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Some(flavour) = self.option(&["sec"]).filter(|flavour| !matches!(*flavour, "sys" | "none")) {
            bail!("sec={flavour} needs tickets and a daemon that no image has; export to this machine with sec=sys");
        }
        if self.option(&["proto", "mountproto"]).is_some_and(|proto| proto.starts_with("rdma")) {
            bail!("proto=rdma is not supported by this version; write proto=tcp");
        }
        Ok(())
    }

    /// The options for one version, as mount.nfs would hand them to the kernel.
    fn plan(&self, version: &str, server: IpAddr, client: IpAddr, point: &Path, to: Use) -> MountPlan {
        let mut options = vec![format!("vers={version}"), format!("addr={server}")];
        let three = version.starts_with('3');
        let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
        let kept = self.options.iter().filter(|option| {
            let is_known = NOT_FOR_THE_KERNEL.contains(&name(option).as_str());
            !is_known && !fstab::is_for_readers(option) && version_of(option).is_none()
        });
        let kept: Vec<String> = kept.cloned().collect();
        let says = |names: &[&str]| kept.iter().any(|option| names.contains(&name(option).as_str()));
        let proto = if server.is_ipv6() { "tcp6" } else { "tcp" };
        if !says(&["proto", "tcp", "udp"]) {
            options.push(format!("proto={proto}"));
        }
        match three {
            true => {
                options.push(format!("mountaddr={server}"));
                if !says(&["mountproto"]) {
                    options.push(format!("mountproto={proto}"));
                }
                // A lock manager would have to be found on both sides, and nobody else writes this dump.
                if !says(&["lock", "nolock"]) {
                    options.push("nolock".to_owned());
                }
            }
            false => options.push(format!("clientaddr={client}")),
        }
        match to {
            Use::Dumps if !says(&["hard"]) => {
                let names: [(&[&str], &str); 3] =
                    [(&["soft", "softerr"], "soft"), (&["timeo"], "timeo=100"), (&["retrans"], "retrans=3")];
                options.extend(names.iter().filter(|(names, _)| !says(names)).map(|(_, option)| (*option).to_owned()));
            }
            Use::System { read_only: true } => options.push("ro".to_owned()),
            _ => {}
        }
        options.extend(kept);
        MountPlan { source: self.source().into(), point: point.to_owned(), fstype: "nfs".to_owned(), options }
    }

    /// Mounts it at `point`, trying for at most `limit` while the server does not answer.
    ///
    /// # Errors
    /// The server's name means nothing, there is no way to it, or the refusals of every version that was tried.
    pub fn mount(&self, machine: &mut dyn Machine, point: &Path, to: Use, limit: Duration) -> anyhow::Result<()> {
        let server = server::find(machine.network(), &self.server, self.address)?;
        let client = server::own_address(machine.network(), server)?;
        for module in ["nfs", "nfsv4"] {
            // One that is built in is no module; mount(2) says what is missing.
            if let Err(error) = machine.load_module(module) {
                log::debug!("{error:#}");
            }
        }
        if let Err(error) = machine.network().write(DIRECTORY_DELEGATIONS, "N") {
            log::debug!("{error:#}");
        }
        let began = machine.network().now();
        loop {
            let mut refusals = Vec::new();
            let (mut hope, mut advice) = (false, String::new());
            for version in self.versions() {
                let error = match machine.mount(&self.plan(version, server, client, point, to)) {
                    Ok(()) => {
                        log::info!("{} is mounted, NFS {version}, {client} to {server}", self.source());
                        return Ok(());
                    }
                    Err(error) => error,
                };
                let errno = error.downcast_ref::<Refused>().map(|refused| refused.errno);
                refusals.push(format!("NFS {version}: {error:#}"));
                hope |= errno.is_some_and(|errno| LATER_MAY_DO.contains(&errno));
                if errno.is_some_and(|errno| NOT_EXPORTED.contains(&errno)) {
                    advice = format!("; see whether {server} exports {} to {client}", self.export);
                }
                if !errno.is_some_and(|errno| ANOTHER_VERSION_MAY_DO.contains(&errno)) {
                    break;
                }
            }
            let waited = machine.network().now().saturating_sub(began);
            if !hope || waited + BETWEEN_TRIES >= limit {
                bail!("cannot mount {} {self} ({server}): {}{advice}", to.what(), refusals.join("; "));
            }
            log::warn!("{}; trying again, {} of {} s", refusals.join("; "), waited.as_secs(), limit.as_secs());
            machine.network().pause(BETWEEN_TRIES);
        }
    }
}

/// The version that an option asks for: `vers=4.1`, `nfsvers=4.1`, or `v4.1` as mount.nfs has it, too.
fn version_of(option: &str) -> Option<&str> {
    match option.split_once('=') {
        Some(("vers" | "nfsvers", version)) => Some(version),
        Some(_) => None,
        None => option.strip_prefix('v').filter(|version| version.starts_with(|c: char| c.is_ascii_digit())),
    }
}

impl Hook for Nfs {
    fn name(&self) -> &'static str {
        "nfs"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        self.check()?;
        let modules = modules(&self.versions(), &format!("file system of the target {self}"));
        Ok(Contribution { modules, ..Contribution::default() })
    }
}

/// What speaks every version: for an image that is told of its exports at boot.
pub fn all_modules(reason: &str) -> Vec<ModuleNeed> {
    modules(&VERSIONS, reason)
}

fn modules(versions: &[&str], reason: &str) -> Vec<ModuleNeed> {
    let need = |request: &str, required: bool| ModuleNeed {
        request: request.to_owned(),
        reason: reason.to_owned(),
        required,
        by_device: false,
    };
    let four = versions.iter().any(|version| version.starts_with('4'));
    let three = versions.iter().any(|version| version.starts_with('3'));
    let mut modules = vec![need("nfs", true), need("sunrpc", true)];
    if four {
        modules.extend([need("nfsv4", true), need("dns_resolver", false)]);
    }
    if three {
        modules.extend([need("nfsv3", !four), need("lockd", false)]);
    }
    modules
}

impl TargetHook for Nfs {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        let point = machine.mount_point();
        self.mount(machine, &point, Use::Dumps, limit)?;
        Ok(Destination::Directory(point))
    }

    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let point = machine.mount_point();
        machine.unmount(&point).with_context(|| format!("cannot unmount the target {self}"))
    }

    fn client(&self, machine: &mut dyn Machine) -> Option<IpAddr> {
        server::client(machine.network(), &self.server, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::net::Net;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn nfs(text: &str, options: &[&str]) -> Nfs {
        Nfs { options: options.iter().map(|option| (*option).to_owned()).collect(), ..text.parse().unwrap() }
    }

    fn mounts(machine: &FakeMachine) -> Vec<&str> {
        machine.journal.iter().map(String::as_str).filter(|line| line.starts_with("mount")).collect()
    }

    #[test]
    fn the_kernel_gets_what_mount_nfs_would_tell_it() {
        let mut machine = FakeMachine::near_a_server();
        let target = nfs("nas.example:/srv/crash", &["defaults", "rsize=65536", "bg"]);
        let destination = target.open(&mut machine, LIMIT).unwrap();
        assert_eq!(destination, Destination::Directory("/kdump/target".into()));
        assert_eq!(target.client(&mut machine), Some("10.0.2.15".parse().unwrap()));
        assert_eq!(
            mounts(&machine),
            [
                "mount nas.example:/srv/crash /kdump/target nfs vers=4.2,addr=10.0.2.7,proto=tcp,clientaddr=10.0.2.15,soft,\
              timeo=100,retrans=3,rsize=65536"
            ]
        );
        assert!(machine.net.files[DIRECTORY_DELEGATIONS] == "N");
        target.close(&mut machine).unwrap();
        assert_eq!(machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn a_part_of_the_system_waits_for_its_server_and_lies_where_it_is_told() {
        let mut machine = FakeMachine::near_a_server();
        let (point, options) = (Path::new("/sysroot"), ["rsize=65536", "ro"]);
        nfs("10.0.2.7:/srv", &options)
            .mount(&mut machine, point, Use::System { read_only: true }, LIMIT)
            .and_then(|()| {
                nfs("10.0.2.7:/srv", &[]).mount(&mut machine, point, Use::System { read_only: false }, LIMIT)
            })
            .unwrap();
        let begin = "mount 10.0.2.7:/srv /sysroot nfs vers=4.2,addr=10.0.2.7,proto=tcp,clientaddr=10.0.2.15";
        assert_eq!(mounts(&machine), [format!("{begin},ro,rsize=65536"), begin.to_owned()]);
    }

    #[test]
    fn older_versions_are_tried_until_the_server_speaks_one() {
        let mut machine = FakeMachine::near_a_server();
        machine.unmountable.extend(["vers=4.2", "vers=4.1", "vers=4.0"].map(str::to_owned));
        nfs("10.0.2.7:/srv", &[]).open(&mut machine, LIMIT).unwrap();
        assert_eq!(mounts(&machine).len(), 4);
        assert_eq!(
            mounts(&machine)[3],
            "mount 10.0.2.7:/srv /kdump/target nfs vers=3,addr=10.0.2.7,proto=tcp,mountaddr=10.0.2.7,mountproto=tcp,nolock,\
             soft,timeo=100,retrans=3"
        );
    }

    #[test]
    fn a_version_and_other_options_that_are_given_are_kept_to() {
        let mut machine = FakeMachine::near_a_server();
        machine.unmountable.insert("vers=3".into());
        let target = nfs("10.0.2.7:/srv", &["nfsvers=3", "hard", "mountproto=udp", "lock"]);
        let error = format!("{:#}", target.open(&mut machine, LIMIT).unwrap_err());
        assert!(error.contains("cannot mount the target nfs 10.0.2.7:/srv (10.0.2.7): NFS 3: "), "{error}");
        assert_eq!(
            mounts(&machine),
            [
                "mount 10.0.2.7:/srv /kdump/target nfs vers=3,addr=10.0.2.7,proto=tcp,mountaddr=10.0.2.7,hard,mountproto=udp,\
              lock"
            ]
        );
    }

    #[test]
    fn what_is_for_readers_of_fstab_stays_away_from_the_kernel_and_a_version_may_be_one_word() {
        let mut machine = FakeMachine::near_a_server();
        let words = ["rw", "users", "owner", "group", "comment=x", "x-systemd.automount", "nofail", "_netdev", "v4.1"];
        nfs("10.0.2.7:/srv", &words).open(&mut machine, LIMIT).unwrap();
        let begin = "mount 10.0.2.7:/srv /kdump/target nfs vers=4.1,addr=10.0.2.7,proto=tcp,clientaddr=10.0.2.15";
        assert_eq!(mounts(&machine), [format!("{begin},soft,timeo=100,retrans=3")]);
    }

    #[test]
    fn only_hard_makes_it_hard_whatever_is_said_of_time() {
        for (said, comes) in [
            (&["timeo=50"][..], "soft,retrans=3,timeo=50"),
            (&["retrans=2"], "soft,timeo=100,retrans=2"),
            (&["timeo=50", "retrans=2"], "soft,timeo=50,retrans=2"),
            (&["softerr"], "timeo=100,retrans=3,softerr"),
            (&["hard", "timeo=50"], "hard,timeo=50"),
        ] {
            let mut machine = FakeMachine::near_a_server();
            nfs("10.0.2.7:/srv", said).open(&mut machine, LIMIT).unwrap();
            let mount = mounts(&machine)[0];
            assert!(mount.ends_with(&format!("clientaddr=10.0.2.15,{comes}")), "{said:?}: {mount}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_tried_again_within_the_limit() {
        let mut machine = FakeMachine::near_a_server();
        machine.unmountable.insert("nfs".into());
        machine.mount_errno = 111;
        let error = nfs("10.0.2.7:/srv", &[]).open(&mut machine, LIMIT).unwrap_err();
        assert!(format!("{error:#}").contains("cannot mount"), "{error:#}");
        assert_eq!(mounts(&machine).len(), 15);
        machine.mount_errno = 13;
        machine.journal.clear();
        let error = nfs("10.0.2.7:/srv", &[]).open(&mut machine, LIMIT).unwrap_err();
        assert!(error.to_string().ends_with("; see whether 10.0.2.7 exports /srv to 10.0.2.15"), "{error:#}");
        assert_eq!(mounts(&machine).len(), 1, "access denied does not change by asking again");
    }

    #[test]
    fn without_a_nameserver_the_address_of_the_build_is_used() {
        let mut machine = FakeMachine::near_a_server();
        machine.net.dns_is_silent = true;
        let target = Nfs { address: Some("10.0.2.9".parse().unwrap()), ..nfs("nas:/srv", &[]) };
        target.open(&mut machine, LIMIT).unwrap();
        assert!(mounts(&machine)[0].contains("addr=10.0.2.9"), "{:?}", machine.journal);
        let error = nfs("nas:/srv", &[]).open(&mut machine, LIMIT).unwrap_err();
        assert!(format!("{error:#}").contains("cannot resolve nas"), "{error:#}");
    }

    #[test]
    fn ipv6_servers_are_in_brackets_and_by_tcp6() {
        let mut machine = FakeMachine::near_a_server();
        machine.net.add_address(2, "fec0::15/64".parse().unwrap()).unwrap();
        let target = nfs("[fec0::2]:/srv", &[]);
        assert_eq!(target.to_string(), "nfs [fec0::2]:/srv");
        target.open(&mut machine, LIMIT).unwrap();
        let mount = mounts(&machine)[0];
        assert!(
            mount.contains("[fec0::2]:/srv") && mount.contains("addr=fec0::2,proto=tcp6,clientaddr=fec0::15"),
            "{mount}"
        );
    }

    #[test]
    fn without_a_route_the_network_is_named() {
        let error = nfs("10.0.2.7:/srv", &[]).open(&mut FakeMachine::default(), LIMIT).unwrap_err();
        assert!(format!("{error:#}").contains("there is no route to 10.0.2.7; is the network up?"), "{error:#}");
    }

    #[test]
    fn the_image_gets_the_versions_that_may_be_spoken() {
        let requests = |options: &[&str]| -> Vec<(String, bool)> {
            let needs = nfs("h:/e", options).gather(&FakeHost::default()).unwrap().modules;
            needs.into_iter().map(|need| (need.request, need.required)).collect()
        };
        let has = |options: &[&str], module: &str| {
            requests(options).iter().find(|(name, _)| name == module).map(|need| need.1)
        };
        assert_eq!((has(&[], "nfsv4"), has(&[], "nfsv3")), (Some(true), Some(false)));
        assert_eq!((has(&["vers=3"], "nfsv4"), has(&["vers=3"], "nfsv3")), (None, Some(true)));
        assert_eq!((has(&["vers=4"], "nfsv4"), has(&["vers=4"], "nfsv3")), (Some(true), None));
        assert_eq!((has(&["v3"], "nfsv4"), has(&["v4"], "nfsv3")), (None, None));
        let error = nfs("h:/e", &["sec=krb5p"]).gather(&FakeHost::default()).unwrap_err().to_string();
        assert!(error.starts_with("sec=krb5p needs tickets"), "{error}");
    }

    #[test]
    fn an_export_is_the_same_however_it_is_written() {
        let same = |one: &str, other: &str| nfs(one, &[]).is_same(&nfs(other, &[]));
        assert!(same("NAS:/srv/", "nas:/srv") && same("nas://srv/crash", "nas:/srv/crash") && same("h:/", "h:/"));
        assert!(!same("nas:/srv", "nas:/srv/crash") && !same("nas:/srv", "nas2:/srv"));
    }

    #[test]
    fn what_is_no_export_is_told() {
        for text in ["host", "host:export", ":/x", "[host]:/x", "[::1]/x", "ho st:/x", "a,b:/x"] {
            assert!(text.parse::<Nfs>().unwrap_err().contains("write HOST:/EXPORT"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_export_is_read_as_it_is_written(server in "[a-z0-9.-]{1,20}", export in "/[a-z0-9/:]{0,20}") {
            let target: Nfs = format!("{server}:{export}").parse().unwrap();
            prop_assert_eq!(target.to_string(), format!("nfs {server}:{export}"));
        }
    }
}
