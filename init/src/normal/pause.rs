//! `rd.break`: a shell in the middle of the boot.
//!
//! In: `rd.break` and `rd.break=WHERE`, WHERE being one of dracut's hooks. Out: a shell on every console at the step of
//! this boot that comes nearest; the boot goes on when one of them is left. Nothing else ends it, and that is what the
//! supervisor is told meanwhile.
//! May surprise: without a shell in the image the boot goes on at once, with a word on how to build one in.

use crate::beat::{Beat, Pulse};
use crate::shell::{self, Why};
use kdump_hooks::cmdline::Cmdline;
use log::{info, warn};
use std::time::Duration;

/// What is to be done about an image that has no shell.
pub const REMEDY: &str = "build one in with mkdumprd --normal --shell";

/// What the supervisor is asked for, again and again, while somebody sits before a shell.
const PATIENCE: Duration = Duration::from_secs(120);

/// A step of the boot before which it can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before any module is loaded.
    Modules,
    /// Before devices are looked for.
    Devices,
    /// Before storage is put together and a network is brought up.
    Storage,
    /// Before the root is mounted.
    Root,
    /// Before the image is left for the root.
    Leaving,
}

/// dracut's names for them.
const NAMES: [(&str, Step); 9] = [
    ("cmdline", Step::Modules),
    ("pre-udev", Step::Modules),
    ("pre-trigger", Step::Devices),
    ("initqueue", Step::Storage),
    ("pre-mount", Step::Root),
    ("mount", Step::Root),
    ("pre-pivot", Step::Leaving),
    ("cleanup", Step::Leaving),
    ("", Step::Leaving),
];

/// The words of the command line that ask for a break before `step`.
fn asked(cmdline: &Cmdline, step: Step) -> Option<String> {
    breaks(cmdline).find(|(_, at)| *at == Some(step)).map(|(word, _)| word)
}

/// Every break that is asked for, as it is written.
fn breaks(cmdline: &Cmdline) -> impl Iterator<Item = (String, Option<Step>)> {
    cmdline.options().filter(|(name, value)| *name == "rd.break" && *value != Some("0")).map(|(_, value)| {
        let place = value.filter(|value| *value != "1").unwrap_or_default();
        let step = NAMES.iter().find(|(name, _)| *name == place).map(|(_, step)| *step);
        (value.map_or("rd.break".to_owned(), |value| format!("rd.break={value}")), step)
    })
}

/// Words about breaks that will not be: one of an unknown name, or any in an image without a shell.
pub fn complaints(cmdline: &Cmdline, has_shell: bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (word, step) in breaks(cmdline) {
        if step.is_none() {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            lines.push(format!("{word} names no step of the boot, which goes on; there are {}", names.join(", ")));
        } else if !has_shell {
            lines.push(format!("{word} is asked for, but this image has no shell; the boot goes on; {REMEDY}"));
        }
    }
    if !has_shell && super::flag(cmdline, "rd.shell") {
        lines.push(format!("rd.shell is asked for, but this image has no shell for when the boot fails; {REMEDY}"));
    }
    lines
}

/// Lets somebody look around before `step`, if that is asked for and the image has a shell.
pub fn before(step: Step, cmdline: &Cmdline, has_shell: bool, pulse: &mut dyn Pulse) {
    let Some(word) = asked(cmdline, step).filter(|_| has_shell) else { return };
    info!("{word}: a shell; the boot goes on when it is left");
    shell::stay(Why::Break, &word, &mut || pulse.beat(Beat::Still(PATIENCE)));
    info!("the shell is left, the boot goes on");
}

/// What was asked for and cannot be had is told once.
pub fn complain(cmdline: &Cmdline, has_shell: bool) {
    for line in complaints(cmdline, has_shell) {
        warn!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_dracut_s_hooks_is_a_step() {
        for (line, step) in [
            ("rd.break", Step::Leaving),
            ("rd.break=cleanup rd.debug", Step::Leaving),
            ("rd.break=pre-mount", Step::Root),
            ("rd.break=mount", Step::Root),
            ("rd.break=initqueue", Step::Storage),
            ("rd.break=pre-trigger", Step::Devices),
            ("rd.break=pre-pivot rd.break=cmdline", Step::Modules),
        ] {
            assert!(asked(&Cmdline::parse(line), step).is_some(), "{line}");
        }
        for line in ["", "rd.break=0", "rd.break=nowhere", "rd.break=pre-mount"] {
            assert_eq!(asked(&Cmdline::parse(line), Step::Leaving), None, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_told_by_name_with_the_remedy() {
        let said = |line: &str, has_shell| complaints(&Cmdline::parse(line), has_shell);
        let none = said("rd.break=pre-mount rd.shell", false);
        assert!(none[0].starts_with("rd.break=pre-mount is asked for") && none[0].contains(REMEDY), "{none:?}");
        assert!(none[1].starts_with("rd.shell is asked for") && none[1].contains(REMEDY), "{none:?}");
        assert!(said("rd.break=pre-mount rd.shell", true).is_empty());
        assert!(said("rd.shell=0 rd.break=0", false).is_empty());
        assert!(said("rd.break=lunch", true)[0].contains("rd.break=lunch names no step"));
    }
}
