//! The indexes that depmod leaves in `/lib/modules/KVER`, in their text form.

use super::names::{ModuleName, module_of_file, normalise_alias};
use super::pattern;
use anyhow::Context;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Everything depmod knows of one kernel's modules.
#[derive(Clone, Debug, Default)]
pub struct Index {
    modules: BTreeMap<ModuleName, ModuleFile>,
    aliases: Vec<(String, ModuleName)>,
    softdeps: BTreeMap<ModuleName, Softdep>,
    builtin: BTreeSet<ModuleName>,
    builtin_aliases: Vec<(String, ModuleName)>,
    /// Lines that could not be understood; they cost themselves, not the index.
    pub problems: Vec<String>,
}

/// A module that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// The module.
    pub name: ModuleName,
    /// Its file, relative to `/lib/modules/KVER`, or absolute if depmod was told so.
    pub path: String,
    /// All that it needs, in the order in which they must be loaded.
    pub needs: Vec<ModuleName>,
}

/// A module's soft dependencies: names or aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Softdep {
    /// Loaded before it.
    pub pre: Vec<String>,
    /// Loaded after it.
    pub post: Vec<String>,
    /// Words before any `pre:` or `post:`. kmod never loads them by itself, but the kernel asks for them later by
    /// alias (`softdep cifs gcm`), so an image must have them.
    pub bare: Vec<String>,
}

impl Softdep {
    /// Reads what follows the module's name in a `softdep` line.
    pub fn parse(words: &[&str]) -> Self {
        let mut softdep = Softdep::default();
        let mut list = 0;
        for word in words {
            match *word {
                "pre:" => list = 1,
                "post:" => list = 2,
                name => match list {
                    1 => softdep.pre.push(name.to_owned()),
                    2 => softdep.post.push(name.to_owned()),
                    _ => softdep.bare.push(name.to_owned()),
                },
            }
        }
        softdep
    }

    /// Adds another line for the same module. kmod follows the first line alone; what others name is only good to have.
    fn add_later_line(&mut self, other: Softdep) {
        self.bare.extend(other.bare.into_iter().chain(other.pre).chain(other.post));
    }
}

impl Index {
    /// Reads the indexes of one kernel from `dir`. `modules.dep` must be there; the others may be missing.
    ///
    /// # Errors
    /// `modules.dep` is missing or a file cannot be read.
    pub fn read(dir: &Path) -> anyhow::Result<Index> {
        let optional = |name: &str| -> anyhow::Result<String> {
            let path = dir.join(name);
            match fs::read(&path) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
                Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        };
        let dep = dir.join("modules.dep");
        let text =
            fs::read_to_string(&dep).with_context(|| format!("cannot read {}; `depmod` makes it", dep.display()))?;
        let mut index = Index::default();
        index.add_dep(&text);
        index.add_aliases(&optional("modules.alias")?);
        index.add_softdeps(&optional("modules.softdep")?);
        index.add_builtin(&optional("modules.builtin")?);
        index.add_builtin_modinfo(&optional("modules.builtin.modinfo")?);
        Ok(index)
    }

