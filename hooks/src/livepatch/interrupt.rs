//! Signals that ask kpatch to end: SIGINT, SIGTERM and SIGHUP.
//!
//! ```text
//!   watch ─▶ a signal ends the program, as it always does
//!   heed  ─▶ something in the kernel is about to change: a signal is kept for whoever asks what came
//! ```
//!
//! May surprise: nothing is handled within a signal. They are blocked in every thread, and one thread waits for them. What
//! was ignored when the program was started, as by nohup(1), stays ignored. Where nobody watches, signals are not touched.

use nix::sys::signal::{SigSet, Signal, raise};
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

static STATE: Mutex<State> = Mutex::new(State { is_heeded: false, came: None });

struct State {
    is_heeded: bool,
    came: Option<Signal>,
}

/// Waits for the signals from now on. Has to be called before there is another thread.
///
/// # Errors
/// There can be no thread, or signals cannot be blocked; they do what they did before, then.
pub fn watch() -> io::Result<()> {
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    let mut signals = SigSet::empty();
    for signal in SIGNALS.into_iter().filter(|signal| ignored & bit(*signal) == 0) {
        signals.add(signal);
    }
    signals.thread_block()?;
    let waiting = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            let mut state = state();
            if state.is_heeded {
                state.came.get_or_insert(signal);
                continue;
            }
            // Nobody begins to heed while the program ends.
            let _ = signals.thread_unblock();
            let _ = raise(signal);
        }
    });
    match waiting {
        Ok(_) => Ok(()),
        Err(error) => {
            signals.thread_unblock()?;
            Err(error)
        }
    }
}

/// From now on a signal does not end the program.
pub(super) fn heed() {
    state().is_heeded = true;
}

/// The first signal that came since.
pub(super) fn came() -> Option<&'static str> {
    state().came.map(Signal::as_str)
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that are ignored, a bit for each, as proc_pid_status(5) has them.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let status = "Name:\tkpatch\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), bit(Signal::SIGHUP) | bit(Signal::SIGPIPE));
        assert_eq!(ignored("Name:\tkpatch\n"), 0);
    }
}
