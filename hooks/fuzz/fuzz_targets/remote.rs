//! Arbitrary text as the address of another machine. What is accepted is read again as it is written, and no password is
//! in what is shown.

#![no_main]

use kdump_hooks::remote::Remote;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(remote) = text.parse::<Remote>() else { return };
    let shown = remote.to_string();
    let again: Remote = shown.parse().expect("what is shown cannot be read");
    assert_eq!((again.protocol, &again.server, again.port), (remote.protocol, &remote.server, remote.port));
    assert!(again.login.password.0.is_none(), "{shown}");
});
