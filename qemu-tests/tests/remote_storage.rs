//! Real crashes to disks of other machines. The guest itself logs in or connects, in its first boot, with the
//! distribution's tools; the image is made there, from what its kernel shows then.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::iscsi_server::{self, IscsiServer};
use qemu_tests::nvme_server::{self, NvmeServer};
use qemu_tests::prelude::*;
use qemu_tests::scenario::CRASH_FOLDER;
use qemu_tests::{disk, folders};

const LUN_LABEL: &str = "on-the-lun";
const LUN_UUID: &str = "6b64756d-7072-7364-8969-736b00000003";

/// The first kernel's network: an address, as an administrator would set it.
const NETWORK: &str = "b=/bin/busybox\nset -e\n$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up\n\
    $b route add default gw 10.0.2.2\n";

/// Waits for the first disk that is there.
const WAIT: &str = "i=0\nwhile [ ! -e $disk ] && [ $i -lt 60 ]; do $b sleep 1; i=$((i+1)); done\n[ -e $disk ]\n";

/// Where a server keeps its files: a disk with an empty ext4.
fn lun(name: &str) -> Result<PathBuf> {
    let place = folders::qemu().join("remote").join(name);
    folders::fresh(&place)?;
    fs::create_dir(place.join("empty"))?;
    let image = place.join("lun.img");
    disk::make_ext4(&image, &place.join("empty"), 640, LUN_LABEL, LUN_UUID)?;
    Ok(image)
}

