//! A DHCPv6 client for one address (RFC 8415, IA_NA): solicit, advertise, request, reply, and no more.
//!
//! In: the interface with its link-local address. Out: an address and nameservers. May surprise: the address has no
//! prefix of its own; which networks are on the link is told by router advertisements. Nothing renews the lease.

use super::kernel::{Datagrams, Link, Net, UdpPlan};
use super::model::Mac;
use anyhow::{Context, bail};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// More nameservers of a reply are not looked at.
const MOST: usize = 16;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const DNS: u16 = 23;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const REPLY: u8 = 7;

/// The number of the one association; any will do.
const ASSOCIATION: [u8; 4] = *b"kdmp";

/// What a server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// Nameservers.
    pub nameservers: Vec<IpAddr>,
    /// The server's identifier.
    server: Vec<u8>,
}

/// Gets an address for `link`, whose link-local address is `local`.
///
/// # Errors
/// Nobody gave one within `limit`.
pub fn lease(net: &mut dyn Net, link: &Link, local: IpAddr, mac: Mac, limit: Duration) -> anyhow::Result<Lease> {
    let IpAddr::V6(local) = local else { bail!("{local} is no IPv6 address") };
    let local = SocketAddr::from(SocketAddrV6::new(local, CLIENT_PORT, 0, link.index));
    let plan = UdpPlan { device: Some(link.name.clone()), local };
    let mut socket = net.udp(&plan).context("cannot open a socket")?;
    let began = net.now();
    let mut wait = FIRST_WAIT;
    loop {
        let left = limit.saturating_sub(net.now().saturating_sub(began));
        if left.is_zero() {
            bail!("no DHCPv6 server gave an address within {} s", limit.as_secs());
        }
        let patience = wait.min(left);
        if let Some(offer) = ask(net, &mut *socket, link.index, mac, None, patience)?
            && let Some(lease) = ask(net, &mut *socket, link.index, mac, Some(&offer), patience)?
        {
            return Ok(lease);
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Sends a message and waits for the fitting answer.
fn ask(
    net: &mut dyn Net,
    socket: &mut dyn Datagrams,
    scope: u32,
    mac: Mac,
    chosen: Option<&Lease>,
    wait: Duration,
) -> anyhow::Result<Option<Lease>> {
    let number = net.random() & 0x00ff_ffff;
    let to = SocketAddr::from(SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, scope));
    socket.send(to, &message(number, mac, chosen)).context("cannot send to DHCPv6 servers")?;
    let began = net.now();
    loop {
        let left = wait.saturating_sub(net.now().saturating_sub(began));
        let Some(bytes) = (if left.is_zero() { None } else { socket.receive(left)? }) else { return Ok(None) };
        let kind = if chosen.is_some() { REPLY } else { ADVERTISE };
        if let Some(lease) = parse(&bytes, kind, number, mac) {
            return Ok(Some(lease));
        }
    }
}

/// The identifier of an Ethernet client (DUID-LL).
fn identifier(mac: Mac) -> Vec<u8> {
    [0, 3, 0, 1].into_iter().chain(mac.0).collect()
}

fn message(number: u32, mac: Mac, chosen: Option<&Lease>) -> Vec<u8> {
    let kind = if chosen.is_some() { REQUEST } else { SOLICIT };
    let [_, number @ ..] = number.to_be_bytes();
    let mut bytes = vec![kind];
    bytes.extend(number);
    option(&mut bytes, CLIENT_ID, &identifier(mac));
    let mut association = ASSOCIATION.to_vec();
    association.extend([0; 8]);
    if let Some(lease) = chosen {
        option(&mut bytes, SERVER_ID, &lease.server);
        if let IpAddr::V6(address) = lease.address {
            let mut value = address.octets().to_vec();
            value.extend([0; 8]);
            option(&mut association, IA_ADDRESS, &value);
        }
    }
    option(&mut bytes, IA_NA, &association);
    option(&mut bytes, ELAPSED, &[0, 0]);
    option(&mut bytes, WANTED, &DNS.to_be_bytes());
    bytes
}

fn option(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(value);
}

/// Reads a server's message of that kind and number to the client with that hardware address; `None` if it is none, or
/// gives no address.
pub fn parse(bytes: &[u8], kind: u8, number: u32, mac: Mac) -> Option<Lease> {
    let [_, number @ ..] = number.to_be_bytes();
    if *bytes.first()? != kind || bytes.get(1..4)? != number {
        return None;
    }
    let options = bytes.get(4..)?;
    let is_ours = find(options, CLIENT_ID)? == identifier(mac);
    let association = find(options, IA_NA)?;
    let inner = association.get(12..)?;
    let well = |options: &[u8]| find(options, STATUS).is_none_or(|status| status.get(..2) == Some(&[0, 0]));
    if !is_ours || association.get(..4) != Some(&ASSOCIATION) || !well(options) || !well(inner) {
        return None;
    }
    let address: [u8; 16] = *find(inner, IA_ADDRESS)?.first_chunk()?;
    let address = Ipv6Addr::from(address);
    let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    let servers = find(options, DNS).unwrap_or_default().as_chunks::<16>().0;
    usable.then_some(Lease {
        address: address.into(),
        nameservers: servers.iter().take(MOST).map(|server| IpAddr::from(*server)).collect(),
        server: find(options, SERVER_ID)?.to_vec(),
    })
}

/// The value of the first option of that kind.
fn find(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let kind = u16::from_be_bytes(*options.first_chunk()?);
        let length = usize::from(u16::from_be_bytes(*options.get(2..)?.first_chunk()?));
        let value = options.get(4..4 + length)?;
        if kind == wanted {
            return Some(value);
        }
        options = options.get(4 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn reply(kind: u8, status: u16) -> Vec<u8> {
        let given = Lease { address: "fd00::7".parse().unwrap(), nameservers: Vec::new(), server: b"server".to_vec() };
        let mut bytes = message(9, MAC, Some(&given));
        bytes[0] = kind;
        option(&mut bytes, DNS, &"fd00::3".parse::<Ipv6Addr>().unwrap().octets());
        option(&mut bytes, STATUS, &status.to_be_bytes());
        bytes
    }

    #[test]
    fn an_address_is_taken_from_the_server_that_gave_it() {
        let lease = parse(&reply(REPLY, 0), REPLY, 9, MAC).unwrap();
        assert_eq!(lease.address, "fd00::7".parse::<IpAddr>().unwrap());
        assert_eq!(lease.nameservers, ["fd00::3".parse::<IpAddr>().unwrap()]);
        assert_eq!(lease.server, b"server");
    }

    #[test]
    fn what_is_for_another_client_or_refuses_is_none() {
        assert_eq!(parse(&reply(REPLY, 2), REPLY, 9, MAC), None);
        assert_eq!(parse(&reply(REPLY, 0), ADVERTISE, 9, MAC), None);
        assert_eq!(parse(&reply(REPLY, 0), REPLY, 8, MAC), None);
        assert_eq!(parse(&reply(REPLY, 0), REPLY, 9, Mac([0; 6])), None);
        assert_eq!(parse(&message(9, MAC, None), SOLICIT, 9, MAC), None);
    }

    proptest! {
        #[test]
        fn any_options_are_taken_in_peace(options in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut bytes = vec![REPLY, 0, 0, 9];
            bytes.extend(options);
            let _ = parse(&bytes, REPLY, 9, MAC);
        }
    }
}
