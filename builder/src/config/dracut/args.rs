//! `dracut_args`: dracut's command line.
//!
//! In: words as xargs splits them: blanks, quotes of both kinds, and a backslash outside of them. Out: [`Asked`].

use super::super::words::nearest;
use super::{Asked, Word, include, mount};
use crate::config::{Complaints, Given, Origin};
use anyhow::{Context, bail};

/// What an option of dracut's is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Nothing.
    Alone(Word),
    /// Nothing, and it stands for this value.
    Means(Word, &'static str),
    /// A value.
    Takes(Word),
    /// Two operands.
    Include,
    /// The description of a target.
    Mount,
}

use Does::{Alone, Means, Takes};
use Word::{Moot, Refused};

const LOGS: &str = "what is told goes to stderr; mkdumprd -v tells more";
const NOT_STRIPPED: &str = "programs and modules stay as the distribution made them";
const NO_SQUASH: &str = "the image has no second file system in it";
const LASTING: &str = "devices are always named by what lasts";
const NORMAL_ONLY: &str = "only an image for a normal boot (mkdumprd --normal) has that";
const NO_FSCK: &str = "file systems are not checked in the image";
const KVER: &str = "is not followed: the kernel is the one that KDUMP_KERNELVER names; write that";
const UEFI: &str = "is not followed: an image is loaded by kexec, which takes no UEFI program; take it out";
const OTHER_CONF: &str =
    "is not followed: dracut.conf is read from where it usually is; put the words there, or into dracut_args";
const FSTAB: &str = "is not followed: only the target is mounted; name that";
const ONLY: &str = "is not followed: an image has what its target needs; use --add-drivers and --omit-drivers";

