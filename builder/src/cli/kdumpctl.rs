//! `kdumpctl`: what was typed. One line of [`Word`] for each thing that it can be told.

use crate::config::Syscall;
use crate::crashkernel::Crashkernel;
use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Loads, unloads and reports the capture kernel.
#[derive(Clone, Debug, Parser)]
#[command(name = "kdumpctl", version, max_term_width = 100)]
pub struct Kdumpctl {
    /// What to do
    #[command(subcommand)]
    pub word: Word,
    /// The configuration, a native one if its name ends in .toml [default: /etc/kdump/kdump.toml if it is there, else /etc/kdump.conf]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The other configuration [default: /etc/sysconfig/kdump, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub sysconfig: Option<PathBuf>,
    /// Where kdump-init, kdump-capture and kdump-send are [default: beside this program, else /usr/lib/kdump]
    #[arg(long, value_name = "DIR", global = true)]
    pub programs: Option<PathBuf>,
    /// The root of the machine that is meant, for what changes or looks at files alone
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    pub sysroot: PathBuf,
}

/// What kdumpctl is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Word {
    /// Load the capture kernel, building its image if that is missing or too old
    Start {
        /// Load it though one is loaded, in the place of that one, which stays until its successor has been built
        #[arg(long)]
        replace: bool,
        /// How it is loaded
        #[command(flatten)]
        how: Loading,
        /// How it is told
        #[command(flatten)]
        told: Told,
    },
    /// Unload the capture kernel
    Stop(Told),
    /// Unload the capture kernel, then load it as `start` does
    Restart {
        /// How it is loaded
        #[command(flatten)]
        how: Loading,
        /// How it is told
        #[command(flatten)]
        told: Told,
    },
    /// Load the capture kernel anew with the image that is there: no look at the configuration, nothing is built
    Reload {
        /// How it is loaded
        #[command(flatten)]
        how: Loading,
        /// How it is told
        #[command(flatten)]
        told: Told,
    },
    /// Build the image, whether or not it is too old
    Rebuild(Told),
    /// Say whether a capture kernel is loaded: exit 0 if so, 3 if not
    Status {
        /// Say more: what is reserved and loaded, where dumps go, the last dump and test, what is out of date
        #[arg(short, long)]
        verbose: bool,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
    /// Make a dump directory of the dump on a raw target, then clear the target: exit 0 if it did, 3 if there is no dump
    /// on it, 1 if there is one and it could not be saved, or not as a whole. `start` does this first
    Recover {
        /// The device or partition, or a copy of one; makedumpfile's raw streams will do as well [default: what `raw` in
        /// kdump.conf names]
        device: Option<PathBuf>,
        /// The directory of all dumps [default: `path` in kdump.conf]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Say what was done as JSON, as a list if several devices are configured
        #[arg(long)]
        json: bool,
    },
    /// Write what systemd is to know of the configuration before it starts units
    #[command(hide = true)]
    Generator {
        /// Where to, as systemd gives it
        dir: PathBuf,
    },
    /// Tell of the dumps that nobody has been told of, waiting for a network if there is none yet
    #[command(name = "_notify", hide = true)]
    Notify,
    /// Say of every module of the image whether the kernel would accept it, and why not: exit 1 if it would refuse one
    /// that the image cannot do without
    Modules(Told),
    /// Make a key for a target by ssh or sftp, and have the other machine let it in
    Propagate(Told),
    /// Say what takes the place of what RHEL's kdumpctl does to /etc/crypttab
    #[command(hide = true)]
    SetupCrypttab,
    /// Say how much memory is reserved for the capture kernel
    Showmem(Told),
    /// Say how much memory the capture kernel of this machine takes, and what to reserve for it
    Estimate(Told),
    /// Print what `crashkernel=` is by default on this machine
    GetDefaultCrashkernel {
        /// For which way of dumping
        #[arg(value_enum, default_value = "kdump")]
        way: Way,
        /// How it is told
        #[command(flatten)]
        told: Told,
    },
    /// Set `crashkernel=` of the installed kernels to the default, or to a value that is given
    ResetCrashkernel(Reset),
    /// Have the new default of `crashkernel=` take the place of an older one: what a package does after an upgrade
    #[command(name = "_reset-crashkernel-after-update", hide = true)]
    AfterUpdate,
    /// Have a kernel that was just installed reserve memory by default
    #[command(name = "_reset-crashkernel-for-installed_kernel", hide = true)]
    ForKernel {
        /// Its release
        release: String,
    },
    /// Crash this machine for a test of everything, or say how the last test came out
    Test {
        /// Do not ask
        #[arg(long)]
        force: bool,
        /// Crash nothing; say how the last test came out: exit 0 if its dump is complete, 1 if not or if this
        /// machine cannot tell, 3 if there was no test
        #[arg(long, conflicts_with = "force")]
        result: bool,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
    /// Try the capture kernel and its image in a virtual machine, with a small prepared dump; nothing is crashed
    Rehearse(Rehearsal),
    /// Look after the dumps on the disks of this machine
    #[command(subcommand)]
    Dumps(Dumps),
    /// Load a kernel for the next reboot, or boot it at once
    Kexec(Kexec),
    /// What is configured, and whether it can be followed
    Config {
        /// What to do with it
        #[command(subcommand)]
        word: ConfigWord,
    },
}

impl Kdumpctl {
    /// What a shell offers to complete: all but the words that are there for other programs.
    pub fn offered() -> Command {
        let all = Kdumpctl::command();
        let words = all.get_subcommands().filter(|word| !word.is_hide_set()).cloned();
        let whole = Command::new("kdumpctl").version(env!("CARGO_PKG_VERSION"));
        whole.args(all.get_arguments().cloned()).subcommands(words.collect::<Vec<_>>())
    }
}

impl Word {
    /// Whether it is done to the kernel that runs, not to files.
    pub fn is_for_this_machine(&self) -> bool {
        match self {
            Word::Start { .. }
            | Word::Stop(_)
            | Word::Restart { .. }
            | Word::Reload { .. }
            | Word::Kexec(_)
            | Word::Notify
            | Word::Propagate(_) => true,
            Word::Test { result, .. } => !result,
            _ => false,
        }
    }
}

/// How something is told.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Say it as JSON
    #[arg(long)]
    pub json: bool,
}

