//! Every kind of page, on every kernel that encoded it differently: `recipes/verdicts.toml`.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Era, Leaf, Machine, kept};
use kdump_capture::compress::Kind;
use kdump_capture::report::Outcome;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recipes {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    kernels: Vec<String>,
    level: u8,
    page: Vec<Page>,
    drop: Vec<(String, u64, u64)>,
    #[serde(default)]
    damaged: bool,
}

#[derive(Deserialize)]
struct Page {
    at: u64,
    is: Vec<String>,
}

#[test]
fn every_kind_of_page_is_known_on_every_kernel() {
    let recipes: Recipes = toml::from_str(include_str!("recipes/verdicts.toml")).unwrap();
    for case in &recipes.case {
        let eras: Vec<Era> = case.kernels.iter().map(|k| Era::named(k)).collect();
        for era in if eras.is_empty() { Era::ALL.to_vec() } else { eras } {
            for (levels, leaf) in [(4, Leaf::M2), (5, Leaf::M2), (4, Leaf::K4), (5, Leaf::K4)] {
                check(case, era, levels, leaf);
            }
        }
    }
}

fn check(case: &Case, era: Era, levels: u32, leaf: Leaf) {
    let what = format!("{:?}, {levels} levels, {leaf:?}: {}", era, case.name);
    let mut machine = Machine::new(era, levels, leaf);
    for page in &case.page {
        let kinds: Vec<&str> = page.is.iter().map(String::as_str).collect();
        machine.set(page.at, &kinds);
    }
    let (report, bytes) = machine.dump(&machine.memory(), case.level, Kind::None, 1, usize::MAX);
    assert_eq!(report.outcome, Outcome::Complete, "{what}: {:?}", report.problems);
    assert_eq!(report.problems.iter().any(|p| p.contains("contradict")), case.damaged, "{what}: {:?}", report.problems);
    assert_eq!(report.problems.len(), usize::from(case.damaged), "{what}: {:?}", report.problems);

    let dropped: BTreeSet<u64> = case.drop.iter().flat_map(|(_, at, pages)| *at..at + pages).collect();
    let found: BTreeSet<u64> = kept(&bytes).iter().map(|(pfn, _)| pfn.0).collect();
    let all: BTreeSet<u64> = (0x100..0x600).collect();
    assert_eq!(all.difference(&found).copied().collect::<BTreeSet<_>>(), dropped, "{what}");
    let counts = serde_json::to_value(report.pages).unwrap();
    for kind in ["cache", "private_cache", "user", "free", "hwpoison", "offline"] {
        let want: u64 = case.drop.iter().filter(|(k, _, _)| k == kind).map(|(_, _, pages)| pages).sum();
        assert_eq!(counts[kind], want, "{what}: {kind}");
    }
}