    /// Adds the lines of a `modules.dep`: `path: dependency dependency …`, the deepest dependency last.
    pub fn add_dep(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let Some((path, needs)) = line.split_once(':') else {
                self.problems.push(format!("modules.dep:{}: no colon in `{line}`", number + 1));
                continue;
            };
            let Some(name) = module_of_file(path) else {
                self.problems.push(format!("modules.dep:{}: `{path}` is not a module file", number + 1));
                continue;
            };
            let needs = needs.split_whitespace().rev().filter_map(module_of_file).collect();
            self.modules.insert(name.clone(), ModuleFile { name, path: path.to_owned(), needs });
        }
    }

    /// Adds the lines of a `modules.alias`: `alias PATTERN MODULE`.
    pub fn add_aliases(&mut self, text: &str) {
        for (number, words) in entries(text) {
            match words.as_slice() {
                ["alias", pattern, module] => {
                    self.aliases.push((normalise_alias(pattern), ModuleName::new(module)));
                }
                _ => self.problems.push(format!("modules.alias:{number}: `{}` is no alias", words.join(" "))),
            }
        }
    }

    /// Adds the lines of a `modules.softdep`: `softdep MODULE pre: … post: …`.
    pub fn add_softdeps(&mut self, text: &str) {
        for (number, words) in entries(text) {
            match words.as_slice() {
                ["softdep", module, rest @ ..] => {
                    let softdep = Softdep::parse(rest);
                    match self.softdeps.entry(ModuleName::new(module)) {
                        Entry::Vacant(entry) => drop(entry.insert(softdep)),
                        Entry::Occupied(mut entry) => entry.get_mut().add_later_line(softdep),
                    }
                }
                _ => self.problems.push(format!("modules.softdep:{number}: `{}` is no softdep", words.join(" "))),
            }
        }
    }

    /// Adds the lines of a `modules.builtin`: a path each.
    pub fn add_builtin(&mut self, text: &str) {
        self.builtin.extend(text.lines().filter_map(|line| module_of_file(line.trim())));
    }

    /// Adds a `modules.builtin.modinfo`: NUL separated `module.key=value`. Only aliases are used.
    pub fn add_builtin_modinfo(&mut self, text: &str) {
        for entry in text.split('\0') {
            if let Some((key, value)) = entry.split_once('=')
                && let Some(module) = key.strip_suffix(".alias")
            {
                self.builtin_aliases.push((normalise_alias(value), ModuleName::new(module)));
            }
        }
    }

    /// The module of that name, if it can be loaded.
    pub fn get(&self, name: &ModuleName) -> Option<&ModuleFile> {
        self.modules.get(name)
    }

    /// Every loadable module, by name.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleFile> {
        self.modules.values()
    }

    /// Whether the kernel has that module built in.
    pub fn is_builtin(&self, name: &ModuleName) -> bool {
        self.builtin.contains(name)
    }

    /// Whether something built in answers to that name or alias.
    pub fn builtin_answers(&self, request: &str) -> bool {
        let alias = normalise_alias(request);
        self.is_builtin(&ModuleName::new(request))
            || self.builtin_aliases.iter().any(|(pattern, _)| pattern::matches(pattern, &alias))
    }

    /// The modules that answer to an alias, each once, in the order of the index.
    pub fn by_alias(&self, alias: &str) -> Vec<&ModuleName> {
        let alias = normalise_alias(alias);
        let mut found: Vec<&ModuleName> = Vec::new();
        for (pattern, module) in &self.aliases {
            if !found.contains(&module) && pattern::matches(pattern, &alias) {
                found.push(module);
            }
        }
        found
    }

    /// The aliases of one module, as patterns.
    pub fn aliases_of<'a>(&'a self, name: &'a ModuleName) -> impl Iterator<Item = &'a str> {
        self.aliases.iter().filter(move |(_, module)| module == name).map(|(pattern, _)| pattern.as_str())
    }

    /// The soft dependencies that the module itself declares.
    pub fn softdep(&self, name: &ModuleName) -> Option<&Softdep> {
        self.softdeps.get(name)
    }
}

/// The lines of an index that are not blank or comments, split into words, with their numbers.
fn entries(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| (number, line.split_whitespace().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        index.add_dep(
            "kernel/a/top.ko.xz: kernel/a/mid.ko.xz kernel/a/base-x.ko.xz\nkernel/a/mid.ko.xz: kernel/a/base-x.ko.xz\n\
             kernel/a/base-x.ko.xz:\nthis line is broken\n",
        );
        index.add_aliases("# comment\nalias pci:v*d0001* top\nalias pci:v0007* mid\nalias fs-top top\n");
        index.add_softdeps("softdep top pre: crypto-x post: late\nsoftdep top gcm\n");
        index.add_builtin("kernel/fs/ext4/ext4.ko\n");
        index.add_builtin_modinfo("ext4.license=GPL\0ext4.alias=fs-ext4\0ext4.alias=fs-ext3\0");
        index
    }

    #[test]
    fn dependencies_come_in_the_order_of_loading() {
        let needs = &index().get(&"top".into()).unwrap().needs.clone();
        assert_eq!(needs, &[ModuleName::new("base_x"), ModuleName::new("mid")]);
    }

    #[test]
    fn a_broken_line_costs_itself_and_is_reported() {
        let index = index();
        assert_eq!(index.modules().count(), 3);
        assert_eq!(index.problems, ["modules.dep:4: no colon in `this line is broken`"]);
    }

    #[test]
    fn one_alias_may_name_several_modules() {
        let index = index();
        assert_eq!(index.by_alias("pci:v0007d0001x"), [&ModuleName::new("top"), &ModuleName::new("mid")]);
        assert!(index.by_alias("pci:v0008d0002x").is_empty());
    }

    #[test]
    fn softdep_words_without_a_list_are_kept_apart() {
        let index = index();
        let softdep = index.softdep(&"top".into()).unwrap();
        assert_eq!(
            (&softdep.pre[..], &softdep.post[..], &softdep.bare[..]),
            (&["crypto-x".to_owned()][..], &["late".to_owned()][..], &["gcm".to_owned()][..])
        );
    }

    #[test]
    fn what_is_built_in_answers_by_name_and_by_alias() {
        let index = index();
        assert!(index.builtin_answers("ext4"));
        assert!(index.builtin_answers("fs-ext3"));
        assert!(!index.builtin_answers("fs-xfs"));
    }
}