/// How the capture kernel is loaded.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loading {
    /// The system call that loads it [default: as it was loaded before, else auto]
    #[arg(long, value_enum, value_name = "CALL")]
    pub syscall: Option<Syscall>,
    /// Give back what is reserved beyond the need (KDUMP_AUTO_RESIZE); only a reboot takes that back
    #[arg(long)]
    pub shrink: bool,
}

/// How a crashed kernel's memory is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A capture kernel in reserved memory
    Kdump,
    /// The firmware of POWER machines
    Fadump,
}

/// What `reset-crashkernel` is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The value to set, such as 256M or 1G-64G:256M,64G-:512M; `auto` is made to fit this machine [default: the default of
    /// `get-default-crashkernel`]
    #[arg(value_name = "VALUE", value_parser = crashkernel)]
    pub value: Option<Crashkernel>,
    /// Whose boot entry: the path of a kernel, DEFAULT for the boot loader's default entry, or ALL [default: all that are
    /// installed; where grubby is, that of KDUMP_KERNELVER, else of the kernel that runs]
    #[arg(long, value_name = "PATH|ALL|DEFAULT")]
    pub kernel: Option<String>,
    /// Of POWER machines alone: on, off or nocma
    #[arg(long, value_name = "HOW")]
    pub fadump: Option<String>,
    /// Reboot afterwards, if anything was changed
    #[arg(long)]
    pub reboot: bool,
    /// Show what would be changed; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How it is told
    #[command(flatten)]
    pub how: Told,
}

