//! The firmware that the chosen modules ask for, and drivers that are built in, as far as this machine has it.
//!
//! In: modules, each with the files that it names, and those of them that the devices of the target cannot do without.
//! Out: the files, a line for each that is missing, and a problem for each such driver of whose files there is none.
//!
//! May surprise: a module names all files that any of its devices may want, so that missing ones are the normal case; and
//! some drivers do without any. That a driver does, a machine proves that runs the same kernel with it. What the kernel
//! cannot unpack itself, or is not known to, is unpacked here.

use crate::host::kernel::Compression;
use crate::host::{Kernel, Tree};
use crate::plan::Entry;
use crate::unpack::unpack;
use anyhow::Context;
use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::{self, Index, ModuleName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

/// As distributions pack firmware, in the order in which the kernel looks.
const SUFFIXES: [(&str, Option<Compression>); 3] =
    [("", None), (".zst", Some(Compression::Zstd)), (".xz", Some(Compression::Xz))];

/// Where the kernel looks, in its order; those with a release first.
const UPDATES: &str = "/lib/firmware/updates";
const USUAL: &str = "/lib/firmware";

/// Debian's packages, by how the names of their files begin. Elsewhere it is linux-firmware or a part of it.
const PACKAGES: [(&str, &str); 11] = [
    ("bnx2/", "firmware-bnx2"),
    ("bnx2x", "firmware-bnx2x"),
    ("rtl_nic/", "firmware-realtek"),
    ("rtlwifi/", "firmware-realtek"),
    ("iwlwifi-", "firmware-iwlwifi"),
    ("ath", "firmware-atheros"),
    ("brcm/", "firmware-brcm80211"),
    ("ql2", "firmware-qlogic"),
    ("qed/", "firmware-qlogic"),
    ("netronome/", "firmware-netronome"),
    ("liquidio/", "firmware-cavium"),
];

/// Where firmware comes from.
#[derive(Debug)]
pub struct Source<'a> {
    /// The files of the machine.
    pub tree: &'a Tree,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Directories that are looked at before the usual ones; the kernel finds what is there in the usual one.
    pub others: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The files.
    pub entries: Vec<Entry>,
    /// What is not in the image, a line for each file.
    pub missing: Vec<String>,
    /// A driver that cannot do without, and has nothing.
    pub problems: Vec<anyhow::Error>,
}

