//! Text to value: what the kernel's `memparse` and its readers of `crashkernel=` take, and nothing else.
//!
//! May surprise: the kernel stops reading where it no longer understands, so `1.5G` and `256MB` would come to 1 byte or to
//! nothing there. Both are errors here that say what to write instead.

use super::{Bytes, Crashkernel, Range, Value};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use std::str::FromStr;

impl Crashkernel {
    /// What a kernel command line says; `None` if it says nothing.
    ///
    /// # Errors
    /// A word that the kernel would not take.
    pub fn of_command_line(line: &str) -> anyhow::Result<Option<Crashkernel>> {
        let cmdline = Cmdline::parse(line);
        let words = cmdline.values("crashkernel").map(Value::from_str).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((!words.is_empty()).then_some(Crashkernel { words }))
    }
}

/// What follows `crashkernel=`; further words come after blanks and may repeat the name.
impl FromStr for Crashkernel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Crashkernel> {
        let words = text
            .split_whitespace()
            .map(|word| word.strip_prefix("crashkernel=").unwrap_or(word).parse())
            .collect::<anyhow::Result<Vec<Value>>>()?;
        if words.is_empty() {
            bail!("there is no value; write one such as 256M");
        }
        let has = |kind: fn(&Value) -> bool| words.iter().any(kind);
        if has(|word| matches!(word, Value::Low(_))) && !has(|word| matches!(word, Value::High(_))) {
            bail!("`,low` has no effect without `,high`; write both, such as `512M,high crashkernel=72M,low`");
        }
        if words.iter().all(|word| matches!(word, Value::Cma(_))) {
            bail!("`,cma` only adds to another value; write both, such as `128M crashkernel=512M,cma`");
        }
        Ok(Crashkernel { words })
    }
}

impl FromStr for Value {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Value> {
        read(text).with_context(|| format!("crashkernel={text} is not a value that the kernel takes"))
    }
}

fn read(text: &str) -> anyhow::Result<Value> {
    if text == "auto" {
        return Ok(Value::Auto);
    }
    // Of this one alone nothing is a size: none is to be reserved below 4 GiB.
    if let Some(size) = text.strip_suffix(",low") {
        return Ok(Value::Low(bytes(size)?));
    }
    for (suffix, kind) in [(",high", Value::High as fn(u64) -> Value), (",cma", Value::Cma)] {
        if let Some(size) = text.strip_suffix(suffix) {
            return Ok(kind(size_of(size)?));
        }
    }
    let (amount, at) = match text.split_once('@') {
        Some((amount, at)) => (amount, Some(bytes(at)?)),
        None => (text, None),
    };
    if !amount.contains(':') {
        return Ok(Value::Size { size: size_of(amount)?, at });
    }
    let ranges = amount.split(',').map(range).collect::<anyhow::Result<Vec<Range>>>()?;
    Ok(Value::Ranges { ranges, at })
}

fn range(text: &str) -> anyhow::Result<Range> {
    let shape = || format!("`{text}` is not FROM-[TO]:SIZE, such as 1G-4G:160M or 4G-:256M");
    let (span, size) = text.split_once(':').with_context(shape)?;
    let (from, to) = span.split_once('-').with_context(shape)?;
    let from = bytes(from)?;
    let to = (!to.is_empty()).then(|| bytes(to)).transpose()?;
    if to.is_some_and(|to| to <= from) {
        bail!("`{span}` ends before it begins; write the smaller memory first");
    }
    // A size of nothing says that such a machine reserves nothing.
    Ok(Range { from, to, size: bytes(size)? })
}

fn size_of(text: &str) -> anyhow::Result<u64> {
    match bytes(text)? {
        0 => bail!("a size of 0 reserves nothing; leave crashkernel= out instead"),
        size => Ok(size),
    }
}

/// A number as `memparse` reads it: decimal, octal after a 0, hexadecimal after 0x; then K, M, G, T, P or E, or nothing.
fn bytes(text: &str) -> anyhow::Result<u64> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, unit)) => match "kmgtpe".find(unit.to_ascii_lowercase()) {
            // The last digit of a hexadecimal number may be an e.
            Some(_) if is_hexadecimal(text) && unit.eq_ignore_ascii_case(&'e') => (text, 0),
            Some(place) => (text.get(..at).unwrap_or_default(), 10 * (place + 1)),
            None => (text, 0),
        },
        None => bail!("there is no number where one is needed; write one such as 256M"),
    };
    let lower = digits.to_ascii_lowercase();
    let number = match lower.strip_prefix("0x") {
        Some(digits) => whole(digits, 16),
        None if lower.len() > 1 && lower.starts_with('0') => whole(&lower, 8),
        None => whole(&lower, 10),
    };
    let Some(number) = number else { bail!("`{text}` is not a whole number of bytes, K, M, G or T{}", remedy(text)) };
    let bytes = u32::try_from(shift).ok().and_then(|shift| number.checked_mul(1_u64.checked_shl(shift)?));
    bytes.with_context(|| format!("`{text}` is more memory than there can be"))
}

