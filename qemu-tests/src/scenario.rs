//! What is to be tried: one crash, described by the few things in which it differs from the ordinary one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::console::Echo;
use crate::emulation;
use crate::folders;
use crate::provision::{Codec, Kernel};
use crate::stack::Stack;
use crate::tools;

/// The label of the guest's disk.
pub const LABEL: &str = "guest-disk";
/// The UUID of the guest's disk.
pub const UUID: &str = "6b64756d-7072-7364-8969-736b00000001";
/// Where the guest's kdump.conf puts dumps.
pub const CRASH_FOLDER: &str = "/var/crash";
/// Where the tests' own collectors are, in guest and image.
pub(crate) const COLLECTORS: &str = "/usr/libexec";
/// The serial number of the disk to which the source is copied.
pub(crate) const RAW_SERIAL: &str = "raw";

/// Levels of page tables, which the processor model decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageTables {
    /// A processor without 5-level page tables.
    Four,
    /// The newest processor QEMU can be.
    Five,
}

/// What the first kernel's memory is filled with before it crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Some of each kind that a level can leave out.
    Ordinary,
    /// Next to nothing.
    Little,
    /// All that `page-kinds` can make, with pages in a balloon and, where the machine has them, huge pages of 1 GiB.
    EveryKind {
        /// What the balloon takes of the guest's memory.
        balloon_mib: u32,
        /// Huge pages of 1 GiB.
        gigantic: u32,
    },
}

const PAGES_PER_MIB: u64 = 256;

impl Filling {
    /// The words by which `guest-init` knows it.
    pub(crate) fn words(self) -> String {
        match self {
            Filling::Ordinary => "guest.load=16 guest.huge=8".into(),
            // In a small machine, a kernel at a random place may leave no room for another.
            Filling::Little => "guest.load=1 guest.huge=0 nokaslr".into(),
            // Free huge pages go back to Linux' own struct pages where the kernel can share those of tails.
            Filling::EveryKind { balloon_mib, gigantic } => format!(
                "guest.kinds=every guest.gigantic={gigantic} guest.balloon={} hugetlb_free_vmemmap=on \
                 hugepagesz=1G hugepages={gigantic} hugepagesz=2M default_hugepagesz=2M",
                u64::from(balloon_mib) * PAGES_PER_MIB,
            ),
        }
    }

    pub(crate) fn has_balloon(self) -> bool {
        matches!(self, Filling::EveryKind { .. })
    }
}

/// A file of the guest.
#[derive(Clone, Debug)]
pub struct GuestFile {
    /// Where it is, from `/` on.
    pub path: String,
    /// What is in it, or what it is a link to.
    pub content: Content,
}

/// What a file of the guest is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A text that is read.
    Text(String),
    /// A script that is run.
    Script(String),
    /// A symbolic link.
    Link(String),
    /// Bytes that are read.
    Bytes(Vec<u8>),
    /// What is at that place here, with all that is below.
    Copy(PathBuf),
}

impl GuestFile {
    /// A text.
    pub fn text(path: &str, text: &str) -> GuestFile {
        GuestFile { path: path.into(), content: Content::Text(text.into()) }
    }

    /// A script for busybox's shell.
    pub fn script(path: &str, lines: &str) -> GuestFile {
        GuestFile { path: path.into(), content: Content::Script(format!("#!/bin/busybox sh\n{lines}\n")) }
    }

    /// A symbolic link.
    pub fn link(path: &str, to: &str) -> GuestFile {
        GuestFile { path: path.into(), content: Content::Link(to.into()) }
    }

