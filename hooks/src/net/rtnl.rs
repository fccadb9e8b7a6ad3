//! rtnetlink messages (`Documentation/userspace-api/netlink/`, `linux/rtnetlink.h`): written and read, never sent here.
//!
//! ```text
//!   nlmsghdr: length u32 | type u16 | flags u16 | sequence u32 | port u32 | family header | attributes
//!   attribute: length u16 | type u16 | value | padding to 4
//! ```
//!
//! In: what is wanted, or the bytes of replies. Out: bytes, or [`Reply`]s. Every length is checked; a message that lies
//! about itself ends the reading, an attribute that does ends the attributes.

use super::kernel::{Address, KernelRoute, Link, LinkChange};
use super::model::{Cidr, Kind, Mac};
use std::net::IpAddr;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_RUNNING: u32 = 0x40;
const IFA_F_NODAD: u32 = 2;
const IFA_F_DADFAILED: u32 = 8;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
/// `struct rtmsg` has a cloned route's flag; such entries are no routes that one could add.
const RTM_F_CLONED: u32 = 0x200;

const NLA_F_NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;
const INET: u8 = 2;
const INET6: u8 = 10;

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Request {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Request { bytes }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn nested(self, kind: u16, inner: impl FnOnce(Request) -> Request) -> Request {
        let content = inner(Request { bytes: Vec::new() }).bytes;
        self.attribute(kind | NLA_F_NESTED, &content)
    }

    /// The bytes, as request number `sequence`.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        put(&mut self.bytes, 0, &length.to_ne_bytes());
        put(&mut self.bytes, 8, &sequence.to_ne_bytes());
        self.bytes
    }

    /// All interfaces.
    pub fn links() -> Request {
        Request::new(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0))
    }

    /// All addresses.
    pub fn addresses() -> Request {
        Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8])
    }

    /// All routes.
    pub fn routes() -> Request {
        Request::new(RTM_GETROUTE, NLM_F_DUMP, &[0; 12])
    }

    /// The way to one address.
    pub fn route_to(address: IpAddr) -> Request {
        let (family, bytes) = octets(address);
        let mut header = [0; 12];
        put(&mut header, 0, &[family, Cidr::host(address).prefix]);
        Request::new(RTM_GETROUTE, 0, &header).attribute(RTA_DST, &bytes)
    }

    /// A new VLAN, bond or bridge.
    pub fn create(name: &str, kind: &Kind, parent: Option<u32>) -> Request {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0))
            .attribute(IFLA_IFNAME, &zero_ended(name));
        if let Some(parent) = parent {
            request = request.attribute(IFLA_LINK, &parent.to_ne_bytes());
        }
        let word = kind.word().unwrap_or_default();
        request.nested(IFLA_LINKINFO, |info| {
            let info = info.attribute(IFLA_INFO_KIND, word.as_bytes());
            match kind {
                Kind::Vlan { id, .. } => {
                    info.nested(IFLA_INFO_DATA, |data| data.attribute(IFLA_VLAN_ID, &id.to_ne_bytes()))
                }
                _ => info,
            }
        })
    }

    /// A change of an interface.
    pub fn change(link: u32, change: &LinkChange) -> Request {
        let flags = if change.up == Some(true) { IFF_UP } else { 0 };
        let mask = if change.up.is_some() { IFF_UP } else { 0 };
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &link_header(link, flags, mask));
        if let Some(mac) = change.mac {
            request = request.attribute(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = change.mtu {
            request = request.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(master) = change.master {
            request = request.attribute(IFLA_MASTER, &master.to_ne_bytes());
        }
        request
    }

    /// A new address. An IPv6 address was this machine's before the crash: nobody is asked again whether it is free.
    pub fn add_address(link: u32, cidr: Cidr) -> Request {
        let (family, bytes) = octets(cidr.address);
        let mut header = vec![family, cidr.prefix, 0, RT_SCOPE_UNIVERSE];
        header.extend(link.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header)
            .attribute(IFA_LOCAL, &bytes)
            .attribute(IFA_ADDRESS, &bytes);
        match cidr.address {
            IpAddr::V4(address) if cidr.prefix < 31 => {
                let host = u32::MAX.checked_shr(u32::from(cidr.prefix)).unwrap_or(0);
                request.attribute(IFA_BROADCAST, &(u32::from(address) | host).to_be_bytes())
            }
            IpAddr::V4(_) => request,
            IpAddr::V6(_) => request.attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes()),
        }
    }

    /// A new route of the main table.
    pub fn add_route(route: &KernelRoute) -> Request {
        let sample = route.to.map(|to| to.address).or(route.via);
        let family = sample.map_or(INET, |address| octets(address).0);
        let scope = if route.via.is_some() || family == INET6 { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
        let prefix = route.to.map_or(0, |to| to.prefix);
        // A router that the interface's own prefix does not cover is reached on the link, as DHCP servers of clouds want.
        let flags = if route.via.is_some() && route.link.is_some() { RTNH_F_ONLINK } else { 0 };
        let mut header = vec![family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST];
        header.extend(flags.to_ne_bytes());
        let mut request = Request::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header);
        if let Some(to) = route.to.filter(|to| to.prefix > 0) {
            request = request.attribute(RTA_DST, &octets(masked(to)).1);
        }
        for (kind, address) in [(RTA_GATEWAY, route.via), (RTA_PREFSRC, route.source)] {
            if let Some(address) = address {
                request = request.attribute(kind, &octets(address).1);
            }
        }
        if let Some(link) = route.link {
            request = request.attribute(RTA_OIF, &link.to_ne_bytes());
        }
        if route.metric > 0 {
            request = request.attribute(RTA_PRIORITY, &route.metric.to_ne_bytes());
        }
        request
    }
}

