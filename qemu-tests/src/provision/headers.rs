//! A module of our own, built against Debian's headers of the kernel that is to load it: one that never ends starting.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::Apt;
use super::kernels::Kernel;
use super::packages;
use crate::{folders, tools};

const SOURCE: &str = "\
#include <linux/delay.h>
#include <linux/module.h>

static int __init hang_init(void)
{
\tfor (;;)
\t\tmsleep(1000);
\treturn 0;
}
module_init(hang_init);
MODULE_LICENSE(\"GPL\");
";

/// The file of `hang.ko` for the machine's own kernel: unsigned, and asleep in its start for ever.
pub fn hanging_module(kernel: &Kernel) -> Result<PathBuf> {
    packages::compiler()?;
    let root = folders::qemu().join("hang").join(&kernel.release);
    folders::made_once(&root, &format!("a module that hangs, for {}", kernel.release), |folder| {
        let headers = format!("linux-headers-{}", kernel.release);
        let apt = Apt::default();
        // The compiler that the headers also depend on is the machine's.
        let mut wanted: Vec<String> = apt
            .dependencies(&headers)
            .context("apt keeps headers of current kernels only; for a newer kernel remove target/qemu/kernels/own")?;
        wanted.retain(|name| !name.starts_with("linux-compiler-"));
        wanted.push(headers.clone());
        apt.unpack(&wanted, folder)?;
        let tree = folder.join("usr/src").join(&headers);
        // The package is made to be unpacked at the root.
        let makefile = fs::read_to_string(tree.join("Makefile")).context("the headers have no Makefile")?;
        let sources = format!("{}/usr/src/", folder.display());
        fs::write(tree.join("Makefile"), makefile.replace("/usr/src/", &sources))?;
        build(&tree, &folder.join("module"))
    })?;
    Ok(root.join("module/hang.ko"))
}

fn build(headers: &Path, module: &Path) -> Result<()> {
    fs::create_dir_all(module)?;
    fs::write(module.join("hang.c"), SOURCE)?;
    fs::write(module.join("Makefile"), "obj-m := hang.o\n")?;
    let mut make = tools::command("make");
    make.arg("-C").arg(headers).arg(format!("M={}", module.display())).arg("modules");
    tools::run(&mut make).context("unable to build a module").map(drop)?;
    tools::run(tools::command("strip").arg("--strip-debug").arg(module.join("hang.ko"))).map(drop)
}
