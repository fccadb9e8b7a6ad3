//! The installed patches at the end of an image: an archive of its own, which the kernel unpacks over the others.
//!
//! ```text
//!   [ the image, as whoever built it ] [ NUL to 4 ] [ overlay ] [ #BOOTCONFIG, where there is one ]
//!   overlay:  directories, patches, checksums, their order │ etc/kdump/livepatch │ TRAILER!!!
//!                                                          └──── the mark, always as long: what is looked for at the end of a file
//! ```
//!
//! In: the store, the images below `/boot`. Out: images whose overlay has what is installed now; all else in them stays
//! byte by byte as it is. A new file takes the image's name in one step, once it is on the disk.
//! May surprise: an image without the mark is never touched, so that only images that were built for it grow. The kernel
//! looks for its boot configuration at the very end, and therefore it stays there.

use super::store::Store;
use crate::newc::{Header, TRAILER, padding};
use anyhow::{Context, bail};
use nix::libc::{S_IFDIR, S_IFREG};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// The entry that marks an overlay.
const MARK: &str = "etc/kdump/livepatch";
/// How long its text is.
const TEXT: usize = 160;
/// The first line of its text.
const TITLE: &str = "kdump-rs live patches 1";
/// The last bytes of an image with a boot configuration (`Documentation/admin-guide/bootconfig.rst`).
const BOOTCONFIG: &[u8] = b"#BOOTCONFIG\n";
/// No boot configuration is longer (`XBC_DATA_MAX`), padding included.
const LONGEST_BOOTCONFIG: u64 = 64 << 10;
/// Images are looked for that deep below /boot, an EFI partition among it.
const DEEPEST: usize = 4;

/// What is at the end of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel whose patches they are.
    pub release: String,
    /// Where the overlay begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// The overlay with what is installed for `release` below `root`.
