//! The wildcard match of `modules.alias`: fnmatch(3) without flags, so `*` and `?` match `/` too.

/// Whether `text` is matched by `pattern`. `*`, `?`, `[set]`, `[!set]` and `\x` have their shell meaning. Work is at
/// most the product of the two lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go back to: just behind the last `*`, and the text that it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        let step = match text.get(t) {
            None if p == pattern.len() => return true,
            None => return false,
            Some(&byte) => one(pattern, p, byte),
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, swallowed))) => {
                star = Some((after, swallowed + 1));
                p = after;
                t = swallowed + 1;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the element at `p`; the position behind the element if it matches.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match set(pattern, p + 1, byte) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            // No closing bracket: an ordinary character.
            None => (byte == b'[').then_some(p + 1),
        },
        b'\\' => match pattern.get(p + 1) {
            Some(&escaped) => (escaped == byte).then_some(p + 2),
            None => (byte == b'\\').then_some(p + 1),
        },
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Evaluates the set that starts behind its `[`; whether `byte` is in it, and where the pattern goes on.
fn set(pattern: &[u8], start: usize, byte: u8) -> Option<(bool, usize)> {
    let mut p = start;
    let negated = matches!(pattern.get(p)?, b'!' | b'^');
    if negated {
        p += 1;
    }
    let first = p;
    let mut found = false;
    loop {
        let low = *pattern.get(p)?;
        if low == b']' && p > first {
            return Some((found != negated, p + 1));
        }
        let high = match (pattern.get(p + 1), pattern.get(p + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                p += 3;
                high
            }
            _ => {
                p += 1;
                low
            }
        };
        found |= (low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn aliases_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", true),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00008086d00001001sv00001AF4sd00000002bc01sc00i00", false),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("usb:v046Dp08[0-9A-C]*", "usb:v046Dp08Bx", true),
            ("usb:v046Dp08[0-9A-C]*", "usb:v046Dp08Dx", false),
            ("a[!b]c", "axc", true),
            ("a[!b]c", "abc", false),
            ("dmi*:svnX/Y:*", "dmi:bv1:svnX/Y:pn", true),
            ("*", "", true),
            ("a?c", "ac", false),
            ("[]a]x", "]x", true),
            ("a[b", "a[b", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_wildcards_matches_itself_and_any_star_around_it(text in "[a-z0-9:/]{0,20}", other in "[a-z]{0,5}") {
            prop_assert!(matches(&text, &text));
            let around = format!("*{text}*");
            let wrapped = format!("{other}{text}{other}");
            prop_assert!(matches(&around, &wrapped));
        }

        #[test]
        fn hostile_patterns_end(pattern in "[\\[\\]!*?a\\\\-]{0,40}", text in "a{0,40}") {
            matches(&pattern, &text);
        }
    }
}
