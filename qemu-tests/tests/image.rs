//! Images, without booting: the same each time, readable by the incumbents, and bad input refused without a trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use qemu_tests::crash::{fill_disk, mkdumprd};
use qemu_tests::prelude::*;
use qemu_tests::programs::{Programs, programs};
use qemu_tests::{initramfs, provision, tools};
use tempfile::TempDir;

/// The files of a guest in a temporary folder, and an empty folder for images.
struct Bench {
    scenario: Scenario,
    programs: Programs,
    folder: TempDir,
}

impl Bench {
    fn of(suite: Suite, conf: &[&str]) -> Result<Bench> {
        provision::tools()?;
        let scenario = Scenario {
            conf: conf.iter().map(|line| (*line).to_owned()).collect(),
            ..Scenario::of(kernel(suite)?, "no run")
        };
        let bench = Bench { scenario, programs: programs()?, folder: tempfile::tempdir()? };
        fill_disk(&bench.scenario, &bench.programs, &bench.tree())?;
        fs::create_dir(bench.images())?;
        Ok(bench)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    fn command(&self, image: &Path) -> Command {
        mkdumprd(&self.scenario, &self.programs, &self.tree(), image)
    }

    fn image(&self, name: &str) -> Result<PathBuf> {
        let image = self.images().join(name);
        tools::run(&mut self.command(&image))?;
        Ok(image)
    }

    /// What the image's own tool prints about it.
    fn lsinitrd(&self, image: &Path) -> Result<String> {
        let link = self.folder.path().join("lsinitrd");
        if !link.exists() {
            std::os::unix::fs::symlink(self.programs.path("mkdumprd"), &link)?;
        }
        tools::text(Command::new(link).arg(image))
    }
}

/// Names in an image as GNU cpio sees them, with a slash in front.
fn cpio_names(image: &Path) -> Result<Vec<String>> {
    let listing = cpio(image, Path::new("/"), &["-it"])?;
    Ok(listing.lines().filter(|name| *name != ".").map(|name| format!("/{}", name.trim_start_matches('/'))).collect())
}

/// Unpacks an image with GNU cpio.
fn unpack(image: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    cpio(image, folder, &["-id", "--no-absolute-filenames"]).map(drop)
}

/// Runs GNU cpio on each archive of an image and returns all that it prints.
fn cpio(image: &Path, folder: &Path, options: &[&str]) -> Result<String> {
    let mut said = String::new();
    for archive in initramfs::archives(&fs::read(image)?)? {
        let mut file = tempfile::tempfile()?;
        file.write_all(&archive)?;
        file.rewind()?;
        said += &tools::text(tools::command("cpio").args(options).arg("--quiet").current_dir(folder).stdin(file))?;
    }
    Ok(said)
}

#[test]
fn the_same_input_gives_the_same_bytes() -> Result<()> {
    let bench = Bench::of(Suite::Own, &[])?;
    let (one, other) = (fs::read(bench.image("one")?)?, fs::read(bench.image("other")?)?);
    ensure!(one == other, "two runs differ, first at byte {:?}", one.iter().zip(&other).position(|(a, b)| a != b));
    Ok(())
}

#[test]
fn gnu_cpio_and_lsinitrd_see_the_same_files() -> Result<()> {
    let bench = Bench::of(Suite::Own, &[])?;
    let image = bench.image("image")?;
    let (names, listing) = (cpio_names(&image)?, bench.lsinitrd(&image)?);
    ensure!(names.iter().any(|name| name == "/init"), "no /init in {names:?}");
    let listed: BTreeSet<&str> = listing.split_whitespace().map(|word| word.trim_start_matches('/')).collect();
    for name in &names {
        ensure!(listed.contains(name.trim_start_matches('/')), "lsinitrd does not list {name}:\n{listing}");
    }
    let folder = bench.folder.path().join("unpacked");
    unpack(&image, &folder)?;
    let (ours, theirs) =
        (fs::read(bench.programs.path("kdump-capture"))?, fs::read(folder.join("usr/bin/kdump-capture"))?);
    ensure!(ours == theirs, "the collector in the image is not the one that was built");
    Ok(())
}

#[test]
fn modules_are_in_the_image_with_all_that_kmod_says_they_need() -> Result<()> {
    const MODULES: [&str; 5] = ["virtio_net", "virtio_scsi", "nvme", "virtio_balloon", "virtio_blk"];
    for suite in [Suite::Own, Suite::Trixie] {
        let bench = Bench::of(suite, &[&format!("extra_modules {}", MODULES.join(" "))])?;
        let folder = bench.folder.path().join("unpacked");
        unpack(&bench.image("image")?, &folder)?;
        let kernel = &bench.scenario.kernel;
        let inside = folder.join("lib/modules").join(&kernel.release);
        let (ours, theirs) = (dependencies(&inside)?, dependencies(&kernel.modules)?);
        for module in MODULES {
            for file in kernel.load_order(module)? {
                let name = unpacked_name(&file.to_string_lossy());
                let found = ours.get(&name).with_context(|| format!("{name}, for {module}, is not in the image"))?;
                ensure!(
                    theirs.get(&name) == Some(found),
                    "{name} needs {found:?} in the image, but {:?}",
                    theirs.get(&name)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn an_image_for_any_machine_has_the_drivers_of_all_network_cards_if_its_dumps_leave_the_machine() -> Result<()> {
    for suite in [Suite::Own, Suite::Trixie] {
        for (target, leaves) in [("nfs 10.0.2.2:/srv/crash", true), ("ext4 LABEL=crash", false)] {
            let bench = Bench::of(suite, &[])?;
            let conf = format!("path /var/crash\n{target}\ndracut_args --no-hostonly\n");
            fs::write(bench.tree().join("etc/kdump.conf"), conf)?;
            let plan = tools::text(bench.command(&bench.images().join("image")).arg("--plan"))?;
            let image = bench.image("image")?;
            let folder = bench.folder.path().join("unpacked");
            unpack(&image, &folder)?;
            let kernel = &bench.scenario.kernel;
            let inside = dependencies(&folder.join("lib/modules").join(&kernel.release))?;
            let text = fs::read_to_string(kernel.modules.join("modules.dep"))?;
            let files = text.lines().filter_map(|line| line.split_once(':')).map(|(file, _)| file);
            let cards: Vec<&str> = files.filter(|file| file.contains("/drivers/net/ethernet/")).collect();
            ensure!(cards.len() > 5, "{} has no drivers of network cards", kernel.release);
            for file in cards.iter().copied().chain(["vmxnet3.ko", "hv_netvsc.ko", "xen-netfront.ko"]) {
                let has = inside.contains_key(&unpacked_name(file));
                ensure!(
                    has == leaves,
                    "{target}: {file} of {} is {}in the image",
                    kernel.release,
                    if has { "" } else { "not " }
                );
            }
            for file in ["iosm.ko", "xen-netback.ko", "tun.ko", "wireguard.ko"] {
                ensure!(!inside.contains_key(file), "{file} drives no network card, and is in the image");
            }
            ensure!(inside.contains_key("nvme.ko") || inside.contains_key("virtio_blk.ko"), "no disk has its driver");
            // What is planned is what it comes to.
            let size = fs::metadata(&image)?.len().div_ceil(1024);
            let line = plan.lines().find(|line| line.ends_with(" image")).context("the plan has no size")?;
            ensure!(line.trim_start().starts_with(&format!("{size} ")), "{line:?}, and the image has {size} KiB");
        }
    }
    Ok(())
}

/// modules.dep, which tells the order of loading, without paths and without the suffix of a packed module.
fn dependencies(modules: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let path = modules.join("modules.dep");
    let text = fs::read_to_string(&path).with_context(|| format!("unable to read {}", path.display()))?;
    let line = |line: &str| {
        let (module, needs) = line.split_once(':')?;
        Some((unpacked_name(module), needs.split_whitespace().map(unpacked_name).collect()))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn unpacked_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = name.find(".ko").map_or(name.len(), |dot| dot + 3);
    name[..end].to_owned()
}

#[test]
fn an_image_is_only_overwritten_when_asked() -> Result<()> {
    let bench = Bench::of(Suite::Own, &[])?;
    let image = bench.images().join("image");
    fs::write(&image, "precious")?;
    let output = bench.command(&image).output()?;
    refused(&output, &["image", "-f"])?;
    ensure!(fs::read(&image)? == b"precious", "the file was overwritten all the same");
    tools::run(bench.command(&image).arg("-f"))?;
    ensure!(cpio_names(&image)?.iter().any(|name| name == "/init"), "-f wrote no image");
    Ok(())
}

/// What is wrong, how a right bench is spoilt, the arguments that replace the usual ones, and what must be said.
type Bad = (&'static str, fn(&Bench) -> Result<Vec<(&'static str, PathBuf)>>, &'static [&'static str]);

const BAD_INPUT: &[Bad] = &[
    ("an unknown directive", |bench| append(bench, "sing loudly\n"), &["kdump.conf:4", "sing"]),
    ("a module that does not exist", |bench| append(bench, "extra_modules nosuch\n"), &["kdump.conf:4", "nosuch"]),
    ("a program that does not exist", |bench| append(bench, "extra_bins /nosuch\n"), &["kdump.conf:4", "/nosuch"]),
    ("an unreadable configuration", |bench| Ok(vec![("--config", bench.tree())]), &["tree"]),
    ("a configuration that is not there", |bench| Ok(vec![("--config", bench.tree().join("none"))]), &["none"]),
    (
        "no such kernel",
        |_| Ok(vec![("--kver", "9.9.9".into()), ("--modules-dir", "/no/lib/modules/9.9.9".into())]),
        &["9.9.9"],
    ),
    ("no folder for the image", |bench| Ok(vec![("", bench.images().join("no/image"))]), &["no/image"]),
];

fn append(bench: &Bench, line: &str) -> Result<Vec<(&'static str, PathBuf)>> {
    let path = bench.tree().join("etc/kdump.conf");
    fs::write(&path, fs::read_to_string(&path)? + line)?;
    Ok(Vec::new())
}

#[test]
fn bad_input_is_one_clear_error_and_leaves_nothing_behind() -> Result<()> {
    for (name, spoil, expected) in BAD_INPUT {
        let bench = Bench::of(Suite::Own, &[])?;
        let instead = spoil(&bench)?;
        let mut words: Vec<_> = bench.command(&bench.images().join("image")).get_args().map(PathBuf::from).collect();
        for (option, value) in instead {
            let at =
                words.iter().position(|word| word == Path::new(option)).map_or(words.len() - 1, |option| option + 1);
            words[at] = value;
        }
        let output = Command::new(bench.programs.path("mkdumprd")).args(words).output()?;
        refused(&output, expected).with_context(|| format!("case: {name}"))?;
        let left: Vec<_> = fs::read_dir(bench.images())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        ensure!(left.is_empty(), "{name}: {left:?} is left behind");
    }
    Ok(())
}

/// Fails unless the program failed with one error that holds all the expected words.
fn refused(output: &Output, expected: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code().is_some_and(|code| code != 0), "it ended with {}: {said}", output.status);
    for words in expected {
        ensure!(said.contains(words), "the error does not say \"{words}\": {said}");
    }
    ensure!(said.trim().lines().count() == 1, "it is not one error:\n{said}");
    Ok(())
}
