//! `/etc/zipl.conf`: the boot loader of IBM Z, one section for each kernel.
//!
//! In: sections with `image=` and `parameters=`. Out: changed parameters, and zipl to be run. A configuration that leaves
//! everything to boot loader entries (`defaultauto` without an image) has nothing to change here.

use super::{Edit, Plan, Which};
use crate::host::Tree;
use anyhow::Context;
use std::path::Path;

const FILE: &str = "etc/zipl.conf";

/// Whether there was anything that is meant.
pub(super) fn plan(tree: &Tree, which: &Which, edit: &Edit, plan: &mut Plan) -> anyhow::Result<bool> {
    if !tree.path(FILE).is_file() {
        return Ok(false);
    }
    let text = String::from_utf8(tree.read(Path::new(FILE))?);
    let text = text.with_context(|| format!("/{FILE} is not UTF-8 text; save it as UTF-8"))?;
    let sections = sections(&text);
    let mut after = String::new();
    let mut found = false;
    for section in &sections {
        let image = section.iter().find_map(|line| value(line, "image"));
        let Some(image) = image.filter(|image| which.means(image, None)) else {
            after.extend(section.iter().copied());
            continue;
        };
        found = true;
        let parts: Vec<&str> = section.iter().filter_map(|line| value(line, "parameters")).collect();
        if !edit.is_for(&parts) {
            plan.leave(Path::new(FILE));
            after.extend(section.iter().copied());
            continue;
        }
        log::debug!("{FILE}: {image}");
        after.push_str(&edited(section, edit));
    }
    if found {
        plan.change(&Path::new("/").join(FILE), Some(text), after);
        plan.run(&[&["zipl"]]);
    }
    Ok(found)
}

/// The kernel of the section that is booted if nobody chooses, where there is one.
pub(super) fn default(tree: &Tree) -> anyhow::Result<Option<String>> {
    if !tree.path(FILE).is_file() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&tree.read(Path::new(FILE))?).into_owned();
    let sections = sections(&text);
    let is_called =
        |section: &Vec<&str>, name: &str| section.first().is_some_and(|line| line.trim() == format!("[{name}]"));
    let named = sections.iter().find(|section| is_called(section, "defaultboot"));
    let name = named.and_then(|section| section.iter().find_map(|line| value(line, "default")));
    let section = name.and_then(|name| sections.iter().find(|section| is_called(section, name)));
    Ok(section.and_then(|section| section.iter().find_map(|line| value(line, "image"))).map(str::to_owned))
}

/// What comes before the first section, and the sections, as lines.
fn sections(text: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.split_inclusive('\n') {
        if line.starts_with(['[', ':']) {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(key)?.trim_start().strip_prefix('=')?;
    Some(rest.trim().trim_matches(['"', '\'']))
}

fn edited(section: &[&str], edit: &Edit) -> String {
    let has = section.iter().any(|line| value(line, "parameters").is_some());
    let mut text = String::new();
    for line in section {
        match value(line, "parameters") {
            Some(words) => {
                let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
                let end = if line.ends_with('\n') { "\n" } else { "" };
                text.push_str(&format!("{indent}parameters=\"{}\"{end}", edit.apply(words)));
            }
            None => text.push_str(line),
        }
        if !has && value(line, "image").is_some() {
            let separator = if line.ends_with('\n') { "" } else { "\n" };
            text.push_str(&format!("{separator}parameters=\"{}\"\n", edit.apply("")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crashkernel, tree};
    use super::super::{Which, plan};

    const TEXT: &str = "[defaultboot]\ndefault=linux\ntarget=/boot\n[linux]\nimage=/boot/vmlinuz-6.1\n\
        parameters=\"root=/dev/dasda1 crashkernel=1M\"\n[old]\n  image=/boot/vmlinuz-5.4\n";

    #[test]
    fn each_section_with_a_kernel_is_changed_or_the_one_that_is_meant() {
        let (_dir, tree) = tree(&[("etc/zipl.conf", TEXT)]);
        let all = plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
        let [change] = &all.changes[..] else { panic!("{all:?}") };
        let expected = TEXT.replace("=1M", "=256M") + "parameters=\"crashkernel=256M\"\n";
        assert_eq!(change.after, expected);
        assert_eq!(all.commands, [[["zipl".to_owned()]]]);
        let one = plan(&tree, &Which::Kernel("/boot/vmlinuz-6.1".into()), &crashkernel("256M")).unwrap();
        assert_eq!(one.changes[0].after, TEXT.replace("=1M", "=256M"));
        let default = Which::typed(Some("DEFAULT"), || Ok(String::new()), &tree).unwrap();
        assert_eq!(default, Which::Kernel("/boot/vmlinuz-6.1".into()));
    }
}
