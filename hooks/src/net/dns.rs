//! Names to addresses, without the C library's resolver, which a static program does not have (RFC 1035).
//!
//! In: a name; `/etc/hosts` and `/etc/resolv.conf`. Out: an address, IPv4 before IPv6 as kdump has always preferred it.
//! May surprise: UDP only, which is enough for the address of one server.

use super::kernel::{Net, UdpPlan};
use anyhow::{Context, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The file of nameservers, here and on every system.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const PORT: u16 = 53;
/// How long one nameserver is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all of them are asked.
const ROUNDS: u32 = 2;
/// More nameservers and domains than a resolver takes are not looked at.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;
/// More records of an answer are not looked at.
const MOST_RECORDS: u16 = 64;

const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask.
    pub nameservers: Vec<IpAddr>,
    /// Domains that are tried behind a name without dots.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A link-local one has its interface behind a `%`, which may have another name after the crash.
                    let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                    conf.nameservers.extend(address.filter(|_| conf.nameservers.len() < MOST_SERVERS));
                }
                Some("search" | "domain") => conf.search = words.take(MOST_DOMAINS).map(str::to_owned).collect(),
                _ => {}
            }
        }
        conf
    }

    /// The text of such a file.
    pub fn text(&self) -> String {
        let servers: String = self.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
        match self.search.is_empty() {
            true => servers,
            false => format!("{servers}search {}\n", self.search.join(" ")),
        }
    }
}

/// The address of `name`.
///
/// # Errors
/// Nobody knows it.
pub fn resolve(net: &mut dyn Net, name: &str) -> anyhow::Result<IpAddr> {
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Ok(address);
    }
    if let Some(address) = net.read(HOSTS).and_then(|text| in_hosts(&text, name)) {
        return Ok(address);
    }
    let conf = ResolvConf::parse(&net.read(RESOLV_CONF).unwrap_or_default());
    if conf.nameservers.is_empty() {
        bail!("cannot resolve {name}: it is not in {HOSTS}, and no nameserver is known; write the address itself");
    }
    let absolute = name.ends_with('.');
    let with_domains = conf.search.iter().map(|domain| format!("{name}.{domain}")).filter(|_| !absolute);
    let plain = std::iter::once(name.to_owned());
    let mut names: Vec<String> = match name.contains('.') {
        true => plain.chain(with_domains).collect(),
        false => with_domains.chain(plain).collect(),
    };
    names.truncate(MOST_DOMAINS + 1);
    let mut silent = 0;
    for name in &names {
        for kind in [A, AAAA] {
            match ask(net, &conf.nameservers, name, kind) {
                Ok(Some(address)) => return Ok(address),
                Ok(None) => {}
                Err(error) => {
                    log::debug!("{error:#}");
                    silent += 1;
                    // One name that nobody answers for is enough to know that nobody answers.
                    if silent == 2 {
                        return Err(error).with_context(|| format!("cannot resolve {name}"));
                    }
                }
            }
        }
    }
    let servers: Vec<String> = conf.nameservers.iter().map(ToString::to_string).collect();
    bail!(
        "cannot resolve {name}: {} {} no address for it",
        servers.join(" and "),
        if servers.len() > 1 { "know" } else { "knows" }
    )
}

/// The address of a name in the text of `/etc/hosts`.
fn in_hosts(text: &str, name: &str) -> Option<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    let first = found.next()?;
    Some(if first.is_ipv4() { first } else { found.find(IpAddr::is_ipv4).unwrap_or(first) })
}

/// Asks the nameservers, one after another. `None`: one of them says that there is no such address.
fn ask(net: &mut dyn Net, servers: &[IpAddr], name: &str, kind: u16) -> anyhow::Result<Option<IpAddr>> {
    let number = u16::try_from(net.random() & 0xffff).unwrap_or_default();
    let query = query(number, name, kind).with_context(|| format!("`{name}` is not a name that can be asked for"))?;
    let mut problem = None;
    for server in std::iter::repeat_n(servers, ROUNDS as usize).flatten() {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let answer = net.udp(&UdpPlan { device: None, local: SocketAddr::new(any, 0) }).and_then(|mut socket| {
            socket.send(SocketAddr::new(*server, PORT), &query)?;
            let began = net.now();
            loop {
                let left = PATIENCE.saturating_sub(net.now().saturating_sub(began));
                let Some(bytes) = (if left.is_zero() { None } else { socket.receive(left)? }) else {
                    bail!("the nameserver {server} does not answer");
                };
                if let Some(answer) = parse(&bytes, number, kind) {
                    return Ok(answer);
                }
            }
        });
        match answer {
            Ok(Answer::Address(address)) => return Ok(Some(address)),
            Ok(Answer::NoSuch) => return Ok(None),
            Ok(Answer::Failure(code)) => problem = Some(anyhow::anyhow!("the nameserver {server} failed with {code}")),
            Err(error) => problem = Some(error),
        }
    }
    Err(problem.unwrap_or_else(|| anyhow::anyhow!("there is no nameserver")))
}

fn query(number: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = number.to_be_bytes().to_vec();
    // Recursion is desired; there is one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    if bytes.len() > 12 + 255 {
        return None;
    }
    bytes.extend(kind.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Some(bytes)
}

