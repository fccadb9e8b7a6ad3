//! An NFS server on the host's loopback, for guests that reach it by QEMU's user network.
//!
//! In: a folder. Out: a server of NFSv4 that exports it as `/export`, on a port of its own, until it is dropped. It is
//! nfs-ganesha, a program like any other, so the host's kernel has no part in it. It is not installed: package and
//! libraries lie side by side below `target/qemu/ganesha`. It tells owners by number, as the kernel's own server does: a
//! guest has nobody to ask what their names mean.

use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{provision, sys, tools};

/// It takes a second or two.
const START: Duration = Duration::from_secs(60);

/// A server that runs.
#[derive(Debug)]
pub struct NfsServer {
    /// Where it listens.
    pub port: u16,
    /// What it exports as `/export`.
    pub folder: PathBuf,
    child: Child,
}

impl NfsServer {
    /// Starts one that listens at `address` and exports `place/export`.
    pub fn start(place: &Path, address: IpAddr) -> Result<NfsServer> {
        let ganesha = provision::ganesha()?;
        let port = TcpListener::bind((address, 0)).and_then(|free| free.local_addr()).context("no free port")?.port();
        let (folder, state) = (place.join("export"), place.join("ganesha"));
        for made in [&folder, &state] {
            fs::create_dir_all(made).with_context(|| format!("unable to make {}", made.display()))?;
        }
        let (conf, log) = (state.join("ganesha.conf"), state.join("ganesha.log"));
        let plugins = ganesha.join("usr/lib/x86_64-linux-gnu/ganesha");
        let text = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; Bind_addr = {address}; Protocols = 4; Enable_NLM = false; \
             Enable_RQUOTA = false; Plugins_Dir = \"{}\"; }}\n\
             NFSv4 {{ RecoveryBackend = \"fs\"; RecoveryRoot = \"{}\"; Graceless = true; Minor_Versions = 1,2; Only_Numeric_Owners = true; }}\n\
             EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = \"/export\"; Protocols = 4; Transports = TCP; \
             Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n",
            plugins.display(),
            state.display(),
            folder.display(),
        );
        fs::write(&conf, text).with_context(|| format!("unable to write {}", conf.display()))?;
        let mut command = tools::command(&ganesha.join("usr/bin/ganesha.nfsd").display().to_string());
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
        let mut server = NfsServer { port, folder, child };
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

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The line of fstab by which a guest knows its port.
    pub fn fstab(&self, host: &str) -> String {
        format!("{host}:/export /mnt nfs defaults,port={} 0 0\n", self.port)
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
