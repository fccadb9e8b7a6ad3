//! modprobe.d and what the kernel command line adds to it.
//!
//! Beside modprobe.d's `blacklist`, which only keeps a module from its aliases, there is **forbid**: a forbidden module
//! is not loaded for anybody, nor is what cannot do without it. `rd.kdump.forbid=` says so, or `forbid_modules` of
//! kdump.conf, which becomes `[hooks.modules]` of the image configuration.

use super::conf_files::conf_files;
use super::index::Softdep;
use super::names::{ModuleName, normalise_alias};
use super::pattern;
use crate::cmdline::Cmdline;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the image configuration says about modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Modules that must not be loaded, not even as a dependency.
    pub forbid: Vec<ModuleName>,
}

/// What the administrator says about modules.
#[derive(Clone, Debug, Default)]
pub struct Config {
    aliases: Vec<(String, ModuleName)>,
    blacklist: BTreeSet<ModuleName>,
    options: Vec<(String, String)>,
    /// Name pattern and command; the first that matches counts.
    install: Vec<(String, Command)>,
    /// Name pattern and dependencies; the first that matches counts.
    softdeps: Vec<(String, Softdep)>,
    /// Name pattern and what may be asked for later.
    weakdeps: Vec<(String, Vec<String>)>,
    /// Name patterns of `remove` lines. They never run here, but a name that only they know is known.
    removes: Vec<String>,
    forbidden: BTreeSet<ModuleName>,
    first: Vec<String>,
    last: Vec<String>,
    /// Lines that were passed over.
    pub warnings: Vec<Warning>,
}

