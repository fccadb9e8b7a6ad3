//! Whether a module file ends as a signed one does. The kernel verifies; this only tells its refusals apart.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The last bytes of a signed module (`MODULE_SIG_STRING` of linux/module_signature.h).
const MARKER: &[u8] = b"~Module signature appended~\n";

/// Whether a signature is appended to the file.
pub fn is_signed(file: &mut File) -> std::io::Result<bool> {
    let length = i64::try_from(MARKER.len()).unwrap_or_default();
    let mut end = vec![0; MARKER.len()];
    file.seek(SeekFrom::End(-length))?;
    file.read_exact(&mut end)?;
    Ok(end == MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_marker_at_the_end_tells() {
        for (content, expected) in [(&b"\x7fELF...~Module signature appended~\n"[..], true), (&[0; 100], false)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            assert_eq!(is_signed(&mut file).unwrap(), expected);
        }
        assert!(is_signed(&mut tempfile::tempfile().unwrap()).is_err());
    }
}
