//! `lsinitrd`: what was typed.

use clap::Parser;
use std::path::PathBuf;

/// Lists what is in an initramfs of any builder, prints and unpacks its files, and compares two.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "lsinitrd", version, max_term_width = 100)]
pub struct Lsinitrd {
    /// The image [default: that of the running kernel, or of --kver]
    pub image: Option<PathBuf>,
    /// Print these files of the image; with --unpack unpack only them and what is below them; with --diff the other image
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
    /// Print this file of the image
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub print: Vec<String>,
    /// The image of this kernel
    #[arg(short, long, value_name = "RELEASE", conflicts_with = "image")]
    pub kver: Option<String>,
    /// List by size, the largest last
    #[arg(short, long)]
    pub size: bool,
    /// List the modules: dracut's, if it made the image, and the kernel's
    #[arg(short, long = "mod")]
    pub modules: bool,
    /// Unpack the image into the current directory or --directory, which has to be empty
    #[arg(long)]
    pub unpack: bool,
    /// Unpack what is for the kernel before it unpacks the rest, such as microcode
    #[arg(long = "unpackearly", alias = "unpack-early", conflicts_with = "unpack")]
    pub unpack_early: bool,
    /// Where to unpack to
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Unpack owners, all bits of modes, and device nodes as well; only root can
    #[arg(long)]
    pub preserve: bool,
    /// Say how the second image differs from the first: exit 1 if it does
    #[arg(long, requires = "image", conflicts_with_all = ["unpack", "unpack_early", "modules", "print"])]
    pub diff: bool,
    /// List, or tell differences, as JSON
    #[arg(long, conflicts_with_all = ["size", "print", "unpack", "unpack_early"])]
    pub json: bool,
    /// Say more while unpacking
    #[arg(short, long)]
    pub verbose: bool,
}
