//! What was typed, and what is printed: kpatch's words.

use super::actions::{Actions, told};
use super::boots::accounts;
use super::guard;
use super::identity::Identity;
use super::kernel::Kernel;
use super::overlay::{self, Refreshed};
use super::patch::{Patch, Unsupported, patches};
use super::service::{self, SERVICE, Unit};
use super::store::{Installed, Store};
use super::transition::Limits;
use super::trust::by_signer;
use crate::lock::Lock;
use crate::signatures::Verdict;
use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args, Parser, Subcommand};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What stands where there is nothing to list.
const NOTHING: &str = "<NO_RESULT>";

/// What is said of a patch that an image has got.
const FROM_IMAGE: &str = "it is loaded from there whether kpatch.service is enabled or not, unless kpatch.enable=0 is on the \
                          kernel command line";

/// What is said where the boot-loop guard has no place for its marker.
const UNGUARDED: &str = "no boot that fails is noticed here: no variables of the firmware can be used (no EFI, or \
                         efi=noruntime), and GRUB does not count the boots; where there is no EFI, but an \
                         /etc/grub.d/09_kpatch, update-grub has it do so";

/// Waited for is what takes a transition that stalls and is reversed.
const LOCK: Lock = Lock { file: "kpatch.lock", program: "kpatch", patience: Duration::from_secs(180) };

/// Loads, shows and installs live patches of the kernel
///
/// What is installed is loaded at each boot by kpatch.service, in the order of installing; `systemctl disable kpatch.service`
/// ends that. An image that was made by `mkdumprd --normal --livepatch` goes on loading it, before any driver.
/// kpatch.enable=0 on the kernel command line switches both off. kpatch-booted.service notes that a boot was finished with
/// the patches; where it does not, they are passed over from the third boot on.
#[derive(Clone, Debug, Parser)]
#[command(name = "kpatch", version, max_term_width = 100)]
pub struct Kpatch {
    /// What to do
    #[command(subcommand)]
    pub word: Word,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// List the patches that are loaded and those that are installed
    List {
        /// Print it for a program to read
        #[arg(long)]
        json: bool,
    },
    /// Show what a patch module says about itself
    Info {
        /// The kernel that it is installed for [default: the running one, or else the only one]
        #[arg(short, long, value_name = "V")]
        kernel_version: Option<String>,
        /// An installed patch, or a patch module
        #[arg(value_name = "NAME|FILE")]
        patch: String,
    },
    /// Load a patch into the running kernel
    #[command(group = ArgGroup::new("which").required(true))]
    Load {
        /// A patch module, or an installed patch
        #[arg(value_name = "FILE|NAME", group = "which")]
        patch: Option<String>,
        /// All patches that are installed for the running kernel
        #[arg(short, long, group = "which")]
        all: bool,
        /// How its transition is made
        #[command(flatten)]
        transition: TransitionArgs,
    },
    /// Take a patch out of the running kernel
    #[command(group = ArgGroup::new("which").required(true))]
    Unload {
        /// A loaded patch
        #[arg(value_name = "NAME", group = "which")]
        patch: Option<String>,
        /// All loaded patches
        #[arg(short, long, group = "which")]
        all: bool,
        /// How its transition is made
        #[command(flatten)]
        transition: TransitionArgs,
    },
    /// Install a patch, to be loaded at each boot
    Install {
        /// The kernel that it is for [default: the running one]
        #[arg(short, long, value_name = "V")]
        kernel_version: Option<String>,
        /// The patch module
        file: PathBuf,
    },
    /// Uninstall a patch; if it is loaded it stays so until the next reboot
    Uninstall {
        /// The kernel that it is for [default: the running one]
        #[arg(short, long, value_name = "V")]
        kernel_version: Option<String>,
        /// The installed patch
        name: String,
    },
    /// Nudge the tasks that hold a transition up
    Signal,
    /// Note that the boot is finished with the patches that are loaded; kpatch-booted.service does so
    Booted,
    /// Print the version
    Version,
}

