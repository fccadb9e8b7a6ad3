//! What the command line of mkdumprd asks into an image besides what the configuration does.
//!
//! In: dracut's words for it. Out: the same as the configuration would say it, each with the option as its place.

use crate::config::{Config, Given, Include, Origin, dracut};
use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Modules that must be in it.
    pub add_drivers: Vec<String>,
    /// Modules that must not be loaded, and so stay out of it.
    pub omit_drivers: Vec<String>,
    /// Programs and files of the host, by path or by name.
    pub install: Vec<PathBuf>,
    /// Files and directories of the host, each with its path in the image.
    pub include: Vec<Include>,
    /// The drivers of most machines as well.
    pub generic: bool,
    /// Its devices do without firmware that is missing.
    pub allow_missing_firmware: bool,
    /// dracut's options that are none of ours.
    pub dracut: dracut::Asked,
}

impl Asked {
    /// Says the same in the configuration.
    pub fn write_to(&self, config: &mut Config) {
        self.dracut.clone().add_to(config);
        let image = &mut config.dump.image;
        image.add_drivers.extend(given("--add-drivers", &self.add_drivers));
        image.omit_drivers.extend(given("--omit-drivers", &self.omit_drivers));
        image.install.extend(given("--install", &self.install));
        image.include.extend(given("--include", &self.include));
        if self.generic {
            image.hostonly = given("--no-hostonly", &[false]).pop();
        }
        if self.allow_missing_firmware {
            image.allow_missing_firmware = given("--allow-missing-firmware", &[true]).pop();
        }
    }
}

/// Words of an option, each with its place.
fn given<T: Clone>(option: &str, words: &[T]) -> Vec<Given<T>> {
    words.iter().map(|word| Given { value: word.clone(), origin: Origin::Option(option.to_owned()) }).collect()
}
