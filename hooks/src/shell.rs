//! A shell on the console, as `failure_action shell`, KDUMP_IMMEDIATE_REBOOT and KDUMP_CONTINUE_ON_ERROR ask for it, or
//! `rd.shell` and `rd.break` of a normal boot.
//!
//! *Into the image*: busybox, if the host has it, which is a shell and all tools in one file; else the host's own shell
//! with the tools that are of use there. *At boot*: PID 1 starts it on every console and goes on to the final action
//! when one of them is left; in the middle of a normal boot it is the worker that starts it, and the boot goes on.
//! May surprise: nothing ends a shell but the one who sits before it. A machine that nobody looks after stays down, and
//! that is why no image has a shell unless it is configured.

use crate::Hook;
use crate::host::{Contribution, Host, ProgramNeed};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where busybox is on a host, and in the image.
pub const BUSYBOX: [&str; 4] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/sbin/busybox"];

/// The shells that are looked for where there is no busybox.
pub const SHELLS: [&str; 2] = ["/bin/sh", "/usr/bin/sh"];

/// What is of use in a shell on a machine that could not save its dump.
const TOOLS: [&str; 22] = [
    "blkid", "cat", "cp", "dd", "df", "dmesg", "free", "grep", "head", "ip", "less", "ln", "ls", "lsblk", "mkdir",
    "mount", "mv", "ps", "rm", "sync", "tail", "umount",
];

/// A shell is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {}

impl Hook for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |paths: &[&str], reason: &str, required| ProgramNeed {
            paths: paths.iter().map(PathBuf::from).collect(),
            reason: reason.to_owned(),
            required,
        };
        let reason = "a shell on the console is asked for";
        let programs = if BUSYBOX.iter().any(|path| host.has_file(Path::new(path))) {
            vec![need(&BUSYBOX, reason, true)]
        } else {
            let tool = |name: &str| {
                let paths = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|dir| format!("{dir}/{name}"));
                need(&paths.each_ref().map(String::as_str), "a tool for the shell", false)
            };
            [need(&SHELLS, reason, true)].into_iter().chain(TOOLS.into_iter().map(tool)).collect()
        };
        Ok(Contribution { programs, ..Contribution::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn busybox_alone_is_enough_and_without_it_the_shell_brings_tools_along() {
        let mut host = FakeHost::default();
        let bare = Shell {}.gather(&host).unwrap().programs;
        assert!(bare[0].required && bare[0].paths[0] == Path::new("/bin/sh"));
        assert!(bare.len() > 20 && bare[1..].iter().all(|need| !need.required));
        host.files.insert("/usr/bin/busybox".into(), Vec::new());
        let with_busybox = Shell {}.gather(&host).unwrap().programs;
        assert_eq!(with_busybox.len(), 1);
        assert!(with_busybox[0].required);
    }
}
