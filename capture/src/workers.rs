//! Threads. In: how many, and what each does. Out: when all are done.
//! May surprise: the calling thread only shows progress meanwhile. Where a machine cannot start as many threads as
//! asked, fewer do the same work; with none at all the caller does it.

use std::io;
use std::thread;

use crate::progress::Meter;

/// Workers use a few KiB of stack; glibc would reserve 8 MiB each.
const STACK: usize = 256 << 10;

/// Runs `work` on `threads` threads and shows `meter` until all have returned.
pub fn run(threads: usize, meter: &Meter, work: &(dyn Fn() + Sync)) -> io::Result<()> {
    thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..threads.max(1) {
            let guard = meter.worker();
            let body = move || {
                let _guard = guard;
                work();
            };
            match thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body) {
                Ok(_) => started += 1,
                Err(_) => break,
            }
        }
        if started == 0 {
            work();
        } else {
            meter.watch();
        }
    });
    Ok(())
}
