//! GRUB where its configuration is made of `/etc/default/grub` and the files in `/etc/default/grub.d`.
//!
//! In: those files, which `grub-mkconfig` sources as shell. Out: changed assignments of `GRUB_CMDLINE_LINUX` and
//! `GRUB_CMDLINE_LINUX_DEFAULT`. Nothing is run to read them: lines that assign a quoted value on one line are understood,
//! and one that says more about our option is an error with its place.

use super::{Change, Edit, Plan, Which};
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
        Which::Kernel(_) if entries => return Ok(false),
        // What is for all kernels alike is for a new one, too, unless kernels have entries; then it gets one.
        Which::New(_) if super::entries::any(tree) => return Ok(false),
        Which::New(_) => {}
        Which::Kernel(kernel) => bail!(
            "/{MAIN} is for all kernels alike, and {} has no boot entry of its own; leave --kernel out",
            kernel.display()
        ),
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
    let (mut said, mut parts) = (Vec::new(), Vec::new());
    for (name, text) in &files {
        let lines = lines(name, text, edit)?;
        parts.extend(lines.iter().filter_map(|line| line.text.get(line.value.clone()?)));
        if lines.iter().any(|line| line.concerned) {
            said.push((name, text));
        }
    }
    if !edit.is_for(&parts) {
        plan.leave(said.last().map_or(Path::new(MAIN), |(name, _)| Path::new(name.as_str())));
        return Ok(true);
    }
    match said.split_last() {
        Some(((last, text), others)) => {
            // The last word counts, so that it stays where it is and goes everywhere else.
            for (name, text) in others {
                let after =
                    rewrite(&lines(name, text, edit)?, |words| edit.take_out(words), |words| edit.take_out(words));
                plan.change(&Path::new("/").join(name), Some((*text).clone()), after);
            }
            let after = rewrite(&lines(last, text, edit)?, |words| edit.apply(words), |words| edit.take_out(words));
            plan.change(&Path::new("/").join(last), Some((*text).clone()), after);
        }
        None if edit.added().next().is_none() => plan.settled.push(Path::new("/").join(MAIN)),
        None if tree.path(FOLDER).is_dir() => {
            let [name, _] = NAMES;
            let after = format!("{name}=\"${name} {}\"\n", edit.apply(""));
            plan.changes.push(Change { path: Path::new("/").join(OURS), before: None, after });
        }
        None => {
            let Some((_, text)) = files.first() else { return Ok(false) };
            plan.change(&Path::new("/").join(MAIN), Some(text.clone()), added(text, edit)?);
        }
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
    /// Where in the line the command line is, if it is an assignment of one.
    value: Option<std::ops::Range<usize>>,
    /// Whether our option is in it.
    concerned: bool,
}

fn lines<'a>(file: &str, text: &'a str, edit: &Edit) -> anyhow::Result<Vec<Line<'a>>> {
    let mut found = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let value = assigned(line);
        let words = value.clone().and_then(|value| line.get(value));
        let concerned = words.is_some_and(|words| edit.concerns(words));
        let comment = line.trim_start().starts_with('#');
        if !comment && words.is_none() && edit.names().any(|name| line.contains(&format!("{name}="))) {
            bail!(
                "/{file}:{}: this can only be understood by a shell; write NAME=\"WORDS\" on one line with NAME {} or {}, or \
                 edit it by hand",
                number + 1,
                NAMES.join(" or "),
                "take the option out"
            );
        }
        found.push(Line { text: line, value, concerned });
    }
    Ok(found)
}

/// Where the value is in `NAME="value"` or `NAME=value`, for the names that are ours.
fn assigned(line: &str) -> Option<std::ops::Range<usize>> {
    let start = line.len() - line.trim_start().len();
    let rest = line.get(start..)?;
    let rest = rest.strip_prefix("export ").map_or(rest, str::trim_start);
    let (name, value) = rest.split_once('=')?;
    let name = name.trim_end_matches('+');
    if !NAMES.contains(&name) {
        return None;
    }
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
        Some(_) if !value.contains([' ', '\t', ';', '\\', '"', '\'']) => Some(from..from + value.len()),
        Some(_) => None,
        None => Some(from..from),
    }
}

/// The file again: the last value that is concerned is changed by `last`, those before it by `others`.
fn rewrite(lines: &[Line], last: impl Fn(&str) -> String, others: impl Fn(&str) -> String) -> String {
    let place = lines.iter().rposition(|line| line.concerned);
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        match (&line.value, line.concerned) {
            (Some(value), true) => {
                let words = line.text.get(value.clone()).unwrap_or_default();
                let words = if place == Some(at) { last(words) } else { others(words) };
                text.push_str(&with(line.text, value, &words));
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

/// The main file with our words, which it did not have.
fn added(text: &str, edit: &Edit) -> anyhow::Result<String> {
    let [_, name] = NAMES;
    let lines = lines(MAIN, text, edit)?;
    let is_it = |line: &Line| line.value.is_some() && line.text.trim_start().starts_with(&format!("{name}="));
    let place = lines.iter().rposition(is_it);
    let mut result = String::new();
    for (at, line) in lines.iter().enumerate() {
        match &line.value {
            Some(value) if place == Some(at) => {
                let words = line.text.get(value.clone()).unwrap_or_default();
                result.push_str(&with(line.text, value, &edit.apply(words)));
            }
            _ => result.push_str(line.text),
        }
    }
    if place.is_none() {
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        result.push_str(&format!("{separator}{name}=\"{}\"\n", edit.apply("")));
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
            ("GRUB_TIMEOUT=5", "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"crashkernel=256M\"\n"),
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
    fn one_kernel_cannot_be_told_apart_from_the_others() {
        let (_dir, tree) = tree(&[("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n")]);
        let which = Which::Kernel("/boot/vmlinuz-6.1".into());
        let error = plan(&tree, &which, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.contains("is for all kernels alike"), "{error}");
    }
}
