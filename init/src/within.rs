//! Work that may never come back, such as a system call on the file system of a server that is gone, done in a thread of
//! its own: who asks for it waits for a limited time.
//!
//! May surprise: a thread that does not come back is left behind, with all that it holds, to the reboot. Where no thread
//! can be started the work is done all the same: PID 1 has a limit for each stage.

use crate::start;
use anyhow::{Context, bail};
use log::warn;
use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The work was not done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late(pub Duration);

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} s", self.0.as_secs())
    }
}

impl std::error::Error for Late {}

/// What a thread at work tells.
enum Said<T> {
    Alive,
    Done(T),
}

/// How work says that it comes along.
#[derive(Debug)]
pub struct Tick<T>(SyncSender<Said<T>>);

impl<T> fmt::Debug for Said<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Said::Alive) { "alive" } else { "done" })
    }
}

impl<T> Tick<T> {
    /// It comes along.
    pub fn tick(&self) {
        let _ = self.0.try_send(Said::Alive);
    }
}

/// Has `work` done, which may take `limit`.
///
/// # Errors
/// Those of the work, and [`Late`].
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    alive_within(limit, |_: &Tick<_>| work(), &mut || ())
}

/// Has `work` done, which may take as long as it likes but not longer than `limit` from one sign of life to the next;
/// `tick` is called at each.
///
/// # Errors
/// As [`within`].
pub fn alive_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Tick<anyhow::Result<T>>) -> anyhow::Result<T> + Send + 'static,
    tick: &mut dyn FnMut(),
) -> anyhow::Result<T> {
    let (say, heard) = mpsc::sync_channel(8);
    // A thread that cannot be started drops what it was given.
    let work = Arc::new(Mutex::new(Some(work)));
    let (theirs, alive) = (Arc::clone(&work), Tick(say.clone()));
    let started = start::in_thread("within", move || {
        if let Some(work) = take(&theirs) {
            let done = work(&alive);
            let _ = alive.0.send(Said::Done(done));
        }
    });
    if let Err(error) = started {
        warn!("no thread for work that may hang, so that it has the limit of its stage alone: {error}");
        let work = take(&work).context("the thread for it did not start")?;
        return work(&Tick(say));
    }
    drop(say);
    listen(limit, |limit| heard.recv_timeout(limit), tick)
}

/// Hears somebody out, for whom `wait` waits so long.
fn listen<T>(
    limit: Duration,
    mut wait: impl FnMut(Duration) -> Result<Said<anyhow::Result<T>>, RecvTimeoutError>,
    tick: &mut dyn FnMut(),
) -> anyhow::Result<T> {
    loop {
        match wait(limit) {
            Ok(Said::Alive) => tick(),
            Ok(Said::Done(done)) => return done,
            Err(RecvTimeoutError::Timeout) => return Err(Late(limit).into()),
            Err(RecvTimeoutError::Disconnected) => bail!("the thread for it died"),
        }
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Instant;

    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn what_is_done_in_time_comes_back() {
        assert_eq!(within(SHORT * 50, || Ok(7)).unwrap(), 7);
        assert_eq!(within::<()>(SHORT * 50, || bail!("no")).unwrap_err().to_string(), "no");
    }

    #[test]
    fn what_never_comes_back_is_left_behind() {
        let began = Instant::now();
        let error = within(SHORT, || {
            sleep(Duration::from_secs(20));
            Ok(())
        });
        assert_eq!(*error.unwrap_err().downcast_ref::<Late>().unwrap(), Late(SHORT));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn signs_of_life_extend_the_limit() {
        // Each comes a moment before the limit is over.
        let mut said = vec![Ok(Said::Done(Ok("done"))), Ok(Said::Alive), Ok(Said::Alive)];
        let (mut waits, mut ticks) = (Vec::new(), 0);
        let wait = |limit| {
            waits.push(limit);
            said.pop().unwrap()
        };
        assert_eq!(listen(SHORT, wait, &mut || ticks += 1).unwrap(), "done");
        assert_eq!((waits, ticks), (vec![SHORT; 3], 2));
    }

    #[test]
    fn signs_of_life_come_from_the_thread_at_work() {
        let mut ticks = 0;
        let work = |tick: &Tick<_>| {
            (0..3).for_each(|_| tick.tick());
            Ok("done")
        };
        assert_eq!(alive_within(SHORT * 300, work, &mut || ticks += 1).unwrap(), "done");
        assert_eq!(ticks, 3);
    }
}
