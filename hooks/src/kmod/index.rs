//! The indexes that depmod leaves in `/lib/modules/KVER`.
//!
//! In: the directory. Out: [`Index`], and back to text for an image. Of an index in two forms the binary one counts, as
//! for kmod; where it is missing or damaged, the text form takes its place. May surprise: nothing asks `modules.order`;
//! its order is in both forms already, as the priority of a value and as the order of lines.

use super::binary;
use super::names::{ModuleName, module_of_file, normalise_alias};
use super::pattern;
use anyhow::Context;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Everything depmod knows of one kernel's modules.
#[derive(Clone, Debug, Default)]
pub struct Index {
    modules: BTreeMap<ModuleName, ModuleFile>,
    aliases: Vec<(String, ModuleName)>,
    /// `symbol:NAME` and the module that exports it.
    symbols: BTreeMap<String, ModuleName>,
    softdeps: BTreeMap<ModuleName, Softdep>,
    weakdeps: BTreeMap<ModuleName, Vec<String>>,
    nodes: Vec<DeviceNode>,
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

/// A device node that is made before its module is there: opening it makes the kernel ask for the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// The module.
    pub module: ModuleName,
    /// Its path below `/dev`.
    pub path: String,
    /// Whether it is a block device.
    pub is_block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
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

/// Takes an index in its text form.
type AddText = fn(&mut Index, &str);
/// Takes the entries of a binary one.
type AddBinary = fn(&mut Index, Vec<binary::Entry>);

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
    /// Reads the indexes of one kernel from `dir`. `modules.dep` must be there in one of its forms; the others may be
    /// missing. What is damaged is named in [`Index::problems`].
    ///
    /// # Errors
    /// `modules.dep` is missing, or damaged in both forms, or a file cannot be read.
    pub fn read(dir: &Path) -> anyhow::Result<Index> {
        let mut index = Index::default();
        let found = index.read_either(dir, "modules.dep", Index::add_dep, Index::add_binary_dep)?;
        if !found {
            let dep = dir.join("modules.dep");
            anyhow::bail!("cannot read {}; `depmod` makes it", dep.display());
        }
        index.read_either(dir, "modules.alias", Index::add_aliases, Index::add_binary_aliases)?;
        index.read_either(dir, "modules.symbols", Index::add_symbols, Index::add_binary_symbols)?;
        index.read_either(dir, "modules.builtin", Index::add_builtin, Index::add_binary_builtin)?;
        let aliases = index.read_binary(&dir.join("modules.builtin.alias.bin"), Index::add_binary_builtin_aliases)?;
        if !aliases && let Some(text) = read_text(&dir.join("modules.builtin.modinfo"))? {
            index.add_builtin_modinfo(&text);
        }
        let texts: [(&str, AddText); 3] = [
            ("modules.softdep", Index::add_softdeps),
            ("modules.weakdep", Index::add_weakdeps),
            ("modules.devname", Index::add_devnames),
        ];
        for (name, add) in texts {
            if let Some(text) = read_text(&dir.join(name))? {
                add(&mut index, &text);
            }
        }
        Ok(index)
    }

    /// Reads `name` in its binary form or else as text. `false` if there is neither.
    fn read_either(&mut self, dir: &Path, name: &str, text: AddText, binary: AddBinary) -> anyhow::Result<bool> {
        if self.read_binary(&dir.join(format!("{name}.bin")), binary)? {
            return Ok(true);
        }
        let found = read_text(&dir.join(name))?;
        if let Some(found) = &found {
            text(self, found);
        }
        Ok(found.is_some())
    }

