//! The same init boots a system: a small Debian comes up to multi-user.target, and what goes wrong is said.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use qemu_tests::folders;
use qemu_tests::nfs_server::NfsServer;
use qemu_tests::normal::{NormalBoot, OWN_INIT_PATH, Outcome, Place, Then, boot};
use qemu_tests::prelude::*;

#[test]
fn debian_comes_up_and_a_capture_kernel_that_was_loaded_early_saves_its_crash() -> Result<()> {
    let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, "normal-boot") };
    let append =
        format!("root=LABEL={LABEL} ro rd.earlykdump crashkernel=128M panic=-1 loglevel=5 systemd.show_status=1");
    let options = vec!["--early-kdump".into(), "--sysctl".into()];
    let outcome = boot(&NormalBoot { scenario, place: Place::Disk, options, append, then: Then::Crash })?;
    outcome.booted_after.context("multi-user.target was not reached")?;
    ensure!(outcome.said("pid1")? == "systemd", "PID 1 is {}", outcome.said("pid1")?);
    ensure!(
        outcome.said("root")?.starts_with("ext4") && outcome.said("root")?.contains("rw,"),
        "the root is {}",
        outcome.said("root")?
    );
    ensure!(outcome.said("swappiness")? == "37", "the image's sysctl.conf was not applied");
    // The files of an initramfs are in memory that cannot be swapped; what is left is not the image's 25 MB.
    let unevictable: u64 = outcome.said("unevictable")?.parse()?;
    ensure!(unevictable < 8 * 1024, "the image's files still take {unevictable} kB");
    let mounts: Vec<&str> = outcome.said("mounts")?.split(' ').collect();
    ensure!(["/", "/dev", "/proc", "/run", "/sys"].iter().all(|point| mounts.contains(point)), "mounts: {mounts:?}");
    ensure!(!mounts.iter().any(|point| point.starts_with("/sysroot")), "mounts: {mounts:?}");
    ensure!(outcome.said("failed")?.is_empty(), "units failed: {}", outcome.said("failed")?);
    ensure!(outcome.said("loaded")? == "1", "rd.earlykdump loaded nothing");
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    let dump = outcome.dump.context("the crash left no dump")?;
    ensure!(dump.join("vmcore").exists() && dump.join("vmcore-dmesg.txt").exists(), "the dump is not whole");
    qemu_tests::status::Status::read(&dump.join("status.json"))?.expect_outcome("complete")
}

/// A key file's text, and the volume that it opens.
const KEY: &str = "a key that only the image knows";
/// What mdadm's own service wants to have; it starts by itself when there is an array.
const MONITOR: (&str, &str) = ("/etc/mdadm/mdadm.conf", "MAILADDR root\n");
const ROOT_UUID: &str = "6b64756d-7072-7364-8969-736b0000000d";

const MD: &str =
    "mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean /dev/vdb /dev/vdc";

/// A disk for each half of the system.
fn spares(count: usize) -> Vec<Spare> {
    ["first", "second"].into_iter().take(count).map(|name| Spare { mib: 1400, bus: Bus::Virtio, name }).collect()
}

/// LVM on LUKS on a mirror, and a `/usr` of its own: all that a root may be put together from, in one boot.
#[test]
fn debian_comes_up_from_lvm_on_luks_on_a_mirror_and_its_early_capture_kernel_works() -> Result<()> {
    let stack = Stack {
        modules: vec!["raid1", "dm_crypt", "xts", "algif_skcipher"],
        disks: spares(2),
        files: vec![
            ("/root/key", KEY),
            MONITOR,
            ("/etc/crypttab", "secret UUID=6b64756d-7072-7364-8969-736b0000000c /root/key luks\n"),
            ("/etc/fstab", "/dev/mapper/vg-root / ext4 defaults 0 1\n/dev/mapper/vg-usr /usr ext4 nodev 0 2\n"),
        ],
        prepare: vec![
            MD,
            "cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --uuid 6b64756d-7072-7364-8969-736b0000000c --key-file /root/key /dev/md0",
            "cryptsetup open --key-file /root/key /dev/md0 secret",
            "lvm pvcreate /dev/mapper/secret",
            "lvm vgcreate vg /dev/mapper/secret",
            "lvm lvcreate --yes --wipesignatures n --size 500m --name root vg",
            "lvm lvcreate --yes --wipesignatures n --size 700m --name usr vg",
            "mkfs.ext4 -q -U 6b64756d-7072-7364-8969-736b0000000d /dev/vg/root",
            "mkfs.ext4 -q /dev/vg/usr",
            "mount ext4 /dev/vg/root /mnt",
            "mount ext4 /dev/vg/usr /mnt/usr",
            "sh /root/install",
        ],
        fetch: Vec::new(),
        ..Stack::default()
    };
    let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, "normal-stack") };
    let append = "root=/dev/mapper/vg-root ro rd.earlykdump crashkernel=128M panic=-1 loglevel=5 systemd.show_status=1";
    let outcome = boot(&NormalBoot {
        scenario,
        place: Place::Stack(stack),
        options: vec!["--early-kdump".into()],
        append: append.into(),
        then: Then::Crash,
    })?;
    is_up(&outcome)?;
    ensure!(outcome.said("usr")?.contains("vg-usr") && outcome.said("usr")?.contains("rw,nodev"), "the wrong /usr");
    // As udev would have it: the system knows of the volumes that the image put together.
    ensure!(outcome.said("links")?.contains(ROOT_UUID), "the root has no link: {}", outcome.said("links")?);
    ensure!(outcome.said("loaded")? == "1", "rd.earlykdump loaded nothing");
    let dump = outcome.dump.as_ref().context("the crash left no dump")?;
    qemu_tests::status::Status::read(&dump.join("status.json"))?.expect_outcome("complete")
}

