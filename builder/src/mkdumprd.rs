//! The command `mkdumprd`: from what was typed to what is done.

use crate::asked::Asked;
use crate::build::{self, Request};
use crate::cli::Mkdumprd;
use crate::config::{Complaints, Files, Include, dracut};
use crate::image;
use crate::normal::Options;
use crate::report::{self, Budget};
use anyhow::bail;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Builds an image and says so, or prints its plan.
///
/// # Errors
/// Why there is no image; nothing is left behind then.
pub fn run(typed: &Mkdumprd, out: &mut dyn Write) -> anyhow::Result<()> {
    let Meant { output, kver, dracut } = Meant::of(typed)?;
    let output = output.as_deref();
    if let Some(output) = output.filter(|_| !typed.plan) {
        image::check_output(output, typed.force)?;
    }
    let built = build::plan(&Request {
        kver,
        files: Files::new(&typed.sysroot, typed.config.as_deref(), typed.sysconfig.as_deref()),
        sysroot: typed.sysroot.clone(),
        modules_dir: typed.modules_dir.clone(),
        programs: typed.programs.clone(),
        packing: typed.compress,
        asked: Asked {
            add_drivers: words(&typed.add_drivers),
            omit_drivers: words(&typed.omit_drivers),
            install: words(&typed.install).into_iter().map(PathBuf::from).collect(),
            include: included(&typed.include),
            generic: typed.no_hostonly,
            allow_missing_firmware: typed.allow_missing_firmware,
            dracut,
        },
        normal: typed.normal.then_some(Options {
            generic: typed.generic,
            early_kdump: typed.early_kdump,
            sysctl: typed.sysctl,
            network: typed.network,
            early_microcode: typed.early_microcode,
            shell: typed.shell,
            integrity: typed.integrity,
            modsign: typed.modsign,
            livepatch: typed.livepatch,
            allow_missing_firmware: typed.allow_missing_firmware,
        }),
        old: output.filter(|output| output.is_file()).map(Path::to_owned),
    })?;
    for warning in &built.warnings {
        log::warn!("{warning}");
    }
    let budget = Budget { size: typed.max_size, memory: typed.max_memory };
    if typed.plan || budget.is_set() {
        let estimate = report::estimate(&built)?;
        match (typed.plan, typed.json) {
            (true, true) => report::describe(&built, &estimate, out)?,
            (true, false) => report::print(&built, &estimate, out)?,
            (false, _) => {}
        }
        budget.check(&estimate)?;
    }
    if let Some(output) = output.filter(|_| !typed.plan) {
        if typed.livepatch {
            warn_elsewhere(output, &typed.sysroot);
        }
        built.plan.lines().for_each(|line| log::debug!("{line}"));
        writeln!(out, "{}", build::write(&built, output, typed.force)?)?;
    }
    Ok(())
}

/// What was meant by what was typed in several ways.
struct Meant {
    /// The image.
    output: Option<PathBuf>,
    /// The kernel that is named.
    kver: Option<String>,
    /// dracut's options.
    dracut: dracut::Asked,
}

impl Meant {
    fn of(typed: &Mkdumprd) -> anyhow::Result<Meant> {
        let (output, behind) = match (&typed.to, &typed.output, &typed.release) {
            (Some(to), Some(_), Some(_)) => {
                bail!("-o names the image, {}, and two other words stand behind it; only a kernel may", to.display())
            }
            (Some(to), kernel, None) => (Some(to), kernel.as_ref().map(|kernel| kernel.to_string_lossy().into_owned())),
            (None, output, release) => (output.as_ref(), release.clone()),
            (Some(to), None, release) => (Some(to), release.clone()),
        };
        if let Some(to) = typed.to.as_ref().filter(|to| !to.to_string_lossy().contains(['/', '.'])) {
            bail!("-o names the image here, and `{0}` looks like none; write --omit {0}, or ./{0}", to.display());
        }
        if let Some(kver) = typed.kver.as_ref().filter(|kver| kver.contains('/')) {
            bail!("-k names the kernel here, and `{kver}` is none; write --kmoddir {kver}");
        }
        if let (Some(kver), Some(behind)) = (&typed.kver, &behind) {
            bail!("two kernels are named, {kver} and {behind}; keep one of the two");
        }
        let (mut asked, mut complaints) = (dracut::Asked::default(), Complaints::default());
        asked.options(typed.dracut.clone(), &mut complaints)?;
        complaints.notes.iter().for_each(|note| log::debug!("{note}"));
        if let Some(option) = asked.only_for_dumps().filter(|_| typed.normal) {
            bail!("{option} is about a dump, and an image for a normal boot saves none; take it out");
        }
        let output = output.map(|output| image::behind_links(output)).transpose()?;
        Ok(Meant { output, kver: typed.kver.clone().or(behind), dracut: asked })
    }
}

/// kpatch keeps up to date what it finds.
fn warn_elsewhere(output: &Path, sysroot: &Path) {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = output.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    if !canonical(folder).starts_with(canonical(&sysroot.join("boot"))) {
        log::warn!(
            "{} is not below /boot: kpatch will not find it there, and its live patches stay those of today",
            output.display()
        );
    }
}

/// The words of lists in which blanks may stand doubled and at the ends, as dracut's do.
fn words(list: &[String]) -> Vec<String> {
    list.iter().filter(|word| !word.is_empty()).cloned().collect()
}

/// Pairs of a path on the host and one in the image.
fn included(paths: &[PathBuf]) -> Vec<Include> {
    let pair = |pair: &[PathBuf]| match pair {
        [from, to] => Some(Include { from: from.clone(), to: to.clone() }),
        _ => None,
    };
    paths.chunks_exact(2).filter_map(pair).collect()
}
