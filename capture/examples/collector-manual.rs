//! Writes the manual pages of kdump-capture and kdump-send, and completions for the former.
//!
//! In: a directory. Out: `man/NAME.8` and `completions/bash/NAME` below it. May surprise: an example and no program, so
//! that what only packages need is not in what they ship.
//!
//! ```sh
//! cargo run -p kdump-capture --example collector-manual -- DIR
//! ```

use kdump_capture::cli::manual;
use std::path::PathBuf;
use std::{fs, io};

fn main() -> io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("name the directory that manual pages and completions are to be written to"));
    };
    let (man, bash) = (dir.join("man"), dir.join("completions/bash"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&bash)?;
    fs::write(man.join("kdump-capture.8"), manual::page())?;
    fs::write(bash.join("kdump-capture"), manual::bash())?;
    #[cfg(feature = "send")]
    fs::write(man.join("kdump-send.8"), {
        use kdump_capture::send::cli::HELP;
        manual::page_of("kdump-send", "deliver a dump to another machine", HELP)
    })?;
    Ok(())
}
