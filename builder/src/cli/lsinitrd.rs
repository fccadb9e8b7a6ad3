//! `lsinitrd`: what was typed.

use clap::Parser;
use std::path::PathBuf;

/// Lists what is in an image and why, or prints a file of it.
#[derive(Clone, Debug, Parser)]
#[command(name = "lsinitrd", version, max_term_width = 100)]
pub struct Lsinitrd {
    /// The image; any other initramfs will do as well
    pub image: PathBuf,
    /// Print this file of the image
    pub file: Option<String>,
}
