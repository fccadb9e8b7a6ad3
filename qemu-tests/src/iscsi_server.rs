//! An iSCSI server on the host's loopback, for guests that reach it by QEMU's user network.
//!
//! In: a file. Out: a target with that file as its disk, on a port of its own, that lets nobody in without the name and
//! the secret; until it is dropped. It is tgt, a program like any other, so the host's kernel has no part in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::server::LOOPBACK;
use crate::{folders, provision, server, tools};

/// The target's name.
pub const TARGET: &str = "iqn.2026-01.example:crash";
/// The name that CHAP wants.
pub const NAME: &str = "dumper";
/// The secret that CHAP wants, of at least twelve characters.
pub const SECRET: &str = "only-the-image-knows";

/// A server that runs.
#[derive(Debug)]
pub struct IscsiServer {
    /// Where it listens.
    pub port: u16,
    child: Child,
    socket: TempDir,
    root: PathBuf,
}

impl IscsiServer {
    /// Starts one whose disk is `lun`; its log goes beside it.
    pub fn start(lun: &Path) -> Result<IscsiServer> {
        let root = provision::tgt()?;
        let port = server::free_port(LOOPBACK)?;
        let socket = folders::for_sockets()?;
        let log = lun.with_extension("log");
        let said = fs::File::create(&log).context("unable to write the server's log")?;
        let mut command = program(&root, &socket, "tgtd");
        command.args(["-f", "--iscsi", &format!("portal={LOOPBACK}:{port}")]);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = server::start(command, "iSCSI", (LOOPBACK, port), &log)?;
        let server = IscsiServer { port, child, socket, root };
        let lun = lun.to_str().context("the disk's name is not UTF-8")?;
        server.tell(&["--op", "new", "--mode", "target", "--tid", "1", "--targetname", TARGET])?;
        server.tell(&["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--backing-store", lun])?;
        server.tell(&["--op", "new", "--mode", "account", "--user", NAME, "--password", SECRET])?;
        server.tell(&["--op", "bind", "--mode", "account", "--tid", "1", "--user", NAME])?;
        server.tell(&["--op", "bind", "--mode", "target", "--tid", "1", "--initiator-address", "ALL"])?;
        Ok(server)
    }

    fn tell(&self, words: &[&str]) -> Result<()> {
        tools::run(program(&self.root, &self.socket, "tgtadm").args(["--lld", "iscsi"]).args(words)).map(drop)
    }
}

fn program(root: &Path, socket: &TempDir, name: &str) -> Command {
    let mut command = tools::command(&root.join("usr/sbin").join(name).display().to_string());
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":")).env("TGT_IPC_SOCKET", socket.path().join("tgtd"));
    command
}

impl Drop for IscsiServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
