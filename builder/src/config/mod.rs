//! What the administrator asked for, each value with the place it was written at.
//!
//! In: the files of RHEL, SUSE or Debian, whichever the machine has, dracut.conf, or the native `kdump.toml`. Out:
//! [`Config`], one model that each of them fills. A file that says something this version cannot do is refused with
//! `FILE:LINE` and the remedy; nothing is passed over in silence, because the next reader of that file is a machine that
//! has just crashed.
//!
//! | room | is |
//! |---|---|
//! | [`rhel`], [`suse`], [`debian`], [`native`] | one dialect each: its words, and what each comes to |
//! | [`dracut`] | dracut.conf, and dracut's options in kdump.conf and on a command line |
//! | [`initramfs_tools`] | the lists of initramfs-tools, for images that boot the system |
//! | [`pacemaker`] | the nodes of a cluster, where kdump.conf names none |
//! | `dump`, `system`, `image` | the model |
//! | `files` | which files there are, and whose language they are in |
//! | `assignments` | the reader of files that others source as shell |
//! | [`settings`] | the model as a list, each value with its native name: what `kdumpctl config` shows and converts |

mod append;
mod assignments;
mod collector;
pub mod debian;
pub mod dracut;
mod dump;
pub mod fence;
mod files;
mod given;
mod image;
pub mod initramfs_tools;
pub mod native;
pub mod notify;
pub mod pacemaker;
pub(crate) mod privacy;
pub mod rhel;
pub mod settings;
pub mod suse;
mod system;
#[cfg(test)]
mod tests;
mod values;
mod words;

pub(crate) use assignments::assignments_of;
pub use collector::{Collector, DEFAULT_COLLECTOR, OURS};
pub use dump::{KdumpConf, OnFailure, TargetLine, Wanted};
pub use files::{Dialect, Files};
pub use given::{Complaints, Given, Origin};
pub use image::{Image, Include, Rebuild};
pub use native::Native;
pub use rhel::Rhel;
pub use suse::Savedir;
pub use system::{FailCommand, Syscall, Sysconfig};

use crate::crashkernel::Arch;
use anyhow::bail;
use assignments::Variables;
use files::{Texts, read_text};
use std::path::{Path, PathBuf};

