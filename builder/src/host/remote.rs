//! A disk of another machine: where its server is, and how to get there again.
//!
//! In: a disk's place in sysfs. Out: an iSCSI session or the controllers of an NVMe subsystem as layers; nothing, for a
//! local disk. Everything else that a network brings is refused by name.
//!
//! ```text
//!  /sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sda
//!                      host3/scsi_host/host3/proc_name                    iscsi_tcp
//!                      host3/session1/iscsi_session/session1/targetname
//!                      host3/session1/connection1:0/iscsi_connection/connection1:0/persistent_address
//!  /sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1               with links to its controllers
//!  /sys/devices/virtual/nvme-fabrics/ctl/nvme0/{transport,address,subsysnqn,hostnqn,hostid}
//! ```
//!
//! May surprise: `persistent_address` is what somebody asked for and may be a name, `address` is where the connection
//! really goes, even after the server has sent it on. A record of open-iscsi is only taken along if it is for an address.

use super::{Tree, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::storage::{Iscsi, Layer, NvmeTcp, iscsi};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const REMEDY: &str = "write a target on another disk";

/// NVMe transports that need a network; `pcie` and `apple-nvme` are buses.
const NETWORKS: [&str; 4] = ["tcp", "rdma", "fc", "loop"];

/// What must be done to reach the disk `name` at `place`, if its drivers are not enough.
///
/// # Errors
/// The image cannot reach it.
pub fn layers(tree: &Tree, name: &str, place: &Path) -> anyhow::Result<Vec<Layer>> {
    if let Some(session) = place.ancestors().find(|place| tree.path(place.join("iscsi_session")).is_dir()) {
        let layer = session_of(tree, name, session).with_context(|| format!("{name} is an iSCSI disk"))?;
        return Ok(vec![Layer::Iscsi(layer)]);
    }
    let mut controllers: Vec<PathBuf> =
        place.ancestors().flat_map(|place| sysfs::nvme_controllers(tree, place)).collect();
    controllers
        .extend(place.ancestors().filter(|place| tree.path(place.join("transport")).is_file()).map(Path::to_owned));
    let mut layers = Vec::new();
    for controller in controllers {
        let transport = line(tree, &controller, "transport").unwrap_or_default();
        match transport.as_str() {
            "tcp" => {
                let layer = controller_of(tree, &controller);
                layers.push(Layer::NvmeTcp(layer.with_context(|| format!("{name} is an NVMe disk over TCP"))?));
            }
            other if NETWORKS.contains(&other) => {
                bail!(
                    "{name} is an NVMe disk over {other}, which this version cannot connect to from the image; {REMEDY}"
                )
            }
            _ => {}
        }
    }
    if name.starts_with("nbd") || name.starts_with("rbd") {
        bail!("{name} is a network block device, which this version cannot connect to from the image; {REMEDY}");
    }
    Ok(layers)
}

/// A line of a file in `place`; none, if it is empty or cannot be read.
fn line(tree: &Tree, place: &Path, file: &str) -> Option<String> {
    tree.line(place.join(file).to_str()?).filter(|text| !text.is_empty() && text != "(null)")
}

fn session_of(tree: &Tree, disk: &str, place: &Path) -> anyhow::Result<Iscsi> {
    let host = place.parent().context("its session has no host")?;
    let number = host.file_name().unwrap_or_default();
    let driver = line(tree, &host.join("scsi_host").join(number), "proc_name").unwrap_or_default();
    if driver != "iscsi_tcp" {
        bail!(
            "{disk} is reached by the driver `{driver}`, and this version can only use iscsi_tcp in the image; {REMEDY}"
        );
    }
    let session = place.file_name().and_then(|name| name.to_str()).context("its session has no name")?.to_owned();
    let facts = place.join("iscsi_session").join(&session);
    let fact = |file: &str| {
        line(tree, &facts, file).with_context(|| format!("{} does not tell", tree.path(facts.join(file)).display()))
    };
    let mut names = sysfs::names_in(&tree.path(place));
    names.sort();
    let connection = names.into_iter().find(|name| name.starts_with("connection"));
    let connection = connection.with_context(|| format!("{session} has no connection; is its server there?"))?;
    let place = place.join(&connection).join("iscsi_connection").join(&connection);
    let asked = line(tree, &place, "persistent_address").and_then(|address| address.parse::<IpAddr>().ok());
    let address = match asked {
        Some(address) => Some(address),
        None => line(tree, &place, "address").and_then(|address| address.parse().ok()),
    };
    let port = ["persistent_port", "port"].iter().find_map(|file| line(tree, &place, file)?.parse().ok());
    let initiator = fact("initiatorname").or_else(|error| initiator(tree).ok_or(error))?;
    let mut found = Iscsi {
        target: fact("targetname")?,
        address: address.with_context(|| format!("{} does not tell the address", place.display()))?,
        port: port.with_context(|| format!("{} does not tell the port", place.display()))?,
        group: fact("tpgt")?.parse().context("the portal group is no number")?,
        initiator,
        interface: line(tree, &facts, "ifacename").unwrap_or_else(|| "default".to_owned()),
        record: None,
        session,
    };
    found.record = asked.and_then(|_| record(tree, &found));
    if found.record.is_none() {
        // What is made of sysfs' words knows no other.
        found.interface = "default".to_owned();
    }
    Ok(found)
}

/// The initiator's name as open-iscsi is told it.
fn initiator(tree: &Tree) -> Option<String> {
    let text = String::from_utf8(tree.read(Path::new("/etc/iscsi/initiatorname.iscsi")).ok()?).ok()?;
    text.lines().find_map(|line| line.trim().strip_prefix("InitiatorName=")).map(|name| name.trim().to_owned())
}

/// open-iscsi's record of the session: `TARGET/ADDRESS,PORT,GROUP/INTERFACE`, or without the interface where it is old.
fn record(tree: &Tree, session: &Iscsi) -> Option<PathBuf> {
    let portal = format!("{},{}", session.address, session.port);
    for dir in iscsi::RECORDS {
        let dir = Path::new(dir).join(&session.target);
        let mut names = sysfs::names_in(&tree.path(&dir));
        names.sort();
        for name in names.iter().filter(|name| **name == portal || name.starts_with(&format!("{portal},"))) {
            let place = dir.join(name);
            let places = [place.join(&session.interface), place];
            if let Some(found) = places.into_iter().find(|place| tree.resolve(place).is_ok_and(|file| file.is_file())) {
                return Some(found);
            }
        }
    }
    None
}

fn controller_of(tree: &Tree, place: &Path) -> anyhow::Result<NvmeTcp> {
    let secrets = ["dhchap_secret", "dhchap_ctrl_secret", "tls_key", "tls_configured_key"];
    for file in secrets {
        if line(tree, place, file).is_some_and(|value| value != "none" && value != "0") {
            bail!("its controller wants a secret ({file}), which this version cannot give it from the image; {REMEDY}");
        }
    }
    let fact = |file: &str| {
        line(tree, place, file).with_context(|| format!("{} does not tell", tree.path(place.join(file)).display()))
    };
    let (address, port) = portal(&fact("address")?)?;
    let host = line(tree, place, "hostnqn").or_else(|| tree.line("/etc/nvme/hostnqn").filter(|name| !name.is_empty()));
    let host_id = line(tree, place, "hostid").or_else(|| tree.line("/etc/nvme/hostid").filter(|id| !id.is_empty()));
    Ok(NvmeTcp { subsystem: fact("subsysnqn")?, address, port, host, host_id })
}

/// The controller in `traddr=10.0.2.7,trsvcid=4420,src_addr=10.0.2.15`.
///
/// # Errors
/// There is none in it.
pub fn portal(text: &str) -> anyhow::Result<(IpAddr, u16)> {
    let word = |name: &str| text.split(',').find_map(|word| word.trim().strip_prefix(name)?.strip_prefix('='));
    let address = word("traddr").and_then(|address| address.parse().ok());
    let port = word("trsvcid").and_then(|port| port.parse().ok());
    address.zip(port).with_context(|| format!("`{text}` is not the address of an NVMe controller"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use std::fs;
    use std::os::unix::fs::symlink;

    const DISK: &str = "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sda";
    const CONTROLLER: &str = "/sys/devices/virtual/nvme-fabrics/ctl/nvme0";

    fn session(driver: &str) -> (tempfile::TempDir, Tree) {
        let host = "/sys/devices/platform/host3";
        let facts = format!("{host}/session1/iscsi_session/session1");
        let connection = format!("{host}/session1/connection1:0/iscsi_connection/connection1:0");
        fake::tree(&[
            (&format!("{host}/scsi_host/host3/proc_name"), driver),
            (&format!("{facts}/targetname"), "iqn.2026-01.example:crash"),
            (&format!("{facts}/tpgt"), "1"),
            (&format!("{facts}/ifacename"), "lan"),
            (&format!("{facts}/initiatorname"), "iqn.2026-01.example:host"),
            (&format!("{connection}/persistent_address"), "10.0.2.2"),
            (&format!("{connection}/persistent_port"), "3261"),
            (&format!("{connection}/address"), "10.0.2.3"),
        ])
        .unwrap()
    }

    fn found(tree: &Tree, place: &str) -> anyhow::Result<Vec<Layer>> {
        let name = place.rsplit('/').next().unwrap();
        layers(tree, name, Path::new(place))
    }

    #[test]
    fn an_iscsi_disk_tells_its_session_and_open_iscsi_s_record_of_it() {
        let (_dir, tree) = session("iscsi_tcp");
        let mut expected = Iscsi {
            target: "iqn.2026-01.example:crash".into(),
            address: "10.0.2.2".parse().unwrap(),
            port: 3261,
            group: 1,
            initiator: "iqn.2026-01.example:host".into(),
            interface: "default".into(),
            record: None,
            session: "session1".into(),
        };
        assert_eq!(found(&tree, DISK).unwrap(), [Layer::Iscsi(expected.clone())]);
        let record = "/var/lib/iscsi/nodes/iqn.2026-01.example:crash/10.0.2.2,3261,1/lan";
        fs::create_dir_all(tree.path(record).parent().unwrap()).unwrap();
        fs::write(tree.path(record), "").unwrap();
        expected.record = Some(record.into());
        expected.interface = "lan".into();
        assert_eq!(found(&tree, DISK).unwrap(), [Layer::Iscsi(expected)]);
    }

    #[test]
    fn a_portal_that_was_asked_for_by_name_goes_by_the_address_of_its_connection() {
        let (_dir, tree) = session("iscsi_tcp");
        let connection = "sys/devices/platform/host3/session1/connection1:0/iscsi_connection/connection1:0";
        fs::write(tree.path(connection).join("persistent_address"), "san.example\n").unwrap();
        let [Layer::Iscsi(session)] = &found(&tree, DISK).unwrap()[..] else { panic!("no session") };
        assert_eq!((session.address.to_string(), &session.record), ("10.0.2.3".to_owned(), &None));
    }

    fn controller(transport: &str, more: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let facts = [
            ("transport", transport),
            ("address", "traddr=10.0.2.2,trsvcid=4420,src_addr=10.0.2.15"),
            ("subsysnqn", "nqn.2026-01.example:crash"),
            ("hostnqn", "nqn.2026-01.example:host"),
            ("dhchap_secret", "none"),
        ];
        let files: Vec<(String, &str)> =
            facts.iter().chain(more).map(|(file, text)| (format!("{CONTROLLER}/{file}"), *text)).collect();
        fake::tree(&files.iter().map(|(file, text)| (file.as_str(), *text)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn an_nvme_disk_over_tcp_tells_its_controllers_with_and_without_a_subsystem() {
        let (_dir, tree) = controller("tcp", &[("hostid", "0b5c2ff4-8d7f-4a4e-9d0c-1f2a3b4c5d6e")]);
        let subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        fs::create_dir_all(tree.path(subsystem).join("nvme0n1")).unwrap();
        symlink("../../nvme-fabrics/ctl/nvme0", tree.path(subsystem).join("nvme0")).unwrap();
        let expected = Layer::NvmeTcp(NvmeTcp {
            subsystem: "nqn.2026-01.example:crash".into(),
            address: "10.0.2.2".parse().unwrap(),
            port: 4420,
            host: Some("nqn.2026-01.example:host".into()),
            host_id: Some("0b5c2ff4-8d7f-4a4e-9d0c-1f2a3b4c5d6e".into()),
        });
        for place in [format!("{CONTROLLER}/nvme0n1"), format!("{subsystem}/nvme0n1")] {
            assert_eq!(found(&tree, &place).unwrap(), std::slice::from_ref(&expected), "{place}");
        }
        symlink(format!("{subsystem}/nvme0n1"), tree.path("/sys/devices/link")).unwrap();
        fs::create_dir_all(tree.path("/sys/class/block")).unwrap();
        symlink(format!("{subsystem}/nvme0n1"), tree.path("/sys/class/block/nvme0n1")).unwrap();
        assert_eq!(sysfs::chain(&tree, "nvme0n1").unwrap(), ["nvme_tcp"]);
    }

    #[test]
    fn what_the_image_cannot_reach_is_refused_by_name() {
        let disk = format!("{CONTROLLER}/nvme0n1");
        for ((_dir, tree), place, words) in [
            (session("bnx2i"), DISK, "reached by the driver `bnx2i`"),
            (controller("rdma", &[]), &disk, "an NVMe disk over rdma"),
            (controller("fc", &[]), &disk, "an NVMe disk over fc"),
            (controller("tcp", &[("dhchap_secret", "DHHC-1:00:x:")]), &disk, "wants a secret (dhchap_secret)"),
            (controller("tcp", &[("address", "")]), &disk, "does not tell"),
            (controller("tcp", &[]), "/sys/devices/virtual/block/nbd0", "nbd0 is a network block device"),
        ] {
            let error = format!("{:#}", found(&tree, place).unwrap_err());
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("DHHC"), "{error}");
        }
        let (_dir, tree) = controller("pcie", &[]);
        assert_eq!(found(&tree, &disk).unwrap(), []);
    }

    proptest::proptest! {
        #[test]
        fn portals_are_read_back(address: IpAddr, port: u16, more in "[a-z_=0-9]{0,12}") {
            let text = format!("traddr={address},trsvcid={port},{more}");
            proptest::prop_assert_eq!(portal(&text).unwrap(), (address, port));
        }

        #[test]
        fn no_text_is_too_odd_for_a_portal(text: String) {
            let _ = portal(&text);
        }
    }
}