impl Word {
    /// Whether nothing else may be changed meanwhile. A transition that is held up is nudged while another kpatch waits for
    /// it to end.
    fn is_done_alone(&self) -> bool {
        match self {
            Word::Load { .. } | Word::Unload { .. } | Word::Install { .. } | Word::Uninstall { .. } | Word::Booted => {
                true
            }
            Word::List { .. } | Word::Info { .. } | Word::Signal | Word::Version => false,
        }
    }
}

/// How a transition is made.
#[derive(Clone, Copy, Debug, Args)]
pub struct TransitionArgs {
    /// After that many seconds a transition is stalled, and reversed
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = Limits::default().transition.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub timeout: u64,
    /// Force a transition that stalls. A task may then run old and new code together and crash the kernel, and the patch
    /// can never be removed again
    #[arg(long)]
    pub force: bool,
}

/// No transition is made.
const NONE: TransitionArgs = TransitionArgs { timeout: 0, force: false };

/// Does what was typed, on the machine whose root is `root`. What is printed goes to `out`; a remark that is no part of
/// kpatch's own layout to `remarks`.
///
/// # Errors
/// Why it could not be done.
pub fn run(
    typed: &Kpatch,
    root: &Path,
    kernel: &mut dyn Kernel,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let store = Store::below(root);
    let _lock = alone(typed, root, remarks)?;
    match &typed.word {
        Word::List { json } => list(&store, kernel, *json, out, remarks),
        Word::Info { kernel_version, patch } => info(&store, kernel, kernel_version.as_deref(), patch, out),
        Word::Load { patch, transition, .. } => act(root, &store, kernel, *transition, out, |actions| match patch {
            Some(patch) => {
                // A file may be called otherwise than the patch in it.
                let name = actions.identify(patch)?.name;
                let loaded = actions.load(patch)?;
                (actions.tell)(&told(&name, &loaded));
                // Who asks for one by name wants it at the next boot, too.
                actions.forget(&name)
            }
            // An account that nobody closes would bar sound patches.
            None if service::notes_boots(root) => actions.load_by_service(),
            None => actions.load_all(),
        }),
        Word::Unload { patch, transition, .. } => act(root, &store, kernel, *transition, out, |actions| match patch {
            Some(patch) => actions.unload(patch),
            None => actions.unload_all().map(drop),
        }),
        Word::Install { kernel_version, file } => {
            let release = release(kernel_version.as_ref(), kernel)?;
            let patch = Identity::read(file)?;
            let installed = act(root, &store, kernel, NONE, out, |actions| {
                actions.settle_count();
                store.install(&patch, &release).map(drop)
            });
            if let Err(error) = installed {
                return caught_up(root, &store, &release, store.has(&patch), out, error);
            }
            writeln!(out, "installing {} ({release})", patch.name)?;
            let warning = match kernel.release().is_ok_and(|running| running == release) {
                true => warning(&by_signer(root, &patch, kernel)),
                false => Some(format!("whether kernel {release} accepts its signature is only known when it runs")),
            };
            if let Some(warning) = warning {
                writeln!(out, "{}: {warning}", patch.name)?;
            }
            writeln!(out, "{}", enabled(root)?)?;
            if refresh(root, &store, &release, out)? {
                writeln!(out, "{FROM_IMAGE}")?;
                if kernel.remembered().is_err() {
                    writeln!(out, "{UNGUARDED}")?;
                }
            }
            Ok(())
        }
        Word::Uninstall { kernel_version, name } => {
            let release = release(kernel_version.as_ref(), kernel)?;
            let installed = match store.find(&release, name) {
                Ok(installed) => installed,
                Err(error) => return caught_up(root, &store, &release, true, out, error),
            };
            writeln!(out, "uninstalling {} ({release})", installed.name)?;
            let patch = Identity::read(&installed.file).ok();
            act(root, &store, kernel, NONE, out, |actions| {
                actions.settle_count();
                store.uninstall(&installed)
            })?;
            // What is loaded, and what is on an account by that name alone, is the running kernel's.
            let is_running = kernel.release().is_ok_and(|running| running == release);
            if is_running && Patch::read(kernel, &installed.name)?.is_some() {
                writeln!(out, "{} is loaded and stays so until the next reboot, or `kpatch unload`", installed.name)?;
            }
            act(root, &store, kernel, NONE, out, |actions| match patch {
                _ if is_running => actions.forget(&installed.name),
                Some(patch) => actions.forget_file(&patch),
                None => Ok(()),
            })?;
            refresh(root, &store, &release, out).map(drop)
        }
        Word::Signal => act(root, &store, kernel, NONE, out, |actions| {
            if actions.signal()?.is_empty() {
                (actions.tell)("no patch is in transition");
            }
            Ok(())
        }),
        Word::Booted => act(root, &store, kernel, NONE, out, |actions| {
            for name in actions.boot_is_finished()? {
                (actions.tell)(&format!("{name}: the boot is finished with it"));
            }
            Ok(())
        }),
        Word::Version => Ok(writeln!(out, "{}", env!("CARGO_PKG_VERSION"))?),
    }
}