/// Everything that is configured.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Whose words they are.
    pub dialect: Dialect,
    /// What the machine is.
    pub arch: Arch,
    /// What is done about a dump.
    pub dump: KdumpConf,
    /// What is known of the capture kernel, and what SUSE's and Debian's variables say besides.
    pub system: Sysconfig,
    /// The files that were read.
    pub sources: Vec<PathBuf>,
    /// What should be looked at, though it stops nothing.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it cannot be followed.
    pub fn read(files: &Files) -> anyhow::Result<Config> {
        let mut complaints = Complaints::default();
        let config = Config::examine(files, &mut complaints)?;
        complaints.check()?;
        Ok(Config { warnings: complaints.warnings, ..config })
    }

    /// Reads the files as far as they can be followed, and tells everything that is wrong with them.
    ///
    /// # Errors
    /// A file cannot be read, or it cannot be told which one is meant.
    pub fn examine(files: &Files, complaints: &mut Complaints) -> anyhow::Result<Config> {
        let config = Config::understood(files, complaints)?;
        privacy::look(&config, &files.root, complaints);
        config.look_at_room(complaints);
        Ok(config)
    }

    /// What is to be removed has to be on a disk of this machine.
    fn look_at_room(&self, complaints: &mut Complaints) {
        let is_elsewhere =
            |target: &TargetLine| matches!(target, TargetLine::Nfs(_) | TargetLine::Cifs(_) | TargetLine::Remote(_));
        let targets = &self.dump.targets;
        let all_are = !targets.is_empty() && targets.iter().all(|target| is_elsewhere(&target.value.line));
        if let Some(keep) = self.system.keep.as_ref().filter(|_| all_are) {
            let why =
                "old dumps are removed from disks of this machine alone, and no target is one; have the server do it";
            complaints.warn(&keep.origin, why);
        }
    }

    fn understood(files: &Files, complaints: &mut Complaints) -> anyhow::Result<Config> {
        if let Some(path) = &files.native
            && let Some(text) = Config::native(path, files)?
        {
            return Config::with_native(path, &text, files, complaints);
        }
        let texts = files.texts()?;
        if let Some((path, text)) = files.shipped(&texts)? {
            complaints.warnings.push(format!(
                "there is no configuration, as after a package went that brought one: {} holds, which is the default; copy \
                 it to /{}",
                path.display(),
                native::PATH
            ));
            return Config::with_native(&path, &text, files, complaints);
        }
        let dialect = files.dialect(&texts)?;
        let mut config = Config { dialect, arch: Arch::of(&files.root), ..Config::default() };
        let mut asked = dracut::Asked::default();
        match dialect {
            Dialect::Debian => {
                let text = texts.debian.as_deref().unwrap_or_default();
                (config.dump, config.system) = debian::parse(text, &files.debian, &files.root, complaints);
                config.sources.push(files.debian.clone());
            }
            _ => {
                let conf = texts.conf.as_deref().unwrap_or_default();
                let rhel = Rhel::parse(conf, &files.kdump_conf, complaints);
                let dracut_conf = rhel.dracut_conf.as_ref().is_none_or(|given| given.value);
                (config.dump, asked) = (rhel.dump, rhel.dracut);
                config.sources.extend(texts.conf.is_some().then(|| files.kdump_conf.clone()));
                config.system(&texts, files, complaints);
                // Debian builds its images without dracut.
                if dracut_conf {
                    config.sources.extend(asked.configuration(&files.root, complaints)?);
                }
            }
        }
        asked.apply((config.dialect, config.arch), &mut config.dump, &mut config.system);
        pacemaker::follow(&mut config, &files.root, complaints)?;
        Ok(config)
    }

    /// What the files of dracut and of initramfs-tools below `root` ask of every image that boots the system: that is all
    /// that counts for one.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it cannot be followed.
    pub fn for_boot(root: &Path) -> anyhow::Result<Config> {
        let (mut complaints, mut asked) = (Complaints::default(), dracut::Asked::default());
        asked.for_boot(root, &mut complaints)?;
        initramfs_tools::read(&mut asked.image, root, &mut complaints)?;
        complaints.check()?;
        complaints.notes.iter().for_each(|note| log::debug!("{note}"));
        let mut config = Config { arch: Arch::of(root), warnings: complaints.warnings, ..Config::default() };
        config.dump.image = asked.image;
        Ok(config)
    }

    /// The text of the native configuration, if there is one.
    fn native(path: &Path, files: &Files) -> anyhow::Result<Option<String>> {
        match read_text(path)? {
            Some(text) => Ok(Some(text)),
            None if files.native_named => bail!("there is no configuration {}, which --config names", path.display()),
            None => Ok(None),
        }
    }

    /// The native configuration, and what the others have to say beside it.
    fn with_native(path: &Path, text: &str, files: &Files, complaints: &mut Complaints) -> anyhow::Result<Config> {
        let native = Native::examine(text, path, complaints);
        // What is in the other files does not matter, but for its being there.
        for other in [&files.kdump_conf, &files.debian] {
            let text = read_text(other).ok().flatten().unwrap_or_default();
            if let Some(unread) = native::unread(&text, other).filter(|_| !files.native_named) {
                complaints
                    .warnings
                    .push(format!("{unread}: {} is here and wins; empty one of the two", path.display()));
            }
        }
        let sysconfig = read_text(&files.sysconfig)?;
        if sysconfig.is_none() && files.sysconfig_named {
            bail!("there is no configuration {}, which --sysconfig names", files.sysconfig.display());
        }
        let has_conf = read_text(&files.kdump_conf).ok().flatten();
        let texts = Texts { sysconfig, conf: has_conf.map(|_| String::new()), debian: None };
        let mut config = Config {
            dialect: Dialect::Native,
            arch: Arch::of(&files.root),
            sources: vec![path.to_owned()],
            ..Config::default()
        };
        config.system(&texts, files, complaints);
        let log_only = config.dump.log_only.as_ref().map(|given| &given.origin);
        for origin in [config.dump.place_said(), Some(&config.dump.collector.origin), log_only].into_iter().flatten() {
            if matches!(origin, Origin::Line(..)) {
                let words = format!("what it says of the dump has no effect: {} is here and wins", path.display());
                complaints.warn(origin, words);
            }
        }
        native.override_system(&mut config.system, complaints);
        let variables = std::mem::replace(&mut config.dump, native.dump);
        config.dump.notify = config.dump.notify.or(variables.notify);
        if config.dump.fence_nodes.is_none() {
            (config.dump.fence_nodes, config.dump.fence_args) = (variables.fence_nodes, variables.fence_args);
        }
        pacemaker::follow(&mut config, &files.root, complaints)?;
        Ok(config)
    }

    /// What the text of an `/etc/sysconfig/kdump` asks for; `alone` where there is no kdump.conf.
    pub fn of_sysconfig(text: &str, file: &Path, alone: bool, complaints: &mut Complaints) -> Config {
        let mut config = Config::default();
        config.variables(text, file, alone, complaints);
        config
    }

    fn system(&mut self, texts: &Texts, files: &Files, complaints: &mut Complaints) {
        if let Some(text) = &texts.sysconfig {
            self.sources.push(files.sysconfig.clone());
            self.variables(text, &files.sysconfig, texts.conf.is_none(), complaints);
        }
    }

    /// What `/etc/sysconfig/kdump` says, in RHEL's and in SUSE's words.
    fn variables(&mut self, text: &str, file: &Path, alone: bool, complaints: &mut Complaints) {
        let mut variables = Variables::read(text, file, complaints);
        let alone = alone && suse::is_suse(&variables);
        rhel::follow_sysconfig(&mut variables, &mut self.system);
        suse::follow(&mut variables, &mut self.dump, &mut self.system, alone, self.arch);
        // Debian's words for what neither of them has.
        debian::ending(&mut variables, &mut self.system);
        let known: Vec<&str> = rhel::VARIABLES.iter().chain(&suse::VARIABLES).chain(&debian::ENDING).copied().collect();
        variables.finish(&known);
    }
}
