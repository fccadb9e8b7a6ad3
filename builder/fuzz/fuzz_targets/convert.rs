//! Arbitrary text in any dialect: if it can be followed, the kdump.toml that is made of it asks for the same.

#![no_main]

use kdump_builder::config::settings::{convert, settings};
use kdump_builder::config::{Complaints, Config, Native, Rhel, debian};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|input: (u8, &str)| {
    let (dialect, text) = input;
    let mut complaints = Complaints::default();
    let file = Path::new("file");
    let config = match dialect % 3 {
        0 => Config { dump: Rhel::parse(text, file, &mut complaints).dump, ..Config::default() },
        1 => Config::of_sysconfig(text, file, true, &mut complaints),
        _ => {
            let (dump, system) = debian::parse(text, file, Path::new("/nowhere"), &mut complaints);
            Config { dump, system, ..Config::default() }
        }
    };
    if complaints.check().is_err() {
        return;
    }
    let Ok((written, _)) = convert(&config, Some(Path::new("/secrets"))) else { panic!("not written") };
    let back = Native::parse(&written, Path::new("kdump.toml")).expect("it can be read");
    let back = Config { dump: back.dump, system: back.system, ..Config::default() };
    let values = |config: &Config| -> Vec<String> {
        settings(config).iter().filter(|one| !one.secret).map(|one| format!("{}.{} {}", one.table, one.name, one.value)).collect()
    };
    let (again, _) = convert(&back, None).expect("no secret is left");
    assert_eq!(again.lines().count(), written.lines().count(), "{written}\n{again}");
    if config.dump.secrets().count() == 0 && !written.contains("/secrets/") {
        assert_eq!(values(&config), values(&back), "{written}");
    }
});
