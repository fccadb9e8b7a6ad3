//! PID 1 of every image. A kernel that has crashed is captured, any other boots its system: `/proc/vmcore` decides.
//!
//! # Nouns
//!
//! - **Supervisor**: PID 1 itself. It starts the worker, watches its time, and always reaches an ending.
//! - **Worker**: the process that does the boot, stage by stage ([`boot`]). It tells the supervisor by **beats** where
//!   it is and how long that may take.
//! - **Aftermath**: the process that saves what is left to save when the worker died or hung.
//! - **Loader**: loads modules, each once, dependencies first, independent ones in parallel.
//! - **Place**: where the files of one dump appear, such as a directory; a file has its name only when it is whole.
//! - **Status**: what `status.json` says in the end.
//!
//! # Flow
//!
//! ```text
//!   kernel ─▶ supervisor (PID 1) ── spawns ─▶ worker:  early ▶ … ▶ network ▶ target ▶ log ▶ vmcore ▶ ending
//!                │    ◀── beats: stage, limit ──┘          │        │         │       └──────┴── kdump-capture (child)
//!                │                                         ▼        ▼         ▼
//!                │                              Index + Config   coldplug   hooks: TargetHook::open
//!                │                                         └─▶ Loader ◀── uevents, modprobe (by the kernel)
//!                ├─ worker dead or late: kill all ─▶ aftermath (limited too)
//!                ├─ failure action: a shell on every console, for as long as somebody wants it
//!                └─▶ reboot | halt | poweroff
//! ```
//!
//! # Where to look
//!
//! | module | is |
//! |---|---|
//! | [`boot`] | the story: what happens between panic and reboot, in order |
//! | [`normal`] | the other boot: a system is started |
//! | [`supervisor`] | why it always ends |
//! | [`guard`] | the running system's watchdog, kept alive within the limits of the boot |
//! | [`shell`] | the shell of the failure action |
//! | [`config`] | the contract with the builder |
//! | [`modules`] | loading, and what a refusal means |
//! | [`devices`] | coldplug, uevents, finding the target by its superblock |
//! | [`run`] | a boot under way: its stages, timed and noted |
//! | [`dump`] | target by target, until one has a complete dump: attempts, places, room, old dumps, the collector |
//! | [`program`], [`start`] | a program run; started where memory is short |
//! | [`status`] | the report |
//! | [`rehearsal`] | the report on the console, for who watches a virtual machine |
//! | [`sys`] | the only calls of the kernel |

pub mod aftermath;
pub mod beat;
pub mod boot;
pub mod config;
pub mod devices;
pub mod dump;
pub mod guard;
pub mod kmsg;
pub mod modprobe;
pub mod modules;
pub mod normal;
pub mod program;
pub mod rehearsal;
pub mod run;
pub mod shell;
pub mod start;
pub mod status;
pub mod supervisor;
pub mod sys;
pub mod within;
