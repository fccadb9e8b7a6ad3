//! What a network is to an image: interfaces by name, what they are made of, and how they get their addresses.
//!
//! In: a snapshot of the running machine, or words of a configuration. Out: the same as text, in `image.toml`.
//! May surprise: a name is the running system's; the capture kernel has no udev and may call the same card otherwise,
//! so [`Network::names`] tells which card is meant by its hardware address.

use anyhow::bail;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The interface name that stands for every card that is found.
pub const EVERY: &str = "*";

/// How deep interfaces may stand on each other: a VLAN on a bridge on a bond on a card is four.
const DEEPEST: usize = 8;

/// What the capture environment brings up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Interfaces in the order in which they were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Hardware addresses of the cards whose names are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, Mac>,
    /// Routes besides those that come with an address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Whom to ask for names, before those that DHCP tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
    /// How long things may take.
    #[serde(default)]
    pub waits: Waits,
}

/// How long the network may take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waits {
    /// Until the cards are there; `rd.net.timeout.iflink=`.
    pub link: u64,
    /// Until they have a carrier; `rd.net.timeout.carrier=`.
    pub carrier: u64,
    /// Until an address is there; `rd.net.timeout.dhcp=` or `rd.net.timeout.ipv6auto=`.
    pub address: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Waits { link: 60, carrier: 30, address: 60 }
    }
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is made of; a card if nothing is said.
    #[serde(default, skip_serializing_if = "Kind::is_card")]
    pub kind: Kind,
    /// Its MTU, if not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The hardware address that it is given, if not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Addresses that it has in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Cidr>,
    /// Ways to get others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acquire: Vec<Method>,
}

impl Interface {
    /// An interface of which only the name is known.
    pub fn named(name: &str) -> Interface {
        Interface { name: name.to_owned(), ..Interface::default() }
    }

    /// Whether it is to have an address itself.
    pub fn is_addressed(&self) -> bool {
        !self.addresses.is_empty() || !self.acquire.is_empty()
    }
}

/// What an interface is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Kind {
    /// A card.
    #[default]
    Card,
    /// An 802.1Q VLAN.
    Vlan {
        /// The interface that carries the tagged frames.
        parent: String,
        /// The VLAN, 1 to 4094.
        id: u16,
    },
    /// A bond.
    Bond {
        /// Its ports.
        ports: Vec<String>,
        /// Names and values below `/sys/class/net/NAME/bonding`, in the order in which they are set.
        options: Vec<(String, String)>,
    },
    /// A bridge.
    Bridge {
        /// Its ports.
        ports: Vec<String>,
    },
}

impl Kind {
    fn is_card(&self) -> bool {
        *self == Kind::Card
    }

    /// The interfaces below.
    pub fn below(&self) -> Vec<&str> {
        match self {
            Kind::Card => Vec::new(),
            Kind::Vlan { parent, .. } => vec![parent],
            Kind::Bond { ports, .. } | Kind::Bridge { ports } => ports.iter().map(String::as_str).collect(),
        }
    }

    /// The module that makes it.
    pub fn module(&self) -> Option<&'static str> {
        match self {
            Kind::Card => None,
            Kind::Vlan { .. } => Some("8021q"),
            Kind::Bond { .. } => Some("bonding"),
            Kind::Bridge { .. } => Some("bridge"),
        }
    }

    /// What rtnetlink calls it.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Kind::Card => None,
            Kind::Vlan { .. } => Some("vlan"),
            Kind::Bond { .. } => Some("bond"),
            Kind::Bridge { .. } => Some("bridge"),
        }
    }
}

/// A way to get an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// DHCPv4.
    Dhcp,
    /// IPv6 router advertisements, which the kernel follows by itself.
    Auto6,
    /// DHCPv6 for an address; routes come from router advertisements.
    Dhcp6,
    /// Nothing but the link-local IPv6 address.
    Link6,
    /// DHCPv4, and if nobody answers what router advertisements bring.
    Any,
    /// Router advertisements, and if they bring no address DHCPv6.
    Either6,
}

impl Method {
    /// The word of `ip=` for it.
    pub fn word(self) -> &'static str {
        match self {
            Method::Dhcp => "dhcp",
            Method::Auto6 => "auto6",
            Method::Dhcp6 => "dhcp6",
            Method::Link6 => "link6",
            Method::Any => "any",
            Method::Either6 => "either6",
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads to; everywhere if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Cidr>,
    /// By which router; none for what is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// By which interface, where the kernel cannot tell by the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl Network {
    /// The interface of that name, a card that is new if none is known yet.
    pub fn interface(&mut self, name: &str) -> &mut Interface {
        let index = self.interfaces.iter().position(|interface| interface.name == name);
        let index = index.unwrap_or_else(|| {
            self.interfaces.push(Interface::named(name));
            self.interfaces.len() - 1
        });
        &mut self.interfaces[index]
    }

    /// Whether an interface is a port or parent of another.
    pub fn is_below_another(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface.kind.below().contains(&name))
    }

