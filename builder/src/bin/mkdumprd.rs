//! `mkdumprd` builds an image; called as `lsinitrd` it lists one.

use clap::Parser;
use kdump_builder::host::Tree;
use kdump_builder::{cli, console, lsinitrd, mkdumprd};
use kdump_hooks::reader;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().is_some_and(|name| name == "lsinitrd") {
        true => console::exit("lsinitrd", list()),
        false => console::exit("mkdumprd", build()),
    }
}

fn build() -> anyhow::Result<ExitCode> {
    let divided = cli::divide(std::env::args_os()).map_err(anyhow::Error::msg)?;
    let typed = cli::Mkdumprd { dracut: divided.dracut, ..cli::Mkdumprd::parse_from(divided.own) };
    console::start(typed.verbose);
    mkdumprd::run(&typed, &mut reader::stdout())?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    let typed = cli::Lsinitrd::parse();
    console::start(false);
    lsinitrd::run(&typed, &Tree::new(Path::new("/")), &mut reader::stdout())
}
