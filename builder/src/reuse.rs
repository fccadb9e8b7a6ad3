//! What the next image takes from the one that is there: module changes build only what changed.
//!
//! ```text
//!   file untouched since?  ─▶ its sum is known, and of a module its bytes and what it says: nothing is read or unpacked
//!   part of the same entries? ─▶ its compressed bytes are copied
//! ```
//!
//! In: an image of this very version, and what its list of inputs and [`PATH`] say. Out: the same image as one that is
//! built from nothing. May surprise: nothing damaged is taken over. A module is held against its sum, a compressed part
//! against each entry that it is to hold. With `SOURCE_DATE_EPOCH` the list has no times, and all is read anew.

use crate::build::BUILT_BY;
use crate::cpio::members::Members;
use crate::cpio::read::Archive;
use crate::host::kernel::Compression;
use crate::host::{Kernel, Tree};
use crate::signatures::{Signature, Signer};
use crate::uptodate::{self, Inputs};
use anyhow::{Context, bail};
use kdump_init::config::{self as contract, ImageConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where it is in the image what its modules say of themselves.
pub const PATH: &str = "etc/kdump/modules.json";

/// A module as it goes into an image, and what the builder asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// How its file is compressed.
    pub packed: Option<Compression>,
    /// Its bytes in the image.
    pub bytes: Vec<u8>,
    /// The firmware that it names.
    pub firmware: Vec<String>,
    /// The modules that it may ask for.
    pub weakdep: Vec<String>,
    /// Who signed it.
    pub signature: Signature,
}

/// What the modules of an image say of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Who signed them, each group once.
    signers: Vec<Vec<Signer>>,
    modules: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    /// Its file, by its name in the list of inputs.
    file: String,
    /// Its path in the image.
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packed: Option<Compression>,
    /// The sum of what is in the image, if that is not the file as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    firmware: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weakdep: Vec<String>,
    /// Which of the signers signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<usize>,
}

impl Facts {
    /// Notes a module that is made of the file at `place` and stands at `path` in the image. One that is signed in a way
    /// of its own is read again each time.
    pub fn add(&mut self, tree: &Tree, place: &Path, path: &str, module: &Module, is_unpacked: bool) {
        let Some(file) = uptodate::name_of(tree, place) else { return };
        let signed = match &module.signature {
            Signature::None => None,
            Signature::By(signers) => {
                Some(self.signers.iter().position(|known| known == signers).unwrap_or_else(|| {
                    self.signers.push(signers.clone());
                    self.signers.len() - 1
                }))
            }
            Signature::Unsupported | Signature::Damaged(_) | Signature::Unread(_) => return,
        };
        self.modules.push(Fact {
            file,
            path: path.to_owned(),
            packed: module.packed,
            sum: is_unpacked.then(|| uptodate::sum(&module.bytes)),
            firmware: module.firmware.clone(),
            weakdep: module.weakdep.clone(),
            signed,
        });
    }

    /// As it is written into an image.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// The image that is there.
#[derive(Debug)]
pub struct Old {
    image: Vec<u8>,
    archive: Archive,
    inputs: Inputs,
    signers: Vec<Vec<Signer>>,
    modules: BTreeMap<String, Fact>,
    /// Its entries by path.
    places: BTreeMap<String, usize>,
}

impl Old {
    /// The image at `path`, if it is of use for another one for that kernel.
    pub fn read(path: &Path, kernel: &Kernel) -> Option<Old> {
        let read = fs::read(path).map_err(anyhow::Error::from).and_then(|image| Old::of(image, &kernel.release));
        read.inspect_err(|error| log::debug!("nothing is taken from {}: {error:#}", path.display())).ok()
    }

    /// The same of its bytes.
    ///
    /// # Errors
    /// It is damaged, of another version of this program, or for another kernel.
    pub fn of(image: Vec<u8>, release: &str) -> anyhow::Result<Old> {
        let archive = Archive::read(&image)?;
        let places =
            archive.entries.iter().enumerate().map(|(index, entry)| (entry.path().into_owned(), index)).collect();
        let mut old =
            Old { image, archive, places, inputs: Inputs::default(), signers: Vec::new(), modules: BTreeMap::new() };
        let config = old.file(contract::PATH).context("it does not say what it is")?;
        let config = ImageConfig::parse(std::str::from_utf8(config)?)?;
        if config.built_by != BUILT_BY || config.kernel_release != release {
            bail!("it was built by {} for kernel {}", config.built_by, config.kernel_release);
        }
        if let (Some(inputs), Some(facts)) = (old.file(uptodate::PATH), old.file(PATH)) {
            let inputs = Inputs::parse(std::str::from_utf8(inputs)?)?;
            let Facts { signers, modules } = serde_json::from_slice(facts).context(PATH)?;
            (old.inputs, old.signers) = (inputs, signers);
            old.modules = modules.into_iter().map(|fact| (fact.file.clone(), fact)).collect();
        }
        Ok(old)
    }

    /// Its parts.
    pub fn members(&self) -> Members<'_> {
        Members { image: &self.image, archive: &self.archive }
    }

    /// What it was made of.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The module that is made of the file at `place`, if that has not been touched since. `decompresses` is what the
    /// kernel undoes itself.
    pub fn module(&self, tree: &Tree, place: &Path, decompresses: Option<Compression>) -> Option<Module> {
        let fact = self.modules.get(&uptodate::name_of(tree, place)?)?;
        let file_sum = self.inputs.untouched(tree, &fact.file)?;
        let is_unpacked = fact.packed.is_some() && fact.packed != decompresses;
        let bytes = self.file(&fact.path)?;
        let sum = uptodate::sum(bytes);
        let is_sound = match &fact.sum {
            Some(unpacked) => is_unpacked && *unpacked == sum,
            None => !is_unpacked && file_sum == sum,
        };
        let signature = match fact.signed {
            Some(number) => Signature::By(self.signers.get(number)?.clone()),
            None => Signature::None,
        };
        is_sound.then(|| Module {
            packed: fact.packed,
            bytes: bytes.to_vec(),
            firmware: fact.firmware.clone(),
            weakdep: fact.weakdep.clone(),
            signature,
        })
    }

    fn file(&self, path: &str) -> Option<&[u8]> {
        Some(self.archive.data(self.archive.entries.get(*self.places.get(path.trim_start_matches('/'))?)?))
    }
}
