//! The story of an image: configuration and host facts become a plan, the plan becomes a file.
//!
//! `mkdumprd` and `kdumpctl start` both tell it.

mod settings;

pub(crate) use settings::{Places, asked_by_hooks, contributions, image_config, places};

use crate::asked::Asked;
use crate::config::{Config, Files};
use crate::cpio::write::Packing;
use crate::estimate::{self, Estimate};
use crate::gather::{asked, coverage, firmware, indexes, modprobe_d, modules, programs, programs::Programs, skeleton};
use crate::host::{Kernel, SystemHost, Tree, architecture};
use crate::image::Parts;
use crate::kdumpctl::kernel_file;
use crate::plan::{Entry, Plan};
use crate::problems::Problems;
use crate::reuse::{self, Facts, Old};
use crate::signatures::{self, Judge};
use crate::unpack::Codec;
use crate::uptodate::place;
use crate::{image, integrity, normal, target, uptodate};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::ModuleName;
use kdump_hooks::{Contribution, FileNeed, Host, Target};
use kdump_init::config::{self as contract, ImageConfig, Normal};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an image is built from.
#[derive(Clone, Debug)]
pub struct Request {
    /// The kernel; the configured or running one if there is none.
    pub kver: Option<String>,
    /// The root of the machine that the image is for.
    pub sysroot: PathBuf,
    /// Where the kernel's modules are, if not where a system has them.
    pub modules_dir: Option<PathBuf>,
    /// The configuration.
    pub files: Files,
    /// Where our programs are, if not beside this one.
    pub programs: Option<PathBuf>,
    /// How the image is to be written, if not as suits the kernel best.
    pub packing: Option<Packing>,
    /// What is asked into it besides.
    pub asked: Asked,
    /// For a normal boot, and how; else it is for a capture kernel.
    pub normal: Option<normal::Options>,
    /// An image that is there, from which is taken what has not changed.
    pub old: Option<PathBuf>,
}

/// What an image says of its builder.
pub const BUILT_BY: &str = concat!("kdump-rs ", env!("CARGO_PKG_VERSION"));

/// What was planned.
#[derive(Debug)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// What the image is told.
    pub config: ImageConfig,
    /// How it is to be written.
    pub packing: Packing,
    /// What the kernel takes before it unpacks anything, in an archive of its own.
    pub early: Plan,
    /// What is put behind it as it is.
    pub overlay: Vec<u8>,
    /// The modules in it, by name.
    pub modules: Vec<Planned>,
    /// Modules that somebody would have liked to have in it, and firmware that they name, and why they are not.
    pub left_out: Vec<String>,
    /// The memory that it takes; the size of the image is not in it yet.
    pub estimate: Estimate,
    /// What should be looked at, though it stops nothing.
    pub warnings: Vec<String>,
    /// What the modules say of themselves, for the next image.
    pub facts: Facts,
    /// The image that is there.
    pub old: Option<Old>,
}

/// A module of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Where it is in the image.
    pub path: String,
    /// Its file, as the distribution packed it.
    pub size: u64,
    /// Why it is there.
    pub reason: String,
}

