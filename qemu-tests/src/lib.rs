//! Boots real kernels, panics them, and judges the dumps from outside.
//!
//! Nothing of the project is linked: its programs are built and run, as an administrator would; `tests/kmod.rs`, which
//! compares tens of thousands of answers, is the exception. `cargo demo` is the program `src/bin/demo`, `cargo test` runs the tables in `tests/`.
//!
//! # Nouns
//!
//! - *Scenario*: one crash, described by what is different about it.
//! - *First kernel*: the one that crashes; its PID 1 is `src/bin/guest-init`. *Capture kernel*: the one that is booted by
//!   the crash; its image is what `mkdumprd` made.
//! - *Filling*: what the first kernel's memory holds; `src/bin/page-kinds` makes every kind of page, and proves it.
//! - *Source*, or *raw*: the whole `/proc/vmcore`, which the collector of `src/bin/keep-raw.rs` puts on a disk of its own.
//!   Those that serve many tests are [kept](source), and the collector is run on them [here](collector), without a guest.
//! - *Oracle*: our reader of both files, and Debian's makedumpfile on the same source.
//! - *Outcome*: console, ending, the dump's directory, the source.
//!
//! # Flow
//!
//! ```text
//!  provision ─▶ programs ─▶ ┌──────────── crash(Scenario) ────────────┐ ─▶ judge(Outcome)
//!  apt, kernels  cargo      │ mkdumprd ─▶ disk ─▶ machine ─▶ take off │     oracle, status.json
//!                           └──────────────────────┬──────────────────┘
//!                  inside the machine:  guest-init ▼
//!                  kdumpctl start ─▶ fill memory ─▶ marker ─▶ sysrq c ─▶ capture kernel ─▶ ending
//! ```
//!
//! # Where to look
//!
//! - [`provision`]: what has to be there, and where it comes from; [`folders`]: where it is kept.
//! - [`stack`]: a target that the guest puts together from several disks.
//! - [`scenario`], [`mod@crash`]: what is tried, and the story of trying it; [`mod@mem_usage`]: a story without a crash;
//!   [`live`]: one that runs commands; [`normal`]: a whole system boots, and may crash; [`patched`]: one boots again and
//!   again, from its live patches; [`packaged`]: one has the package installed.
//! - [`nfs_server`] with its [`portmapper`], [`smb_server`], [`iscsi_server`], [`nvme_server`], [`far_server`], [`sink`],
//!   [`switch`] with a [`dhcp6_server`]: what a guest finds on its network; [`small_disk`]: what a server runs out of.
//! - [`shared_folder`]: what a hypervisor shares.
//! - [`signer`]: keys of our own, and what is signed and encrypted with them; [`mod@trusting`]: a kernel that trusts one;
//!   [`mod@unified`]: one in a unified image.
//! - [`machine`], [`monitor`], [`console`], [`disk`], [`mod@accel`]: QEMU and what is around it.
//! - [`mod@dist`]: the packages, as `cargo dist` makes them.
//! - [`efi_variables`]: what an EFI machine keeps over a reboot; [`grub_disk`]: what another one is started from.
//! - [`target_disk`], [`write_log`]: a disk for dumps that may fail, and what a power loss leaves of it.
//! - [`source`], [`collector`], [`damage`]: kept memory, what is asked of it, and what is done to it.
//! - [`oracle`], [`judge`], [`status`], [`initramfs`]: whether the dump, or the image, is right.
//! - [`sys`]: the one room for `unsafe`.

pub mod accel;
pub mod collector;
pub mod console;
pub mod crash;
pub mod damage;
pub mod dhcp6_server;
pub mod disk;
pub mod dist;
pub mod efi_variables;
mod emulation;
pub mod far_server;
pub mod folders;
pub mod grub_disk;
mod guest_image;
pub mod initramfs;
pub mod iscsi_server;
pub mod judge;
pub mod live;
pub mod machine;
pub mod mem_usage;
pub mod monitor;
pub mod nfs_server;
pub mod normal;
pub mod nvme_server;
pub mod oracle;
pub mod packaged;
pub mod patched;
pub mod portmapper;
pub mod programs;
pub mod progress;
pub mod provision;
pub mod scenario;
mod server;
pub mod shared_folder;
pub mod signer;
pub mod sink;
pub mod small_disk;
pub mod smb_server;
pub mod source;
pub mod stack;
pub mod status;
pub mod switch;
pub mod sys;
pub mod target_disk;
pub mod tools;
pub mod trusting;
pub mod unified;
pub mod write_log;

/// What a test's table needs.
pub mod prelude {
    pub use crate::crash::crash;
    pub use crate::judge;
    pub use crate::machine::Ending;
    pub use crate::provision::{Codec, Suite, kernel};
    pub use crate::scenario::{GuestFile, LABEL, PageTables, Scenario, UUID};
    pub use crate::source::{self, Source};
    pub use crate::stack::{Bus, Spare, Stack};
    pub use crate::target_disk::{self, TargetDisk};
}
