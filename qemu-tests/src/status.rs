//! `status.json` beside a dump: what the capture environment says of its own work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The report, with questions instead of paths into JSON.
#[derive(Clone, Debug)]
pub struct Status {
    json: Value,
}

impl Status {
    /// Reads a report.
    pub fn read(path: &Path) -> Result<Status> {
        let text = fs::read_to_string(path).with_context(|| format!("unable to read {}", path.display()))?;
        let json = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        Ok(Status { json })
    }

    /// What is at a place such as `/vmcore/panic_line`.
    pub fn at(&self, pointer: &str) -> Result<&Value> {
        self.json.pointer(pointer).with_context(|| format!("status.json has no {pointer}: {}", self.json))
    }

    /// The text at a place.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        self.at(pointer)?.as_str().with_context(|| format!("{pointer} of status.json is not text"))
    }

    /// Names in the list at a place.
    pub fn names(&self, pointer: &str) -> Result<Vec<&str>> {
        let list = self.at(pointer)?.as_array().with_context(|| format!("{pointer} of status.json is not a list"))?;
        Ok(list.iter().filter_map(|item| item.as_str().or_else(|| item.get("name")?.as_str())).collect())
    }

    /// Fails unless the outcome is this one.
    pub fn expect_outcome(&self, outcome: &str) -> Result<()> {
        let found = self.text("/outcome")?;
        ensure!(found == outcome, "the outcome is {found}, not {outcome}: {}", self.json);
        Ok(())
    }

    /// Pages by kind.
    pub fn pages(&self) -> Result<BTreeMap<String, u64>> {
        let pages = self.at("/vmcore/pages")?.as_object().context("/vmcore/pages is not an object")?;
        Ok(pages.iter().filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect())
    }

    /// Stages with their seconds and outcome.
    pub fn stages(&self) -> Result<Vec<(String, f64, String)>> {
        let stages = self.at("/stages")?.as_array().context("/stages is not a list")?;
        let stage = |stage: &Value| {
            let text = |key: &str| Some(stage.get(key)?.as_str()?.to_owned());
            Some((text("name")?, stage.get("seconds")?.as_f64()?, text("outcome")?))
        };
        let known: Option<Vec<_>> = stages.iter().map(stage).collect();
        known.with_context(|| format!("a stage lacks name, seconds or outcome: {}", self.json))
    }

    /// Fails unless every file that the report names is in `folder` with that size and SHA-256, the
    /// dump and the log among them.
    pub fn check_files(&self, folder: &Path) -> Result<()> {
        let files = self.at("/files")?.as_array().context("/files is not a list")?;
        let mut names = Vec::new();
        for file in files {
            let field = |key: &str| file.get(key).with_context(|| format!("a file in status.json has no {key}"));
            let name = field("name")?.as_str().context("a file's name is not text")?;
            let (bytes, digest) = sha256(&folder.join(name))?;
            ensure!(field("bytes")?.as_u64() == Some(bytes), "{name} has {bytes} bytes, status.json says {file}");
            ensure!(field("sha256")?.as_str() == Some(&digest), "{name} has SHA-256 {digest}, status.json says {file}");
            names.push(name);
        }
        for one_of in [&["vmcore", "vmcore.flat"][..], &["vmcore-dmesg.txt"]] {
            let vouched = one_of.iter().any(|name| names.contains(name));
            ensure!(vouched, "status.json does not vouch for {}: {names:?}", one_of.join(" or "));
        }
        Ok(())
    }
}

/// The length of a file and its sum.
pub fn sha256(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).with_context(|| format!("unable to open {}", path.display()))?;
    let mut hasher = Hasher(Sha256::new());
    let bytes = std::io::copy(&mut file, &mut hasher).with_context(|| format!("unable to read {}", path.display()))?;
    Ok((bytes, hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
