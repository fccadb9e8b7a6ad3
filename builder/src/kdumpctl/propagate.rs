//! `kdumpctl propagate`: makes a key and has the far side let it in.
//!
//! In: a target by ssh or sftp. Out: a key of root's without passphrase, known to the far side, and the far side's own
//! key known here. May surprise: OpenSSH's tools do it, on this terminal: they ask for the password of the far side, and
//! whether its key is the right one.

use super::Machine;
use crate::config::{Config, Origin};
use crate::host::Tree;
use crate::remote;
use anyhow::{Context, bail};
use kdump_hooks::remote::Protocol;
use kdump_hooks::ssh_key;
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Does it, and says what was done. What OpenSSH's tools print would spoil JSON: then it is told on stderr.
pub(super) fn run(machine: &Machine, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    let targets = remote::by_ssh(&config);
    if targets.is_empty() {
        let place = config.dump.targets.first().map_or(&Origin::Default, |given| &given.origin);
        bail!("{place}: no dump goes to another machine by ssh or sftp; there is nobody to give a key to");
    }
    let key = key(&config, &machine.tree);
    let file = machine.tree.path(&key);
    match file.exists() {
        true => {
            // What an image could not use had better not be installed anywhere.
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", key.display()))?;
            ssh_key::check_private(&bytes, &key)?;
            write_public(&file, Path::new("ssh-keygen"))?;
            writeln!(out, "Using the key {}", key.display())?;
        }
        false => {
            if let Some(dir) = file.parent() {
                make_private(dir)?;
            }
            done(Command::new("ssh-keygen").args(keygen(&key)).arg("-f").arg(&file), "make a key", json)?;
            writeln!(out, "Made the key {}", key.display())?;
        }
    }
    // ssh-copy-id works there, and does not make it.
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    make_private(&Path::new(&home).join(".ssh"))?;
    for target in targets {
        let user = target.user.as_deref().unwrap_or("root");
        let mut copy = Command::new("ssh-copy-id");
        if target.protocol == Protocol::Sftp && copies_by_sftp() {
            copy.arg("-s");
        }
        copy.arg("-i").arg(file.with_added_extension("pub"));
        copy.args(target.port.map(|port| format!("-p{port}"))).arg(format!("{user}@{}", target.server));
        done(&mut copy, "have the far side let the key in", json)?;
        writeln!(out, "{} lets {user} in with the key {}", target.server, key.display())?;
    }
    Ok(())
}

/// The key that is installed. One that is configured is made where it is missing, although an image would do with another:
/// whoever names a key does not mean to let in the one that opens everything else.
fn key(config: &Config, tree: &Tree) -> PathBuf {
    if let Some(given) = &config.dump.sshkey {
        return given.value.clone();
    }
    let mut warnings = Vec::new();
    let key = remote::identity(config, tree, &mut warnings);
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    key
}

/// The public half, which ssh-copy-id wants in a file, of a key that came here without it.
fn write_public(key: &Path, keygen: &Path) -> anyhow::Result<()> {
    let public = key.with_added_extension("pub");
    if public.exists() {
        return Ok(());
    }
    let what = || format!("cannot tell the public half of {}", key.display());
    let output = Command::new(keygen).arg("-y").arg("-f").arg(key).stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("{}: {} does not run; install OpenSSH's client", what(), keygen.display()))?;
    if !output.status.success() {
        bail!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::write(&public, &output.stdout).with_context(|| format!("cannot write {}", public.display()))
}

/// Whether ssh-copy-id can do without a shell on the far side, which one who takes files by sftp may not give. Older
/// ones cannot.
fn copies_by_sftp() -> bool {
    let usage = Command::new("ssh-copy-id").arg("-h").output();
    usage.is_ok_and(|usage| String::from_utf8_lossy(&usage.stderr).contains("-s: use sftp"))
}

/// A directory that nobody else can look into, if it is not there yet.
fn make_private(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// The kind of key that its name tells, without a passphrase.
fn keygen(key: &Path) -> Vec<&'static str> {
    let name = key.file_name().unwrap_or_default().to_string_lossy();
    let kind = ["ed25519", "ecdsa"].into_iter().find(|kind| name.ends_with(kind)).unwrap_or("rsa");
    vec!["-q", "-t", kind, "-N", "", "-C", "kdump"]
}

fn done(command: &mut Command, what: &str, json: bool) -> anyhow::Result<()> {
    if json {
        command.stdout(std::io::stderr());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let status =
        command.status().with_context(|| format!("cannot {what}: {program} does not run; install OpenSSH's client"))?;
    if !status.success() {
        bail!("cannot {what}: {program} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use crate::kexec::fake::FakeKexec;

    #[test]
    fn a_key_that_an_image_could_not_use_is_not_installed_anywhere() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/kdump.conf", "ssh me@nas\nsshkey /root/key\n"),
            ("root/key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkq\n-----END ENCRYPTED PRIVATE KEY-----\n"),
        ] {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), text).unwrap();
        }
        let kexec = FakeKexec::default();
        let files = Files::new(root.path(), None, None);
        let machine = Machine { tree: Tree::new(root.path()), files, programs: None, kexec: &kexec };
        let mut out = Vec::new();
        let error = run(&machine, false, &mut out).unwrap_err().to_string();
        assert!(error.starts_with("the private key /root/key has a passphrase"), "{error}");
        assert!(out.is_empty());
    }

    #[test]
    fn a_key_is_of_the_kind_that_its_name_tells() {
        assert_eq!(keygen(Path::new("/root/.ssh/kdump_id_rsa"))[2], "rsa");
        assert_eq!(keygen(Path::new("/root/.ssh/id_ed25519"))[2], "ed25519");
        assert_eq!(keygen(Path::new("/k"))[2..5], ["rsa", "-N", ""]);
    }

    #[test]
    fn a_configured_key_that_is_missing_is_not_replaced_by_another_of_roots() {
        let chosen = |conf: &str| {
            let (dir, tree) =
                crate::fake::tree(&[("etc/kdump.conf", conf), ("root/.ssh/id_ed25519", "the key to all")]).unwrap();
            key(&Config::read(&Files::new(dir.path(), None, None)).unwrap(), &tree)
        };
        assert_eq!(chosen("ssh me@nas\nsshkey /etc/kdump/key\n"), Path::new("/etc/kdump/key"));
        assert_eq!(chosen("ssh me@nas\n"), Path::new("/root/.ssh/id_ed25519"));
    }

    #[test]
    fn a_key_that_came_without_its_public_half_gets_it_and_one_that_has_it_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let (keygen, key) = (dir.path().join("keygen"), dir.path().join("key"));
        let public = dir.path().join("key.pub");
        let script = "#!/bin/sh\n[ \"$1 $2\" = '-y -f' ] && [ -f \"$3\" ] || { echo 'no such key' >&2; exit 1; }\n\
                      echo ssh-ed25519 AAAA\n";
        kdump_hooks::fake::program(&keygen, script.as_bytes()).unwrap();
        let error = write_public(&key, &keygen).unwrap_err().to_string();
        assert!(error.ends_with("key: no such key") && !public.exists(), "{error}");
        fs::write(&key, "private").unwrap();
        write_public(&key, &keygen).unwrap();
        assert_eq!(fs::read_to_string(&public).unwrap(), "ssh-ed25519 AAAA\n");
        fs::write(&public, "ours").unwrap();
        write_public(&key, &keygen).unwrap();
        assert_eq!(fs::read_to_string(&public).unwrap(), "ours");
    }
}
