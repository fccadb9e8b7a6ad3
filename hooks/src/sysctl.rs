//! sysctl.conf and sysctl.d: what the running kernel is told to do differently.
//!
//! In: the directories of sysctl.d(5) and `etc/sysctl.conf` below a root. Out: [`Setting`]s in the order in which they
//! are made; of two for one key the later one stays. The builder takes the same files that init reads.
//! May surprise: a key whose first separator is a slash keeps its dots (`net/ipv4/conf/eth0.1/forwarding`), in any other
//! dots and slashes change places. Patterns are left to the system's own sysctl, which knows by then what they match.

use crate::kmod::conf_files::conf_files;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The old file; it is read last and so has the last word.
const OLD_FILE: &str = "etc/sysctl.conf";

/// The settings of a capture kernel alone, in its image. What the system has is about more memory than is reserved.
pub const CAPTURE: &str = "/etc/kdump/sysctl.conf";

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file below `/proc/sys`.
    pub key: String,
    /// What is written to it.
    pub value: String,
    /// Whether it is no matter if that fails: the line began with `-`.
    pub optional: bool,
}

/// As sysctl.conf may write it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { key, value, optional } = self;
        write!(f, "{}{key} = {value}", if *optional { "-" } else { "" })
    }
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its settings, in order.
    pub settings: Vec<Setting>,
    /// Lines that cannot be followed: their number, and why.
    pub problems: Vec<(usize, &'static str)>,
}

/// The files that count below `root`, in the order in which they are read: drop-ins by name over all directories, then
/// `etc/sysctl.conf`. A link to `/dev/null` shadows and says nothing.
///
/// # Errors
/// A directory is there but cannot be listed.
pub fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = conf_files(root, "sysctl.d")?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    let old = root.join(OLD_FILE);
    files.extend(old.is_file().then_some(old));
    Ok(files)
}

/// Parses the text of one file.
pub fn parse(text: &str) -> File {
    let mut file = File::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        match setting(line) {
            Ok(setting) => file.settings.push(setting),
            Err(problem) => file.problems.push((index + 1, problem)),
        }
    }
    file
}

fn setting(line: &str) -> Result<Setting, &'static str> {
    let (optional, line) = line.strip_prefix('-').map_or((false, line), |rest| (true, rest));
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.trim(), value.trim()),
        None if optional => {
            return Err("it takes a key out of a pattern, and patterns are left to the system's sysctl");
        }
        None => return Err("it has no `=`"),
    };
    if key.contains(['*', '?', '[', '{']) {
        return Err("its key is a pattern, which is left to the system's sysctl");
    }
    let key = key.strip_prefix("/proc/sys/").unwrap_or(key);
    let key: String = match key.find(['.', '/']).map(|at| key[at..].starts_with('.')) {
        Some(true) => key.chars().map(swapped).collect(),
        _ => key.to_owned(),
    };
    if key.split('/').any(|part| part.is_empty() || part == "." || part == "..") || key.contains('\0') {
        return Err("its key is no file below /proc/sys");
    }
    Ok(Setting { key, value: value.to_owned(), optional })
}

