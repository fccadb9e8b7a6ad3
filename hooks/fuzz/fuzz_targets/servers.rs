//! Arbitrary text as a share, as a credentials file, as web address and mail addresses, and arbitrary bytes as the answers of
//! a web server and a mail server. What is understood is read again as it is written.

#![no_main]

use kdump_hooks::cifs::{Cifs, Credentials};
use kdump_hooks::notify::http::{self, Webhook};
use kdump_hooks::notify::smtp::{self, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = http::status(data);
    let mut rest = data;
    while let Ok(reply) = Reply::read(&mut rest) {
        assert!(!reply.lines.is_empty());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cifs) = text.parse::<Cifs>() {
        assert_eq!(cifs.to_string().strip_prefix("cifs ").map(str::parse), Some(Ok(cifs)));
    }
    if let Ok(credentials) = Credentials::parse(text) {
        assert_eq!(Credentials::parse(&credentials.text()).ok(), Some(credentials));
    }
    if let Ok(webhook) = text.parse::<Webhook>() {
        assert_eq!(String::from(webhook.clone()).parse(), Ok(webhook));
    }
    if let Ok(addresses) = smtp::addresses(text) {
        assert!(addresses.iter().all(|address| !address.contains(['\r', '\n', '<', '>', ' '])));
    }
    let _ = smtp::server(text);
});