/// Each layer alone, each by another way to name it.
#[test]
#[ignore = "three more systems are put together and booted"]
fn debian_comes_up_from_each_layer_alone() -> Result<()> {
    let crypttab = ("/etc/crypttab", "secret UUID=6b64756d-7072-7364-8969-736b0000000c /root/key luks\n");
    let on = |root: &'static str, file: &'static str, prepare: Vec<&'static str>| {
        let mut prepare = prepare;
        prepare.extend(["sh /root/install"]);
        let files = vec![("/root/key", KEY), MONITOR, crypttab, ("/etc/fstab", file)];
        (root, files, prepare)
    };
    let lvm = on(
        "/dev/vg/root",
        "/dev/vg/root / ext4 defaults 0 1\n",
        vec![
            "lvm pvcreate /dev/vdb /dev/vdc",
            "lvm vgcreate vg /dev/vdb /dev/vdc",
            "lvm lvcreate --yes --wipesignatures n --extents 90%FREE --name root vg",
            "mkfs.ext4 -q /dev/vg/root",
            "mount ext4 /dev/vg/root /mnt",
        ],
    );
    let md =
        on("/dev/md0", "/dev/md0 / ext4 defaults 0 1\n", vec![MD, "mkfs.ext4 -q /dev/md0", "mount ext4 /dev/md0 /mnt"]);
    let luks = on(
        "UUID=6b64756d-7072-7364-8969-736b0000000d",
        "/dev/mapper/secret / ext4 defaults 0 1\n",
        vec![
            "cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --uuid 6b64756d-7072-7364-8969-736b0000000c --key-file /root/key /dev/vdb",
            "cryptsetup open --key-file /root/key /dev/vdb secret",
            "mkfs.ext4 -q -U 6b64756d-7072-7364-8969-736b0000000d /dev/mapper/secret",
            "mount ext4 /dev/mapper/secret /mnt",
        ],
    );
    for ((root, mut files, prepare), name) in [(lvm, "normal-lvm"), (md, "normal-md"), (luks, "normal-luks")] {
        if name != "normal-luks" {
            files.retain(|(path, _)| *path != "/etc/crypttab");
        }
        let modules = vec!["raid1", "dm_crypt", "xts", "algif_skcipher"];
        let place = Place::Stack(Stack { modules, disks: spares(2), files, prepare, ..Stack::default() });
        let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, name) };
        let append = format!("root={root} ro loglevel=5 systemd.show_status=1");
        let outcome = boot(&NormalBoot { scenario, place, options: Vec::new(), append, then: Then::PowerOff })?;
        is_up(&outcome).with_context(|| format!("the root {root}"))?;
    }
    Ok(())
}

/// The system is up, from a writable root, and nothing of it failed.
fn is_up(outcome: &Outcome) -> Result<()> {
    outcome.booted_after.context("multi-user.target was not reached")?;
    ensure!(outcome.said("pid1")? == "systemd", "PID 1 is {}", outcome.said("pid1")?);
    ensure!(outcome.said("root")?.contains("rw,"), "the root is {}", outcome.said("root")?);
    ensure!(outcome.said("failed")?.is_empty(), "units failed: {}", outcome.said("failed")?);
    Ok(())
}

