//! Whose turn it is. In: workers with numbered pieces, done in any order. Out: each piece's moment, in order.
//! May surprise: a worker that stops makes all others stop waiting, with the first error kept; so does one that dies
//! (in tests, where a panic unwinds), since [`Turns::guard`] notices.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    next: u64,
    stopped: Option<io::Error>,
}

/// The turns of one file; piece 0 comes first.
#[derive(Debug, Default)]
pub struct Turns {
    state: Mutex<State>,
    change: Condvar,
}

/// Stops everything if it is dropped without [`Guard::off`].
#[derive(Debug)]
pub struct Guard<'a>(Option<&'a Turns>);

impl Guard<'_> {
    /// The worker has ended as it should.
    pub fn off(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(turns) = self.0 {
            turns.stop(io::Error::other("a worker ended early"));
        }
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of `piece`; false if writing has stopped.
    pub fn wait(&self, piece: u64) -> bool {
        let mut state = self.lock();
        while state.next != piece && state.stopped.is_none() {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.stopped.is_none()
    }

    /// Ends the turn; whoever waits for the next one goes on.
    pub fn pass(&self) {
        self.lock().next += 1;
        self.change.notify_all();
    }

    /// No more turns; the first error is the one that is told.
    pub fn stop(&self, error: io::Error) {
        self.lock().stopped.get_or_insert(error);
        self.change.notify_all();
    }

    /// Whether [`Turns::stop`] was called.
    pub fn stopped(&self) -> bool {
        self.lock().stopped.is_some()
    }

    /// A worker's guard.
    pub fn guard(&self) -> Guard<'_> {
        Guard(Some(self))
    }

    /// What stopped it, when all workers are done.
    pub fn into_stopped(self) -> Option<io::Error> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).stopped
    }
}