impl Source<'_> {
    /// Finds the files that modules name. `needed` are the drivers that must have some of theirs, each with its reason.
    pub fn gather(
        &self,
        wanted: &BTreeMap<ModuleName, Vec<String>>,
        needed: &BTreeMap<ModuleName, String>,
    ) -> Gathered {
        let mut all = Gathered::default();
        let mut taken = BTreeSet::new();
        for (module, names) in wanted {
            let (mut found, mut missing) = (false, Vec::new());
            for name in names.iter().filter(|name| is_inside(name)) {
                if self.kernel.builtin_firmware.contains(name) {
                    found = true;
                    continue;
                }
                match self.files(name) {
                    Ok(files) if files.is_empty() => missing.push(name.as_str()),
                    Ok(files) => {
                        found = true;
                        let new = files.into_iter().filter(|(path, ..)| taken.insert(path.clone()));
                        all.entries.extend(new.map(|(path, bytes, note)| {
                            Entry::file(&path, bytes, format!("firmware of {module}{note}"))
                        }));
                    }
                    Err(error) => {
                        missing.push(name);
                        all.problems.extend(needed.contains_key(module).then_some(error));
                    }
                }
            }
            let line = |name| format!("firmware {name} of {module} is not in the image: this machine does not have it");
            all.missing.extend(missing.iter().map(line));
            if let (Some(reason), false) = (needed.get(module), found || missing.is_empty()) {
                all.problems.push(self.lacks(module, &missing, reason));
            }
        }
        all
    }

    /// The files that one name stands for, a pattern perhaps: path in the image, content, and what was done to it.
    fn files(&self, name: &str) -> anyhow::Result<Vec<(String, Vec<u8>, String)>> {
        let release = &self.kernel.release;
        let usual = [format!("{UPDATES}/{release}"), UPDATES.into(), format!("{USUAL}/{release}"), USUAL.into()];
        let others = self.others.iter().map(|dir| (dir.clone(), USUAL.to_owned()));
        let places: Vec<(String, String)> = others.chain(usual.into_iter().map(|dir| (dir.clone(), dir))).collect();
        let mut files = Vec::new();
        for name in self.names(name, &places) {
            let candidates = SUFFIXES.iter().flat_map(|packed| places.iter().map(move |place| (place, packed)));
            for ((from, to), (suffix, compression)) in candidates {
                let path = format!("{from}/{name}{suffix}");
                let Some(file) = self.tree.resolve(Path::new(&path)).ok().filter(|file| file.is_file()) else {
                    continue;
                };
                let what = || format!("cannot use the firmware {}", file.display());
                let bytes = fs::read(&file).with_context(what)?;
                files.push(match compression.filter(|packed| !self.kernel.reads_firmware.contains(packed)) {
                    None => (format!("{to}/{name}{suffix}"), bytes, String::new()),
                    Some(packed) => {
                        let note = format!("; unpacked, because the kernel is not known to unpack {packed}");
                        (format!("{to}/{name}"), unpack(&bytes, packed).with_context(what)?, note)
                    }
                });
                break;
            }
        }
        Ok(files)
    }

    /// The names that a pattern matches in its directory; one that is none stands for itself.
    fn names(&self, name: &str, places: &[(String, String)]) -> BTreeSet<String> {
        if !name.contains(['*', '?', '[']) {
            return BTreeSet::from([name.to_owned()]);
        }
        let (dir, pattern) = name.rsplit_once('/').map_or(("", name), |(dir, pattern)| (dir, pattern));
        let listed = places.iter().filter_map(|(from, _)| fs::read_dir(self.tree.path(from).join(dir)).ok());
        let plain = |name: String| {
            SUFFIXES
                .iter()
                .find_map(|(suffix, packed)| packed.and(name.strip_suffix(suffix)))
                .map(str::to_owned)
                .unwrap_or(name)
        };
        let names = listed.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok()).map(plain);
        names
            .filter(|name| kmod::matches(pattern, name))
            .map(|name| Path::new(dir).join(name).display().to_string())
            .collect()
    }

    fn lacks(&self, module: &ModuleName, names: &[&str], reason: &str) -> anyhow::Error {
        // As soon as one of them is there, another image can be built.
        for (name, suffix) in names.iter().flat_map(|name| SUFFIXES.map(|(suffix, _)| (name, suffix))) {
            self.tree.path(format!("{USUAL}/{name}{suffix}"));
        }
        let package = names
            .iter()
            .find_map(|name| PACKAGES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, package)| *package));
        let package = match package {
            Some(package) => format!("{package} (Debian) or linux-firmware"),
            None => "linux-firmware, or the distribution's part of it,".to_owned(),
        };
        anyhow::anyhow!(
            "{module} ({reason}) has no firmware: of {} there is none in {}; install {package}, name its directory \
             (`dracut_args --fwdir`, `firmware` in kdump.toml), or, if the device does without, say so: \
             --allow-missing-firmware, or `allow_missing_firmware = true` in kdump.toml",
            some(names),
            self.tree.path(USUAL).display()
        )
    }
}

/// The firmware that drivers name which are built into the kernel, of those that answer for these devices.
pub fn of_built_in(
    tree: &Tree,
    kernel: &Kernel,
    index: &Index,
    needs: &[ModuleNeed],
) -> BTreeMap<ModuleName, Vec<String>> {
    let path = kernel.modules_dir.join("modules.builtin.modinfo");
    tree.note(&path);
    // A kernel before 5.2 has no such file, and its drivers do not tell.
    let Ok(bytes) = fs::read(&path) else { return BTreeMap::new() };
    let at_work: BTreeSet<&ModuleName> =
        needs.iter().filter(|need| need.by_device).flat_map(|need| index.builtin_by(&need.request)).collect();
    let mut named: BTreeMap<ModuleName, Vec<String>> = BTreeMap::new();
    for entry in String::from_utf8_lossy(&bytes).split('\0') {
        if let Some((key, file)) = entry.split_once('=')
            && let Some(module) = key.strip_suffix(".firmware").map(ModuleName::new)
            && at_work.contains(&module)
        {
            named.entry(module).or_default().push(file.to_owned());
        }
    }
    named
}

