//! Where patches are installed: `/var/lib/kpatch/RELEASE/*.ko`, as kpatch lays it out.
//!
//! May surprise: beside each patch that was installed here lies its checksum, `NAME.ko.sha256`, as sha256sum(1) writes
//! it. A patch that a package has put there has none, and is taken as it is. They are listed as they are to be loaded
//! ([`super::order`]). In which order they have been loaded is kept in memory.

use super::identity::Identity;
use super::order::{self, Order};
use super::patch::name_of;
use crate::kmod::ModuleName;
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where it is on every machine.
const DIRECTORY: &str = "/var/lib/kpatch";

/// In which order they were loaded since the machine was started, a name to a line.
const LOADED: &str = "/run/kpatch/loaded";

/// There if this boot has been put on the accounts of its patches, or has been finished.
const BOOT: &str = "/run/kpatch/boot";

/// The installed patches.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    loaded: PathBuf,
    boot: PathBuf,
}

/// An installed patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The kernel that it is for.
    pub release: String,
    /// Its name.
    pub name: ModuleName,
    /// Its file.
    pub file: PathBuf,
}

impl Store {
    /// The store of the machine whose root is `root`.
    pub fn below(root: &Path) -> Store {
        let place = |path: &str| root.join(path.trim_start_matches('/'));
        Store { directory: place(DIRECTORY), loaded: place(LOADED), boot: place(BOOT) }
    }

    /// The patches that have been loaded since the machine was started, the last one last.
    pub fn loaded(&self) -> Vec<ModuleName> {
        fs::read_to_string(&self.loaded).unwrap_or_default().lines().map(ModuleName::from).collect()
    }

    /// Whether the guard need not begin with this boot any more.
    pub fn boot_is_noted(&self) -> bool {
        self.boot.exists()
    }

