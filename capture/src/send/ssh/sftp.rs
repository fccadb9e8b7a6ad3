//! A far side that speaks SFTP, version 3 with OpenSSH's extensions: files that are written at positions.
//!
//! In: paths. Out: requests of libssh2, which has many on the way at the same time. May surprise: a rename does not
//! replace a file in version 3; one that is in the way is removed first.

use super::Ssh;
use crate::send::far::{Far, FarFile, Made};
use anyhow::{Context, anyhow};
use ssh2::{ErrorCode, File, OpenFlags, OpenType, RenameFlags};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Read back at once: libssh2 asks ahead for as much.
const CHUNK: usize = 1 << 20;

/// `SSH_FX_…` (draft-ietf-secsh-filexfer-02, section 7), as they are to be told.
const STATUS: [(i32, &str); 4] =
    [(2, "there is no such file or directory"), (3, "permission denied"), (4, FAILURE), (8, "it cannot do that")];
/// OpenSSH has no other word for a full disk.
const FAILURE: &str = "the far side failed, and does not say why; its disk may be full";
/// `SSH_FX_OP_UNSUPPORTED`.
const UNSUPPORTED: ErrorCode = ErrorCode::SFTP(8);

/// See the module.
pub struct Sftp {
    // Dropped first: it says good-bye over the session.
    sftp: ssh2::Sftp,
    ssh: Ssh,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sftp").field("ssh", &self.ssh).finish_non_exhaustive()
    }
}

impl Sftp {
    /// Over a session.
    ///
    /// # Errors
    /// The far side has no SFTP.
    pub fn new(ssh: Ssh) -> anyhow::Result<Sftp> {
        let sftp = ssh
            .session
            .sftp()
            .map_err(|error| ssh.explain(error))
            .context("cannot begin SFTP; where the far side has only a shell, write ssh:// instead")?;
        Ok(Sftp { sftp, ssh })
    }

    fn explain(&self, error: ssh2::Error) -> io::Error {
        match error.code() {
            ErrorCode::SFTP(code) => match STATUS.iter().find(|(known, _)| *known == code) {
                Some((_, meaning)) => io::Error::other(*meaning),
                None => io::Error::other(format!("SFTP status {code}: {}", error.message())),
            },
            ErrorCode::Session(_) => self.ssh.explain(error),
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.sftp.lstat(Path::new(path)).is_ok()
    }
}

impl Far for Sftp {
    fn mkdir(&mut self, path: &str) -> anyhow::Result<Made> {
        match self.sftp.mkdir(Path::new(path), 0o700) {
            Ok(()) => Ok(Made::New),
            Err(_) if self.exists(path) => Ok(Made::Taken),
            Err(error) => Err(anyhow!(self.explain(error)).context(format!("cannot make the directory {path}"))),
        }
    }

    fn create(&mut self, path: &str) -> anyhow::Result<Box<dyn FarFile + '_>> {
        let flags = OpenFlags::WRITE | OpenFlags::TRUNCATE;
        let file = self
            .sftp
            .open_mode(Path::new(path), flags, 0o600, OpenType::File)
            .map_err(|error| self.explain(error))
            .with_context(|| format!("cannot create {path}"))?;
        Ok(Box::new(Handle { file, sftp: self }))
    }

    fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        let flags = Some(RenameFlags::ATOMIC | RenameFlags::NATIVE);
        let rename = || self.sftp.rename(Path::new(from), Path::new(to), flags);
        let renamed = rename().or_else(|error| match self.sftp.unlink(Path::new(to)) {
            Ok(()) => rename(),
            Err(_) => Err(error),
        });
        renamed.map_err(|error| self.explain(error)).with_context(|| format!("cannot rename {from} to {to}"))
    }

    fn size(&mut self, path: &str) -> anyhow::Result<Option<u64>> {
        let stat = self.sftp.stat(Path::new(path)).map_err(|error| self.explain(error));
        Ok(stat.with_context(|| format!("cannot tell the length of {path}"))?.size)
    }

    fn is_positioned(&self) -> bool {
        true
    }

    fn read(&mut self, path: &str, each: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let reading = || format!("cannot read {path} back");
        let mut file = self.sftp.open(Path::new(path)).map_err(|error| self.explain(error)).with_context(reading)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(|error| self.ssh.explain_io(error)).with_context(reading)?;
            match chunk.get(..read) {
                None | Some([]) => return Ok(()),
                Some(bytes) => each(bytes),
            }
        }
    }
}

struct Handle<'a> {
    file: File,
    sftp: &'a Sftp,
}

impl Handle<'_> {
    /// What a status of SFTP means, which has become an error of the standard library on its way.
    fn explain(&self, error: io::Error) -> io::Error {
        match error.to_string().as_str() {
            "failure" => io::Error::other(FAILURE),
            _ => self.sftp.ssh.explain_io(error),
        }
    }
}

impl FarFile for Handle<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.explain(error))
    }

    fn seek(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at)).map(drop)
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        let _waiting = self.sftp.ssh.wait_for(self.sftp.ssh.patience.for_the_disk());
        match self.file.fsync() {
            Err(error) if error.code() != UNSUPPORTED => {
                return Err(anyhow!(self.sftp.explain(error)).context("the far side cannot bring it to its disk"));
            }
            _ => {}
        }
        self.file.close().map_err(|error| self.sftp.explain(error)).context("the far side did not close it")
    }
}
