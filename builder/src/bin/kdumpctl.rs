//! `kdumpctl` loads, unloads and reports the capture kernel.

use clap::Parser;
use kdump_builder::host::Tree;
use kdump_builder::{cli, console, kdumpctl, kexec};
use kdump_hooks::reader;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = match cli::Kdumpctl::try_parse() {
        Ok(typed) => typed,
        Err(usage) => return console::usage(&usage),
    };
    console::start(false);
    let tree = Tree::new(&typed.sysroot);
    if typed.word.is_for_this_machine() && !tree.is_this_machine() {
        let refusal = anyhow::anyhow!("this is done to the kernel that runs, not to files; leave --sysroot out");
        return console::exit("kdumpctl", Err(refusal));
    }
    console::exit("kdumpctl", kdumpctl::run(&typed, tree, &kexec::Linux, &mut reader::stdout()))
}
