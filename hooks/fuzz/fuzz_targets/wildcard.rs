//! Arbitrary patterns and texts, against fnmatch(3) of the C library.

#![no_main]

use kdump_hooks::kmod::matches;
use libfuzzer_sys::fuzz_target;
use std::ffi::{CString, c_char, c_int};

unsafe extern "C" {
    fn fnmatch(pattern: *const c_char, text: *const c_char, flags: c_int) -> c_int;
}

fuzz_target!(|texts: (String, String)| {
    let (pattern, text) = texts;
    let ours = matches(&pattern, &text);
    // Where the C library's rules are unclear (unbalanced brackets, trailing backslash, classes, bytes beyond ASCII), it
    // is enough that ours ends.
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"[]\\".contains(&byte));
    if plain(&pattern) && plain(&text) {
        let (pattern, text) = (CString::new(pattern).unwrap(), CString::new(text).unwrap());
        // SAFETY: two strings that end in NUL and live through the call.
        let theirs = unsafe { fnmatch(pattern.as_ptr(), text.as_ptr(), 0) } == 0;
        assert_eq!(ours, theirs, "{pattern:?} {text:?}");
    }
});