    /// What a host with one virtio disk shows of it, so that an image gets its drivers and no others.
    pub fn virtio_disk() -> Vec<GuestFile> {
        let virtio = "/sys/devices/pci0000:00/0000:00:02.0/virtio0";
        vec![
            GuestFile::text("/dev/vda", ""),
            GuestFile::link(&format!("/dev/disk/by-label/{LABEL}"), "../../vda"),
            GuestFile::link("/sys/class/block/vda", &format!("{virtio}/block/vda")),
            GuestFile::text(&format!("{virtio}/block/vda/dev"), "254:0\n"),
            GuestFile::text(&format!("{virtio}/modalias"), "virtio:d00000002v00001AF4\n"),
            GuestFile::text(
                &format!("{virtio}/../modalias"),
                "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00\n",
            ),
        ]
    }

    /// What a host with one virtio network card, eth0, shows of it.
    pub fn virtio_card() -> Vec<GuestFile> {
        let virtio = "/sys/devices/pci0000:00/0000:00:03.0/virtio1";
        vec![
            GuestFile::link("/sys/class/net/eth0", &format!("{virtio}/net/eth0")),
            GuestFile::link(&format!("{virtio}/net/eth0/device"), virtio),
            GuestFile::text(&format!("{virtio}/modalias"), "virtio:d00000001v00001AF4\n"),
            GuestFile::text(
                &format!("{virtio}/../modalias"),
                "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n",
            ),
        ]
    }

    /// Makes it below `tree`.
    pub(crate) fn make(&self, tree: &Path) -> Result<()> {
        let place = tree.join(self.path.trim_start_matches('/'));
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        let mode = match &self.content {
            Content::Link(to) => return Ok(std::os::unix::fs::symlink(to, &place)?),
            Content::Copy(from) => {
                return tools::run(tools::command("cp").arg("-a").arg("--no-target-directory").arg(from).arg(&place))
                    .map(drop);
            }
            Content::Bytes(bytes) => fs::write(&place, bytes).map(|()| 0o644)?,
            Content::Text(text) => fs::write(&place, text).map(|()| 0o644)?,
            Content::Script(text) => fs::write(&place, text).map(|()| 0o755)?,
        };
        Ok(fs::set_permissions(&place, fs::Permissions::from_mode(mode))?)
    }
}

/// One crash. Start from [`Scenario::of`] and say what is different.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The run's name, and its folder's.
    pub name: String,
    /// The kernel that crashes, and captures.
    pub kernel: Kernel,
    /// Chooses the processor.
    pub page_tables: PageTables,
    /// The guest's memory.
    pub memory_mib: u32,
    /// What is reserved of it.
    pub crashkernel_mib: u32,
    /// The text of kdump.toml, but for path and collector, in the place of kdump.conf.
    pub native: Option<String>,
    /// The target line of kdump.conf.
    pub target: String,
    /// SUSE's word for target and path, in place of those of kdump.conf.
    pub savedir: Option<String>,
    /// The collector's dump level.
    pub level: u8,
    /// The collector's codec.
    pub codec: Codec,
    /// A program and its arguments instead of our collector.
    pub other_collector: Option<String>,
    /// Further lines of kdump.conf.
    pub conf: Vec<String>,
    /// Further lines of /etc/sysconfig/kdump.
    pub sysconfig: Vec<String>,
    /// `nr_cpus=` of the capture kernel.
    pub capture_cpus: u32,
    /// Further words of the capture kernel's command line.
    pub append: String,
    /// Files that are laid over the finished capture image: their names in it, and what is in them.
    pub overlay: Vec<(String, Vec<u8>)>,
    /// What is appended to the capture kernel's command line is what is when nobody configures it; `append` comes before.
    pub default_command_line: bool,
    /// Further files of the guest, that mkdumprd sees as well.
    pub files: Vec<GuestFile>,
    /// busybox on the guest's disk.
    pub busybox: bool,
    /// What is typed on the console after the panic, each when the words before it have been printed.
    pub dialogue: Vec<(&'static str, &'static str)>,
    /// How the image is packed, if not as mkdumprd thinks best.
    pub packing: Option<&'static str>,
    /// Further devices of the machine.
    pub devices: Vec<String>,
    /// Further words of QEMU's command line.
    pub qemu: Vec<String>,
    /// What the first kernel's memory is filled with.
    pub filling: Filling,
    /// A target that the guest puts together itself.
    pub stack: Option<Stack>,
    /// Keep the whole source too.
    pub keep_raw: bool,
    /// Further words of `kdumpctl start` in the guest.
    pub start: &'static str,
    /// `kdumpctl test --force` crashes the guest.
    pub by_test: bool,
    /// Who sees the console.
    pub echo: Echo,
}