/// A crash of a guest that runs `script` first, with a dump to the disk that is there then.
fn scenario(name: &str, modules: &[&'static str], packages: &[&'static str], script: &str) -> Result<Scenario> {
    let mut all = vec!["virtio_net"];
    all.extend(modules);
    let stack =
        Stack { modules: all, packages: packages.into(), prepare: vec!["/etc/guest/connect"], ..Stack::default() };
    let cards = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56"];
    Ok(Scenario {
        target: format!("ext4 LABEL={LUN_LABEL}"),
        crashkernel_mib: 160,
        busybox: true,
        files: vec![GuestFile::script("/etc/guest/connect", &format!("{NETWORK}{script}"))],
        qemu: cards.map(str::to_owned).into(),
        stack: Some(stack),
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

/// The one dump on a disk.
fn dump_on(image: &Path) -> Result<PathBuf> {
    let folder = image.with_extension("taken");
    fs::create_dir(&folder)?;
    disk::take_off(image, CRASH_FOLDER, &folder)?;
    let mut dumps = fs::read_dir(folder.join("crash"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(dumps.len() == 1, "these are on the disk: {dumps:?}");
    dumps.pop().context("no dump")
}

fn secrets_of(console: &str) -> Vec<&str> {
    console.lines().filter(|line| line.contains(iscsi_server::SECRET)).collect()
}

/// A crash of a guest that is logged in to `server`, and runs `then` before its image is made.
fn iscsi(name: &str, server: &IscsiServer, then: &str) -> Result<Scenario> {
    let node = format!("iscsiadm -m node -T {} -p 10.0.2.2:{}", iscsi_server::TARGET, server.port);
    let script = format!(
        "$b mkdir -p /run/lock\niscsid -p /run/iscsid.pid < /dev/null > /dev/null 2>&1\n{node} -o new\n\
         {node} -o update -n node.session.auth.authmethod -v CHAP\n\
         {node} -o update -n node.session.auth.username -v {}\n\
         {node} -o update -n node.session.auth.password -v {}\n{node} --login\ndisk=/dev/sda\n{WAIT}{then}",
        iscsi_server::NAME,
        iscsi_server::SECRET
    );
    let mut scenario = scenario(name, &["iscsi_tcp", "sd_mod"], &["open-iscsi"], &script)?;
    let initiator = "InitiatorName=iqn.2026-01.example:guest\n";
    scenario.files.push(GuestFile::text("/etc/iscsi/initiatorname.iscsi", initiator));
    // iscsid serves root alone, and wants to know the name.
    scenario.files.push(GuestFile::text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"));
    scenario.files.push(GuestFile::text("/etc/iscsi/iscsid.conf", "node.startup = manual\n"));
    Ok(scenario)
}

#[test]
fn a_dump_goes_to_an_iscsi_disk_that_wants_a_secret() -> Result<()> {
    let lun = lun("iscsi")?;
    let server = IscsiServer::start(&lun)?;
    let (target, portal) = (iscsi_server::TARGET, format!("10.0.2.2:{}", server.port));
    let scenario = iscsi("iscsi", &server, "")?;
    let outcome = crash(&scenario)?;
    drop(server);
    ensure!(
        outcome.console.contains(&format!("logged in to {target} at {portal}")),
        "no word of the login:\n{}",
        outcome.console
    );
    ensure!(
        secrets_of(&outcome.console).is_empty(),
        "the secret is on the console: {:?}",
        secrets_of(&outcome.console)
    );
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    judge::dump_alone(&dump_on(&lun)?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

/// The volume is put together after the login, and the login is made of what sysfs knows of the session.
#[test]
#[ignore = "a matrix of its own: what else there is about iSCSI"]
fn a_dump_goes_to_a_logical_volume_on_an_iscsi_disk_of_which_there_is_no_record() -> Result<()> {
    let lun = lun("iscsi-lvm")?;
    let server = IscsiServer::start(&lun)?;
    let node = format!("iscsiadm -m node -T {} -p 10.0.2.2:{}", iscsi_server::TARGET, server.port);
    let make = "lvm pvcreate --yes -ff /dev/sda\nlvm vgcreate vg /dev/sda\n\
        lvm lvcreate --yes --wipesignatures n --extents 80%FREE --name crash vg\nmkfs.ext4 -q /dev/vg/crash\n\
        $b rm -r /etc/iscsi/nodes\n";
    let mut scenario = iscsi("iscsi-lvm", &server, make)?;
    scenario.target = "ext4 /dev/vg/crash".into();
    let again = format!(
        "{NETWORK}$b mkdir -p /run/lock\n$b rm -f /run/iscsid.pid\niscsid -p /run/iscsid.pid < /dev/null > /dev/null 2>&1\n{node} -o new\n\
         {node} -o update -n node.session.auth.authmethod -v CHAP\n\
         {node} -o update -n node.session.auth.username -v {}\n\
         {node} -o update -n node.session.auth.password -v {}\n{node} --login\ndisk=/dev/sda\n{WAIT}\
         lvm lvchange --activate y vg/crash\n",
        iscsi_server::NAME,
        iscsi_server::SECRET
    );
    scenario.files.push(GuestFile::script("/etc/guest/again", &again));
    if let Some(stack) = &mut scenario.stack {
        stack.modules.push("dm_mod");
        stack.fetch = vec!["/etc/guest/again", "mount ext4 /dev/vg/crash /mnt"];
    }
    let outcome = crash(&scenario)?;
    drop(server);
    ensure!(
        secrets_of(&outcome.console).is_empty(),
        "the secret is on the console: {:?}",
        secrets_of(&outcome.console)
    );
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

/// The image has the secret of the time when it was made.
#[test]
#[ignore = "a matrix of its own: what else there is about iSCSI"]
fn a_login_that_is_refused_is_told_and_the_failure_action_follows() -> Result<()> {
    let lun = lun("iscsi-refused")?;
    let server = IscsiServer::start(&lun)?;
    let node = format!("iscsiadm -m node -T {} -p 10.0.2.2:{}", iscsi_server::TARGET, server.port);
    let change = format!("{node} -o update -n node.session.auth.password -v another-secret\n");
    let mut scenario = iscsi("iscsi-refused", &server, &change)?;
    scenario.conf = vec!["failure_action poweroff".into()];
    scenario.append = "rd.timeout=30".into();
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    for words in ["cannot log in to the iSCSI target", "authorization failure", "make it anew if they have changed"] {
        ensure!(outcome.console.contains(words), "`{words}` is not on the console:\n{}", outcome.console);
    }
    Ok(())
}

/// Drops the server once the guest crashes; the thread tells whether it did.
fn end_at_crash(scenario: &Scenario, server: impl Send + 'static) -> JoinHandle<bool> {
    let console = scenario.folder().join("console.log");
    std::thread::spawn(move || {
        for _ in 0..3000 {
            if fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("GUEST: crashing now")) {
                drop(server);
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    })
}

/// The server is gone when the capture kernel asks for it.
#[test]
#[ignore = "a matrix of its own: what else there is about iSCSI"]
fn a_portal_that_does_not_answer_is_waited_for_no_longer_than_the_limit() -> Result<()> {
    let lun = lun("iscsi-gone")?;
    let server = IscsiServer::start(&lun)?;
    let mut scenario = iscsi("iscsi-gone", &server, "")?;
    scenario.conf = vec!["failure_action poweroff".into()];
    scenario.append = "rd.timeout=20".into();
    let killer = end_at_crash(&scenario, server);
    let outcome = crash(&scenario)?;
    ensure!(killer.join().is_ok_and(|killed| killed), "the guest never crashed");
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    ensure!(
        outcome.console.contains("cannot log in to the iSCSI target"),
        "no word of the login on the console:\n{}",
        outcome.console
    );
    Ok(())
}

/// A crash of a guest that is connected to the server.
fn nvme(name: &str, server: &NvmeServer) -> Result<Scenario> {
    let script = format!(
        "echo nqn={},transport=tcp,traddr=10.0.2.2,trsvcid={},hostnqn={} > /dev/nvme-fabrics\ndisk=/dev/nvme0n1\n{WAIT}",
        nvme_server::SUBSYSTEM,
        server.port,
        nvme_server::HOST
    );
    scenario(name, &["nvme_tcp"], &[], &script)
}

#[test]
#[ignore = "needs a second guest beside the first, as server"]
fn a_dump_goes_to_an_nvme_disk_over_tcp() -> Result<()> {
    let lun = lun("nvme-tcp")?;
    let server = NvmeServer::start(&kernel(Suite::Own)?, &lun, lun.parent().context("no folder")?)?;
    let scenario = nvme("nvme-tcp", &server)?;
    let outcome = crash(&scenario)?;
    drop(server);
    ensure!(
        outcome.console.contains(&format!("connected to the NVMe subsystem {}", nvme_server::SUBSYSTEM)),
        "no word of the connection:\n{}",
        outcome.console
    );
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    judge::dump_alone(&dump_on(&lun)?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

#[test]
#[ignore = "needs a second guest beside the first, as server"]
fn an_nvme_controller_that_does_not_answer_is_waited_for_no_longer_than_the_limit() -> Result<()> {
    let lun = lun("nvme-gone")?;
    let server = NvmeServer::start(&kernel(Suite::Own)?, &lun, lun.parent().context("no folder")?)?;
    let mut scenario = nvme("nvme-gone", &server)?;
    scenario.conf = vec!["failure_action poweroff".into()];
    scenario.append = "rd.timeout=15".into();
    let killer = end_at_crash(&scenario, server);
    let outcome = crash(&scenario)?;
    ensure!(killer.join().is_ok_and(|killed| killed), "the guest never crashed");
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    ensure!(
        outcome.console.contains("does the capture kernel's network lead there?"),
        "no word of the connection on the console:\n{}",
        outcome.console
    );
    Ok(())
}
