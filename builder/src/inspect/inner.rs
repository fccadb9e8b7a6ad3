//! File systems in an image that hold what the image does not: those of dracut's squash modules.
//!
//! In: an archive. Out: which are in it, and how their files are got at. They are not read here.

use crate::cpio::read::Archive;

/// A file system that the image mounts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    /// Where it is in the image.
    pub(super) path: &'static str,
    /// What lists its files, with its own file behind.
    pub(super) lister: &'static str,
}

const KNOWN: [Inner; 4] = [
    Inner { path: "squash-root.img", lister: "unsquashfs -l" },
    Inner { path: "squashfs-root.img", lister: "unsquashfs -l" },
    // RHEL 8.4 and before.
    Inner { path: "squash/root.img", lister: "unsquashfs -l" },
    Inner { path: "erofs-root.img", lister: "dump.erofs --ls --path=/" },
];

/// Those that are in an image.
pub(super) fn of(archive: &Archive) -> Vec<Inner> {
    let files = archive.files();
    KNOWN.into_iter().filter(|inner| files.get(inner.path).is_some_and(|entry| entry.is(libc::S_IFREG))).collect()
}

impl Inner {
    /// What is said of it.
    pub(super) fn words(&self) -> String {
        let Inner { path, lister } = self;
        format!(
            "{path} is a file system with more files of the image in it: `lsinitrd -f {path} IMAGE >FILE`, then `{lister} FILE`"
        )
    }
}