impl Scenario {
    /// The ordinary crash of a kernel: a guest of 512 MiB with 128 MiB reserved, a dump at level 31 with zstd to the
    /// disk known by its label, and a reboot.
    pub fn of(kernel: Kernel, name: &str) -> Scenario {
        Scenario {
            name: name.into(),
            kernel,
            page_tables: PageTables::Five,
            memory_mib: 512,
            crashkernel_mib: 128,
            native: None,
            target: format!("ext4 LABEL={LABEL}"),
            savedir: None,
            level: 31,
            codec: Codec::Zstd,
            other_collector: None,
            conf: Vec::new(),
            sysconfig: Vec::new(),
            capture_cpus: 1,
            append: String::new(),
            overlay: Vec::new(),
            default_command_line: false,
            files: Vec::new(),
            busybox: false,
            dialogue: Vec::new(),
            packing: None,
            devices: Vec::new(),
            qemu: Vec::new(),
            filling: Filling::Ordinary,
            stack: None,
            keep_raw: false,
            start: "",
            by_test: false,
            echo: Echo::Silent,
        }
    }

    /// Where everything of this run is kept.
    pub fn folder(&self) -> PathBuf {
        folders::qemu().join("runs").join(&self.name)
    }

    /// The text of /etc/kdump.conf.
    pub(crate) fn kdump_conf(&self) -> String {
        let collector = self.other_collector.clone().unwrap_or_else(|| self.collector());
        let mut lines = match self.savedir {
            Some(_) => Vec::new(),
            None => vec![self.target.clone(), format!("path {CRASH_FOLDER}")],
        };
        lines.push(format!("core_collector {collector}"));
        lines.extend(self.conf.iter().cloned());
        lines.join("\n") + "\n"
    }

    /// The text of /etc/kdump/kdump.toml, if the guest has one.
    pub(crate) fn kdump_toml(&self) -> Option<String> {
        let collector = self.other_collector.clone().unwrap_or_else(|| self.collector());
        let native = self.native.as_ref()?;
        Some(format!("path = \"{CRASH_FOLDER}\"\ncollector = \"{collector}\"\n{native}"))
    }

    fn collector(&self) -> String {
        let keep = if self.keep_raw { format!("{COLLECTORS}/keep-raw {RAW_SERIAL} ") } else { String::new() };
        let codec = self.codec.option().unwrap_or_default();
        format!("{keep}kdump-capture {codec} -d {}", self.level)
    }

    /// The text of /etc/sysconfig/kdump.
    pub(crate) fn sysconfig_text(&self) -> String {
        self.command_line() + &self.sysconfig.iter().map(|line| format!("{line}\n")).collect::<String>()
    }

    fn command_line(&self) -> String {
        if self.default_command_line {
            let words = format!("console=ttyS0 loglevel=5 {} {}", emulation::KERNEL_WORDS, self.append);
            return format!("KDUMP_COMMANDLINE=\"{}\"\n", words.trim());
        }
        let words = format!("irqpoll nr_cpus={} reset_devices console=ttyS0 {}", self.capture_cpus, self.append);
        let savedir = self.savedir.as_ref().map_or(String::new(), |savedir| format!("KDUMP_SAVEDIR=\"{savedir}\"\n"));
        format!("{savedir}KDUMP_COMMANDLINE_APPEND=\"{}\"\n", words.trim())
    }
}
