//! The administrator's programs: which ones run in the capture kernel, and in which order.
//!
//! In: `kdump_pre`, `kdump_post` and `kdump_emergency`, SUSE's `KDUMP_PRESCRIPT` and `KDUMP_POSTSCRIPT`, a program in
//! Debian's `KDUMP_FAIL_CMD`, and what is executable in `/etc/kdump/{pre,post,emergency}.d`. Out: what [`User`] runs. As RHEL has it, `kdump_pre` comes before
//! its directory, the other two after theirs; a directory is in the order of its names, byte by byte.

use crate::config::{Config, FailCommand, Given};
use crate::host::Tree;
use anyhow::Context;
use kdump_hooks::user::{Script, User};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directories whose executable files run before the dump, after it, and in an emergency.
pub const DIRECTORIES: [&str; 3] = ["/etc/kdump/pre.d", "/etc/kdump/post.d", "/etc/kdump/emergency.d"];

/// Finds all of them.
///
/// # Errors
/// A name that is not UTF-8, or a directory that cannot be read.
pub fn find(config: &Config, tree: &Tree) -> anyhow::Result<User> {
    let dump = &config.dump;
    let pre = [decisive("kdump_pre", dump.kdump_pre.as_ref())?, words("KDUMP_PRESCRIPT", &config.system.prescript)];
    let post =
        [decisive("kdump_post", dump.kdump_post.as_ref())?, words("KDUMP_POSTSCRIPT", &config.system.postscript)];
    let emergency = decisive("kdump_emergency", dump.kdump_emergency.as_ref())?;
    let failed = config.system.fail_command.as_ref().and_then(|given| match &given.value {
        FailCommand::Run(argv) => {
            words("KDUMP_FAIL_CMD", &Some(Given { value: argv.clone(), origin: given.origin.clone() }))
        }
        FailCommand::End(_) => None,
    });
    let before = pre.into_iter().flatten();
    let [pre_d, post_d, emergency_d] = DIRECTORIES;
    Ok(User {
        pre: before.chain(directory(tree, pre_d)?).collect(),
        post: directory(tree, post_d)?.into_iter().chain(post.into_iter().flatten()).collect(),
        emergency: directory(tree, emergency_d)?.into_iter().chain(emergency).chain(failed).collect(),
    })
}

/// The program of a directive; its exit status counts.
fn decisive(word: &str, path: Option<&Given<PathBuf>>) -> anyhow::Result<Option<Script>> {
    let Some(path) = path else { return Ok(None) };
    let name = path.value.to_str().with_context(|| format!("{}: {word} is not UTF-8", path.origin))?;
    Ok(Some(Script { argv: vec![name.to_owned()], named_by: format!("{}: {word}", path.origin), decides: true }))
}

/// A command as SUSE has it; its exit status is only logged there.
fn words(word: &str, argv: &Option<Given<Vec<String>>>) -> Option<Script> {
    let given = argv.as_ref()?;
    Some(Script { argv: given.value.clone(), named_by: format!("{}: {word}", given.origin), decides: false })
}

/// Every executable file of a directory; none, if there is no such directory.
fn directory(tree: &Tree, dir: &str) -> anyhow::Result<Vec<Script>> {
    let Ok(place) = tree.resolve(Path::new(dir)) else { return Ok(Vec::new()) };
    let entries = fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", place.display()))?.file_name();
        let path = Path::new(dir).join(&name);
        let meta = tree.resolve(&path).and_then(|file| Ok(fs::metadata(file)?));
        if meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0) {
            names.push(
                path.into_os_string()
                    .into_string()
                    .ok()
                    .with_context(|| format!("{dir} has a file whose name is not UTF-8: {}", name.display()))?,
            );
        }
    }
    names.sort();
    Ok(names.into_iter().map(|path| Script { argv: vec![path], named_by: dir.to_owned(), decides: false }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;

    #[test]
    fn directories_are_in_order_and_only_what_is_executable_runs() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str, mode: u32| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write(
            "etc/kdump.conf",
            "kdump_pre /usr/bin/one\nkdump_post /usr/bin/two\nkdump_emergency /usr/bin/three\n",
            0o644,
        );
        write(
            "etc/sysconfig/kdump",
            "KDUMP_PRESCRIPT=\"/opt/pre -v\"\nKDUMP_POSTSCRIPT=/opt/post\nKDUMP_FAIL_CMD=\"/opt/tell all\"",
            0o644,
        );
        for dir in ["pre.d", "post.d", "emergency.d"] {
            write(&format!("etc/kdump/{dir}/20-b"), "", 0o755);
            write(&format!("etc/kdump/{dir}/10-a"), "", 0o755);
            write(&format!("etc/kdump/{dir}/README"), "", 0o644);
            fs::create_dir(root.path().join(format!("etc/kdump/{dir}/05-dir"))).unwrap();
        }
        let config = Config::read(&Files::new(root.path(), None, None)).unwrap();
        let user = find(&config, &Tree::new(root.path())).unwrap();
        let names = |scripts: &[Script]| {
            let mark = |script: &Script| if script.decides { "!" } else { "" };
            scripts.iter().map(|script| script.argv.join(" ") + mark(script)).collect::<Vec<_>>()
        };
        let in_dir = |dir: &str, name: &str| format!("/etc/kdump/{dir}/{name}");
        assert_eq!(
            names(&user.pre),
            ["/usr/bin/one!", "/opt/pre -v", &in_dir("pre.d", "10-a"), &in_dir("pre.d", "20-b")]
        );
        assert_eq!(
            names(&user.post),
            [&in_dir("post.d", "10-a"), &in_dir("post.d", "20-b"), "/usr/bin/two!", "/opt/post"]
        );
        assert_eq!(
            names(&user.emergency),
            [&in_dir("emergency.d", "10-a"), &in_dir("emergency.d", "20-b"), "/usr/bin/three!", "/opt/tell all"]
        );
        assert!(user.pre[0].named_by.ends_with("kdump.conf:1: kdump_pre"), "{}", user.pre[0].named_by);
    }

    #[test]
    fn a_machine_without_any_runs_none() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/kdump.conf"), "").unwrap();
        let config = Config::read(&Files::new(root.path(), None, None)).unwrap();
        assert!(find(&config, &Tree::new(root.path())).unwrap().is_empty());
    }
}
