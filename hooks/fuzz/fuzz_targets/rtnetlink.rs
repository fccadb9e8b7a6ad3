//! Arbitrary bytes as the kernel's answers, as they are and inside a message whose frame is right.

#![no_main]

use kdump_hooks::net::rtnl::{Reply, replies};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = replies(data, 0);
    let Some((kind, body)) = data.split_first() else { return };
    let mut message = u32::try_from(body.len() + 16).unwrap_or_default().to_ne_bytes().to_vec();
    message.extend(u16::from(*kind).to_ne_bytes());
    message.extend([0; 2]);
    message.extend(7_u32.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    for reply in replies(&message, 7) {
        match reply {
            Reply::Address(address) => assert!(address.cidr.to_string().parse() == Ok(address.cidr)),
            Reply::Route(route) => assert!(route.to.is_none_or(|to| to.to_string().parse() == Ok(to))),
            _ => {}
        }
    }
});
