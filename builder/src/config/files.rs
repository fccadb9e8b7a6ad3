//! The configuration files, and whose language the machine speaks.
//!
//! In: what was named on the command line, and the root of the machine. Out: the files, and their text. Which dialect
//! counts is decided by which files are there ([`Dialect`]); two that both say something are an error that names a line
//! of each.

use super::assignments::Variables;
use super::{Complaints, debian, native, suse};
use anyhow::{Context, bail};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A `kdump.toml` that says what holds where nobody has said anything.
const SHIPPED: &str = "usr/share/kdump/kdump.toml";

/// Whose files a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `/etc/kdump/kdump.toml`, ours; it wins where it is.
    Native,
    /// `/etc/kdump.conf` and `/etc/sysconfig/kdump`, RHEL's.
    #[default]
    Rhel,
    /// `/etc/sysconfig/kdump` alone, SUSE's.
    Suse,
    /// `/etc/default/kdump-tools`, Debian's.
    Debian,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Native => "native",
            Dialect::Rhel => "RHEL",
            Dialect::Suse => "SUSE",
            Dialect::Debian => "Debian",
        })
    }
}

/// The configuration files, as they were named on the command line or not.
#[derive(Clone, Debug)]
pub struct Files {
    /// The root of the machine.
    pub root: PathBuf,
    /// `kdump.toml`, if it is one that may be read; it may be missing unless it was named.
    pub native: Option<PathBuf>,
    /// Whether [`Files::native`] was named.
    pub native_named: bool,
    /// `kdump.conf`.
    pub kdump_conf: PathBuf,
    /// Whether [`Files::kdump_conf`] was named.
    pub kdump_conf_named: bool,
    /// `/etc/sysconfig/kdump`; it may be missing unless it was named.
    pub sysconfig: PathBuf,
    /// Whether [`Files::sysconfig`] was named.
    pub sysconfig_named: bool,
    /// `/etc/default/kdump-tools`.
    pub debian: PathBuf,
    /// Whether [`Files::debian`] was named.
    pub debian_named: bool,
}

impl Files {
    /// The files of the system at `root`, those that are named in place of the usual ones. A `config` whose name ends in
    /// `.toml` is a native one, and one that is called `kdump-tools` is Debian's.
    pub fn new(root: &Path, config: Option<&Path>, sysconfig: Option<&Path>) -> Self {
        let is_native = config.is_some_and(|path| path.extension().is_some_and(|extension| extension == "toml"));
        let is_debian = config.is_some_and(|path| path.file_name().is_some_and(|name| name == "kdump-tools"));
        let named = |is_it: bool, usual: &str| match config.filter(|_| is_it) {
            Some(config) => config.to_owned(),
            None => root.join(usual),
        };
        let is_conf = config.is_some() && !is_native && !is_debian;
        Files {
            root: root.to_owned(),
            native: (config.is_none() || is_native).then(|| named(is_native, native::PATH)),
            native_named: is_native,
            kdump_conf: named(is_conf, "etc/kdump.conf"),
            kdump_conf_named: is_conf,
            sysconfig: sysconfig.map_or_else(|| root.join("etc/sysconfig/kdump"), Path::to_owned),
            sysconfig_named: sysconfig.is_some(),
            debian: named(is_debian, debian::PATH),
            debian_named: is_debian,
        }
    }

    /// The text of each of the three files of distributions, as far as it may count beside what was named.
    pub(super) fn texts(&self) -> anyhow::Result<Texts> {
        let texts = Texts {
            conf: if self.debian_named { None } else { read_text(&self.kdump_conf)? },
            sysconfig: if self.debian_named && !self.sysconfig_named { None } else { read_text(&self.sysconfig)? },
            debian: if self.kdump_conf_named || self.sysconfig_named && !self.debian_named {
                None
            } else {
                read_text(&self.debian)?
            },
        };
        if self.sysconfig_named && texts.sysconfig.is_none() {
            bail!("there is no configuration {}, which --sysconfig names", self.sysconfig.display());
        }
        if self.kdump_conf_named && texts.conf.is_none() || self.debian_named && texts.debian.is_none() {
            let named = if self.debian_named { &self.debian } else { &self.kdump_conf };
            bail!(
                "there is no configuration {}; an empty file asks for all defaults, --config names another",
                named.display()
            );
        }
        Ok(texts)
    }

    /// What the package brings as a default, where there is nothing else and nothing is named.
    pub(super) fn shipped(&self, texts: &Texts) -> anyhow::Result<Option<(PathBuf, String)>> {
        if texts.conf.is_some() || texts.sysconfig.is_some() || texts.debian.is_some() || self.native.is_none() {
            return Ok(None);
        }
        let path = self.root.join(SHIPPED);
        Ok(read_text(&path)?.map(|text| (path, text)))
    }

    /// The dialect of the machine, if no native configuration is there.
    ///
    /// # Errors
    /// There is none, or there are two.
    pub(super) fn dialect(&self, texts: &Texts) -> anyhow::Result<Dialect> {
        let conf = texts.conf.as_deref().and_then(|text| first_line(text, &self.kdump_conf));
        let sysconfig = texts.sysconfig.as_deref().and_then(|text| first_line(text, &self.sysconfig));
        let debian = texts.debian.as_deref().and_then(|text| first_line(text, &self.debian));
        if let (Some(debian), Some(other)) = (&debian, conf.as_ref().or(sysconfig.as_ref())) {
            bail!(
                "{debian} and {other} are both configurations of kdump, and it cannot be told which is meant; empty one \
                 of the two files, name one with --config, or write {}",
                native::PATH
            );
        }
        if debian.is_some() {
            return Ok(Dialect::Debian);
        }
        let is_suse = || {
            let text = texts.sysconfig.as_deref().unwrap_or_default();
            let mut complaints = Complaints::default();
            suse::is_suse(&Variables::read(text, &self.sysconfig, &mut complaints))
        };
        match texts.conf {
            Some(_) => Ok(Dialect::Rhel),
            None if is_suse() => Ok(Dialect::Suse),
            // A file that says nothing asks for what it asks for.
            None if texts.debian.is_some() => Ok(Dialect::Debian),
            None => bail!(
                "there is no configuration, none of {}; an empty {} asks for all defaults, --config names another",
                self.all().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
                self.native.as_ref().unwrap_or(&self.kdump_conf).display()
            ),
        }
    }

    /// All files that there are or could be, of whatever dialect.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        let others = [&self.kdump_conf, &self.sysconfig, &self.debian];
        self.native.iter().chain(others).map(PathBuf::as_path)
    }
}

/// The text of each file that is there.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) conf: Option<String>,
    pub(super) sysconfig: Option<String>,
    pub(super) debian: Option<String>,
}

/// The place and the word of the first line that says something.
fn first_line(text: &str, file: &Path) -> Option<String> {
    let says = |line: &str| !line.is_empty() && !line.starts_with('#');
    let (number, line) = (1..).zip(text.lines().map(str::trim)).find(|(_, line)| says(line))?;
    let word = line.split([' ', '\t', '=']).next()?;
    Some(format!("{}:{number} (`{word}`)", file.display()))
}

/// The text of a file; `None` if there is no such file.
pub(super) fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read the configuration {}", path.display())),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(without_mark(text))),
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
            bail!("{}:{line}: this is not UTF-8 text; save the file as UTF-8", path.display())
        }
    }
}

/// The text without the byte order mark that some editors put in front of it, which is no part of the first word.
pub(super) fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    text
}