/// Makes the plan of an image.
///
/// # Errors
/// Why there can be none, with the remedy.
pub fn plan(request: &Request) -> anyhow::Result<Built> {
    // kdump.conf is about another image than one that boots the system.
    let mut config = match request.normal {
        None => Config::read(&request.files)?,
        Some(_) => Config::for_boot(&request.files.root)?,
    };
    request.asked.write_to(&mut config);
    let tree = Tree::new(&request.sysroot);
    let kver = match (&request.kver, request.normal) {
        (None, None) => kernel_file::release(&tree, &config.system)?,
        (kver, _) => kver.clone(),
    };
    let kernel = Kernel::find(&tree, kver.as_deref(), request.modules_dir.as_deref())?;
    let host = SystemHost::new(tree, kernel).with_context(|| {
        format!("cannot read the modules of kernel {}", kver.as_deref().unwrap_or("that is running"))
    })?;
    // A packed image is smaller where it matters: image and what is unpacked of it lie in the reserved memory together.
    let asked = request.packing.or(config.dump.image.compress.as_ref().map(|given| given.value));
    let packing = match (asked, host.kernel.can_unpack(Codec::Zstd)) {
        (None, Some(true)) => Packing::Zstd,
        (packing, _) => packing.unwrap_or(Packing::None),
    };
    let mut problems = Problems::default();
    problems.note(check_packing(packing, &host.kernel));
    let programs = Programs::find(request.programs.as_deref())?;
    let old = request.old.as_ref().and_then(|path| Old::read(path, &host.kernel));
    let sources = || {
        let included = asked::sources(&config.dump.image, &host.tree);
        [config.sources.clone(), integrity::sources(&config, &host.tree), included].concat()
    };
    let sources = request.normal.is_none().then(sources);
    let built = problems.note(match request.normal {
        None => plan_for(&config, &host, &programs, old.as_ref()),
        Some(options) => normal::plan(options, &config, &request.files, &host, &programs),
    });
    problems.add(built.iter().flat_map(|built| architecture::check(&built.plan, &host.kernel, &host.tree)));
    problems.finish()?;
    let mut built = built.context("there is no plan")?;
    if let Some(sources) = sources {
        let known = old.as_ref().map(Old::inputs);
        let inputs = uptodate::inputs(&host.tree, &request.files, &host.kernel, &programs, sources, known).to_text();
        built.plan.add(Entry::file(uptodate::PATH, inputs.into_bytes(), "what the image is made of"))?;
        built.plan.add(place::requests(&host, &built.config.hooks)?)?;
        built.plan.add(Entry::file(reuse::PATH, built.facts.to_bytes()?, "what its modules say of themselves"))?;
    }
    list(&mut built.plan)?;
    let kernel = host.kernel.file(&host.tree).ok();
    let estimate = estimate::of_plan(&built, kernel.as_deref(), &host);
    Ok(Built { packing, estimate, old, ..built })
}

/// Whether the kernel can unpack what is written.
fn check_packing(packing: Packing, kernel: &Kernel) -> anyhow::Result<()> {
    let Some(codec) = packing.codec().filter(|codec| kernel.can_unpack(*codec) == Some(false)) else { return Ok(()) };
    let known: Vec<String> = kernel.unpacks.iter().flatten().map(Codec::to_string).collect();
    bail!(
        "kernel {} cannot unpack {codec} ({} is not set), only {}; use --compress none",
        kernel.release,
        codec.option(),
        if known.is_empty() { "plain images".to_owned() } else { known.join(", ") }
    )
}

