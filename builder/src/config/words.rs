//! Words that nobody knows, and those that were meant.

/// What is farther off was not meant.
const FAR: usize = 3;

/// The word that was probably meant by `typed`.
pub(super) fn nearest<'a>(typed: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // In a short word, a few letters are all of it.
    let far = FAR.min(typed.chars().count() / 2);
    let near = words.into_iter().map(|word| (distance(word, typed), word)).min()?;
    (near.0 <= far).then_some(near.1)
}

/// How many letters have to be changed, added or taken away to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for ((&y, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let (&diagonal, &up) = (pair.first().unwrap_or(&0), pair.get(1).unwrap_or(&0));
            let left = next.get(left).copied().unwrap_or(0);
            next.push((diagonal + usize::from(x != y)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_recognised_and_a_foreign_one_is_not() {
        let words = ["path", "core_collector", "KDUMP_SAVEDIR"];
        for (typed, meant) in [
            ("pth", Some("path")),
            ("corecollector", Some("core_collector")),
            ("KDUMP_SAVDIR", Some("KDUMP_SAVEDIR")),
            ("abracadabra", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("ab", "ba")), (3, 0, 2));
    }
}
