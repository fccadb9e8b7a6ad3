//! `cargo dist`: packages, manual pages and completions, in target/dist.

use std::process::ExitCode;

use anyhow::Result;
use qemu_tests::dist;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let pages = dist::pages()?;
    for made in [pages.man, pages.completions, dist::deb()?, dist::rpm()?] {
        println!("{}", made.display());
    }
    Ok(())
}
