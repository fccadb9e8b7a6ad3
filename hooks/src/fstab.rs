//! `/etc/fstab`: what a system mounts where.
//!
//! In: the file's text. Out: one [`Entry`] per line that is whole (fstab(5)). May surprise: of two lines for one place the
//! first one counts, as it does for systemd. Options that only readers of fstab know are told apart here: the kernel
//! would refuse them.

use std::fmt;
use std::path::{Path, PathBuf};

/// Options by which fstab's readers are told when to mount; none of them is for the kernel.
const FOR_READERS: [&str; 14] = [
    "auto", "noauto", "defaults", "nofail", "fail", "_netdev", "user", "nouser", "users", "owner", "group", "rw",
    "comment", "_rnetdev",
];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is mounted, as the line names it.
    pub source: String,
    /// Where.
    pub point: PathBuf,
    /// The file system's type, `auto` if it is to be found out.
    pub fstype: String,
    /// All options.
    pub options: Vec<String>,
}

/// The line without its last two fields.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.point.to_string_lossy();
        let options = self.options.join(",");
        write!(f, "{} {} {} {}", escape(&self.source), escape(&point), escape(&self.fstype), escape(&options))
    }
}

impl Entry {
    /// Whether the line has an option that stands alone.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    /// The options that are for mount(2).
    pub fn for_the_kernel(&self) -> Vec<String> {
        self.options.iter().filter(|option| !is_for_readers(option)).cloned().collect()
    }
}

/// Whether an option only tells fstab's readers something: the kernel would refuse it. `user` does, `user=NAME` is for CIFS.
pub fn is_for_readers(option: &str) -> bool {
    ["x-", "X-", "comment="].iter().any(|start| option.starts_with(start)) || FOR_READERS.contains(&option)
}

/// The line of a file that is mounted at `point`.
pub fn entry_at(text: &str, point: &Path) -> Option<Entry> {
    parse(text).into_iter().find(|entry| entry.point == point)
}

/// Every line that is one.
pub fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Entry> {
    // A `#` that was escaped is a part of the name.
    let mut fields = line.split_ascii_whitespace().take_while(|field| !field.starts_with('#')).map(unescape);
    let source = fields.next()?;
    let (point, fstype) = (fields.next()?, fields.next()?);
    let options = fields.next().unwrap_or_default();
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    // `/usr` and `/usr/` are one place.
    Some(Entry { source, point: Path::new(&point).components().collect(), fstype, options })
}

/// Bytes that would end a field are written as `\NNN`.
fn unescape(field: &str) -> String {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape(field: &str) -> String {
    let mut out = String::new();
    for c in field.chars() {
        match c {
            // A first `#` would make the line a comment.
            ' ' | '\t' | '\n' | '\r' | '\x0c' | '\\' | '#' => out.push_str(&format!("\\{:03o}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_word_for_fstab_s_readers_is_none_with_a_value() {
        for (option, expected) in [("user", true), ("user=kdump", false), ("comment=x", true), ("x-gvfs.name=y", true)]
        {
            assert_eq!(is_for_readers(option), expected, "{option}");
        }
    }

    #[test]
    fn the_first_line_of_a_place_counts_and_comments_do_not() {
        let text = "# LABEL=old /usr xfs defaults\nLABEL=root / ext4 defaults 0 1\n\
                    LABEL=my\\040usr\t/usr/  ext4 ro,noatime,x-systemd.x=1,nofail,comment=y,users,group,X-y 0 2\nLABEL=x /usr ext4\nhalf\n";
        let entry = entry_at(text, Path::new("/usr")).unwrap();
        assert_eq!((entry.source.as_str(), entry.fstype.as_str()), ("LABEL=my usr", "ext4"));
        assert_eq!(entry.for_the_kernel(), ["ro", "noatime"]);
        assert!(entry.has("nofail") && !entry.has("noauto"));
        assert_eq!(parse(text).len(), 3);
        assert_eq!(entry_at(text, Path::new("/home")), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            source in "[^\u{0}]{1,12}",
            point in "/[a-z #\\\\]{1,8}",
            fstype in "[a-z0-9]{1,8}",
            options in prop::collection::vec("[a-z=/ ]{1,8}", 1..4),
        ) {
            let entry = Entry { source, point: Path::new(&point).components().collect(), fstype, options };
            let text = format!("{entry} 0 0\n");
            prop_assert_eq!(parse(&text), [entry], "{}", text);
        }

        #[test]
        fn any_text_is_taken_in_peace(text in "(?s).{0,200}") {
            for entry in parse(&text) {
                let _ = (entry.to_string(), entry.for_the_kernel());
            }
        }
    }
}
