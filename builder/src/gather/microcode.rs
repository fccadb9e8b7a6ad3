//! Microcode for a normal boot: the kernel takes it out of the first, uncompressed archive, before it unpacks anything.
//!
//! In: the processor of the host, the files of its vendor below `/lib/firmware`. Out: `kernel/x86/microcode/VENDOR.bin`,
//! in which the files stand one behind the other (`Documentation/arch/x86/microcode.rst`).
//!
//! May surprise: a capture kernel gets none. The processor keeps over a kexec what it has.

use crate::host::Tree;
use crate::host::kernel::Compression;
use crate::plan::Entry;
use crate::unpack::unpack;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel looks.
const PLACE: &str = "kernel/x86/microcode";

/// What the vendors call themselves, the directory of their files, and the package that brings them.
const VENDORS: [(&str, &str, &str); 2] = [
    ("GenuineIntel", "lib/firmware/intel-ucode", "intel-microcode"),
    ("AuthenticAMD", "lib/firmware/amd-ucode", "amd64-microcode"),
];

/// The microcode of this machine's processor, or with `generic` of all processors.
///
/// # Errors
/// There is none, or a file of it cannot be read.
pub fn gather(tree: &Tree, generic: bool) -> anyhow::Result<Vec<Entry>> {
    let cpuinfo = fs::read_to_string(tree.path("proc/cpuinfo")).unwrap_or_default();
    let processor = Processor::of(&cpuinfo);
    let mut entries = Vec::new();
    for (vendor, dir, _) in VENDORS {
        let is_wanted =
            |name: &str| generic || processor.as_ref().is_some_and(|it| it.vendor == vendor && it.uses(name));
        let files: Vec<PathBuf> = names(&tree.path(dir))
            .into_iter()
            .filter(|name| is_wanted(name))
            .map(|name| Path::new(dir).join(name))
            .collect();
        let mut all = Vec::new();
        for file in &files {
            let bytes = tree
                .read(&Path::new("/").join(file))
                .with_context(|| format!("cannot read the microcode /{}", file.display()))?;
            match Compression::of(&bytes) {
                Some(compression) => {
                    all.extend(unpack(&bytes, compression).with_context(|| format!("/{}", file.display()))?)
                }
                None => all.extend(bytes),
            }
        }
        if !all.is_empty() {
            let count = if files.len() == 1 { "one file".to_owned() } else { format!("{} files", files.len()) };
            entries.push(Entry::file(&format!("{PLACE}/{vendor}.bin"), all, format!("microcode, {count} of /{dir}")));
        }
    }
    if entries.is_empty() {
        let packages = VENDORS.map(|(.., package)| package).join(" or ");
        match processor {
            Some(Processor { vendor, signature }) => bail!(
                "there is no microcode for this processor ({vendor} {signature}); install {packages}, or leave \
                 --early-microcode out: a virtual machine needs none"
            ),
            None => bail!(
                "there is no microcode, since the processor of this machine is not known; name --generic for that of all"
            ),
        }
    }
    Ok(entries)
}

/// A processor, as far as files are named after it.
#[derive(Debug, PartialEq, Eq)]
struct Processor {
    vendor: String,
    /// `06-8e-0a` of Intel's: family, model and stepping; of AMD's the family alone, `17h`.
    signature: String,
}

impl Processor {
    fn of(cpuinfo: &str) -> Option<Processor> {
        let value = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let number = |name: &str| value(name)?.parse::<u32>().ok();
        let (vendor, family) = (value("vendor_id")?, number("cpu family")?);
        let signature = match vendor.as_str() {
            "AuthenticAMD" => format!("{family:x}h"),
            _ => format!("{family:02x}-{:02x}-{:02x}", number("model")?, number("stepping")?),
        };
        Some(Processor { vendor, signature })
    }

    /// Whether a file of the vendor is for it.
    fn uses(&self, name: &str) -> bool {
        let stem = name.split('.').next().unwrap_or_default();
        match self.vendor.as_str() {
            // Before family 15h all were in one file.
            "AuthenticAMD" if stem == "microcode_amd" => self.signature.as_str() < "15h",
            "AuthenticAMD" => stem.strip_prefix("microcode_amd_fam") == Some(&self.signature),
            _ => stem == self.signature,
        }
    }
}

/// The names of the files with microcode in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_microcode = |name: &String| {
        let suffix = name.trim_end_matches(".xz").trim_end_matches(".zst");
        suffix.ends_with(".bin") || (!suffix.contains('.') && suffix.split('-').count() == 3)
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_microcode).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str =
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 142\nmodel name\t: x\nstepping\t: 10\n";
    const AMD: &str = "vendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nstepping\t: 2\n";

    fn machine(cpuinfo: &str) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("proc/cpuinfo", cpuinfo.as_bytes());
        write("lib/firmware/intel-ucode/06-8e-0a", b"kaby");
        write("lib/firmware/intel-ucode/06-8e-0b", b"whiskey");
        write("lib/firmware/amd-ucode/microcode_amd.bin", b"old");
        write("lib/firmware/amd-ucode/microcode_amd_fam17h.bin.zst", &zstd::encode_all(&b"zen"[..], 1).unwrap());
        write("lib/firmware/amd-ucode/microcode_amd_fam17h.bin.asc", b"a signature");
        let tree = Tree::new(dir.path());
        (dir, tree)
    }

    fn of(cpuinfo: &str, generic: bool) -> Vec<(String, Vec<u8>)> {
        let (_dir, tree) = machine(cpuinfo);
        let bytes = |entry: Entry| match entry.kind {
            crate::plan::Kind::File(bytes) => (entry.path, bytes),
            _ => panic!("{} is no file", entry.path),
        };
        gather(&tree, generic).unwrap().into_iter().map(bytes).collect()
    }

    #[test]
    fn a_processor_gets_its_own_and_a_generic_image_that_of_all() {
        assert_eq!(of(INTEL, false), [("kernel/x86/microcode/GenuineIntel.bin".to_owned(), b"kaby".to_vec())]);
        assert_eq!(of(AMD, false), [("kernel/x86/microcode/AuthenticAMD.bin".to_owned(), b"zen".to_vec())]);
        let all = of(INTEL, true);
        assert_eq!((all[0].1.as_slice(), all[1].1.as_slice()), (&b"kabywhiskey"[..], &b"oldzen"[..]));
    }

    #[test]
    fn a_processor_without_microcode_is_told_what_to_install() {
        let (_dir, tree) = machine(&INTEL.replace("142", "143"));
        let error = gather(&tree, false).unwrap_err().to_string();
        assert!(error.contains("GenuineIntel 06-8f-0a") && error.contains("install intel-microcode"), "{error}");
        let (_dir, tree) = machine("");
        assert!(gather(&tree, false).unwrap_err().to_string().contains("not known"));
    }
}