/// Long name, short name, and what it does.
const OPTIONS: &[(&str, &str, Does)] = &[
    ("add-drivers", "", Takes(Word::AddDrivers)),
    ("force-drivers", "", Takes(Word::ForceDrivers)),
    ("omit-drivers", "", Takes(Word::OmitDrivers)),
    ("filesystems", "", Takes(Word::Filesystems)),
    ("install", "I", Takes(Word::Install)),
    ("install-optional", "", Takes(Word::InstallOptional)),
    ("include", "i", Does::Include),
    ("fwdir", "", Takes(Word::Firmware)),
    ("mount", "", Does::Mount),
    ("add", "a", Takes(Word::AddModules)),
    ("force-add", "", Takes(Word::AddModules)),
    ("omit", "o", Takes(Word::OmitModules)),
    ("kernel-cmdline", "", Takes(Word::KernelCmdline)),
    ("sshkey", "", Takes(Word::SshKey)),
    ("compress", "", Takes(Word::Compress)),
    ("no-compress", "", Means(Word::Compress, "none")),
    ("gzip", "", Means(Word::Compress, "gzip")),
    ("bzip2", "", Means(Word::Compress, "bzip2")),
    ("lzma", "", Means(Word::Compress, "lzma")),
    ("xz", "", Means(Word::Compress, "xz")),
    ("lzo", "", Means(Word::Compress, "lzo")),
    ("lz4", "", Means(Word::Compress, "lz4")),
    ("zstd", "", Means(Word::Compress, "zstd")),
    ("hostonly", "H", Means(Word::Hostonly, "yes")),
    ("no-hostonly", "N", Means(Word::Hostonly, "no")),
    ("compress-level", "", Takes(Moot("a level that suits the capture kernel is always used"))),
    ("squash-compressor", "", Takes(Moot(NO_SQUASH))),
    ("hostonly-mode", "", Takes(Moot("an image has what its target needs, which is the strictest mode"))),
    ("hostonly-cmdline", "", Alone(Moot("what the target needs is written into the image, not on a command line"))),
    ("no-hostonly-cmdline", "", Alone(Moot("no command line is written into the image"))),
    ("no-hostonly-default-device", "", Alone(Moot("only the target's devices count"))),
    ("hostonly-i18n", "", Alone(Moot("init speaks one language"))),
    ("no-hostonly-i18n", "", Alone(Moot("init speaks one language"))),
    ("hostonly-nics", "", Takes(Moot("the card on the way to the target is found by itself"))),
    ("persistent-policy", "", Takes(Moot(LASTING))),
    ("strip", "", Alone(Moot(NOT_STRIPPED))),
    ("nostrip", "", Alone(Moot(NOT_STRIPPED))),
    ("aggressive-strip", "", Alone(Moot(NOT_STRIPPED))),
    ("hardlink", "", Alone(Moot("every file is in the image once"))),
    ("nohardlink", "", Alone(Moot("every file is in the image once"))),
    ("reproducible", "", Alone(Moot("every image is"))),
    ("no-reproducible", "", Alone(Moot("every image is reproducible"))),
    ("enhanced-cpio", "", Alone(Moot("the image is written by a writer of its own"))),
    ("early-microcode", "", Alone(Moot(NORMAL_ONLY))),
    ("no-early-microcode", "", Alone(Moot("there is none in an image for dumps"))),
    ("ro-mnt", "", Alone(Moot("only the target is mounted, and it is written to"))),
    ("mdadmconf", "", Alone(Moot("a RAID is put together as it is on this machine"))),
    ("nomdadmconf", "", Alone(Moot("a RAID is put together as it is on this machine"))),
    ("lvmconf", "", Alone(Moot("volumes are put together without lvm.conf"))),
    ("nolvmconf", "", Alone(Moot("volumes are put together without lvm.conf"))),
    ("fscks", "", Takes(Moot(NO_FSCK))),
    ("nofscks", "", Alone(Moot(NO_FSCK))),
    ("debug", "", Alone(Moot(LOGS))),
    ("verbose", "v", Alone(Moot(LOGS))),
    ("quiet", "q", Alone(Moot(LOGS))),
    ("stdlog", "L", Takes(Moot(LOGS))),
    ("logfile", "", Takes(Moot(LOGS))),
    ("printsize", "", Alone(Moot("lsinitrd tells sizes"))),
    ("show-modules", "M", Alone(Moot("lsinitrd tells what is in the image"))),
    ("loginstall", "", Takes(Moot("lsinitrd tells what is in the image"))),
    ("profile", "", Alone(Moot("there is nothing to profile"))),
    ("keep", "", Alone(Moot("nothing temporary is made"))),
    ("tmpdir", "", Takes(Moot("nothing temporary is made"))),
    ("parallel", "p", Alone(Moot("one image is built"))),
    ("force", "f", Alone(Moot("when an image is built again is said by force_rebuild"))),
    ("noimageifnotneeded", "", Alone(Moot("a dump needs an image"))),
    ("fips", "", Alone(Refused("is not followed: no self-test of FIPS runs in the image; take it out"))),
    ("drivers", "d", Takes(Refused(ONLY))),
    ("modules", "m", Takes(Refused("is not followed: the image has none of dracut's modules; take it out"))),
    ("kver", "", Takes(Refused(KVER))),
    ("kmoddir", "k", Takes(Refused("is not followed: write mkdumprd --modules-dir"))),
    ("sysroot", "r", Takes(Refused("is not followed: write mkdumprd --sysroot"))),
    ("conf", "c", Takes(Refused(OTHER_CONF))),
    ("confdir", "", Takes(Refused(OTHER_CONF))),
    ("add-confdir", "", Takes(Refused(OTHER_CONF))),
    ("libdirs", "", Takes(Refused("is not followed: libraries are found as the loader finds them; take it out"))),
    ("fstab", "", Alone(Refused(FSTAB))),
    ("add-fstab", "", Takes(Refused(FSTAB))),
    ("add-device", "", Takes(Refused("is not followed: only the target's devices count; name the target"))),
    ("device", "", Takes(Refused("is not followed: only the target's devices count; name the target"))),
    ("remove", "", Takes(Refused("is not followed: nothing is in the image that can be spared; take it out"))),
    ("prefix", "", Takes(Refused("is not followed: files are where they are on this machine; use --include"))),
    ("rebuild", "", Takes(Refused("is not followed: the image is built of the configuration; take it out"))),
    ("regenerate-all", "", Alone(Refused("is not followed: one image is built; take it out"))),
    ("kernel-only", "", Alone(Refused("is not followed: an image needs its init; take it out"))),
    ("no-kernel", "", Alone(Refused("is not followed: an image needs the target's modules; take it out"))),
    ("local", "l", Alone(Refused("is not followed: the image has none of dracut's modules; take it out"))),
    ("list-modules", "", Alone(Refused("builds no image; take it out"))),
    ("print-cmdline", "", Alone(Refused("builds no image; take it out"))),
    ("printconfig", "", Alone(Refused("builds no image; take it out"))),
    ("help", "h", Alone(Refused("builds no image; take it out"))),
    ("version", "", Alone(Refused("builds no image; take it out"))),
    ("uefi", "", Alone(Refused(UEFI))),
    ("no-uefi", "", Alone(Moot("none is made"))),
    ("no-ukify", "", Alone(Moot("none is made"))),
    ("no-machineid", "", Alone(Moot("no machine-id is in the image"))),
    ("hostonly-default-device", "", Alone(Moot("only the target's devices count"))),
    ("uefi-stub", "", Takes(Refused(UEFI))),
    ("uefi-splash-image", "", Takes(Refused(UEFI))),
    ("kernel-image", "", Takes(Refused(UEFI))),
    ("ukify", "", Alone(Refused(UEFI))),
    ("sbat", "", Takes(Refused(UEFI))),
];

