//! Arbitrary bytes as the header of a raw target, as they are and with a checksum that is right: they end in an error, or
//! in parts that do not overlap and that are read back as they are written.

#![no_main]

use kdump_hooks::raw::layout::{ALIGNMENT, Header, MAGIC, State, VERSION};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| {
    let mut whole = MAGIC.to_vec();
    whole.extend(VERSION.to_le_bytes());
    whole.extend(data);
    whole.resize(480, 0);
    let checksum = Sha256::digest(&whole);
    whole.extend(checksum);
    for bytes in [data, &whole] {
        let Ok(header) = Header::decode(bytes) else { continue };
        let mut free = ALIGNMENT;
        for part in header.parts.iter().filter(|part| part.state != State::Nothing) {
            assert!(part.offset >= free && part.end() >= part.offset);
            free = part.end();
        }
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
});