/// Makes the plan of an image for a host that is known.
///
/// # Errors
/// As [`plan`].
pub fn plan_for(config: &Config, host: &SystemHost, ours: &Programs, old: Option<&Old>) -> anyhow::Result<Built> {
    let mut warnings = config.warnings.clone();
    let mut problems = Problems::default();
    let collector = &config.dump.collector;
    let said = || format!("{}: core_collector", collector.origin);
    problems.note(collector.value.check(&ours.capture).with_context(said));
    let found = problems.note(target::find(config, host, &mut warnings));
    let Some(mut found) = found else { return Err(unplanned(problems)) };
    let path = std::mem::take(&mut found.path);
    let settings = settings::settings(config, host, found, &mut warnings);
    let image = problems.note(settings.and_then(|settings| image_config(config, host, settings, path)));

    let mut plan = Plan::default();
    let mut take = |entries: anyhow::Result<Vec<Entry>>| {
        problems.note(entries.and_then(|entries| plan.extend(entries)));
    };
    take(Ok(skeleton::gather()));
    take(ours.gather(&host.kernel.modprobe));
    if let Some(program) = collector.value.other_program() {
        take(programs::gather(&host.tree, &program, "the collector").with_context(said));
    }
    for file in &config.dump.extra_bins {
        let entries = programs::gather(&host.tree, &file.value, "extra_bins names it");
        take(entries.with_context(|| format!("{}: extra_bins", file.origin)));
    }
    for program in &config.system.required_programs {
        let entries = programs::gather_named(&host.tree, &program.value, "KDUMP_REQUIRED_PROGRAMS names it");
        take(entries.with_context(|| format!("{}: KDUMP_REQUIRED_PROGRAMS", program.origin)));
    }
    take(asked::entries(&config.dump.image, &host.tree, &mut warnings));
    if let Some(file) = &config.system.sysctl {
        let entry = asked::sysctl(&file.value, &host.tree).with_context(|| file.origin.to_string());
        take(entry.map(|entry| vec![entry]));
    }
    let mut lacking = Vec::new();
    let mut asked = image.as_ref().map(|image| contributions(config, host, &image.hooks));
    if let (Some(image), Some(Ok(asked))) = (&image, &mut asked) {
        let network = image.hooks.network.is_some();
        let (image, index) = (&config.dump.image, host.index());
        asked.modules.extend(asked::modules(image, network, index, &mut warnings, &mut lacking));
    }
    for (program, reason) in asked.iter().flatten().flat_map(|asked| &asked.ours) {
        take(ours.gather_one(program, reason));
    }
    problems.add(lacking);
    let asked = asked.and_then(|asked| problems.note(asked));
    let (Some(image), Some(asked)) = (image, asked) else { return Err(unplanned(problems)) };
    let append = config.system.append.as_ref().map_or("", |given| &given.value);
    let firmware: Vec<PathBuf> = config.dump.image.firmware.iter().map(|given| given.value.clone()).collect();
    let cmdline = Cmdline::parse(append);
    let may_lack_firmware = config.dump.image.allow_missing_firmware.as_ref().is_some_and(|given| given.value);
    let bans = bans(config);
    let wanted = Wanted { asked, cmdline: &cmdline, firmware: &firmware, may_lack_firmware, bans, old };
    finish(plan, image, wanted, host, warnings, problems)
}

/// What an image is to have besides what is in its plan already.
pub(crate) struct Wanted<'a> {
    /// What its hooks ask for, and the administrator.
    pub(crate) asked: Contribution,
    /// What is known of the kernel command line.
    pub(crate) cmdline: &'a Cmdline,
    /// Further directories with firmware.
    pub(crate) firmware: &'a [PathBuf],
    /// Whether the devices do without firmware that is missing.
    pub(crate) may_lack_firmware: bool,
    /// The modules that must not be loaded, and where that is said.
    pub(crate) bans: BTreeMap<ModuleName, String>,
    /// The image that is there.
    pub(crate) old: Option<&'a Old>,
}

/// The modules that must not be loaded, and where that is said.
pub(crate) fn bans(config: &Config) -> BTreeMap<ModuleName, String> {
    let all = config.dump.forbid_modules.iter().chain(&config.dump.image.omit_drivers);
    all.map(|given| (ModuleName::new(&given.value), given.origin.to_string())).collect()
}

/// Why there is no plan.
fn unplanned(problems: Problems) -> anyhow::Error {
    problems.finish().err().unwrap_or_else(|| anyhow::Error::msg("there is no plan"))
}

