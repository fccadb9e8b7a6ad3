//! An NFS server on the host's loopback, for guests that reach it by QEMU's user network.
//!
//! In: a folder. Out: a server that exports it as `/export`, on ports of its own, until it is dropped; of NFSv4, or of
//! NFSv3 alone, for which it lives in a mount namespace with a [portmapper] as it wants one. It is
//! nfs-ganesha, a program like any other, so the host's kernel has no part in it. It is not installed: package and
//! libraries lie side by side below `target/qemu/ganesha`. It tells owners by number, as the kernel's own server does: a
//! guest has nobody to ask what their names mean.

use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{portmapper, provision, sys, tools};

/// It takes a second or two.
const START: Duration = Duration::from_secs(60);

/// A server that runs.
#[derive(Debug)]
pub struct NfsServer {
    /// Where it listens.
    pub port: u16,
    /// What it exports as `/export`.
    pub folder: PathBuf,
    /// Where it answers what NFSv3 asks before a mount.
    mount_port: Option<u16>,
    child: Child,
    _run: TempDir,
}

impl NfsServer {
    /// Starts one of NFSv4 that listens at `address` and exports `place/export`.
    pub fn start(place: &Path, address: IpAddr) -> Result<NfsServer> {
        NfsServer::of_version(place, address, 4)
    }

    /// Starts one of this version alone.
    pub fn of_version(place: &Path, address: IpAddr, version: u8) -> Result<NfsServer> {
        let ganesha = provision::ganesha()?;
        let free = || TcpListener::bind((address, 0)).context("no free port");
        let listeners = [free()?, free()?];
        let [port, mount_port] = listeners.map(|listener| listener.local_addr().map(|address| address.port()));
        let (port, mount_port) = (port?, mount_port?);
        // The name of its socket has to be short.
        let run = tempfile::tempdir().context("unable to make a temporary folder")?;
        let (folder, state) = (place.join("export"), place.join("ganesha"));
        for made in [&folder, &state] {
            fs::create_dir_all(made).with_context(|| format!("unable to make {}", made.display()))?;
        }
        let (conf, log) = (state.join("ganesha.conf"), state.join("ganesha.log"));
        let plugins = ganesha.join("usr/lib/x86_64-linux-gnu/ganesha");
        let text = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = {address}; \
             Protocols = {version}; Enable_UDP = false; mount_path_pseudo = true; Enable_NLM = false; \
             Enable_RQUOTA = false; Plugins_Dir = \"{}\"; }}\n\
             NFSv4 {{ RecoveryBackend = \"fs\"; RecoveryRoot = \"{}\"; Graceless = true; Minor_Versions = 1,2; \
             Only_Numeric_Owners = true; }}\n\
             EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = \"/export\"; Protocols = {version}; Transports = TCP; \
             Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
            plugins.display(),
            state.display(),
            folder.display(),
        );
        fs::write(&conf, text).with_context(|| format!("unable to write {}", conf.display()))?;
        let program = ganesha.join("usr/bin/ganesha.nfsd");
        let mut command = match version {
            3 => tools::command("unshare"),
            _ => tools::command(&program.display().to_string()),
        };
        if version == 3 {
            portmapper::start(run.path())?;
            let with_our_run = "mount --bind \"$0\" /run && exec \"$@\"";
            command.args(["--mount", "sh", "-c", with_our_run]).arg(run.path()).arg(program);
        }
        let libraries = [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu/libnfsidmap",
            "lib/x86_64-linux-gnu",
            "usr/lib/ganesha",
        ];
        let libraries: Vec<String> = libraries.iter().map(|dir| ganesha.join(dir).display().to_string()).collect();
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command.arg("-F").arg("-f").arg(&conf).arg("-L").arg(&log).arg("-p").arg(state.join("pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("unable to start {}", tools::shown(&command)))?;
        let mount_port = (version == 3).then_some(mount_port);
        let mut server = NfsServer { port, folder, mount_port, child, _run: run };
        let began = Instant::now();
        while TcpStream::connect((address, port)).is_err() {
            let ended = server.child.try_wait().context("unable to wait for the NFS server")?;
            if ended.is_some() || began.elapsed() > START {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("the NFS server does not listen ({ended:?}):\n{}", tools::tail(&said, 20));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// Makes it a hole: connections stay, and nothing is answered any more.
    pub fn pause(&self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGSTOP);
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The line of fstab by which a guest knows its ports.
    pub fn fstab(&self, host: &str) -> String {
        let mount = self.mount_port.map(|port| format!(",vers=3,mountport={port}")).unwrap_or_default();
        format!("{host}:/export /mnt nfs defaults,port={}{mount} 0 0\n", self.port)
    }

    /// The one dump on it.
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

impl Drop for NfsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
