//! `lsinitrd` as it is run, over images of ours and hostile ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use kdump_builder::cpio::layout::{Header, TRAILER, padding};
use kdump_builder::cpio::write::{Packing, write};
use kdump_builder::plan::{Entry, Plan};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

fn lsinitrd(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mkdumprd")).arg0("lsinitrd").args(arguments).current_dir(dir).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// An archive of these: name, mode with the kind, content.
fn raw(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut image = Vec::new();
    let end: &[(&str, u32, &[u8])] = &[(std::str::from_utf8(TRAILER).unwrap(), 0, b"")];
    for (number, (name, mode, data)) in (1..).zip(entries.iter().chain(end)) {
        let header = Header {
            ino: number,
            mode: *mode,
            nlink: 1,
            filesize: u32::try_from(data.len()).unwrap(),
            namesize: u32::try_from(name.len() + 1).unwrap(),
            ..Header::default()
        };
        image.extend(header.encode().as_bytes());
        image.extend(name.as_bytes());
        image.push(0);
        image.resize(image.len() + padding(image.len()), 0);
        image.extend(*data);
        image.resize(image.len() + padding(image.len()), 0);
    }
    image
}

fn sample(text: &str, packing: Packing) -> Vec<u8> {
    let mut plan = Plan::default();
    plan.add(Entry::program("usr/bin/tool", vec![7; 9000], "test")).unwrap();
    plan.add(Entry::symlink("bin", "usr/bin", "test")).unwrap();
    plan.add(Entry::symlink("usr/bin/other", "/bin/tool", "test")).unwrap();
    plan.add(Entry::file("etc/text", text.into(), "test")).unwrap();
    plan.add(Entry::file("lib/modules/6.1/kernel/a.ko.xz", vec![1; 10], "test")).unwrap();
    plan.add(Entry::file("etc/kdump/manifest", b"etc/text\tsaid so\n".to_vec(), "test")).unwrap();
    let mut image = Vec::new();
    write(&plan, 0, packing, &mut image).unwrap();
    image
}

#[test]
fn bits_beyond_the_nine_are_shown_as_ls_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let modes = [0o104_755, 0o104_644, 0o102_755, 0o102_644, 0o041_777, 0o041_776];
    let entries: Vec<_> =
        ["a", "b", "c", "d", "e", "f"].into_iter().zip(modes).map(|(name, mode)| (name, mode, &b""[..])).collect();
    fs::write(dir.path().join("image"), raw(&entries)).unwrap();
    let listed = text(&lsinitrd(dir.path(), &["image"]));
    for mode in ["-rwsr-xr-x", "-rwSr--r--", "-rwxr-sr-x", "-rw-r-Sr--", "drwxrwxrwt", "drwxrwxrwT"] {
        assert_eq!(listed.lines().filter(|line| line.starts_with(mode)).count(), 1, "{mode}: {listed}");
    }
    fs::write(dir.path().join("plain"), raw(&[("a", 0o100_755, b"")])).unwrap();
    fs::write(dir.path().join("setuid"), raw(&[("a", 0o104_755, b"")])).unwrap();
    let differs = lsinitrd(dir.path(), &["--diff", "plain", "setuid"]);
    assert!(String::from_utf8_lossy(&differs.stdout).contains("-rwxr-xr-x -> -rwsr-xr-x"), "{differs:?}");
}

#[test]
fn files_are_found_through_the_links_of_the_image() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("i"), sample("hello\n", Packing::Zstd)).unwrap();
    assert_eq!(text(&lsinitrd(dir.path(), &["i", "/bin/../../etc/text", "etc/text"])), "hello\nhello\n");
    for path in ["bin/tool", "usr/bin/other", "/bin/other"] {
        assert_eq!(text(&lsinitrd(dir.path(), &["i", "-f", path])).len(), 9000, "{path}");
    }
    let error = lsinitrd(dir.path(), &["i", "-f", "bin/none"]);
    assert!(String::from_utf8_lossy(&error.stderr).contains("there is no bin/none in it"));
    fs::write(dir.path().join("circle"), raw(&[("a", 0o120_777, b"b"), ("b", 0o120_777, b"a")])).unwrap();
    assert!(!lsinitrd(dir.path(), &["circle", "a"]).status.success());
}

