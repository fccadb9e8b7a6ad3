//! Arbitrary bytes as the answers of DHCP servers and nameservers, as they are and behind a header that is right.

#![no_main]

use kdump_hooks::fake::dhcp_reply;
use kdump_hooks::net::{Mac, dhcp4, dhcp6, dns};
use libfuzzer_sys::fuzz_target;

const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fuzz_target!(|data: &[u8]| {
    let _ = dhcp4::parse(data, 0, Mac([0; 6]));
    if let Some(message) = dhcp4::parse(&dhcp_reply(7, MAC, 5, data), 7, MAC) {
        assert!(message.lease.routes.len() <= 16 && message.lease.nameservers.len() <= 16);
        assert!(message.lease.routes.iter().all(|(to, _)| to.prefix <= 32));
    }
    let mut six = vec![7, 0, 0, 9, 0, 1, 0, 10, 0, 3, 0, 1];
    six.extend(MAC.0);
    six.extend(data);
    for bytes in [data, &six] {
        if let Some(lease) = dhcp6::parse(bytes, 7, 9, MAC) {
            assert!(lease.nameservers.len() <= 16 && lease.address.is_ipv6());
        }
    }
    for kind in [1, 28] {
        let _ = dns::parse(data, 0, kind);
        // One question for `a`, and answers as many as fit.
        let mut answer = vec![0, 0, 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        answer.extend(data);
        let _ = dns::parse(&answer, 0, kind);
    }
});
