//! dracut's and mkinitramfs' options that mkdumprd does not have under the same name.
//!
//! In: what was typed. Out: what mkdumprd calls the same, or why it is not followed. Those that it has are in its own
//! definition.

use std::ffi::OsString;

/// What is made of an option.
enum Meaning {
    /// The same as this option.
    Is(&'static str),
    /// It is so in any case.
    Always,
    /// Not followed, and what to do instead.
    Refused(&'static str),
}

use Meaning::{Always, Is, Refused};

const SMALL: &str = "no image is compressed in this way; use --compress zstd, xz, gzip or lz4";
const KEPT: &str = "modules and programs stay as they were packed: a module that is stripped has lost its signature";
const PARTS: &str =
    "there are no dracut modules here: what a target needs comes by itself; see --add-drivers, --install";
const TARGET: &str = "name the target in kdump.conf";
const LISTS: &str = "lsinitrd lists an image, and --plan what would be in one";
const CMDLINE: &str = "write KDUMP_COMMANDLINE_APPEND in /etc/sysconfig/kdump; an image has no command line";

const OPTIONS: [(&str, Meaning); 43] = [
    ("--zstd", Is("--compress=zstd")),
    ("--xz", Is("--compress=xz")),
    ("--gzip", Is("--compress=gzip")),
    ("--lz4", Is("--compress=lz4")),
    ("--no-compress", Is("--compress=none")),
    ("--hostonly", Always),
    ("-H", Always),
    ("--reproducible", Always),
    ("--hardlink", Always),
    ("--nostrip", Always),
    ("--no-early-microcode", Always),
    ("--no-hostonly-default-device", Always),
    ("--no-hostonly-cmdline", Always),
    ("--quiet", Always),
    ("-q", Always),
    ("--bzip2", Refused(SMALL)),
    ("--lzma", Refused(SMALL)),
    ("--lzo", Refused(SMALL)),
    ("--compress-level", Refused("each compression has the level that suits an image")),
    ("--strip", Refused(KEPT)),
    ("--aggressive-strip", Refused(KEPT)),
    ("--add", Refused(PARTS)),
    ("-a", Refused(PARTS)),
    ("--force-add", Refused(PARTS)),
    ("--omit", Refused(PARTS)),
    ("--modules", Refused(PARTS)),
    ("-m", Refused(PARTS)),
    ("--drivers", Refused("an image has what its target needs; use --add-drivers and --omit-drivers")),
    ("-d", Refused("an image has what its target needs; use --add-drivers and --omit-drivers")),
    ("--force-drivers", Refused("use --add-drivers, and rd.driver.pre= in KDUMP_COMMANDLINE_APPEND")),
    ("--filesystems", Refused("use --add-drivers")),
    ("--mount", Refused(TARGET)),
    ("--device", Refused(TARGET)),
    ("--add-device", Refused(TARGET)),
    ("--sshkey", Refused("write sshkey in kdump.conf")),
    ("--kernel-cmdline", Refused(CMDLINE)),
    ("--hostonly-cmdline", Refused(CMDLINE)),
    ("--list-modules", Refused(LISTS)),
    ("--list", Refused(LISTS)),
    ("--printsize", Refused(LISTS)),
    ("--uefi", Refused("make the unified image of kernel and image with ukify")),
    ("--regenerate-all", Refused("call mkdumprd for each kernel, with --kver")),
    ("--rebuild", Refused("mkdumprd -f builds the image anew, of the configuration")),
];

/// The command line in mkdumprd's own words.
///
/// # Errors
/// An option is not followed: its name, and what to do instead.
pub fn translate(typed: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut ours = Vec::new();
    let mut is_over = false;
    for word in typed {
        is_over |= word == "--";
        let text = word.to_str().unwrap_or_default();
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        match OPTIONS.iter().find(|(option, _)| !is_over && *option == name) {
            Some((_, Is(option))) => ours.push(OsString::from(option)),
            Some((_, Always)) => {}
            Some((option, Refused(why))) => return Err(format!("{option} is not followed: {why}")),
            None => ours.push(word),
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<OsString>, String> {
        translate(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_are_put_into_our_words_or_refused_with_others() {
        assert_eq!(words("x --zstd -H -f -- --xz").unwrap(), ["x", "--compress=zstd", "-f", "--", "--xz"]);
        let error = words("x --add nfs").unwrap_err();
        assert!(error.starts_with("--add is not followed: there are no dracut modules"), "{error}");
        assert!(words("x --kernel-cmdline=quiet").unwrap_err().contains("KDUMP_COMMANDLINE_APPEND"));
    }

    #[test]
    fn no_option_is_also_one_of_our_own() {
        use clap::CommandFactory;
        let own = super::super::Mkdumprd::command();
        let names: Vec<String> = own
            .get_arguments()
            .flat_map(|argument| {
                let short = argument.get_short().map(|letter| format!("-{letter}"));
                argument.get_long().map(|long| format!("--{long}")).into_iter().chain(short)
            })
            .collect();
        assert!(OPTIONS.iter().all(|(option, _)| !names.iter().any(|name| name == option)), "{names:?}");
    }
}
