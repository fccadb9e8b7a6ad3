//! Every fuzz target for a moment, on the stable compiler: the seeds that long runs have left, and what comes of changing
//! them here and there. The same bytes in every run.
//! May surprise: the targets' own files are compiled; what they take from libfuzzer is this crate's here.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, clippy::panic, unused_attributes)]
#![allow(clippy::duplicate_mod)] // each target has its recipes, as when it stands alone

extern crate self as libfuzzer_sys;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest input; libfuzzer's default.
const LONGEST: usize = 4096;

/// How long a target is tried with what is made of its seeds.
const MOMENT: Duration = Duration::from_millis(700);

/// What comes of nothing but a number, the same every time.
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// A seed with some bytes changed, put in, cut out or taken from another one.
    fn change(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match seeds {
            [] => Vec::new(),
            seeds => seeds[self.below(seeds.len())].clone(),
        };
        for _ in 0..=self.below(5) {
            let at = self.below(input.len());
            match self.below(5) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 if !input.is_empty() => {
                    let end = at + self.below(input.len() - at);
                    input.drain(at..end);
                }
                3 if !seeds.is_empty() => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    input.splice(at..at, other[from..].iter().copied().take(64));
                }
                _ => {
                    let len = 1 + self.below(40);
                    let some = self.bytes(len);
                    input.splice(at..at, some);
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}

/// The seeds of a target, one to a line in hexadecimal.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let file = fuzz_folder().join("seeds").join(name).with_extension("hex");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let line = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
    fs::read_to_string(file).unwrap().lines().map(line).collect()
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn run(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    assert!(seeds.len() > 10, "{name} has no seeds");
    seeds.iter().for_each(|seed| target(seed));
    let mut noise = Noise(0x6b64_756d_7021);
    let clock = Instant::now();
    while clock.elapsed() < MOMENT {
        target(&noise.change(&seeds));
    }
}

macro_rules! targets {
    ($($name:ident $file:literal $sentence:ident,)*) => {$(
        #[path = $file]
        mod $name;

        #[test]
        fn $sentence() {
            run(stringify!($name), $name::target);
        }
    )*

        /// For a long run of `cargo fuzz`, which wants a file for each.
        #[test]
        #[ignore = "writes to fuzz/corpus"]
        fn seeds_become_a_corpus() {
            for name in [$(stringify!($name)),*] {
                let corpus = fuzz_folder().join("corpus").join(name);
                fs::create_dir_all(&corpus).unwrap();
                for (number, seed) in seeds(name).iter().enumerate() {
                    fs::write(corpus.join(format!("seed-{number}")), seed).unwrap();
                }
            }
        }
    };
}

targets! {
    dmesg "../fuzz/fuzz_targets/dmesg.rs" a_damaged_log_is_read_within_bounds,
    dumpfile "../fuzz/fuzz_targets/dumpfile.rs" a_damaged_dump_is_read_within_bounds,
    elf "../fuzz/fuzz_targets/elf.rs" damaged_elf_headers_are_read_within_bounds,
    flattened "../fuzz/fuzz_targets/flattened.rs" a_damaged_stream_is_the_same_rebuilt_and_where_it_lies,
    live_patches "../fuzz/fuzz_targets/live_patches.rs" damaged_symbols_and_lists_are_read_within_bounds,
    lzo "../fuzz/fuzz_targets/lzo.rs" any_bytes_are_unpacked_within_bounds_and_come_back_packed,
    paging "../fuzz/fuzz_targets/paging.rs" any_page_tables_are_walked_within_bounds,
    pipeline "../fuzz/fuzz_targets/pipeline.rs" a_damaged_machine_is_dumped_and_every_page_accounted_for,
    refilter "../fuzz/fuzz_targets/refilter.rs" a_damaged_dump_is_filtered_once_more,
    sections "../fuzz/fuzz_targets/sections.rs" damaged_sections_are_looked_at_within_bounds,
    vmcoreinfo "../fuzz/fuzz_targets/vmcoreinfo.rs" any_text_is_asked_every_question,
}

/// A target as a function; behind the targets, since they name it as their own.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn target($data: &[u8]) $body
    };
}
