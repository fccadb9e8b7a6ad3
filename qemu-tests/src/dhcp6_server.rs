//! A DHCPv6 server of one address, for frames that somebody else carries.
//!
//! In: a frame of the guest. Out: the frame that answers it, if it is a question of DHCPv6. It is as small as RFC 8415
//! lets it be, and written from there: client and server shall not share their mistakes.

use std::net::Ipv6Addr;

const HARDWARE: [u8; 6] = [0x52, 0x55, 0, 0, 5, 0x47];
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x547);
const ETHERNET: usize = 14;
const IP: usize = 40;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const REPLY: u8 = 7;
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
/// Seconds: preferred, and valid.
const LIFETIMES: [u32; 2] = [3600, 7200];

/// Answers a solicitation or a request with `lease`.
pub fn answer(frame: &[u8], lease: Ipv6Addr) -> Option<Vec<u8>> {
    let ip = frame.get(ETHERNET..)?;
    let to_server = frame.get(12..ETHERNET)? == [0x86, 0xdd]
        && *ip.get(6)? == PROTOCOL_UDP
        && ip.get(IP + 2..IP + 4)? == 547_u16.to_be_bytes();
    let question = ip.get(IP + UDP..).filter(|_| to_server)?;
    let kind = match *question.first()? {
        SOLICIT => ADVERTISE,
        REQUEST => REPLY,
        _ => return None,
    };
    let options = question.get(4..)?;
    let association = find(options, IA_NA)?.get(..4)?;
    let mut address = lease.octets().to_vec();
    address.extend(LIFETIMES.iter().flat_map(|seconds| seconds.to_be_bytes()));
    let association = [association, &[0; 8], &option(IA_ADDRESS, &address)].concat();
    let answer = [
        &[kind],
        question.get(1..4)?,
        &option(CLIENT_ID, find(options, CLIENT_ID)?),
        &option(SERVER_ID, &[&[0, 3, 0, 1], &HARDWARE[..]].concat()),
        &option(IA_NA, &association),
    ]
    .concat();
    let (client, hardware) = (ip.get(8..24)?, frame.get(6..12)?);
    let datagram = datagram(client, &answer)?;
    let length = u16::try_from(datagram.len()).ok()?.to_be_bytes();
    let header = [&[0x60, 0, 0, 0], &length[..], &[PROTOCOL_UDP, 64], &ADDRESS.octets(), client].concat();
    Some([hardware, &HARDWARE, &[0x86, 0xdd], &header, &datagram].concat())
}

fn datagram(client: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP + content.len()).ok()?.to_be_bytes();
    let ports = [547_u16.to_be_bytes(), 546_u16.to_be_bytes()].concat();
    let summed = [&ADDRESS.octets(), client, &length, &[0, PROTOCOL_UDP], &ports, &length, content].concat();
    let sum = summed.chunks(2).fold(0_u32, |sum, pair| {
        let word = [pair.first().copied().unwrap_or_default(), pair.get(1).copied().unwrap_or_default()];
        sum + u32::from(u16::from_be_bytes(word))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).ok()?;
    // Zero would mean that there is no sum, which IPv6 does not allow.
    let check = if folded == u16::MAX { folded } else { !folded };
    Some([&ports, &length[..], &check.to_be_bytes(), content].concat())
}

fn option(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or_default();
    [&kind.to_be_bytes(), &length.to_be_bytes(), value].concat()
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

    /// A solicitation with client identifier and association, in a frame.
    fn solicitation() -> Vec<u8> {
        let content = [&[SOLICIT, 1, 2, 3][..], &option(CLIENT_ID, b"me"), &option(IA_NA, b"kdmp12345678")].concat();
        let udp = [&546_u16.to_be_bytes()[..], &547_u16.to_be_bytes(), &[0; 4], &content].concat();
        let ip = [&[0x60, 0, 0, 0, 0, 0, PROTOCOL_UDP, 1][..], &[7; 32], &udp].concat();
        [&[1; 12][..], &[0x86, 0xdd], &ip].concat()
    }

    #[test]
    fn a_solicitation_is_answered_with_the_one_address() {
        let lease: Ipv6Addr = "fec0::1:7".parse().unwrap();
        let answer = answer(&solicitation(), lease).unwrap();
        let content = &answer[ETHERNET + IP + UDP..];
        assert_eq!(content[..4], [ADVERTISE, 1, 2, 3]);
        let association = find(&content[4..], IA_NA).unwrap();
        assert_eq!(association[..4], *b"kdmp");
        assert_eq!(find(&association[12..], IA_ADDRESS).unwrap()[..16], lease.octets());
        assert_eq!(find(&content[4..], CLIENT_ID), Some(&b"me"[..]));
    }

    #[test]
    fn nothing_else_is_answered() {
        let lease = Ipv6Addr::LOCALHOST;
        assert_eq!(answer(&[], lease), None);
        let whole = solicitation();
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], lease), None, "{length}");
        }
        let mut other = whole;
        other[ETHERNET + 6] = 6;
        assert_eq!(answer(&other, lease), None);
    }
}
