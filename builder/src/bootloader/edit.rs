//! Words taken out of a command line and put into it.
//!
//! In: a command line as some file has it, be it between the quotes of a shell. Out: the same with a few words changed; all
//! else stays as it was written, blanks included.

use crate::crashkernel::Crashkernel;
use kdump_hooks::cmdline::same_name;

/// What changes: for each option, the words that take its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    options: Vec<(String, Vec<String>)>,
    only: Only,
}

/// Which command lines are to change, by what they say of the options now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All of them.
    #[default]
    Any,
    /// Those that have exactly one of these lists of words; an empty one is for those that have none.
    Saying(Vec<Vec<String>>),
    /// Those by which a machine does not reserve about what it is to.
    Reserving {
        /// Bytes of memory that the machine has.
        memory: u64,
        /// The least that is right.
        from: u64,
        /// The most that is right.
        to: u64,
    },
}

impl Edit {
    /// Has all words of option `name` replaced by these; by none of them, it is taken out.
    pub fn set(mut self, name: &str, words: &[String]) -> Edit {
        self.options.push((name.to_owned(), words.to_vec()));
        self
    }

    /// Has it done only where that is to be.
    pub fn only(self, only: Only) -> Edit {
        Edit { only, ..self }
    }

    /// Whether a command line is to change, of which these are the parts. Of one with words that stand elsewhere nobody
    /// knows what it says.
    pub fn is_for(&self, parts: &[&str]) -> bool {
        let words: Vec<&str> =
            parts.iter().flat_map(|part| pieces(part)).filter(|piece| !piece.trim().is_empty()).collect();
        let said: Vec<&str> =
            words.iter().copied().filter(|word| self.names().any(|name| is_named(word, name))).collect();
        let elsewhere = said.is_empty() && words.iter().any(|word| word.contains("$kernelopts"));
        match &self.only {
            Only::Any => true,
            _ if elsewhere => false,
            Only::Saying(lists) => lists.iter().any(|words| *words == said),
            Only::Reserving { memory, from, to } => {
                let value = Crashkernel::of_command_line(&said.join(" ")).ok().flatten();
                let reserved = value.and_then(|value| value.reserves(*memory)).unwrap_or(0);
                !(*from..=*to).contains(&reserved)
            }
        }
    }

    /// The words that come.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|(_, words)| words.iter().map(String::as_str))
    }

    /// The options whose words go.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a command line has a word of one of the options.
    pub fn concerns(&self, line: &str) -> bool {
        pieces(line).iter().any(|piece| self.names().any(|name| is_named(piece, name)))
    }

    /// The command line as it will be. The new words come where the first old one was, or at the end.
    pub fn apply(&self, line: &str) -> String {
        self.options.iter().fold(line.to_owned(), |line, (name, words)| replaced(&line, name, words))
    }

    /// The command line without the old words and without the new ones.
    pub fn take_out(&self, line: &str) -> String {
        self.options.iter().fold(line.to_owned(), |line, (name, _)| replaced(&line, name, &[]))
    }
}

fn replaced(line: &str, name: &str, words: &[String]) -> String {
    let pieces = pieces(line);
    let mut place = pieces.iter().position(|piece| is_named(piece, name));
    let new = words.join(" ");
    let mut result: Vec<&str> = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        match is_named(piece, name) {
            false => result.push(piece),
            true if place == Some(at) && !new.is_empty() => {
                place = None;
                result.push(&new);
            }
            // Its blanks go with it.
            true if result.last().is_some_and(|last| last.trim().is_empty()) => drop(result.pop()),
            true => {}
        }
    }
    let had = pieces.iter().any(|piece| is_named(piece, name));
    let mut line = result.concat();
    if !had && !new.is_empty() && line.matches('"').count() % 2 == 1 {
        // A quote that is never closed takes all that is behind it along.
        line.insert_str(0, &format!("{new} "));
    } else if !had && !new.is_empty() {
        let end = line.trim_end().len();
        let separator = if end == 0 { "" } else { " " };
        line.insert_str(end, &format!("{separator}{new}"));
    }
    // What was first took the blank behind it along only if there is nothing in front.
    if result.first().is_some_and(|first| first.trim().is_empty())
        && !pieces.first().is_some_and(|p| p.trim().is_empty())
    {
        line = line.trim_start().to_owned();
    }
    line
}