#[test]
fn a_list_is_sorted_by_size_when_asked_and_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("i"), sample("hello\n", Packing::Zstd)).unwrap();
    let list = text(&lsinitrd(dir.path(), &["-s", "i"]));
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[lines.len() - 4].contains("9000 usr/bin/tool"), "{list}");
    assert!(lines[lines.len() - 2].contains("part 2: ") && lines[lines.len() - 2].contains("zstd"), "{list}");
    assert!(list.contains("etc/text") && list.contains("  said so"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&text(&lsinitrd(dir.path(), &["i", "--json"]))).unwrap();
    let entries = json["entries"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["path"] == "bin").unwrap();
    assert_eq!((&found["type"], &found["target"]), (&"symlink".into(), &"usr/bin".into()));
    assert_eq!(json["parts"][1]["compression"], "zstd");
    let modules = text(&lsinitrd(dir.path(), &["-m", "i"]));
    assert!(modules.contains("10 lib/modules/6.1/kernel/a.ko.xz"), "{modules}");
}

#[test]
fn the_image_of_a_kernel_is_found_by_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let error = lsinitrd(dir.path(), &["-k", "0.0-none"]);
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("there is no image of kernel 0.0-none in any of the usual places"), "{error}");
}

#[test]
fn two_images_are_compared_by_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), sample("hello\n", Packing::Zstd)).unwrap();
    fs::write(dir.path().join("b"), sample("hello\n", Packing::None)).unwrap();
    fs::write(dir.path().join("c"), sample("good bye\n", Packing::None)).unwrap();
    assert!(text(&lsinitrd(dir.path(), &["--diff", "a", "b"])).starts_with("0 differences"));
    let differ = lsinitrd(dir.path(), &["--diff", "a", "c"]);
    assert_eq!(differ.status.code(), Some(1));
    let said = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert!(said.contains("6 -> 9 etc/text  (content)"), "{said}");
    fs::write(dir.path().join("d"), raw(&[("etc", 0o100_644, b"x"), ("new\u{7}", 0o40_755, b"")])).unwrap();
    let differ = lsinitrd(dir.path(), &["--diff", "a", "d"]);
    let said = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert!(said.contains("etc  (directory -> file)") && said.contains("new\u{fffd}") && said.contains("- "), "{said}");
}

#[test]
fn an_image_is_unpacked_as_it_was_packed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("i"), sample("hello\n", Packing::Zstd)).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    text(&lsinitrd(dir.path(), &["--unpack", "-C", "out", "i"]));
    let out = dir.path().join("out");
    assert_eq!(fs::read(out.join("etc/text")).unwrap(), b"hello\n");
    assert_eq!(fs::metadata(out.join("usr/bin/tool")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(out.join("usr/bin/other")).unwrap(), Path::new("/bin/tool"));
    let again = lsinitrd(dir.path(), &["--unpack", "-C", "out", "i"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("out is not empty"));
    fs::create_dir(dir.path().join("part")).unwrap();
    text(&lsinitrd(dir.path(), &["--unpack", "-C", "part", "i", "/usr/bin"]));
    assert!(dir.path().join("part/usr/bin/tool").exists() && !dir.path().join("part/etc").exists());
}

#[test]
fn early_parts_are_unpacked_by_their_own_word() {
    let dir = tempfile::tempdir().unwrap();
    let early = raw(&[("early_cpio", 0o100_644, b"1"), ("kernel", 0o40_755, b"")]);
    fs::write(dir.path().join("i"), [early, sample("x", Packing::Zstd)].concat()).unwrap();
    for (word, there, absent) in [("--unpackearly", "early_cpio", "etc"), ("--unpack", "etc", "early_cpio")] {
        let out = dir.path().join(word);
        fs::create_dir(&out).unwrap();
        text(&lsinitrd(&out, &[word, "../i"]));
        assert!(out.join(there).exists() && !out.join(absent).exists(), "{word}");
    }
}

#[test]
fn nothing_is_written_outside_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    fs::create_dir(top.join("outside")).unwrap();
    let outside = top.join("outside");
    let link = outside.to_str().unwrap().as_bytes();
    let file: (u32, &[u8]) = (0o100_644, b"evil");
    let images: [Vec<u8>; 5] = [
        raw(&[("../outside/a", file.0, file.1)]),
        raw(&[("x/../../outside/b", file.0, file.1)]),
        raw(&[("link", 0o120_777, link), ("link/c", file.0, file.1)]),
        raw(&[("link", 0o120_777, b"../outside"), ("link/d", file.0, file.1), ("link", 0o40_755, b"")]),
        raw(&[("d", 0o120_777, link), ("d", 0o100_644, b"over the link"), ("s", 0o104_755, b"x")]),
    ];
    for (number, image) in images.iter().enumerate() {
        let out = top.join(number.to_string());
        fs::create_dir(&out).unwrap();
        fs::write(top.join("i"), image).unwrap();
        // Whether it fails or puts the file inside does not matter.
        lsinitrd(&out, &["--unpack", "../i"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "image {number}");
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755, "image {number}");
    }
    let mode = fs::metadata(top.join("4/s")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "a set-user-ID bit is not given away");
    assert_eq!(fs::read(top.join("4/d")).unwrap(), b"over the link");
}

