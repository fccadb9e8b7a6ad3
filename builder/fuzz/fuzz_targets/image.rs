//! Arbitrary bytes as an image that lsinitrd lists, prints and compares, that is looked at for being up to date, and from
//! which the next one is to take what has not changed.

#![no_main]

use kdump_builder::host::Tree;
use kdump_builder::inspect::{self, Order};
use kdump_builder::reuse::Old;
use kdump_builder::uptodate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    let _ = inspect::list(data, Order::Size, &mut out);
    let _ = inspect::print(data, "init", &mut out);
    let _ = inspect::modules(data, true, &mut out);
    let _ = inspect::describe(data, &mut out);
    let _ = inspect::diff(data, data, false, &mut out);
    let _ = Old::of(data.to_vec(), "6.1");
    let _ = uptodate::read(data).and_then(|it| uptodate::changed(&Tree::new("/nonexistent".as_ref()), &it));
});