fn is_named(piece: &str, name: &str) -> bool {
    same_name(piece.split('=').next().unwrap_or_default(), name)
}

/// Blanks and words by turns, which together are the line. Quotes keep a word together.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted) = (0, false);
    let mut blank = line.starts_with(char::is_whitespace);
    for (at, c) in line.char_indices() {
        let is_blank = c.is_whitespace() && !quoted;
        if is_blank != blank {
            pieces.push(line.get(start..at).unwrap_or_default());
            (start, blank) = (at, is_blank);
        }
        quoted ^= c == '"';
    }
    pieces.push(line.get(start..).unwrap_or_default());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(words: &[&str]) -> Edit {
        Edit::default().set("crashkernel", &words.iter().map(|word| format!("crashkernel={word}")).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_replaced_where_they_stand_and_the_rest_stays_as_it_is() {
        for (line, words, expected) in [
            ("", &["1M"][..], "crashkernel=1M"),
            ("quiet", &["1M"], "quiet crashkernel=1M"),
            ("quiet  ", &["1M"], "quiet crashkernel=1M  "),
            ("a  crashkernel=2M  b", &["1M"], "a  crashkernel=1M  b"),
            ("crashkernel=2M,high a crashkernel=3M,low b", &["1M"], "crashkernel=1M a b"),
            ("a crashkernel=2M", &["5M,high", "1M,low"], "a crashkernel=5M,high crashkernel=1M,low"),
            ("a crashkernel=2M b", &[], "a b"),
            ("crashkernel=2M b", &[], "b"),
            ("crashkernel=2M", &[], ""),
            ("dyndbg=\"file x crashkernel=9 +p\" a", &["1M"], "dyndbg=\"file x crashkernel=9 +p\" a crashkernel=1M"),
            ("a \"b c", &["1M"], "crashkernel=1M a \"b c"),
            ("nocrashkernel=1 xcrashkernel=2", &["1M"], "nocrashkernel=1 xcrashkernel=2 crashkernel=1M"),
            ("$GRUB_CMDLINE_LINUX crashkernel=2M", &["1M"], "$GRUB_CMDLINE_LINUX crashkernel=1M"),
        ] {
            assert_eq!(edit(words).apply(line), expected, "{line}");
        }
    }

    #[test]
    fn an_edit_may_be_for_some_command_lines_alone() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let saying = edit(&["1M"]).only(Only::Saying(vec![words("crashkernel=2M"), Vec::new()]));
        let about = edit(&["1M"]).only(Only::Reserving { memory: 1 << 30, from: 90 << 20, to: 110 << 20 });
        for (parts, said, reserved) in [
            (&["quiet"][..], true, true),
            (&["crashkernel=2M quiet"], true, true),
            (&["quiet", "a crashkernel=2M"], true, true),
            (&["crashkernel=2M", "crashkernel=2M"], false, true),
            (&["crashkernel=3M"], false, true),
            (&["crashkernel=100M"], false, false),
            (&["crashkernel=512M-2G:100M,2G-:1G"], false, false),
            (&["crashkernel=120M"], false, true),
            (&["crashkernel=what"], false, true),
            (&["root=/dev/x $kernelopts"], false, false),
            (&["$kernelopts crashkernel=2M"], true, true),
            (&["dyndbg=\"crashkernel=9 +p\" $tuned_params"], true, true),
        ] {
            assert_eq!((saying.is_for(parts), about.is_for(parts)), (said, reserved), "{parts:?}");
            assert!(edit(&["1M"]).is_for(parts), "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn an_edit_is_done_once_and_touches_no_other_word(line in "([a-z=]{1,5}|crashkernel=[0-9]M?| |\"|\"a b\"){0,12}") {
            let edit = edit(&["256M"]);
            let once = edit.apply(&line);
            prop_assert_eq!(&edit.apply(&once), &once);
            let others = |line: &str| {
                let words = kdump_hooks::cmdline::words(line).into_iter();
                words.filter(|word| !is_named(word, "crashkernel")).collect::<Vec<_>>()
            };
            if line.matches('"').count() % 2 == 0 {
                prop_assert_eq!(others(&once), others(&line));
            }
            prop_assert!(edit.concerns(&once));
        }
    }
}
