//! Symbolic links below a root that is not `/` yet.
//!
//! In: a root directory and a path as the system in it writes it. Out: the path without links, as that system would
//! follow them: `/lib64 -> /usr/lib64` leads to the root's own `/usr/lib64`, not to this machine's, and `..` stops at the
//! root. The builder looks at a sysroot with it, init at the root that it has mounted.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The links that one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;

/// Where a path of the system below `root` is found, its links not looked at.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The path without links and without the root in front: what the system itself calls the file.
///
/// # Errors
/// A part of it is missing or unreadable, or the links go in circles.
pub fn canonical(root: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let mut todo: Vec<OsString> = parts(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let here = below(root, &next);
        let meta =
            fs::symlink_metadata(&here).with_context(|| format!("cannot find {}", below(root, path).display()))?;
        if !meta.is_symlink() {
            done = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            bail!("too many symbolic links on the way to {}", below(root, path).display());
        }
        let target = fs::read_link(&here).with_context(|| format!("cannot read the link {}", here.display()))?;
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        todo.extend(parts(&target));
    }
    Ok(done)
}

/// The file that the system below `root` means by `path`.
///
/// # Errors
/// As [`canonical`].
pub fn resolve(root: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    Ok(below(root, &canonical(root, path)?))
}

/// The parts of a path that name something, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib64")).unwrap();
        fs::write(root.join("usr/lib64/real"), "x").unwrap();
        symlink("/usr/lib64", root.join("lib64")).unwrap();
        symlink("../../../usr/lib64/real", root.join("usr/lib64/link")).unwrap();
        assert_eq!(canonical(root, Path::new("/lib64/link")).unwrap(), Path::new("/usr/lib64/real"));
        assert_eq!(fs::read(resolve(root, Path::new("/lib64/link")).unwrap()).unwrap(), b"x");
        assert!(canonical(root, Path::new("/../../../../../../etc/passwd")).is_err());
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/b", dir.path().join("a")).unwrap();
        symlink("/a", dir.path().join("b")).unwrap();
        let error = canonical(dir.path(), Path::new("/a")).unwrap_err();
        assert!(error.to_string().contains("too many symbolic links"), "{error}");
    }
}
