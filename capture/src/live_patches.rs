//! Which live patches the crashed kernel had. In: its memory, or its log. Out: their names, the first one loaded first.
//! May surprise: the list in memory is what counts, and knows a patch that was loaded long after any log begins; it is
//! found through the kernel's own symbols, so that no debuginfo is needed. Only where a kernel does not tell where those
//! are, which it does since 6.0, the last list of modules in the log has to do, and few logs have one.

use crate::error::chain;
use crate::kallsyms;
use crate::paging::{Virtual, WalkError};
use crate::units::VirtAddr;
use crate::vmcoreinfo::Facts;

/// More patches are no list.
const MOST: usize = 1000;
/// `MODULE_NAME_LEN`.
const LONGEST: usize = 64;

/// The patches in the kernel's list, `klp_patches`: those that are enabled, or on the way there or back.
///
/// # Errors
/// Why the list cannot be read.
pub fn in_memory(facts: &Facts, mem: &mut Virtual<'_>) -> Result<Vec<String>, String> {
    let [head] = kallsyms::symbols(facts, mem, ["klp_patches"]).map_err(|error| chain(&error))?;
    // A kernel without live patching has no such list.
    let Some(head) = head else { return Ok(Vec::new()) };
    let unread = |error: WalkError| format!("the list of live patches cannot be read: {}", chain(&error));
    let broken = || "the list of live patches is broken".to_owned();
    let mut names = Vec::new();
    let mut node = mem.pointer(head).map_err(unread)?;
    while node != head {
        if names.len() == MOST || !mem.is_kernel(node) {
            return Err(broken());
        }
        // struct klp_patch has `struct list_head list; struct kobject kobj;`, side by side since 4.0, and a kobject
        // begins with the pointer to its name.
        let name = node.checked_add(16).ok_or_else(broken)?;
        let name = mem.pointer(name).map_err(unread)?;
        names.push(text(mem, name).ok_or_else(broken)?);
        node = mem.pointer(node).map_err(unread)?;
    }
    Ok(names)
}

/// The name at `at`, if it can be one.
fn text(mem: &mut Virtual<'_>, at: VirtAddr) -> Option<String> {
    let mut name = String::new();
    for offset in 0..LONGEST {
        let mut byte = [0];
        mem.read(at.checked_add(offset as u64)?, &mut byte).ok()?;
        match byte[0] {
            0 if !name.is_empty() => return Some(name),
            letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.') => name.push(char::from(letter)),
            _ => return None,
        }
    }
    None
}

/// Looks for the last list of modules, while records of the log pass by.
#[derive(Debug, Default)]
pub struct ModuleList(Option<Vec<String>>);

impl ModuleList {
    /// Looks at one record.
    pub fn see(&mut self, text: &[u8]) {
        const TITLE: &[u8] = b"Modules linked in:";
        for line in text.split(|byte| *byte == b'\n') {
            let Some(at) = line.windows(TITLE.len()).position(|window| window == TITLE) else { continue };
            let line = String::from_utf8_lossy(line.get(at + TITLE.len()..).unwrap_or_default()).into_owned();
            // What is in brackets has been unloaded.
            let loaded = line.split(" [").next().unwrap_or_default();
            // `name(OEK)`: K is a live patch, `+` and `-` are one that comes or goes.
            let patch = |word: &str| {
                let (name, marks) = word.split_once('(')?;
                marks.contains('K').then(|| name.to_owned())
            };
            self.0 = Some(loaded.split(' ').filter_map(patch).take(MOST).collect());
        }
    }

    /// The live patches in it.
    pub fn patches(self) -> Option<Vec<String>> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_list_of_modules_shows_which_of_them_are_live_patches() {
        let mut list = ModuleList::default();
        list.see(b"nothing of that kind");
        assert_eq!(list.0, None);
        list.see(b"Modules linked in: old(OEK) ext4");
        list.see(b"x\nModules linked in: kpatch_1(OEK) ext4 zfs(PO) kpatch_2(OEK+) [last unloaded: kpatch_0(OEK)]");
        assert_eq!(list.patches().unwrap(), ["kpatch_1", "kpatch_2"]);
        let mut none = ModuleList::default();
        none.see(b"Modules linked in:");
        assert_eq!(none.patches(), Some(Vec::new()));
    }
}
