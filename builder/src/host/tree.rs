//! A root directory whose symbolic links are followed as if it were `/`.
//!
//! A sysroot's `/lib64 -> /usr/lib64` must lead to the sysroot's own `/usr/lib64`, not to this machine's.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The links that one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;

/// The files of a machine.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The files below `root`.
    pub fn new(root: &Path) -> Self {
        Tree { root: root.to_owned() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether these are the files of the machine that this program runs on.
    pub fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the machine is found, its links not looked at.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path without links and without the root in front: what the machine itself calls the file.
    ///
    /// # Errors
    /// A part of it is missing or unreadable, or the links go in circles.
    pub fn canonical(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let mut todo: Vec<OsString> = parts(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            let here = self.path(&next);
            let meta =
                fs::symlink_metadata(&here).with_context(|| format!("cannot find {}", self.path(path).display()))?;
            if !meta.is_symlink() {
                done = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                bail!("too many symbolic links on the way to {}", self.path(path).display());
            }
            let target = fs::read_link(&here).with_context(|| format!("cannot read the link {}", here.display()))?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            todo.extend(parts(&target));
        }
        Ok(done)
    }

    /// The file that the machine means by `path`.
    ///
    /// # Errors
    /// As [`Tree::canonical`].
    pub fn resolve(&self, path: &Path) -> anyhow::Result<PathBuf> {
        Ok(self.path(self.canonical(path)?))
    }

    /// Reads a file of the machine.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn read(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        let file = self.resolve(path)?;
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The text of a small file such as those of proc and sysfs, without the line end. `None` if it cannot be read.
    pub fn line(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim_end().to_owned())
    }
}

/// The parts of a path that name something, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        fs::create_dir_all(tree.path("/usr/lib64")).unwrap();
        fs::write(tree.path("/usr/lib64/real"), "x").unwrap();
        symlink("/usr/lib64", tree.path("/lib64")).unwrap();
        symlink("../../../usr/lib64/real", tree.path("/usr/lib64/link")).unwrap();
        assert_eq!(tree.canonical(Path::new("/lib64/link")).unwrap(), Path::new("/usr/lib64/real"));
        assert_eq!(tree.read(Path::new("/lib64/link")).unwrap(), b"x");
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/b", dir.path().join("a")).unwrap();
        symlink("/a", dir.path().join("b")).unwrap();
        let error = Tree::new(dir.path()).canonical(Path::new("/a")).unwrap_err();
        assert!(error.to_string().contains("too many symbolic links"), "{error}");
    }
}
