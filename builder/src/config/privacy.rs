//! Secrets that others can read: in the configuration itself, or in the files that it names.
//!
//! In: what the configuration means. Out: one warning for each file that more than its owner may read. May surprise: it
//! stops nothing, since the image is closed to others whatever its sources are.

use super::{Complaints, Config, Origin, TargetLine};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Warns of every such file of the machine at `root`.
pub(super) fn look(config: &Config, root: &Path, complaints: &mut Complaints) {
    let dump = &config.dump;
    let targets = dump.targets.iter().filter(|target| match &target.value.line {
        TargetLine::Remote(remote) => remote.login.password.0.is_some(),
        TargetLine::Cifs(cifs) => cifs.given.is_some(),
        _ => false,
    });
    let mail = dump.notify.iter().filter(|notify| notify.value.mail.as_ref().is_some_and(|mail| mail.login.is_some()));
    let origins = targets.map(|target| &target.origin).chain(mail.map(|notify| &notify.origin));
    let own = origins.filter_map(|origin| match origin {
        Origin::Line(file, _) => Some(file.clone()),
        Origin::Default | Origin::Option(_) => None,
    });
    // Who vouches for servers is no secret.
    let authorities = dump.notify.as_ref().and_then(|notify| notify.value.authorities.as_deref());
    let named = dump.secrets().filter(|file| Some(*file) != authorities);
    let named = named.map(|file| root.join(file.strip_prefix("/").unwrap_or(file)));
    let all: BTreeSet<PathBuf> = own.chain(named).collect();
    complaints.warnings.extend(all.iter().filter_map(|file| warning(file, file, "a password")));
}

/// What to say of a file with `what` in it, which is `called` so on its machine, if others can read it.
pub(crate) fn warning(file: &Path, called: &Path, what: &str) -> Option<String> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    let file = called.display();
    (mode & 0o077 != 0)
        .then(|| format!("{file} has {what} in it, and others than its owner can read it; chmod 600 {file}"))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Files};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_can_read_is_told_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str, mode: u32| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let warnings = || {
            let read = Config::read(&Files::new(root.path(), None, None)).unwrap();
            read.warnings.into_iter().filter(|line| line.contains("chmod 600 ")).collect::<Vec<_>>()
        };
        let cifs = "[[target]]\nkind = \"cifs\"\nshare = \"//nas/s\"\ncredentials = \"/etc/kdump/share\"\n";
        file("etc/kdump/share", "username=u\npassword=p\n", 0o644);
        file("etc/kdump/kdump.toml", cifs, 0o644);
        let told = warnings();
        assert!(told.len() == 1 && told[0].ends_with("etc/kdump/share"), "{told:?}");
        file("etc/kdump/share", "username=u\npassword=p\n", 0o600);
        assert!(warnings().is_empty());
        file("etc/kdump/kdump.toml", "[[target]]\nkind = \"remote\"\nurl = \"ftps://u:p@nas/x\"\n", 0o640);
        assert!(warnings()[0].contains("kdump.toml has a password in it"), "{:?}", warnings());
        file("etc/kdump/kdump.toml", "[[target]]\nkind = \"remote\"\nurl = \"ftps://u:p@nas/x\"\n", 0o600);
        assert!(warnings().is_empty());
    }
}
