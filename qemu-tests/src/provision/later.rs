//! Debian's later suites, for kernels and tools newer than the machine's release.
//!
//! No archive is named here: the machine's apt knows where its main Debian archive is and by which key it is signed,
//! and a private apt state below `target/qemu/apt` asks that archive for other suites. The machine's own state is not
//! touched, and no root is needed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::apt::{Apt, update_machine_once};
use crate::{folders, tools};

/// The suites that the private state lists.
const SUITES: &str = "trixie sid";

/// One entry of the machine's sources: where the archive is, and which file and stanza say so.
struct Archive {
    uri: String,
    file: String,
    entry: usize,
}

/// An apt that sees only the later suites; `release` is the one it prefers.
pub(super) fn apt(release: &str) -> Result<Apt> {
    let state = folders::qemu().join("apt");
    folders::made_once(&state, "package lists of Debian's later suites", |folder| {
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("sources/later.sources"), sources()?)?;
        private(folder, release).update()
    })?;
    Ok(private(&state, release))
}

fn private(state: &Path, release: &str) -> Apt {
    let state = state.display();
    Apt::with_options(vec![
        format!("Dir::State={state}"),
        format!("Dir::State::lists={state}/lists"),
        "Dir::State::status=/dev/null".into(),
        format!("Dir::Cache={state}/cache"),
        "Dir::Etc::sourcelist=/dev/null".into(),
        format!("Dir::Etc::sourceparts={state}/sources"),
        "Dir::Etc::preferencesparts=/dev/null".into(),
        format!("APT::Default-Release={release}"),
        "APT::Sandbox::User=root".into(),
        "Acquire::Languages=none".into(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
    ])
}

/// Where the machine's main Debian archive is.
pub(super) fn archive_uri() -> Result<String> {
    archive().map(|archive| archive.uri)
}

fn archive() -> Result<Archive> {
    if let Some(archive) = main_archive()? {
        return Ok(archive);
    }
    update_machine_once();
    main_archive()?.context(
        "apt has no list of the machine's main Debian archive, from which the rest would be derived; \
         run as root: apt-get update",
    )
}

/// The private source file's text.
fn sources() -> Result<String> {
    let archive = archive()?;
    let text = fs::read_to_string(&archive.file).with_context(|| format!("unable to read {}", archive.file))?;
    let signed_by = if archive.file.ends_with(".sources") {
        stanza_signed_by(&text, archive.entry)
    } else {
        line_signed_by(&text, archive.entry)
    };
    let signed_by = signed_by.map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
    Ok(format!("Types: deb\nURIs: {}\nSuites: {SUITES}\nComponents: main\n{signed_by}", archive.uri))
}

/// The name of the machine's release.
pub(super) fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("unable to read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(codename.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// The archive whose origin is Debian and whose release is the machine's own, not its updates or security fixes.
fn main_archive() -> Result<Option<Archive>> {
    let codename = codename()?;
    let format = "$(ORIGIN) $(RELEASE) $(REPO_URI) $(SOURCESENTRY)";
    let targets =
        tools::text(tools::command("apt-get").args(["indextargets", "--format", format, "Identifier: Packages"]))?;
    Ok(targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (origin, release, uri, entry) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (file, entry) = entry.rsplit_once(':')?;
        let ours = origin == "Debian" && release == codename;
        ours.then(|| Some(Archive { uri: uri.into(), file: file.into(), entry: entry.parse().ok()? }))?
    }))
}

/// The Signed-By field, with its continuation lines, of stanza `number` (from 1) of a deb822 file.
fn stanza_signed_by(text: &str, number: usize) -> Option<String> {
    let stanzas = text.split("\n\n").filter(|stanza| stanza.lines().any(|line| line.starts_with("Types:")));
    let stanza = stanzas.into_iter().nth(number.checked_sub(1)?)?;
    let mut field: Option<String> = None;
    for line in stanza.lines() {
        match (&mut field, line.strip_prefix("Signed-By:")) {
            (None, Some(value)) => field = Some(value.trim().to_owned()),
            (Some(value), None) if line.starts_with([' ', '\t']) => {
                value.push('\n');
                value.push_str(line);
            }
            (Some(_), _) => break,
            (None, None) => {}
        }
    }
    field
}

/// The `signed-by=` option of line `number` (from 1) of a one-line-style file.
fn line_signed_by(text: &str, number: usize) -> Option<String> {
    let line = text.lines().nth(number.checked_sub(1)?)?;
    let options = line.split_once('[')?.1.split_once(']')?.0;
    options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_from_the_entry_that_names_the_archive() {
        let text = "Types: deb\nURIs: a\nSigned-By: /one.gpg\n\n# Types: deb\n\nTypes: deb\nSigned-By:\n -----BEGIN\n .\nSuites: x\n";
        assert_eq!(stanza_signed_by(text, 1).as_deref(), Some("/one.gpg"));
        assert_eq!(stanza_signed_by(text, 2).as_deref(), Some("\n -----BEGIN\n ."));
        assert_eq!(stanza_signed_by(text, 3), None);
        assert_eq!(line_signed_by("deb [arch=amd64 signed-by=/k.gpg] u s main", 1).as_deref(), Some("/k.gpg"));
        assert_eq!(line_signed_by("deb u s main", 1), None);
    }
}
