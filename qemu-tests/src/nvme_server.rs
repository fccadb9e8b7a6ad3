//! A second guest whose kernel serves a disk by NVMe over TCP, for guests that reach it by QEMU's user network.
//!
//! In: a file. Out: a subsystem with that file as its disk, behind a port of the host's loopback, that lets in one host
//! only; until it is dropped. The host's kernel has no part in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::accel::accel;
use crate::machine::{Disk, Machine, Running};
use crate::programs::programs;
use crate::provision::{self, Kernel};
use crate::scenario::{GuestFile, LABEL, UUID};
use crate::server::{self, LOOPBACK};
use crate::stack::{Bus, PREPARE};
use crate::{disk, emulation, folders, guest_image, tools};

const LIMIT: Duration = Duration::from_secs(300);

/// The subsystem's name.
pub const SUBSYSTEM: &str = "nqn.2026-01.example:crash";
/// The host that may connect.
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:6b64756d-7072-7364-8969-736b00000002";

const SERVE: &str = "/etc/guest/serve";
const NETWORK: &str = "/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up";

/// A server that runs.
#[derive(Debug)]
pub struct NvmeServer {
    /// Where it listens.
    pub port: u16,
    _running: Running,
}

impl NvmeServer {
    /// Starts one whose disk is `image`; its own files go to `folder`.
    pub fn start(kernel: &Kernel, image: &Path, folder: &Path) -> Result<NvmeServer> {
        provision::tools()?;
        let programs = programs()?;
        let tree = folder.join("disk");
        for place in ["dev", "etc/guest", "proc", "sys"] {
            fs::create_dir_all(tree.join(place))?;
        }
        tools::copy(&provision::busybox()?, &tree.join("bin/busybox"))?;
        fs::write(tree.join(PREPARE.trim_start_matches('/')), SERVE)?;
        GuestFile::script(SERVE, &script()).make(&tree)?;
        let (root, initrd) = (folder.join("root.img"), folder.join("first.img"));
        disk::make_ext4(&root, &tree, 64, LABEL, UUID)?;
        guest_image::write(kernel, &programs, &["virtio_net", "nvmet_tcp"], &initrd)?;
        let port = server::free_port(LOOPBACK)?;
        let network = format!("user,id=n0,hostfwd=tcp:{LOOPBACK}:{port}-10.0.2.15:4420");
        let words = ["-netdev", &network, "-device", "virtio-net-pci,netdev=n0"].map(str::to_owned);
        let machine = Machine::new(&kernel.vmlinuz, &initrd, "panic=-1 loglevel=5 guest.mode=serve", accel()?)
            .memory_mib(256)
            .words(&words)
            .disk(Disk { image: root, serial: "root".into(), bus: Bus::Virtio })
            .disk(Disk { image: image.into(), serial: "lun".into(), bus: Bus::Virtio });
        for _ in 1..emulation::ATTEMPTS {
            let running = machine.start_beside(folder)?;
            let said = running.console().wait_for_any(&["GUEST: failed", "GUEST: serving"], LIMIT);
            if emulation::died_early(&running.console().text()) {
                continue;
            }
            let (which, line) = said?;
            ensure!(which == 1, "the NVMe server does not serve: {}", line.text);
            return Ok(NvmeServer { port, _running: running });
        }
        anyhow::bail!("the emulator let no kernel get as far as serving a disk; see {}", folders::qemu().display())
    }
}

/// What `drivers/nvme/target/configfs.c` wants to be told.
fn script() -> String {
    format!(
        "set -e\n{NETWORK}\n/bin/busybox mount -t configfs none /sys/kernel/config\ncd /sys/kernel/config/nvmet\n\
         b=/bin/busybox\n$b mkdir subsystems/{SUBSYSTEM} hosts/{HOST}\n\
         $b ln -s /sys/kernel/config/nvmet/hosts/{HOST} subsystems/{SUBSYSTEM}/allowed_hosts/{HOST}\n\
         $b mkdir subsystems/{SUBSYSTEM}/namespaces/1\n\
         echo -n /dev/vdb > subsystems/{SUBSYSTEM}/namespaces/1/device_path\n\
         echo 1 > subsystems/{SUBSYSTEM}/namespaces/1/enable\n$b mkdir ports/1\n\
         echo tcp > ports/1/addr_trtype\necho ipv4 > ports/1/addr_adrfam\necho 0.0.0.0 > ports/1/addr_traddr\n\
         echo 4420 > ports/1/addr_trsvcid\n\
         $b ln -s /sys/kernel/config/nvmet/subsystems/{SUBSYSTEM} ports/1/subsystems/{SUBSYSTEM}\n"
    )
}
