//! What an image logs in to another machine with: which key, and by which keys the machine is known.
//!
//! In: the configuration and the files of this machine. Out: a target that its hook can put into an image.

use crate::config::{Config, Sysconfig, TargetLine, privacy};
use crate::host::{Tree, known_hosts};
use kdump_hooks::remote::{Login, Remote};
use std::fs;
use std::path::{Path, PathBuf};

/// RHEL's key, and then those that SUSE looks for.
const KEYS: [&str; 4] = ["kdump_id_rsa", "id_ed25519", "id_ecdsa", "id_rsa"];
/// Where root's keys are.
const DOT_SSH: &str = "/root/.ssh";
/// What is known of other hosts.
const KNOWN_HOSTS: [&str; 3] = ["/root/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// Completes what the configuration says of a machine.
pub fn complete(remote: &Remote, path: &Path, config: &Config, tree: &Tree, warnings: &mut Vec<String>) -> Remote {
    let mut remote = Remote { path: path.to_owned(), ..remote.clone() };
    remote.wait = config.system.net_timeout.as_ref().map(|given| given.value);
    if !remote.protocol.is_ssh() {
        if remote.protocol == kdump_hooks::remote::Protocol::Ftp {
            let what = if remote.user.is_some() { "password and dump go" } else { "the dump goes" };
            warnings.push(format!("{what} to {} in the clear; ftps:// or sftp:// would hide it", remote.server));
        }
        return remote;
    }
    let (host_keys, any_host) = host_keys(&remote, &config.system, tree, warnings);
    let identity = identity(config, tree, warnings);
    let told = tree.resolve(&identity).ok().and_then(|file| privacy::warning(&file, &identity, "a private key"));
    warnings.extend(told.filter(|told| !warnings.contains(told)));
    let login = Login { identity: Some(identity), host_keys, ..remote.login };
    Remote { login, any_host, ..remote }
}

/// The private key that is used, be it there or not.
pub fn identity(config: &Config, tree: &Tree, warnings: &mut Vec<String>) -> PathBuf {
    let there = |path: &Path| tree.resolve(path).is_ok_and(|file| file.is_file());
    let usual = || KEYS.iter().map(|name| Path::new(DOT_SSH).join(name));
    let first = || usual().find(|path| there(path)).unwrap_or_else(|| Path::new(DOT_SSH).join(KEYS[0]));
    if let Some(given) = &config.dump.sshkey {
        if there(&given.value) {
            return given.value.clone();
        }
        // RHEL goes on with its default then, and so does who relies on it.
        let other = first();
        if there(&other) {
            warnings.push(format!(
                "{}: {} is not there; {} is used",
                given.origin,
                given.value.display(),
                other.display()
            ));
            return other;
        }
        return given.value.clone();
    }
    let Some(given) = &config.system.ssh_identity else { return first() };
    let named: Vec<PathBuf> = given.value.split_whitespace().map(|name| Path::new(DOT_SSH).join(name)).collect();
    let found: Vec<&PathBuf> = named.iter().filter(|path| there(path)).collect();
    if let [used, _, ..] = found.as_slice() {
        warnings.push(format!("{}: one key is enough, {} is used", given.origin, used.display()));
    }
    found.first().copied().or(named.first()).cloned().unwrap_or_else(first)
}

/// The keys of the host, and whether any will do.
fn host_keys(remote: &Remote, system: &Sysconfig, tree: &Tree, warnings: &mut Vec<String>) -> (Vec<String>, bool) {
    if let Some(given) = &system.host_key {
        if given.value == "*" {
            warnings.push(format!(
                "{}: KDUMP_HOST_KEY=\"*\": whoever answers in the place of {} gets the dump",
                given.origin, remote.server
            ));
            return (Vec::new(), true);
        }
        return (vec![given.value.clone()], false);
    }
    let texts = KNOWN_HOSTS.iter().filter_map(|file| fs::read_to_string(tree.path(file)).ok());
    let text: String = texts.map(|text| text + "\n").collect();
    let mut keys = known_hosts::keys_of(&text, &remote.known_as());
    if keys.is_empty() {
        // OpenSSH, too, takes a key that is known of the host without its port.
        keys = known_hosts::keys_of(&text, &remote.server);
    }
    (keys, false)
}

/// The machines to which dumps go by ssh or sftp.
pub fn by_ssh(config: &Config) -> Vec<&Remote> {
    let remotes = config.dump.targets.iter().filter_map(|target| match &target.value.line {
        TargetLine::Remote(remote) => Some(remote),
        _ => None,
    });
    remotes.filter(|remote| remote.protocol.is_ssh()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use std::os::unix::fs::PermissionsExt;

    fn completed(conf: &str, sysconfig: &str, files: &[(&str, &str)]) -> (Remote, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        let all = [("etc/kdump.conf", conf), ("etc/sysconfig/kdump", sysconfig)];
        for (path, text) in all.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let config = Config::read(&Files::new(root.path(), None, None)).unwrap();
        let TargetLine::Remote(remote) = &config.dump.targets[0].value.line else { panic!("no remote") };
        let mut warnings = Vec::new();
        (complete(remote, &config.dump.path.value, &config, &Tree::new(root.path()), &mut warnings), warnings)
    }

    const KNOWN: (&str, &str) = ("root/.ssh/known_hosts", "nas ssh-ed25519 A\n");

    #[test]
    fn rhel_s_directives_find_key_and_host() {
        let key = ("opt/key", "K");
        let (remote, warnings) = completed("ssh me@nas\nsshkey /opt/key\npath /srv\n", "", &[KNOWN, key]);
        assert_eq!(remote.to_string(), "ssh://me@nas/srv");
        assert_eq!(remote.login.identity, Some("/opt/key".into()));
        assert_eq!(remote.login.host_keys, ["ssh-ed25519 A"]);
        assert!(warnings.is_empty(), "{warnings:?}");
        let usual = ("root/.ssh/kdump_id_rsa", "K");
        let (remote, warnings) = completed("ssh me@nas\nsshkey /opt/key\n", "", &[usual]);
        assert_eq!(remote.login.identity, Some("/root/.ssh/kdump_id_rsa".into()));
        assert_eq!(warnings.len(), 1, "the key is for its owner alone");
        assert!(warnings[0].contains("/opt/key is not there; /root/.ssh/kdump_id_rsa is used"), "{warnings:?}");
    }

    #[test]
    fn suse_s_variables_find_key_and_host() {
        let keys = [KNOWN, ("root/.ssh/two", "K"), ("root/.ssh/three", "K")];
        let sysconfig = "KDUMP_SAVEDIR=sftp://nas/srv\nKDUMP_SSH_IDENTITY=\"one two three\"\nKDUMP_NET_TIMEOUT=7\n";
        let (remote, warnings) = completed("", sysconfig, &keys);
        assert_eq!(remote.login.identity, Some("/root/.ssh/two".into()));
        assert_eq!((remote.wait, remote.path.as_path()), (Some(7), Path::new("/srv")));
        assert!(warnings[0].contains("one key is enough"), "{warnings:?}");
        let (remote, _) =
            completed("", "KDUMP_SAVEDIR=ssh://nas/srv\nKDUMP_HOST_KEY=\"ssh-rsa AAAAB3NzaC1yc2E=\"\n", &keys);
        assert_eq!(
            (remote.login.host_keys.as_slice(), remote.any_host),
            (&["ssh-rsa AAAAB3NzaC1yc2E=".to_owned()][..], false)
        );
        let (remote, warnings) = completed("", "KDUMP_SAVEDIR=ssh://nas/srv\nKDUMP_HOST_KEY='*'\n", &keys);
        assert!(remote.any_host && warnings[0].contains("whoever answers"), "{warnings:?}");
        let (_, warnings) = completed("", "KDUMP_SAVEDIR=ftp://me:x@nas/srv\n", &keys);
        assert!(warnings[0].contains("in the clear"), "{warnings:?}");
    }
}
