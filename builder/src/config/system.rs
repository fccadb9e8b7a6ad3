//! What is known of the capture kernel, and what SUSE's and Debian's variables say besides.

use super::Given;
use clap::ValueEnum;
use kdump_hooks::net::NetConfig;
use kdump_init::config::Ending;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// What `/etc/sysconfig/kdump` asks for, or another dialect in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysconfig {
    /// Debian's `USE_KDUMP`: `false` where no capture kernel is to be loaded.
    pub enabled: Option<Given<bool>>,
    /// `KDUMP_KERNELVER`: the capture kernel, if not the running one.
    pub kernelver: Option<Given<String>>,
    /// Debian's `KDUMP_KERNEL`, or a path in SUSE's `KDUMP_KERNELVER`: the file of that kernel.
    pub kernel_file: Option<Given<PathBuf>>,
    /// Debian's `KDUMP_INITRD`: the file of its image.
    pub image_file: Option<Given<PathBuf>>,
    /// `KDUMP_COMMANDLINE`: in place of the running kernel's command line.
    pub commandline: Option<Given<String>>,
    /// `KDUMP_COMMANDLINE_REMOVE`: options left out of it.
    pub remove: Option<Given<String>>,
    /// `KDUMP_COMMANDLINE_APPEND`: all options put behind it.
    pub append: Option<Given<String>>,
    /// `KDUMP_BOOTDIR`: where the kernel is.
    pub bootdir: Option<Given<PathBuf>>,
    /// `KDUMP_IMG`: the first part of the kernel's file name.
    pub img: Option<Given<String>>,
    /// `KDUMP_IMG_EXT`: the last part of the kernel's file name.
    pub img_ext: Option<Given<String>>,
    /// `KEXEC_ARGS`, and its names elsewhere: the system call by which the kernel is loaded.
    pub syscall: Option<Given<Syscall>>,
    /// SUSE's `KDUMP_CRASHKERNEL`: `auto`, or the options that reserve the memory.
    pub crashkernel: Option<Given<String>>,
    /// SUSE's `KDUMP_UPDATE_BOOTLOADER`: whether they are written into the boot loader's configuration.
    pub update_bootloader: Option<Given<bool>>,
    /// SUSE's `KDUMP_AUTO_RESIZE`: whether memory that is not needed is given back.
    pub auto_resize: Option<Given<bool>>,
    /// Whether an oops is to be a panic once a capture kernel is loaded, as Debian's and SUSE's scripts have it.
    pub panic_on_oops: Option<Given<bool>>,
    /// `VMCORE_CREATION_NOTIFICATION`: whether the result of the last test is told.
    pub creation_notification: Option<Given<bool>>,
    /// `KDUMP_STDLOGLVL` and SUSE's `KDUMP_VERBOSE`: how much kdumpctl says, from 0 (nothing) to 4.
    pub log_level: Option<Given<u8>>,
    /// `KDUMP_NETCONFIG` of SUSE: how the network is made.
    pub netconfig: Option<Given<NetConfig>>,
    /// SUSE's `KDUMP_SSH_IDENTITY`: private keys, relative to root's.
    pub ssh_identity: Option<Given<String>>,
    /// SUSE's `KDUMP_HOST_KEY`: the key of the host that dumps go to; `*` for any.
    pub host_key: Option<Given<String>>,
    /// SUSE's `KDUMP_NET_TIMEOUT`, Debian's `SSH_KDUMP_RETRY`: how many seconds that host is waited for.
    pub net_timeout: Option<Given<u64>>,
    /// SUSE's `KDUMP_PRESCRIPT`: run before the dump.
    pub prescript: Option<Given<Vec<String>>>,
    /// SUSE's `KDUMP_POSTSCRIPT`: run after the dump.
    pub postscript: Option<Given<Vec<String>>>,
    /// SUSE's `KDUMP_REQUIRED_PROGRAMS`: what these need.
    pub required_programs: Vec<Given<PathBuf>>,
    /// SUSE's `KDUMP_IMMEDIATE_REBOOT`: `false` asks for a shell before the final action.
    pub immediate_reboot: Option<Given<bool>>,
    /// SUSE's `KDUMP_CONTINUE_ON_ERROR`: `false` asks for a shell when there is no complete dump.
    pub continue_on_error: Option<Given<bool>>,
    /// Debian's `KDUMP_FAIL_CMD`: what follows when there is no complete dump.
    pub fail_command: Option<Given<FailCommand>>,
    /// SUSE's `KDUMP_KEEP_OLD_DUMPS` or Debian's `KDUMP_NUM_DUMPS`: how many dumps stay, the new one among them.
    pub keep: Option<Given<NonZeroU32>>,
    /// SUSE's `KDUMP_FREE_DISK_SIZE`: bytes that stay free.
    pub free: Option<Given<u64>>,
    /// Debian's `/etc/kdump/sysctl.conf`: settings of the capture kernel alone.
    pub sysctl: Option<Given<PathBuf>>,
}

/// The system call by which a kernel is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Syscall {
    /// kexec_file_load, and kexec_load where the kernel lacks that and nothing forbids it
    #[default]
    Auto,
    /// kexec_file_load: the kernel reads the files, and checks their signatures
    File,
    /// kexec_load: this program lays everything out in memory
    Load,
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Syscall::File => "file",
            Syscall::Load => "load",
            Syscall::Auto => "auto",
        })
    }
}

/// What `KDUMP_FAIL_CMD` comes to without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailCommand {
    /// `reboot -f` and its kin.
    End(Ending),
    /// A program is run; the failure action follows.
    Run(Vec<String>),
}

/// As `KDUMP_FAIL_CMD` has it.
impl fmt::Display for FailCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailCommand::End(ending) => write!(f, "{ending} -f"),
            FailCommand::Run(argv) => f.write_str(&argv.join(" ")),
        }
    }
}
