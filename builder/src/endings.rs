//! How an image ends: what kdump.conf, SUSE's and Debian's words say about it together.
//!
//! In: [`Config`]. Out: [`Endings`]. Two words that contradict each other are an error that names both places; a word
//! that only repeats the default of the other file is not.

use crate::config::{Config, FailCommand, Given, OnFailure, Origin};
use anyhow::bail;
use kdump_init::config::{Endings, FailureAction};

/// What follows the dump.
///
/// # Errors
/// Two lines that cannot both be followed.
pub fn find(config: &Config) -> anyhow::Result<Endings> {
    let final_action = config.dump.final_action.value;
    let mut failure_action = match config.dump.failure_action.value {
        OnFailure::Action(action) => action,
        OnFailure::DumpToRootfs => final_action.into(),
    };
    let mut said: Option<(&str, &Origin)> = match &config.dump.failure_action {
        Given { value: OnFailure::Action(_), origin: origin @ Origin::Line(..) } => Some(("failure_action", origin)),
        _ => None,
    };
    let mut follow = |word, origin, action: FailureAction| match said.replace((word, origin)) {
        Some((other, place)) if action != failure_action => {
            bail!(
                "{origin}: {word} asks for {action}, and {other} at {place} for {failure_action}; keep one of the two"
            )
        }
        _ => {
            failure_action = action;
            Ok(())
        }
    };
    let system = &config.system;
    if let Some(Given { value: FailCommand::End(ending), origin }) = &system.fail_command {
        follow("KDUMP_FAIL_CMD", origin, (*ending).into())?;
    }
    if let Some(Given { value: false, origin }) = &system.continue_on_error {
        follow("KDUMP_CONTINUE_ON_ERROR", origin, FailureAction::Shell)?;
    }
    let shell_first = system.immediate_reboot.as_ref().is_some_and(|immediate| !immediate.value);
    Ok(Endings { failure_action, final_action, shell_first })
}

/// The lines that make a machine wait for somebody.
pub fn waits(config: &Config, endings: &Endings) -> Vec<String> {
    let mut lines = Vec::new();
    if endings.failure_action == FailureAction::Shell {
        let origin = match &config.system.continue_on_error {
            Some(Given { value: false, origin }) => origin,
            _ => &config.dump.failure_action.origin,
        };
        lines.push(format!(
            "{origin}: a machine that could not save its dump waits in a shell until somebody leaves it"
        ));
    }
    if let Some(given) = config.system.immediate_reboot.as_ref().filter(|_| endings.shell_first) {
        lines.push(format!(
            "{}: a machine that has saved its dump waits in a shell until somebody leaves it",
            given.origin
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use kdump_init::config::Ending;
    use std::fs;

    fn endings(conf: &str, sysconfig: &str) -> anyhow::Result<Endings> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/sysconfig")).unwrap();
        fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
        fs::write(root.path().join("etc/sysconfig/kdump"), sysconfig).unwrap();
        find(&Config::read(&Files::new(root.path(), None, None)).unwrap())
    }

    #[test]
    fn each_word_is_followed_where_no_other_stands() {
        let (shell, reboot) = (FailureAction::Shell, Ending::Reboot);
        for (conf, sysconfig, failure_action, final_action, shell_first) in [
            ("", "", reboot.into(), reboot, false),
            ("", "KDUMP_CONTINUE_ON_ERROR=true\nKDUMP_IMMEDIATE_REBOOT=true", reboot.into(), reboot, false),
            ("", "KDUMP_CONTINUE_ON_ERROR=false", shell, reboot, false),
            ("final_action halt", "KDUMP_IMMEDIATE_REBOOT=false", reboot.into(), Ending::Halt, true),
            ("", "KDUMP_FAIL_CMD=\"halt -f\"", Ending::Halt.into(), reboot, false),
            ("", "KDUMP_FAIL_CMD=/bin/tell", reboot.into(), reboot, false),
            ("failure_action shell", "KDUMP_CONTINUE_ON_ERROR=false", shell, reboot, false),
            ("failure_action dump_to_rootfs", "KDUMP_CONTINUE_ON_ERROR=false", shell, reboot, false),
        ] {
            let expected = Endings { failure_action, final_action, shell_first };
            assert_eq!(endings(conf, sysconfig).unwrap(), expected, "{conf} {sysconfig}");
        }
    }

    #[test]
    fn two_words_that_contradict_each_other_are_both_named() {
        let error = endings("failure_action halt", "KDUMP_CONTINUE_ON_ERROR=false").unwrap_err().to_string();
        assert!(error.contains("kdump:1: KDUMP_CONTINUE_ON_ERROR asks for shell"), "{error}");
        assert!(error.contains("failure_action at ") && error.contains("kdump.conf:1 for halt"), "{error}");
        let both = "KDUMP_FAIL_CMD=\"reboot -f\"\nKDUMP_CONTINUE_ON_ERROR=no";
        assert!(endings("", both).unwrap_err().to_string().contains("KDUMP_FAIL_CMD at "));
    }
}
