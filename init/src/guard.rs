//! The running system's watchdog, tended by PID 1 for as long as the boot keeps to its limits.
//!
//! In: until when all is well, told anew with every beat. Out: a watchdog that is tended until then, and no longer: a PID
//! 1 that hangs, or a boot that never ends, is reset by it.

use crate::start;
use kdump_hooks::watchdog::Keeper;
use log::{error, info, warn};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For the watchdogs to be stopped.
const PARTING: Duration = Duration::from_secs(1);

/// How long watchdogs are tended.
#[derive(Clone, Debug)]
pub struct Guard {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Until(Instant),
    /// Somebody sits before a shell.
    Attended,
    /// They are to be stopped.
    Parting,
    /// They have been.
    Parted,
}

impl Guard {
    /// One that tends nothing until [`Guard::begin`]; all is well until `until`.
    pub fn new(until: Instant) -> Guard {
        Guard { shared: Arc::new((Mutex::new(State::Until(until)), Condvar::new())) }
    }

    /// Begins to tend the watchdogs of this machine.
    pub fn begin(&self) {
        let guard = self.clone();
        let keeper = Keeper::new(Path::new("/dev"), Path::new("/sys/class/watchdog"));
        if let Err(error) = start::in_thread("watchdog", move || guard.tend(keeper)) {
            error!("the watchdog cannot be kept alive and may reset the machine: {error}");
        }
    }

    /// All is well until then.
    pub fn until(&self, until: Instant) {
        *self.lock() = State::Until(until);
    }

    /// Somebody attends to the machine; no limit applies.
    pub fn attended(&self) {
        *self.lock() = State::Attended;
    }

    /// Stops the watchdogs, since the machine will stand still for good.
    pub fn part(&self) {
        let mut state = self.lock();
        *state = State::Parting;
        self.shared.1.notify_all();
        let parted = self.shared.1.wait_timeout_while(state, PARTING, |state| *state != State::Parted);
        drop(parted);
    }

    fn tend(&self, mut keeper: Keeper) {
        let mut said = false;
        loop {
            match *self.lock() {
                State::Parting | State::Parted => break,
                State::Until(until) if Instant::now() >= until => {
                    if !std::mem::replace(&mut said, true) {
                        warn!("the time of this boot is over: the watchdog is not kept alive any more");
                    }
                }
                State::Until(_) | State::Attended => {
                    said = false;
                    keeper.tend();
                }
            }
            let state = self.lock();
            let waited = self.shared.1.wait_timeout_while(state, keeper.pace(), |state| *state != State::Parting);
            drop(waited);
        }
        keeper.release();
        info!("the watchdog is stopped");
        *self.lock() = State::Parted;
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_watchdog_is_tended_until_its_time_is_over_and_stopped_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("watchdog0");
        fs::write(&node, "").unwrap();
        let guard = Guard::new(Instant::now());
        let thread = {
            let (guard, keeper) = (guard.clone(), Keeper::new(dir.path(), dir.path()));
            std::thread::spawn(move || guard.tend(keeper))
        };
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(fs::read(&node).unwrap(), b"", "it was tended after its time");
        guard.until(Instant::now() + Duration::from_secs(60));
        let start = Instant::now();
        while fs::read(&node).unwrap().is_empty() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        guard.part();
        thread.join().unwrap();
        let written = fs::read(&node).unwrap();
        assert!(written.starts_with(b"\0") && written.ends_with(b"V"), "{written:?}");
    }

    #[test]
    fn parting_from_nothing_takes_no_longer_than_its_limit() {
        let start = Instant::now();
        Guard::new(start).part();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
