//! The model as a `kdump.toml`.
//!
//! In: [`Config`]. Out: the text, each value with the place that it came from, and the files that its secrets need. A
//! secret is in no `kdump.toml`: it goes into a file that only root reads, and only where that is asked for.

use super::settings;
use crate::config::{Config, Origin, TargetLine, Wanted};
use anyhow::bail;
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
    let mut found = Vec::new();
    for (number, target) in (1..).zip(&mut config.dump.targets) {
        let Some((kind, bytes)) = secret(&target.value) else { continue };
        let Some(dir) = secrets else {
            bail!(
                "{}: there is a password; name a directory with --secrets DIR, in which it gets a file that only root \
                 can read",
                target.origin
            );
        };
        let path = dir.join(format!("target{number}.{kind}"));
        match &mut target.value.line {
            TargetLine::Cifs(cifs) => (cifs.given, cifs.credentials) = (None, Some(path.clone())),
            TargetLine::Remote(remote) => {
                (remote.login.password.0, remote.login.password_file) = (None, Some(path.clone()));
            }
            _ => continue,
        }
        found.push(Secret { path, bytes });
    }
    Ok((written(&config), found))
}

/// What of a target must not be in the text, and what kind of file it makes.
fn secret(target: &Wanted) -> Option<(&'static str, Vec<u8>)> {
    match &target.line {
        TargetLine::Cifs(cifs) => {
            let given = cifs.given.as_ref()?;
            let domain = given.domain.as_ref().map_or(String::new(), |domain| format!("domain={domain}\n"));
            Some((
                "credentials",
                format!("username={}\npassword={}\n{domain}", given.user, given.password).into_bytes(),
            ))
        }
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