/// With the whole chain of the error: its end says what to write instead.
fn crashkernel(text: &str) -> Result<Crashkernel, String> {
    text.parse().map_err(|error: anyhow::Error| format!("{error:#}"))
}

/// What is done with dumps.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Dumps {
    /// List them, newest first
    List {
        /// Where they are
        #[command(flatten)]
        which: Place,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
    /// Show what is known of one
    Show {
        /// Its directory, or the name of that [default: the newest]
        dump: Option<PathBuf>,
        /// Where they are
        #[command(flatten)]
        which: Place,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
    /// Hold dumps against the sha256 in their status.json and have the collector look at every page: exit 0 if all are sound
    Verify {
        /// Their directories, or the names of those [default: all]
        dumps: Vec<PathBuf>,
        /// Where they are
        #[command(flatten)]
        which: Place,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
    /// Remove old dumps of ours, never the newest complete one of a machine
    Prune {
        /// How many stay of each machine [default: KDUMP_KEEP_OLD_DUMPS, KDUMP_NUM_DUMPS or what kdump.toml says]
        #[arg(long, value_name = "NUMBER")]
        keep: Option<NonZeroU32>,
        /// Say what would be removed; remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Where they are
        #[command(flatten)]
        which: Place,
        /// How it is told
        #[command(flatten)]
        how: Told,
    },
}

/// Where dumps are looked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The directory of all dumps [default: those that are configured, as far as they are mounted]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What `kexec` is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(group = clap::ArgGroup::new("command_line").multiple(true))]
pub struct Kexec {
    /// Boot what is loaded at once: file systems are synced, nothing is shut down. Without it, `systemctl kexec` or a
    /// reboot of the system boots it
    #[arg(long)]
    pub now: bool,
    /// The kernel, with a command line for it [default: that of the running release]
    #[arg(long, value_name = "FILE", requires = "command_line")]
    pub kernel: Option<PathBuf>,
    /// Its initramfs, with a command line for it [default: that of the running release]
    #[arg(long, value_name = "FILE", requires = "command_line")]
    pub initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, value_name = "LINE", group = "command_line", required_unless_present_any = ["reuse_cmdline", "now", "unload"])]
    pub append: Option<String>,
    /// Take the running kernel's command line; --append goes behind it
    #[arg(long, group = "command_line")]
    pub reuse_cmdline: bool,
    /// Take back what was loaded
    #[arg(long, conflicts_with_all = ["now", "append", "reuse_cmdline", "kernel", "initrd"])]
    pub unload: bool,
    /// The system call that loads it
    #[arg(long, value_enum, value_name = "CALL", default_value = "auto")]
    pub syscall: Syscall,
    /// How it is told
    #[command(flatten)]
    pub told: Told,
}

/// What runs a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM, and emulation where that is not
    Auto,
    /// KVM
    Kvm,
    /// Emulation, which takes some ten times as long
    Tcg,
}

/// What `rehearse` is told.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The kernel [default: the capture kernel]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The image [default: that of the capture kernel]
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// MiB of memory that the virtual machine has [default: what is reserved here]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Seconds after which it is given up
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    pub limit: u64,
    /// What runs the virtual machine
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pub accel: Accel,
    /// Further words of the kernel command line
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// A further word of QEMU's command line; may be given several times
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub qemu: Vec<String>,
    /// Keep the virtual machine's console and disk in this directory, which is made
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// How it is told
    #[command(flatten)]
    pub how: Told,
}

/// What is done with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigWord {
    /// Tell everything that is wrong with the files, each with its line and what to write instead: exit 0 if all can be
    /// followed, 1 if not
    Check {
        /// Say it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every value and where it was written
    Show {
        /// Show it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a kdump.toml that asks for the same
    Convert {
        /// The file [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// The directory that gets a file, for root alone, for each password; without it there must be none
        #[arg(long, value_name = "DIR")]
        secrets: Option<PathBuf>,
        /// Overwrite files that are already there
        #[arg(short, long)]
        force: bool,
    },
}
