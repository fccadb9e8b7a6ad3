//! `fence_kdump_nodes` and `fence_kdump_args`.
//!
//! In: names or addresses of nodes, and options as fence_kdump_send takes them. Out: addresses; names are resolved here,
//! where there is a resolver, and once.

use super::Given;
use anyhow::{Context, bail};
use kdump_hooks::fence::{Fence, INTERVAL, PORT};
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};

/// The options of fence_kdump_send that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the nodes listen.
    pub port: u16,
    /// Seconds between two messages.
    pub interval: u64,
    /// Messages for each node; 0 is no limit.
    pub count: u64,
    /// Which of a node's addresses is taken.
    pub family: Family,
}

/// A choice among the addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The first one.
    Auto,
    /// The first one of IPv4.
    Ipv4,
    /// The first one of IPv6.
    Ipv6,
}

impl Default for Options {
    fn default() -> Options {
        Options { port: PORT, interval: INTERVAL, count: 0, family: Family::Auto }
    }
}

impl Options {
    /// Reads `-p 7410 --interval=5 …`.
    ///
    /// # Errors
    /// An option that fence_kdump_send does not have, or a value that it would not take.
    pub fn parse(text: &str) -> anyhow::Result<Options> {
        match Options::with_nodes(text)? {
            (options, nodes) if nodes.is_empty() => Ok(options),
            (_, nodes) => bail!("`{}` is not an option of fence_kdump_send", nodes.join(" ")),
        }
    }

    /// Reads a whole command line of fence_kdump_send: options, and the nodes between and behind them.
    ///
    /// # Errors
    /// As [`Options::parse`].
    pub fn with_nodes(text: &str) -> anyhow::Result<(Options, Vec<String>)> {
        let mut options = Options::default();
        let mut nodes = Vec::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                nodes.push(word.to_owned());
                continue;
            }
            let (name, attached) = match word.strip_prefix("--") {
                Some(long) => long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value))),
                None => {
                    let short = word.strip_prefix('-').filter(|short| !short.is_empty() && short.is_char_boundary(1));
                    let Some(short) = short else { bail!("`{word}` is not an option of fence_kdump_send") };
                    let (name, value) = short.split_at(1);
                    (name, Some(value).filter(|value| !value.is_empty()))
                }
            };
            if matches!(name, "v" | "verbose") {
                continue;
            }
            let known = matches!(name, "p" | "ipport" | "i" | "interval" | "c" | "count" | "f" | "family");
            if !known {
                bail!("`{word}` is not supported; -p PORT, -i SECONDS, -c COUNT and -f ipv4|ipv6|auto are");
            }
            let value = attached.or_else(|| words.next()).with_context(|| format!("`{word}` has no value"))?;
            let number = || value.parse::<u64>().with_context(|| format!("`{word}`: `{value}` is not a number"));
            match name {
                "p" | "ipport" => {
                    options.port = u16::try_from(number()?)
                        .ok()
                        .filter(|port| *port > 0)
                        .with_context(|| format!("`{word}`: `{value}` is not a port"))?;
                }
                "i" | "interval" => {
                    options.interval = number()?;
                    if !(1..=3600).contains(&options.interval) {
                        bail!("`{word}`: `{value}` is not between 1 and 3600 seconds");
                    }
                }
                "c" | "count" => options.count = number()?,
                _ => {
                    options.family = match value {
                        "auto" => Family::Auto,
                        "ipv4" => Family::Ipv4,
                        "ipv6" => Family::Ipv6,
                        _ => bail!("`{word}`: `{value}` is not a family; write ipv4, ipv6 or auto"),
                    };
                }
            }
        }
        Ok((options, nodes))
    }
}

/// As `fence_kdump_args` has them.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Auto => "auto",
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        write!(f, "-p {} -i {} -c {} -f {family}", self.port, self.interval, self.count)
    }
}