/// Whether it is a file below the directories of firmware.
fn is_inside(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The first few of them.
fn some(names: &[&str]) -> String {
    match names {
        [one, two, three, _, rest @ ..] => format!("{one}, {two}, {three} and {} more", rest.len() + 1),
        few => few.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use std::io::Write;

    const KERNEL: (&str, &str) = ("lib/modules/6.1/modules.dep", "");

    /// What comes of modules and their files, where `needed` cannot do without.
    fn gathered(tree: &Tree, wanted: &[(&str, &[&str])], needed: &[&str]) -> Gathered {
        let kernel = Kernel::find(tree, Some("6.1"), None).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = wanted.iter().map(|(module, files)| (ModuleName::from(*module), names(files))).collect();
        let needed = needed.iter().map(|module| (ModuleName::from(*module), "driver of eno1".to_owned())).collect();
        Source { tree, kernel: &kernel, others: vec!["/opt/firmware".into()] }.gather(&wanted, &needed)
    }

    fn paths(gathered: &Gathered) -> Vec<&str> {
        gathered.entries.iter().map(|entry| entry.path.as_str()).collect()
    }

    #[test]
    fn a_file_that_is_missing_is_told_and_stops_nothing_where_another_one_is_there() {
        let (_dir, tree) = fake::tree(&[KERNEL, ("lib/firmware/bnx2x/new.fw", "new")]).unwrap();
        let all = gathered(&tree, &[("bnx2x", &["bnx2x/new.fw", "bnx2x/old.fw"])], &["bnx2x"]);
        assert_eq!(paths(&all), ["lib/firmware/bnx2x/new.fw"]);
        assert_eq!(all.missing, ["firmware bnx2x/old.fw of bnx2x is not in the image: this machine does not have it"]);
        assert!(all.problems.is_empty());
    }

    #[test]
    fn a_driver_that_is_needed_and_has_nothing_is_a_problem_with_its_package() {
        let (_dir, tree) = fake::tree(&[KERNEL, ("lib/firmware/none", "")]).unwrap();
        let wanted: [(&str, &[&str]); 3] =
            [("bnx2x", &["bnx2x/a.fw", "bnx2x/b.fw"]), ("other", &["x"]), ("plain", &["/*(DEBLOBBED)*/"])];
        assert!(gathered(&tree, &wanted, &[]).problems.is_empty());
        let all = gathered(&tree, &wanted, &["bnx2x", "plain"]);
        let [problem] = &all.problems[..] else { panic!("{:?}", all.problems) };
        let problem = problem.to_string();
        assert!(
            problem.starts_with("bnx2x (driver of eno1) has no firmware: of bnx2x/a.fw, bnx2x/b.fw there is none in ")
        );
        assert!(problem.contains("install firmware-bnx2x (Debian)") && problem.contains("--allow-missing-firmware"));
        assert_eq!(all.missing.len(), 3, "what is built here is told, and what free kernels have struck out is none");
    }

    #[test]
    fn packed_files_stay_packed_for_a_kernel_that_reads_them_and_are_unpacked_for_any_other() {
        let mut packed = xz2::write::XzEncoder::new(Vec::new(), 1);
        packed.write_all(b"firmware").unwrap();
        let packed = packed.finish().unwrap();
        for (config, path, bytes, reason) in [
            (
                "CONFIG_FW_LOADER_COMPRESS=y\nCONFIG_FW_LOADER_COMPRESS_XZ=y\n",
                "lib/firmware/a.xz",
                &packed[..],
                "firmware of m",
            ),
            (
                "",
                "lib/firmware/a",
                b"firmware",
                "firmware of m; unpacked, because the kernel is not known to unpack xz",
            ),
        ] {
            let (_dir, tree) = fake::tree(&[KERNEL, ("boot/config-6.1", config), ("lib/firmware/x", "")]).unwrap();
            fs::write(tree.path("lib/firmware/a.xz"), &packed).unwrap();
            let all = gathered(&tree, &[("m", &["a"])], &["m"]);
            assert_eq!(all.entries, [Entry::file(path, bytes.to_vec(), reason)]);
            assert!(all.problems.is_empty());
        }
    }

    #[test]
    fn a_file_that_is_damaged_is_a_problem_where_it_is_needed() {
        let (_dir, tree) = fake::tree(&[KERNEL, ("lib/firmware/a.zst", "no zstd"), ("lib/firmware/b", "b")]).unwrap();
        assert!(gathered(&tree, &[("m", &["a", "b"])], &[]).problems.is_empty());
        let all = gathered(&tree, &[("m", &["a", "b"])], &["m"]);
        assert!(format!("{:#}", all.problems[0]).contains("cannot use the firmware "), "{:?}", all.problems);
    }

    #[test]
    fn what_is_built_in_is_there_and_places_are_looked_at_in_the_kernel_s_order() {
        let files = [
            KERNEL,
            ("boot/config-6.1", "CONFIG_EXTRA_FIRMWARE=\"in/a in/b\"\n"),
            ("lib/firmware/c", "usual"),
            ("lib/firmware/updates/c", "update"),
            ("lib/firmware/6.1/d", "release"),
            ("lib/firmware/d", "usual"),
            ("opt/firmware/e", "elsewhere"),
        ];
        let (_dir, tree) = fake::tree(&files).unwrap();
        let all = gathered(&tree, &[("k", &["in/a"]), ("m", &["c", "d", "e"])], &["k", "m"]);
        assert_eq!(paths(&all), ["lib/firmware/updates/c", "lib/firmware/6.1/d", "lib/firmware/e"]);
        assert!(all.problems.is_empty() && all.missing.is_empty());
    }

    #[test]
    fn a_driver_that_is_built_in_brings_what_it_names_if_it_answers_for_a_device() {
        let modinfo = "card.alias=pci:v1*\0card.firmware=card/a.fw\0card.firmware=card/b.fw\0card.license=GPL\0\
                       other.alias=pci:v2*\0other.firmware=other.fw\0";
        let (_dir, tree) = fake::tree(&[KERNEL, ("lib/modules/6.1/modules.builtin.modinfo", modinfo)]).unwrap();
        let kernel = Kernel::find(&tree, Some("6.1"), None).unwrap();
        let mut index = Index::default();
        index.add_builtin_modinfo(modinfo);
        let need = |request: &str, by_device| ModuleNeed {
            request: request.to_owned(),
            reason: "driver of eno1".to_owned(),
            required: false,
            by_device,
        };
        let needs = [need("pci:v1d2", true), need("pci:v2d2", false)];
        let named = of_built_in(&tree, &kernel, &index, &needs);
        assert_eq!(named, BTreeMap::from([("card".into(), vec!["card/a.fw".to_owned(), "card/b.fw".to_owned()])]));
        let (_dir, older) = fake::tree(&[KERNEL]).unwrap();
        let kernel = Kernel::find(&older, Some("6.1"), None).unwrap();
        assert!(of_built_in(&older, &kernel, &index, &needs).is_empty());
    }

    #[test]
    fn a_pattern_brings_all_that_it_matches() {
        let files =
            [KERNEL, ("lib/firmware/v/f-1.bin", "1"), ("lib/firmware/v/f-2.bin", "2"), ("lib/firmware/v/g", "3")];
        let (_dir, tree) = fake::tree(&files).unwrap();
        let all = gathered(&tree, &[("m", &["v/f-*.bin", "w/*"])], &["m"]);
        assert_eq!(paths(&all), ["lib/firmware/v/f-1.bin", "lib/firmware/v/f-2.bin"]);
        assert_eq!(all.missing.len(), 1);
    }
}