/// Those that are followed, but for compressors that no image is packed with.
#[cfg(test)]
pub(super) fn followed() -> Vec<&'static str> {
    let is_followed = |does: &Does| match does {
        Does::Include | Does::Mount => true,
        Means(Word::Compress, codec) => super::packing(codec).is_ok(),
        Alone(word) | Takes(word) | Means(word, _) => word.is_followed(),
    };
    OPTIONS.iter().filter(|(.., does)| is_followed(does)).map(|(long, ..)| *long).collect()
}

/// How many operands an option has, as it is written on a command line; nothing if there is no such option.
pub(super) fn operands(option: &str) -> Option<usize> {
    let is_it = |(long, short, _): &&(&str, &str, Does)| match option.strip_prefix("--") {
        Some(name) => *long == name,
        None => option.strip_prefix('-').is_some_and(|name| !name.is_empty() && *short == name),
    };
    OPTIONS.iter().find(is_it).map(|(.., does)| match does {
        Alone(_) | Means(..) => 0,
        Takes(_) | Does::Mount => 1,
        Does::Include => 2,
    })
}

/// Follows all of a line.
pub(super) fn follow(asked: &mut Asked, line: &str, place: &Origin, complaints: &mut Complaints) -> anyhow::Result<()> {
    follow_words(asked, split(line)?, Some(place), complaints)
}

/// Follows all words. Without a `place`, each option is its own.
pub(super) fn follow_words(
    asked: &mut Asked,
    words: Vec<String>,
    place: Option<&Origin>,
    complaints: &mut Complaints,
) -> anyhow::Result<()> {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, attached) = match word.strip_prefix("--") {
            Some(long) => long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned()))),
            None => match word.strip_prefix('-').filter(|short| !short.is_empty()) {
                Some(short) => {
                    let end = short.chars().next().map_or(0, char::len_utf8);
                    let (name, value) = short.split_at(end);
                    (name, Some(value.to_owned()).filter(|value| !value.is_empty()))
                }
                None => bail!("`{word}` is no option: mkdumprd itself knows image and kernel; take it out"),
            },
        };
        let is_long = word.starts_with("--");
        let found = OPTIONS.iter().find(|(long, short, _)| if is_long { *long == name } else { *short == name });
        let Some((_, _, does)) = found else {
            let near = if is_long { nearest(name, OPTIONS.iter().map(|(long, ..)| *long)) } else { None };
            match near {
                Some(near) => bail!("dracut has no option `{word}`; was --{near} meant?"),
                None => bail!("dracut has no option `{word}`; take it out"),
            }
        };
        let shown = if is_long { format!("--{name}") } else { format!("-{name}") };
        let place = &place.cloned().unwrap_or_else(|| Origin::Option(shown.clone()));
        let mut value = || attached.clone().or_else(|| words.next()).with_context(|| format!("{shown} has no value"));
        let done = match does {
            Alone(Refused(instead)) => bail!("{shown} {instead}"),
            Takes(Refused(instead)) => bail!("{shown} {instead}"),
            Alone(Moot(why)) => {
                complaints.note(place, format!("{shown}: {why}"));
                Ok(())
            }
            Takes(Moot(why)) => {
                value()?;
                complaints.note(place, format!("{shown}: {why}"));
                Ok(())
            }
            Alone(word) => asked.follow(*word, "", place, true, complaints),
            Means(word, value) => asked.follow(*word, value, place, true, complaints),
            Takes(word) => asked.follow(*word, &value()?, place, true, complaints),
            Does::Include => {
                let from = value()?;
                let to = words.next().with_context(|| format!("{shown} needs two paths"))?;
                asked.image.include.push(Given::at(include(&from, &to)?, place));
                Ok(())
            }
            Does::Mount if asked.target.is_some() => bail!("{shown} is there twice; keep one of the two"),
            Does::Mount => mount(&value()?).map(|target| asked.target = Some(Given::at(target, place))),
        };
        done.with_context(|| shown.clone())?;
    }
    Ok(())
}

