//! What is in a dump. In: a file. Out: [`Info`].
//! May surprise: the panic line is looked for in the log within the dump, through its own page tables, so that a dump
//! says by itself why the machine went down.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::compress::Kind;
use crate::dmesg::{self, PanicLine, Since};
use crate::dumpfile::layout::INCOMPLETE;
use crate::dumpfile::memory::{DumpMem, ones};
use crate::dumpfile::read::Source;
use crate::error::{Error, chain};
use crate::input::{Format, Recognised, elf_is_incomplete};
use crate::kernel::{Kernel, MACHINE, name};
use crate::units::DumpLevel;
use crate::vmcore::Vmcore;
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::PageRun;

use super::{input, open, plain};

/// Pages by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// Pages the machine had.
    pub present: u64,
    /// Pages whose data is in the dump; pages of zeros not counted, if the dump tells them apart.
    pub stored: u64,
    /// Pages of zeros, of which there is one piece of data.
    pub zero: u64,
    /// Pages that should be there and could not be saved.
    pub missing: u64,
}

/// What is in a dump.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Info {
    /// `kdump-compressed` or `elf`.
    pub format: &'static str,
    /// The format's version, if it has any.
    pub version: Option<u32>,
    /// Whether all that was asked for is in it.
    pub complete: bool,
    /// Whether it is in a flattened stream.
    pub flattened: bool,
    /// Size of the file.
    pub bytes: u64,
    /// Release of the kernel.
    pub kernel_release: Option<String>,
    /// The kind of machine.
    pub machine: Option<String>,
    /// Unix time of the crash.
    pub crash_time: Option<u64>,
    /// Why the kernel went down, in its own words.
    pub panic_line: Option<String>,
    /// What was left out; `None` if the format does not tell.
    pub level: Option<u8>,
    /// How pages are packed.
    pub codec: Option<&'static str>,
    /// Bytes of a page.
    pub page_size: usize,
    /// CPUs whose registers were saved.
    pub cpus: u32,
    /// Pages by what became of them.
    pub pages: Pages,
    /// What could not be found out, and why.
    pub problems: Vec<String>,
}

/// Looks at `path`.
pub(super) fn info(path: &Path) -> Result<Info, Error> {
    let (found, format) = open(path)?;
    let bytes = found.file_bytes;
    let stream = found.storage.stream().map(|facts| facts.ended.as_ref().map(|ended| chain(ended)));
    let mut info = match format {
        Format::Kdump => kdump(path, &found.storage)?,
        Format::Elf => elf(path, found)?,
    };
    info.bytes = bytes;
    info.flattened = stream.is_some();
    if let Some(why) = stream.flatten() {
        info.complete = false;
        info.problems.push(format!("the flattened dump is not whole: {why}"));
    }
    Ok(info)
}

fn kdump(path: &Path, source: &dyn Source) -> Result<Info, Error> {
    let mem = DumpMem::new(source).map_err(|e| input(path, e.to_string()))?;
    let dump = mem.dump();
    let header = &dump.header;
    let text = |index| Some(plain(&name(&header.utsname, index))).filter(|name| !name.is_empty());
    let mut info = Info {
        format: "kdump-compressed",
        version: Some(header.version()),
        complete: header.status & INCOMPLETE == 0,
        kernel_release: text(2),
        machine: text(MACHINE),
        crash_time: Some(header.crash_time).filter(|time| *time != 0),
        level: Some(header.level),
        page_size: header.block.bytes(),
        cpus: header.cpus,
        ..Info::default()
    };
    let known = Kind::ALL.iter().fold(0, |bits, kind| bits | kind.flag());
    match Kind::of_flag(header.status & known) {
        Some(kind) => info.codec = Some(kind.name()),
        None => info.problems.push("the header names more than one codec".into()),
    }
    let read = dump.bitmap(header.bitmap1_at(), &mut |_, block| {
        info.pages.present += ones(block);
        Ok(())
    });
    let counts_zero = DumpLevel::new(header.level).is_some_and(|level| level.has(DumpLevel::ZERO));
    let zero_at = header.data_at(mem.kept()).0;
    let read = read.and_then(|()| {
        dump.kept(&mut |_, descriptor| {
            let pages = &mut info.pages;
            let count = if descriptor.is_missing() {
                &mut pages.missing
            } else if counts_zero && descriptor.offset == zero_at && descriptor.flags == 0 {
                &mut pages.zero
            } else {
                &mut pages.stored
            };
            *count += 1;
            Ok(())
        })
    });
    if let Err(e) = read {
        info.complete = false;
        info.problems.push(e.to_string());
    }
    match dump.vmcoreinfo() {
        Ok(vmcoreinfo) => learn(&mut info, &vmcoreinfo, &mem),
        Err(e) => info.problems.push(format!("vmcoreinfo cannot be read: {e}")),
    }
    Ok(info)
}

