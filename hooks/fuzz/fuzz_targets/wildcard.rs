//! Arbitrary patterns and texts, against the definition of a wildcard match.

#![no_main]

use kdump_hooks::kmod::matches;
use libfuzzer_sys::fuzz_target;

/// `*` and `?` as they are defined. Takes exponential time, so texts are short.
fn defined(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| defined(rest, &text[skipped..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(byte, tail)| (*first == b'?' || first == byte) && defined(rest, tail))
        }
    }
}

fuzz_target!(|texts: (String, String)| {
    let (pattern, text) = texts;
    let ours = matches(&pattern, &text);
    // Sets and escapes have tables of their own; here it is enough that they end.
    if !pattern.contains(['[', ']', '\\']) && pattern.len() <= 12 && text.len() <= 16 {
        assert_eq!(ours, defined(pattern.as_bytes(), text.as_bytes()), "{pattern:?} {text:?}");
    }
});