/// Rust takes a sign in front of digits, the kernel does not.
fn whole(digits: &str, radix: u32) -> Option<u64> {
    let all = digits.chars().all(|digit| digit.is_digit(radix));
    all.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

fn is_hexadecimal(text: &str) -> bool {
    text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"))
}

/// What to write in place of a fraction, or of a unit with too many letters.
fn remedy(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let start = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(start.len()..).and_then(|unit| unit.chars().next());
    let shift = match unit {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        _ => return String::new(),
    };
    let (whole, fraction) = start.split_once('.').unwrap_or((start, "0"));
    let places = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    let exact = (|| {
        let unit = 1_u128 << shift;
        let tens = 10_u128.checked_pow(places)?;
        let part = fraction.parse::<u64>().ok()?;
        let bytes =
            u128::from(whole.parse::<u64>().ok()?).checked_mul(unit)?.checked_add(u128::from(part) * unit / tens)?;
        // In whole MiB, upwards: more than was asked for does no harm.
        u64::try_from(bytes.div_ceil(1 << 20) << 20).ok()
    })();
    exact.map(|bytes| format!("; write {}", Bytes(bytes))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_syntax_is_read_as_the_kernel_reads_it() {
        let size = |size, at| Value::Size { size, at };
        for (text, expected) in [
            ("256M", size(256 << 20, None)),
            ("256m", size(256 << 20, None)),
            ("1g@16M", size(1 << 30, Some(16 << 20))),
            ("0x8000000", size(128 << 20, None)),
            ("0x1e", size(0x1e, None)),
            ("0X80m", size(128 << 20, None)),
            ("0200M", size(128 << 20, None)),
            ("262144K@0", size(256 << 20, Some(0))),
            ("auto", Value::Auto),
            ("512M,high", Value::High(512 << 20)),
            ("72M,low", Value::Low(72 << 20)),
            ("0,low", Value::Low(0)),
            ("1G,cma", Value::Cma(1 << 30)),
            (
                "384M-:128M",
                Value::Ranges { ranges: vec![Range { from: 384 << 20, to: None, size: 128 << 20 }], at: None },
            ),
            (
                "1G-4G:160M,4G-:0@16M",
                Value::Ranges {
                    ranges: vec![
                        Range { from: 1 << 30, to: Some(4 << 30), size: 160 << 20 },
                        Range { from: 4 << 30, to: None, size: 0 },
                    ],
                    at: Some(16 << 20),
                },
            ),
        ] {
            assert_eq!(text.parse::<Value>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_would_not_read_to_its_end_is_an_error_with_a_remedy() {
        for (text, words) in [
            ("1.5G", "write 1536M"),
            ("0.25g", "write 256M"),
            ("256MB", "write 256M"),
            ("256MiB", "write 256M"),
            ("20%", "`20%` is not a whole number"),
            ("", "there is no value"),
            ("0", "leave crashkernel= out"),
            ("0,high", "leave crashkernel= out"),
            ("+5M", "not a whole number"),
            ("256M@", "there is no number"),
            ("4G-1G:128M", "ends before it begins"),
            ("1G:128M", "is not FROM-[TO]:SIZE"),
            ("1G-4G:128M,", "is not FROM-[TO]:SIZE"),
            ("99999999999999999999M", "not a whole number"),
            ("999999999999E", "more memory than there can be"),
            ("128M,middle", "not a whole number"),
            ("72M,low", "has no effect without `,high`"),
            ("1G,cma", "only adds to another"),
        ] {
            let error = format!("{:#}", text.parse::<Crashkernel>().unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_command_line_has_it_in_several_words_or_not_at_all() {
        let line = "ro crashkernel=512M,high quiet crashkernel=72M,low";
        let found = Crashkernel::of_command_line(line).unwrap().unwrap();
        assert_eq!(found.to_string(), "512M,high crashkernel=72M,low");
        assert_eq!(found.on_command_line(), ["crashkernel=512M,high", "crashkernel=72M,low"]);
        assert_eq!(Crashkernel::of_command_line("ro quiet").unwrap(), None);
        assert!(Crashkernel::of_command_line("crashkernel=x").is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let at = proptest::option::of(any::<u64>());
        let range = (any::<u64>(), 1..u64::MAX, any::<bool>(), any::<u64>()).prop_map(|(from, more, open, size)| {
            let to = from.checked_add(more).filter(|_| !open);
            Range { from, to, size }
        });
        prop_oneof![
            Just(Value::Auto),
            (1..u64::MAX, at.clone()).prop_map(|(size, at)| Value::Size { size, at }),
            (proptest::collection::vec(range, 1..5), at).prop_map(|(ranges, at)| Value::Ranges { ranges, at }),
            (1..u64::MAX).prop_map(Value::High),
            any::<u64>().prop_map(Value::Low),
            Just(Value::Low(0)),
            (1..u64::MAX).prop_map(Value::Cma),
            (1..1_u64 << 24).prop_map(|mib| Value::Size { size: mib << 20, at: None }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            prop_assert_eq!(value.to_string().parse::<Value>().unwrap(), value);
        }

        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_stays_the_same(text in "[0-9a-fA-FxkKmMgGtThiow@:,. -]{0,24}") {
            if let Ok(value) = text.parse::<Crashkernel>() {
                prop_assert_eq!(value.to_string().parse::<Crashkernel>().unwrap(), value);
            }
        }
    }
}
