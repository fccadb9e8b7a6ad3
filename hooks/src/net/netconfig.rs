//! SUSE's `KDUMP_NETCONFIG` (kdump(5)): `auto`, or `DEVICE:MODE`, either with `:force` behind it.
//!
//! `force` means a network even if the dump goes to a local disk.

use super::model::{Method, Network};
use super::options::checked;
use anyhow::bail;

/// What `KDUMP_NETCONFIG` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// How the network is made.
    pub source: Source,
    /// Whether there is one even if no target needs it.
    pub force: bool,
}

/// Where the network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the running system.
    Auto,
    /// One device of the running system as it is configured there.
    Static(String),
    /// One device, and how it gets its address.
    Device(String, Method),
}

impl NetConfig {
    /// Reads the value.
    ///
    /// # Errors
    /// It has none of the forms.
    pub fn parse(value: &str) -> anyhow::Result<NetConfig> {
        let (value, force) = value.strip_suffix(":force").map_or((value, false), |value| (value, true));
        let source = match value.split_once(':') {
            None if matches!(value, "" | "auto") => Source::Auto,
            None => bail!("`{value}` is neither `auto` nor DEVICE:MODE"),
            Some((device, mode)) => {
                let device = checked(device)?.to_owned();
                match mode {
                    "static" => Source::Static(device),
                    "dhcp" | "dhcp4" => Source::Device(device, Method::Dhcp),
                    "dhcp6" => Source::Device(device, Method::Dhcp6),
                    "auto6" => Source::Device(device, Method::Auto6),
                    "auto" => Source::Device(device, Method::Any),
                    _ => bail!("`{mode}` is not a mode; write static, dhcp, dhcp4, dhcp6, auto6 or auto"),
                }
            }
        };
        Ok(NetConfig { source, force })
    }
}

impl Source {
    /// The network of one device, if that is what it is.
    pub fn network(&self) -> Option<Network> {
        let Source::Device(device, method) = self else { return None };
        let mut network = Network::default();
        network.interface(device).acquire = vec![*method];
        Some(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_suse_is_known() {
        for (value, source, force) in [
            ("auto", Source::Auto, false),
            ("auto:force", Source::Auto, true),
            ("eth0:static", Source::Static("eth0".into()), false),
            ("eth0:dhcp", Source::Device("eth0".into(), Method::Dhcp), false),
            ("eth0:dhcp4:force", Source::Device("eth0".into(), Method::Dhcp), true),
            ("eth0:dhcp6", Source::Device("eth0".into(), Method::Dhcp6), false),
            ("eth0:auto6", Source::Device("eth0".into(), Method::Auto6), false),
            ("eth0:auto", Source::Device("eth0".into(), Method::Any), false),
        ] {
            assert_eq!(NetConfig::parse(value).unwrap(), NetConfig { source, force }, "{value}");
        }
        for value in ["eth0", "eth0:yes", "a/b:dhcp", ":dhcp"] {
            assert!(NetConfig::parse(value).is_err(), "{value}");
        }
    }
}
