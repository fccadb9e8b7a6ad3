//! Writes manual pages and completions of the programs that are told what to do by clap.
//!
//! In: a directory, and the definitions in `kdump_builder::cli` and of kpatch. Out: `man/NAME.SECTION`, and a file for each
//! shell below `completions/`. May surprise: an example and no program, so that what only packages need is not in what
//! they ship.
//!
//! ```sh
//! cargo run -p kdump-builder --example manual -- DIR
//! ```

mod native;
mod page;

use anyhow::{Context, ensure};
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use kdump_builder::cli::{Kdumpctl, Lsinitrd, Mkdumprd};
use kdump_hooks::livepatch::cli::Kpatch;
use page::Page;
use std::fs;
use std::path::{Path, PathBuf};

const FILES: &[(&str, &str)] = &[
    ("/etc/kdump/kdump.toml", "the configuration; where it is, kdump.conf is not read"),
    ("/etc/kdump.conf, /etc/sysconfig/kdump", "the configuration as RHEL and SUSE write it"),
    ("/etc/default/kdump-tools", "the configuration as Debian writes it"),
    ("/boot/initramfs-RELEASEkdump.img", "the image; in /var/lib/kdump where /boot cannot be written to or is full"),
    ("/var/crash", "the dumps, unless another place is configured"),
    ("kdump.service", "has the capture kernel loaded; `systemctl enable --now kdump.service` begins with it"),
    (
        "kdump-early.service",
        "loads what is built already before other services start, for crashes of a system that comes up. Not enabled by \
         itself: `systemctl enable kdump-early.service`",
    ),
    ("kdump-notify.service", "tells of dumps once there is a network, where somebody is to be told; not to be enabled"),
];

const PATCHING: &[(&str, &str)] = &[
    ("/var/lib/kpatch/RELEASE/*.ko", "the patches that are installed for a kernel"),
    ("/var/lib/kpatch/RELEASE/*.ko.sha256", "their checksums; what a package has put there has none"),
    (
        "/var/lib/kpatch/RELEASE/order",
        "the order of installing, in which they are loaded; what a package has put there is first",
    ),
    ("kpatch.service", "loads at boot what is installed, unless kpatch.enable=0 is on the kernel command line"),
    (
        "kpatch-booted.service",
        "notes that a boot was finished with the patches; stays enabled when kpatch.service is disabled",
    ),
    (
        "/sys/firmware/efi/efivars/KpatchBoots-*",
        "the marker of the boot-loop guard: with which patches how many boots were not finished. From the third on they are \
         passed over, until `kpatch load NAME`",
    ),
    (
        "/boot/grub/grubenv, /boot/grub2/grubenv",
        "the same on a machine without EFI, where GRUB counts the boots: kpatch_boots and kpatch_accounts",
    ),
    ("/etc/grub.d/09_kpatch, /etc/default/grub.d/kpatch.cfg", "have GRUB count; in use after the next update-grub"),
    ("/run/kpatch/loaded", "in which order patches have been loaded since the machine was started"),
    ("/run/kpatch/boot", "there once this boot is on the accounts of its patches, or is finished"),
];

fn pages() -> Vec<Page> {
    vec![
        Page {
            command: Mkdumprd::command(),
            section: 8,
            exits: &[(0, "the image is there"), (1, "there is none, and nothing is left behind")],
            files: FILES,
            see: &["kdumpctl(8)", "kdump.toml(5)", "lsinitrd(1)", "kdump-capture(8)"],
        },
        Page {
            command: Kdumpctl::command(),
            section: 8,
            exits: &[
                (0, "it is done; of status: a capture kernel is loaded"),
                (1, "it could not be done; stderr has the reason. Of test --result: no complete dump is known of"),
                (3, "of status: none is loaded; of recover: there is no dump; of test --result: there was no test"),
                (75, "of reload: another load or kdumpctl is under way; it can be tried again"),
            ],
            files: FILES,
            see: &["mkdumprd(8)", "kdump.toml(5)", "kdump-capture(8)", "systemctl(1)"],
        },
        Page {
            command: Lsinitrd::command(),
            section: 1,
            exits: &[(0, "it is listed or printed"), (1, "it cannot be read, or has no such file")],
            files: &[],
            see: &["mkdumprd(8)"],
        },
        Page {
            command: Kpatch::command(),
            section: 8,
            exits: &[(0, "it is done"), (1, "it could not be done; stderr has the reason")],
            files: PATCHING,
            see: &["mkdumprd(8)", "kdumpctl(8)"],
        },
    ]
}

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.context("name the directory that manual pages and completions are to be written to")?;
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man).with_context(|| format!("cannot make {}", man.display()))?;
    for page in pages() {
        write(&man.join(page.file_name()), &page.render()?)?;
        let is_kdumpctl = page.command.get_name() == "kdumpctl";
        complete(if is_kdumpctl { Kdumpctl::offered() } else { page.command }, &completions)?;
    }
    write(&man.join("kdump.toml.5"), &native::render()?)
}

fn complete(mut command: Command, dir: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let dir = dir.join(folder);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let made = generate_to(shell, &mut command, &name, &dir)?;
        if shell == Shell::Bash {
            // bash-completion looks for a file of the program's name.
            fs::rename(&made, dir.join(&name)).with_context(|| format!("cannot rename {}", made.display()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, roff: &[u8]) -> anyhow::Result<()> {
    ensure!(!roff.is_empty(), "{} would be empty", path.display());
    fs::write(path, roff).with_context(|| format!("cannot write {}", path.display()))
}
