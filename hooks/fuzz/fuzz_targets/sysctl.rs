//! Any text is a sysctl file: no panic, no key leads out of /proc/sys, and a setting is read back as it is written.
#![no_main]

use kdump_hooks::sysctl::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for setting in parse(text).settings {
        assert!(!setting.key.starts_with('/') && !setting.key.split('/').any(|part| part.is_empty() || part == ".."));
        // A key whose first separator is a slash means itself.
        let key = format!("net/{}", setting.key);
        let written = kdump_hooks::sysctl::Setting { key, ..setting };
        assert_eq!(parse(&written.to_string()).settings, [written]);
    }
});