    /// Reads one binary index. `false` if it is not there or damaged.
    fn read_binary(&mut self, path: &Path, add: AddBinary) -> anyhow::Result<bool> {
        let Some(bytes) = read_optional(path)? else { return Ok(false) };
        match binary::entries(&bytes) {
            Ok(entries) => add(self, entries),
            Err(error) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                self.problems.push(format!("{name} is damaged ({error:#}); the text form is read instead"));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_binary_dep(&mut self, entries: Vec<binary::Entry>) {
        entries.iter().for_each(|entry| self.add_dep(&entry.value));
    }

    fn add_binary_aliases(&mut self, entries: Vec<binary::Entry>) {
        let aliases = entries.iter().map(|entry| (normalise_alias(&entry.key), ModuleName::new(&entry.value)));
        self.aliases.extend(aliases);
    }

    fn add_binary_symbols(&mut self, entries: Vec<binary::Entry>) {
        for entry in entries {
            self.symbols.entry(normalise_alias(&entry.key)).or_insert_with(|| ModuleName::new(&entry.value));
        }
    }

    fn add_binary_builtin(&mut self, entries: Vec<binary::Entry>) {
        self.builtin.extend(entries.iter().map(|entry| ModuleName::new(&entry.key)));
    }

    fn add_binary_builtin_aliases(&mut self, entries: Vec<binary::Entry>) {
        let aliases = entries.iter().map(|entry| (normalise_alias(&entry.key), ModuleName::new(&entry.value)));
        self.builtin_aliases.extend(aliases);
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

    /// Adds the lines of a `modules.weakdep`: `weakdep MODULE NAME …`.
    pub fn add_weakdeps(&mut self, text: &str) {
        for (number, words) in entries(text) {
            match words.as_slice() {
                ["weakdep", module, rest @ ..] => {
                    let words = rest.iter().map(|word| (*word).to_owned());
                    self.weakdeps.entry(ModuleName::new(module)).or_default().extend(words);
                }
                _ => self.problems.push(format!("modules.weakdep:{number}: `{}` is no weakdep", words.join(" "))),
            }
        }
    }

    /// Adds the lines of a `modules.symbols`: `alias symbol:NAME MODULE`.
    pub fn add_symbols(&mut self, text: &str) {
        for (number, words) in entries(text) {
            match words.as_slice() {
                ["alias", symbol, module] => {
                    self.symbols.entry(normalise_alias(symbol)).or_insert_with(|| ModuleName::new(module));
                }
                _ => self.problems.push(format!("modules.symbols:{number}: `{}` is no symbol", words.join(" "))),
            }
        }
    }

    /// Adds the lines of a `modules.devname`: `MODULE PATH [cb]MAJOR:MINOR`.
    pub fn add_devnames(&mut self, text: &str) {
        for (number, words) in entries(text) {
            match DeviceNode::parse(&words) {
                Some(node) => self.nodes.push(node),
                None => self.problems.push(format!("modules.devname:{number}: `{}` is no node", words.join(" "))),
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

    /// What is built in and answers to that name or alias.
    pub fn builtin_by(&self, request: &str) -> Vec<&ModuleName> {
        let name = ModuleName::new(request);
        if !request.contains('.')
            && let Some(name) = self.builtin.get(&name)
        {
            return vec![name];
        }
        let alias = normalise_alias(request);
        let matching = self.builtin_aliases.iter().filter(|(pattern, _)| pattern::matches(pattern, &alias));
        matching.map(|(_, module)| module).collect()
    }

    /// Whether something built in answers to that name or alias.
    pub fn builtin_answers(&self, request: &str) -> bool {
        !self.builtin_by(request).is_empty()
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

    /// The module that exports a symbol, asked for as `symbol:NAME`.
    pub fn by_symbol(&self, request: &str) -> Option<&ModuleName> {
        if request.starts_with("symbol:") { self.symbols.get(&normalise_alias(request)) } else { None }
    }

    /// Every symbol, as it is asked for, with the module that exports it.
    pub fn symbols(&self) -> impl Iterator<Item = (&str, &ModuleName)> {
        self.symbols.iter().map(|(symbol, module)| (symbol.as_str(), module))
    }

    /// Every alias pattern with its module, in the order in which modules are loaded for an alias.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &ModuleName)> {
        self.aliases.iter().map(|(pattern, module)| (pattern.as_str(), module))
    }

    /// Every alias pattern of what is built in.
    pub fn builtin_aliases(&self) -> impl Iterator<Item = (&str, &ModuleName)> {
        self.builtin_aliases.iter().map(|(pattern, module)| (pattern.as_str(), module))
    }

    /// What is built into the kernel.
    pub fn builtin(&self) -> impl Iterator<Item = &ModuleName> {
        self.builtin.iter()
    }

    /// The device nodes that are made before their modules are there.
    pub fn nodes(&self) -> &[DeviceNode] {
        &self.nodes
    }

    /// What the module may ask for later; good to have, never loaded for its sake.
    pub fn weakdep(&self, name: &ModuleName) -> &[String] {
        self.weakdeps.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The soft dependencies that the module itself declares.
    pub fn softdep(&self, name: &ModuleName) -> Option<&Softdep> {
        self.softdeps.get(name)
    }
}

impl DeviceNode {
    fn parse(words: &[&str]) -> Option<DeviceNode> {
        let [module, path, device] = words else { return None };
        let (kind, numbers) = (device.get(..1)?, device.get(1..)?);
        let (major, minor) = numbers.split_once(':')?;
        // A path leads nowhere but below /dev.
        if !matches!(kind, "b" | "c")
            || path.starts_with('/')
            || path.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return None;
        }
        Some(DeviceNode {
            module: ModuleName::new(module),
            path: (*path).to_owned(),
            is_block: kind == "b",
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

/// As `modules.devname` has it.
impl fmt::Display for DeviceNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_block { 'b' } else { 'c' };
        write!(f, "{} {} {kind}{}:{}", self.module, self.path, self.major, self.minor)
    }
}

fn read_optional(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    Ok(read_optional(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
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

    #[test]
    fn a_symbol_names_its_module_and_a_node_lies_below_dev() {
        let mut index = index();
        index.add_symbols("alias symbol:top_start top\n");
        index.add_devnames("# comment\ntop mapper/control c10:236\nmid ../etc/x c1:1\n");
        index.add_weakdeps("weakdep top mid other\n");
        assert_eq!(index.by_symbol("symbol:top_start"), Some(&ModuleName::new("top")));
        assert_eq!(index.by_symbol("top_start"), None);
        assert_eq!(index.nodes().iter().map(ToString::to_string).collect::<Vec<_>>(), ["top mapper/control c10:236"]);
        assert_eq!(index.weakdep(&"top".into()), ["mid", "other"]);
        assert!(index.problems.iter().any(|problem| problem.starts_with("modules.devname:3")), "{:?}", index.problems);
    }

    #[test]
    fn the_binary_form_counts_and_where_it_is_damaged_the_text_does() {
        use crate::kmod::binary::tests::write;
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        assert!(Index::read(dir.path()).unwrap_err().to_string().contains("depmod"));
        put("modules.dep.bin", &write(&[("top", 1, "k/top.ko: k/base.ko"), ("base", 0, "k/base.ko:")]));
        put("modules.alias.bin", &write(&[("dev:*", 9, "base"), ("dev:a*", 3, "top")]));
        put("modules.alias", b"alias dev:* nothing\n");
        put("modules.symbols.bin", &write(&[("symbol:go", 0, "top")]));
        put("modules.builtin.bin", &write(&[("ext4", 0, "")]));
        put("modules.builtin.alias.bin", &write(&[("fs-ext*", 0, "ext4")]));
        let index = Index::read(dir.path()).unwrap();
        assert!(index.problems.is_empty(), "{:?}", index.problems);
        assert_eq!(index.get(&"top".into()).unwrap().needs, ["base".into()]);
        assert_eq!(index.by_alias("dev:a"), [&ModuleName::new("top"), &ModuleName::new("base")]);
        assert!(index.builtin_answers("fs-ext3") && index.builtin_answers("ext4"));
        assert_eq!(index.by_symbol("symbol:go"), Some(&"top".into()));

        put("modules.alias.bin", b"spoilt");
        let index = Index::read(dir.path()).unwrap();
        assert_eq!(index.by_alias("dev:a"), [&ModuleName::new("nothing")]);
        assert!(index.problems[0].contains("modules.alias.bin is damaged"), "{:?}", index.problems);
    }
}
