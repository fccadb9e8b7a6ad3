//! The log of the capture environment: the kernel log, and the console where the kernel would not show it there.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

/// The kernel cuts a record at about 1,000 bytes (`LOG_LINE_MAX` less its prefix).
const LONGEST: usize = 900;

/// The sink behind the `log` macros.
#[derive(Debug)]
struct Kmsg {
    kernel: Mutex<File>,
    console: Option<Mutex<File>>,
    /// Levels that the kernel prints on the console itself.
    shown: u8,
}

/// Makes `log` write to `/dev/kmsg`. Without that file nothing is logged, and nothing fails for it.
pub fn install() {
    let Ok(kernel) = OpenOptions::new().write(true).open("/dev/kmsg") else { return };
    // By default ten messages of user space in five seconds are let through.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let shown = std::fs::read_to_string("/proc/sys/kernel/printk")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(7);
    // A terminal that has been told to wait (XOFF) must not make the writer wait; what it does not take is lost.
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    let console = OpenOptions::new().write(true).custom_flags(flags).open("/dev/console").ok();
    let sink = Kmsg { kernel: Mutex::new(kernel), console: console.map(Mutex::new), shown };
    if log::set_boxed_logger(Box::new(sink)).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for Kmsg {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let priority = priority(record.level());
        for line in record.args().to_string().lines() {
            let line = cut(line);
            if let Ok(mut kernel) = self.kernel.lock() {
                // A record is one write.
                let _ = kernel.write_all(format!("<{priority}>kdump: {line}\n").as_bytes());
            }
            if priority >= self.shown
                && record.level() <= Level::Info
                && let Some(console) = &self.console
                && let Ok(mut console) = console.lock()
            {
                let _ = console.write_all(format!("kdump: {line}\r\n").as_bytes());
            }
        }
    }

    fn flush(&self) {}
}

/// The syslog priority, facility user.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// As much of a line as a record of the kernel log has room for.
pub(crate) fn cut(line: &str) -> &str {
    line.get(..line.floor_char_boundary(LONGEST)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "ä".repeat(600);
        assert!(cut(&line).len() <= LONGEST);
        assert!(cut(&line).chars().all(|c| c == 'ä'));
    }
}
