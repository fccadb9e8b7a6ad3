//! Loads the capture kernel, with an image that is built first if there is none, it is too old, or the network that it
//! would bring up is no longer the machine's.

use super::kernel::OnDisk;
use super::{Machine, kernel, keys, recovery, status};
use crate::build::{self, Built, Request};
use crate::config::{Config, Sysconfig};
use crate::host::{Kernel, SystemHost, watchdog};
use crate::inspect;
use crate::kexec::cmdline::{self, DEFAULT_APPEND, DEFAULT_REMOVE, Parts};
use crate::kexec::explain;
use crate::{integrity, network, scripts};
use anyhow::{Context, bail};
use kdump_init::config::ImageConfig;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Checks, builds, loads.
pub(super) fn run(machine: &Machine, out: &mut dyn Write) -> anyhow::Result<()> {
    status::feasible(&machine.tree)?;
    let config = Config::read(&machine.files)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    recovery::before_start(machine, &config, out)?;
    if status::is_loaded(&machine.tree) {
        log::warn!("a capture kernel is already loaded; kdumpctl stop unloads it");
        return Ok(());
    }
    if status::load_disabled(&machine.tree) {
        bail!(
            "kernel.kexec_load_disabled is 1: no capture kernel can be loaded until the next boot; start kdump before it is set"
        );
    }
    let disk = kernel::find(&machine.tree, &config.system)?;
    if let Some(built) = bring_up_to_date(machine, &config, &disk)? {
        for warning in built.warnings.iter().filter(|warning| !config.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        writeln!(out, "{}", build::write(&built, &disk.image, true)?)?;
    }
    let line = command_line(machine, &config.system)?;
    log::debug!("{}: {}", disk.kernel.display(), line.to_string_lossy());
    let kernel =
        File::open(&disk.kernel).with_context(|| format!("cannot read the kernel {}", disk.kernel.display()))?;
    let image = File::open(&disk.image).with_context(|| format!("cannot read the image {}", disk.image.display()))?;
    let config = inspect::config(&fs::read(&disk.image)?)?;
    let keys = keys::hand_over(&machine.tree, &config)?;
    machine.kexec.load(&kernel, &image, &line).map_err(|error| explain(error, false)).with_context(|| {
        let what = format!("cannot load the capture kernel {} with {}", disk.kernel.display(), disk.image.display());
        if keys > 0 { format!("{what}; {}", keys::REMEDY) } else { what }
    })?;
    writeln!(out, "Loaded {} with {}", disk.kernel.display(), disk.image.display())?;
    Ok(())
}

/// Why an image has to be built.
enum Lack {
    /// There is none.
    Missing,
    /// It is not ours, or not for this kernel.
    Useless(anyhow::Error),
    /// It is older than this file.
    Older(PathBuf),
    /// It would bring up another network: what has changed.
    Moved(Vec<String>),
}

/// Plans the image anew if it is missing, of no use, or older than what it is made of, or if the network has changed.
fn bring_up_to_date(machine: &Machine, config: &Config, disk: &OnDisk) -> anyhow::Result<Option<Built>> {
    let lack = match modified(&disk.image) {
        None => Lack::Missing,
        Some(built) => match (check(disk), newer_than(machine, config, disk, built)) {
            (Err(error), _) => Lack::Useless(error),
            (Ok(_), Some(newer)) => Lack::Older(newer),
            (Ok(image), None) => match changes(machine, config, disk, &image) {
                lines if lines.is_empty() => return Ok(None),
                lines => Lack::Moved(lines),
            },
        },
    };
    let image = disk.image.display();
    let has_modules = has_modules(machine, disk);
    match lack {
        Lack::Older(newer) if !has_modules => {
            log::warn!(
                "{image} is older than {}, and the modules of kernel {} are not here to build it again; it is loaded as it is",
                newer.display(),
                disk.release
            );
            return Ok(None);
        }
        Lack::Useless(error) if !has_modules => {
            return Err(error.context(format!("cannot use {image}, and the modules to build another are not here")));
        }
        Lack::Older(newer) => log::info!("{image} is older than {}: it is built again", newer.display()),
        Lack::Moved(lines) => {
            log::info!("the network of {image} has changed, so it is built again: {}", lines.join("; "))
        }
        Lack::Useless(error) => log::info!("{image} is of no use and is built again: {error:#}"),
        Lack::Missing => log::info!("{image} is missing: it is built"),
    }
    if let Some(dir) = disk.image.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    build::plan(&request(machine, &disk.release))
        .map(Some)
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
        normal: None,
    }
}

