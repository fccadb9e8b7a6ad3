//! The model as a `kdump.toml`.
//!
//! In: [`Config`]. Out: the text, each value with the place that it came from, and the files that its secrets need. A
//! secret is in no `kdump.toml`: it goes into a file that only root reads, and only where that is asked for.

use super::settings;
use crate::config::{Config, Dialect, Given, Origin, TargetLine, Wanted};
use crate::kexec::cmdline::{usual_append, usual_remove};
use anyhow::Context;
use kdump_hooks::cifs::Credentials;
use std::path::{Path, PathBuf};

/// A file that a converted configuration names.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where it belongs.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Without what is in it.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.path.display())
    }
}

/// The text of a `kdump.toml` that asks for the same, and the secrets that belong below `secrets`.
///
/// # Errors
/// There is a secret, and no directory for it.
pub fn convert(config: &Config, secrets: Option<&Path>) -> anyhow::Result<(String, Vec<Secret>)> {
    let mut config = config.clone();
    spell_out(&mut config);
    let mut found = Vec::new();
    for (number, target) in (1..).zip(&mut config.dump.targets) {
        let Some((kind, bytes)) = secret(&target.value) else { continue };
        let path = place(secrets, &target.origin)?.join(format!("target{number}.{kind}"));
        match &mut target.value.line {
            TargetLine::Cifs(cifs) => (cifs.given, cifs.credentials) = (None, Some(path.clone())),
            TargetLine::Remote(remote) => {
                (remote.login.password.0, remote.login.password_file) = (None, Some(path.clone()));
            }
            _ => continue,
        }
        found.push(Secret { path, bytes });
    }
    if let Some(Given { value, origin }) = &mut config.dump.notify
        && let Some(mail) = &mut value.mail
        && let Some(login) = mail.login.take()
    {
        let path = place(secrets, origin)?.join("mail.credentials");
        mail.credentials = Some(path.clone());
        found.push(Secret { path, bytes: credentials(&login) });
    }
    Ok((written(&config), found))
}

/// The directory for a secret.
fn place<'a>(secrets: Option<&'a Path>, origin: &Origin) -> anyhow::Result<&'a Path> {
    secrets.with_context(|| {
        format!(
            "{origin}: there is a password; name a directory with --secrets DIR, in which it gets a file that only root \
             can read"
        )
    })
}

/// A file with user and password, as a target on a share has one and a mail server.
fn credentials(login: &Credentials) -> Vec<u8> {
    let domain = login.domain.as_ref().map_or(String::new(), |domain| format!("domain={domain}\n"));
    format!("username={}\npassword={}\n{domain}", login.user, login.password).into_bytes()
}

/// Says what is usual in the dialect and not in a `kdump.toml`.
fn spell_out(config: &mut Config) {
    let Config { dialect, arch, system, sources, .. } = config;
    let origin = sources.first().map_or(Origin::Default, |file| Origin::file(file));
    if system.panic_on_oops.is_none() && matches!(dialect, Dialect::Debian | Dialect::Suse) {
        system.panic_on_oops = Some(Given::at(true, &origin));
    }
    let (append, remove) = (usual_append(*dialect, *arch), usual_remove(*dialect, *arch));
    if system.append.is_none() && append != usual_append(Dialect::Native, *arch) {
        system.append = Some(Given::at(append, &origin));
    }
    if system.remove.is_none() && remove != usual_remove(Dialect::Native, *arch) {
        system.remove = Some(Given::at(remove, &origin));
    }
}

/// What of a target must not be in the text, and what kind of file it makes.
fn secret(target: &Wanted) -> Option<(&'static str, Vec<u8>)> {
    match &target.line {
        TargetLine::Cifs(cifs) => Some(("credentials", credentials(cifs.given.as_ref()?))),
        TargetLine::Remote(remote) => {
            Some(("password", format!("{}\n", remote.login.password.0.as_ref()?).into_bytes()))
        }
        _ => None,
    }
}

fn written(config: &Config) -> String {
    let sources: Vec<String> = config.sources.iter().map(|file| file.display().to_string()).collect();
    let mut text = format!("# From {}.\n", if sources.is_empty() { "nothing".to_owned() } else { sources.join(", ") });
    let mut table = "";
    for setting in settings(config) {
        // What nobody said is the default of the file that reads it, too.
        if setting.origin == Origin::Default || (setting.secret && setting.table == "target") {
            continue;
        }
        let begins = setting.table == "target" && setting.name == "kind";
        if setting.table != table || begins {
            table = setting.table;
            text += &if begins { "\n[[target]]\n".to_owned() } else { format!("\n[{table}]\n") };
        }
        text += &format!("{} = {}  # {}\n", setting.name, setting.value, one_line(&setting.origin));
    }
    text
}

fn one_line(origin: &Origin) -> String {
    origin.to_string().replace(|c: char| c.is_control(), "?")
}
