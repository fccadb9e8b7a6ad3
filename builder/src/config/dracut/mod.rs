//! dracut's words: those of `dracut_args` in kdump.conf, and those of dracut.conf and its directories.
//!
//! In: both. Out: what they ask of an image that dracut does not build. Each word is followed, or has no meaning here
//! and the reason is known, or is refused by name.
//! May surprise: dracut.conf is about every image of the machine, so that what cannot be had is left out of this one with
//! a warning; `dracut_args` is about this one alone, and what it says must be possible. But modules that the kernel does
//! not have are left out with a warning in both, as dracut does: the same line often serves several kernels.

mod args;
mod conf;
mod modules;
mod shell;

pub use conf::{DIRECTORIES, FILE};

use super::image::Include;
use super::values::{module_name, program, program_or_name};
use super::{Complaints, Config, Dialect, Given, Image, Origin, TargetLine, Wanted, append, values};
use crate::cpio::write::Packing;
use crate::crashkernel::Arch;
use anyhow::{Context, bail};
use clap::ValueEnum;
use kdump_hooks::cifs::Cifs;
use kdump_hooks::nfs::Nfs;
use std::path::{Path, PathBuf};

/// What dracut is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What is in the image.
    pub image: Image,
    /// The target that `--mount` names.
    pub target: Option<Given<Wanted>>,
    /// Options for the capture kernel's command line.
    pub kernel_cmdline: Option<Given<String>>,
    /// The private key for a target by SSH.
    pub sshkey: Option<Given<PathBuf>>,
}

/// What one word of dracut's is about; both its command line and its configuration have most of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    AddDrivers,
    ForceDrivers,
    OmitDrivers,
    Filesystems,
    Install,
    InstallOptional,
    Firmware,
    AddModules,
    OmitModules,
    KernelCmdline,
    Compress,
    Hostonly,
    SshKey,
    /// It has no meaning here, for this reason.
    Moot(&'static str),
    /// It cannot be followed; this is what to do instead.
    Refused(&'static str),
}

impl Asked {
    /// Follows the arguments of dracut, as kdump.conf has them.
    ///
    /// # Errors
    /// The first that cannot be followed, with the remedy.
    pub(super) fn arguments(&mut self, value: &str, place: &Origin, complaints: &mut Complaints) -> anyhow::Result<()> {
        args::follow(self, value, place, complaints)
    }

    /// Follows options of a command line, each of which is its own place.
    ///
    /// # Errors
    /// The first that cannot be followed, with the remedy.
    pub fn options(&mut self, words: Vec<String>, complaints: &mut Complaints) -> anyhow::Result<()> {
        args::follow_words(self, words, None, complaints)
    }

    /// Adds what dracut.conf below `root` says, as far as these say nothing else. The files that were read.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn configuration(&mut self, root: &Path, complaints: &mut Complaints) -> anyhow::Result<Vec<PathBuf>> {
        conf::read(self, root, false, complaints)
    }

    /// As [`Asked::configuration`], for an image that boots the system.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn for_boot(&mut self, root: &Path, complaints: &mut Complaints) -> anyhow::Result<()> {
        conf::read(self, root, true, complaints).map(|_| ())
    }

    /// Adds what the text of one configuration file says.
    pub fn text(&mut self, text: &str, file: &Path, complaints: &mut Complaints) {
        conf::follow(self, text, file, complaints);
    }

    /// One word. `strictly` if what it names must be possible.
    fn follow(
        &mut self,
        word: Word,
        value: &str,
        place: &Origin,
        strictly: bool,
        complaints: &mut Complaints,
    ) -> anyhow::Result<()> {
        let image = &mut self.image;
        match word {
            Word::AddDrivers => extend(&mut image.add_drivers, value, place, driver)?,
            Word::ForceDrivers => extend(&mut image.force_drivers, value, place, driver)?,
            Word::OmitDrivers => extend(&mut image.omit_drivers, value, place, driver)?,
            Word::Filesystems => extend(&mut image.filesystems, value, place, module_name)?,
            Word::Install => extend(&mut image.install, value, place, program_or_name)?,
            Word::InstallOptional => extend(&mut image.install_optional, value, place, program_or_name)?,
            Word::Firmware => {
                let value = value.replace(':', " ");
                extend(&mut image.firmware, &value, place, program)?;
            }
            Word::AddModules => {
                for name in value.split_whitespace() {
                    if modules::set(name, image, place) {
                        continue;
                    }
                    match modules::added(name) {
                        Ok(why) => complaints.note(place, format!("dracut's module {name}: {why}")),
                        Err(problem) if strictly => return Err(problem),
                        Err(problem) => complaints.note(place, problem),
                    }
                }
            }
            Word::OmitModules => {
                for name in value.split_whitespace() {
                    match name {
                        "watchdog" | "watchdog-modules" => image.watchdog = Some(Given::at(false, place)),
                        name => complaints.note(place, format!("dracut's module {name} is not in any image of ours")),
                    }
                }
            }
            Word::KernelCmdline => append_line(&mut self.kernel_cmdline, value, place),
            Word::Compress => match packing(value) {
                Ok(packing) => image.compress = Some(Given::at(packing, place)),
                Err(problem) if strictly => return Err(problem),
                Err(problem) => complaints.note(place, problem),
            },
            Word::Hostonly => image.hostonly = Some(Given::at(values::switch(value)?, place)),
            Word::SshKey => self.sshkey = Some(Given::at(program(value)?, place)),
            Word::Moot(why) => complaints.note(place, why),
            Word::Refused(instead) => bail!("{instead}"),
        }
        Ok(())
    }

    /// Puts into the model what does not belong to the image itself, beside what is usual where it is.
    pub(super) fn apply(self, usual: (Dialect, Arch), dump: &mut super::KdumpConf, system: &mut super::Sysconfig) {
        dump.image = self.image;
        if dump.sshkey.is_none() {
            dump.sshkey = self.sshkey;
        }
        if let Some(more) = &self.kernel_cmdline {
            append::add(usual, &mut system.append, more);
        }
    }
}