/// The nodes to be told, if any are named.
///
/// # Errors
/// A name that cannot be resolved, this machine's own name, or options that cannot be followed.
pub fn resolve(
    nodes: Option<&Given<Vec<String>>>,
    args: Option<&Given<Options>>,
    own_name: &str,
) -> anyhow::Result<Option<Fence>> {
    let Some(nodes) = nodes else { return Ok(None) };
    let options = args.map_or_else(Options::default, |args| args.value);
    let mut found = Vec::new();
    for node in &nodes.value {
        if !own_name.is_empty() && (node == own_name || own_name.split('.').next() == Some(node)) {
            bail!("{}: fence_kdump_nodes: {node} is this machine itself; name the other nodes only", nodes.origin);
        }
        let address = address(node, options.family)
            .with_context(|| format!("{}: fence_kdump_nodes: cannot find the address of {node}", nodes.origin))?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(Some(Fence { nodes: found, port: options.port, interval: options.interval, count: options.count }))
}

fn address(node: &str, family: Family) -> anyhow::Result<IpAddr> {
    let fits = |address: &IpAddr| match family {
        Family::Auto => true,
        Family::Ipv4 => address.is_ipv4(),
        Family::Ipv6 => address.is_ipv6(),
    };
    let addresses = (node, PORT).to_socket_addrs().context("write its address in its place")?;
    let address = addresses.map(|address| address.ip()).find(fits);
    address.context("it has none of the family that fence_kdump_args asks for")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use proptest::prelude::*;

    #[test]
    fn options_are_those_of_fence_kdump_send() {
        let all = Options { port: 7000, interval: 5, count: 3, family: Family::Ipv6 };
        for text in ["-p 7000 -i 5 -c 3 -f ipv6 -v", "-p7000 --interval=5 --count 3 --family=ipv6 --verbose"] {
            assert_eq!(Options::parse(text).unwrap(), all, "{text}");
        }
        assert_eq!(Options::parse("").unwrap(), Options::default());
        for text in ["-p 0", "-p 70000", "-i 0", "-c x", "-f ipv5", "-x", "7000", "-p", "-", "--", "-é"] {
            assert!(Options::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_become_addresses_and_this_machine_is_none_of_them() {
        let nodes = |names: &[&str]| Given {
            value: names.iter().map(|name| (*name).to_owned()).collect(),
            origin: Origin::Line("kdump.conf".into(), 2),
        };
        let fence = resolve(Some(&nodes(&["192.0.2.7", "2001:db8::7", "192.0.2.7"])), None, "here.example").unwrap();
        assert_eq!(fence.unwrap().nodes, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]);
        let error = resolve(Some(&nodes(&["here"])), None, "here.example").unwrap_err().to_string();
        assert!(error.starts_with("kdump.conf:2: fence_kdump_nodes: here is this machine itself"), "{error}");
        let args = Given::default(Options { family: Family::Ipv4, ..Options::default() });
        assert!(resolve(Some(&nodes(&["2001:db8::7"])), Some(&args), "").is_err());
        assert_eq!(resolve(None, Some(&args), "").unwrap(), None);
    }

    proptest! {
        #[test]
        fn options_are_read_back(port in 1u16.., interval in 1u64..=3600, count: u64, short: bool) {
            let text = match short {
                true => format!("-p{port} -i {interval} -c{count} -f ipv4"),
                false => format!("--ipport={port} --interval {interval} --count={count} --family ipv4"),
            };
            let options = Options { port, interval, count, family: Family::Ipv4 };
            prop_assert_eq!(Options::parse(&text).unwrap(), options);
            prop_assert_eq!(Options::parse(&options.to_string()).unwrap(), options);
            let (found, nodes) = Options::with_nodes(&format!("{text} node1 192.0.2.1")).unwrap();
            prop_assert_eq!((found, nodes.join(" ")), (options, "node1 192.0.2.1".to_owned()));
        }

        #[test]
        fn any_text_ends_in_a_result(text in "[-=pifcv0-9 é]{0,40}") {
            let _ = Options::parse(&text);
        }
    }
}