/// The address with the bits behind the prefix cleared, as the kernel wants the target of a route.
fn masked(cidr: Cidr) -> IpAddr {
    match cidr.address {
        IpAddr::V4(address) => {
            let mask = !u32::MAX.checked_shr(u32::from(cidr.prefix)).unwrap_or(0);
            IpAddr::from((u32::from(address) & mask).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let mask = !u128::MAX.checked_shr(u32::from(cidr.prefix)).unwrap_or(0);
            IpAddr::from((u128::from(address) & mask).to_be_bytes())
        }
    }
}

fn link_header(index: u32, flags: u32, mask: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    for field in [index, flags, mask] {
        header.extend(field.to_ne_bytes());
    }
    header
}

fn zero_ended(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (INET, address.octets().to_vec()),
        IpAddr::V6(address) => (INET6, address.octets().to_vec()),
    }
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
        place.copy_from_slice(value);
    }
}

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The end of a list.
    Done,
    /// How a request came out: 0, or an errno.
    Answer(i32),
    /// An interface.
    Link(Link),
    /// An address.
    Address(Address),
    /// A route.
    Route(KernelRoute),
    /// Anything else.
    Other,
}

/// The messages of one datagram that answer request number `sequence`.
pub fn replies(mut bytes: &[u8], sequence: u32) -> Vec<Reply> {
    let mut found = Vec::new();
    while let Some((kind, number, body, rest)) = message(bytes) {
        if number == sequence {
            found.push(reply(kind, body));
        }
        bytes = rest;
    }
    found
}

fn message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, u32_at(bytes, 8)?, body, rest))
}

fn reply(kind: u16, body: &[u8]) -> Reply {
    match kind {
        NLMSG_DONE => Reply::Done,
        NLMSG_ERROR => Reply::Answer(u32_at(body, 0).map_or(0, |code| code.cast_signed().saturating_neg())),
        RTM_NEWLINK => link(body).map_or(Reply::Other, Reply::Link),
        RTM_NEWADDR => address(body).map_or(Reply::Other, Reply::Address),
        RTM_NEWROUTE => route(body).map_or(Reply::Other, Reply::Route),
        _ => Reply::Other,
    }
}

/// The attributes in `bytes`, those of a wrong length and all behind them left out.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        is_loopback: flags & IFF_LOOPBACK != 0,
        is_up: flags & IFF_UP != 0,
        is_running: flags & IFF_RUNNING != 0 && flags & IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_PERM_ADDRESS => link.permanent = value.try_into().ok().map(Mac),
            IFLA_MTU => link.mtu = u32_at(value, 0).unwrap_or_default(),
            IFLA_LINK => link.parent = u32_at(value, 0),
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = Some(text(value)),
                        IFLA_INFO_DATA => {
                            let mut data = attributes(value);
                            let id = data.find(|(kind, value)| *kind == IFLA_VLAN_ID && value.len() == 2);
                            link.vlan = id.and_then(|(_, value)| u16_at(value, 0));
                        }
                        _ => {}
                    }
                }
                // The number of another kind's first option is no VLAN.
                link.vlan = link.vlan.filter(|_| link.kind.as_deref() == Some("vlan"));
            }
            _ => {}
        }
    }
    Some(link)
}

