//! What the administrator asked for, each value with the place it was written at.
//!
//! In: `kdump.conf` or the native `kdump.toml`, and `/etc/sysconfig/kdump`. Out: [`Config`], one model that each of them
//! fills. A file that says something this version cannot do is
//! refused with `FILE:LINE` and the remedy; nothing is passed over in silence, because the next reader of that file is
//! a machine that has just crashed.

mod collector;
pub mod fence;
mod kdump_conf;
pub mod native;
pub mod notify;
mod savedir;
mod sysconfig;

pub use collector::{Collector, DEFAULT_COLLECTOR, OURS};
pub use kdump_conf::{KdumpConf, OnFailure, TargetLine, Wanted};
pub use native::Native;
pub use savedir::Savedir;
pub(crate) use sysconfig::assignments;
pub use sysconfig::{FailCommand, Sysconfig};

use anyhow::{Context, bail};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a configuration file.
    Line(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::Line(file, line) => write!(f, "{}:{line}", file.display()),
        }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> Given<T> {
    /// A value that nobody asked for.
    pub fn default(value: T) -> Self {
        Given { value, origin: Origin::Default }
    }
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `kdump.conf` can say, and what `kdump.toml` can say besides.
    pub dump: KdumpConf,
    /// `/etc/sysconfig/kdump`.
    pub system: Sysconfig,
    /// What should be looked at, though it stops nothing.
    pub warnings: Vec<String>,
}

/// The configuration files, as they were named on the command line or not.
#[derive(Clone, Debug)]
pub struct Files {
    /// `kdump.toml`, if it is one that may be read; it may be missing unless it was named.
    pub native: Option<PathBuf>,
    /// Whether [`Files::native`] was named.
    pub native_named: bool,
    /// `kdump.conf`.
    pub kdump_conf: PathBuf,
    /// `/etc/sysconfig/kdump`; it may be missing unless it was named.
    pub sysconfig: PathBuf,
    /// Whether [`Files::sysconfig`] was named.
    pub sysconfig_named: bool,
}

impl Files {
    /// The files of the system at `root`, those that are named in place of the usual ones. A `config` whose name ends in
    /// `.toml` is a native one.
    pub fn new(root: &Path, config: Option<&Path>, sysconfig: Option<&Path>) -> Self {
        let is_native = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
        let (native, kdump_conf) = match config {
            None => (Some(native::path(root)), None),
            Some(config) if is_native(config) => (Some(config.to_owned()), None),
            Some(config) => (None, Some(config.to_owned())),
        };
        Files {
            native_named: native.is_some() && config.is_some(),
            native,
            kdump_conf: kdump_conf.unwrap_or_else(|| root.join("etc/kdump.conf")),
            sysconfig: sysconfig.map_or_else(|| root.join("etc/sysconfig/kdump"), Path::to_owned),
            sysconfig_named: sysconfig.is_some(),
        }
    }
}

impl Config {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it cannot be followed.
    pub fn read(files: &Files) -> anyhow::Result<Config> {
        let mut warnings = Vec::new();
        if let Some(path) = &files.native
            && let Some(native) = Config::native(path, files, &mut warnings)?
        {
            let mut system = Config::system(files, &mut warnings)?;
            native.override_system(&mut system, &mut warnings);
            if let Some(savedir) = &system.savedir {
                warnings.push(format!(
                    "{}: KDUMP_SAVEDIR has no effect: {} is here and wins",
                    savedir.origin,
                    path.display()
                ));
            }
            return Ok(Config { dump: native.dump, system, warnings });
        }
        let system = Config::system(files, &mut warnings)?;
        let text = match read_text(&files.kdump_conf)? {
            Some(text) => text,
            // SUSE has no other file.
            None if system.savedir.is_some() => String::new(),
            None => bail!(
                "there is no configuration {}; an empty file asks for all defaults, --config names another",
                files.kdump_conf.display()
            ),
        };
        let mut dump = KdumpConf::parse(&text, &files.kdump_conf, &mut warnings)?;
        if let Some(savedir) = &system.savedir {
            dump.follow_savedir(savedir)?;
        }
        Ok(Config { dump, system, warnings })
    }

