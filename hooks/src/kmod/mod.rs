//! What modprobe knows: which modules exist, what answers to an alias, what modprobe.d says, what is loaded in which
//! order.
//!
//! ```text
//!   modules.dep .alias .softdep .builtin …  ─▶ Index  ─┐
//!                                                      ├─▶ resolve::plan(request) ─▶ [Step { module, parameters, why }]
//!   modprobe.d, kernel command line         ─▶ Config ─┘
//! ```
//!
//! The builder asks for a plan to learn what has to be in the image; init walks one to load. What modules-load.d wants
//! loaded without being asked, [`load_list`] tells. Behaviour is kmod's, as modprobe(8), modprobe.d(5) and `modprobe
//! --show-depends` show it; where ours is meant to differ, the text says so.

mod binary;
pub(crate) mod conf_files;
mod config;
mod index;
mod load_list;
mod modinfo;
mod names;
mod pattern;
pub mod resolve;

pub use binary::{Entry as BinaryEntry, entries as binary_entries};
pub use config::{Config, Settings, Warning};
pub use index::{DeviceNode, Index, ModuleFile, Softdep};
pub use load_list::{Listed, load_list};
pub use modinfo::{ModInfo, section};
pub use names::{ModuleName, module_of_file, normalise_alias};
pub use pattern::matches;
pub use resolve::{Action, Ban, Plan, Reached, Step, plan};
