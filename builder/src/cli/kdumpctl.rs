//! `kdumpctl`: what was typed. One line of [`Word`] for each thing that it can be told.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Loads, unloads and reports the capture kernel.
#[derive(Clone, Debug, Parser)]
#[command(name = "kdumpctl", version, max_term_width = 100)]
pub struct Kdumpctl {
    /// What to do
    #[command(subcommand)]
    pub word: Word,
    /// The configuration, a native one if its name ends in .toml [default: /etc/kdump/kdump.toml if it is there, else /etc/kdump.conf]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The other configuration [default: /etc/sysconfig/kdump, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub sysconfig: Option<PathBuf>,
    /// Where kdump-init, kdump-capture and kdump-send are [default: beside this program, else /usr/lib/kdump]
    #[arg(long, value_name = "DIR", global = true)]
    pub programs: Option<PathBuf>,
}

/// What kdumpctl is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Word {
    /// Load the capture kernel, building its image if that is missing or too old
    Start,
    /// Unload the capture kernel
    Stop,
    /// Say whether a capture kernel is loaded: exit 0 if so, 3 if not
    Status,
    /// Make a dump directory of the dump on a raw target, then clear the target: exit 0 if it did, 3 if there is no dump
    /// on it, 1 if there is one and it could not be saved, or not as a whole. `start` does this first
    Recover {
        /// The device or partition, or a copy of one; makedumpfile's raw streams will do as well [default: what `raw` in
        /// kdump.conf names]
        device: Option<PathBuf>,
        /// The directory of all dumps [default: `path` in kdump.conf]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Say what was done as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say of every module of the image whether the kernel would accept it, and why not: exit 1 if it would refuse one
    /// that the image cannot do without
    Modules,
    /// Make a key for a target by ssh or sftp, and have the other machine let it in
    Propagate,
}
