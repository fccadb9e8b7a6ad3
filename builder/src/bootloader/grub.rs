//! GRUB where its configuration is made of `/etc/default/grub` and the files in `/etc/default/grub.d`.
//!
//! In: those files, which `grub-mkconfig` sources as shell. Out: changed assignments of `GRUB_CMDLINE_LINUX` and
//! `GRUB_CMDLINE_LINUX_DEFAULT`. Nothing is run to read them: lines that assign a quoted value on one line are understood,
//! and one that says more about our option is an error with its place. All else that a shell may make of these names is kept
//! by what is added, which is `NAME="$NAME …"` behind it.
//!
//! May surprise: a later assignment takes the place of an earlier one of the same name, unless it says `+=` or has that
//! name in it. What is said before it counts for nothing. Whether one that is not understood does that is not known, so
//! that our option in front of it is an error, too.

use super::{Edit, Plan, Which};
use crate::host::Tree;
use anyhow::{Context, bail};
use std::fs;
use std::path::Path;

const MAIN: &str = "etc/default/grub";
/// Only Debian's grub-mkconfig reads it; where it is missing, nothing is put there.
const FOLDER: &str = "etc/default/grub.d";
/// What is written if no file says anything yet.
const OURS: &str = "etc/default/grub.d/kdump-rs.cfg";
const NAMES: [&str; 2] = ["GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX"];

/// Whether there was anything that is meant. `entries` says that each kernel has an entry of its own.
pub(super) fn plan(tree: &Tree, which: &Which, edit: &Edit, entries: bool, plan: &mut Plan) -> anyhow::Result<bool> {
    if !tree.path(MAIN).is_file() {
        return Ok(false);
    }
    match which {
        Which::All => {}
        Which::Kernel(_) | Which::Release(_) if entries => return Ok(false),
        // It is there, but nobody knows which.
        Which::Default if entries || super::entries::any(tree) => return Ok(false),
        // What is for all kernels alike is for a new one, too, unless kernels have entries; then it gets one.
        Which::New(_) if super::entries::any(tree) => return Ok(false),
        Which::New(_) => {}
        Which::Kernel(kernel) => bail!(
            "/{MAIN} is for all kernels alike, and {} has no boot entry of its own; leave --kernel out",
            kernel.display()
        ),
        Which::Release(release) => {
            bail!("/{MAIN} is for all kernels alike, and {release} has no boot entry of its own; write --kernel=ALL")
        }
        Which::Default => bail!("/{MAIN} is for all kernels alike, the default one included; leave --kernel out"),
    }
    let mut names = vec![MAIN.to_owned()];
    let folder = fs::read_dir(tree.path(FOLDER)).into_iter().flatten().flatten();
    let mut more: Vec<String> = folder.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    more.retain(|name| name.ends_with(".cfg"));
    more.sort();
    names.extend(more.iter().map(|name| format!("{FOLDER}/{name}")));
    let mut files = Vec::new();
    for name in names {
        let text = String::from_utf8(tree.read(Path::new(&name))?);
        files.push((name.clone(), text.with_context(|| format!("/{name} is not UTF-8 text; save it as UTF-8"))?));
    }
    let mut read: Vec<(&String, &String, Vec<Line>)> = Vec::new();
    for (name, text) in &files {
        read.push((name, text, lines(name, text, edit)?));
    }
    bury(&mut read)?;
    let alive = |line: &&Line| line.of.is_some() && !line.dead;
    let parts: Vec<&str> = read.iter().flat_map(|(_, _, lines)| lines.iter().filter(alive).map(Line::words)).collect();
    let last = read.iter().rposition(|(_, _, lines)| lines.iter().filter(alive).any(|line| line.concerned));
    if !edit.is_for(&parts) {
        plan.leave(last.and_then(|last| read.get(last)).map_or(Path::new(MAIN), |(name, ..)| Path::new(name.as_str())));
        return Ok(true);
    }
    // Where nothing that counts has it, it goes behind all other files, else to the end of the main one.
    let ours = last.is_none() && edit.added().next().is_some();
    let into_main = ours && !tree.path(FOLDER).is_dir();
    for (at, (name, text, lines)) in read.iter().enumerate() {
        let gets_it = into_main && at == 0;
        if !gets_it && !lines.iter().any(|line| line.concerned) {
            continue;
        }
        // The last word counts, so that it stays where it is and goes everywhere else.
        let mut after = rewrite(lines, last == Some(at), edit);
        if gets_it {
            after = added(&after, edit)?;
        }
        plan.change(&Path::new("/").join(name), Some((*text).clone()), after);
    }
    if ours && !into_main {
        let [name, _] = NAMES;
        for (file, _, lines) in read.iter().filter(|(file, ..)| file.as_str() > OURS) {
            let takes_all = |line: &Line| match &line.of {
                Some(of) => of.is_plain && of.name == name,
                None => hides(line.text, name),
            };
            if let Some(at) = lines.iter().position(takes_all) {
                bail!(
                    "/{file}:{}: this takes the place of what all other files say; write `${name}` into it, before the words \
                     that are there",
                    at + 1
                );
            }
        }
        let before = files.iter().find(|(name, _)| name == OURS).map(|(_, text)| text.clone());
        let mut after = before.clone().unwrap_or_default();
        if !after.is_empty() && !after.ends_with('\n') {
            after.push('\n');
        }
        after.push_str(&format!("{name}=\"${name} {}\"\n", edit.apply("")));
        plan.changes.retain(|change| change.path != Path::new("/").join(OURS));
        plan.change(&Path::new("/").join(OURS), before, after);
    } else if last.is_none() && !into_main && plan.changes.is_empty() {
        plan.settled.push(Path::new("/").join(MAIN));
    }
    plan.run(&[
        &["update-grub"],
        &["grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"],
        &["grub-mkconfig", "-o", "/boot/grub/grub.cfg"],
    ]);
    Ok(true)
}

