//! The order in which installed patches are loaded: that of installing, as `RELEASE/order` in the store has it.
//!
//! ```text
//!   a name to a line, the last one installed last:   kpatch_cum_v9
//!                                                    kpatch_cum_v10
//! ```
//!
//! In: the note, and the names of what is installed. Out: the same names, sorted. May surprise: what a package has put there
//! is in no note. Such patches come first, among themselves by version: digits are compared as numbers.

use crate::kmod::ModuleName;
use std::cmp::Ordering;
use std::iter::from_fn;

/// The note's name, beside the patches.
pub(super) const FILE: &str = "order";

/// The note.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order(Vec<ModuleName>);

impl Order {
    /// Reads what [`Order::to_text`] gives.
    pub fn parse(text: &str) -> Order {
        Order(text.lines().map(ModuleName::from).filter(|name| !name.as_str().is_empty()).collect())
    }

    /// A name to a line.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|name| format!("{name}\n")).collect()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a name behind all others.
    pub fn append(&mut self, name: &ModuleName) {
        self.remove(name);
        self.0.push(name.clone());
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &ModuleName) {
        self.0.retain(|other| other != name);
    }

    /// Which of two is loaded first.
    pub fn compare(&self, one: &ModuleName, other: &ModuleName) -> Ordering {
        let place = |name: &ModuleName| self.0.iter().position(|noted| noted == name);
        // None comes before any place.
        place(one).cmp(&place(other)).then_with(|| by_version(one.as_str(), other.as_str()))
    }
}

/// Names with digits compared as numbers; `v9` comes before `v10`. Only equal names are equal.
fn by_version(one: &str, other: &str) -> Ordering {
    parts(one).cmp(parts(other)).then_with(|| one.cmp(other))
}

/// Runs of digits and what stands between them. A number is its length, then its digits: it may be longer than any integer.
fn parts(name: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = name;
    from_fn(move || {
        let is_number = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|letter: char| letter.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (part, more) = rest.split_at(end);
        rest = more;
        let digits = part.trim_start_matches('0');
        Some(if is_number { (digits.len() + 1, digits) } else { (0, part) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_compared_as_numbers_and_what_is_noted_comes_last() {
        let order = Order::parse("z9\na\n");
        let mut names: Vec<ModuleName> =
            ["a", "cum_v10", "z9", "cum_v9", "cum_v9_1", "cum_v009", "cum", "fix_123456789012345678901234567890"]
                .map(ModuleName::from)
                .into();
        names.sort_by(|one, other| order.compare(one, other));
        let names: Vec<&str> = names.iter().map(ModuleName::as_str).collect();
        assert_eq!(
            names,
            ["cum", "cum_v009", "cum_v9", "cum_v9_1", "cum_v10", "fix_123456789012345678901234567890", "z9", "a"]
        );
    }

    proptest! {
        #[test]
        fn what_is_noted_is_read_back(names in proptest::collection::vec("[a-z0-9_]{1,9}", 0..9)) {
            let mut order = Order::default();
            names.iter().for_each(|name| order.append(&ModuleName::from(name.as_str())));
            prop_assert_eq!(Order::parse(&order.to_text()), order);
        }

        #[test]
        fn any_names_can_be_sorted(text in "(?s).{0,60}", mut names in proptest::collection::vec("[a-c_019é]{0,6}", 0..9)) {
            let order = Order::parse(&text);
            let compare = |a: &String, b: &String| order.compare(&ModuleName::from(a.as_str()), &ModuleName::from(b.as_str()));
            // A comparison that is none of an order is a panic here.
            names.sort_by(compare);
            prop_assert!(names.windows(2).all(|pair| compare(&pair[0], &pair[1]) != Ordering::Greater));
        }
    }
}