fn has_modules(machine: &Machine, disk: &OnDisk) -> bool {
    ["lib/modules", "usr/lib/modules"].iter().any(|dir| machine.tree.path(dir).join(&disk.release).is_dir())
}

/// How the network of the image differs from what it would be now, if another image could be built.
fn changes(machine: &Machine, config: &Config, disk: &OnDisk, image: &ImageConfig) -> Vec<String> {
    if image.hooks.network.is_none() || !has_modules(machine, disk) {
        return Vec::new();
    }
    let host = Kernel::find(&machine.tree, Some(&disk.release), None)
        .and_then(|kernel| SystemHost::new(machine.tree.clone(), kernel));
    match host {
        Ok(host) => network::changes(config, &host, &image.hooks),
        Err(error) => {
            log::debug!("{error:#}");
            Vec::new()
        }
    }
}

/// What an image of ours for that kernel tells init; another builder's may lie in the same place.
fn check(disk: &OnDisk) -> anyhow::Result<ImageConfig> {
    let image = fs::read(&disk.image)?;
    let config = inspect::config(&image).context("it was not built by this version of mkdumprd")?;
    if config.kernel_release != disk.release {
        bail!("it is for kernel {}, not for {}", config.kernel_release, disk.release);
    }
    Ok(config)
}

/// The first of the things that an image is made of that has changed since it was built.
fn newer_than(machine: &Machine, config: &Config, disk: &OnDisk, built: SystemTime) -> Option<PathBuf> {
    let tree = &machine.tree;
    let index = tree.path("lib/modules").join(&disk.release).join("modules.dep");
    let user = scripts::find(config, tree).unwrap_or_default();
    let scripts = user.scripts().filter_map(|script| tree.resolve(Path::new(script.argv.first()?)).ok());
    // What is taken out of a directory changes the directory.
    let dirs = scripts::DIRECTORIES.iter().map(|dir| tree.path(dir));
    let extra = config.dump.extra_bins.iter().filter_map(|file| tree.resolve(&file.value).ok());
    [machine.files.kdump_conf.clone(), machine.files.sysconfig.clone(), disk.kernel.clone(), index]
        .into_iter()
        .chain(dirs)
        .chain(scripts)
        .chain(extra)
        .chain(machine.files.native.clone())
        .chain(integrity::sources(config, tree))
        .chain(config.dump.secrets().filter_map(|file| tree.resolve(file).ok()))
        .chain(keys::files(&machine.tree, &disk.image))
        .chain(crate::remote::sources(config, tree))
        .find(|path| modified(path).is_some_and(|changed| changed > built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn command_line(machine: &Machine, config: &Sysconfig) -> anyhow::Result<CString> {
    let mut remove = config.remove.as_ref().map_or(DEFAULT_REMOVE, |given| given.value.as_str()).to_owned();
    let base = match &config.commandline {
        Some(given) => given.value.clone(),
        None => {
            // The network by which this system was booted is not the way to the dump target, which the image knows; and
            // names of its cards are those of the capture kernel only by chance.
            remove = format!("{remove} {}", kdump_hooks::net::options::WORDS.join(" "));
            machine.tree.line("proc/cmdline").context("cannot read /proc/cmdline; set KDUMP_COMMANDLINE")?
        }
    };
    let cpuinfo = machine.tree.line("proc/cpuinfo").unwrap_or_default();
    let append = config.append.as_ref().map_or(DEFAULT_APPEND, |given| given.value.as_str());
    let watchdog = watchdog::active(&machine.tree).map(|watchdog| watchdog::options(&watchdog)).unwrap_or_default();
    let append = [&[append.to_owned()], &watchdog[..]].concat().join(" ");
    cmdline::capture(Parts {
        base: &base,
        remove: &remove,
        append: &append,
        boot_apicid: cmdline::boot_apicid(&cpuinfo),
    })
}
