//! Arbitrary bytes as a signed module, as what certificates lie about in, and as a variable of the firmware: they end in
//! who signed it, in certificates, or in none.

#![no_main]

use kdump_hooks::signatures::{Signature, in_bytes, in_signature_lists};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The end of a signed module is given, so that what stands before it is reached.
    let length = u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
    let module = [&b"ELF"[..], bytes, &[0, 0, 2, 0, 0, 0, 0, 0], &length, b"~Module signature appended~\n"].concat();
    if let (Signature::By(signers), true) = (Signature::of(&module), bytes.len() < 8) {
        panic!("{} signers in {} bytes", signers.len(), bytes.len());
    }
    let _ = Signature::of(bytes);
    // No certificate is shorter than what begins it.
    assert!(in_bytes(bytes).len() <= bytes.len() / 13);
    assert!(in_signature_lists(bytes).len() <= bytes.len() / 16);
});
