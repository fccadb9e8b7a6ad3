//! modprobe.d and what the kernel command line adds to it.

use super::index::Softdep;
use super::names::{ModuleName, normalise_alias};
use super::pattern;
use crate::cmdline::Cmdline;
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The configuration directories, strongest first; a file shadows those of the same name in weaker ones.
const DIRECTORIES: [&str; 5] =
    ["etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"];

/// What the administrator says about modules.
#[derive(Clone, Debug, Default)]
pub struct Config {
    aliases: Vec<(String, ModuleName)>,
    blacklist: BTreeSet<ModuleName>,
    options: Vec<(String, String)>,
    /// Name pattern and command; the first that matches counts.
    install: Vec<(String, String)>,
    /// Name pattern and dependencies; the first that matches counts.
    softdeps: Vec<(String, Softdep)>,
    /// Lines that were passed over.
    pub warnings: Vec<Warning>,
}

/// A line of modprobe.d that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `FILE:LINE`.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Config {
    /// The files that count below `root`, in the order in which they are read: by file name over all directories, a
    /// file in a stronger directory in place of its namesakes.
    ///
    /// # Errors
    /// A directory is there but cannot be listed.
    pub fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
        for directory in DIRECTORIES.map(|name| root.join(name)) {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
            };
            for entry in entries {
                let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
                if path.extension().is_some_and(|extension| extension == "conf" || extension == "alias")
                    && let Some(name) = path.file_name()
                {
                    files.entry(name.to_owned()).or_insert_with(|| path.clone());
                }
            }
        }
        Ok(files.into_values().collect())
    }

    /// Reads the modprobe.d directories below `root`.
    ///
    /// # Errors
    /// A directory or file is there but cannot be read.
    pub fn read(root: &Path) -> anyhow::Result<Config> {
        let mut config = Config::default();
        for path in Config::files(root)? {
            let text = match fs::read(&path) {
                Ok(text) => text,
                // A link to nothing says nothing.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            };
            config.add(&String::from_utf8_lossy(&text), &path.display().to_string());
        }
        Ok(config)
    }

    /// Adds the lines of one file, named `origin` in warnings.
    pub fn add(&mut self, text: &str, origin: &str) {
        for (number, line) in logical_lines(text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let problem = match words.as_slice() {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                // What stands behind the arguments is passed over, as kmod does.
                ["alias", alias, module, ..] => {
                    self.aliases.push((normalise_alias(alias), ModuleName::new(module)));
                    continue;
                }
                ["blacklist", module, ..] => {
                    self.blacklist.insert(ModuleName::new(module));
                    continue;
                }
                ["options", module, _, ..] => {
                    self.options.push((normalise_alias(module), rest_of(&line, 2)));
                    continue;
                }
                ["install", module, _, ..] => {
                    self.install.push((normalise_alias(module), rest_of(&line, 2)));
                    continue;
                }
                ["softdep", module, rest @ ..] => {
                    self.softdeps.push((normalise_alias(module), Softdep::parse(rest)));
                    continue;
                }
                // Neither unloads nor weak dependencies concern a boot.
                ["remove" | "weakdep", ..] => continue,
                ["include" | "config", ..] => "is no longer a directive of modprobe.d".to_owned(),
                [word, ..] => format!("`{word}` is unknown or lacks an argument"),
            };
            self.warnings.push(Warning { place: format!("{origin}:{number}"), problem });
        }
    }

    /// Adds `modprobe.blacklist=`, `rd.driver.blacklist=` and `MODULE.PARAMETER[=VALUE]`. Names in the lists may be
    /// written with dashes; kmod's own parser would not match those.
    pub fn add_cmdline(&mut self, cmdline: &Cmdline) {
        for name in ["modprobe.blacklist", "rd.driver.blacklist"] {
            self.blacklist.extend(cmdline.list(name).map(ModuleName::new));
        }
        for (option, value) in cmdline.options() {
            let Some((module, parameter)) = option.split_once('.') else { continue };
            if module.is_empty() || parameter.is_empty() || matches!(module, "rd" | "modprobe" | "systemd") {
                continue;
            }
            let setting = match value {
                Some(value) if value.contains(char::is_whitespace) => format!("{parameter}=\"{value}\""),
                Some(value) => format!("{parameter}={value}"),
                None => parameter.to_owned(),
            };
            self.options.push((normalise_alias(module), setting));
        }
    }

    /// Whether that module must not be loaded through one of its own aliases.
    pub fn is_blacklisted(&self, name: &ModuleName) -> bool {
        self.blacklist.contains(name)
    }

    /// All blacklisted modules.
    pub fn blacklisted(&self) -> impl Iterator<Item = &ModuleName> {
        self.blacklist.iter()
    }

    /// The modules that `alias` lines give for a request.
    pub fn by_alias(&self, request: &str) -> Vec<&ModuleName> {
        let request = normalise_alias(request);
        self.aliases.iter().filter(|(alias, _)| pattern::matches(alias, &request)).map(|(_, module)| module).collect()
    }

    /// The parameters for a module that is asked for as `request`: those of its name and those of the alias used.
    pub fn parameters(&self, name: &ModuleName, request: &str) -> String {
        let request = normalise_alias(request);
        let settings: Vec<&str> = self
            .options
            .iter()
            .filter(|(of, _)| of == name.as_str() || *of == request)
            .map(|(_, settings)| settings.as_str())
            .collect();
        settings.join(" ")
    }

    /// The command that an `install` line puts in place of loading.
    pub fn install(&self, name: &ModuleName) -> Option<&str> {
        first_match(&self.install, name).map(String::as_str)
    }

    /// All `install` lines: name pattern and command.
    pub fn installs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.install.iter().map(|(pattern, command)| (pattern.as_str(), command.as_str()))
    }

    /// The soft dependencies that `softdep` lines give a module.
    pub fn softdep(&self, name: &ModuleName) -> Option<&Softdep> {
        first_match(&self.softdeps, name)
    }
}