impl Asked {
    /// Adds it to a configuration that has been read; of single values, these count.
    pub fn add_to(mut self, config: &mut Config) {
        let image = &mut config.dump.image;
        image.take_lists(&mut self.image);
        image.take_values(self.image);
        config.dump.sshkey = self.sshkey.or(config.dump.sshkey.take());
        if let Some(target) = self.target {
            config.dump.targets = vec![target];
        }
        if let Some(more) = &self.kernel_cmdline {
            append::add((config.dialect, config.arch), &mut config.system.append, more);
        }
    }

    /// Only an image for dumps can follow this option of a command line.
    pub fn only_for_dumps(&self) -> Option<&'static str> {
        let words = [(self.target.is_some(), "--mount"), (self.sshkey.is_some(), "--sshkey")];
        words.into_iter().find_map(|(is_asked, option)| is_asked.then_some(option))
    }
}

/// How many operands an option of dracut's has, as it is written on a command line; nothing if there is no such option.
pub fn operands(option: &str) -> Option<usize> {
    args::operands(option)
}

/// Those of several places come one behind the other.
fn append_line(line: &mut Option<Given<String>>, more: &str, place: &Origin) {
    *line = Some(match line.take() {
        Some(Given { value, origin }) => Given { value: format!("{value} {}", more.trim()), origin },
        None => Given::at(more.trim().to_owned(), place),
    });
}

/// Adds every word of a value.
fn extend<T>(
    list: &mut Vec<Given<T>>,
    value: &str,
    place: &Origin,
    make: impl Fn(&str) -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    for word in value.split_whitespace() {
        list.push(Given::at(make(word)?, place));
    }
    Ok(())
}

/// A module by its name; dracut takes directories and patterns, too.
fn driver(text: &str) -> anyhow::Result<String> {
    if text.starts_with('=') || text.contains(|c: char| "/*?[]()|^$+\\".contains(c)) {
        bail!("`{text}` names modules by a directory or a pattern, which is not supported; name each module");
    }
    module_name(text.strip_suffix(".ko").unwrap_or(text))
}

/// The packing that a compressor of dracut's makes.
fn packing(value: &str) -> anyhow::Result<Packing> {
    // dracut takes a program with its options, or its own name for one.
    let program = value.split_whitespace().next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let name = match program {
        "cat" | "no" | "none" => "none",
        "pigz" | "gzip" => "gzip",
        "zstdmt" => "zstd",
        "lbzip2" | "pbzip2" => "bzip2",
        "pixz" => "xz",
        other => other,
    };
    Packing::from_str(name, true).map_err(|_| {
        let all: Vec<String> = Packing::value_variants()
            .iter()
            .filter_map(|packing| Some(packing.to_possible_value()?.get_name().to_owned()))
            .collect();
        anyhow::anyhow!("an image is not packed with `{program}` here; there are {}", all.join(", "))
    })
}

/// The target that `--mount "DEVICE MOUNTPOINT TYPE OPTIONS"` describes.
fn mount(value: &str) -> anyhow::Result<Wanted> {
    let mut fields = value.split_whitespace();
    let (Some(device), Some(_), Some(fstype)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("`{value}` does not describe a target; write --mount \"DEVICE MOUNTPOINT TYPE OPTIONS\"");
    };
    let options: Vec<String> = fields.next().map_or(Vec::new(), |options| {
        let kept = options.split(',').filter(|option| !option.is_empty() && *option != "defaults");
        kept.filter(|option| !option.starts_with("x-")).map(str::to_owned).collect()
    });
    let line = match fstype {
        "nfs" | "nfs4" => TargetLine::Nfs(values::from_str::<Nfs>(device)?),
        "cifs" | "smb3" => {
            let mut share: Cifs = values::from_str(device)?;
            share.credentials = options
                .iter()
                .find_map(|option| option.strip_prefix("credentials=").or(option.strip_prefix("cred=")))
                .map(program)
                .transpose()
                .context("credentials=")?;
            TargetLine::Cifs(share)
        }
        "virtiofs" => TargetLine::Virtiofs(values::check_tag(device)?),
        fstype => {
            let (fstype, device) = values::filesystem(fstype, device)?;
            TargetLine::Filesystem { fstype, device }
        }
    };
    let options = options.into_iter().filter(|option| !option.starts_with("cred")).collect();
    Ok(Wanted { line, path: None, options })
}

/// Whether that was said by dracut.conf, which is about every image of the machine.
pub fn is_of_every_image(origin: &Origin) -> bool {
    matches!(origin, Origin::Line(file, _) if conf::is_dracut(file))
}

/// The two operands of `--include`.
fn include(from: &str, to: &str) -> anyhow::Result<Include> {
    Ok(Include { from: program(from)?, to: program(to)? })
}

/// The options of dracut that are followed.
#[cfg(test)]
pub(super) fn followed_options() -> Vec<&'static str> {
    args::followed()
}

/// The keys of dracut.conf that are followed.
#[cfg(test)]
pub(super) fn followed_keys() -> Vec<&'static str> {
    conf::followed()
}

impl Word {
    /// Whether it asks for something that is done.
    #[cfg(test)]
    fn is_followed(self) -> bool {
        !matches!(self, Word::Moot(_) | Word::Refused(_))
    }
}