    /// The native configuration, if there is one.
    fn native(path: &Path, files: &Files, warnings: &mut Vec<String>) -> anyhow::Result<Option<Native>> {
        let text = match read_text(path)? {
            Some(text) => text,
            None if files.native_named => bail!("there is no configuration {}, which --config names", path.display()),
            None => return Ok(None),
        };
        let native = Native::parse(&text, path)?;
        // What is in the other file does not matter, but for its being there.
        let other = read_text(&files.kdump_conf).ok().flatten().unwrap_or_default();
        if let Some(unread) = native::unread(&other, &files.kdump_conf).filter(|_| !files.native_named) {
            warnings.push(format!("{unread}: {} is here and wins; empty one of the two", path.display()));
        }
        Ok(Some(native))
    }

    fn system(files: &Files, warnings: &mut Vec<String>) -> anyhow::Result<Sysconfig> {
        match read_text(&files.sysconfig)? {
            Some(text) => Sysconfig::parse(&text, &files.sysconfig, warnings),
            None if files.sysconfig_named => {
                bail!("there is no configuration {}, which --sysconfig names", files.sysconfig.display())
            }
            None => Ok(Sysconfig::default()),
        }
    }
}

/// The text of a file; `None` if there is no such file.
fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read the configuration {}", path.display())),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
            bail!("{}:{line}: this is not UTF-8 text; save the file as UTF-8", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(conf: Option<&[u8]>) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/sysconfig")).unwrap();
        if let Some(conf) = conf {
            fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
        }
        let files = Files::new(root.path(), None, None);
        (root, files)
    }

    #[test]
    fn an_empty_configuration_asks_for_the_defaults() {
        let (_root, files) = files(Some(b""));
        let config = Config::read(&files).unwrap();
        assert_eq!(config.dump.path.value, Path::new("/var/crash"));
        assert_eq!(config.dump.path.origin.to_string(), "the default");
        assert_eq!(config.system, Sysconfig::default());
    }

    #[test]
    fn a_missing_configuration_is_an_error_with_a_remedy() {
        let (_root, files) = files(None);
        let error = Config::read(&files).unwrap_err().to_string();
        assert!(error.contains("etc/kdump.conf; an empty file asks for all defaults"), "{error}");
    }

    #[test]
    fn the_native_configuration_wins_where_it_is_and_says_so() {
        let (root, files) = files(Some(b"\npath /a\n"));
        assert!(Config::read(&files).unwrap().warnings.is_empty());
        fs::create_dir(root.path().join("etc/kdump")).unwrap();
        let native = root.path().join(native::PATH);
        fs::write(&native, "path = \"/b\"").unwrap();
        let config = Config::read(&files).unwrap();
        assert_eq!(config.dump.path.value, Path::new("/b"));
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(warning.contains("etc/kdump.conf:2: `path` and all of this file has no effect: "), "{warning}");
        let named = Files::new(root.path(), Some(&root.path().join("etc/kdump.conf")), None);
        assert_eq!(Config::read(&named).unwrap().dump.path.value, Path::new("/a"));
        let named = Files::new(root.path(), Some(&native), None);
        assert!(Config::read(&named).unwrap().warnings.is_empty());
        let missing = Files::new(root.path(), Some(Path::new("/nowhere.toml")), None);
        assert!(Config::read(&missing).unwrap_err().to_string().contains("/nowhere.toml, which --config names"));
    }

    #[test]
    fn a_sysconfig_file_may_be_missing_unless_it_was_named() {
        let (root, _) = files(Some(b""));
        let named = root.path().join("nowhere");
        let files = Files::new(root.path(), None, Some(&named));
        assert!(Config::read(&files).unwrap_err().to_string().contains("which --sysconfig names"));
    }

    #[test]
    fn suse_has_one_file_and_who_has_both_says_it_once() {
        let (root, files) = files(None);
        fs::write(root.path().join("etc/sysconfig/kdump"), "KDUMP_SAVEDIR=ssh://nas/srv/crash\n").unwrap();
        let config = Config::read(&files).unwrap();
        assert_eq!(config.dump.path.value, Path::new("/srv/crash"));
        assert!(matches!(config.dump.targets[0].value.line, TargetLine::Remote(_)));
        for other in ["path /x\n", "ext4 UUID=1\n"] {
            fs::write(root.path().join("etc/kdump.conf"), other).unwrap();
            let error = Config::read(&files).unwrap_err().to_string();
            assert!(error.contains("KDUMP_SAVEDIR says where dumps go") && error.contains("kdump.conf:1"), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_line() {
        let (_root, files) = files(Some(b"path /a\n\xff\n"));
        let error = Config::read(&files).unwrap_err().to_string();
        assert!(error.contains("kdump.conf:2: this is not UTF-8"), "{error}");
    }
}
