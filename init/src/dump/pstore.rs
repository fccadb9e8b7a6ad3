//! pstore as the target: the log alone, as the last resort.
//!
//! In: the old kernel's log, as the collector writes it. Out: its end in the kernel log of the capture environment, of
//! which the kernel stores the end when it reboots.
//!
//! May surprise: there is no file. Why the other targets failed is in the same log, so that there is no status beside it.

use super::{Address, Collector, LOG, Place};
use crate::beat::Pulse;
use crate::kmsg::cut;
use crate::status::{FileReport, Outcome};
use anyhow::{Context, bail};
use log::info;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The kernel log.
const KMSG: &str = "dev/kmsg";
/// In front of each line of the old kernel's log: its facility is user, its level debug, so that a serial line is not
/// kept busy with what it has shown before.
const PREFIX: &str = "<15>old: ";

/// An opened pstore.
#[derive(Clone, Debug)]
pub struct Pstore {
    backend: String,
    bytes: u64,
    root: PathBuf,
    state: PathBuf,
}

impl Pstore {
    /// One that `backend` keeps, which stores at most `bytes` of the log; `state` is for a file that is not kept.
    pub fn new(backend: String, bytes: u64, root: &Path, state: &Path) -> Pstore {
        Pstore { backend, bytes, root: root.to_owned(), state: state.to_owned() }
    }

    /// One for which nothing more can be done.
    pub fn existing(backend: String) -> Pstore {
        Pstore::new(backend, 0, Path::new("/"), Path::new("/run/kdump"))
    }

    /// Puts the end of a log into the kernel log.
    fn keep(&self, log: &Path) -> anyhow::Result<()> {
        let end = end_of(log, self.bytes).with_context(|| format!("cannot read {}", log.display()))?;
        let kmsg = self.root.join(KMSG);
        let writing = || format!("cannot write to {}", kmsg.display());
        let mut kernel = File::options().append(true).open(&kmsg).with_context(writing)?;
        for line in end.lines().filter(|line| !line.is_empty()) {
            // A record is one write.
            kernel.write_all(format!("{PREFIX}{}\n", cut(line)).as_bytes()).with_context(writing)?;
        }
        info!(
            "of the old kernel's log the last {} bytes are in the kernel log now, the end of which goes to pstore ({}) \
             when this kernel ends",
            end.len(),
            self.backend
        );
        Ok(())
    }
}

/// The last `bytes` of a file, from the beginning of a line on.
fn end_of(file: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let end = String::from_utf8_lossy(&end).into_owned();
    Ok(match (from, end.split_once('\n')) {
        (1.., Some((_, whole))) => whole.to_owned(),
        _ => end,
    })
}

impl Place for Pstore {
    fn address(&self) -> Address {
        Address::Pstore(self.backend.clone())
    }

    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        if name != LOG {
            bail!("pstore takes the log alone");
        }
        let file = self.state.join(format!("{name}.unkept"));
        let kept = collector.into_file(&file).run(pulse).and_then(|()| self.keep(&file));
        let _ = fs::remove_file(&file);
        kept
    }

    /// What else there is to say is in the kernel log, and pstore takes nothing but that.
    fn write(&mut self, _name: &str, _pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        Ok(())
    }

    fn replace(&mut self, _name: &str, _text: Vec<u8>) -> anyhow::Result<()> {
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        Outcome::Failed
    }

    fn files(&self, _most: u64, _tick: &mut dyn FnMut()) -> Vec<FileReport> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::VMCORE;
    use std::time::Duration;

    /// What comes into the kernel log of a log that a collector writes by `script`.
    fn kept(script: &str, bytes: u64, name: &str) -> (anyhow::Result<()>, String) {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("dev")).unwrap();
        fs::write(tree.path().join(KMSG), "").unwrap();
        let mut place = Pstore::new("ramoops".into(), bytes, tree.path(), tree.path());
        // The last argument is the file.
        let command = ["sh", "-c", script].map(str::to_owned);
        let stall = Duration::from_secs(20);
        let collector = Collector { command: &command, vmcore: "/v".as_ref(), report: "/r".as_ref(), stall };
        let done = place.collect(name, &collector, &mut Vec::new());
        assert_eq!((place.outcome(), place.files(u64::MAX, &mut || ()).len()), (Outcome::Failed, 0));
        assert!(!tree.path().join("vmcore-dmesg.txt.unkept").exists());
        (done, fs::read_to_string(tree.path().join(KMSG)).unwrap())
    }

    #[test]
    fn the_end_of_the_log_goes_into_the_kernel_log_by_whole_lines() {
        let script = "printf 'one\\ntwo\\n\\nthree\\n' > $1";
        let (done, kernel) = kept(script, 100, LOG);
        done.unwrap();
        assert_eq!(kernel, "<15>old: one\n<15>old: two\n<15>old: three\n");
        let (done, kernel) = kept(script, 8, LOG);
        done.unwrap();
        assert_eq!(kernel, "<15>old: three\n");
    }

    #[test]
    fn the_dump_is_refused_and_a_log_that_cannot_be_read_is_told() {
        let (done, kernel) = kept("echo x > $1", 100, VMCORE);
        assert_eq!((done.unwrap_err().to_string().as_str(), kernel.as_str()), ("pstore takes the log alone", ""));
        let (done, kernel) = kept("echo no log >&2; exit 1", 100, LOG);
        assert!(format!("{:#}", done.unwrap_err()).contains("no log"));
        assert_eq!(kernel, "");
    }
}
