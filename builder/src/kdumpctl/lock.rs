//! One kdumpctl at a time.
//!
//! In: the tree. Out: a locked file; the lock goes with it. Who has to wait says so.

use crate::host::Tree;
use kdump_hooks::lock::Lock;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

const LOCK: Lock = Lock { file: "kdump.lock", program: "kdumpctl", patience: Duration::from_secs(60) };

/// Takes the lock.
pub(super) fn take(tree: &Tree, out: &mut dyn Write) -> anyhow::Result<File> {
    LOCK.take(&tree.path("run"), out)
}
