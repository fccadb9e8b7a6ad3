//! What the kernel's refusals of a patch mean to somebody who loads it by hand or from a service.
//!
//! In: the errno, the facts, the kernel's lines. Out: words. May surprise: most are those of any other module; these are the
//! ones whose remedy is no matter of an image.

use crate::kernel::{self, Facts};
use nix::errno::Errno;

/// What an errno of finit_module(2) means for a patch.
pub(super) fn explain(errno: Errno, facts: &Facts, lines: &[String]) -> String {
    let said = |words: &str| lines.iter().any(|line| line.contains(words));
    let meaning = match errno {
        Errno::ENOEXEC if said("version magic") || said("disagrees about version") => {
            "it was built for another kernel than the one that is running, be it of the same release; get the one that was \
             built for it"
        }
        Errno::EBUSY => "another patch is in transition, or the kernel is at work with a module of that name",
        Errno::ENOMEM => "there is not enough memory",
        _ => return kernel::explain(errno, facts, lines),
    };
    format!("{errno}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_remedy_is_one_of_an_image() {
        for (errno, line, expected) in [
            (Errno::ENOEXEC, "p: version magic '6.1 SMP' should be '6.1 SMP preempt'", "be it of the same release"),
            (Errno::ENOEXEC, "p: disagrees about version of symbol module_layout", "be it of the same release"),
            (Errno::ENOEXEC, "", "cut short"),
            (Errno::EBUSY, "", "another patch is in transition"),
            (Errno::ENOMEM, "", "not enough memory"),
            (Errno::EINVAL, "livepatch: symbol 'gone' not found in symbol table", "built from another source"),
        ] {
            let said = explain(errno, &Facts { signed: Some(false), ..Facts::default() }, &[line.to_owned()]);
            assert!(said.starts_with(&errno.to_string()) && said.contains(expected), "{said}");
            assert!(["image", "crashkernel"].iter().all(|word| !said.contains(word)), "{said}");
        }
    }
}