/// What an `install` line runs.
#[derive(Clone, Debug)]
struct Command {
    line: String,
    /// `FILE:LINE`.
    place: String,
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
        conf_files(root, "modprobe.d")
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
                    let command = Command { line: rest_of(&line, 2), place: format!("{origin}:{number}") };
                    self.install.push((normalise_alias(module), command));
                    continue;
                }
                ["softdep", module, rest @ ..] => {
                    self.softdeps.push((normalise_alias(module), Softdep::parse(rest)));
                    continue;
                }
                ["weakdep", module, rest @ ..] => {
                    let words = rest.iter().map(|word| (*word).to_owned()).collect();
                    self.weakdeps.push((normalise_alias(module), words));
                    continue;
                }
                ["remove", module, _, ..] => {
                    self.removes.push(normalise_alias(module));
                    continue;
                }
                ["include" | "config", ..] => "is no longer a directive of modprobe.d".to_owned(),
                [word, ..] => format!("`{word}` is unknown or lacks an argument"),
            };
            self.warnings.push(Warning { place: format!("{origin}:{number}"), problem });
        }
    }

    /// Adds what the image configuration says.
    pub fn add_settings(&mut self, settings: &Settings) {
        self.forbidden.extend(settings.forbid.iter().cloned());
    }

    /// Adds parameters that somebody asks for together with a module or an alias; they come after all others, so that
    /// they win.
    pub fn add_parameters(&mut self, request: &str, parameters: &str) {
        if !parameters.is_empty() {
            self.options.push((normalise_alias(request), parameters.to_owned()));
        }
    }

    /// Adds only what keeps modules away: `modprobe.blacklist=`, `rd.driver.blacklist=` and `rd.kdump.forbid=`. For who
    /// builds an image for that command line, and loads nothing.
    pub fn add_bans(&mut self, cmdline: &Cmdline) {
        for name in ["modprobe.blacklist", "rd.driver.blacklist"] {
            self.blacklist.extend(cmdline.list(name).map(ModuleName::new));
        }
        self.forbidden.extend(cmdline.list("rd.kdump.forbid").map(ModuleName::new));
    }

    /// Adds `modprobe.blacklist=`, `rd.driver.blacklist=`, `rd.driver.pre=`, `rd.driver.post=`, `rd.kdump.forbid=` and
    /// `MODULE.PARAMETER[=VALUE]`. Names in the lists may be written with dashes; kmod's own parser would not match
    /// those.
    pub fn add_cmdline(&mut self, cmdline: &Cmdline) {
        self.add_bans(cmdline);
        self.first.extend(cmdline.list("rd.driver.pre").map(str::to_owned));
        // What is to be loaded last must not be loaded earlier because a device asks for it.
        self.blacklist.extend(cmdline.list("rd.driver.post").map(ModuleName::new));
        self.last.extend(cmdline.list("rd.driver.post").map(str::to_owned));
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

    /// Whether that module must not be loaded at all.
    pub fn is_forbidden(&self, name: &ModuleName) -> bool {
        self.forbidden.contains(name)
    }

    /// What `rd.driver.pre=` wants loaded before the devices are asked.
    pub fn load_first(&self) -> &[String] {
        &self.first
    }

    /// What `rd.driver.post=` wants loaded after the devices have got their drivers.
    pub fn load_last(&self) -> &[String] {
        &self.last
    }

    /// What `weakdep` lines say that the module may ask for later.
    pub fn weakdep(&self, name: &ModuleName) -> impl Iterator<Item = &str> {
        let lines = self.weakdeps.iter().filter(|(of, _)| pattern::matches(of, name.as_str()));
        lines.flat_map(|(_, words)| words.iter().map(String::as_str))
    }

    /// Whether an `install` or `remove` line knows that name.
    pub fn has_command(&self, name: &ModuleName) -> bool {
        self.install(name).is_some() || self.removes.iter().any(|of| pattern::matches(of, name.as_str()))
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
        first_match(&self.install, name).map(|command| command.line.as_str())
    }

    /// The `install` lines whose command is more than `true` or `false`. Nothing runs it in an image, so that the module
    /// is not loaded.
    pub fn foreign_installs(&self) -> impl Iterator<Item = Warning> {
        let foreign = |(_, command): &&(String, Command)| {
            let word = command.line.split_whitespace().next().unwrap_or_default();
            !matches!(word, "/bin/true" | "/usr/bin/true" | "/bin/false" | "/usr/bin/false" | "true" | "false" | ":")
        };
        self.install.iter().filter(foreign).map(|(module, command)| Warning {
            place: command.place.clone(),
            problem: format!(
                "`install {module} {}`: an image has no shell for that; {module} will not be loaded",
                command.line
            ),
        })
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

    #[test]
    fn the_command_line_says_what_comes_first_what_last_and_what_never() {
        let mut config = config("weakdep top-* a b\nremove gone /bin/true\n");
        config.add_settings(&Settings { forbid: vec!["from-image".into()] });
        config.add_cmdline(&Cmdline::parse("rd.driver.pre=a,b-c rd.driver.post=d-e rd.kdump.forbid=f-g \"x.y=1 2\""));
        assert_eq!(
            (config.load_first(), config.load_last()),
            (&["a".to_owned(), "b-c".to_owned()][..], &["d-e".to_owned()][..])
        );
        assert!(config.is_blacklisted(&"d_e".into()) && !config.is_blacklisted(&"a".into()));
        assert!(config.is_forbidden(&"f_g".into()) && config.is_forbidden(&"from_image".into()));
        assert_eq!(config.parameters(&"x".into(), "x"), "y=\"1 2\"");
        assert_eq!(config.weakdep(&"top_x".into()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(config.has_command(&"gone".into()) && !config.has_command(&"here".into()));
    }

    #[test]
    fn commands_that_nothing_can_run_are_named_with_their_place() {
        let config = config("install a /bin/true\ninstall b /sbin/modprobe -i b; echo\ninclude other\n");
        let foreign: Vec<_> = config.foreign_installs().map(|warning| (warning.place, warning.problem)).collect();
        assert_eq!(foreign.len(), 1);
        assert!(foreign[0].0 == "test.conf:2" && foreign[0].1.contains("/sbin/modprobe -i b; echo"), "{foreign:?}");
        assert_eq!(config.warnings[0].place, "test.conf:3");
    }
}