/// What a nameserver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address.
    Address(IpAddr),
    /// There is none.
    NoSuch,
    /// It could not find out; the code of RFC 1035, 4.1.1.
    Failure(u8),
}

/// Reads the answer to question `number`; `None` if it is none. Addresses are taken whatever name they stand at: a
/// nameserver that follows an alias says so with records in between.
pub fn parse(bytes: &[u8], number: u16, kind: u16) -> Option<Answer> {
    if u16_at(bytes, 0)? != number || *bytes.get(2)? & 0x80 == 0 {
        return None;
    }
    match *bytes.get(3)? & 15 {
        0 => {}
        3 => return Some(Answer::NoSuch),
        code => return Some(Answer::Failure(code)),
    }
    let (questions, answers) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
    let mut at = 12;
    for _ in 0..questions.min(MOST_RECORDS) {
        at = behind_name(bytes, at)? + 4;
    }
    for _ in 0..answers.min(MOST_RECORDS) {
        at = behind_name(bytes, at)?;
        let (found, class) = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
        let length = usize::from(u16_at(bytes, at + 8)?);
        let data = bytes.get(at + 10..at + 10 + length)?;
        if (found, class) == (kind, INTERNET) {
            let four: Result<[u8; 4], _> = data.try_into();
            let six: Result<[u8; 16], _> = data.try_into();
            if let Ok(address) = four.map(IpAddr::from).or(six.map(IpAddr::from)) {
                return Some(Answer::Address(address));
            }
        }
        at += 10 + length;
    }
    Some(Answer::NoSuch)
}

/// Where a name ends; what its pointers point to does not matter here.
fn behind_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeNet;
    use proptest::prelude::*;

    fn net(files: &[(&str, &str)], names: &[(&str, &str)]) -> FakeNet {
        FakeNet {
            files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
            dns: names.iter().map(|(name, address)| ((*name).to_owned(), address.parse().unwrap())).collect(),
            ..FakeNet::default()
        }
    }

    #[test]
    fn addresses_then_hosts_then_nameservers() {
        let files = [
            (HOSTS, "::1 localhost\n127.0.0.1 localhost # comment nas\nfd00::7 nas\n10.0.0.7 NAS.example nas\n"),
            (RESOLV_CONF, "search example lab.example\nnameserver 10.0.2.3\noptions edns0\n"),
        ];
        let mut net = net(&files, &[("far.example.org", "192.0.2.9"), ("six.lab.example", "2001:db8::9")]);
        for (name, address) in [
            ("10.1.2.3", "10.1.2.3"),
            ("[fd00::1]", "fd00::1"),
            ("nas", "10.0.0.7"),
            ("far.example.org", "192.0.2.9"),
            ("six", "2001:db8::9"),
        ] {
            assert_eq!(resolve(&mut net, name).unwrap(), address.parse::<IpAddr>().unwrap(), "{name}");
        }
        let error = resolve(&mut net, "nowhere").unwrap_err().to_string();
        assert_eq!(error, "cannot resolve nowhere: 10.0.2.3 knows no address for it");
    }

    #[test]
    fn silence_costs_a_few_seconds_and_is_told() {
        let mut net = net(&[(RESOLV_CONF, "nameserver 10.0.2.3\n")], &[]);
        net.dns_is_silent = true;
        let error = resolve(&mut net, "nas").unwrap_err();
        assert_eq!(format!("{error:#}"), "cannot resolve nas: the nameserver 10.0.2.3 does not answer");
        assert!(net.clock() <= Duration::from_secs(8), "{:?}", net.clock());
        let error = resolve(&mut FakeNet::default(), "nas").unwrap_err().to_string();
        assert!(error.contains("no nameserver is known"), "{error}");
    }

    #[test]
    fn a_name_that_fits_no_question_is_an_error() {
        let mut net = net(&[(RESOLV_CONF, "nameserver 10.0.2.3\n")], &[]);
        for name in ["a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert!(resolve(&mut net, name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_answer_behind_an_alias_is_found() {
        let mut bytes = query(9, "a.b", A).unwrap();
        bytes[2] = 0x81;
        bytes[7] = 2;
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 14]);
        bytes.extend([0xc0, 14, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
        assert_eq!(parse(&bytes, 9, A), Some(Answer::Address("10.0.0.1".parse().unwrap())));
        assert_eq!(parse(&bytes, 9, AAAA), Some(Answer::NoSuch));
        assert_eq!(parse(&bytes, 8, A), None);
        bytes[3] = 2;
        assert_eq!(parse(&bytes, 9, A), Some(Answer::Failure(2)));
    }

    #[test]
    fn resolv_conf_is_read_as_it_is_written() {
        let conf = ResolvConf {
            nameservers: vec!["10.0.2.3".parse().unwrap(), "fec0::3".parse().unwrap()],
            search: vec!["a.example".into(), "b.example".into()],
        };
        assert_eq!(ResolvConf::parse(&conf.text()), conf);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes, 0, A);
            let mut answer = query(0, "a", A).unwrap();
            answer[2] = 0x80;
            answer[7] = 3;
            answer.extend(bytes);
            let _ = parse(&answer, 0, A);
        }
    }
}