fn first_match<'a, T>(lines: &'a [(String, T)], name: &ModuleName) -> Option<&'a T> {
    lines.iter().find(|(of, _)| pattern::matches(of, name.as_str())).map(|(_, what)| what)
}

/// Lines with `\` continuations joined, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, mut whole) = pending.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                pending = Some((number, whole));
            }
            None => {
                whole.push_str(line);
                lines.push((number, whole));
            }
        }
    }
    lines.extend(pending);
    lines
}

/// What follows the first `skip` words of a line, inner spacing kept.
fn rest_of(line: &str, skip: usize) -> String {
    let mut rest = line.trim();
    for _ in 0..skip {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, tail)| tail.trim_start());
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add(text, "test.conf");
        config
    }

    #[test]
    fn every_directive_finds_its_place() {
        let config = config(
            "# comment\nblacklist foo-bar\noptions snd index=1 \\\n  model=\"a b\"\nalias net-pf-* nope\n\
             install evil /bin/false\nsoftdep top pre: a b post: c\nremove x /bin/true\n",
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert!(config.is_blacklisted(&"foo_bar".into()));
        assert_eq!(config.parameters(&"snd".into(), "snd"), "index=1   model=\"a b\"");
        assert_eq!(config.by_alias("net-pf-10"), [&ModuleName::new("nope")]);
        assert_eq!(config.install(&"evil".into()), Some("/bin/false"));
        assert_eq!(config.softdep(&"top".into()).unwrap().pre, ["a", "b"]);
    }

    #[test]
    fn of_several_lines_for_a_module_the_first_counts_and_names_may_be_patterns() {
        let config = config(
            "install a /bin/true\ninstall a /bin/false\ninstall virtio-* /bin/false # why\nsoftdep b pre: x\nsoftdep b pre: \
             y\nblacklist c # reason\nalias d e # reason\n",
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!(config.install(&"a".into()), Some("/bin/true"));
        assert_eq!(config.install(&"virtio_rng".into()), Some("/bin/false # why"));
        assert_eq!(config.softdep(&"b".into()).unwrap().pre, ["x"]);
        assert!(config.is_blacklisted(&"c".into()));
        assert_eq!(config.by_alias("d"), [&ModuleName::new("e")]);
    }

    #[test]
    fn a_line_that_means_nothing_is_named_with_its_place() {
        let warnings = config("ok\nblacklist\n").warnings;
        let places: Vec<_> = warnings.iter().map(|warning| warning.place.as_str()).collect();
        assert_eq!(places, ["test.conf:1", "test.conf:2"]);
    }

    #[test]
    fn the_command_line_comes_last_so_that_its_parameters_win() {
        let mut config = config("options nvme timeout=1\n");
        config.add_cmdline(&Cmdline::parse(
            "nvme.timeout=9 modprobe.blacklist=a-b,c rd.driver.blacklist=d nvme.x=\"1 2\" rd.timeout=4",
        ));
        assert_eq!(config.parameters(&"nvme".into(), "nvme"), "timeout=1 timeout=9 x=\"1 2\"");
        let blacklisted: Vec<_> = config.blacklisted().map(ModuleName::as_str).collect();
        assert_eq!(blacklisted, ["a_b", "c", "d"]);
    }

    #[test]
    fn a_file_in_etc_takes_the_place_of_its_namesake_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/modprobe.d/b.conf", "blacklist from_etc"),
            ("usr/lib/modprobe.d/b.conf", "blacklist from_usr"),
            ("usr/lib/modprobe.d/a.conf", "blacklist first"),
            ("etc/modprobe.d/not-read.txt", "blacklist text"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = Config::read(root.path()).unwrap();
        let blacklisted: Vec<_> = config.blacklisted().map(ModuleName::as_str).collect();
        assert_eq!(blacklisted, ["first", "from_etc"]);
    }
}
