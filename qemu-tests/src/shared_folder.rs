//! A folder that the hypervisor shares with a guest, by virtiofs.
//!
//! In: a folder, and the guest's memory. Out: QEMU's own virtiofsd, which serves one guest after the other, and the words
//! for QEMU's command line. May surprise: it shares the guest's memory, so that all of that has to be one object; and it
//! ends with each guest, so that there has to be somebody who starts it again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{folders, sys};

/// As Debian's qemu-system-common has it.
const PROGRAM: &str = "/usr/lib/qemu/virtiofsd";
const START: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

type Server = Arc<Mutex<Option<Child>>>;

/// A folder that is shared.
#[derive(Debug)]
pub struct SharedFolder {
    /// What is shared.
    pub folder: PathBuf,
    /// The words for QEMU's command line.
    pub qemu: Vec<String>,
    over: Arc<AtomicBool>,
    /// What serves the guest of the moment.
    server: Server,
    serving: Option<JoinHandle<()>>,
    _sockets: TempDir,
}

impl SharedFolder {
    /// Shares `folder`, which is then empty, as `tag` with guests that have so many MiB.
    pub fn start(folder: &Path, tag: &str, memory_mib: u32) -> Result<SharedFolder> {
        ensure!(Path::new(PROGRAM).exists(), "there is no {PROGRAM}; apt-get install qemu-system-common");
        folders::fresh(folder)?;
        let sockets = folders::for_sockets()?;
        let socket = sockets.path().join("virtiofs");
        let log = folder.with_extension("log");
        let errors = File::create(&log).with_context(|| format!("unable to write {}", log.display()))?;
        let (over, server) = (Arc::new(AtomicBool::new(false)), Server::default());
        let serving = {
            let (over, server, folder, socket) = (over.clone(), server.clone(), folder.to_owned(), socket.clone());
            std::thread::spawn(move || serve(&folder, &socket, &errors, &over, &server))
        };
        let qemu = [
            "-object",
            &format!("memory-backend-memfd,id=shared,size={memory_mib}M,share=on"),
            "-numa",
            "node,memdev=shared",
            "-chardev",
            &format!("socket,id=virtiofs,path={}", socket.display()),
            "-device",
            &format!("vhost-user-fs-pci,chardev=virtiofs,tag={tag}"),
        ];
        let qemu = qemu.map(str::to_owned).to_vec();
        let shared =
            SharedFolder { folder: folder.to_owned(), qemu, over, server, serving: Some(serving), _sockets: sockets };
        let began = Instant::now();
        while !socket.exists() {
            ensure!(began.elapsed() < START, "{PROGRAM} does not listen; see {}", log.display());
            std::thread::sleep(BETWEEN_TRIES);
        }
        Ok(shared)
    }
}

/// Serves one guest after the other until all is over.
fn serve(folder: &Path, socket: &Path, errors: &File, over: &AtomicBool, server: &Server) {
    while !over.load(Ordering::SeqCst) {
        let mut current = server.lock().unwrap_or_else(PoisonError::into_inner);
        let is_at_work = current.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !is_at_work {
            // Without it QEMU says that nobody listens.
            *current = errors.try_clone().ok().and_then(|errors| virtiofsd(folder, socket, errors).ok());
        }
        drop(current);
        std::thread::sleep(BETWEEN_TRIES);
    }
}

fn virtiofsd(folder: &Path, socket: &Path, errors: File) -> std::io::Result<Child> {
    let mut command = Command::new(PROGRAM);
    command.arg(format!("--socket-path={}", socket.display()));
    command.args(["-o", &format!("source={}", folder.display()), "-o", "sandbox=chroot", "-o", "cache=none"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    sys::die_with_parent(&mut command);
    command.spawn()
}

impl Drop for SharedFolder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.serving.take().map(JoinHandle::join);
        if let Some(mut child) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