/// The lock, where no other kpatch may be at work.
fn alone(typed: &Kpatch, root: &Path, remarks: &mut dyn Write) -> anyhow::Result<Option<File>> {
    typed.word.is_done_alone().then(|| LOCK.take(&root.join("run"), remarks)).transpose()
}

/// What is to be known of a patch before it is loaded.
fn warning(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Refused(why) => Some(format!("the kernel that is running would refuse it: {why}")),
        Verdict::Taints(why) => Some(format!("the kernel that is running would take it, but be tainted by it: {why}")),
        Verdict::Accepted | Verdict::Unknown(_) => None,
    }
}

/// Sees to it that what is installed is loaded at boot; what is said of that.
fn enabled(root: &Path) -> anyhow::Result<String> {
    Ok(match service::enable(root)? {
        (Unit::Enabled, true) => format!("{SERVICE} is enabled: what is installed is loaded at each boot"),
        (Unit::Enabled | Unit::Disabled, _) => format!("{SERVICE} is enabled"),
        (Unit::Masked, _) => format!("{SERVICE} is masked and stays so: nothing is loaded at boot"),
        (Unit::Missing, _) => {
            format!("there is no {SERVICE} on this machine: have something run `kpatch load --all` at boot")
        }
    })
}

/// Has the images that bring patches along bring those that are installed now; whether there are such images.
fn refresh(root: &Path, store: &Store, release: &str, out: &mut dyn Write) -> anyhow::Result<bool> {
    let images = write_images(root, store, release, out)?;
    Ok(!images.written.is_empty() || !images.current.is_empty())
}

/// Nothing is left to be done to the store, as `error` says. An image that could not be written before is written now, which
/// is enough if what was asked for `is_done` in the store; else the error stands.
fn caught_up(
    root: &Path,
    store: &Store,
    release: &str,
    is_done: bool,
    out: &mut dyn Write,
    error: anyhow::Error,
) -> anyhow::Result<()> {
    match write_images(root, store, release, out) {
        Ok(images) if is_done && !images.written.is_empty() => Ok(writeln!(out, "{error:#}")?),
        Ok(_) => Err(error),
        Err(also) => Err(also.context(format!("{error:#}"))),
    }
}

fn write_images(root: &Path, store: &Store, release: &str, out: &mut dyn Write) -> anyhow::Result<Refreshed> {
    let mut images = overlay::refresh(root, store, release)?;
    for image in &images.written {
        writeln!(out, "updated the live patches in {}", image.display())?;
    }
    let failed: Vec<String> = std::mem::take(&mut images.failed)
        .into_iter()
        .map(|(image, error)| {
            format!(
                "cannot write the live patches into {}, which goes on loading those from before; see that it can be \
                 written to and that there is room for another copy of it, then give the same command once more: {error:#}",
                image.display()
            )
        })
        .collect();
    if failed.is_empty() { Ok(images) } else { Err(anyhow!(failed.join("\n"))) }
}

