//! `cargo dist`: packages, manual pages and completions, in target/dist.

use std::process::ExitCode;

fn main() -> ExitCode {
    match qemu_tests::dist::dist() {
        Ok(dist) => {
            for made in [dist.deb, dist.rpm, dist.man, dist.completions] {
                println!("{}", made.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}
