//! `kdumpctl` loads, unloads and reports the capture kernel.

use clap::Parser;
use kdump_builder::host::Tree;
use kdump_builder::{cli, console, kdumpctl, kexec};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = cli::Kdumpctl::parse();
    console::start(false);
    let tree = Tree::new(Path::new("/"));
    console::exit("kdumpctl", kdumpctl::run(&typed, tree, &kexec::Linux, &mut std::io::stdout().lock()))
}
