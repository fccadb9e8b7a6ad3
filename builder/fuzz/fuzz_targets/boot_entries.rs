//! Arbitrary text as the files of boot loaders. What was changed once says so the second time.

#![no_main]

use kdump_builder::bootloader::{Edit, Which, plan};
use kdump_builder::host::Tree;
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|input: (u8, &str)| {
    let (which, text) = input;
    let path = ["etc/default/grub", "etc/zipl.conf", "boot/loader/entries/a.conf", "etc/default/grub.d/a.cfg"];
    let dir = tempfile::tempdir().expect("a folder");
    let tree = Tree::new(dir.path());
    for (path, text) in [("etc/default/grub", ""), (path[usize::from(which) % path.len()], text)] {
        let path = tree.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let edit = Edit::default().set("crashkernel", &["crashkernel=256M".to_owned()]);
    if let Ok(first) = plan(&tree, &Which::All, &edit) {
        first.apply(&tree).expect("files that can be written");
        if let Ok(second) = plan(&tree, &Which::All, &edit) {
            assert!(second.is_settled(), "{second:?}");
        }
    }
});
