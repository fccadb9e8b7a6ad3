//! The options behind the capture kernel's command line, where more than one variable says something of them.

use super::{Dialect, Given};
use crate::crashkernel::Arch;
use crate::kexec::cmdline::usual_append;

/// All options: `said`, behind the usual ones if `behind` or if nothing is said, with that many processors.
pub(super) fn compose(
    (dialect, arch): (Dialect, Arch),
    said: Option<Given<String>>,
    behind: bool,
    cpus: Option<&Given<u32>>,
) -> Option<Given<String>> {
    let origin = match (&said, cpus) {
        (Some(said), _) if !said.value.trim().is_empty() || !behind => said.origin.clone(),
        (_, Some(cpus)) => cpus.origin.clone(),
        _ => return None,
    };
    let value = match &said {
        Some(said) if behind => format!("{} {}", usual_append(dialect, arch), said.value),
        Some(said) => said.value.clone(),
        None => usual_append(dialect, arch),
    };
    let value = match cpus {
        Some(cpus) if !said.is_some_and(|said| has_cpus(&said.value)) => with_cpus(&value, cpus.value),
        _ => value,
    };
    Some(Given { value: value.trim().to_owned(), origin })
}

/// More options behind those, or behind the usual ones.
pub(super) fn add((dialect, arch): (Dialect, Arch), append: &mut Option<Given<String>>, more: &Given<String>) {
    let (value, origin) = match append.take() {
        Some(given) => (given.value, given.origin),
        None => (usual_append(dialect, arch), more.origin.clone()),
    };
    *append = Some(Given { value: format!("{value} {}", more.value).trim().to_owned(), origin });
}

fn is_cpus(word: &str) -> bool {
    ["nr_cpus=", "maxcpus="].iter().any(|name| word.starts_with(name))
}

fn has_cpus(line: &str) -> bool {
    line.split_whitespace().any(is_cpus)
}

/// The kernel takes the smallest of several `nr_cpus=`, so that the one that is there has to go. 0 is all of them.
fn with_cpus(line: &str, cpus: u32) -> String {
    let mut words: Vec<String> = line.split_whitespace().filter(|word| !is_cpus(word)).map(str::to_owned).collect();
    if cpus > 0 {
        words.push(format!("nr_cpus={cpus}"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn at<T>(value: T) -> Given<T> {
        Given { value, origin: Origin::Line("kdump".into(), 1) }
    }

    #[test]
    fn what_is_said_takes_the_place_of_the_usual_or_comes_behind_it() {
        let said = |text: &str| Some(at(text.to_owned()));
        let of = |append: Option<Given<String>>| append.map(|given| given.value);
        assert_eq!(of(compose((Dialect::Rhel, Arch::X86_64), said("a"), false, None)).unwrap(), "a");
        assert_eq!(of(compose((Dialect::Rhel, Arch::X86_64), said(""), false, None)).unwrap(), "");
        assert_eq!(
            of(compose((Dialect::Rhel, Arch::X86_64), said("a"), true, None)).unwrap(),
            format!("{} a", usual_append(Dialect::Rhel, Arch::X86_64))
        );
        assert_eq!(of(compose((Dialect::Rhel, Arch::X86_64), said(""), true, None)), None);
        assert_eq!(of(compose((Dialect::Rhel, Arch::X86_64), None, true, None)), None);
        let four = of(compose((Dialect::Rhel, Arch::X86_64), None, true, Some(&at(4)))).unwrap();
        assert!(four.ends_with(" nr_cpus=4") && !four.contains("nr_cpus=1"), "{four}");
        let all = of(compose((Dialect::Rhel, Arch::X86_64), said("maxcpus=1 x"), false, Some(&at(0)))).unwrap();
        assert_eq!(all, "maxcpus=1 x", "the administrator's own word wins");
        assert!(!of(compose((Dialect::Rhel, Arch::X86_64), None, false, Some(&at(0)))).unwrap().contains("cpus="));
    }

    #[test]
    fn more_comes_behind_everything() {
        let mut append = None;
        add((Dialect::Rhel, Arch::X86_64), &mut append, &at("a=1".to_owned()));
        add((Dialect::Rhel, Arch::X86_64), &mut append, &at("b".to_owned()));
        assert_eq!(append.unwrap().value, format!("{} a=1 b", usual_append(Dialect::Rhel, Arch::X86_64)));
    }
}