/// Where a server keeps its files; the run's own folder is cleared by the run.
fn serve(name: &str) -> Result<NfsServer> {
    let place = folders::qemu().join("nfs").join(name);
    folders::fresh(&place)?;
    NfsServer::start(&place, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn one_card() -> Vec<String> {
    ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"].map(str::to_owned).into()
}

#[test]
fn debian_comes_up_from_a_root_on_a_server() -> Result<()> {
    let server = serve("root")?;
    let scenario = Scenario { memory_mib: 768, qemu: one_card(), ..Scenario::of(kernel(Suite::Own)?, "normal-nfs") };
    let append = format!("root=nfs:10.0.2.2:/export:port={} rw loglevel=5 systemd.show_status=1", server.port);
    let options = vec!["--network".into()];
    let place = Place::Export(server.folder.clone());
    let outcome = boot(&NormalBoot { scenario, place, options, append, then: Then::PowerOff })?;
    is_up(&outcome)?;
    ensure!(outcome.said("root")?.starts_with("nfs4"), "the root is {}", outcome.said("root")?);
    Ok(())
}

/// The kernel's own words for it, and a fixed address.
#[test]
#[ignore = "another way to write a root on a server"]
fn a_root_on_a_server_is_known_by_the_kernel_s_words() -> Result<()> {
    let server = serve("root-words")?;
    let scenario = Scenario { qemu: one_card(), ..Scenario::of(kernel(Suite::Own)?, "normal-nfsroot") };
    let append = format!(
        "root=/dev/nfs nfsroot=/export,port={},vers=4.2 ip=10.0.2.15:10.0.2.2:10.0.2.2:255.255.255.0::eth0:none ro \
         loglevel=5 init={OWN_INIT_PATH} -- one",
        server.port
    );
    let options = vec!["--network".into()];
    let place = Place::Export(server.folder.clone());
    let outcome = boot(&NormalBoot { scenario, place, options, append, then: Then::PowerOff })?;
    ensure!(outcome.said("arguments")? == "one", "its arguments are {}", outcome.said("arguments")?);
    let root = outcome.said("root")?;
    ensure!(root.starts_with("nfs4") && root.contains("ro,"), "the root is {root}");
    Ok(())
}

#[test]
fn an_init_of_another_make_gets_its_arguments_and_a_writable_root() -> Result<()> {
    let scenario = Scenario::of(kernel(Suite::Own)?, "own-init");
    let append = format!(
        "root=/dev/nowhere root=PARTUUID=6b64756d-02/PARTNROFF=-1 rw rootwait rootfstype=xfs,ext4 rootflags=noatime \
         resume=/dev/vdz rd.break loglevel=5 init={OWN_INIT_PATH} -- one two"
    );
    let place = Place::Partition(0x6b64_756d);
    let outcome = boot(&NormalBoot { scenario, place, options: Vec::new(), append, then: Then::PowerOff })?;
    let says = |words: &[&str]| outcome.console.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(says(&["rd.break is asked for", "no shell", "mkdumprd --normal --shell"]), "rd.break was passed over");
    ensure!(says(&["resume=/dev/vdz is not followed"]), "resume= was passed over");
    ensure!(outcome.said("pid")? == "1", "it is process {}", outcome.said("pid")?);
    ensure!(outcome.said("arguments")? == "one two", "its arguments are {}", outcome.said("arguments")?);
    let root = outcome.said("root")?;
    ensure!(root.starts_with("ext4") && root.contains("rw,noatime"), "the root is {root}");
    ensure!(outcome.said("proc")? == "own-init", "/proc is not where it should be");
    ensure!(outcome.ending == Ending::PowerOff, "the ending was {:?}", outcome.ending);
    Ok(())
}

/// Somebody breaks the boot before the root is looked for, leaves the shell, and is given another one when the root is
/// not there.
#[test]
fn a_root_that_is_not_there_is_named_and_shells_are_served_where_they_are_asked_for() -> Result<()> {
    const MISSING: &str = "00000000-0000-4000-8000-00000000dead";
    let dialogue = vec![
        ("goes on with the boot", "ls -d /sysroot; tty; echo broken-$((40+2))\n"),
        ("broken-42", "sleep 3; exit\n"),
        ("`exit` goes on to the failure action", "echo looked-$((40+3))\n"),
        ("looked-43", "sleep 3; exit\n"),
    ];
    let scenario = Scenario { busybox: true, dialogue, ..Scenario::of(kernel(Suite::Own)?, "missing-root") };
    let append =
        format!("root=UUID={MISSING} rd.timeout=8 rd.emergency=poweroff rd.break=pre-mount rd.shell loglevel=5");
    let options = vec!["--shell".into()];
    let outcome = boot(&NormalBoot { scenario, place: Place::Disk, options, append, then: Then::PowerOff })?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let says = |words: &[&str]| outcome.console.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(
        says(&["THE SYSTEM CANNOT BE BOOTED", MISSING, "did not appear within 8 s", LABEL, "failure action: shell"]),
        "the console does not give the reason:\n{}",
        outcome.console
    );
    ensure!(says(&["waiting for", MISSING]), "nothing said what the boot was waiting for");
    ensure!(outcome.booted_after.is_none(), "it booted all the same");
    Ok(())
}
