//! Arbitrary bytes as an lzo block; and as a page, which must come back.

#![no_main]

use kdump_capture::compress::Kind;
use kdump_capture::compress::lzo::unpack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut page = vec![0; 4096];
    if let Some(len) = unpack(data, &mut page) {
        assert!(len <= page.len());
    }
    // Short inputs become pages by repeating themselves.
    let page: Vec<u8> = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { 4096 }).collect();
    let mut packed = vec![0; Kind::Lzo.room(4096)];
    if let Some(len) = Kind::Lzo.codec(None).pack(&page, &mut packed) {
        let mut back = vec![0; 4096];
        assert_eq!(unpack(&packed[..len], &mut back), Some(4096));
        assert!(back == page);
    }
});
