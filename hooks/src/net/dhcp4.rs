//! A DHCPv4 client (RFC 2131, 2132, 3442): discover, offer, request, ack, and no more.
//!
//! In: a UDP socket bound to the interface. Out: a [`Lease`]. May surprise: nothing renews the lease. A dump takes
//! minutes, and an image would need a daemon; a lease that may be too short for it is told.
//! Replies are asked for as broadcasts, since the kernel takes no datagram for an address that it does not have yet.

use super::kernel::{Datagrams, Net, UdpPlan};
use super::model::{Cidr, Mac};
use anyhow::{Context, bail};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The fixed part and the cookie.
const FIXED: usize = 240;
/// Some relays drop what is shorter.
const SHORTEST: usize = 300;
/// The first wait for an answer; each further one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// More than these many routers, nameservers or routes of a reply are not looked at.
const MOST: usize = 16;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const MTU: u8 = 26;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER_ID: u8 = 54;
const PARAMETERS: u8 = 55;
const LARGEST: u8 = 57;
const CLIENT_ID: u8 = 61;
const CLASSLESS_ROUTES: u8 = 121;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What a server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address with its prefix.
    pub address: Cidr,
    /// Routes: where to, and by which router; none for what is on the link.
    pub routes: Vec<(Cidr, Option<Ipv4Addr>)>,
    /// Nameservers.
    pub nameservers: Vec<IpAddr>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The server.
    pub server: Ipv4Addr,
    /// For how many seconds.
    pub seconds: u32,
}

/// A server's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Offer, ack or nak.
    pub kind: u8,
    /// What it gives.
    pub lease: Lease,
}

