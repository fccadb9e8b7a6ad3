//! The init of the root that has been mounted, looked at before it is too late to go back.
//!
//! In: the root and `init=`. Out: the path by which it is to be started once the root is `/`. Links are followed as they
//! will be then: an absolute one starts at the root.
//! May surprise: a shell is not taken in place of an init that is missing, as the kernel would; `init=/bin/sh` asks for
//! one.

use anyhow::bail;
use kdump_hooks::links;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where an init may be, as the kernel looks for one.
const PLACES: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// Finds the init below `root`: the one that is asked for and no other, or the first of the usual ones.
///
/// # Errors
/// There is none that can be run.
pub(super) fn find(root: &Path, asked: Option<&str>) -> anyhow::Result<String> {
    match asked {
        Some(init) => match can_be_run(root, init) {
            Ok(()) => Ok(init.to_owned()),
            Err(why) => bail!("cannot start init={init}: {why}"),
        },
        None => match PLACES.into_iter().find(|place| can_be_run(root, place).is_ok()) {
            Some(place) => Ok(place.to_owned()),
            None => bail!(
                "the root has no init: none of {} can be run; is root= the right file system? init= names another",
                PLACES.join(", ")
            ),
        },
    }
}

fn can_be_run(root: &Path, program: &str) -> Result<(), &'static str> {
    if !program.starts_with('/') {
        return Err("write its path from / on");
    }
    let file = links::resolve(root, Path::new(program)).map_err(|_| "it is not there")?;
    match fs::metadata(&file) {
        Ok(meta) if !meta.is_file() => Err("it is no file"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err("it is not executable"),
        Ok(_) => Ok(()),
        Err(_) => Err("it is not there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib/systemd")).unwrap();
        fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        symlink("usr/sbin", root.path().join("sbin")).unwrap();
        root
    }

    fn program(root: &Path, path: &str, mode: u32) {
        fs::write(root.join(path), "x").unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn systemd_is_found_over_links_that_mean_the_new_root() {
        let root = root();
        symlink("/usr/lib/systemd/systemd", root.path().join("usr/sbin/init")).unwrap();
        assert!(find(root.path(), None).unwrap_err().to_string().contains("the root has no init"));
        program(root.path(), "usr/lib/systemd/systemd", 0o755);
        assert_eq!(find(root.path(), None).unwrap(), "/sbin/init");
    }

    #[test]
    fn an_init_that_is_asked_for_is_taken_or_refused_with_the_reason() {
        let root = root();
        program(root.path(), "usr/sbin/init", 0o755);
        program(root.path(), "usr/sbin/data", 0o644);
        assert_eq!(find(root.path(), Some("/sbin/init")).unwrap(), "/sbin/init");
        for (init, why) in [
            ("/sbin/none", "it is not there"),
            ("/sbin/data", "it is not executable"),
            ("/sbin", "it is no file"),
            ("init", "from / on"),
            ("/../../../../../../../../../../bin/sh", "it is not there"),
        ] {
            let error = find(root.path(), Some(init)).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(init), "{error}");
        }
    }

    #[test]
    fn a_circle_of_links_leads_nowhere() {
        let root = root();
        symlink("/sbin/init", root.path().join("usr/sbin/init")).unwrap();
        assert!(find(root.path(), None).is_err());
    }
}
