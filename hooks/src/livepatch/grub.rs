//! Where the guard's marker is on a machine without EFI: in GRUB's environment block, a file that GRUB itself can write
//! before it starts the kernel.
//!
//! ```text
//!   GRUB, at each start:        kpatch_boots one up, saved ─▶ kpatch.boots=N kpatch.accounts=… on the kernel command line
//!   image, before any disk:     the command line is all that it has; nothing is written
//!   kpatch booted, load NAME:   the accounts that are left are written, and the count begins anew
//! ```
//!
//! In and out: the accounts as [`super::Accounts`] prints them, a line each; in the block and on the command line `:`
//! stands for a blank of theirs, and `,` for the end of a line. The block has 1024 bytes, whatever is in it, and stays where
//! it is on the disk, as GRUB writes to these very sectors.
//!
//! May surprise: GRUB counts starts, not patches. All that are installed have the count on their account. The files that
//! have it count are in `grub/`; where they are not in use, or GRUB cannot write to the disk that it reads, there is no
//! `kpatch.boots=N`, and the guard does not watch.

use crate::cmdline::Cmdline;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where the block is, with one distribution or the other.
const PLACES: [&str; 2] = ["boot/grub/grubenv", "boot/grub2/grubenv"];

const SIZE: usize = 1024;
const HEAD: &str = "# GRUB Environment Block\n";
const COUNT: &str = "kpatch_boots";
const ACCOUNTS: &str = "kpatch_accounts";

/// What GRUB has counted and what it keeps for us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Starts since the last boot that was finished, this one included.
    pub boots: u32,
    /// The accounts.
    pub accounts: String,
}

/// What GRUB has counted, if it counts. Below `root` the system has its environment block; an image has none.
pub(super) fn read(root: &Path, cmdline: &Cmdline) -> Option<Kept> {
    let boots = cmdline.last("kpatch.boots")?.parse().ok()?;
    Some(match block(root) {
        // The block knows what has become of the count since.
        Ok((_, text)) => kept(&text),
        Err(_) => Kept { boots, accounts: unfolded(cmdline.last("kpatch.accounts").unwrap_or_default()) },
    })
}

/// Has GRUB keep these accounts, and count from nothing.
pub(super) fn write(root: &Path, accounts: &str) -> io::Result<()> {
    let (path, text) = block(root)?;
    let bytes = with(&text, accounts)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes.as_bytes(), 0)?;
    file.sync_all()
}

/// The block, and where it is.
fn block(root: &Path) -> io::Result<(PathBuf, String)> {
    let places = PLACES.map(|place| root.join(place));
    let Some(path) = places.into_iter().find(|place| place.is_file()) else { return Err(ErrorKind::NotFound.into()) };
    let mut bytes = Vec::new();
    File::open(&path)?.take(SIZE as u64 + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    if text.len() != SIZE || !text.starts_with(HEAD) {
        return Err(damaged());
    }
    Ok((path, text))
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "GRUB's environment block is none; `grub-editenv create` makes a new one")
}

/// What a block holds for us.
pub fn kept(block: &str) -> Kept {
    let value = |name: &str| {
        block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).next_back().unwrap_or_default()
    };
    Kept { boots: value(COUNT).parse().unwrap_or_default(), accounts: unfolded(value(ACCOUNTS)) }
}

/// The block with these accounts and without a count.
///
/// # Errors
/// There is no room for them.
pub fn with(block: &str, accounts: &str) -> io::Result<String> {
    let is_ours = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name == COUNT || name == ACCOUNTS);
    // What fills it up is no line.
    let theirs = block.trim_end_matches('#').lines().filter(|line| !is_ours(line));
    let mut text: String = theirs.map(|line| format!("{line}\n")).collect();
    if !accounts.is_empty() {
        text.push_str(&format!("{ACCOUNTS}={}\n", folded(accounts)));
    }
    if text.len() > SIZE {
        return Err(io::Error::new(ErrorKind::StorageFull, "GRUB's environment block is full"));
    }
    let filling = SIZE - text.len();
    text.extend(std::iter::repeat_n('#', filling));
    Ok(text)
}