/// A line, and the value of ours in it.
struct Line<'a> {
    text: &'a str,
    /// What it assigns, if that is a command line.
    of: Option<Assigned>,
    /// Whether our option is in it.
    concerned: bool,
    /// Whether a later line takes its place.
    dead: bool,
}

/// An assignment of a command line.
struct Assigned {
    name: &'static str,
    /// Whether nothing is left of what the name meant before.
    is_plain: bool,
    /// Where the value is in the line.
    value: std::ops::Range<usize>,
}

impl<'a> Line<'a> {
    fn words(&self) -> &'a str {
        self.of.as_ref().and_then(|of| self.text.get(of.value.clone())).unwrap_or_default()
    }
}

/// Marks the lines whose place a later one takes, be it in another file.
fn bury(files: &mut [(&String, &String, Vec<Line>)]) -> anyhow::Result<()> {
    let mut taken: Vec<&str> = Vec::new();
    let mut hidden: Vec<(&str, String)> = Vec::new();
    for (file, _, lines) in files.iter_mut().rev() {
        for (at, line) in lines.iter_mut().enumerate().rev() {
            let Some(of) = &line.of else {
                let names = NAMES.into_iter().filter(|name| hides(line.text, name));
                hidden.extend(names.map(|name| (name, format!("/{file}:{}", at + 1))));
                continue;
            };
            line.dead = taken.contains(&of.name);
            if let (true, Some((name, place))) =
                (line.concerned && !line.dead, hidden.iter().find(|(name, _)| *name == of.name))
            {
                bail!(
                    "{place}: only a shell can tell whether this takes the place of /{file}:{}; write {name}=\"WORDS\" on \
                     one line, or take the option out there",
                    at + 1
                );
            }
            if of.is_plain {
                taken.push(of.name);
            }
        }
    }
    Ok(())
}

/// Whether a line that is not understood may assign something to a name, with nothing of what it meant before.
fn hides(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_assigned = |(at, _): (usize, &str)| {
        let (before, behind) = (line.get(..at).unwrap_or_default(), line.get(at + name.len()..).unwrap_or_default());
        behind.starts_with('=') && !before.ends_with(is_part)
    };
    !line.trim_start().starts_with('#') && line.match_indices(name).any(is_assigned) && !mentions(line, name)
}

fn lines<'a>(file: &str, text: &'a str, edit: &Edit) -> anyhow::Result<Vec<Line<'a>>> {
    let mut found = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let of = assigned(line);
        let mut read = Line { text: line, of, concerned: false, dead: false };
        read.concerned = edit.concerns(read.words());
        let comment = line.trim_start().starts_with('#');
        if !comment && read.of.is_none() && edit.names().any(|name| line.contains(&format!("{name}="))) {
            bail!(
                "/{file}:{}: this can only be understood by a shell; write NAME=\"WORDS\" on one line with NAME {} or {}, or \
                 edit it by hand",
                number + 1,
                NAMES.join(" or "),
                "take the option out"
            );
        }
        found.push(read);
    }
    Ok(found)
}

