//! What the administrator asks into an image besides what its target needs, in dracut's words or in ours for the same.
//!
//! In: [`Image`]. Out: entries and needs. What must be there and is not is an error with its place; what may be missing
//! is left out, and modules are told of, since a misspelt one looks like one that the kernel does not have. Modules that a
//! command line names must be there: whoever typed it is here to mend it.
//! May surprise: what is included is copied as it is, links and all; only programs that are installed bring their
//! libraries along.

use super::{drivers, programs};
use crate::config::{Image, Include, Origin};
use crate::host::Tree;
use crate::plan::Entry;
use anyhow::{Context, bail};
use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::{Index, ModuleName};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The list of modules that init loads before it asks any device.
const FIRST: &str = "etc/modules-load.d/kdump-first.conf";

/// The files.
///
/// # Errors
/// One that must be there is missing or cannot be read.
pub fn entries(image: &Image, tree: &Tree, warnings: &mut Vec<String>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for program in &image.install {
        let named = programs::gather_named(tree, &program.value, &format!("{} asks for it", program.origin));
        entries.extend(named.with_context(|| format!("{}: install", program.origin))?);
    }
    for program in &image.install_optional {
        match programs::gather_named(tree, &program.value, &format!("{} asks for it", program.origin)) {
            Ok(named) => entries.extend(named),
            Err(error) => log::debug!("{}: it is left out: {error:#}", program.origin),
        }
    }
    for include in &image.include {
        let Include { from, to } = &include.value;
        let reason = format!("{} includes it", include.origin);
        // A link is followed where it is named, and kept where it is found.
        let from = tree.resolve(from).with_context(|| format!("{}: include", include.origin))?;
        copy(&from, to, &reason, &mut entries, warnings)
            .with_context(|| format!("{}: cannot include {}", include.origin, from.display()))?;
    }
    if !image.force_drivers.is_empty() {
        let list: String = image.force_drivers.iter().map(|given| format!("{}\n", given.value)).collect();
        entries.push(Entry::file(FIRST, list.into_bytes(), "modules that are loaded before any device is asked"));
    }
    Ok(entries)
}

/// All files and directories that are included, for the list of what the image is made of.
pub fn sources(image: &Image, tree: &Tree) -> Vec<PathBuf> {
    let mut todo: Vec<PathBuf> =
        image.include.iter().filter_map(|include| tree.resolve(&include.value.from).ok()).collect();
    let mut sources = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() && !path.is_symlink() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        sources.push(path);
    }
    sources
}

/// A file or a directory of the machine at another place in the image.
fn copy(
    from: &Path,
    to: &Path,
    reason: &str,
    entries: &mut Vec<Entry>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = to.to_str().with_context(|| format!("{} is not UTF-8", to.display()))?;
    let meta = fs::symlink_metadata(from).with_context(|| format!("cannot look at {}", from.display()))?;
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        let target = fs::read_link(from).with_context(|| format!("cannot read {}", from.display()))?;
        let target = target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
        entries.push(Entry::symlink(name, target, reason));
    } else if meta.is_dir() {
        if to != Path::new("/") {
            entries.push(Entry { mode, ..Entry::directory(name, reason) });
        }
        let mut names: Vec<_> = fs::read_dir(from)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>())
            .with_context(|| format!("cannot read {}", from.display()))?;
        names.sort();
        for name in names {
            copy(&from.join(&name), &to.join(&name), reason, entries, warnings)?;
        }
    } else if meta.is_file() {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        entries.push(Entry { mode, ..Entry::file(name, bytes, reason) });
    } else {
        warnings.push(format!("{} is neither file, directory nor link, and is not included", from.display()));
    }
    Ok(())
}

/// The modules; an image for any machine has the drivers of network cards if its dumps leave the machine, by a `network`.
/// What the kernel does not have is told; no dump fails for it, unless a command line names it.
pub fn modules(
    image: &Image,
    network: bool,
    index: &Index,
    warnings: &mut Vec<String>,
    problems: &mut Vec<anyhow::Error>,
) -> Vec<ModuleNeed> {
    let lists = [&image.add_drivers, &image.force_drivers, &image.filesystems];
    let mut needs = Vec::new();
    for given in lists.into_iter().flatten() {
        let name = ModuleName::new(&given.value);
        let is_known = index.get(&name).is_some()
            || index.is_builtin(&name)
            || !index.by_alias(&given.value).is_empty()
            || index.builtin_answers(&given.value);
        if !is_known {
            let lacks = format!("{}: this kernel has no module {}", given.origin, given.value);
            match given.origin {
                Origin::Option(_) => problems.push(anyhow::anyhow!("{lacks}; take it out")),
                _ => warnings.push(format!("{lacks}; it is left out")),
            }
        }
        needs.push(ModuleNeed {
            request: given.value.clone(),
            reason: format!("{} asks for it", given.origin),
            required: false,
            by_device: false,
        });
    }
    if let Some(hostonly) = image.hostonly.as_ref().filter(|given| !given.value) {
        needs.extend(drivers::generic());
        if network {
            let cards = drivers::network(index);
            warnings.push(format!(
                "{}: {} drivers of network cards come along for any machine; what memory it takes is told as if one had all \
                 of these cards",
                hostonly.origin,
                cards.len()
            ));
            needs.extend(cards);
        }
    }
    needs
}

/// Settings that the capture kernel alone makes, as Debian's kdump-tools has them.
///
/// # Errors
/// The file cannot be read.
pub fn sysctl(file: &Path, tree: &Tree) -> anyhow::Result<Entry> {
    let bytes = tree.read(file)?;
    if bytes.len() > 1 << 16 {
        bail!("{} is too long for a list of settings", file.display());
    }
    Ok(Entry::file(kdump_hooks::sysctl::CAPTURE, bytes, "settings of the capture kernel alone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Given, Origin};
    use crate::plan::Kind;
    use std::os::unix::fs::symlink;

    fn at<T>(value: T) -> Given<T> {
        Given { value, origin: Origin::Line("kdump.conf".into(), 7) }
    }

    #[test]
    fn a_directory_is_included_with_its_links_and_modes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("opt/extra/sub");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tool"), "x").unwrap();
        fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("tool", dir.join("link")).unwrap();
        let include = Include { from: "/opt/extra".into(), to: "/etc/extra".into() };
        let image = Image { include: vec![at(include)], ..Image::default() };
        let entries = entries(&image, &Tree::new(root.path()), &mut Vec::new()).unwrap();
        let found: Vec<(&str, u32)> = entries.iter().map(|entry| (entry.path.as_str(), entry.mode & 0o777)).collect();
        let expected = [("etc/extra", 0o755), ("etc/extra/sub", 0o755), ("etc/extra/sub/link", 0o777)];
        assert_eq!(found[..3], expected);
        assert_eq!(found[3], ("etc/extra/sub/tool", 0o750));
        assert_eq!(entries[2].kind, Kind::Symlink("tool".into()));
        assert!(entries.iter().all(|entry| entry.reason == "kdump.conf:7 includes it"));
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_is_optional() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path());
        let optional = Image { install_optional: vec![at("nothing".into())], ..Image::default() };
        assert_eq!(entries(&optional, &tree, &mut Vec::new()).unwrap(), []);
        let needed = Image { install: vec![at("nothing".into())], ..Image::default() };
        let error = format!("{:#}", entries(&needed, &tree, &mut Vec::new()).unwrap_err());
        assert!(error.starts_with("kdump.conf:7: install: nothing is in none of "), "{error}");
    }
}
