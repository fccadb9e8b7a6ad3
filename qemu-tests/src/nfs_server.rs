//! An NFS server on the host's loopback, for guests that reach it by QEMU's user network.
//!
//! In: a folder. Out: a server that exports it as `/export`, on ports of its own, until it is dropped; of NFSv4, or of
//! NFSv3 alone, for which it lives in a mount namespace with a [portmapper] as it wants one. Beside the good export one
//! may have three others: `/readonly`, `/denied`, which another machine may mount, and `/small`, a [`SmallDisk`]. It is
//! nfs-ganesha, a program like any other, so the host's kernel has no part in it. It is not installed: package and
//! libraries lie side by side below `target/qemu/ganesha`. It tells owners by number, as the kernel's own server does: a
//! guest has nobody to ask what their names mean.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::small_disk::SmallDisk;
use crate::{folders, portmapper, provision, server, tools};

/// A server that runs.
#[derive(Debug)]
pub struct NfsServer {
    /// Where it listens.
    pub port: u16,
    /// What it exports as `/export`.
    pub folder: PathBuf,
    /// Where it answers what NFSv3 asks before a mount.
    mount_port: Option<u16>,
    small: Option<SmallDisk>,
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
        NfsServer::of(place, address, version, None)
    }

    /// Starts one of NFSv4 that has bad exports too, the small one of so many MiB.
    pub fn with_bad_exports(place: &Path, address: IpAddr, mib: usize) -> Result<NfsServer> {
        NfsServer::of(place, address, 4, Some(SmallDisk::new(&place.join("small"), mib)?))
    }

    fn of(place: &Path, address: IpAddr, version: u8, small: Option<SmallDisk>) -> Result<NfsServer> {
        let ganesha = provision::ganesha()?;
        let (port, mount_port) = (server::free_port(address)?, server::free_port(address)?);
        let run = folders::for_sockets()?;
        let (folder, state) = (place.join("export"), place.join("ganesha"));
        for made in [&folder, &state] {
            fs::create_dir_all(made).with_context(|| format!("unable to make {}", made.display()))?;
        }
        // The server follows no link on the way to what it exports.
        let place = &place.canonicalize().with_context(|| format!("unable to find {}", place.display()))?;
        let (conf, log) = (state.join("ganesha.conf"), state.join("ganesha.log"));
        let plugins = ganesha.join("usr/lib/x86_64-linux-gnu/ganesha");
        let text = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = {address}; \
             Protocols = {version}; Enable_UDP = false; mount_path_pseudo = true; Enable_NLM = false; \
             Enable_RQUOTA = false; Plugins_Dir = \"{}\"; }}\n\
             NFSv4 {{ RecoveryBackend = \"fs\"; RecoveryRoot = \"{}\"; Graceless = true; Minor_Versions = 1,2; \
             Only_Numeric_Owners = true; }}\n{}",
            plugins.display(),
            state.display(),
            exports(place, version, small.is_some())?,
        );
        fs::write(&conf, text).with_context(|| format!("unable to write {}", conf.display()))?;
        let program = ganesha.join("usr/bin/ganesha.nfsd");
        let mut command = match (version, &small) {
            (3, _) => tools::command("unshare"),
            (_, Some(small)) => small.command(&program),
            (_, None) => tools::command(&program.display().to_string()),
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
        let child = server::start(command, "NFS", (address, port), &log)?;
        let mount_port = (version == 3).then_some(mount_port);
        Ok(NfsServer { port, folder, mount_port, small, child, _run: run })
    }

    /// The small export, as the server sees it.
    pub fn small(&self) -> Option<PathBuf> {
        self.small.as_ref().map(|small| small.seen(self.child.id()))
    }

    /// Leaves no room on the small export.
    pub fn fill(&self) -> Result<()> {
        self.small.as_ref().context("the server has no small export")?.fill(self.child.id())
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

/// What the server exports, the good export first; the folders of the others are made.
fn exports(place: &Path, version: u8, bad: bool) -> Result<String> {
    let export = |number: usize, name: &str, access: &str| {
        format!(
            "EXPORT {{ Export_Id = {number}; Path = \"{}\"; Pseudo = \"/{name}\"; Protocols = {version}; \
             Transports = TCP; Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} {access} }}\n",
            place.join(name).display()
        )
    };
    const BAD: [(&str, &str); 3] = [
        ("readonly", "Access_Type = RO;"),
        ("denied", "Access_Type = NONE; CLIENT { Clients = 192.0.2.1; Access_Type = RW; }"),
        ("small", "Access_Type = RW;"),
    ];
    let mut text = export(1, "export", "Access_Type = RW;");
    for (number, (name, access)) in BAD.iter().enumerate().filter(|_| bad) {
        fs::create_dir_all(place.join(name)).with_context(|| format!("unable to make the export {name}"))?;
        text += &export(number + 2, name, access);
    }
    Ok(text)
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
