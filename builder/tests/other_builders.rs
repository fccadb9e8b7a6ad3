//! Images of dracut and of initramfs-tools, in every compression, read by us and by their own programs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod builders;

use builders::{Builders, STUB, run};
use kdump_builder::cpio::read::Archive;
use kdump_builder::inspect;
use kdump_hooks::kernel_image::unified;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;

fn names(image: &[u8]) -> BTreeSet<String> {
    Archive::read_with(image, &|_| false).unwrap().entries.iter().map(|entry| entry.path().into_owned()).collect()
}

/// The path in a line as ls(1) writes it; of a device it has two numbers in the place of the size.
fn path_in_list(line: &str) -> Option<String> {
    let is_device = line.starts_with(['b', 'c']);
    let path = line.split_whitespace().nth(if is_device { 9 } else { 8 })?;
    Some(path.trim_start_matches("./").to_owned())
}

#[test]
#[ignore = "makes a small Debian with both, as root, and eight images in it"]
fn images_of_other_builders_hold_for_us_what_they_hold_for_their_own_programs() {
    let others = Builders::new(env!("CARGO_BIN_EXE_mkdumprd")).unwrap();
    for how in ["zstd", "xz", "gzip", "lz4", "bzip2", "lzma", "lzo"] {
        let name = format!("tmp/dracut-{how}.img");
        if !others.root.join(&name).is_file() {
            let line = format!("dracut -q -f --no-hostonly --{how} /{name} {}", others.kver);
            run(&mut others.inside(&line)).unwrap();
        }
        let image = fs::read(others.root.join(&name)).unwrap();
        let list = run(&mut others.inside(&format!("lsinitrd /{name}"))).unwrap();
        let (_, list) = list.rsplit_once("dracut modules:").unwrap();
        let theirs: BTreeSet<String> = list.lines().filter_map(path_in_list).collect();
        let ours = names(&image);
        assert!(
            ours.len() > 900 && ours == theirs,
            "{how}: {:?}",
            ours.symmetric_difference(&theirs).collect::<Vec<_>>()
        );
        let mut release = Vec::new();
        inspect::print(&image, "etc/initrd-release", &mut release).unwrap();
        assert!(String::from_utf8(release).unwrap().contains("dracut"), "{how}");
        let mut modules = Vec::new();
        inspect::modules(&image, false, &mut modules).unwrap();
        assert!(String::from_utf8(modules).unwrap().contains("\nkernel-modules\n"), "{how}");
    }
    let line = format!("mkinitramfs -o /tmp/mkinitramfs.img {} && lsinitramfs /tmp/mkinitramfs.img", others.kver);
    let list = run(&mut others.inside(&line)).unwrap();
    let theirs: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    let ours = names(&fs::read(others.root.join("tmp/mkinitramfs.img")).unwrap());
    assert!(ours == theirs, "{:?}", ours.symmetric_difference(&theirs).collect::<Vec<_>>());
}

#[test]
#[ignore = "makes a small Debian with systemd's stub, as root"]
fn a_unified_image_made_with_systemd_s_stub_has_kernel_and_initramfs() {
    let others = Builders::new(env!("CARGO_BIN_EXE_mkdumprd")).unwrap();
    let kver = &others.kver;
    let line = format!(
        "cd /tmp && test -f mkinitramfs.img || mkinitramfs -o mkinitramfs.img {kver}; \
         mkdir -p early/kernel/x86/microcode && echo code > early/kernel/x86/microcode/GenuineIntel.bin && \
         (cd early && find kernel | cpio --quiet -o -H newc) > ucode.cpio && echo {kver} > uname.txt && \
         objcopy --add-section .uname=uname.txt --change-section-vma .uname=0x20000 \
         --add-section .ucode=ucode.cpio --change-section-vma .ucode=0x30000 \
         --add-section .linux=/boot/vmlinuz-{kver} --change-section-vma .linux=0x1000000 \
         --add-section .initrd=mkinitramfs.img --change-section-vma .initrd=0x3000000 /{STUB} uki.efi"
    );
    run(&mut others.inside(&line)).unwrap();
    let file = |name: &str| fs::read(others.root.join(name)).unwrap();
    let image = file("tmp/uki.efi");
    assert_eq!(unified::release(&image), Some(kver.as_str()));
    assert!(unified::kernel(&image).unwrap() == file(&format!("boot/vmlinuz-{kver}")), "the kernel is another");
    let mut expected = names(&file("tmp/mkinitramfs.img"));
    expected.extend(names(&file("tmp/ucode.cpio")));
    let list = run(std::process::Command::new(env!("CARGO_BIN_EXE_mkdumprd"))
        .arg0("lsinitrd")
        .arg(others.root.join("tmp/uki.efi")))
    .unwrap();
    assert!(names(&unified::initrd(&image)) == expected, "the names are others");
    assert!(list.contains("kernel/x86/microcode/GenuineIntel.bin"), "{list}");
    assert!(list.contains(", for the kernel before it unpacks the rest"), "{list}");
}
