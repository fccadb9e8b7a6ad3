//! Loads the capture kernel, with an image that is built first if there is none, it is too old, or the way that its dumps
//! would take is no longer the machine's.
//!
//! May surprise: where no other can be built, one that is merely too old is loaded, and the start fails all the same.

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
use std::io::{ErrorKind, Write};
use std::path::Path;

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
    let mut disk = kernel::find(&machine.tree, &config.system)?;
    let stale = match bring_up_to_date(machine, &config, &mut disk, out) {
        Ok(()) => Ok(()),
        // An image of the day before yesterday is better than none. That it is one is no success.
        Err(Failed { error, old: Some(lack) }) => {
            log::error!("{} is loaded as it is, though {lack}", disk.image.display());
            Err(error.context(format!("{} was loaded, which is not up to date", disk.image.display())))
        }
        Err(Failed { error, old: None }) => return Err(error),
    };
    load::run(machine, &disk, &config, how, out)?;
    stale
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
    /// It is there, and cannot be read: by nobody but root, for one.
    Unreadable(std::io::Error),
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
            Lack::Unreadable(error) if error.kind() == ErrorKind::PermissionDenied => {
                f.write_str("only root can read it and tell whether it is up to date")
            }
            Lack::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Lack::Useless(error) => write!(f, "it is of no use: {error:#}"),
            Lack::Changed(changed) => write!(f, "it is out of date: {}", changed.join("; ")),
            Lack::Moved(lines) => write!(f, "the machine has changed: {}", lines.join("; ")),
        }
    }
}

/// Why the image is missing, of no use, or out of date; `None` if it is neither.
pub(super) fn lacking(machine: &Machine, config: &Config, disk: &OnDisk) -> Option<Lack> {
    let bytes = match fs::read(&disk.image) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(Lack::Missing),
        Err(error) => return Some(Lack::Unreadable(error)),
    };
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

/// Why there is no image that is up to date.
struct Failed {
    error: anyhow::Error,
    /// What is wrong with the one that is there, if it can be loaded.
    old: Option<Lack>,
}

/// Builds the image anew if it is missing, of no use, or older than what it is made of, or if its dumps would go another way.
fn bring_up_to_date(machine: &Machine, config: &Config, disk: &mut OnDisk, out: &mut dyn Write) -> Result<(), Failed> {
    let when = config.dump.rebuild.as_ref().map(|given| given.value);
    let lack = match (lacking(machine, config, disk), when) {
        (None, Some(Rebuild::Always)) if has_modules(machine, disk) => Lack::Asked,
        (None | Some(Lack::Changed(_) | Lack::Moved(_)), Some(Rebuild::Never)) | (None, _) => return Ok(()),
        (Some(lack), _) => lack,
    };
    let image = disk.image.display();
    let has_modules = has_modules(machine, disk);
    match &lack {
        Lack::Changed(changed) if !has_modules => {
            log::warn!(
                "{image} is no longer up to date ({}), and the modules of kernel {} are not here to build it again; it is \
                 loaded as it is",
                changed.join("; "),
                disk.release
            );
            return Ok(());
        }
        Lack::Useless(error) if !has_modules => {
            let error = anyhow::anyhow!("{error:#}");
            let error = error.context(format!("cannot use {image}, and the modules to build another are not here"));
            return Err(Failed { error, old: None });
        }
        Lack::Changed(changed) => log::info!("{image} is built again: {}", changed.join("; ")),
        Lack::Moved(lines) => {
            log::info!("the machine of {image} has changed, so it is built again: {}", lines.join("; "))
        }
        Lack::Useless(error) => log::info!("{image} is of no use and is built again: {error:#}"),
        Lack::Missing => log::info!("{image} is missing: it is built"),
        Lack::Unreadable(error) => log::info!("{image} cannot be read and is built again: {error}"),
        Lack::Asked => log::info!("{image} is built again, as it is at every start"),
    }
    let built = build(machine, disk).and_then(|built| {
        for warning in built.warnings.iter().filter(|warning| !config.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        write(machine, config, &built, disk, out)
    });
    match built {
        Ok(written) => {
            *disk = written;
            Ok(())
        }
        Err(error) => {
            let is_loadable = matches!(lack, Lack::Asked | Lack::Changed(_) | Lack::Moved(_));
            Err(Failed { error, old: Some(lack).filter(|_| is_loadable) })
        }
    }
}

/// Writes the image that was planned, and says so; where it is then. A full `/boot` is no reason to be without one.
pub(super) fn write(
    machine: &Machine,
    config: &Config,
    built: &Built,
    disk: &OnDisk,
    out: &mut dyn Write,
) -> anyhow::Result<OnDisk> {
    let other = kernel::where_room_is(&machine.tree, &config.system, disk);
    let (said, disk) = roomy(disk, other, |image| build::write(built, image, true))?;
    writeln!(out, "{said}")?;
    Ok(disk)
}

/// Writes an image where it belongs, or to the other place if the first is full.
fn roomy(
    disk: &OnDisk,
    other: Option<OnDisk>,
    mut write: impl FnMut(&Path) -> anyhow::Result<String>,
) -> anyhow::Result<(String, OnDisk)> {
    let error = match (write(&disk.image), &other) {
        (Ok(said), _) => return Ok((said, disk.clone())),
        (Err(error), Some(_)) if is_full(&error) => error,
        (Err(error), _) => return Err(error),
    };
    let other = other.context("there is no other place")?;
    log::warn!("{error:#}; it goes to {}", other.image.display());
    make_directory_of(&other.image)?;
    let said = write(&other.image)?;
    // What is out of date there would be found first at the next start.
    match fs::remove_file(&disk.image) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}, which is old", disk.image.display()))
        }
        _ => Ok((said, other)),
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

fn make_directory_of(image: &Path) -> anyhow::Result<()> {
    let Some(dir) = image.parent() else { return Ok(()) };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Plans the image.
pub(super) fn build(machine: &Machine, disk: &OnDisk) -> anyhow::Result<Built> {
    make_directory_of(&disk.image)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_does_not_fit_goes_where_there_is_room_and_the_old_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let [boot, state] = ["boot/image", "state/image"].map(|name| dir.path().join(name));
        make_directory_of(&boot).unwrap();
        fs::write(&boot, "old").unwrap();
        let disk = OnDisk { release: "6.1".into(), kernel: "/vmlinuz".into(), image: boot.clone() };
        let other = OnDisk { image: state.clone(), ..disk.clone() };
        let refuse = |errno: i32| {
            let boot = boot.clone();
            move |image: &Path| match image == boot {
                true => Err(io::Error::from_raw_os_error(errno)).context("cannot write the image"),
                false => Ok(fs::write(image, "new").map(|()| "written".to_owned())?),
            }
        };
        // Another error, or an image that was asked for by name.
        for (other, errno) in [(Some(other.clone()), libc::EROFS), (None, libc::ENOSPC)] {
            roomy(&disk, other, refuse(errno)).unwrap_err();
            assert!(boot.is_file() && !state.exists());
        }
        let (said, at) = roomy(&disk, Some(other.clone()), refuse(libc::ENOSPC)).unwrap();
        assert_eq!((said.as_str(), &at), ("written", &other));
        assert!(!boot.exists() && fs::read_to_string(&state).unwrap() == "new");
    }
}
