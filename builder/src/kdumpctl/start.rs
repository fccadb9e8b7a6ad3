//! Loads the capture kernel, with an image that is built first if there is none, it is too old, or the way that its dumps
//! would take is no longer the machine's.

use super::kernel::OnDisk;
use super::{Machine, boot_loader, kernel, load, notify, reach, recovery, status, test, waiting};
use crate::asked::Asked;
use crate::build::{self, Built, Request};
use crate::cli::Loading;
use crate::config::{Config, Rebuild};
use crate::cpio::read::Archive;
use crate::host::{Kernel, SystemHost};
use crate::inspect;
use crate::uptodate::{self, place};
use crate::{console, generator, network};
use anyhow::{Context, bail};
use kdump_init::config::ImageConfig;
use std::fmt;
use std::fs;
use std::io::Write;

/// Checks, builds, loads; then sees to the boot loader and tells of the dumps of the last crash, whether or not there can be another.
pub(super) fn run(machine: &Machine, replace: bool, how: &Loading, out: &mut dyn Write) -> anyhow::Result<()> {
    let loaded = checked(machine, replace, how, out);
    boot_loader::at_start(machine, out);
    // After the start of the system there may be no network yet; a unit of its own waits for it.
    if !(reach::is_by_systemd() && generator::has_notice(&machine.tree)) {
        notify::run(machine);
    }
    loaded
}

fn checked(machine: &Machine, replace: bool, how: &Loading, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    if let Some(level) = &config.system.log_level {
        console::say(level.value);
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    // The last crash first: what it left is recovered whether or not there can be another dump.
    recovery::before_start(machine, &config, out)?;
    test::settle(machine, &config, out)?;
    status::feasible(&machine.tree)?;
    switched_on(&config)?;
    if !replace && status::is_loaded(&machine.tree) {
        log::warn!("a capture kernel is already loaded; kdumpctl start --replace loads another in its place");
        return Ok(());
    }
    status::may_load(&machine.tree)?;
    let disk = kernel::find(&machine.tree, &config.system)?;
    if let Some(built) = bring_up_to_date(machine, &config, &disk)? {
        for warning in built.warnings.iter().filter(|warning| !config.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        writeln!(out, "{}", build::write(&built, &disk.image, true)?)?;
    }
    load::run(machine, &disk, &config, how, out)
}

/// That Debian's `USE_KDUMP` does not switch everything off.
///
/// # Errors
/// It does.
pub(super) fn switched_on(config: &Config) -> anyhow::Result<()> {
    match config.system.enabled.as_ref().filter(|enabled| !enabled.value) {
        Some(enabled) => bail!("kdump is switched off: {} does not say USE_KDUMP=1", enabled.origin),
        None => Ok(()),
    }
}

/// What is said of an image that cannot be read, or not as one of ours.
const FOREIGN: &str = "it was not built by this version of mkdumprd";

/// Why an image has to be built.
pub(super) enum Lack {
    /// That is asked for (`force_rebuild`).
    Asked,
    /// There is none.
    Missing,
    /// It is not ours, or not for this kernel.
    Useless(anyhow::Error),
    /// These files of which it is made are no longer what they were.
    Changed(Vec<String>),
    /// The way to where its dumps go is another one now: what has changed.
    Moved(Vec<String>),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Asked => f.write_str("it is built at every start"),
            Lack::Missing => f.write_str("it is missing"),
            Lack::Useless(error) => write!(f, "it is of no use: {error:#}"),
            Lack::Changed(changed) => write!(f, "it is out of date: {}", changed.join("; ")),
            Lack::Moved(lines) => write!(f, "the machine has changed: {}", lines.join("; ")),
        }
    }
}

/// Why the image is missing, of no use, or out of date; `None` if it is neither.
pub(super) fn lacking(machine: &Machine, config: &Config, disk: &OnDisk) -> Option<Lack> {
    let Ok(bytes) = fs::read(&disk.image) else { return Some(Lack::Missing) };
    // It is unpacked once for all that is asked of it.
    let read = uptodate::read(&bytes).context(FOREIGN).and_then(|archive| {
        let (image, changed) = (check(disk, &archive)?, uptodate::changed(&machine.tree, &archive)?);
        Ok((archive, image, changed))
    });
    match read {
        Err(error) => Some(Lack::Useless(error)),
        Ok((_, _, changed)) if !changed.is_empty() => Some(Lack::Changed(changed)),
        Ok((archive, image, _)) => {
            Some(changes(machine, config, disk, &image, &archive)).filter(|lines| !lines.is_empty()).map(Lack::Moved)
        }
    }
}