    /// The interfaces, those below first.
    ///
    /// # Errors
    /// They stand on each other in a circle.
    pub fn bottom_up(&self) -> anyhow::Result<Vec<&Interface>> {
        let mut order: Vec<&Interface> = Vec::new();
        for _ in 0..DEEPEST {
            for interface in &self.interfaces {
                let placed = |name: &str| order.iter().any(|done| done.name == name);
                let ready = interface.kind.below().iter().all(|name| placed(name) || !self.has(name));
                if ready && !placed(&interface.name) {
                    order.push(interface);
                }
            }
        }
        match self.interfaces.iter().find(|one| !order.iter().any(|done| done.name == one.name)) {
            Some(lost) => bail!("the interface {} stands on itself or too deep a pile of others", lost.name),
            None => Ok(order),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface.name == name)
    }
}

/// The hardware address of an Ethernet card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a hardware address; write it as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix, at most those of the address.
    pub prefix: u8,
}

impl Cidr {
    /// An address with a prefix, which is cut to what the address has.
    pub fn new(address: IpAddr, prefix: u8) -> Cidr {
        Cidr { address, prefix: prefix.min(bits(&address)) }
    }

    /// The address alone.
    pub fn host(address: IpAddr) -> Cidr {
        Cidr { address, prefix: bits(&address) }
    }
}

/// The bits of an address.
fn bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr =
            address.trim_matches(['[', ']']).parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        match prefix {
            Some(prefix) => Ok(Cidr { address, prefix: prefix_of(prefix, &address)? }),
            None => Ok(Cidr::host(address)),
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

/// The length of a prefix, written as a number or as an IPv4 netmask.
///
/// # Errors
/// It is neither, or longer than the address.
pub fn prefix_of(text: &str, address: &IpAddr) -> Result<u8, String> {
    let wrong = || format!("`{text}` is not a netmask for {address}; write 24 or 255.255.255.0");
    if let Ok(bits_given) = text.parse::<u8>() {
        return if bits_given <= bits(address) { Ok(bits_given) } else { Err(wrong()) };
    }
    let mask = u32::from(text.parse::<std::net::Ipv4Addr>().map_err(|_| wrong())?);
    let ones = mask.leading_ones();
    if address.is_ipv4() && ones + mask.trailing_zeros().min(32) >= 32 {
        u8::try_from(ones).map_err(|_| wrong())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn netmasks_are_numbers_or_dotted_and_without_holes() {
        let four: IpAddr = "10.0.0.1".parse().unwrap();
        let six: IpAddr = "fe80::1".parse().unwrap();
        assert_eq!(prefix_of("24", &four), Ok(24));
        assert_eq!(prefix_of("255.255.255.0", &four), Ok(24));
        assert_eq!(prefix_of("0.0.0.0", &four), Ok(0));
        assert_eq!(prefix_of("255.255.255.255", &four), Ok(32));
        assert_eq!(prefix_of("64", &six), Ok(64));
        for (text, address) in
            [("33", &four), ("255.0.255.0", &four), ("255.255.255.0", &six), ("129", &six), ("", &four)]
        {
            assert!(prefix_of(text, address).is_err(), "{text}");
        }
    }

    #[test]
    fn what_stands_on_others_comes_after_them_and_circles_are_told() {
        let mut network = Network::default();
        network.interface("bond0.7").kind = Kind::Vlan { parent: "bond0".into(), id: 7 };
        network.interface("bond0").kind = Kind::Bond { ports: vec!["a".into(), "b".into()], options: Vec::new() };
        network.interface("a");
        network.interface("b");
        let order: Vec<&str> = network.bottom_up().unwrap().iter().map(|one| one.name.as_str()).collect();
        assert_eq!(order, ["a", "b", "bond0", "bond0.7"]);
        network.interface("a").kind = Kind::Vlan { parent: "bond0.7".into(), id: 1 };
        assert!(network.bottom_up().unwrap_err().to_string().contains("stands on itself"));
    }

    #[test]
    fn a_network_survives_the_way_through_the_image_configuration() {
        let mut network = Network { nameservers: vec!["10.0.2.3".parse().unwrap()], ..Network::default() };
        network.names.insert("eno1".into(), "52:54:00:12:34:56".parse().unwrap());
        network.interface("bond0").kind =
            Kind::Bond { ports: vec!["eno1".into()], options: vec![("mode".into(), "active-backup".into())] };
        network.interface("bond0.7").kind = Kind::Vlan { parent: "bond0".into(), id: 7 };
        network.interface("bond0.7").addresses = vec!["10.1.2.3/24".parse().unwrap()];
        network.interface("eno1").acquire = vec![Method::Dhcp, Method::Auto6];
        network.routes = vec![Route { to: None, via: Some("10.1.2.1".parse().unwrap()), interface: None }];
        let text = toml::to_string(&network).unwrap();
        assert_eq!(toml::from_str::<Network>(&text).unwrap(), network, "{text}");
    }

    proptest! {
        #[test]
        fn addresses_and_hardware_addresses_are_read_as_they_are_written(
            bytes: [u8; 6], four: [u8; 4], six: [u8; 16], prefix in 0u8..=32
        ) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
            for address in [IpAddr::from(four), IpAddr::from(six)] {
                let cidr = Cidr::new(address, prefix);
                prop_assert_eq!(cidr.to_string().parse(), Ok(cidr));
            }
        }
    }
}
