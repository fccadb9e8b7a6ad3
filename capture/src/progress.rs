//! What the operator sees. In: pages done. Out: a bar on a terminal, else a line every few seconds.
//! May surprise: progress goes to stderr and what other tools look for to stdout; `--message-level` decides which kinds
//! of message appear at all, with makedumpfile's bits. A phase lasts as long as its meter lives, however often workers
//! are started in it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which kinds of message appear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Messages(pub u8);

impl Messages {
    /// Progress.
    pub const PROGRESS: u8 = 1;
    /// What is good to know.
    pub const COMMON: u8 = 2;
    /// Errors.
    pub const ERROR: u8 = 4;
    /// What the vmcore says, step by step.
    pub const DEBUG: u8 = 8;
    /// The page statistics.
    pub const REPORT: u8 = 16;

    /// Whether `kind` appears.
    pub fn shows(self, kind: u8) -> bool {
        self.0 & kind != 0
    }
}

/// Progress of one phase.
#[derive(Debug)]
pub struct Meter {
    name: &'static str,
    /// How many items there are, if that is known.
    total: Option<u64>,
    unit: u64,
    shown: bool,
    done: AtomicU64,
    /// Where there is no such number: how much of what there is to come has come, in millionths.
    share: AtomicU64,
    /// How many wait for something that has a limit of its own.
    waiting: AtomicU64,
    working: Mutex<usize>,
    change: Condvar,
    began: Instant,
}

/// A worker that counts as working until this is dropped.
#[derive(Debug)]
pub struct Working<'a>(&'a Meter);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        *self.0.working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.change.notify_all();
    }
}

/// The last line of the phase.
impl Drop for Meter {
    fn drop(&mut self) {
        self.show(std::io::stderr().is_terminal(), true);
    }
}

impl Meter {
    /// A phase of `total` items of `unit` bytes each, which begins now.
    pub fn new(name: &'static str, total: u64, unit: u64, messages: Messages) -> Meter {
        Meter::of(name, Some(total), unit, messages)
    }

    /// A phase of which nobody knows how many bytes there will be.
    pub fn endless(name: &'static str, messages: Messages) -> Meter {
        Meter::of(name, None, 1, messages)
    }

    fn of(name: &'static str, total: Option<u64>, unit: u64, messages: Messages) -> Meter {
        Meter {
            name,
            total,
            unit,
            shown: messages.shows(Messages::PROGRESS),
            done: AtomicU64::new(0),
            share: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            working: Mutex::new(0),
            change: Condvar::new(),
            began: Instant::now(),
        }
    }

    /// `items` more are done.
    pub fn add(&self, items: u64) {
        self.done.fetch_add(items, Ordering::Relaxed);
    }

    /// Of a phase of unknown length it has become known that `came` of `all` is done.
    pub fn share(&self, came: u64, all: u64) {
        let millionths = u128::from(came.min(all)) * 1_000_000 / u128::from(all.max(1));
        self.share.store(u64::try_from(millionths).unwrap_or_default(), Ordering::Relaxed);
    }

    /// One more worker.
    pub fn worker(&self) -> Working<'_> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Working(self)
    }

    /// Does what takes its time and has a limit of its own, such as having a far disk store all that was sent; a line is
    /// shown now and then meanwhile.
    pub fn waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let done = work();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        done
    }

    /// Shows progress until no worker is left. Who stands still says nothing: whoever watches this program takes a line
    /// for a sign of life.
    pub fn watch(&self) {
        let mut told = None;
        let tty = std::io::stderr().is_terminal();
        let pause = if tty { Duration::from_millis(200) } else { Duration::from_secs(3) };
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        while *working > 0 {
            let (guard, waited) = self.change.wait_timeout(working, pause).unwrap_or_else(PoisonError::into_inner);
            working = guard;
            if waited.timed_out() && *working > 0 {
                drop(working);
                if self.moved(&mut told) || self.waiting.load(Ordering::Relaxed) > 0 {
                    self.show(tty, false);
                }
                working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Whether anything has been done since it was last `told`.
    fn moved(&self, told: &mut Option<u64>) -> bool {
        let done = self.done.load(Ordering::Relaxed);
        told.replace(done) != Some(done)
    }

    fn show(&self, tty: bool, last: bool) {
        if !self.shown {
            return;
        }
        let line = self.line(self.began.elapsed());
        let (start, end) = match (tty, last) {
            (true, false) => ("\r\x1b[K", ""),
            (true, true) => ("\r\x1b[K", "\n"),
            _ => ("", "\n"),
        };
        let bar = if tty { self.bar() } else { String::new() };
        // Nobody may be listening; that is no reason to stop.
        let _ = write!(std::io::stderr().lock(), "{start}{line}{bar}{end}");
    }

    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    fn line(&self, elapsed: Duration) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let seconds = elapsed.as_secs_f64();
        let Some(total) = self.total else {
            let megabytes = (done * self.unit) as f64 / 1e6;
            let part = self.share.load(Ordering::Relaxed) as f64 / 1e6;
            let known = if part > 0.0 { format!("[{:5.1} %] ", part * 100.0) } else { String::new() };
            let (rate, left) = (megabytes / seconds.max(1e-6), left(seconds, part));
            return format!("{:<32}: {known}{megabytes:.1} MB, {rate:.0} MB/s{left}", self.name);
        };
        let done = done.min(total);
        let part = if total == 0 { 1.0 } else { done as f64 / total as f64 };
        let rate = (done * self.unit) as f64 / 1e6 / seconds.max(1e-6);
        let left = left(seconds, part);
        format!("{:<32}: [{:5.1} %] {rate:.0} MB/s{left}", self.name, part * 100.0)
    }

    fn bar(&self) -> String {
        let Some(total) = self.total else { return String::new() };
        let done = self.done.load(Ordering::Relaxed).min(total);
        let cells = usize::try_from(done * 20 / total.max(1)).unwrap_or(20);
        format!(" |{:<20}|", "=".repeat(cells))
    }
}

/// When it will be done, if a part of it took so many seconds.
fn left(seconds: f64, part: f64) -> String {
    if part > 0.0 && part < 1.0 { format!(", ETA {:.0} s", seconds * (1.0 - part) / part) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_says_nothing() {
        let meter = Meter::new("Copying data", 1000, 4096, Messages(1));
        let mut told = None;
        assert!(meter.moved(&mut told));
        assert!(!meter.moved(&mut told));
        meter.add(1);
        assert!(meter.moved(&mut told));
        assert!(!meter.moved(&mut told));
    }

    #[test]
    fn a_line_of_what_may_be_endless_has_what_came_and_how_fast() {
        let meter = Meter::endless("Sending vmcore", Messages(1));
        meter.add(2_500_000);
        assert_eq!(meter.line(Duration::from_secs(2)), "Sending vmcore                  : 2.5 MB, 1 MB/s");
        meter.share(1, 4);
        let line = meter.line(Duration::from_secs(2));
        assert_eq!(line, "Sending vmcore                  : [ 25.0 %] 2.5 MB, 1 MB/s, ETA 6 s");
    }

    #[test]
    fn a_line_has_part_rate_and_time_left() {
        let meter = Meter::new("Copying data", 1000, 4096, Messages(1));
        meter.add(250);
        assert_eq!(meter.line(Duration::from_secs(1)), "Copying data                    : [ 25.0 %] 1 MB/s, ETA 3 s");
        meter.add(750);
        assert!(meter.line(Duration::from_secs(2)).contains("[100.0 %]"));
    }
}