    /// Notes that it need not.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_boot(&self) -> anyhow::Result<()> {
        write_note(&self.boot, "")
    }

    /// Notes that a patch has been loaded, after all others.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_loaded(&self, name: &ModuleName) -> anyhow::Result<()> {
        let mut all = self.loaded();
        all.retain(|other| other != name);
        all.push(name.clone());
        self.write_loaded(&all)
    }

    /// Notes that a patch has been unloaded by somebody who wanted it so.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_unloaded(&self, name: &ModuleName) -> anyhow::Result<()> {
        let mut all = self.loaded();
        let before = all.len();
        all.retain(|other| other != name);
        if all.len() == before { Ok(()) } else { self.write_loaded(&all) }
    }

    fn write_loaded(&self, all: &[ModuleName]) -> anyhow::Result<()> {
        write_note(&self.loaded, &all.iter().map(|name| format!("{name}\n")).collect::<String>())
    }

    /// Every installed patch, by kernel, in the order of loading.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all(&self) -> anyhow::Result<Vec<Installed>> {
        let mut all = Vec::new();
        let mut directories = entries(&self.directory)?;
        directories.sort();
        for directory in directories.into_iter().filter(|path| path.is_dir()) {
            let release = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            all.extend(self.of(&release)?);
        }
        Ok(all)
    }

    /// The patches that are installed for one kernel, in the order of loading.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of(&self, release: &str) -> anyhow::Result<Vec<Installed>> {
        let files = entries(&self.for_release(release)?)?;
        let order = self.order(release)?;
        let patches = files.into_iter().filter(|file| file.extension().is_some_and(|suffix| suffix == "ko"));
        let mut installed: Vec<Installed> = patches
            .map(|file| Installed { release: release.to_owned(), name: name_of(&file.to_string_lossy()), file })
            .collect();
        // Two spellings of one name are told apart by their files.
        installed.sort_by(|one, other| order.compare(&one.name, &other.name).then_with(|| one.file.cmp(&other.file)));
        Ok(installed)
    }

    /// The order in which patches were installed for one kernel.
    fn order(&self, release: &str) -> anyhow::Result<Order> {
        let file = self.order_file(release)?;
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Order::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Order::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Where that order is noted.
    pub(super) fn order_file(&self, release: &str) -> anyhow::Result<PathBuf> {
        Ok(self.for_release(release)?.join(order::FILE))
    }

    /// The patch of that name for one kernel.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    pub fn find(&self, release: &str, typed: &str) -> anyhow::Result<Installed> {
        let name = name_of(typed);
        if let Some(patch) = self.of(release)?.into_iter().find(|patch| patch.name == name) {
            return Ok(patch);
        }
        let others: Vec<String> = self.of_name(&name)?.into_iter().map(|patch| patch.release).collect();
        let others = match others.is_empty() {
            true => String::new(),
            false => format!(", but for {}", others.join(" and ")),
        };
        bail!(
            "no patch {name} is installed for kernel {release} below {}{others}; `kpatch list` names those that are",
            self.directory.display()
        )
    }

    /// The patch of that name for one kernel, or, where there is none, for the only other one that has it.
    ///
    /// # Errors
    /// There is none, or there are several, or the store cannot be read.
    pub fn find_any(&self, release: &str, typed: &str) -> anyhow::Result<Installed> {
        self.find(release, typed).or_else(|error| match <[Installed; 1]>::try_from(self.of_name(&name_of(typed))?) {
            Ok([patch]) => Ok(patch),
            Err(_) => Err(error),
        })
    }

    /// The patches of that name, for all kernels.
    fn of_name(&self, name: &ModuleName) -> anyhow::Result<Vec<Installed>> {
        Ok(self.all()?.into_iter().filter(|patch| patch.name == *name).collect())
    }

    /// Copies a patch into the store, under its file's name if that is its own, or else under the latter.
    ///
    /// # Errors
    /// It is there already, is for another kernel, its file is not called `*.ko`, or the store cannot be written to.
    pub fn install(&self, patch: &Identity, release: &str) -> anyhow::Result<Installed> {
        if patch.release != release {
            bail!(
                "{} was built for kernel {}, not for {release}; name the kernel by --kernel-version {}",
                patch.file.display(),
                patch.release,
                patch.release
            );
        }
        if patch.file.extension().is_none_or(|suffix| suffix != "ko") {
            bail!("{} is not called `*.ko`, as the file of a module is; rename it first", patch.file.display());
        }
        let directory = self.for_release(release)?;
        // A package's may lie there under another name.
        let is_it = |there: &Installed| {
            there.name == patch.name || Identity::read(&there.file).is_ok_and(|there| there.name == patch.name)
        };
        if let Some(there) = self.of(release)?.into_iter().find(is_it) {
            bail!("{} is already installed as {}; uninstall it first", patch.name, there.file.display());
        }
        let file_name = patch.file.file_name().context("the patch has no file name")?.to_string_lossy().into_owned();
        let file_name = if name_of(&file_name) == patch.name { file_name } else { format!("{}.ko", patch.name) };
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let content = fs::read(&patch.file).with_context(|| format!("cannot read {}", patch.file.display()))?;
        let checksum = format!("{}  {file_name}\n", patch.sha256);
        let mut order = self.order(release)?;
        order.append(&patch.name);
        // The patch last: one without a checksum or a place in the order would count as a package's.
        write_whole(&directory, order::FILE, order.to_text().as_bytes())?;
        write_whole(&directory, &format!("{file_name}.sha256"), checksum.as_bytes())?;
        write_whole(&directory, &file_name, &content)?;
        Ok(Installed { release: release.to_owned(), name: patch.name.clone(), file: directory.join(file_name) })
    }

    /// Whether that very file is installed, for the kernel that it is for.
    pub fn has(&self, patch: &Identity) -> bool {
        let installed = self.of(&patch.release).unwrap_or_default();
        let is_it = |there: Identity| there.name == patch.name && there.sha256 == patch.sha256;
        installed.iter().any(|there| Identity::read(&there.file).is_ok_and(is_it))
    }

    /// Removes a patch from the store.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn uninstall(&self, patch: &Installed) -> anyhow::Result<()> {
        fs::remove_file(&patch.file).with_context(|| format!("cannot remove {}", patch.file.display()))?;
        let directory = self.for_release(&patch.release)?;
        match fs::remove_file(checksum_file(&patch.file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove the checksum of {}", patch.file.display()));
            }
            _ => {}
        }
        let mut order = self.order(&patch.release)?;
        order.remove(&patch.name);
        match order.is_empty() {
            true => drop(fs::remove_file(directory.join(order::FILE))),
            false => write_whole(&directory, order::FILE, order.to_text().as_bytes())?,
        }
        // The last one takes the directory along.
        let _ = fs::remove_dir(directory);
        Ok(())
    }

    /// Whether a file is what was installed: a file of the store by the checksum beside it, and by the name under which it
    /// lies there; any other one by the checksum of the patch of its name. Where there is no checksum, it is.
    ///
    /// # Errors
    /// It has been changed since, or the checksum cannot be read.
    pub fn verify(&self, patch: &Identity) -> anyhow::Result<()> {
        let stands = self.holds(&patch.file);
        let installed = match stands {
            true => Some(patch.file.clone()),
            false => {
                let all = self.of(&patch.release)?;
                all.into_iter().find(|installed| installed.name == patch.name).map(|installed| installed.file)
            }
        };
        let Some(installed) = installed else { return Ok(()) };
        let file = checksum_file(&installed);
        let text = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let lies_as = name_of(&installed.to_string_lossy());
        if text.is_some_and(|text| text.split_whitespace().next() != Some(patch.sha256.as_str())) {
            bail!(
                "{} is not what was installed as {lies_as}: its sha256 is {}, not that in {}; it has been changed or is \
                 damaged, uninstall it and install it again",
                patch.file.display(),
                patch.sha256,
                file.display()
            );
        }
        if stands && lies_as != patch.name {
            bail!(
                "{} holds the patch {}, not {lies_as}; rename it, and its checksum, to {}.ko, or uninstall {lies_as}",
                patch.file.display(),
                patch.name,
                patch.name
            );
        }
        Ok(())
    }

    /// Whether a file lies in the store, by whatever way it was named.
    fn holds(&self, file: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let directory = file.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let store = directory.and_then(real).and_then(|directory| directory.parent().map(Path::to_owned));
        store.is_some() && store == real(&self.directory)
    }

    /// The directory for one kernel. A release names no other directory.
    fn for_release(&self, release: &str) -> anyhow::Result<PathBuf> {
        if release.is_empty() || release.starts_with('.') || release.contains('/') {
            bail!("`{release}` is not the release of a kernel");
        }
        Ok(self.directory.join(release))
    }
}

