//! A reserved memory that exists only in a test.

use super::{Kexec, Purpose, Segment};
use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};

/// Records what it is asked to do.
#[derive(Debug, Default)]
pub struct FakeKexec {
    /// Everything that was asked, one line each.
    pub journal: RefCell<Vec<String>>,
    /// The errno of every refusal, if it is to refuse.
    pub refuse: Option<i32>,
    /// The errno of a refusal to load by files alone.
    pub refuse_files: Option<i32>,
}

impl FakeKexec {
    fn record(&self, line: String) -> io::Result<()> {
        self.journal.borrow_mut().push(line);
        self.refuse.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

fn for_reboot(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Crash => "",
        Purpose::Reboot => " for a reboot",
    }
}

impl Kexec for FakeKexec {
    fn load_files(&self, purpose: Purpose, mut kernel: &File, image: Option<&File>, cmdline: &CStr) -> io::Result<()> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        kernel.read_to_end(&mut first)?;
        if let Some(mut image) = image {
            image.read_to_end(&mut second)?;
        }
        self.record(format!(
            "load{} {} {} `{}`",
            for_reboot(purpose),
            String::from_utf8_lossy(&first),
            second.len(),
            cmdline.to_string_lossy()
        ))?;
        self.refuse_files.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn load_segments(&self, purpose: Purpose, entry: u64, segments: &[Segment], follows: bool) -> io::Result<()> {
        let places: Vec<String> = segments.iter().map(Segment::to_string).collect();
        let follows = if follows { ", followed" } else { "" };
        self.record(format!("segments{} entry {entry:#x}: {}{follows}", for_reboot(purpose), places.join(", ")))
    }

    fn unload(&self, purpose: Purpose) -> io::Result<()> {
        self.record(format!("unload{}", for_reboot(purpose)))
    }

    fn boot(&self) -> io::Result<()> {
        self.record("boot".to_owned())
    }
}
