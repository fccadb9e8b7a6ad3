//! Arbitrary text behind `crashkernel=`. What is read is written so that it is read again.

#![no_main]

use kdump_builder::crashkernel::Crashkernel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Crashkernel::of_command_line(text);
    if let Ok(value) = text.parse::<Crashkernel>() {
        assert_eq!(value.to_string().parse::<Crashkernel>().ok().as_ref(), Some(&value));
        let _ = value.reserves(1 << 33);
    }
});
