//! RHEL's variables in `/etc/sysconfig/kdump`, some of which SUSE has too.

use super::super::assignments::Variables;
use super::super::{Given, Sysconfig, values};
use std::path::PathBuf;

/// All of them.
pub(in super::super) const VARIABLES: [&str; 13] = [
    "KDUMP_KERNELVER",
    "KDUMP_COMMANDLINE",
    "KDUMP_COMMANDLINE_REMOVE",
    "KDUMP_COMMANDLINE_APPEND",
    "FADUMP_COMMANDLINE_APPEND",
    "KEXEC_ARGS",
    "KDUMP_BOOTDIR",
    "KDUMP_IMG",
    "KDUMP_IMG_EXT",
    "VMCORE_CREATION_NOTIFICATION",
    "KDUMP_STDLOGLVL",
    "KDUMP_SYSLOGLVL",
    "KDUMP_KMSGLOGLVL",
];

/// Follows them. An empty value is as good as none, except for the options to remove and to append.
pub(in super::super) fn follow(variables: &mut Variables, system: &mut Sysconfig) {
    system.kernelver = variables.text("KDUMP_KERNELVER");
    system.commandline = variables.text("KDUMP_COMMANDLINE");
    system.remove = variables.any("KDUMP_COMMANDLINE_REMOVE");
    system.append = variables.any("KDUMP_COMMANDLINE_APPEND");
    system.bootdir = variables.text("KDUMP_BOOTDIR").map(|given| given.map(PathBuf::from));
    system.img = variables.text("KDUMP_IMG");
    system.img_ext = variables.text("KDUMP_IMG_EXT");
    system.syscall = variables.made("KEXEC_ARGS", values::kexec_args).and_then(|given| {
        let origin = given.origin;
        given.value.map(|value| Given { value, origin })
    });
    // RHEL switches it off by an empty value, or any other that is not `yes`.
    system.creation_notification =
        variables.any("VMCORE_CREATION_NOTIFICATION").map(|given| given.map(|value| value == "yes"));
    system.log_level =
        variables.made("KDUMP_STDLOGLVL", |value| Ok(u8::try_from(values::number(value, 4)?).unwrap_or(4)));
    for name in ["KDUMP_SYSLOGLVL", "KDUMP_KMSGLOGLVL"] {
        if let Some(level) = variables.number(name, 4).filter(|level| level.value > 0) {
            let why = "what is told goes to stderr, and from there into the journal; write KDUMP_STDLOGLVL";
            variables.complaints.warn(&level.origin, format!("{name} has no effect: {why}"));
        }
    }
    variables.note("FADUMP_COMMANDLINE_APPEND", "it counts for fadump alone, which only POWER has");
}