pub(super) fn checksum_file(patch: &Path) -> PathBuf {
    patch.with_extension("ko.sha256")
}

/// What is in a directory; one that is missing holds nothing.
fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    match read() {
        Ok(entries) => Ok(entries),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// Writes a file that is gone after a restart.
fn write_note(file: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        fs::write(file, text)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(directory: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let (new, file) = (directory.join(format!(".{name}.new")), directory.join(name));
    let write = || -> io::Result<()> {
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        out.write_all(content)?;
        out.sync_all()?;
        fs::rename(&new, &file)?;
        File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&new))).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::object;

    fn module(directory: &Path, file: &str, info: &[&str]) -> Identity {
        let path = directory.join(file);
        fs::write(&path, object(info)).unwrap();
        Identity::read(&path).unwrap()
    }

    const PATCH: [&str; 3] = ["name=kpatch_1", "livepatch=Y", "vermagic=6.1 SMP"];

    #[test]
    fn what_is_installed_is_listed_found_by_any_spelling_and_gone_when_uninstalled() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        assert_eq!(store.all().unwrap(), []);
        let patch = module(root.path(), "kpatch-1.ko", &PATCH);
        let installed = store.install(&patch, "6.1").unwrap();
        assert_eq!(installed.file, root.path().join("var/lib/kpatch/6.1/kpatch-1.ko"));
        assert_eq!(store.all().unwrap(), std::slice::from_ref(&installed));
        for typed in ["kpatch_1", "kpatch-1", "kpatch-1.ko", "/anywhere/kpatch-1.ko"] {
            assert_eq!(store.find("6.1", typed).unwrap(), installed);
        }
        assert!(store.install(&patch, "6.1").unwrap_err().to_string().contains("already installed"));
        store.uninstall(&installed).unwrap();
        assert!(!root.path().join("var/lib/kpatch/6.1").exists());
        assert!(store.find("6.1", "kpatch_1").unwrap_err().to_string().contains("kpatch list"));
    }

    #[test]
    fn a_patch_for_another_kernel_is_not_installed() {
        let root = tempfile::tempdir().unwrap();
        let patch = module(root.path(), "kpatch-1.ko", &PATCH);
        let error = Store::below(root.path()).install(&patch, "6.2").unwrap_err().to_string();
        assert!(error.contains("built for kernel 6.1, not for 6.2"), "{error}");
        assert!(Store::below(root.path()).install(&patch, "../6.1").is_err());
    }

    #[test]
    fn a_patch_is_stored_under_its_own_name_and_only_once() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let patch = module(root.path(), "renamed.ko", &PATCH);
        let installed = store.install(&patch, "6.1").unwrap();
        assert_eq!(installed.file, root.path().join("var/lib/kpatch/6.1/kpatch_1.ko"));
        assert_eq!(store.all().unwrap(), std::slice::from_ref(&installed));
        store.verify(&Identity::read(&installed.file).unwrap()).unwrap();
        let again = module(root.path(), "again.ko", &PATCH);
        assert!(store.install(&again, "6.1").unwrap_err().to_string().contains("already installed"));
        store.uninstall(&installed).unwrap();

        let directory = root.path().join("var/lib/kpatch/6.1");
        fs::create_dir_all(&directory).unwrap();
        fs::copy(&patch.file, directory.join("packaged.ko")).unwrap();
        let error = store.install(&again, "6.1").unwrap_err().to_string();
        assert!(error.contains("kpatch_1 is already installed as") && error.contains("packaged.ko"), "{error}");

        for name in ["hotfix", "hotfix.ko.new"] {
            let error = store.install(&module(root.path(), name, &PATCH), "6.1").unwrap_err().to_string();
            assert!(error.contains("is not called `*.ko`"), "{error}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "something is left behind");
    }

    #[test]
    fn a_changed_patch_is_noticed_and_one_of_a_package_is_taken_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let installed = store.install(&module(root.path(), "kpatch-1.ko", &PATCH), "6.1").unwrap();
        store.verify(&Identity::read(&installed.file).unwrap()).unwrap();
        let mut content = fs::read(&installed.file).unwrap();
        content.push(0);
        fs::write(&installed.file, content).unwrap();
        let changed = Identity::read(&installed.file).unwrap();
        assert!(store.verify(&changed).unwrap_err().to_string().contains("changed or is damaged"));
        fs::remove_file(checksum_file(&installed.file)).unwrap();
        store.verify(&changed).unwrap();
    }

    #[test]
    fn a_stored_file_is_held_against_the_checksum_beside_it_whatever_name_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let installed = store.install(&module(root.path(), "kpatch-1.ko", &PATCH), "6.1").unwrap();
        let refused = |file: &Path| store.verify(&Identity::read(file).unwrap()).unwrap_err().to_string();
        // Another patch has taken its place, with its checksum as it was, and without one.
        fs::write(&installed.file, object(&["name=other", "livepatch=Y", "vermagic=6.1 SMP"])).unwrap();
        assert!(refused(&installed.file).contains("is not what was installed as kpatch_1"));
        fs::remove_file(checksum_file(&installed.file)).unwrap();
        assert!(refused(&installed.file).contains("holds the patch other, not kpatch_1"));
        // By whatever way it is reached.
        let around = root.path().join("var/lib/kpatch/../kpatch/6.1/kpatch-1.ko");
        assert!(refused(&around).contains("holds the patch other"));
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("var/lib/kpatch/6.1"), &link).unwrap();
        assert!(refused(&link.join("kpatch-1.ko")).contains("holds the patch other"));
    }

    #[test]
    fn a_module_that_is_no_live_patch_is_told_from_a_file_that_is_no_module() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m.ko");
        fs::write(&path, object(&["name=m", "vermagic=6.1 SMP"])).unwrap();
        assert!(Identity::read(&path).unwrap_err().to_string().contains("but no live patch"));
        fs::write(&path, "text").unwrap();
        assert!(Identity::read(&path).unwrap_err().to_string().contains("is no kernel module"));
    }
}
