//! An image that is built while an older one is there is the same as one that is built from nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use kdump_builder::asked::Asked;
use kdump_builder::build::{self, Request};
use kdump_builder::config::Files;
use kdump_builder::cpio::read::Archive;
use kdump_builder::cpio::write::Packing;
use kdump_builder::fake::{FakeSystem, RELEASE, object};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

const MODULES: [&str; 5] = ["fs/ext4.ko", "lib/jbd2.ko", "lib/crc16.ko", "lib/gcm.ko", "block/virtio_blk.ko.xz"];

/// What may happen between two images.
#[derive(Clone, Debug)]
enum Change {
    /// Another file of a module, which may name firmware and another module.
    Module(usize, u8),
    /// Nothing but its time.
    Touched(usize),
    Program(u8),
    Configuration(bool),
    /// The kernel unpacks modules now, or no longer does.
    Kernel(bool),
    /// A byte of the image that is there.
    Damage(usize, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..MODULES.len(), 0..4u8).prop_map(|(module, how)| Change::Module(module, how)),
        (0..MODULES.len()).prop_map(Change::Touched),
        (0..4u8).prop_map(Change::Program),
        any::<bool>().prop_map(Change::Configuration),
        any::<bool>().prop_map(Change::Kernel),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Damage(at, byte)),
    ]
}

fn packings() -> impl Strategy<Value = Packing> {
    prop_oneof![Just(Packing::None), Just(Packing::Zstd), Just(Packing::Gzip), Just(Packing::Xz), Just(Packing::Lz4)]
}

fn make(system: &FakeSystem, change: &Change, image: &Path) {
    let module = |name: &str| system.root.join(format!("lib/modules/{RELEASE}/kernel/{name}"));
    match change {
        Change::Module(number, how) => {
            let firmware = format!("firmware=vendor/{how}.bin");
            let bytes = object(&[&format!("vermagic={RELEASE} SMP"), &firmware, "weakdep=unrelated"]);
            let name = MODULES[*number];
            let packed = match name.ends_with(".xz") {
                true => {
                    let mut packed = xz2::write::XzEncoder::new(Vec::new(), 1);
                    std::io::Write::write_all(&mut packed, &bytes).unwrap();
                    packed.finish().unwrap()
                }
                false => bytes,
            };
            fs::write(module(name), packed).unwrap();
        }
        Change::Touched(number) => {
            let file = fs::File::open(module(MODULES[*number])).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        }
        Change::Program(how) => {
            system.write("programs/kdump-init", &object(&[&format!("program={how}")])).unwrap();
        }
        Change::Configuration(other) => {
            let conf = if *other { "path /other\next4 LABEL=crash\n" } else { "path /var/crash\next4 LABEL=crash\n" };
            system.write("etc/kdump.conf", conf.as_bytes()).unwrap();
        }
        Change::Kernel(unpacks) => {
            let more = if *unpacks { "CONFIG_MODULE_COMPRESS_XZ=y\nCONFIG_MODULE_DECOMPRESS=y\n" } else { "" };
            let all = "CONFIG_RD_ZSTD=y\nCONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\nCONFIG_RD_LZ4=y\n";
            system.write(&format!("boot/config-{RELEASE}"), format!("{all}{more}").as_bytes()).unwrap();
        }
        Change::Damage(at, byte) => {
            let mut bytes = fs::read(image).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= byte;
            fs::write(image, bytes).unwrap();
        }
    }
}

fn build(system: &FakeSystem, packing: Packing, old: Option<&Path>, output: &Path) -> Vec<u8> {
    let built = build::plan(&Request {
        kver: None,
        sysroot: system.root.clone(),
        modules_dir: None,
        files: Files::new(&system.root, None, None),
        programs: Some(system.programs()),
        packing: Some(packing),
        asked: Asked::default(),
        normal: None,
        old: old.map(Path::to_owned),
    });
    build::write(&built.unwrap_or_else(|error| panic!("{error:#}")), output, true).unwrap();
    fs::read(output).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn an_image_that_takes_from_another_has_the_bytes_of_one_from_nothing(
        packing in packings(),
        rounds in proptest::collection::vec(proptest::collection::vec(change(), 0..3), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let system = FakeSystem::new(dir.path()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let (image, other) = (out.path().join("image"), out.path().join("other"));
        make(&system, &Change::Kernel(false), &image);
        build(&system, packing, None, &image);
        for changes in rounds {
            changes.iter().for_each(|change| make(&system, change, &image));
            let again = build(&system, packing, Some(&image), &image);
            let new = build(&system, packing, None, &other);
            prop_assert!(again == new, "{changes:?}");
        }
    }
}

#[test]
fn after_one_module_has_changed_no_other_is_read_and_no_other_part_is_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let system = FakeSystem::new(dir.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let image = out.path().join("image");
    make(&system, &Change::Kernel(false), &image);
    let before = build(&system, Packing::Zstd, None, &image);
    // A damaged file whose size, time and inode are those of before would be an error if anybody read it.
    let jbd2 = system.root.join(format!("lib/modules/{RELEASE}/kernel/lib/jbd2.ko"));
    let (meta, size) = (fs::metadata(&jbd2).unwrap(), fs::read(&jbd2).unwrap().len());
    fs::write(&jbd2, vec![b'x'; size]).unwrap();
    fs::File::open(&jbd2).unwrap().set_modified(meta.modified().unwrap()).unwrap();
    make(&system, &Change::Module(0, 1), &image);
    let after = build(&system, Packing::Zstd, Some(&image), &image);
    let parts = |image: &[u8]| {
        let archive = Archive::read(image).unwrap();
        let packed = archive.parts.iter().filter(|part| part.codec.is_some());
        packed.map(|part| image[part.place.clone()].to_vec()).collect::<Vec<_>>()
    };
    let (before, after) = (parts(&before), parts(&after));
    assert_eq!((before.len(), after.len()), (3, 3), "programs, modules, the rest");
    assert!(before[0] == after[0] && before[1] != after[1]);
    make(&system, &Change::Module(1, 1), &image);
    make(&system, &Change::Configuration(true), &image);
    let last = parts(&build(&system, Packing::Zstd, Some(&image), &image));
    assert!(last[0] == after[0] && last[1] != after[1] && last[2] != after[2]);
}
