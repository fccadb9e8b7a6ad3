//! Arbitrary text as the command line's words for a network, as KDUMP_NETCONFIG, as resolv.conf, as an NFS export. What
//! is understood survives the way through the image configuration.

#![no_main]

use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::net::dns::ResolvConf;
use kdump_hooks::net::{NetConfig, Network, options};
use kdump_hooks::nfs::Nfs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, String)| {
    let (word, text) = data;
    let word = options::WORDS[usize::from(word) % options::WORDS.len()];
    for line in [text.clone(), format!("{word}={text}")] {
        if let Ok(Some(network)) = Network::from_cmdline(&Cmdline::parse(&line)) {
            assert!(network.bottom_up().is_ok());
            for cidr in network.interfaces.iter().flat_map(|interface| &interface.addresses) {
                assert_eq!(cidr.to_string().parse(), Ok(*cidr));
            }
        }
    }
    let _ = NetConfig::parse(&text);
    let conf = ResolvConf::parse(&text);
    assert_eq!(ResolvConf::parse(&conf.text()), conf);
    if let Ok(nfs) = text.parse::<Nfs>() {
        assert_eq!(nfs.to_string().strip_prefix("nfs ").map(str::parse), Some(Ok(nfs)));
    }
});
