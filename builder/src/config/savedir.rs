//! SUSE's `KDUMP_SAVEDIR`: one word for target and path.
//!
//! In: a path or a URL. Out: what kdump.conf would say in two directives.

use super::TargetLine;
use anyhow::{Context, bail};
use kdump_hooks::nfs::Nfs;
use std::path::PathBuf;

/// Where dumps go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savedir {
    /// On another machine, if it is one.
    pub target: Option<TargetLine>,
    /// The directory of all dumps there.
    pub path: PathBuf,
}

impl Savedir {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// What cannot be followed, with the remedy; never with a password.
    pub fn parse(value: &str) -> anyhow::Result<Savedir> {
        let Some((scheme, rest)) = value.split_once("://") else { return local(value) };
        match scheme {
            "file" => local(rest),
            "nfs" => {
                let (server, export) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
                let nfs: Nfs = format!("{server}:{export}").parse().map_err(anyhow::Error::msg)?;
                Ok(Savedir { target: Some(TargetLine::Nfs(nfs)), path: "/".into() })
            }
            "cifs" | "smb" => bail!(
                "{scheme}:// is not supported by this version; write sftp:// or nfs://, or mount the share where a \
                 running system reads dumps from another target"
            ),
            "ssh" | "sftp" | "scp" | "ftp" | "ftps" => {
                let remote: kdump_hooks::remote::Remote =
                    value.parse().map_err(anyhow::Error::msg).context("the address cannot be followed")?;
                if remote.protocol.is_ssh() && remote.login.password.0.is_some() {
                    bail!(
                        "a password for {scheme}:// is not supported: take it out, and name a key with KDUMP_SSH_IDENTITY"
                    );
                }
                Ok(Savedir { path: remote.path.clone(), target: Some(TargetLine::Remote(remote)) })
            }
            other => bail!(
                "{other}:// is not supported; write a path, or file://, nfs://, ssh://, sftp://, ftp:// or ftps://"
            ),
        }
    }
}

fn local(path: &str) -> anyhow::Result<Savedir> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        bail!("`{path}` is not an absolute path without `..`; write it from / on");
    }
    Ok(Savedir { target: None, path: super::kdump_conf::directory(path)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place_is_understood() {
        for path in ["/var//crash", "file:///var/crash"] {
            assert_eq!(Savedir::parse(path).unwrap(), Savedir { target: None, path: "/var/crash".into() });
        }
        let Savedir { target: Some(TargetLine::Nfs(nfs)), path } = Savedir::parse("nfs://nas/srv/x").unwrap() else {
            panic!("no export")
        };
        assert_eq!((nfs.to_string().as_str(), path), ("nfs nas:/srv/x", "/".into()));
        let Savedir { target: Some(TargetLine::Remote(remote)), path } =
            Savedir::parse("ftp://me:word@nas:2121/srv/x").unwrap()
        else {
            panic!("no server")
        };
        assert_eq!((remote.to_string().as_str(), path), ("ftp://me@nas:2121/srv/x", "/srv/x".into()));
        assert_eq!(remote.login.password.0.as_deref(), Some("word"));
    }

    #[test]
    fn what_cannot_be_followed_is_told_without_passwords() {
        for (value, words) in [
            ("var/crash", "absolute path"),
            ("cifs://me:secret@nas/share/x", "write sftp:// or nfs://"),
            ("smb://nas/share", "smb:// is not supported"),
            ("ssh://me:secret@nas/x", "KDUMP_SSH_IDENTITY"),
            ("s3://bucket/x", "s3:// is not supported"),
            ("ftp://me:secret@/x", "neither the name"),
        ] {
            let error = format!("{:#}", Savedir::parse(value).unwrap_err());
            assert!(error.contains(words) && !error.contains("secret"), "{value}: {error}");
        }
    }
}
