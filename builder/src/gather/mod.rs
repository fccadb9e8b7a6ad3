//! What goes into an image, asked from one place each: every module returns entries, none writes.

pub mod asked;
pub mod coverage;
pub mod drivers;
pub mod elf;
pub mod firmware;
pub mod indexes;
pub mod microcode;
pub mod modprobe_d;
pub mod modules;
pub mod programs;
pub mod skeleton;
