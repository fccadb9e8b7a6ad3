//! What a kernel does about modules that it cannot trust.
//!
//! In: the running kernel's parameters and lockdown, the name of the distribution. Out: [`Policy`].
//! May surprise: a kernel that does not tell whether it is locked down is taken not to be.

const SIG_ENFORCE: &str = "sys/module/module/parameters/sig_enforce";
const LOCKDOWN: &str = "sys/kernel/security/lockdown";

/// Distributions whose kernels trust modules by the firmware's keys as well (`ID` and `ID_LIKE` of os-release).
const PLATFORM_COUNTS: [&str; 4] = ["debian", "rhel", "fedora", "suse"];

/// What a kernel does about modules that it cannot trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it looks at signatures at all.
    pub checks: bool,
    /// What makes it refuse what it cannot trust, if anything does; else it is tainted.
    pub enforced: Option<String>,
    /// Whether keys of the firmware count.
    pub platform: bool,
}

/// The text of a small file of the machine, if it is there. No slash stands before its path.
pub type Line<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Policy {
    /// Of the kernel that is running.
    pub fn running(line: Line<'_>) -> Policy {
        // The parameter is there where signatures are; it says Y, too, where the kernel was built to enforce them.
        let parameter = line(SIG_ENFORCE);
        let enforced = match parameter.as_deref() {
            Some("Y") => Some("module.sig_enforce"),
            _ => locked_down(line).unwrap_or(false).then_some("lockdown"),
        };
        Policy { checks: parameter.is_some(), enforced: enforced.map(str::to_owned), platform: platform_counts(line) }
    }
}

/// Whether the running kernel is locked down, if it tells. Such a kernel takes no module that it cannot trust.
pub fn locked_down(line: Line<'_>) -> Option<bool> {
    let text = line(LOCKDOWN)?;
    Some(text.contains("[integrity]") || text.contains("[confidentiality]"))
}

/// Whether kernels of this distribution trust modules by the firmware's keys.
pub fn platform_counts(line: Line<'_>) -> bool {
    let text = line("etc/os-release").unwrap_or_default();
    let values = text.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let mut words = values.flat_map(|value| value.split(['"', ' ']));
    words.any(|word| PLATFORM_COUNTS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(files: &[(&str, &str)]) -> Policy {
        Policy::running(&|path| files.iter().find(|(file, _)| *file == path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn whatever_enforces_signatures_is_named() {
        let (lax, strict) = ((SIG_ENFORCE, "N"), (SIG_ENFORCE, "Y"));
        for (files, expected) in [
            (&[lax][..], None),
            (&[lax, (LOCKDOWN, "[none] integrity confidentiality")], None),
            (&[strict], Some("module.sig_enforce")),
            (&[lax, (LOCKDOWN, "none [integrity] confidentiality")], Some("lockdown")),
            (&[lax, (LOCKDOWN, "none integrity [confidentiality]")], Some("lockdown")),
        ] {
            let policy = policy(files);
            assert!(policy.checks);
            assert_eq!(policy.enforced.as_deref(), expected, "{files:?}");
        }
        assert!(!policy(&[]).checks);
    }

    #[test]
    fn keys_of_the_firmware_count_where_the_distribution_s_kernel_has_it_so() {
        for (text, expected) in
            [("ID=debian\n", true), ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", true), ("ID=arch\n", false)]
        {
            assert_eq!(policy(&[("etc/os-release", text)]).platform, expected, "{text}");
        }
    }
}