fn elf(path: &Path, found: Recognised) -> Result<Info, Error> {
    let marked = elf_is_incomplete(&found.storage);
    let mut vmcore = Vmcore::of(found.storage, found.bytes, path, true, None)?;
    let pages = |runs: &[PageRun]| runs.iter().map(PageRun::len).sum();
    let segments = vmcore.segments();
    let mut info = Info {
        format: "elf",
        complete: !marked && segments.missing_bytes() == 0,
        machine: Some(vmcore.arch().name.into()),
        page_size: vmcore.page().bytes(),
        cpus: vmcore.notes().cpus,
        pages: Pages {
            present: pages(segments.present()),
            stored: pages(segments.backed()),
            zero: 0,
            missing: segments.missing_pages(),
        },
        ..Info::default()
    };
    info.problems.append(&mut vmcore.problems);
    learn(&mut info, vmcore.vmcoreinfo(), &vmcore);
    Ok(info)
}

/// Asks the kernel in the dump.
fn learn(info: &mut Info, vmcoreinfo: &[u8], mem: &dyn PhysMem) {
    let kernel = Kernel::learn(vmcoreinfo, mem, &mut info.problems);
    info.kernel_release = info.kernel_release.take().or_else(|| Some(kernel.release()).filter(|name| !name.is_empty()));
    info.crash_time = info.crash_time.or(kernel.crash_time);
    let Some(mut memory) = kernel.memory(mem) else { return };
    let mut line = PanicLine::default();
    let seen = dmesg::records(&kernel.facts, &mut memory, Since::Boot, &mut |record| {
        line.see(record.text);
        Ok(())
    });
    if let Err(e) = seen {
        info.problems.push(format!("the kernel log cannot be read: {}", chain(&e)));
    }
    info.panic_line = line.get().map(|line| plain(&line));
}

impl Info {
    /// As people read it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<10} {value}");
        };
        let version = self.version.map_or(String::new(), |version| format!(", version {version}"));
        let unknown = || "not known".to_owned();
        let flattened = if self.flattened { ", flattened" } else { "" };
        line("format", format!("{}{version}{flattened}, {} bytes", self.format, self.bytes));
        line("complete", if self.complete { "yes" } else { "no" }.into());
        let machine = self.machine.as_ref().map_or(String::new(), |machine| format!(" ({machine})"));
        line("kernel", format!("{}{machine}, {} CPUs", self.kernel_release.clone().unwrap_or_else(unknown), self.cpus));
        line("crashed", self.crash_time.map_or_else(unknown, utc));
        line("panic", self.panic_line.clone().unwrap_or_else(unknown));
        if let Some(level) = self.level {
            line("level", level.to_string());
        }
        if let Some(codec) = self.codec {
            line("codec", codec.into());
        }
        let p = &self.pages;
        let counts = format!("{} present, {} stored, {} zero, {} missing", p.present, p.stored, p.zero, p.missing);
        line("pages", format!("{counts}, of {} bytes", self.page_size));
        for problem in &self.problems {
            line("problem", plain(problem));
        }
        text
    }
}

/// Unix time as date and time of day. The calendar repeats every 400 years, of 146,097 days; counted from March, a leap
/// day is the last of its year.
fn utc(time: u64) -> String {
    let (days, seconds) = (time / 86_400 + 719_468, time % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turned) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", era * 400 + year + turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_becomes_a_date() {
        for (time, date) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(time), date);
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
    }
}
