//! Starts processes and threads where memory may be short for a moment.
//!
//! In: what is to be started. Out: it runs, or the error of the last of several attempts. fork(2) and clone(2) fail with
//! EAGAIN or ENOMEM when there is no memory just now; a moment later another process may have ended.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often it is tried before it counts as failed, and how long is waited in between: 3 s in all.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_millis(250);

/// Tries to start something until there is enough memory for it.
///
/// # Errors
/// Any other reason at once; want of memory when there still is none.
pub fn patiently<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match start() {
            Err(error) if is_want(&error) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    start()
}

/// Starts a thread, as [`patiently`] does. `std::thread::spawn` would panic.
///
/// # Errors
/// There is no memory for it.
pub fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A thread that cannot be started drops what it was given.
    let work = Arc::new(Mutex::new(Some(work)));
    patiently(|| {
        let work = Arc::clone(&work);
        let body = move || {
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = work {
                work();
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
    })
}

fn is_want(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_waited_out_and_anything_else_told_at_once() {
        let mut attempts = 0;
        let started = patiently(|| {
            attempts += 1;
            match attempts {
                1 => Err(io::Error::from_raw_os_error(nix::libc::EAGAIN)),
                2 => Err(io::Error::from_raw_os_error(nix::libc::ENOMEM)),
                _ => Ok(attempts),
            }
        });
        assert_eq!(started.unwrap(), 3);
        let mut attempts = 0;
        let missing = patiently(|| {
            attempts += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::NotFound))
        });
        assert_eq!((missing.unwrap_err().kind(), attempts), (io::ErrorKind::NotFound, 1));
    }

    #[test]
    fn memory_that_never_comes_ends_the_attempts() {
        let mut attempts = 0;
        let error = patiently(|| {
            attempts += 1;
            Err::<(), _>(io::Error::from_raw_os_error(nix::libc::ENOMEM))
        });
        assert!(error.is_err() && attempts == ATTEMPTS);
    }

    #[test]
    fn a_thread_does_its_work_once() {
        let (sender, receiver) = std::sync::mpsc::channel();
        in_thread("work", move || sender.send(7).unwrap()).unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [7]);
    }
}
