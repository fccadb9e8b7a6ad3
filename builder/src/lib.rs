//! mkdumprd, lsinitrd and kdumpctl: from configuration and host facts to a loaded capture kernel.
//!
//! # Nouns
//!
//! - **Config**: what the administrator wrote, each value with the `FILE:LINE` it stands at.
//! - **Host**: the machine that the image is for: its kernel, its files below a sysroot, where its devices hang.
//! - **Entry**: one path of an image, with its content and its *reason*. **Plan**: all entries, sorted; pure data.
//! - **Image**: a plan as an uncompressed newc archive, the same bytes for the same input.
//! - **Kexec**: the system calls that put kernel and image into the reserved memory; a trait, with a fake.
//!
//! # Flow
//!
//! ```text
//!   kdump.conf and its kin ─▶ config ─┐
//!   sysfs, mountinfo, /lib/modules ─▶ host ─┤─▶ target ─▶ hooks' needs ─▶ gather ─▶ plan ─▶ cpio ─▶ image
//!                                                                                                    │
//!   kdumpctl start:  feasible? ─▶ kernel ─▶ image there and new enough? else build ─▶ command line ─▶ kexec
//! ```
//!
//! # Where to look
//!
//! | module | is |
//! |---|---|
//! | [`cli`] | what was typed; [`mkdumprd`](mod@mkdumprd), [`lsinitrd`](mod@lsinitrd) and [`kdumpctl`] are what is done about it |
//! | [`config`] | the files of RHEL, SUSE and Debian, dracut.conf, and `kdump.toml`: what is followed, what is refused and with which words |
//! | [`host`] | sysroot, kernel, device chain, mounts |
//! | [`target`] | where the dump goes |
//! | [`raw`] | a device without a file system as the target: what it is called, and when it is refused |
//! | [`network`] | how it gets there, if it leaves the machine |
//! | [`endings`] | what follows the dump, in the words of three distributions |
//! | [`scripts`] | the administrator's programs that run in the capture kernel |
//! | [`build`] | the story of an image, step by step: read this first |
//! | [`normal`] | the same for an image that boots the system itself |
//! | [`integrity`] | keys, certificates and the policy of IMA and EVM, if they are to come along |
//! | [`asked`] | what mkdumprd's command line asks into an image besides |
//! | [`signatures`] | whether the kernel would accept the modules of an image |
//! | [`gather`] | one module per kind of content; each returns entries, none writes |
//! | [`plan`], [`cpio`], [`mod@image`] | entries, archive, file: whole or not at all |
//! | [`problems`], [`report`], [`estimate`] | `--plan`: all that is in the way of an image, or what is in it and what memory it takes |
//! | [`generator`] | what systemd is told before it starts anything; its units are in `dist/`, with all else of packages |
//! | [`inspect`] | lists, prints, unpacks and compares images, ours or not; [`unpack`] is what undoes compression |
//! | [`uptodate`] | whether an image is still what would be built now |
//! | [`reuse`] | what the next image takes from the one that is there |
//! | [`kexec`] | loading; its `sys.rs` is the one room with `unsafe` in it |
//! | [`crashkernel`] | what is reserved: every syntax, every distribution's default |
//! | [`estimate`](mod@estimate) | what a capture kernel takes |
//! | [`bootloader`] | kernel command lines of the next boots, where GRUB, systemd-boot and zipl keep them |
//! | [`fake`] | a machine made of a few files, for tests |
//!
//! What goes into an image for a capability is said by its hook in `kdump_hooks`; what init is told is typed in
//! `kdump_init::config`.

pub mod asked;
pub mod bootloader;
pub mod build;
pub mod cli;
pub mod config;
pub mod console;
pub mod cpio;
pub mod crashkernel;
pub mod endings;
pub mod estimate;
pub mod fake;
pub mod gather;
pub mod generator;
pub mod host;
pub mod image;
pub mod inspect;
pub mod integrity;
pub mod kdumpctl;
pub mod kexec;
pub mod lsinitrd;
pub mod mkdumprd;
pub mod network;
pub mod normal;
pub mod plan;
pub mod problems;
pub mod raw;
pub mod remote;
pub mod report;
pub mod reuse;
pub mod scripts;
pub mod signatures;
pub mod target;
pub mod unpack;
pub mod uptodate;
