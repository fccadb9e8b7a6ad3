//! Arbitrary text as pacemaker's cib.xml. A node has a name only if the text has it.

#![no_main]

use kdump_builder::config::pacemaker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(Some(nodes)) = pacemaker::nodes(text) {
        assert!(text.contains("fence_kdump") || text.contains('&'), "{nodes:?}");
    }
});
