//! `mkdumprd`: what was typed.

use crate::cpio::write::Packing;
use crate::report::bytes;
use clap::{ArgAction, Parser};
use std::path::PathBuf;

/// Builds the image that saves a dump when the kernel has crashed, or with --normal one that boots the system.
#[derive(Clone, Debug, Parser)]
#[command(name = "mkdumprd", version, max_term_width = 100)]
pub struct Mkdumprd {
    /// The kernel that the image is for [default: KDUMP_KERNELVER, else the running one]
    #[arg(short, long, value_name = "RELEASE")]
    pub kver: Option<String>,
    /// The root of the machine that the image is for
    #[arg(short = 'r', long, value_name = "DIR", default_value = "/")]
    pub sysroot: PathBuf,
    /// Where that kernel's modules are [default: lib/modules/RELEASE below the sysroot]
    #[arg(long, alias = "kmoddir", value_name = "DIR")]
    pub modules_dir: Option<PathBuf>,
    /// The configuration, a native one if its name ends in .toml [default: etc/kdump/kdump.toml below the sysroot if it is there, else etc/kdump.conf]
    #[arg(short, long, alias = "conf", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The other configuration [default: etc/sysconfig/kdump below the sysroot, if it is there]
    #[arg(long, value_name = "FILE")]
    pub sysconfig: Option<PathBuf>,
    /// Where kdump-init, kdump-capture and kdump-send are [default: beside this program, else /usr/lib/kdump]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// How the image is compressed; zstd if not given and the kernel can unpack it. Modules stay as the distribution packed them in any case
    #[arg(long, value_enum, value_name = "HOW")]
    pub compress: Option<Packing>,
    /// An image that boots this system, not one for the capture kernel; kdump.conf does not count then, but dracut.conf
    /// and the lists of modules of initramfs-tools do
    #[arg(long)]
    pub normal: bool,
    /// With --normal: the drivers of most machines, not of this one alone
    #[arg(long, requires = "normal")]
    pub generic: bool,
    /// With --normal: bring the capture kernel and its image along, to be loaded when the kernel command line has
    /// rd.earlykdump; build this image again after a change of theirs
    #[arg(long, requires = "normal")]
    pub early_kdump: bool,
    /// With --normal: bring sysctl.conf and sysctl.d along; they are applied before the root is looked for
    #[arg(long, requires = "normal")]
    pub sysctl: bool,
    /// With --normal: bring a network and NFS along, for root=nfs:SERVER:/DIR; a root that is on a server now brings them
    /// by itself
    #[arg(long, requires = "normal")]
    pub network: bool,
    /// With --normal: bring the processor's microcode along, or with --generic that of all; the kernel takes it before all else
    #[arg(long, requires = "normal")]
    pub early_microcode: bool,
    /// With --normal: bring a shell along, for rd.break and rd.shell on the kernel command line
    #[arg(long, requires = "normal")]
    pub shell: bool,
    /// With --normal: bring keys, certificates and policy of IMA and EVM along, from the places that /etc/sysconfig/ima,
    /// evm and masterkey name; they are at work before the system's first program runs
    #[arg(long, requires = "normal")]
    pub integrity: bool,
    /// With --normal: bring the certificates in /etc/keys/modsign along, by which modules are trusted
    #[arg(long, requires = "normal")]
    pub modsign: bool,
    /// With --normal: bring the installed live patches along and load them before the drivers; `kpatch install` and
    /// `kpatch uninstall` keep those of images below /boot up to date
    #[arg(long, requires = "normal")]
    pub livepatch: bool,
    /// Say what would be in the image and why, what memory the capture kernel would take, and all that is in the way;
    /// write nothing
    #[arg(long)]
    pub plan: bool,
    /// With --plan: as JSON
    #[arg(long, requires = "plan")]
    pub json: bool,
    /// Fail if the image is larger, in bytes, or with K, M, G (powers of two) or KB, MB, GB (powers of ten)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub max_size: Option<u64>,
    /// Fail if more would have to be reserved for the capture kernel
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub max_memory: Option<u64>,
    /// Modules that must be in the image, and their dependencies
    #[arg(long, value_name = "MODULES", value_delimiter = ' ')]
    pub add_drivers: Vec<String>,
    /// Modules that stay out of the image, and what cannot do without them
    #[arg(long, value_name = "MODULES", value_delimiter = ' ')]
    pub omit_drivers: Vec<String>,
    /// Programs and files that must be in the image, with what they need
    #[arg(short = 'I', long, value_name = "FILES", value_delimiter = ' ')]
    pub install: Vec<String>,
    /// A file or directory that is elsewhere in the image
    #[arg(short, long, num_args = 2, value_names = ["FILE", "PLACE"], action = ArgAction::Append)]
    pub include: Vec<PathBuf>,
    /// Bring the drivers of most machines along as well, those of network cards if dumps leave the machine
    #[arg(short = 'N', long)]
    pub no_hostonly: bool,
    /// Build for drivers that have none of their firmware: the devices do without. A machine that runs this kernel shows
    /// so itself
    #[arg(long)]
    pub allow_missing_firmware: bool,
    /// Overwrite an image that is already there
    #[arg(short, long)]
    pub force: bool,
    /// Say what goes into the image and why
    #[arg(short, long)]
    pub verbose: bool,
    /// The image, for those who write it in front; what stands behind is the kernel then
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// The image
    #[arg(required_unless_present_any = ["plan", "to"])]
    pub output: Option<PathBuf>,
    /// The kernel, for those who write it behind
    #[arg(value_name = "RELEASE")]
    pub release: Option<String>,
    /// dracut's options, which are not defined here.
    #[arg(skip)]
    pub dracut: Vec<String>,
}