#[test]
fn device_nodes_are_only_made_when_asked_for_and_hard_links_stay_links() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = raw(&[("console", 0o20_600, b""), ("a", 0o100_644, b""), ("b", 0o100_644, b"both")]);
    // Two names of one file, whose content comes with the last.
    let link = |image: &mut Vec<u8>, name: &str| {
        let at = image.windows(name.len() + 1).position(|w| w == [name.as_bytes(), b"\0"].concat()).unwrap() - 110;
        image[at + 6..at + 14].copy_from_slice(b"00000009");
        image[at + 6 + 4 * 8..at + 14 + 4 * 8].copy_from_slice(b"00000002");
    };
    link(&mut image, "a");
    link(&mut image, "b");
    fs::write(dir.path().join("i"), image).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let output = lsinitrd(&dir.path().join("out"), &["--unpack", "../i"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("are left out: 1"), "{output:?}");
    let [a, b] = ["out/a", "out/b"].map(|name| fs::metadata(dir.path().join(name)).unwrap().ino());
    assert_eq!(a, b);
    assert_eq!(fs::read(dir.path().join("out/a")).unwrap(), b"both");
    assert!(!dir.path().join("out/console").exists());
}

#[test]
fn modules_are_listed_as_json_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), sample("text", Packing::Zstd)).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&text(&lsinitrd(dir.path(), &["-m", "--json", "image"]))).unwrap();
    assert_eq!(json, serde_json::json!({ "kernel": [{ "path": "lib/modules/6.1/kernel/a.ko.xz", "size": 10 }] }));
}

#[test]
fn who_has_seen_enough_of_a_list_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::default();
    for number in 0..2000 {
        plan.add(Entry::file(&format!("etc/file-{number}"), Vec::new(), "test")).unwrap();
    }
    let mut image = Vec::new();
    write(&plan, 0, Packing::None, &mut image).unwrap();
    fs::write(dir.path().join("image"), image).unwrap();
    for how in ["--json", "--size"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_mkdumprd"))
            .arg0("lsinitrd")
            .args([how, "image"])
            .current_dir(dir.path())
            .stdout(writer)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{how}: {output:?}");
    }
}

#[test]
fn files_in_a_file_system_of_the_image_are_told_of_with_what_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = libc::S_IFREG | 0o644;
    for (name, lister) in [("squash-root.img", "unsquashfs -l FILE"), ("erofs-root.img", "dump.erofs")] {
        fs::write(dir.path().join("image"), raw(&[("init", file, b"init"), (name, file, b"a file system")])).unwrap();
        let said = |arguments: &[&str]| {
            let output = lsinitrd(dir.path(), arguments);
            (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
        };
        for (arguments, good) in
            [(&["image"][..], true), (&["-m", "image"], true), (&["-f", "usr/bin/makedumpfile", "image"], false)]
        {
            let (is_good, text) = said(arguments);
            assert!(is_good == good && text.contains(&format!("-f {name} IMAGE")), "{text}");
            assert!(text.contains(lister), "{text}");
        }
        for arguments in [&["--json", "image"][..], &["-m", "--json", "image"]] {
            let json: serde_json::Value = serde_json::from_str(&said(arguments).1).unwrap();
            assert_eq!(json["inner"], serde_json::json!([name]));
        }
        assert_eq!(said(&["-f", name, "image"]), (true, "a file system".to_owned()));
    }
    fs::write(dir.path().join("image"), raw(&[("init", file, b"init")])).unwrap();
    assert!(!text(&lsinitrd(dir.path(), &["image"])).contains("unsquashfs"));
}