/// What `NAME="value"` or `NAME=value` assigns, for the names that are ours.
fn assigned(line: &str) -> Option<Assigned> {
    let start = line.len() - line.trim_start().len();
    let rest = line.get(start..)?;
    let rest = rest.strip_prefix("export ").map_or(rest, str::trim_start);
    let (name, text) = rest.split_once('=')?;
    let is_added = name.ends_with('+');
    let name = NAMES.into_iter().find(|known| *known == name.trim_end_matches('+'))?;
    let value = value(line, text)?;
    // Between apostrophes a name is but a word.
    let is_taken_over = !text.starts_with('\'') && line.get(value.clone()).is_some_and(|words| mentions(words, name));
    Some(Assigned { name, is_plain: !is_added && !is_taken_over, value })
}

/// Whether `$NAME` or `${NAME}` is in it.
fn mentions(words: &str, name: &str) -> bool {
    words.split('$').skip(1).any(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name).is_some_and(|end| !end.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

/// Where the words are in a line that ends in this value.
fn value(line: &str, value: &str) -> Option<std::ops::Range<usize>> {
    let from = line.len() - value.len();
    let value = value.trim_end();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = value.get(1..)?;
            let end = inner.char_indices().scan(false, |escaped, (at, c)| {
                let is_end = c == quote && !*escaped;
                *escaped = c == '\\' && !*escaped && quote == '"';
                Some((at, is_end))
            });
            let end = end.into_iter().find(|(_, is_end)| *is_end)?.0;
            let behind = inner.get(end + 1..)?.trim_start();
            (behind.is_empty() || behind.starts_with('#')).then_some(from + 1..from + 1 + end)
        }
        Some(_) if !value.contains([' ', '\t', ';', '&', '|', '<', '>', '(', '`', '\\', '"', '\'']) => {
            Some(from..from + value.len())
        }
        Some(_) => None,
        None => Some(from..from),
    }
}

/// The file again: our option goes, but for the last line that counts, which has it as it is to be if `stays`.
fn rewrite(lines: &[Line], stays: bool, edit: &Edit) -> String {
    let place = lines.iter().rposition(|line| line.concerned && !line.dead).filter(|_| stays);
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        match &line.of {
            Some(of) if line.concerned => {
                let words = line.words();
                let words = if place == Some(at) { edit.apply(words) } else { edit.take_out(words) };
                text.push_str(&with(line.text, &of.value, &words));
            }
            _ => text.push_str(line.text),
        }
    }
    text
}

/// The line with another value, in quotes if it had none.
fn with(line: &str, value: &std::ops::Range<usize>, words: &str) -> String {
    let (head, tail) = (line.get(..value.start).unwrap_or_default(), line.get(value.end..).unwrap_or_default());
    let quote = if head.ends_with(['"', '\'']) { "" } else { "\"" };
    format!("{head}{quote}{words}{quote}{tail}")
}