fn act(
    root: &Path,
    store: &Store,
    kernel: &mut dyn Kernel,
    transition: TransitionArgs,
    out: &mut dyn Write,
    work: impl FnOnce(&mut Actions<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limits = Limits { transition: Duration::from_secs(transition.timeout), ..Limits::default() };
    // Nobody may be listening; the work goes on.
    let mut tell = |line: &str| drop(writeln!(out, "{line}"));
    let (store, force) = (store.clone(), transition.force);
    let judge = |patch: &Identity, kernel: &dyn Kernel| by_signer(root, patch, kernel);
    work(&mut Actions { kernel, store, limits, force, judge: &judge, tell: &mut tell })
}

fn release(named: Option<&String>, kernel: &dyn Kernel) -> anyhow::Result<String> {
    match named {
        Some(release) => Ok(release.clone()),
        None => kernel.release().context("cannot tell the release of the running kernel"),
    }
}

fn list(
    store: &Store,
    kernel: &dyn Kernel,
    json: bool,
    out: &mut dyn Write,
    remarks: &mut dyn Write,
) -> anyhow::Result<()> {
    let loaded = match patches(kernel) {
        // Nothing is loaded, then.
        Err(error) if error.is::<Unsupported>() => {
            writeln!(remarks, "kpatch: {error}")?;
            Vec::new()
        }
        other => other?,
    };
    let installed = store.all()?;
    let accounts = accounts(kernel, store).unwrap_or_default();
    let is_barred = |file: &Path| Identity::read(file).is_ok_and(|patch| accounts.is_barred(&patch));
    if json {
        let loaded: Vec<_> = loaded.iter().map(describe).collect();
        let installed: Vec<_> = installed
            .iter()
            .map(|patch| {
                let barred = is_barred(&patch.file);
                json!({ "name": patch.name, "kernel": patch.release, "file": patch.file, "barred": barred })
            })
            .collect();
        let all = json!({ "kernel": kernel.release()?, "loaded": loaded, "installed": installed });
        return Ok(writeln!(out, "{all:#}")?);
    }
    let loaded_lines = loaded.iter().map(|patch| format!("{} [{}]", patch.name, patch.state)).collect();
    let installed_lines =
        installed.iter().map(|Installed { name, release, .. }| format!("{name} ({release})")).collect();
    section(out, "Loaded patch modules:", loaded_lines)?;
    writeln!(out)?;
    section(out, "Installed patch modules:", installed_lines)?;
    // The layout is kpatch's own, and has no place for it.
    let is_loaded = |patch: &Installed| loaded.iter().any(|other| other.name == patch.name);
    for patch in installed.iter().filter(|patch| !is_loaded(patch) && is_barred(&patch.file)) {
        writeln!(remarks, "kpatch: {}", guard::told(&patch.name))?;
    }
    Ok(())
}

fn describe(patch: &Patch) -> serde_json::Value {
    json!({
        "name": patch.name,
        "state": patch.state.to_string(),
        "order": patch.order,
        "replaces": patch.replaces,
        "functions": patch.functions,
    })
}

fn section(out: &mut dyn Write, title: &str, lines: Vec<String>) -> anyhow::Result<()> {
    writeln!(out, "{title}")?;
    if lines.is_empty() {
        writeln!(out, "{NOTHING}")?;
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// As modinfo(8) prints it.
fn info(
    store: &Store,
    kernel: &dyn Kernel,
    named: Option<&str>,
    typed: &str,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let path = Path::new(typed);
    let file = match named {
        Some(release) => store.find(release, typed)?.file,
        None if path.is_file() => path.to_owned(),
        None => store.find_any(&kernel.release()?, typed)?.file,
    };
    let patch = Identity::read(&file)?;
    writeln!(out, "Patch information for {}:", patch.name)?;
    let signed = if patch.is_signed { "appended" } else { "none" };
    let own = [("filename", file.display().to_string()), ("signature", signed.to_owned()), ("sha256", patch.sha256)];
    let said = patch.info.pairs().map(|(key, value)| (key, value.to_owned()));
    for (key, value) in own.into_iter().chain(said) {
        writeln!(out, "{:<16}{value}", format!("{key}:"))?;
    }
    Ok(())
}
