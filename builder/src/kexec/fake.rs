//! A reserved memory that exists only in a test.

use super::Kexec;
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
}

impl FakeKexec {
    fn record(&self, line: String) -> io::Result<()> {
        self.journal.borrow_mut().push(line);
        self.refuse.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

impl Kexec for FakeKexec {
    fn load(&self, mut kernel: &File, mut image: &File, cmdline: &CStr) -> io::Result<()> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        kernel.read_to_end(&mut first)?;
        image.read_to_end(&mut second)?;
        self.record(format!(
            "load {} {} `{}`",
            String::from_utf8_lossy(&first),
            second.len(),
            cmdline.to_string_lossy()
        ))
    }

    fn unload(&self) -> io::Result<()> {
        self.record("unload".to_owned())
    }
}