/// The main file with our words, which it did not have: in the last assignment if that holds whatever a shell makes of the
/// file, else behind all of them.
fn added(text: &str, edit: &Edit) -> anyhow::Result<String> {
    let [_, name] = NAMES;
    let lines = lines(MAIN, text, edit)?;
    // What is indented may depend on something.
    let is_it = |line: &Line| line.of.is_some() && line.text.starts_with(&format!("{name}="));
    let may_be_it = |line: &Line| line.of.as_ref().map_or_else(|| hides(line.text, name), |of| of.name == name);
    let place = lines.iter().rposition(may_be_it).filter(|at| lines.get(*at).is_some_and(is_it));
    let mut result = String::new();
    for (at, line) in lines.iter().enumerate() {
        match &line.of {
            Some(of) if place == Some(at) => {
                result.push_str(&with(line.text, &of.value, &edit.apply(line.words())));
            }
            _ => result.push_str(line.text),
        }
    }
    if place.is_none() {
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        result.push_str(&format!("{separator}{name}=\"${name} {}\"\n", edit.apply("")));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crashkernel, tree};
    use super::super::{Which, plan};

    fn after(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let (_dir, tree) = tree(files);
        let plan = plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
        plan.changes.iter().map(|change| (change.path.display().to_string(), change.after.clone())).collect()
    }

    #[test]
    fn the_value_is_changed_in_the_file_that_has_it() {
        for (text, expected) in [
            ("GRUB_CMDLINE_LINUX=\"\"\n", "GRUB_CMDLINE_LINUX=\"crashkernel=256M\"\n"),
            ("GRUB_CMDLINE_LINUX=\n", "GRUB_CMDLINE_LINUX=\"crashkernel=256M\"\n"),
            ("GRUB_CMDLINE_LINUX=quiet\n", "GRUB_CMDLINE_LINUX=\"quiet crashkernel=256M\"\n"),
            (
                "# crashkernel=1M\nGRUB_CMDLINE_LINUX_DEFAULT='quiet crashkernel=9M' # mine\nGRUB_CMDLINE_LINUX=\"a\"\n",
                "# crashkernel=1M\nGRUB_CMDLINE_LINUX_DEFAULT='quiet crashkernel=256M' # mine\nGRUB_CMDLINE_LINUX=\"a\"\n",
            ),
            ("GRUB_TIMEOUT=5", "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX crashkernel=256M\"\n"),
            (
                "GRUB_CMDLINE_LINUX=\"crashkernel=auto rd.lvm.lv=a/b\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"crashkernel=1M\"\n",
                "GRUB_CMDLINE_LINUX=\"rd.lvm.lv=a/b\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"crashkernel=256M\"\n",
            ),
            (
                "GRUB_CMDLINE_LINUX=\"dyndbg=\\\"file x +p\\\"\"\n",
                "GRUB_CMDLINE_LINUX=\"dyndbg=\\\"file x +p\\\" crashkernel=256M\"\n",
            ),
        ] {
            assert_eq!(after(&[("etc/default/grub", text)]), [("/etc/default/grub".into(), expected.into())], "{text}");
        }
    }

    #[test]
    fn debians_file_for_kdump_is_changed_and_else_one_of_our_own_is_made() {
        let main = ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n");
        let debian = "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=384M-:128M\"\n";
        assert_eq!(
            after(&[main, ("etc/default/grub.d/kdump-tools.cfg", debian)]),
            [("/etc/default/grub.d/kdump-tools.cfg".into(), debian.replace("384M-:128M", "256M"))]
        );
        assert_eq!(
            after(&[main, ("etc/default/grub.d/init-select.cfg", "# nothing\n")]),
            [(
                "/etc/default/grub.d/kdump-rs.cfg".into(),
                "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=256M\"\n".into()
            )]
        );
    }

    #[test]
    fn what_a_later_assignment_takes_the_place_of_counts_for_nothing() {
        let main = ("etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet crashkernel=1M\"\n");
        let cloud = ("etc/default/grub.d/50-cloudimg.cfg", "GRUB_CMDLINE_LINUX_DEFAULT=\"console=ttyS0\"\n");
        let gone = ("/etc/default/grub".to_owned(), "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n".to_owned());
        let ours = "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=256M\"\n";
        assert_eq!(after(&[main, cloud]), [gone, ("/etc/default/grub.d/kdump-rs.cfg".into(), ours.into())]);
        for more in ["=\"$GRUB_CMDLINE_LINUX_DEFAULT a\"\n", "=\"a ${GRUB_CMDLINE_LINUX_DEFAULT}\"\n", "+=\" a\"\n"] {
            let more = format!("GRUB_CMDLINE_LINUX_DEFAULT{more}");
            let kept = after(&[main, ("etc/default/grub.d/50.cfg", &more)]);
            assert_eq!(kept, [("/etc/default/grub".to_owned(), main.1.replace("1M", "256M"))], "{more}");
        }
        let twice = "GRUB_CMDLINE_LINUX=\"crashkernel=1M\"\nGRUB_CMDLINE_LINUX=\"b $GRUB_CMDLINE_LINUX_DEFAULT\"\n";
        let once = "GRUB_CMDLINE_LINUX=\"\"\nGRUB_CMDLINE_LINUX=\"b $GRUB_CMDLINE_LINUX_DEFAULT crashkernel=256M\"\n";
        assert_eq!(after(&[("etc/default/grub", twice)]), [("/etc/default/grub".into(), once.into())]);
        let (_dir, tree) = tree(&[main, ("etc/default/grub.d/zz.cfg", cloud.1)]);
        let error = plan(&tree, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.starts_with("/etc/default/grub.d/zz.cfg:1: this takes the place of"), "{error}");
    }

    #[test]
    fn what_only_a_shell_understands_is_an_error_with_its_place() {
        for text in [
            "A=1\nGRUB_CMDLINE_LINUX=\"a crashkernel=1M \\\n b\"\n",
            "\nif true; then GRUB_CMDLINE_LINUX=\"crashkernel=1M\"; fi\n",
        ] {
            let (_dir, tree) = tree(&[("etc/default/grub", text)]);
            let error = plan(&tree, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
            assert!(error.starts_with("/etc/default/grub:2: this can only be understood by a shell"), "{error}");
        }
    }

    #[test]
    fn whatever_only_a_shell_understands_keeps_its_words_and_has_ours_behind_them() {
        for (text, kept) in [
            ("GRUB_CMDLINE_LINUX=\"a=1 b=2 \\\nc quiet\"\n", &["a=1", "b=2", "c", "quiet"][..]),
            ("GRUB_CMDLINE_LINUX=\"a=1\n  b=2\"\nGRUB_TIMEOUT=5\n", &["a=1", "b=2"]),
            ("GRUB_CMDLINE_LINUX=\"a=1 b\"; export GRUB_CMDLINE_LINUX\n", &["a=1", "b"]),
            ("[ 1 = 1 ] && GRUB_CMDLINE_LINUX=\"a=1\"", &["a=1"]),
            ("GRUB_CMDLINE_LINUX=\"a\"\n[ 1 = 1 ] && GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b\"\n", &["a", "b"]),
            ("GRUB_CMDLINE_LINUX=\"a\"\n[ 1 = 1 ] && GRUB_CMDLINE_LINUX=\"b\"\n", &["b"]),
            ("GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\" GRUB_CMDLINE_LINUX=\"a=1 b\"\n", &["quiet", "a=1", "b"]),
            ("GRUB_TIMEOUT=5; GRUB_CMDLINE_LINUX=\"a\"\n", &["a"]),
            ("if true; then\n  GRUB_CMDLINE_LINUX=\"a\"\nelse\n  GRUB_CMDLINE_LINUX=\"b\"\nfi\n", &["a"]),
            ("more() { GRUB_CMDLINE_LINUX=\"$1\"; }\nmore 'a b'\n", &["a", "b"]),
            ("GRUB_CMDLINE_LINUX=a&&true\n", &["a"]),
            ("GRUB_CMDLINE_LINUX=`echo a`\n", &["a"]),
            ("GRUB_CMDLINE_LINUX=$(echo a b)\n", &["a", "b"]),
            ("GRUB_CMDLINE_LINUX=a\\ b\n", &["a", "b"]),
            ("# GRUB_CMDLINE_LINUX=\"old\" \\\nGRUB_CMDLINE_LINUX=\"a\"\n", &["a"]),
        ] {
            for folder in [false, true] {
                let (_dir, tree) = tree(&[("etc/default/grub", text)]);
                if folder {
                    std::fs::create_dir(tree.path("etc/default/grub.d")).unwrap();
                }
                plan(&tree, &Which::All, &crashkernel("256M")).unwrap().apply(&tree).unwrap();
                let source = "cd \"$1\"; . ./grub; ! [ -e grub.d/kdump-rs.cfg ] || . ./grub.d/kdump-rs.cfg; \
                    echo $GRUB_CMDLINE_LINUX_DEFAULT $GRUB_CMDLINE_LINUX";
                let mut shell = std::process::Command::new("sh");
                let ran = shell.args(["-c", source, "sh"]).arg(tree.path("etc/default")).output().unwrap();
                let said = String::from_utf8(ran.stdout).unwrap();
                let mut words: Vec<&str> = said.split_whitespace().collect();
                words.sort_unstable();
                let mut expected = [kept, &["crashkernel=256M"]].concat();
                expected.sort_unstable();
                assert_eq!(words, expected, "{text}");
                assert!(plan(&tree, &Which::All, &crashkernel("256M")).unwrap().is_settled(), "{text}");
            }
        }
    }

    #[test]
    fn a_value_that_may_count_for_nothing_is_an_error_with_the_place_of_what_hides_it() {
        let text = "GRUB_CMDLINE_LINUX=\"crashkernel=1M\"\n[ -e /x ] && GRUB_CMDLINE_LINUX=\"a\"\n";
        let (_dir, hidden) = tree(&[("etc/default/grub", text)]);
        let error = plan(&hidden, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
        let expected = "/etc/default/grub:2: only a shell can tell whether this takes the place of /etc/default/grub:1";
        assert!(error.starts_with(expected), "{error}");
        let later = ("etc/default/grub.d/zz.cfg", "\n[ -e /x ] && GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\n");
        let (_dir, tree) = tree(&[("etc/default/grub", ""), later]);
        let error = plan(&tree, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.starts_with("/etc/default/grub.d/zz.cfg:2: this takes the place of"), "{error}");
    }

    #[test]
    fn one_kernel_cannot_be_told_apart_from_the_others() {
        let (_dir, tree) = tree(&[("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n")]);
        let which = Which::Kernel("/boot/vmlinuz-6.1".into());
        let error = plan(&tree, &which, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.contains("is for all kernels alike"), "{error}");
    }
}