fn folded(accounts: &str) -> String {
    accounts.trim_end().replace(' ', ":").replace('\n', ",")
}

fn unfolded(accounts: &str) -> String {
    let lines = accounts.split(',').filter(|line| !line.is_empty());
    lines.map(|line| line.replace(':', " ") + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    const TWO: &str = "bad 0011223344556677 3\nodd 8899aabbccddeeff 1\n";
    const FOLDED: &str = "bad:0011223344556677:3,odd:8899aabbccddeeff:1";

    fn filled(text: &str) -> String {
        format!("{HEAD}{text}{}", "#".repeat(SIZE - HEAD.len() - text.len()))
    }

    #[test]
    fn the_block_keeps_the_accounts_and_the_count_begins_anew_while_all_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("boot/grub/grubenv");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, filled("saved_entry=1\nkpatch_boots=3\nnext_entry=\n")).unwrap();
        let cmdline = Cmdline::parse("quiet kpatch.boots=3 kpatch.accounts=");
        assert_eq!(read(root.path(), &cmdline), Some(Kept { boots: 3, accounts: String::new() }));
        write(root.path(), TWO).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            filled(&format!("saved_entry=1\nnext_entry=\nkpatch_accounts={FOLDED}\n"))
        );
        assert_eq!(read(root.path(), &cmdline), Some(Kept { boots: 0, accounts: TWO.to_owned() }));
        write(root.path(), "").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), filled("saved_entry=1\nnext_entry=\n"));
    }

    #[test]
    fn an_image_has_the_command_line_alone() {
        let root = tempfile::tempdir().unwrap();
        let cmdline = Cmdline::parse(&format!("kpatch.boots=2 kpatch.accounts={FOLDED}"));
        assert_eq!(read(root.path(), &cmdline), Some(Kept { boots: 2, accounts: TWO.to_owned() }));
        assert_eq!(write(root.path(), TWO).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn where_grub_does_not_count_or_cannot_save_there_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        for cmdline in ["quiet", "kpatch.boots= kpatch.accounts=", "kpatch.boots=x"] {
            assert_eq!(read(root.path(), &Cmdline::parse(cmdline)), None, "{cmdline}");
        }
    }

    #[test]
    fn a_block_that_is_full_or_none_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("boot/grub2/grubenv");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let full = filled(&format!("x={}\n", "y".repeat(980)));
        for (content, expected) in [(full.as_str(), ErrorKind::StorageFull), ("cut short", ErrorKind::InvalidData)] {
            fs::write(&path, content).unwrap();
            assert_eq!(write(root.path(), TWO).unwrap_err().kind(), expected);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            accounts in proptest::collection::vec(("[a-z_0-9]{1,20}", "[0-9a-f]{16}", 0u32..9), 0..8),
            others in proptest::collection::vec("[a-z]{1,9}=[ -~&&[^#]]{0,9}", 0..9),
        ) {
            let accounts: String = accounts.iter().map(|(name, sum, boots)| format!("{name} {sum} {boots}\n")).collect();
            let others: String = others.iter().map(|line| format!("{line}\n")).collect();
            let written = with(&filled(&others), &accounts).unwrap();
            prop_assert_eq!(written.len(), SIZE);
            prop_assert!(written.contains(&others));
            prop_assert_eq!(kept(&written), Kept { boots: 0, accounts });
        }

        #[test]
        fn any_text_is_taken_in_peace(text in "(?s).{0,300}", accounts in "(?s).{0,50}") {
            kept(&text);
            if let Ok(written) = with(&text, &accounts) {
                prop_assert_eq!(written.len(), SIZE);
            }
        }
    }
}