/// Words as xargs makes them.
fn split(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            quote @ ('"' | '\'') => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(c) if c == quote => break,
                        Some(c) => word.push(c),
                        None => bail!("a {quote} is never closed"),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TargetLine;
    use crate::cpio::write::Packing;
    use proptest::prelude::*;
    use std::path::Path;

    fn place() -> Origin {
        Origin::Line("kdump.conf".into(), 3)
    }

    fn asked(line: &str) -> anyhow::Result<(Asked, Complaints)> {
        let (mut asked, mut complaints) = (Asked::default(), Complaints::default());
        follow(&mut asked, line, &place(), &mut complaints)?;
        Ok((asked, complaints))
    }

    fn values<T: Clone>(list: &[Given<T>]) -> Vec<T> {
        list.iter().map(|given| given.value.clone()).collect()
    }

    #[test]
    fn what_dracut_would_put_into_the_image_is_asked_of_ours() {
        let (asked, complaints) = asked(
            "--omit-drivers \"cfg80211 snd\" --add-drivers 'ext2 ext3' --force-drivers=vfio_pci --filesystems xfs \
             --install \"/usr/bin/lspci ip\" -I /bin/a --install-optional /bin/b --include /etc/x /etc/y \
             --fwdir /opt/fw:/opt/fw2 --kernel-cmdline 'a=1 b' --kernel-cmdline c --sshkey /root/k --no-compress \
             --no-hostonly -o watchdog",
        )
        .unwrap();
        let image = asked.image;
        assert_eq!(values(&image.omit_drivers), ["cfg80211", "snd"]);
        assert_eq!(values(&image.add_drivers), ["ext2", "ext3"]);
        assert_eq!(values(&image.force_drivers), ["vfio_pci"]);
        assert_eq!(values(&image.filesystems), ["xfs"]);
        assert_eq!(values(&image.install), ["/usr/bin/lspci", "ip", "/bin/a"].map(std::path::PathBuf::from));
        assert_eq!(image.install_optional[0].value, Path::new("/bin/b"));
        assert_eq!(
            (image.include[0].value.from.as_path(), image.include[0].value.to.as_path()),
            (Path::new("/etc/x"), Path::new("/etc/y"))
        );
        assert_eq!(values(&image.firmware), ["/opt/fw", "/opt/fw2"].map(std::path::PathBuf::from));
        assert_eq!(asked.kernel_cmdline.unwrap().value, "a=1 b c");
        assert_eq!(asked.sshkey.unwrap().value, Path::new("/root/k"));
        assert_eq!(image.compress.unwrap().value, Packing::None);
        assert_eq!((image.hostonly.unwrap().value, image.watchdog.unwrap().value), (false, false));
        assert!(complaints.notes.is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
    }

    #[test]
    fn a_mount_is_the_target() {
        let target = |line: &str| asked(line).unwrap().0.target.unwrap().value;
        let nfs = target("--mount \"nas:/srv/crash /kdumproot nfs4 defaults,vers=4.2\"");
        assert!(matches!(&nfs.line, TargetLine::Nfs(nfs) if nfs.export == "/srv/crash"));
        assert_eq!(nfs.options, ["vers=4.2"]);
        let ext4 = target("--mount='UUID=12 /mnt ext4 noatime'");
        assert!(matches!(&ext4.line, TargetLine::Filesystem { fstype, .. } if fstype == "ext4"));
        let cifs = target("--mount \"//files/crash /mnt cifs credentials=/etc/c,vers=3.0\"");
        assert!(
            matches!(&cifs.line, TargetLine::Cifs(cifs) if cifs.credentials.as_deref() == Some(Path::new("/etc/c")))
        );
        assert_eq!(cifs.options, ["vers=3.0"]);
        assert_eq!(target("--mount \"tag /mnt virtiofs\"").line, TargetLine::Virtiofs("tag".into()));
    }

    #[test]
    fn what_is_there_by_itself_is_a_note_and_what_cannot_be_is_an_error() {
        let (_, complaints) =
            asked("--add \"lvm nfs\" -a network -v --hostonly-mode strict --early-microcode").unwrap();
        assert_eq!(complaints.notes.len(), 6, "{:?}", complaints.notes);
        for (line, message) in [
            ("--add fips", "--add: dracut's module `fips` is not supported"),
            ("--add mymodule", "--add: dracut's module `mymodule` is not known here; name the modules and programs"),
            ("--omit-driver x", "dracut has no option `--omit-driver`; was --omit-drivers meant?"),
            ("--wibble", "dracut has no option `--wibble`; take it out"),
            ("-X", "dracut has no option `-X`; take it out"),
            ("image.img", "`image.img` is no option: mkdumprd itself knows image and kernel; take it out"),
            ("--add-drivers", "--add-drivers has no value"),
            ("--add-drivers =drivers/net", "--add-drivers: `=drivers/net` names modules by a directory or a pattern"),
            ("--kver 6.1", "--kver is not followed: the kernel is the one that KDUMP_KERNELVER names; write that"),
            ("--uefi", "--uefi is not followed"),
            ("--lzo", "--lzo: an image is not packed with `lzo` here; there are none, "),
            ("--install 'x", "a ' is never closed"),
            ("--include /a", "--include needs two paths"),
            (
                "--mount \"a\"",
                "--mount: `a` does not describe a target; write --mount \"DEVICE MOUNTPOINT TYPE OPTIONS\"",
            ),
            ("--mount \"a:/b /c nfs\" --mount \"a:/b /c nfs\"", "--mount is there twice; keep one of the two"),
        ] {
            let error = format!("{:#}", asked(line).unwrap_err());
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }

    #[test]
    fn every_option_changes_something_or_says_why_not() {
        for (long, short, does) in OPTIONS {
            let value = match does {
                Takes(Word::AddModules) => "lvm",
                Takes(Word::OmitModules) => "watchdog",
                Takes(Word::Compress) => "zstd",
                Does::Include => "/a /b",
                Does::Mount => "'h:/x /m nfs'",
                Takes(Word::AddDrivers | Word::ForceDrivers | Word::OmitDrivers | Word::Filesystems) => "a",
                Takes(_) => "/a",
                Alone(_) | Means(..) => "",
            };
            let mut spellings = vec![format!("--{long} {value}")];
            if !short.is_empty() {
                spellings.push(format!("-{short} {value}"));
            }
            for line in spellings {
                let word = line.split(' ').next().unwrap();
                match asked(&line) {
                    Ok((asked, complaints)) => {
                        assert!(asked != Asked::default() || complaints.notes.len() == 1, "{line}: {complaints:?}");
                    }
                    Err(error) => assert!(format!("{error:#}").starts_with(word), "{line}: {error:#}"),
                }
            }
        }
    }

    #[test]
    fn no_option_is_there_twice() {
        for (at, (long, short, _)) in OPTIONS.iter().enumerate() {
            let rest = OPTIONS.get(at + 1..).unwrap();
            assert!(!rest.iter().any(|(other, ..)| other == long), "{long}");
            assert!(short.is_empty() || !rest.iter().any(|(_, other, _)| other == short), "{short}");
        }
    }

    proptest! {
        #[test]
        fn quoted_words_are_read_back(words in proptest::collection::vec("[a-z \\\\']{0,8}", 0..6)) {
            let line: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            prop_assert_eq!(split(&line.join(" ")).unwrap(), words);
        }

        #[test]
        fn any_text_ends_in_a_result(text in "[a-z=\"' \\\\-]{0,40}") {
            let _ = asked(&text);
        }
    }
}
