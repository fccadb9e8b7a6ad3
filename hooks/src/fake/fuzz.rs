//! Fuzz targets for a moment, on the stable compiler: seeds, and what comes of changing them here and there. The same
//! bytes in every run.
//!
//! In: targets and their seeds, as [`fuzz_targets`](crate::fuzz_targets) lists them. Out: nothing, or the target's own panic
//! and the input it came of. May surprise: the targets' own files are compiled by the test; what they take from libfuzzer is
//! [`fuzz_target`](crate::fuzz_target) and [`Input`] there.

use std::time::{Duration, Instant};

/// The longest input; libfuzzer's default.
const LONGEST: usize = 4096;

/// How long a target is tried with what is made of its seeds, and with how many of them: a faster machine tries no others.
const MOMENT: Duration = Duration::from_millis(300);
const AT_MOST: usize = 20_000;

/// What a target takes, made of bytes; the numbers and texts before the last share its bytes.
pub trait Input<'a>: Sized {
    /// Takes it off the front; all that is there, if it is the last.
    fn take(bytes: &mut &'a [u8], last: bool) -> Option<Self>;
}

fn front<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(front)
}

impl<'a> Input<'a> for &'a [u8] {
    fn take(bytes: &mut &'a [u8], last: bool) -> Option<Self> {
        let end = if last { bytes.len() } else { bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()) };
        let taken = front(bytes, end);
        // What parts two texts is no part of them.
        front(bytes, usize::from(!last && !bytes.is_empty()))?;
        taken
    }
}

impl<'a> Input<'a> for &'a str {
    fn take(bytes: &mut &'a [u8], last: bool) -> Option<Self> {
        std::str::from_utf8(Input::take(bytes, last)?).ok()
    }
}

impl Input<'_> for String {
    fn take(bytes: &mut &[u8], last: bool) -> Option<Self> {
        <&str>::take(bytes, last).map(str::to_owned)
    }
}

impl Input<'_> for Vec<u8> {
    fn take(bytes: &mut &[u8], last: bool) -> Option<Self> {
        <&[u8]>::take(bytes, last).map(<[u8]>::to_vec)
    }
}

impl Input<'_> for u8 {
    fn take(bytes: &mut &[u8], _: bool) -> Option<Self> {
        front(bytes, 1)?.first().copied()
    }
}

impl Input<'_> for bool {
    fn take(bytes: &mut &[u8], last: bool) -> Option<Self> {
        u8::take(bytes, last).map(|byte| byte % 2 == 1)
    }
}

impl Input<'_> for u16 {
    fn take(bytes: &mut &[u8], _: bool) -> Option<Self> {
        Some(u16::from_le_bytes(front(bytes, 2)?.try_into().ok()?))
    }
}

impl Input<'_> for u32 {
    fn take(bytes: &mut &[u8], _: bool) -> Option<Self> {
        Some(u32::from_le_bytes(front(bytes, 4)?.try_into().ok()?))
    }
}

macro_rules! tuples {
    ($(($($name:ident)* ; $end:ident))*) => {$(
        impl<'a, $($name: Input<'a>,)* $end: Input<'a>> Input<'a> for ($($name,)* $end,) {
            fn take(bytes: &mut &'a [u8], last: bool) -> Option<Self> {
                Some(($($name::take(bytes, false)?,)* $end::take(bytes, last)?,))
            }
        }
    )*};
}

tuples! { (A; B) (A B; C) (A B C D E; F) }

/// What comes of nothing but a number, the same every time.
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }

    /// A seed with some bytes changed, put in, cut out or taken from another one.
    fn change(&mut self, seeds: &[&[u8]]) -> Vec<u8> {
        let seed = |number: usize| seeds.get(number).copied().unwrap_or_default();
        let mut input = seed(self.below(seeds.len())).to_vec();
        for _ in 0..=self.below(5) {
            let at = self.below(input.len());
            let other = seed(self.below(seeds.len()));
            let byte = u8::try_from(self.below(256)).unwrap_or(0);
            match self.below(4) {
                0 => input.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
                1 => drop(input.drain(at..at + self.below(input.len() - at))),
                2 => {
                    let from = self.below(other.len());
                    drop(input.splice(at..at, other.iter().copied().skip(from).take(64)));
                }
                _ => input.insert(at, byte),
            }
        }
        input.truncate(LONGEST);
        input
    }
}

/// An input that a target is given; told if the target panics, since nothing else says which one it was.
struct Tried<'a>(&'a [u8]);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// Gives a target its seeds, and for a moment what is made of them.
pub fn for_a_moment(target: fn(&[u8]), seeds: &[&[u8]]) {
    let give = |input: &[u8]| {
        let tried = Tried(input);
        target(tried.0);
    };
    seeds.iter().for_each(|seed| give(seed));
    let mut noise = Noise(0x6b64_756d_7021);
    let clock = Instant::now();
    for _ in (0..AT_MOST).take_while(|_| clock.elapsed() < MOMENT) {
        give(&noise.change(seeds));
    }
}

/// The targets of a crate as its tests: name, file, what holds, seeds.
#[macro_export]
macro_rules! fuzz_targets {
    ($($name:ident $file:literal $sentence:ident [$($seed:expr),* $(,)?],)*) => {$(
        #[path = $file]
        mod $name;

        #[test]
        fn $sentence() {
            $crate::fake::fuzz::for_a_moment($name::target, &[$($seed.as_ref()),*]);
        }
    )*};
}

/// A target as a function that takes bytes.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: $kind:ty| $body:block) => {
        pub(crate) fn target(mut bytes: &[u8]) {
            let input = <$kind as $crate::fake::fuzz::Input>::take(&mut bytes, true);
            if let Some(input) = input {
                run(input);
            }
        }

        fn run($data: $kind) $body
    };
}
