//! Modules of our own, built against Debian's headers of the kernel that is to load them: one that never ends starting,
//! one that holds a task, and live patches.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::apt::Apt;
use super::kernels::Kernel;
use super::packages;
use crate::{folders, tools};

/// The sources, each beside this file.
const SOURCES: [(&str, &str); 10] = [
    ("hang.c", include_str!("hang.c")),
    ("holder.c", include_str!("holder.c")),
    ("patch.h", include_str!("patch.h")),
    ("live-patch-one.c", include_str!("live-patch-one.c")),
    ("live-patch-two.c", include_str!("live-patch-two.c")),
    ("live-patch-three.c", include_str!("live-patch-three.c")),
    ("live-patch-held.c", include_str!("live-patch-held.c")),
    ("live-patch-holding.c", include_str!("live-patch-holding.c")),
    ("live-patch-version.c", include_str!("live-patch-version.c")),
    ("live-patch-panic.c", include_str!("live-patch-panic.c")),
];

/// The file of a module of ours, by its name without suffix; unsigned.
///
/// | module | does |
/// |---|---|
/// | `hang` | sleeps in its start for ever |
/// | `holder` | keeps who reads `/proc/holder` in `holder_wait()` until somebody writes there |
/// | `live-patch-one`, `-two` | have `/proc/cmdline` say so |
/// | `live-patch-three` | likewise, in the place of all other patches |
/// | `live-patch-held` | patches `holder_wait()` |
/// | `live-patch-holding` | keeps who reads `/proc/holder` in itself |
/// | `live-patch-version` | has `/proc/version` say so, which no boot depends on |
/// | `live-patch-panic` | panics when somebody reads `/proc/meminfo`, as our init does at the end of each stage |
pub fn own_module(kernel: &Kernel, name: &str) -> Result<PathBuf> {
    let headers = headers(kernel)?;
    let key: String = Sha256::digest(format!("{SOURCES:?}")).iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let root = folders::qemu().join("modules").join(format!("{}-{key}", kernel.release));
    folders::made_once(&root, &format!("modules of our own for {}", kernel.release), |folder| build(&headers, folder))?;
    Ok(root.join(format!("{name}.ko")))
}

/// The build tree that the kernel's package of headers brings.
fn headers(kernel: &Kernel) -> Result<PathBuf> {
    packages::compiler()?;
    let root = folders::qemu().join("headers").join(&kernel.release);
    let package = format!("linux-headers-{}", kernel.release);
    folders::made_once(&root, &format!("the headers of {}", kernel.release), |folder| {
        let apt = Apt::default();
        // The compiler that the headers also depend on is the machine's.
        let mut wanted: Vec<String> = apt
            .dependencies(&package)
            .context("apt keeps headers of current kernels only; for a newer kernel remove target/qemu/kernels/own")?;
        wanted.retain(|name| !name.starts_with("linux-compiler-"));
        wanted.push(package.clone());
        apt.unpack(&wanted, folder)?;
        // The package is made to be unpacked at the root.
        let makefile = folder.join("usr/src").join(&package).join("Makefile");
        let text = fs::read_to_string(&makefile).context("the headers have no Makefile")?;
        let sources = format!("{}/usr/src/", root.display());
        fs::write(&makefile, text.replace("/usr/src/", &sources)).context("unable to write the headers' Makefile")
    })?;
    Ok(root.join("usr/src").join(package))
}

fn build(headers: &Path, folder: &Path) -> Result<()> {
    let modules = SOURCES.iter().filter_map(|(name, _)| name.strip_suffix(".c"));
    let objects: Vec<String> = modules.clone().map(|name| format!("{name}.o")).collect();
    for (name, text) in SOURCES {
        fs::write(folder.join(name), text)?;
    }
    fs::write(folder.join("Makefile"), format!("obj-m := {}\n", objects.join(" ")))?;
    let mut make = tools::command("make");
    make.arg("-C").arg(headers).arg(format!("M={}", folder.display())).arg("modules");
    tools::run(&mut make).context("unable to build modules")?;
    for name in modules {
        tools::run(tools::command("strip").arg("--strip-debug").arg(folder.join(format!("{name}.ko"))))?;
    }
    Ok(())
}
