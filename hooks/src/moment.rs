//! How things stand when a hook acts, and what it wants to follow.

use crate::stage::Stage;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How things stand when a hook acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The stage.
    pub stage: Stage,
    /// How long each thing that the hook does may take.
    pub limit: Duration,
    /// The release of the capture kernel.
    pub kernel_release: String,
    /// The target in hand, as the configuration names it.
    pub target: Option<String>,
    /// The directory of the dump, while the target is open.
    pub dump_dir: Option<PathBuf>,
    /// How the dump came out, once that is known.
    pub outcome: Option<Outcome>,
    /// Why it is not complete.
    pub reason: Option<String>,
}

impl Moment {
    /// A moment of which nothing is known but the stage.
    pub fn at(stage: Stage, limit: Duration) -> Moment {
        Moment {
            stage,
            limit,
            kernel_release: String::new(),
            target: None,
            dump_dir: None,
            outcome: None,
            reason: None,
        }
    }
}

/// What is to follow what a hook did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// The boot goes on.
    #[default]
    GoOn,
    /// Enough, and why. At [`Stage::Pre`] nothing is saved and the final action follows; at [`Stage::Post`] what is saved
    /// stays, but counts as failed. At other stages there is nothing to stop, and it is only logged.
    Stop(String),
}

/// How a capture boot came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A complete dump is on a target.
    Complete,
    /// There is a dump with pages missing.
    Incomplete,
    /// There is no dump.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Complete => "complete",
            Outcome::Incomplete => "incomplete",
            Outcome::Failed => "failed",
        })
    }
}