/// Adds what every image has: what is asked for, the indexes and settings of its modules, and what init is told.
pub(crate) fn finish(
    mut plan: Plan,
    image: ImageConfig,
    Wanted { mut asked, cmdline, firmware: more_firmware, may_lack_firmware, bans, old }: Wanted<'_>,
    host: &SystemHost,
    mut warnings: Vec<String>,
    mut problems: Problems,
) -> anyhow::Result<Built> {
    let (files, mut modprobe) = modprobe_d::gather(&host.tree, &mut warnings)?;
    plan.extend(files)?;
    modprobe.add_settings(&image.hooks.modules);
    modprobe.add_bans(cmdline);
    let (lists, listed) = modprobe_d::load_lists(&host.tree, cmdline)?;
    plan.extend(lists)?;
    asked.modules.extend(listed);
    warnings.extend(host.index().problems.iter().cloned());
    for program in &asked.programs {
        let entries = programs::gather_first(&host.tree, program);
        problems.note(entries.and_then(|entries| plan.extend(entries)));
    }
    for FileNeed { path, bytes, secret, reason } in &asked.files {
        let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let entry = Entry::file(name, bytes.clone(), reason.clone());
        plan.add(Entry { mode: if *secret { 0o600 } else { entry.mode }, ..entry })?;
    }
    let judge = Judge::new(host, cmdline, image.hooks.modsign.as_ref());
    let (tree, kernel, index) = (&host.tree, &host.kernel, host.index());
    let source = modules::Source { tree, kernel, index, config: &modprobe, bans: &bans, judge: &judge, old };
    problems.add(coverage::check(index, &modprobe, &asked.modules, &kernel.release));
    let modules::Gathered { chosen, left_out, problems: missing, facts } = source.gather(&asked.modules);
    problems.add(missing);
    let told = |(module, why)| format!("module {module} is not in the image: {why}");
    let mut left_out: Vec<String> = left_out.iter().map(told).collect();
    warnings.extend(left_out.iter().cloned());
    let verdicts = chosen.iter().filter_map(|(module, chosen)| Some((module, chosen.verdict.as_ref()?)));
    warnings.extend(signatures::notes(verdicts));
    plan.extend(indexes::gather(host.index(), &format!("lib/modules/{}", host.kernel.release), &chosen))?;
    let (mut wanted, mut modules) = (BTreeMap::new(), Vec::new());
    for (name, modules::Chosen { entry, firmware, .. }) in chosen {
        let (path, size, reason) = (entry.path.clone(), entry.size(), entry.reason.clone());
        modules.push(Planned { name: name.to_string(), path, size, reason });
        wanted.insert(name, firmware);
        problems.note(plan.add(entry));
    }
    wanted.extend(firmware::of_built_in(tree, kernel, index, &asked.modules));
    let others = more_firmware.iter().map(|dir| dir.display().to_string()).collect();
    // A machine that runs this kernel proves that its drivers do without what it does not have.
    let drivers = match may_lack_firmware || host.is_running() {
        true => BTreeMap::new(),
        false => coverage::drivers(index, &modprobe, &asked.modules),
    };
    let firmware = firmware::Source { tree, kernel, others }.gather(&wanted, &drivers);
    plan.extend(firmware.entries)?;
    left_out.extend(firmware.missing);
    problems.add(firmware.problems);
    problems.finish()?;

    let text = toml::to_string(&image).context("cannot write the image configuration")?;
    plan.add(Entry::file(contract::PATH, text.into_bytes(), "what init is told"))?;
    let (packing, early, overlay, estimate) = (Packing::None, Plan::default(), Vec::new(), Estimate::default());
    Ok(Built { plan, config: image, packing, early, overlay, modules, left_out, estimate, warnings, facts, old: None })
}

/// Puts the list of all entries into a plan.
fn list(plan: &mut Plan) -> anyhow::Result<()> {
    let entry = |bytes| Entry::file(MANIFEST, bytes, "this list");
    plan.add(entry(Vec::new()))?;
    plan.replace(entry(plan.manifest().into_bytes()));
    Ok(())
}

/// The list of what is in an image and why, in the image.
pub const MANIFEST: &str = "etc/kdump/manifest";

/// Writes a plan as an image and says so in one line.
///
/// # Errors
/// The image cannot be written.
pub fn write(built: &Built, output: &Path, force: bool) -> anyhow::Result<String> {
    let size = image::write(&Parts::of(built), output, force)?;
    let targets: Vec<String> = built.config.hooks.targets.iter().map(Target::to_string).collect();
    let purpose = match &built.config.normal {
        Some(Normal { root: Some(root), .. }) => format!("boots {root}"),
        Some(Normal { export: Some(export), .. }) => format!("boots {export}"),
        Some(_) => "boots the root that the kernel command line names".to_owned(),
        None if built.config.hooks.targets.iter().all(|target| matches!(target, Target::Raw(_))) => {
            format!("dumps go to {}", targets.join(", then "))
        }
        None => format!("dumps go to {} of {}", built.config.dump.path.display(), targets.join(", then ")),
    };
    Ok(format!(
        "{}: {}, {} in memory; {} modules of kernel {}; {purpose}",
        output.display(),
        megabytes(size),
        megabytes(built.plan.unpacked_size()),
        built.modules.len(),
        built.config.kernel_release,
    ))
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
