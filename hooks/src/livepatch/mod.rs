//! Live patches: kpatch's user space, without its shell.
//!
//! # Nouns
//!
//! - **Patch**: a live patch that the kernel knows, a directory below `/sys/kernel/livepatch`. Its **state** is enabled or
//!   disabled, or in **transition** to one of them: until every task has left the functions that are patched.
//! - **Patch module**: the `.ko` that brings a patch. Its **identity** is what the file says about itself.
//! - **Trust**: whether the kernel would accept a patch by who has signed it, known before it is asked.
//! - **Store**: where patches are installed, `/var/lib/kpatch/RELEASE/*.ko`. Their **order** is that of installing.
//! - **Overlay**: the installed patches at the end of an image that brings them along, so that they can be loaded before the
//!   drivers; the **guard** passes those over with which a boot was not finished twice. It has its marker in a variable of
//!   the firmware, or in GRUB's environment block.
//! - **Kernel**: what is asked and told, behind a trait; [`fake::FakeKernel`](crate::fake::FakeKernel) plays every state.
//!
//! # Flow
//!
//! ```text
//!   load NAME ─▶ Store::find ─▶ check and trust ─▶ Kernel::insert ─▶ transition::settle ─▶ enabled
//!                                                                        └ stalled or interrupted: told by task, reversed, removed
//!   unload NAME ─▶ enabled = 0 ─▶ transition::settle ─▶ Kernel::remove
//!   install FILE ─▶ Store ─▶ kpatch.service is enabled ─▶ the overlay of each image that has one is written anew
//!   boot: image ─▶ guard ─▶ load each ─▶ drivers ─▶ root ─▶ kpatch.service ─▶ boot finished ─▶ guard is content
//! ```
//!
//! Facts: `Documentation/livepatch/livepatch.rst` and `Documentation/ABI/testing/sysfs-kernel-livepatch` of the kernel;
//! what the words of kpatch(8) do.

mod actions;
mod at_boot;
mod boots;
pub mod cli;
pub mod grub;
mod guard;
mod identity;
pub mod interrupt;
mod kernel;
mod order;
pub mod overlay;
mod patch;
mod refusal;
pub mod service;
mod store;
mod transition;
mod trust;
mod variable;

pub use actions::{Actions, Loaded};
pub use at_boot::AtBoot;
pub use guard::Accounts;
pub use identity::Identity;
pub use kernel::{Kernel, LinuxKernel, Task};
pub use order::Order;
pub use patch::{Patch, State, name_of, patches};
pub use store::{Installed, Store};
pub use transition::{Limits, Stalled};
pub use trust::{Judge, by_marker, by_signer};
