//! Somebody who holds a lock until whoever waits for it has said so: an event, where a clock could be outrun.

use std::fs::File;
use std::io::{Result, Write};

/// What is said, to somebody who lets go when he hears the first word.
#[derive(Debug)]
pub struct UntilTold {
    /// What is held.
    pub held: Option<File>,
    /// What has been said.
    pub text: String,
}

impl UntilTold {
    /// Somebody who holds a lock that he has.
    pub fn holding(lock: File) -> UntilTold {
        UntilTold { held: Some(lock), text: String::new() }
    }
}

impl Write for UntilTold {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.held = None;
        self.text.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