///
/// # Errors
/// A patch cannot be read, or does not fit.
pub fn of_store(root: &Path, store: &Store, release: &str) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    let mut add = |file: &Path, is_needed: bool| -> anyhow::Result<()> {
        let path = file.strip_prefix(root).unwrap_or(file).to_str().context("a patch's name is not UTF-8")?;
        match fs::read(file) {
            Ok(content) => files.push((path.to_owned(), content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_needed => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
        Ok(())
    };
    for patch in store.of(release)? {
        add(&patch.file, true)?;
        add(&super::store::checksum_file(&patch.file), false)?;
    }
    add(&store.order_file(release)?, false)?;
    archive(release, &files)
}

/// An overlay with these files, each with its path in the image.
///
/// # Errors
/// Something does not fit the format.
pub fn archive(release: &str, files: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<u8>> {
    let mut directories: Vec<&str> = files
        .iter()
        .map(|(path, _)| path.as_str())
        .chain([MARK])
        .flat_map(|path| path.match_indices('/').filter_map(|(at, _)| path.get(..at)))
        .filter(|directory| !directory.is_empty())
        .collect();
    directories.sort_unstable();
    directories.dedup();
    let mut out = Vec::new();
    for directory in directories {
        entry(&mut out, S_IFDIR | 0o755, directory.as_bytes(), &[])?;
    }
    for (path, content) in files {
        entry(&mut out, S_IFREG | 0o644, path.as_bytes(), content)?;
    }
    let length = out.len() as u64 + foot(release, 0)?.len() as u64;
    out.extend(foot(release, length)?);
    Ok(out)
}

/// What the overlay of an image ends with.
fn foot(release: &str, length: u64) -> anyhow::Result<Vec<u8>> {
    let mut text = format!("{TITLE}\nlength={length:012}\nrelease={release}\n").into_bytes();
    if text.len() > TEXT || release.contains('\n') {
        bail!("`{release}` is not the release of a kernel");
    }
    text.resize(TEXT, b'\n');
    let mut out = Vec::new();
    entry(&mut out, S_IFREG | 0o644, MARK.as_bytes(), &text)?;
    entry(&mut out, 0, TRAILER, &[])?;
    Ok(out)
}

/// Adds an entry. `out` is an archive so far, at a multiple of 4.
fn entry(out: &mut Vec<u8>, mode: u32, name: &[u8], content: &[u8]) -> anyhow::Result<()> {
    let header = Header {
        ino: u32::try_from(out.len() / 4).unwrap_or_default(),
        mode,
        nlink: if mode & S_IFDIR == S_IFDIR { 2 } else { 1 },
        filesize: u32::try_from(content.len()).context("a patch is larger than 4 GiB")?,
        namesize: u32::try_from(name.len() + 1)?,
        ..Header::default()
    };
    out.extend(header.encode().bytes().chain(name.iter().copied()).chain([0]));
    out.resize(out.len() + padding(out.len()), 0);
    out.extend(content);
    out.resize(out.len() + padding(out.len()), 0);
    Ok(())
}

/// Looks for an overlay at the end of an image, and for the boot configuration behind it.
///
/// # Errors
/// The image cannot be read.
pub fn find(image: &mut (impl Read + Seek)) -> io::Result<(Option<Found>, Vec<u8>)> {
    let (end, bootconfig) = bootconfig(image)?;
    let none = (None, bootconfig.clone());
    let Ok(empty) = foot("", 0) else { return Ok(none) };
    let Some(at) = end.checked_sub(empty.len() as u64) else { return Ok(none) };
    let bytes = read_at(image, at, empty.len())?;
    let text = String::from_utf8_lossy(&bytes);
    let value = |key: &str| text.split('\n').find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let (Some(length), Some(release)) = (value("length").and_then(|word| word.parse().ok()), value("release")) else {
        return Ok(none);
    };
    let start = end.checked_sub(length).filter(|start| start % 4 == 0 && end - start >= bytes.len() as u64);
    // It is ours only if every byte is as we would have written it.
    match start {
        Some(start) if foot(release, length).is_ok_and(|foot| foot == bytes) => {
            Ok((Some(Found { release: release.to_owned(), start, end }), bootconfig))
        }
        _ => Ok(none),
    }
}

/// The boot configuration as it stands at the end of an image, and where it begins; the image's end, if there is none.
fn bootconfig(image: &mut (impl Read + Seek)) -> io::Result<(u64, Vec<u8>)> {
    let length = image.seek(SeekFrom::End(0))?;
    // Boot loaders fill an image up to a multiple of 4.
    for gap in 0..4 {
        let Some(at) = length.checked_sub(gap + BOOTCONFIG.len() as u64 + 8) else { break };
        let tail = read_at(image, at, 8 + BOOTCONFIG.len())?;
        if !tail.ends_with(BOOTCONFIG) {
            continue;
        }
        let size = tail.first_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
        let Some(start) = at.checked_sub(size).filter(|_| size <= LONGEST_BOOTCONFIG) else { break };
        return Ok((start, read_at(image, start, usize::try_from(length - gap - start).unwrap_or_default())?));
    }
    Ok((length, Vec::new()))
}

fn read_at(image: &mut (impl Read + Seek), at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    image.seek(SeekFrom::Start(at))?;
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A boot configuration that ends at a multiple of 4 when it begins at one: its text may end with NULs, which its sum
/// does not see.
fn aligned(mut bootconfig: Vec<u8>) -> Vec<u8> {
    let more = padding(bootconfig.len());
    let Some(size_at) = bootconfig.len().checked_sub(BOOTCONFIG.len() + 8).filter(|_| more > 0) else {
        return bootconfig;
    };
    let size = u32::try_from(size_at + more).unwrap_or_default();
    if let Some(field) = bootconfig.get_mut(size_at..size_at + 4) {
        field.copy_from_slice(&size.to_le_bytes());
    }
    bootconfig.splice(size_at..size_at, std::iter::repeat_n(0, more));
    bootconfig
}

/// What came of writing the overlays of all images.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The images that have been written.
    pub written: Vec<PathBuf>,
    /// Those that had what is installed already.
    pub current: Vec<PathBuf>,
    /// Those that could not be written, and why. They are what they were.
    pub failed: Vec<(PathBuf, anyhow::Error)>,
}

/// Writes the overlays of all images below `root` that have one for `release` and have not what is installed now.
///
/// # Errors
/// What is installed cannot be read.
pub fn refresh(root: &Path, store: &Store, release: &str) -> anyhow::Result<Refreshed> {
    let mut done = Refreshed::default();
    let images = images(&root.join("boot"), release);
    if images.is_empty() {
        return Ok(done);
    }
    let overlay = of_store(root, store, release)?;
    for image in images {
        match rewrite(&image, &overlay) {
            Ok(true) => done.written.push(image),
            Ok(false) => done.current.push(image),
            Err(error) => done.failed.push((image, error)),
        }
    }
    Ok(done)
}

/// The images in a directory and below it that have an overlay for `release`.
fn images(directory: &Path, release: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![(directory.to_owned(), DEEPEST)];
    while let Some((directory, depth)) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // Behind a link is the same image again, or one that is not of this place.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth > 0 => todo.push((entry.path(), depth - 1)),
                Ok(kind) if kind.is_file() => {
                    let overlay = File::open(entry.path()).and_then(|mut image| find(&mut image));
                    if overlay.is_ok_and(|(overlay, _)| overlay.is_some_and(|overlay| overlay.release == release)) {
                        found.push(entry.path());
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Puts another overlay into the place of the one that an image has; whether it was another one.
///
/// # Errors
/// The image has none, or cannot be written. It is what it was, then.
pub fn rewrite(path: &Path, overlay: &[u8]) -> anyhow::Result<bool> {
    let mut image = File::open(path)?;
    let meta = image.metadata()?;
    let (Some(found), bootconfig) = find(&mut image)? else { bail!("it has no place for live patches") };
    if found.end - found.start == overlay.len() as u64 {
        image.seek(SeekFrom::Start(found.start))?;
        let mut there = Vec::new();
        (&image).take(overlay.len() as u64).read_to_end(&mut there)?;
        if there == overlay {
            return Ok(false);
        }
    }
    image.seek(SeekFrom::Start(0))?;
    let name = path.file_name().context("it has no name")?.to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}.kpatch"));
    let write = || -> anyhow::Result<()> {
        let _ = fs::remove_file(&new);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(meta.mode() & 0o777).open(&new)?;
        // vfat has no owners.
        let _ = fchown(&out, Some(meta.uid()), Some(meta.gid()));
        let copied = io::copy(&mut image.take(found.start), &mut out)?;
        if copied != found.start {
            bail!("it has become shorter meanwhile");
        }
        out.write_all(overlay)?;
        out.write_all(&aligned(bootconfig))?;
        out.sync_all()?;
        fs::rename(&new, path)?;
        Ok(File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?)
    };
    write().map(|()| true).inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::object;
    use crate::livepatch::Identity;
    use crate::newc::HEADER;
    use proptest::prelude::*;
    use std::io::Cursor;
    use std::os::unix::fs::PermissionsExt;

    /// As `bootconfig -a` of the kernel writes it behind an image of that length.
    fn with_bootconfig(mut image: Vec<u8>, text: &str) -> Vec<u8> {
        let mut text = text.as_bytes().to_vec();
        text.push(0);
        text.resize(text.len() + padding(image.len() + text.len() + 8 + BOOTCONFIG.len()), 0);
        let sum: u32 = text.iter().map(|byte| u32::from(*byte)).sum();
        let size = u32::try_from(text.len()).unwrap();
        image.extend(text.iter().copied().chain(size.to_le_bytes()).chain(sum.to_le_bytes()));
        image.extend(BOOTCONFIG);
        image
    }

    /// What a kernel finds: the boot configuration, with its sum looked after.
    fn configured(image: &[u8]) -> Option<String> {
        let rest = image.strip_suffix(BOOTCONFIG)?;
        let (rest, sum) = rest.split_last_chunk::<4>()?;
        let (rest, size) = rest.split_last_chunk::<4>()?;
        let text = &rest[rest.len() - usize::try_from(u32::from_le_bytes(*size)).unwrap()..];
        assert_eq!(text.iter().map(|byte| u32::from(*byte)).sum::<u32>(), u32::from_le_bytes(*sum));
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }

    /// The names and sizes in an archive, as a kernel reads it.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        loop {
            let header = Header::decode(bytes.first_chunk::<HEADER>().unwrap()).unwrap();
            let end = HEADER + header.namesize as usize;
            let name = String::from_utf8(bytes[HEADER..end - 1].to_vec()).unwrap();
            let content = end + padding(end);
            let next = content + header.filesize as usize;
            bytes = &bytes[next + padding(next)..];
            if name.as_bytes() == TRAILER {
                assert!(bytes.is_empty());
                return found;
            }
            found.push((name, header.filesize));
        }
    }

    fn machine() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("boot/efi/loader")).unwrap();
        let store = Store::below(root.path());
        (root, store)
    }

    fn install(root: &Path, store: &Store, name: &str) {
        let file = root.join(format!("{name}.ko"));
        fs::write(&file, object(&[&format!("name={name}"), "livepatch=Y", "vermagic=6.1 SMP"])).unwrap();
        store.install(&Identity::read(&file).unwrap(), "6.1").unwrap();
    }

    #[test]
    fn an_image_that_has_the_mark_gets_what_is_installed_and_all_others_stay_as_they_are() {
        let (root, store) = machine();
        let (root, boot) = (root.path(), root.path().join("boot"));
        let empty = of_store(root, &store, "6.1").unwrap();
        assert_eq!(entries(&empty).last().unwrap(), &(MARK.to_owned(), 160));
        let (ours, deeper) = (boot.join("ours.img"), boot.join("efi/loader/initrd"));
        fs::write(&ours, [&b"an image, whoever made it..."[..], &empty].concat()).unwrap();
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o640)).unwrap();
        fs::copy(&ours, &deeper).unwrap();
        fs::write(boot.join("other.img"), "070701 of another builder").unwrap();
        fs::write(boot.join("other-kernel.img"), archive("6.2", &[]).unwrap()).unwrap();
        let before: Vec<Vec<u8>> =
            ["other.img", "other-kernel.img"].map(|name| fs::read(boot.join(name)).unwrap()).into();

        install(root, &store, "one");
        install(root, &store, "two");
        assert_eq!(refresh(root, &store, "6.1").unwrap().written, [deeper.clone(), ours.clone()]);
        let again = refresh(root, &store, "6.1").unwrap();
        assert_eq!((again.written.len(), again.current), (0, vec![deeper.clone(), ours.clone()]));
        let image = fs::read(&ours).unwrap();
        assert_eq!(fs::read(&deeper).unwrap(), image);
        assert_eq!(fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(&image[..28], b"an image, whoever made it...");
        let names: Vec<String> = entries(&image[28..]).into_iter().map(|(name, _)| name).collect();
        let patches = ["one.ko", "one.ko.sha256", "two.ko", "two.ko.sha256", "order"]
            .map(|name| format!("var/lib/kpatch/6.1/{name}"));
        let parents = ["etc", "etc/kdump", "var", "var/lib", "var/lib/kpatch", "var/lib/kpatch/6.1"];
        assert_eq!(names[..6], parents);
        assert_eq!(names[6..11], patches);
        let after: Vec<Vec<u8>> =
            ["other.img", "other-kernel.img"].map(|name| fs::read(boot.join(name)).unwrap()).into();
        assert_eq!(before, after);

        for name in ["one", "two"] {
            store.uninstall(&store.find("6.1", name).unwrap()).unwrap();
        }
        refresh(root, &store, "6.1").unwrap();
        assert_eq!(fs::read(&ours).unwrap(), [&b"an image, whoever made it..."[..], &empty].concat());
        assert_eq!(fs::read_dir(&boot).unwrap().count(), 4, "something is left behind");
    }

    #[test]
    fn a_boot_configuration_stays_at_the_very_end() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        for text in ["kernel.panic = 1", "a = b", "abc"] {
            let base = b"an image ...".to_vec();
            // It was put there before there was an overlay of any length, or after.
            let old = archive("6.1", &[("a".into(), vec![1; 5])]).unwrap();
            fs::write(&image, with_bootconfig([base.clone(), old].concat(), text)).unwrap();
            for files in [vec![], vec![("x".to_owned(), vec![7; 1001])]] {
                let overlay = archive("6.1", &files).unwrap();
                rewrite(&image, &overlay).unwrap();
                let bytes = fs::read(&image).unwrap();
                assert_eq!((bytes.len() % 4, configured(&bytes).as_deref()), (0, Some(text)));
                assert_eq!(&bytes[..base.len() + overlay.len()], [&base[..], &overlay].concat());
            }
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_the_image_as_it_is_and_the_others_are_written() {
        let (root, store) = machine();
        let [image, other] = ["image", "other"].map(|name| root.path().join("boot").join(name));
        fs::write(&image, "no mark").unwrap();
        assert!(rewrite(&image, &[]).unwrap_err().to_string().contains("no place for live patches"));
        let overlay = of_store(root.path(), &store, "6.1").unwrap();
        fs::write(&image, &overlay).unwrap();
        fs::write(&other, &overlay).unwrap();
        install(root.path(), &store, "one");
        // What is in the way cannot be removed.
        fs::create_dir_all(root.path().join("boot/.image.kpatch/full")).unwrap();
        let done = refresh(root.path(), &store, "6.1").unwrap();
        let failed: Vec<PathBuf> = done.failed.into_iter().map(|(image, _)| image).collect();
        assert_eq!((failed, done.written), (vec![image.clone()], vec![other]));
        assert_eq!(fs::read(&image).unwrap(), overlay);
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(
            before in proptest::collection::vec(any::<u8>(), 0..50),
            content in proptest::collection::vec(any::<u8>(), 0..600),
            release in "[0-9a-z.+-]{1,64}",
            gap in 0usize..4,
            text in proptest::option::of("[ -~]{1,30}"),
        ) {
            let mut image = before.clone();
            image.resize(image.len() + padding(image.len()), 0);
            let start = image.len() as u64;
            image.extend(archive(&release, &[("lib/a".into(), content)]).unwrap());
            let end = image.len() as u64;
            if let Some(text) = &text {
                image = with_bootconfig(image, text);
                image.resize(image.len() + gap, 0);
            }
            let (found, bootconfig) = find(&mut Cursor::new(&image)).unwrap();
            prop_assert_eq!(found, Some(Found { release, start, end }));
            prop_assert_eq!(bootconfig.is_empty(), text.is_none());
        }

        #[test]
        fn any_end_is_taken_in_peace(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), size: u32, marked: bool) {
            if marked {
                bytes.extend(size.to_le_bytes());
                bytes.extend([0; 4]);
                bytes.extend(BOOTCONFIG);
            }
            let (found, bootconfig) = find(&mut Cursor::new(&bytes)).unwrap();
            prop_assert!(found.is_none() && bootconfig.len() <= bytes.len());
        }
    }
}
