//! The patches that the kernel knows.

use super::kernel::Kernel;
use crate::kmod::ModuleName;
use anyhow::Context;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where they are.
const SYSFS: &str = "/sys/kernel/livepatch";

/// A patch that the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its name, that of its module.
    pub name: ModuleName,
    /// How it stands.
    pub state: State,
    /// Its place in the order of loading, 1 for the first; kernels tell since 6.14.
    pub order: Option<u32>,
    /// Whether it takes the place of all others; kernels tell since 6.13.
    pub replaces: Option<bool>,
    /// The functions that it changes, as `OBJECT/FUNCTION`.
    pub functions: Vec<String>,
}

/// How a patch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every task uses it.
    Enabled,
    /// No task uses it.
    Disabled,
    /// On the way to enabled: some tasks use it already.
    Enabling,
    /// On the way to disabled.
    Disabling,
}

impl State {
    /// Whether every task is on the same side.
    pub fn is_settled(self) -> bool {
        matches!(self, State::Enabled | State::Disabled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Enabled => "enabled",
            State::Disabled => "disabled",
            State::Enabling => "enabling",
            State::Disabling => "disabling",
        })
    }
}

impl Patch {
    /// The directory of a patch.
    pub fn directory(name: &ModuleName) -> PathBuf {
        Path::new(SYSFS).join(name.as_str())
    }

    /// Reads one; `None` if the kernel does not know it.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn read(kernel: &dyn Kernel, name: &ModuleName) -> anyhow::Result<Option<Patch>> {
        let directory = Patch::directory(name);
        let file = |name: &str| optional(kernel.read(&directory.join(name)), &directory.join(name));
        let Some(enabled) = file("enabled")? else { return Ok(None) };
        // Kernels before 4.12 have no transitions.
        let moves = file("transition")?.is_some_and(|word| word == "1");
        let state = match (enabled == "1", moves) {
            (true, false) => State::Enabled,
            (false, false) => State::Disabled,
            (true, true) => State::Enabling,
            (false, true) => State::Disabling,
        };
        Ok(Some(Patch {
            name: name.clone(),
            state,
            order: file("stack_order")?.and_then(|number| number.parse().ok()),
            replaces: file("replace")?.map(|word| word == "1"),
            functions: functions(kernel, &directory),
        }))
    }
}

/// `vmlinux/cmdline_proc_show` for each `vmlinux/cmdline_proc_show,1`.
fn functions(kernel: &dyn Kernel, directory: &Path) -> Vec<String> {
    let mut functions = Vec::new();
    for object in kernel.list(directory).unwrap_or_default() {
        for function in kernel.list(&directory.join(&object)).unwrap_or_default() {
            if let Some((name, _)) = function.rsplit_once(',') {
                functions.push(format!("{object}/{name}"));
            }
        }
    }
    functions
}

/// The kernel has no live patching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {SYSFS}: this kernel was built without live patching (CONFIG_LIVEPATCH)")
    }
}

impl std::error::Error for Unsupported {}

/// Every patch that the kernel knows: the last one loaded comes last, where it tells the order, else by name.
///
/// # Errors
/// The kernel has no live patching, or a file cannot be read.
pub fn patches(kernel: &dyn Kernel) -> anyhow::Result<Vec<Patch>> {
    let Some(names) = optional(kernel.list(Path::new(SYSFS)), Path::new(SYSFS))? else {
        return Err(Unsupported.into());
    };
    let mut patches = Vec::new();
    for name in names {
        // One that has gone meanwhile is none.
        patches.extend(Patch::read(kernel, &ModuleName::from(name.as_str()))?);
    }
    patches.sort_by_key(|patch| patch.order);
    Ok(patches)
}

/// `None` for what is not there.
fn optional<T>(outcome: io::Result<T>, path: &Path) -> anyhow::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        // A patch that goes while it is read has ENODEV.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The name that the kernel gives to the patch of a file, or of what was typed: without directory and suffix, and with
/// `_` for each dot and dash.
pub fn name_of(typed: &str) -> ModuleName {
    let file = Path::new(typed).file_name().map_or(typed.into(), |name| name.to_string_lossy());
    let stem = file.strip_suffix(".ko").unwrap_or(&file);
    ModuleName::from(stem.replace(['.', '-'], "_").as_str())
}