fn address(body: &[u8]) -> Option<Address> {
    let (prefix, scope) = (*body.get(1)?, *body.get(3)?);
    let mut flags = u32::from(*body.get(2)?);
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => other = ip(value),
            IFA_FLAGS => flags = u32_at(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    Some(Address {
        link: u32_at(body, 4)?,
        cidr: Cidr::new(local.or(other)?, prefix),
        // Site-local IPv6 addresses have a scope of their own in between.
        is_global: scope < RT_SCOPE_LINK,
        is_tentative: flags & IFA_F_TENTATIVE != 0,
        is_duplicate: flags & IFA_F_DADFAILED != 0,
        is_permanent: flags & IFA_F_PERMANENT != 0,
    })
}

/// `None` for what is not an ordinary route of the main table.
fn route(body: &[u8]) -> Option<KernelRoute> {
    let [_, prefix, _, _, table, protocol, _, kind] = *body.first_chunk::<8>()?;
    let flags = u32_at(body, 8)?;
    let mut route = KernelRoute { to: None, via: None, link: None, source: None, protocol, metric: 0 };
    let mut in_main = table == RT_TABLE_MAIN;
    for (attribute, value) in attributes(body.get(12..)?) {
        match attribute {
            RTA_DST => route.to = ip(value).map(|address| Cidr::new(address, prefix)),
            RTA_GATEWAY => route.via = ip(value),
            RTA_OIF => route.link = u32_at(value, 0),
            RTA_PREFSRC => route.source = ip(value),
            RTA_PRIORITY => route.metric = u32_at(value, 0).unwrap_or_default(),
            RTA_TABLE => in_main = u32_at(value, 0) == Some(RT_TABLE_MAIN.into()),
            _ => {}
        }
    }
    // The answer to "which way" is a clone of a route, or none at all of any table.
    (flags & RTM_F_CLONED != 0 || (in_main && kind == RTN_UNICAST)).then_some(route)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = value.try_into();
    let six: Result<[u8; 16], _> = value.try_into();
    four.map(IpAddr::from).or(six.map(IpAddr::from)).ok()
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(request: Request) -> Reply {
        replies(&request.finish(7), 7).remove(0)
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["10.0.2.15/24", "fec0::1/64", "10.1.1.1/32"] {
            let cidr: Cidr = text.parse().unwrap();
            let Reply::Address(address) = read_back(Request::add_address(3, cidr)) else { panic!("{text}") };
            assert_eq!((address.link, address.cidr, address.is_global), (3, cidr, true));
        }
    }

    #[test]
    fn site_local_addresses_reach_beyond_the_link_and_link_local_ones_do_not() {
        for (scope, is_global) in [(RT_SCOPE_UNIVERSE, true), (200, true), (RT_SCOPE_LINK, false), (254, false)] {
            let mut message = Request::add_address(3, "fec0::1/64".parse().unwrap()).finish(7);
            message[HEADER + 3] = scope;
            let Reply::Address(address) = replies(&message, 7).remove(0) else { panic!() };
            assert_eq!(address.is_global, is_global, "{scope}");
        }
    }

    #[test]
    fn a_vlan_is_read_as_it_is_written() {
        let kind = Kind::Vlan { parent: "bond0".into(), id: 42 };
        let Reply::Link(link) = read_back(Request::create("bond0.42", &kind, Some(4))) else { panic!() };
        assert_eq!(
            (link.name.as_str(), link.kind.as_deref(), link.vlan, link.parent),
            ("bond0.42", Some("vlan"), Some(42), Some(4))
        );
    }

    #[test]
    fn a_route_is_read_as_it_is_written_with_the_bits_behind_its_prefix_cleared() {
        let route = KernelRoute {
            to: Some("10.9.8.7/16".parse().unwrap()),
            via: Some("10.0.2.2".parse().unwrap()),
            link: Some(2),
            source: None,
            protocol: RTPROT_STATIC,
            metric: 50,
        };
        let Reply::Route(found) = read_back(Request::add_route(&route)) else { panic!() };
        assert_eq!(found, KernelRoute { to: Some("10.9.0.0/16".parse().unwrap()), ..route });
        let everywhere = KernelRoute { to: None, metric: 0, ..found };
        assert_eq!(read_back(Request::add_route(&everywhere)), Reply::Route(everywhere));
    }

    #[test]
    fn the_answer_to_another_request_is_passed_over() {
        let mut error = Request::new(NLMSG_ERROR, 0, &(-17_i32).to_ne_bytes()).finish(1);
        error.extend(Request::new(NLMSG_DONE, 0, &[0; 4]).finish(2));
        assert_eq!(replies(&error, 1), [Reply::Answer(17)]);
        assert_eq!(replies(&error, 2), [Reply::Done]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = replies(&bytes, 0);
            let mut message = Request::new(RTM_NEWLINK, 0, &bytes).finish(0);
            message.extend(&bytes);
            let _ = replies(&message, 0);
        }
    }
}
