//! Any kernel command line asks for some boot or for none, and any mountinfo leads to some steps: no panic, the wait has
//! an end, and nothing of the new root is moved or let go.
#![no_main]

use kdump_hooks::cmdline::Cmdline;
use kdump_init::config::Normal;
use kdump_init::normal::Request;
use kdump_init::normal::switch::{Step, steps};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::time::Duration;

fuzz_target!(|text: &str| {
    let known = Normal { root: "UUID=12-34".parse().ok(), rootfstype: Some("ext4".into()), ..Normal::default() };
    for normal in [Normal::default(), known] {
        if let Ok(request) = Request::of(&Cmdline::parse(text), &normal, Duration::from_secs(9)) {
            assert!(request.limit <= Duration::from_secs(86_400));
            assert!(request.options.iter().filter(|option| *option == "ro").count() <= 1);
        }
    }
    for step in steps(text, Path::new("/sysroot"), &|point| point.as_os_str().len() % 2 == 0) {
        let (Step::Move(point) | Step::LetGo(point)) = step;
        assert!(point != Path::new("/") && !point.starts_with("/sysroot"));
    }
});
