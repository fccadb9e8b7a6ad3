//! How much memory it takes to open a LUKS volume.
//!
//! In: the volume. Out: the most that a key slot's Argon2 takes. May surprise: a capture kernel often has less, and each
//! slot that does not fit the key is tried with all of it, so that a cheap slot for the key file is no remedy alone.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The binary header; the JSON is behind it.
const BINARY: usize = 4096;
/// No header is longer.
const MOST: u64 = 4 << 20;

#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, Slot>,
}

#[derive(Deserialize)]
struct Slot {
    kdf: Kdf,
}

#[derive(Deserialize)]
struct Kdf {
    #[serde(default)]
    memory: u64,
}

/// The KiB that opening the volume may take; 0, if no slot takes much. `None` if it is no LUKS2 volume.
pub fn memory(device: &Path) -> Option<u64> {
    let mut header = Vec::new();
    File::open(device).ok()?.take(MOST).read_to_end(&mut header).ok()?;
    memory_of(&header)
}

/// As [`memory`], of the start of a volume.
pub fn memory_of(header: &[u8]) -> Option<u64> {
    if !header.starts_with(b"LUKS\xba\xbe\0\x02") {
        return None;
    }
    let size = u64::from_be_bytes(header.get(8..16)?.try_into().ok()?).min(MOST);
    let json = header.get(BINARY..usize::try_from(size).ok()?.min(header.len()))?;
    let text = json.split(|byte| *byte == 0).next()?;
    let metadata: Metadata = serde_json::from_slice(text).ok()?;
    Some(metadata.keyslots.values().map(|slot| slot.kdf.memory).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Vec<u8> {
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[BINARY..BINARY + json.len()].copy_from_slice(json.as_bytes());
        header
    }

    #[test]
    fn the_slot_that_takes_most_decides() {
        let json = r#"{"keyslots":{"0":{"type":"luks2","kdf":{"type":"argon2id","time":4,"memory":1048576,"cpus":4}},
            "1":{"type":"luks2","kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000}}},"segments":{}}"#;
        assert_eq!(memory_of(&header(json)), Some(1_048_576));
        assert_eq!(memory_of(&header(r#"{"keyslots":{}}"#)), Some(0));
        assert_eq!(memory_of(b"LUKS\xba\xbe\0\x01"), None);
        assert_eq!(memory_of(&header("no json")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_taken_in_peace(text: String, size: u64) {
            let mut header = header("");
            header[8..16].copy_from_slice(&size.to_be_bytes());
            header.truncate(BINARY);
            header.extend(text.bytes());
            let _ = memory_of(&header);
        }
    }
}
