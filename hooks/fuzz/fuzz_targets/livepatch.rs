//! Arbitrary bytes as the end of an image, alone and with the end of a boot configuration; and as the marker of the
//! boot-loop guard, which is read back as it is written, in GRUB's environment block as well.

#![no_main]

use kdump_hooks::livepatch::{Accounts, grub, overlay};
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|data: &[u8]| {
    for end in [&b""[..], b"#BOOTCONFIG\n"] {
        let image = [data, end].concat();
        let Ok((found, bootconfig)) = overlay::find(&mut Cursor::new(&image)) else { panic!("memory can be read") };
        assert!(bootconfig.len() <= image.len());
        if let Some(found) = found {
            assert!(found.start < found.end && found.end <= image.len() as u64);
        }
    }
    let accounts = Accounts::parse(&String::from_utf8_lossy(data));
    assert_eq!(Accounts::parse(&accounts.to_string()), accounts);
    if let Ok(block) = grub::with(&String::from_utf8_lossy(data), &accounts.to_string()) {
        assert_eq!(block.len(), 1024);
        assert_eq!(grub::kept(&block).boots, 0);
    }
});
