//! SUSE's `KDUMP_SAVEDIR`: one word for target and path.
//!
//! In: a path or a URL. Out: what kdump.conf would say in two directives.

use super::super::TargetLine;
use anyhow::{Context, bail};
use kdump_hooks::cifs;
use kdump_hooks::nfs::Nfs;
use std::path::{Path, PathBuf};

/// The file in the image that gets the user and the password of a share.
const CREDENTIALS: &str = "/etc/kdump/cifs.credentials";

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
        if let Some(second) = value.split_whitespace().skip(1).find(|word| word.contains("://")) {
            // Never the address itself: there may be a password in it.
            let (scheme, _) = second.split_once("://").unwrap_or_default();
            bail!(
                "there is a second place, {scheme}://…: dumps go to one; keep that, or write [[target]] for each into \
                 /etc/kdump/kdump.toml"
            );
        }
        let Some((scheme, rest)) = value.split_once("://") else { return local(value) };
        match scheme {
            "file" => local(rest),
            "nfs" => {
                let (server, export) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
                let nfs: Nfs = format!("{server}:{export}").parse().map_err(anyhow::Error::msg)?;
                Ok(Savedir { target: Some(TargetLine::Nfs(nfs)), path: "/".into() })
            }
            "cifs" | "smb" => {
                let (share, path) = cifs::of_url(value, Path::new(CREDENTIALS)).map_err(anyhow::Error::msg)?;
                Ok(Savedir {
                    target: Some(TargetLine::Cifs(share)),
                    path: super::super::values::directory(&path.to_string_lossy())?,
                })
            }
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
                "{other}:// is not supported; write a path, or file://, nfs://, cifs://, ssh://, sftp://, ftp:// or \
                 ftps://"
            ),
        }
    }
}

fn local(path: &str) -> anyhow::Result<Savedir> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        bail!("`{path}` is not an absolute path without `..`; write it from / on");
    }
    Ok(Savedir { target: None, path: super::super::values::directory(path)? })
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
    fn user_and_password_of_a_share_become_a_file_of_the_image() {
        let Savedir { target: Some(TargetLine::Cifs(share)), path } =
            Savedir::parse("cifs://me:se@cret@nas/dumps/x//y").unwrap()
        else {
            panic!("no share")
        };
        assert_eq!((share.to_string().as_str(), path), ("cifs //nas/dumps", "/x/y".into()));
        assert_eq!(share.credentials, Some(CREDENTIALS.into()));
        let given = share.given.unwrap();
        assert_eq!((given.user.as_str(), given.password.as_str()), ("me", "se@cret"));
        assert!(Savedir::parse("smb://nas/dumps/../x").is_err());
    }

    #[test]
    fn what_cannot_be_followed_is_told_without_passwords() {
        for (value, words) in [
            ("var/crash", "absolute path"),
            ("nfs://[fd00::1]/x sftp://a:secret@b/c", "there is a second place, sftp://…: dumps go to one"),
            ("/var/crash ftp://b/c", "there is a second place, ftp://…: dumps go to one"),
            ("cifs://me:secret@nas", "names no share"),
            ("ssh://me:secret@nas/x", "KDUMP_SSH_IDENTITY"),
            ("s3://bucket/x", "s3:// is not supported"),
            ("ftp://me:secret@/x", "neither the name"),
        ] {
            let error = format!("{:#}", Savedir::parse(value).unwrap_err());
            assert!(error.contains(words) && !error.contains("secret"), "{value}: {error}");
        }
    }
}
