//! Says what takes its time, so that nobody has to guess whether it hangs.
//!
//! In: what is done, and the work. Out: a line on stderr after a second, and one every ten from then on.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Does the work, and says so while it lasts.
pub(super) fn while_saying<T>(what: &str, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, is_done) = channel::<()>();
        scope.spawn(move || {
            let began = Instant::now();
            let mut pause = Duration::from_secs(1);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                log::info!("{what}, for {} s so far", began.elapsed().as_secs());
                pause = Duration::from_secs(10);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_comes_at_once_when_the_work_is_done() {
        let began = Instant::now();
        for round in 0..10 {
            assert_eq!(while_saying("adding", || round + 1), round + 1);
        }
        assert!(began.elapsed() < Duration::from_secs(9));
    }
}