fn swapped(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// Makes the settings that the files below `root` ask for, in `proc_sys`, which is `/proc/sys`; gives what could not be
/// made, each as one line to show.
pub fn apply(root: &Path, proc_sys: &Path) -> (usize, Vec<String>) {
    match files(root) {
        Ok(files) => apply_files(&files, proc_sys),
        Err(error) => (0, vec![format!("{error:#}")]),
    }
}

/// As [`apply`], for files that are named.
pub fn apply_files(files: &[PathBuf], proc_sys: &Path) -> (usize, Vec<String>) {
    let mut made = 0;
    let mut problems = Vec::new();
    for path in files {
        let place = path.display();
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                problems.push(format!("cannot read {place}: {error}"));
                continue;
            }
        };
        let file = parse(&text);
        problems.extend(file.problems.iter().map(|(line, why)| format!("{place}:{line} is not followed: {why}")));
        for setting in file.settings {
            match fs::OpenOptions::new().write(true).open(proc_sys.join(&setting.key)).and_then(|mut file| {
                // One write: the kernel takes each as a value of its own.
                std::io::Write::write_all(&mut file, format!("{}\n", setting.value).as_bytes())
            }) {
                Ok(()) => made += 1,
                Err(_) if setting.optional => {}
                Err(error) => problems.push(format!("{place}: cannot set {setting}: {error}")),
            }
        }
    }
    (made, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn keys_are_files_whichever_separator_they_are_written_with() {
        for (line, key, optional) in [
            ("kernel.panic=10", "kernel/panic", false),
            ("kernel/panic = 10", "kernel/panic", false),
            ("-vm.swappiness = 10", "vm/swappiness", true),
            ("net.ipv4.conf.eth0/1.forwarding = 10", "net/ipv4/conf/eth0.1/forwarding", false),
            ("net/ipv4/conf/eth0.1/forwarding=10", "net/ipv4/conf/eth0.1/forwarding", false),
            ("/proc/sys/kernel/panic = 10", "kernel/panic", false),
        ] {
            let expected = Setting { key: key.into(), value: "10".into(), optional };
            assert_eq!(parse(line).settings, [expected], "{line}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_told_by_its_line() {
        let file =
            parse("# a\n\nkernel.panic\nnet.*.x = 1\n-net.ipv4.conf.lo\n../../etc/passwd = x\nkernel..x = 1\n; b\n");
        assert!(file.settings.is_empty());
        assert_eq!(file.problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn files_are_read_by_name_over_all_directories_and_the_old_one_last() {
        let root = tree(&[
            ("etc/sysctl.conf", ""),
            ("etc/sysctl.d/20-b.conf", ""),
            ("usr/lib/sysctl.d/20-b.conf", "shadowed"),
            ("usr/lib/sysctl.d/10-a.conf", ""),
            ("usr/local/lib/sysctl.d/40-d.conf", ""),
            ("lib/sysctl.d/50-masked.conf", "masked"),
            ("run/sysctl.d/30-c.conf", ""),
            ("run/sysctl.d/README", ""),
            ("run/sysctl.d/.30-c.conf", ""),
        ]);
        symlink("/dev/null", root.path().join("etc/sysctl.d/50-masked.conf")).unwrap();
        let masked = root.path().join("etc/sysctl.d/50-masked.conf");
        assert!(parse(&fs::read_to_string(masked).unwrap()).settings.is_empty());
        let names: Vec<String> = files(root.path())
            .unwrap()
            .iter()
            .map(|path| path.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "usr/lib/sysctl.d/10-a.conf",
                "etc/sysctl.d/20-b.conf",
                "run/sysctl.d/30-c.conf",
                "usr/local/lib/sysctl.d/40-d.conf",
                "etc/sysctl.d/50-masked.conf",
                "etc/sysctl.conf"
            ]
        );
    }

    #[test]
    fn the_last_setting_of_a_key_stays_and_what_fails_is_told_unless_it_may() {
        let root = tree(&[
            ("etc/sysctl.d/10.conf", "kernel.panic = 1\nkernel.none = 1\n-kernel.none = 2\n"),
            ("etc/sysctl.conf", "kernel.panic = 2\nrubbish\n"),
            ("proc/sys/kernel/panic", ""),
        ]);
        let (made, problems) = apply(root.path(), &root.path().join("proc/sys"));
        assert_eq!(made, 2);
        assert_eq!(fs::read_to_string(root.path().join("proc/sys/kernel/panic")).unwrap(), "2\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("cannot set kernel/none = 1"), "{problems:?}");
        assert!(problems[1].contains("sysctl.conf:2 is not followed"), "{problems:?}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            parts in proptest::collection::vec("[a-z][a-z0-9._-]{0,8}[a-z0-9]", 2..5),
            value in "[!-~]([ -~]{0,20}[!-~])?",
            optional: bool,
        ) {
            // A first separator that is a dot would make dots slashes.
            let key = format!("net/{}", parts.join("/"));
            let setting = Setting { key, value, optional };
            prop_assert_eq!(parse(&setting.to_string()), File { settings: vec![setting], problems: Vec::new() });
        }

        #[test]
        fn any_text_is_taken_in_peace_and_no_key_leads_elsewhere(text in "(?s).{0,200}") {
            for setting in parse(&text).settings {
                prop_assert!(!setting.key.starts_with('/') && !setting.key.split('/').any(|part| part == ".."));
            }
        }
    }
}
