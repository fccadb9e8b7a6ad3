//! An SMB server on the host's loopback, for guests that reach it by QEMU's user network.
//!
//! In: a folder. Out: Samba's smbd with three shares, `crash`, `other` and `third`, which are that folder, and one user, on a port of
//! its own, until it is dropped. There may be two more shares: `readonly`, and `small`, a [`SmallDisk`]. It is not
//! installed: packages lie side by side below `target/qemu/samba`.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::server::LOOPBACK;
use crate::small_disk::SmallDisk;
use crate::{folders, provision, server, tools};

/// The password of the one user: with all that is hard to hand on.
pub const PASSWORD: &str = "top,secret = x y";

/// A server that runs.
#[derive(Debug)]
pub struct SmbServer {
    /// Where it listens.
    pub port: u16,
    /// What it shares as `crash`.
    pub folder: PathBuf,
    /// The one user.
    pub user: String,
    small: Option<SmallDisk>,
    child: Child,
    _sockets: TempDir,
}

impl SmbServer {
    /// Starts one that shares `place/share`.
    pub fn start(place: &Path) -> Result<SmbServer> {
        SmbServer::of(place, None)
    }

    /// Starts one that has bad shares too, the small one of so many MiB.
    pub fn with_bad_shares(place: &Path, mib: usize) -> Result<SmbServer> {
        SmbServer::of(place, Some(SmallDisk::new(&place.join("small"), mib)?))
    }

    fn of(place: &Path, small: Option<SmallDisk>) -> Result<SmbServer> {
        let samba = provision::samba()?;
        let port = server::free_port(LOOPBACK)?;
        let (folder, state) = (place.join("share"), place.join("samba"));
        for made in [&folder, &state] {
            fs::create_dir_all(made).with_context(|| format!("unable to make {}", made.display()))?;
        }
        let sockets = folders::for_sockets()?;
        let user = User::from_uid(geteuid())?.context("this user has no name")?.name;
        let conf = state.join("smb.conf");
        let (dir, private) = (state.display(), sockets.path().display());
        let bad = match small {
            Some(_) => format!(
                "[readonly]\npath = {}\nread only = yes\n[small]\npath = {}\nread only = no\n",
                folder.display(),
                place.join("small").display()
            ),
            None => String::new(),
        };
        let text = format!(
            "[global]\nbind interfaces only = yes\ninterfaces = lo\nsmb ports = {port}\nserver role = standalone server\n\
             passdb backend = tdbsam:{dir}/passdb.tdb\nprivate dir = {private}\nlock directory = {dir}\n\
             state directory = {dir}\ncache directory = {dir}\npid directory = {dir}\nncalrpc dir = {private}/ncalrpc\n\
             log file = {dir}/log\nload printers = no\ndisable spoolss = yes\ndisable netbios = yes\n\
             server min protocol = SMB3\n[crash]\npath = {0}\nread only = no\n[other]\npath = {0}\nread only = no\n[third]\npath = {0}\nread only = no\n{bad}",
            folder.display(),
        );
        fs::write(&conf, text).with_context(|| format!("unable to write {}", conf.display()))?;

        let mut pdbedit = command(&samba, "usr/bin/pdbedit", None);
        pdbedit.arg("-s").arg(&conf).args(["-a", "-t", "-u", &user]);
        pdbedit.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut adding = pdbedit.spawn().with_context(|| format!("unable to start {}", tools::shown(&pdbedit)))?;
        let mut stdin = adding.stdin.take().context("pdbedit has no input")?;
        write!(stdin, "{PASSWORD}\n{PASSWORD}\n").context("unable to tell pdbedit the password")?;
        drop(stdin);
        let added = adding.wait_with_output()?;
        ensure!(added.status.success(), "pdbedit failed: {}", String::from_utf8_lossy(&added.stderr));

        let mut command = command(&samba, "usr/sbin/smbd", small.as_ref());
        command.args(["-F", "--no-process-group"]).arg("-s").arg(&conf);
        // Each connection has a process; all of them are to go.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = server::start(command, "SMB", (LOOPBACK, port), &state.join("log"))?;
        Ok(SmbServer { port, folder, user, small, child, _sockets: sockets })
    }

    /// The small share, as the server sees it.
    pub fn small(&self) -> Option<PathBuf> {
        self.small.as_ref().map(|small| small.seen(self.child.id()))
    }

    /// Leaves no room on the small share.
    pub fn fill(&self) -> Result<()> {
        self.small.as_ref().context("the server has no small share")?.fill(self.child.id())
    }

    /// Makes it a hole: connections stay, and nothing is answered any more.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends it, with whoever works for it, as a power cut would.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// The text of a credentials file.
    pub fn credentials(&self, password: &str) -> String {
        format!("username={}\npassword={password}\n", self.user)
    }

    /// The one dump on it. A `:` of its name is U+F022 on the server.
    pub fn dump(&self) -> Result<PathBuf> {
        let crash = self.folder.join(crate::scenario::CRASH_FOLDER.trim_start_matches('/'));
        let entries = fs::read_dir(&crash).with_context(|| format!("unable to list {}", crash.display()))?;
        let dumps = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        match dumps.as_slice() {
            [dump] => Ok(dump.clone()),
            dumps => bail!("{} directories are in {}, not one: {dumps:?}", dumps.len(), crash.display()),
        }
    }
}

fn command(samba: &Path, program: &str, small: Option<&SmallDisk>) -> Command {
    let program = samba.join(program);
    let mut command = match small {
        Some(small) => small.command(&program),
        None => tools::command(&program.display().to_string()),
    };
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/samba"];
    let libraries: Vec<String> = libraries.iter().map(|dir| samba.join(dir).display().to_string()).collect();
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command
}

impl Drop for SmbServer {
    fn drop(&mut self) {
        self.kill();
    }
}