/// Gets a lease for the interface.
///
/// # Errors
/// Nobody gave one within `limit`.
pub fn lease(net: &mut dyn Net, device: &str, mac: Mac, limit: Duration) -> anyhow::Result<Lease> {
    let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
    let mut socket = net.udp(&UdpPlan { device: Some(device.to_owned()), local }).context("cannot open a socket")?;
    let number = net.random();
    let began = net.now();
    let mut wait = FIRST_WAIT;
    let mut refused = 0;
    loop {
        let left = limit.saturating_sub(net.now().saturating_sub(began));
        if left.is_zero() {
            match refused {
                0 => bail!("no DHCP server answered within {} s", limit.as_secs()),
                times => bail!("DHCP servers refused {times} times within {} s", limit.as_secs()),
            }
        }
        let seconds = u16::try_from(net.now().saturating_sub(began).as_secs()).unwrap_or(u16::MAX);
        let conversation = Conversation { number, mac, seconds };
        let patience = wait.min(left);
        if let Some(offer) = conversation.ask(net, &mut *socket, DISCOVER, None, patience)? {
            match conversation.ask(net, &mut *socket, REQUEST, Some(&offer.lease), patience)? {
                Some(Message { kind: ACK, lease }) => return Ok(lease),
                Some(_) => {
                    refused += 1;
                    // A server that offers and then refuses would be asked without a break.
                    net.pause(FIRST_WAIT.min(left));
                }
                None => {}
            }
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// What all messages of one client have in common.
struct Conversation {
    number: u32,
    mac: Mac,
    seconds: u16,
}

impl Conversation {
    /// Sends a message and waits for the fitting answer.
    fn ask(
        &self,
        net: &mut dyn Net,
        socket: &mut dyn Datagrams,
        kind: u8,
        chosen: Option<&Lease>,
        wait: Duration,
    ) -> anyhow::Result<Option<Message>> {
        let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, SERVER_PORT));
        socket.send(everybody, &self.message(kind, chosen)).context("cannot send to DHCP servers")?;
        let began = net.now();
        loop {
            let left = wait.saturating_sub(net.now().saturating_sub(began));
            if left.is_zero() {
                return Ok(None);
            }
            let Some(bytes) = socket.receive(left)? else { return Ok(None) };
            let Some(message) = parse(&bytes, self.number, self.mac) else { continue };
            let fits = match chosen {
                None => message.kind == OFFER,
                Some(chosen) => {
                    message.kind == NAK
                        || (message.kind == ACK && message.lease.address.address == chosen.address.address)
                }
            };
            if fits {
                return Ok(Some(message));
            }
        }
    }

    fn message(&self, kind: u8, chosen: Option<&Lease>) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        // Answers are to be broadcast.
        bytes.extend([0x80, 0]);
        bytes.extend([0; 16]);
        bytes.extend(self.mac.0);
        bytes.resize(FIXED - COOKIE.len(), 0);
        bytes.extend(COOKIE);
        bytes.extend([MESSAGE_TYPE, 1, kind, CLIENT_ID, 7, 1]);
        bytes.extend(self.mac.0);
        if let (Some(lease), Some(IpAddr::V4(address))) = (chosen, chosen.map(|lease| lease.address.address)) {
            bytes.extend([REQUESTED_ADDRESS, 4]);
            bytes.extend(address.octets());
            bytes.extend([SERVER_ID, 4]);
            bytes.extend(lease.server.octets());
        }
        bytes.extend([LARGEST, 2]);
        bytes.extend(1472_u16.to_be_bytes());
        let wanted = [SUBNET_MASK, CLASSLESS_ROUTES, ROUTER, DNS, MTU, LEASE_TIME];
        bytes.extend([PARAMETERS, 6]);
        bytes.extend(wanted);
        bytes.push(255);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// Reads a server's message to the client with that number and hardware address; `None` if it is none.
pub fn parse(bytes: &[u8], number: u32, mac: Mac) -> Option<Message> {
    let fixed = bytes.get(..FIXED)?;
    let is_ours = fixed.first() == Some(&2)
        && fixed.get(4..8)? == number.to_be_bytes()
        && fixed.get(28..34)? == mac.0
        && fixed.get(FIXED - 4..)? == COOKIE;
    if !is_ours {
        return None;
    }
    let options = Options { bytes: bytes.get(FIXED..)? };
    let kind = *options.get(MESSAGE_TYPE)?.first()?;
    let given = quad(fixed.get(16..20)?)?;
    let mask = options.get(SUBNET_MASK).and_then(quad).unwrap_or_else(|| usual_mask(given));
    let prefix = u8::try_from(u32::from(mask).leading_ones()).ok()?;
    let lease = Lease {
        address: Cidr::new(given.into(), prefix),
        routes: routes(&options),
        nameservers: quads(options.get(DNS)).map(IpAddr::from).collect(),
        mtu: options.get(MTU).and_then(|value| value.try_into().ok().map(u16::from_be_bytes)).map(u32::from),
        server: options.get(SERVER_ID).and_then(quad)?,
        seconds: options.get(LEASE_TIME).and_then(|value| value.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes),
    };
    let usable = !given.is_unspecified() && !given.is_multicast() && !given.is_loopback() && !given.is_broadcast();
    // Less than what RFC 791 wants every host to take is no MTU.
    let lease = Lease { mtu: lease.mtu.filter(|&mtu| mtu >= 576), ..lease };
    (usable || kind == NAK).then_some(Message { kind, lease })
}

/// Classless routes, and only without them the routers (RFC 3442).
fn routes(options: &Options) -> Vec<(Cidr, Option<Ipv4Addr>)> {
    let mut found = Vec::new();
    let mut rest = options.get(CLASSLESS_ROUTES).unwrap_or_default();
    while let Some((&prefix, behind)) = rest.split_first() {
        let significant = usize::from(prefix.min(32)).div_ceil(8);
        let (Some(network), Some(router)) = (behind.get(..significant), behind.get(significant..significant + 4))
        else {
            break;
        };
        let mut octets = [0; 4];
        octets.iter_mut().zip(network).for_each(|(octet, byte)| *octet = *byte);
        let router = quad(router).filter(|router| !router.is_unspecified());
        found.push((Cidr::new(Ipv4Addr::from(octets).into(), prefix), router));
        rest = behind.get(significant + 4..).unwrap_or_default();
        if found.len() == MOST {
            break;
        }
    }
    if found.is_empty() {
        let everywhere = Cidr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        found.extend(quads(options.get(ROUTER)).next().map(|router| (everywhere, Some(router))));
    }
    found
}

fn quad(value: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = value.try_into().ok()?;
    Some(octets.into())
}

fn quads(value: Option<&[u8]>) -> impl Iterator<Item = Ipv4Addr> {
    value.unwrap_or_default().chunks_exact(4).filter_map(quad).filter(|address| !address.is_unspecified()).take(MOST)
}

/// The mask that an address had before there were masks.
fn usual_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets() {
        [0..=127, ..] => Ipv4Addr::new(255, 0, 0, 0),
        [128..=191, ..] => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

/// The options of a message: kind, length, value, one after another.
struct Options<'a> {
    bytes: &'a [u8],
}

impl<'a> Options<'a> {
    /// The value of the first option of that kind.
    fn get(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.bytes;
        loop {
            let (&kind, behind) = rest.split_first()?;
            match kind {
                0 => rest = behind,
                255 => return None,
                kind => {
                    let length = usize::from(*behind.first()?);
                    let value = behind.get(1..1 + length)?;
                    if kind == wanted {
                        return Some(value);
                    }
                    rest = behind.get(1 + length..)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeNet, dhcp_reply};
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    #[test]
    fn an_offer_is_requested_and_acknowledged() {
        let mut net = FakeNet { dhcp: Some(DHCP.to_vec()), ..FakeNet::default() };
        let lease = lease(&mut net, "eth0", MAC, Duration::from_secs(30)).unwrap();
        assert_eq!(lease.address, "10.0.2.15/24".parse().unwrap());
        assert_eq!(lease.routes, [("0.0.0.0/0".parse().unwrap(), Some(Ipv4Addr::new(10, 0, 2, 2)))]);
        assert_eq!((lease.mtu, lease.seconds), (Some(1400), 86_400));
        assert_eq!(lease.nameservers, ["10.0.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(net.journal(), ["udp eth0 0.0.0.0:68", "send 255.255.255.255:67", "send 255.255.255.255:67"]);
    }

    #[test]
    fn silence_is_an_error_within_the_limit() {
        let mut net = FakeNet::default();
        let error = lease(&mut net, "eth0", MAC, Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.to_string(), "no DHCP server answered within 30 s");
        assert_eq!(net.clock(), Duration::from_secs(30));
        assert_eq!(net.journal().iter().filter(|line| line.starts_with("send")).count(), 4);
    }

    #[test]
    fn a_server_that_offers_and_then_refuses_is_told_as_such() {
        let mut net = FakeNet { dhcp: Some(DHCP.to_vec()), dhcp_refuses: true, ..FakeNet::default() };
        let error = lease(&mut net, "eth0", MAC, Duration::from_secs(9)).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    const DHCP: &[u8] = &[
        1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 26, 2, 5, 120, 51, 4, 0, 1, 81, 128, 54, 4, 10,
        0, 2, 2, 255,
    ];

    #[test]
    fn classless_routes_take_the_place_of_routers() {
        let options =
            [54, 4, 1, 1, 1, 1, 3, 4, 10, 0, 2, 9, 121, 14, 24, 10, 1, 2, 10, 0, 2, 2, 0, 10, 0, 2, 3, 32, 1, 2];
        let message = parse(&dhcp_reply(7, MAC, OFFER, &options), 7, MAC).unwrap();
        assert_eq!(
            message.lease.routes,
            [
                ("10.1.2.0/24".parse().unwrap(), Some(Ipv4Addr::new(10, 0, 2, 2))),
                ("0.0.0.0/0".parse().unwrap(), Some(Ipv4Addr::new(10, 0, 2, 3))),
            ]
        );
    }

    #[test]
    fn what_is_for_another_client_or_no_reply_is_none() {
        let reply = dhcp_reply(7, MAC, OFFER, DHCP);
        assert!(parse(&reply, 7, MAC).is_some());
        assert_eq!(parse(&reply, 8, MAC), None);
        assert_eq!(parse(&reply, 7, Mac([0; 6])), None);
        assert_eq!(parse(&reply[..FIXED], 7, MAC), None);
        let request = Conversation { number: 7, mac: MAC, seconds: 0 }.message(DISCOVER, None);
        assert_eq!((request.len(), parse(&request, 7, MAC)), (SHORTEST, None));
    }

    proptest! {
        #[test]
        fn any_options_are_taken_in_peace(options in proptest::collection::vec(any::<u8>(), 0..120), kind: u8) {
            let _ = parse(&dhcp_reply(7, MAC, kind, &options), 7, MAC);
        }
    }
}
