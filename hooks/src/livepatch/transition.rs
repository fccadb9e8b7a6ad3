//! Transitions: from the moment a patch is switched until every task has left what it changes.
//!
//! May surprise: since 5.1 the kernel nudges tasks by itself, and a patch that is disabled is gone from sysfs.

use super::kernel::{Kernel, Task};
use super::patch::{Patch, State};
use crate::kmod::ModuleName;
use std::fmt;
use std::time::Duration;

/// How often a transition is looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// How often it is told.
const TELL: Duration = Duration::from_secs(1);
/// How many frames of a stack, and how many tasks, an error shows.
const SHOWN: usize = 8;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After that long tasks are nudged, where the kernel leaves it to us (4.15 to 5.0).
    pub signal: Duration,
    /// A transition that takes longer is stalled.
    pub transition: Duration,
    /// How long it is waited for one that is reversed or forced, and for that of another patch. Nobody who gives up early
    /// on the one that he wants is to leave the kernel in the midst of another.
    pub reversal: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let minute = Duration::from_secs(60);
        Limits { signal: Duration::from_secs(15), transition: minute, reversal: minute }
    }
}

/// Why a transition is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So long it was.
    Limit(Duration),
    /// That signal came.
    Signal(&'static str),
}

/// A transition that does not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The patch.
    pub name: ModuleName,
    /// Why it is not waited for any longer.
    pub why: Why,
    /// The tasks in the way.
    pub tasks: Vec<Task>,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::Limit(limit) => {
                write!(f, "the transition of {} was not done within {} s", self.name, limit.as_secs())?;
            }
            Why::Signal(signal) => write!(f, "{signal} came before the transition of {} was done", self.name)?,
        }
        if self.tasks.is_empty() {
            return f.write_str("; no task is seen that holds it up");
        }
        f.write_str("; it is held up by")?;
        for task in self.tasks.iter().take(SHOWN) {
            write!(f, "\n  {} (pid {})", task.name, task.pid)?;
            for frame in task.stack.iter().take(SHOWN) {
                write!(f, "\n    {frame}")?;
            }
        }
        match self.tasks.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for Stalled {}

/// Nudges the tasks that hold a transition up. Whether there is something to do: since 5.1 the kernel does it by itself.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn signal(kernel: &mut dyn Kernel, name: &ModuleName) -> std::io::Result<bool> {
    let directory = Patch::directory(name);
    let has_one = kernel.list(&directory).unwrap_or_default().iter().any(|file| file == "signal");
    if has_one {
        kernel.write(&directory.join("signal"), "1")?;
    }
    Ok(has_one)
}

/// Waits until a patch is where it is to be, or, where that is heeded, a signal comes. `tell` hears each second for how
/// long, and how many tasks are in the way.
///
/// # Errors
/// [`Stalled`]; or the patch went another way, or cannot be read.
pub(super) fn settle(
    kernel: &mut dyn Kernel,
    name: &ModuleName,
    enabled: bool,
    limits: Limits,
    is_interruptible: bool,
    tell: &mut dyn FnMut(Duration, usize),
) -> anyhow::Result<()> {
    let start = kernel.now();
    let (mut told, mut signalled) = (Duration::ZERO, false);
    loop {
        // Before it is looked at: what is done while the machine stands still is not late.
        let waited = kernel.now().saturating_sub(start);
        match Patch::read(kernel, name)?.map(|patch| patch.state) {
            Some(State::Enabled) if enabled => return Ok(()),
            Some(State::Disabled) | None if !enabled => return Ok(()),
            Some(state) if state.is_settled() => anyhow::bail!("{name} is {state}: somebody else switched it"),
            None => anyhow::bail!("the kernel has let go of {name}"),
            Some(_) => {}
        }
        let interrupted = kernel.interrupted().filter(|_| is_interruptible).map(Why::Signal);
        if let Some(why) = interrupted.or((waited >= limits.transition).then_some(Why::Limit(limits.transition))) {
            let tasks = kernel.holding_up(enabled);
            return Err(Stalled { name: name.clone(), why, tasks }.into());
        }
        if waited >= limits.signal && !signalled {
            signalled = true;
            // A nudge that is refused is one that was not needed.
            let _ = signal(kernel, name);
        }
        if waited >= told + TELL {
            told = waited;
            tell(waited, kernel.holding_up(enabled).len());
        }
        kernel.pause(GLANCE);
    }
}
