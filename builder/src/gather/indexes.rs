//! depmod's indexes for the modules of an image: what concerns them, as text.
//!
//! In: the kernel's indexes, the chosen modules. Out: files below `/lib/modules/RELEASE`. May surprise: only the text
//! forms are written. The binary ones exist so that a search need not read them whole; of the few dozen modules that are
//! left of thousands, text is read in no time, is the smaller one (35 KB for the 26 modules of a usual image, where
//! depmod's binary files are 46 KB), and people can read it too. A module that was decompressed has lost its suffix, so
//! `modules.dep` has the names that the image has.

use super::modules::Chosen;
use crate::plan::Entry;
use kdump_hooks::kmod::{Index, ModuleName, Softdep};
use std::collections::BTreeMap;

/// The indexes as entries below `into`.
pub fn gather(index: &Index, into: &str, chosen: &BTreeMap<ModuleName, Chosen>) -> Vec<Entry> {
    let entry =
        |name: &str, text: String, reason: &str| Entry::file(&format!("{into}/{name}"), text.into_bytes(), reason);
    let aliases = index.aliases().filter(|(_, module)| chosen.contains_key(module));
    let symbols = index.symbols().filter(|(_, module)| chosen.contains_key(module));
    let nodes = index.nodes().iter().filter(|node| chosen.contains_key(&node.module) || index.is_builtin(&node.module));
    let softdeps =
        chosen.keys().filter_map(|module| index.softdep(module).map(|softdep| softdep_line(module, softdep)));
    let line = |(alias, module): (&str, &ModuleName)| format!("alias {alias} {module}\n");
    // Only aliases are looked up at boot; licences and authors stay out.
    let builtin_aliases = index.builtin_aliases().map(|(alias, module)| format!("{module}.alias={alias}\0"));
    vec![
        entry("modules.dep", dependencies(index, chosen), "which module needs which"),
        entry("modules.alias", aliases.map(line).collect(), "which module a device asks for"),
        entry("modules.symbols", symbols.map(line).collect(), "which module has a symbol that a driver asks for"),
        entry("modules.softdep", softdeps.collect(), "which module goes before which"),
        entry("modules.devname", nodes.map(|node| format!("{node}\n")).collect(), "nodes that ask for their module"),
        entry("modules.builtin", index.builtin().map(|name| format!("{name}.ko\n")).collect(), "what needs no loading"),
        entry("modules.builtin.modinfo", builtin_aliases.collect(), "aliases of what needs no loading"),
    ]
}

fn dependencies(index: &Index, chosen: &BTreeMap<ModuleName, Chosen>) -> String {
    let mut out = String::new();
    for (name, module) in chosen {
        out.extend([module.index_path.as_str(), ":"]);
        let needs = index.get(name).map(|file| file.needs.as_slice()).unwrap_or_default();
        // The deepest dependency stands last.
        for need in needs.iter().rev().filter_map(|need| chosen.get(need)) {
            out.extend([" ", need.index_path.as_str()]);
        }
        out.push('\n');
    }
    out
}

fn softdep_line(module: &ModuleName, softdep: &Softdep) -> String {
    let mut line = format!("softdep {module}");
    let lists = [("", &softdep.bare), (" pre:", &softdep.pre), (" post:", &softdep.post)];
    for (word, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        line.push_str(word);
        names.iter().for_each(|name| line.extend([" ", name]));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn chosen(names: &[&str]) -> BTreeMap<ModuleName, Chosen> {
        let module = |name: &str| Chosen {
            index_path: format!("kernel/{name}.ko"),
            entry: Entry::file(&format!("lib/modules/6.1/kernel/{name}.ko"), Vec::new(), "a test"),
            firmware: Vec::new(),
            verdict: None,
        };
        names.iter().map(|name| ((*name).into(), module(name))).collect()
    }

    #[test]
    fn what_is_written_is_read_back_less_what_the_image_lacks() {
        let mut index = Index::default();
        index.add_dep("kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz\nkernel/b.ko.xz: kernel/c.ko.xz\nkernel/c.ko.xz:\nkernel/d.ko.xz:\n");
        index.add_aliases("alias dev:a* d\nalias dev:* a\nalias dev:[0-9] c\n");
        index.add_symbols("alias symbol:go b\nalias symbol:stop d\n");
        index.add_softdeps("softdep a late pre: x y post: z\nsoftdep d pre: c\n");
        index.add_devnames("a mapper/control c10:236\nd d c1:1\n");
        index.add_builtin("kernel/e-f.ko\n");
        index.add_builtin_modinfo("e_f.license=GPL\0e_f.alias=fs-e\0");
        let dir = tempfile::tempdir().unwrap();
        for entry in gather(&index, "m", &chosen(&["a", "b", "c"])) {
            let crate::plan::Kind::File(bytes) = entry.kind else { panic!("{} is no file", entry.path) };
            fs::write(dir.path().join(entry.path.trim_start_matches("m/")), bytes).unwrap();
        }
        let read = Index::read(dir.path()).unwrap();
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        assert_eq!(read.get(&"a".into()).unwrap().needs, ["c".into(), "b".into()]);
        assert_eq!(read.get(&"d".into()), None);
        let aliases: Vec<_> = read.aliases().map(|(alias, module)| format!("{alias} {module}")).collect();
        assert_eq!(aliases, ["dev:* a", "dev:[0-9] c"]);
        assert_eq!(read.by_symbol("symbol:go"), Some(&"b".into()));
        assert_eq!(read.by_symbol("symbol:stop"), None);
        assert_eq!(read.softdep(&"a".into()), index.softdep(&"a".into()));
        assert_eq!(read.nodes().len(), 1);
        assert!(read.builtin_answers("e-f") && read.builtin_answers("fs-e"));
    }
}
