//! `kdumpctl kexec`: the next kernel without the firmware, as `kexec -l` and `kexec -e` have it.
//!
//! In: a kernel, its initramfs and command line. Out: a kernel that waits for the next reboot, or that is booted at once.
//! May surprise: with `--now` nothing is shut down but that file systems are synced; `systemctl kexec` does it in order.

use super::Machine;
use crate::cli::Kexec as Typed;
use crate::host::kernel::running_release;
use crate::inspect;
use crate::kexec::{self, Guard, Purpose, explain};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::words;
use kdump_hooks::kernel_image::Naming;
use std::ffi::CString;
use std::io::Write;

/// Does it.
pub(super) fn run(machine: &Machine, typed: &Typed, out: &mut dyn Write) -> anyhow::Result<()> {
    let tree = &machine.tree;
    if typed.unload {
        let done = machine.kexec.unload(Purpose::Reboot).map_err(|error| explain(error, &Guard::of(tree)));
        done.context("cannot take back what was loaded")?;
        writeln!(out, "Nothing waits for the next reboot any more")?;
        return Ok(());
    }
    if typed.append.is_some() || typed.reuse_cmdline {
        load(machine, typed, out)?;
    } else if tree.line("sys/kernel/kexec_loaded").or_else(|| tree.line("sys/kernel/kexec/loaded")).as_deref()
        != Some("1")
    {
        bail!("no kernel is loaded that could be booted; name its command line with --append or --reuse-cmdline");
    }
    if typed.now {
        machine.kexec.boot().map_err(|error| explain(error, &Guard::of(tree))).context("cannot boot what is loaded")?;
    }
    Ok(())
}

fn load(machine: &Machine, typed: &Typed, out: &mut dyn Write) -> anyhow::Result<()> {
    let tree = &machine.tree;
    if Guard::of(tree).load_disabled {
        bail!("kernel.kexec_load_disabled is 1: no kernel can be loaded until the next boot");
    }
    let kernel = match &typed.kernel {
        Some(kernel) => kernel.clone(),
        None => Naming::default().find(tree.root(), &running_release(tree)?).context("name a kernel with --kernel")?,
    };
    // A kernel of one's own may need no initramfs.
    let initrd = match (&typed.initrd, &typed.kernel) {
        (Some(initrd), _) => Some(initrd.clone()),
        (None, Some(_)) => None,
        (None, None) => {
            let initrd = inspect::boot_image_of(tree, &running_release(tree)?);
            Some(initrd.context("the running kernel's initramfs is not found; name one with --initrd")?)
        }
    };
    let mut line = match typed.reuse_cmdline {
        true => reused(&tree.line("proc/cmdline").context("cannot read /proc/cmdline; use --append")?),
        false => Vec::new(),
    };
    line.extend(typed.append.iter().flat_map(|append| words(append)));
    let cmdline = CString::new(line.join(" "))?;
    let files = kexec::Files { kernel: &kernel, image: initrd.as_deref(), cmdline: &cmdline };
    kexec::load(tree, machine.kexec, Purpose::Reboot, files, typed.syscall)
        .with_context(|| format!("cannot load {}", kernel.display()))?;
    let with = initrd.map(|initrd| format!(" with {}", initrd.display())).unwrap_or_default();
    writeln!(out, "{}{with} waits for the next reboot: `{}`", kernel.display(), cmdline.to_string_lossy())?;
    Ok(())
}

/// The running kernel's words, but for those that a boot loader put there for itself.
fn reused(line: &str) -> Vec<String> {
    const OF_LOADER: [&str; 5] =
        ["BOOT_IMAGE=", "initrd=", "kexec_jump_back_entry=", "kpatch.boots=", "kpatch.accounts="];
    let mut words = words(line);
    words.retain(|word| !OF_LOADER.iter().any(|name| word.starts_with(name)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_boot_loader_says_of_itself_is_not_said_again() {
        let line = "BOOT_IMAGE=/vmlinuz root=/dev/vda1 initrd=/x kpatch.boots=2 kpatch.accounts= kpatch.enable=0";
        assert_eq!(reused(line), ["root=/dev/vda1", "kpatch.enable=0"]);
    }
}
