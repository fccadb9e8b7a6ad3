//! dracut's and mkinitramfs' options that mkdumprd does not have under the same name.
//!
//! In: what was typed. Out: what mkdumprd's own definition reads, and beside it dracut's options, which are followed as
//! those of `dracut_args` are, by the same table.
//! May surprise: `-o` and `-k` mean something else to dracut; they are ours here, and values that only fit dracut's meaning
//! are refused later.

use super::Mkdumprd;
use crate::config::dracut;
use clap::CommandFactory;
use std::ffi::OsString;

/// Those of which a command line has more to say than dracut_args.
const REFUSED: [(&str, &str); 7] = [
    ("--kernel-cmdline", "write KDUMP_COMMANDLINE_APPEND in /etc/sysconfig/kdump; an image has no command line"),
    ("--uefi", "make the unified image of kernel and image with ukify"),
    ("--regenerate-all", "call mkdumprd for each kernel, with --kver"),
    ("--rebuild", "mkdumprd -f builds the image anew, of the configuration"),
    ("--list-modules", "lsinitrd lists an image, and --plan what would be in one"),
    ("--list", "lsinitrd lists an image, and --plan what would be in one"),
    ("--kernel-only", "kernel modules need an init that loads them; --add-drivers adds some"),
];

/// A command line of two languages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Divided {
    /// What is mkdumprd's own.
    pub own: Vec<OsString>,
    /// dracut's options, each with its operands.
    pub dracut: Vec<String>,
}

/// Divides a command line.
///
/// # Errors
/// An option is not followed: its name, and what to do instead.
pub fn divide(typed: impl IntoIterator<Item = OsString>) -> Result<Divided, String> {
    let own = own_options();
    let mut divided = Divided::default();
    let mut words = typed.into_iter();
    divided.own.extend(words.next());
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let name = name_of(text);
        if let Some((name, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("{name} is not followed: {why}"));
        }
        let is_own = own.iter().any(|option| option == name);
        match dracut::operands(name).filter(|_| !is_own) {
            Some(operands) => {
                let attached = usize::from(text.len() > name.len());
                divided.dracut.push(text.to_owned());
                for _ in attached..operands {
                    let operand = words.next().ok_or_else(|| format!("{name} has no value"))?;
                    divided.dracut.push(operand.to_string_lossy().into_owned());
                }
            }
            None => {
                let is_over = word == "--";
                divided.own.push(word);
                if is_over {
                    divided.own.extend(words.by_ref());
                }
            }
        }
    }
    Ok(divided)
}

/// The option that a word begins with: `--name` of `--name=value`, `-n` of `-nvalue`.
fn name_of(word: &str) -> &str {
    match word.starts_with("--") {
        true => word.split_once('=').map_or(word, |(name, _)| name),
        false if word.starts_with('-') => word.char_indices().nth(2).and_then(|(at, _)| word.get(..at)).unwrap_or(word),
        false => "",
    }
}

/// Every option of mkdumprd's own definition, as it is written.
fn own_options() -> Vec<String> {
    let mut command = Mkdumprd::command();
    command.build();
    let all = command.get_arguments().flat_map(|argument| {
        let longs = argument.get_long_and_visible_aliases().into_iter().flatten().map(str::to_owned);
        let hidden = argument.get_all_aliases().into_iter().flatten().map(str::to_owned);
        let short = argument.get_short().map(|letter| format!("-{letter}"));
        longs.chain(hidden).map(|long| format!("--{long}")).chain(short)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Divided, String> {
        divide(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_are_divided_by_who_knows_them_and_keep_their_operands() {
        for (line, own, dracut) in [
            ("x --zstd -H -f -- --xz", "x -f -- --xz", "--zstd -H"),
            ("x --stdlog 3 -L3 -f a.img", "x -f a.img", "--stdlog 3 -L3"),
            ("x --force-drivers=nbd --mount D -o i.img", "x -o i.img", "--force-drivers=nbd --mount D"),
            ("x --conf c --kmoddir k -k 6 -r / -i a b -I c", "x --conf c --kmoddir k -k 6 -r / -i a b -I c", ""),
            ("x --help -V -h", "x --help -V -h", ""),
            ("x --nonsense y", "x --nonsense y", ""),
        ] {
            let divided = words(line).unwrap();
            let own: Vec<OsString> = own.split(' ').map(OsString::from).collect();
            assert_eq!((divided.own, divided.dracut.join(" ")), (own, dracut.to_owned()), "{line}");
        }
    }

    #[test]
    fn what_is_not_followed_is_refused_by_name() {
        assert!(words("x --uefi").unwrap_err().contains("ukify"));
        assert!(words("x --kernel-cmdline=quiet").unwrap_err().contains("KDUMP_COMMANDLINE_APPEND"));
        assert_eq!(words("x --stdlog").unwrap_err(), "--stdlog has no value");
    }
}