/// Plans the image anew if it is missing, of no use, or older than what it is made of, or if its dumps would go another way.
fn bring_up_to_date(machine: &Machine, config: &Config, disk: &OnDisk) -> anyhow::Result<Option<Built>> {
    let when = config.dump.rebuild.as_ref().map(|given| given.value);
    let lack = match (lacking(machine, config, disk), when) {
        (None, Some(Rebuild::Always)) if has_modules(machine, disk) => Lack::Asked,
        (None | Some(Lack::Changed(_) | Lack::Moved(_)), Some(Rebuild::Never)) | (None, _) => return Ok(None),
        (Some(lack), _) => lack,
    };
    let image = disk.image.display();
    let has_modules = has_modules(machine, disk);
    match lack {
        Lack::Changed(changed) if !has_modules => {
            log::warn!(
                "{image} is no longer up to date ({}), and the modules of kernel {} are not here to build it again; it is \
                 loaded as it is",
                changed.join("; "),
                disk.release
            );
            return Ok(None);
        }
        Lack::Useless(error) if !has_modules => {
            return Err(error.context(format!("cannot use {image}, and the modules to build another are not here")));
        }
        Lack::Changed(changed) => log::info!("{image} is built again: {}", changed.join("; ")),
        Lack::Moved(lines) => {
            log::info!("the machine of {image} has changed, so it is built again: {}", lines.join("; "))
        }
        Lack::Useless(error) => log::info!("{image} is of no use and is built again: {error:#}"),
        Lack::Missing => log::info!("{image} is missing: it is built"),
        Lack::Asked => log::info!("{image} is built again, as it is at every start"),
    }
    build(machine, disk).map(Some)
}

/// Plans the image.
pub(super) fn build(machine: &Machine, disk: &OnDisk) -> anyhow::Result<Built> {
    if let Some(dir) = disk.image.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let what = format!("planning {}", disk.image.display());
    let old = Some(disk.image.clone()).filter(|image| image.is_file());
    waiting::while_saying(&what, || build::plan(&Request { old, ..request(machine, &disk.release) }))
        .with_context(|| format!("cannot build {}", disk.image.display()))
}

/// The image for that kernel, as the configuration has it.
pub(super) fn request(machine: &Machine, release: &str) -> Request {
    Request {
        kver: Some(release.to_owned()),
        sysroot: machine.tree.root().to_owned(),
        modules_dir: None,
        files: machine.files.clone(),
        programs: machine.programs.clone(),
        packing: None,
        asked: Asked::default(),
        normal: None,
        old: None,
    }
}

fn has_modules(machine: &Machine, disk: &OnDisk) -> bool {
    ["lib/modules", "usr/lib/modules"].iter().any(|dir| machine.tree.path(dir).join(&disk.release).is_dir())
}

/// How the way to the dumps, the network and the place itself, differs from what it would be now, if another image could
/// be built.
fn changes(machine: &Machine, config: &Config, disk: &OnDisk, image: &ImageConfig, archive: &Archive) -> Vec<String> {
    if !has_modules(machine, disk) {
        return Vec::new();
    }
    let compared = || {
        let kernel = Kernel::find(&machine.tree, Some(&disk.release), None)?;
        let host = SystemHost::new(machine.tree.clone(), kernel)?;
        anyhow::Ok(
            [place::changes(config, &host, image, archive), network::changes(config, &host, &image.hooks)].concat(),
        )
    };
    compared().unwrap_or_else(|error| {
        log::debug!("{error:#}");
        Vec::new()
    })
}

/// What an image of ours for that kernel tells init; another builder's may lie in the same place.
fn check(disk: &OnDisk, archive: &Archive) -> anyhow::Result<ImageConfig> {
    let config = inspect::config_of(archive).context(FOREIGN)?;
    if config.kernel_release != disk.release {
        bail!("it is for kernel {}, not for {}", config.kernel_release, disk.release);
    }
    Ok(config)
}
