//! A kernel's network that exists only in memory: cards, a DHCP server, a router that advertises, a nameserver.
//!
//! May surprise: its clock moves only when somebody waits, so a test of a minute's patience takes no time.

use crate::net::model::{Cidr, Kind, Mac};
use crate::net::{Address, Datagrams, KernelRoute, Link, LinkChange, Net, UdpPlan};
use anyhow::Context;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// A network.
#[derive(Clone, Debug, Default)]
pub struct FakeNet {
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// The routes.
    pub routes: Vec<KernelRoute>,
    /// Interfaces that never get a carrier.
    pub unplugged: BTreeSet<String>,
    /// Small files.
    pub files: BTreeMap<String, String>,
    /// The options of what a DHCP server offers, if there is one. It gives 10.0.2.15.
    pub dhcp: Option<Vec<u8>>,
    /// Whether that server refuses what it has offered.
    pub dhcp_refuses: bool,
    /// The address that a DHCPv6 server gives, if there is one.
    pub dhcp6: Option<Ipv6Addr>,
    /// The address that follows from what a router advertises, if there is one; a link-local one if nobody does.
    pub advertised: Option<Cidr>,
    /// What the nameserver knows.
    pub dns: BTreeMap<String, IpAddr>,
    /// Whether no nameserver answers.
    pub dns_is_silent: bool,
    pub(crate) shared: Rc<RefCell<Shared>>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    clock: Duration,
    journal: Vec<String>,
    numbers: u32,
}

impl FakeNet {
    /// How long an advertised address is tentative.
    pub const DAD: Duration = Duration::from_secs(2);

    /// The options of an ordinary DHCP server.
    pub const OPTIONS: [u8; 31] =
        [1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 51, 4, 0, 1, 81, 128, 54, 4, 10, 0, 2, 2, 255];

    /// A loopback, number 1, and cards with the numbers from 2 on and hardware addresses that end in them.
    pub fn with_cards(names: &[&str]) -> FakeNet {
        let card = |(index, name): (u32, &&str)| Link {
            index,
            name: (*name).to_owned(),
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, index.to_le_bytes()[0]])),
            mtu: 1500,
            ..Link::default()
        };
        let lo = Link { index: 1, name: "lo".to_owned(), is_loopback: true, ..Link::default() };
        let links = std::iter::once(lo).chain((2..).zip(names).map(card)).collect();
        FakeNet { links, ..FakeNet::default() }
    }

    /// What was asked, one line each.
    pub fn journal(&self) -> Vec<String> {
        self.shared.borrow().journal.clone()
    }

    /// The time that has been waited.
    pub fn clock(&self) -> Duration {
        self.shared.borrow().clock
    }

    fn note(&self, line: String) {
        self.shared.borrow_mut().journal.push(line);
    }
}

impl Net for FakeNet {
    fn links(&mut self) -> anyhow::Result<Vec<Link>> {
        Ok(self.links.clone())
    }

    fn addresses(&mut self) -> anyhow::Result<Vec<Address>> {
        let mut addresses = self.addresses.clone();
        let up = self.links.iter().find(|link| link.is_running && !link.is_loopback);
        if let (Some(cidr), Some(link)) = (self.advertised, up) {
            addresses.push(Address {
                link: link.index,
                cidr,
                is_global: !matches!(cidr.address, IpAddr::V6(address) if address.is_unicast_link_local()),
                is_tentative: self.clock() < FakeNet::DAD,
                is_duplicate: false,
                is_permanent: false,
            });
        }
        Ok(addresses)
    }

    fn routes(&mut self) -> anyhow::Result<Vec<KernelRoute>> {
        Ok(self.routes.clone())
    }

    fn route_to(&mut self, address: IpAddr) -> anyhow::Result<KernelRoute> {
        let route = |link: u32, source: Option<IpAddr>| KernelRoute {
            to: Some(Cidr::host(address)),
            via: None,
            link: Some(link),
            source,
            protocol: 0,
            metric: 0,
        };
        if address.is_loopback() {
            return Ok(route(1, Some(address)));
        }
        let fits = |own: &&Address| own.cidr.address.is_ipv4() == address.is_ipv4();
        let own = self.addresses.iter().find(fits).context("network is unreachable")?;
        Ok(route(own.link, Some(own.cidr.address)))
    }

    fn create(&mut self, name: &str, kind: &Kind, parent: Option<u32>) -> anyhow::Result<()> {
        let index = u32::try_from(self.links.len() + 1)?;
        let what = match (kind, parent) {
            (Kind::Vlan { id, .. }, Some(parent)) => format!(" {id} on {parent}"),
            _ => String::new(),
        };
        self.note(format!("create {name} {}{what}", kind.word().unwrap_or_default()));
        let mac = Some(Mac([2, 0, 0, 0, 0, index.to_le_bytes()[0]]));
        let kind = kind.word().map(str::to_owned);
        self.links.push(Link { index, name: name.to_owned(), mac, kind, parent, mtu: 1500, ..Link::default() });
        Ok(())
    }

    fn change(&mut self, link: u32, change: &LinkChange) -> anyhow::Result<()> {
        let mut words = Vec::new();
        words.extend(change.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
        words.extend(change.mtu.map(|mtu| format!("mtu {mtu}")));
        words.extend(change.mac.map(|mac| format!("mac {mac}")));
        words.extend(change.master.map(|master| format!("master {master}")));
        self.note(format!("change {link} {}", words.join(" ")));
        let link = self.links.iter_mut().find(|one| one.index == link).context("no such device")?;
        link.is_up = change.up.unwrap_or(link.is_up);
        link.is_running = link.is_up && !self.unplugged.contains(&link.name);
        link.mtu = change.mtu.unwrap_or(link.mtu);
        link.mac = change.mac.or(link.mac);
        link.master = change.master.or(link.master);
        Ok(())
    }

    fn add_address(&mut self, link: u32, cidr: Cidr) -> anyhow::Result<()> {
        self.note(format!("address {link} {cidr}"));
        self.addresses.push(Address {
            link,
            cidr,
            is_global: true,
            is_tentative: false,
            is_duplicate: false,
            is_permanent: true,
        });
        Ok(())
    }

    fn add_route(&mut self, route: &KernelRoute) -> anyhow::Result<()> {
        let to = route.to.map_or("default".to_owned(), |to| to.to_string());
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let link = route.link.map(|link| format!(" dev {link}")).unwrap_or_default();
        self.note(format!("route {to}{via}{link}"));
        self.routes.push(route.clone());
        Ok(())
    }

    fn read(&mut self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }

    fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        self.note(format!("write {path} {text}"));
        self.files.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn udp(&mut self, plan: &UdpPlan) -> anyhow::Result<Box<dyn Datagrams>> {
        if let Some(device) = &plan.device {
            self.note(format!("udp {device} {}", plan.local));
        }
        let silent = plan.device.as_ref().is_some_and(|device| self.unplugged.contains(device));
        Ok(Box::new(FakeSocket { net: self.clone(), silent, answers: VecDeque::new() }))
    }

    fn random(&mut self) -> u32 {
        let mut shared = self.shared.borrow_mut();
        shared.numbers += 1;
        shared.numbers
    }

    fn now(&mut self) -> Duration {
        self.clock()
    }

    fn pause(&mut self, time: Duration) {
        self.shared.borrow_mut().clock += time;
    }
}

/// A socket with everybody's answers in it.
struct FakeSocket {
    net: FakeNet,
    silent: bool,
    answers: VecDeque<Vec<u8>>,
}

impl Datagrams for FakeSocket {
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> anyhow::Result<()> {
        let answer = match to.port() {
            67 => {
                self.net.note(format!("send {to}"));
                dhcp_server(&self.net, bytes)
            }
            547 => dhcp6_server(&self.net, bytes),
            53 if !self.net.dns_is_silent => nameserver(&self.net, bytes),
            _ => None,
        };
        self.answers.extend(answer.filter(|_| !self.silent));
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        if self.answers.is_empty() {
            self.net.pause(limit);
        }
        Ok(self.answers.pop_front())
    }
}

fn dhcp_server(net: &FakeNet, request: &[u8]) -> Option<Vec<u8>> {
    let options = net.dhcp.as_ref()?;
    let number = u32::from_be_bytes(request.get(4..8)?.try_into().ok()?);
    let mac = Mac(request.get(28..34)?.try_into().ok()?);
    let kind = match (request.get(242)?, net.dhcp_refuses) {
        (1, _) => 2,
        (_, true) => 6,
        (_, false) => 5,
    };
    Some(dhcp_reply(number, mac, kind, options))
}

/// Everything of the request comes back, and an address in the association.
fn dhcp6_server(net: &FakeNet, request: &[u8]) -> Option<Vec<u8>> {
    let address = net.dhcp6?;
    let (kind, rest) = request.split_first()?;
    let mut answer = vec![if *kind == 1 { 2 } else { 7 }];
    answer.extend(rest.get(..3)?);
    // The client's identifier is the first option.
    answer.extend(rest.get(3..3 + 14)?);
    answer.extend([0, 2, 0, 3, b's', b'r', b'v', 0, 3, 0, 40]);
    answer.extend(b"kdmp");
    answer.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24]);
    answer.extend(address.octets());
    answer.extend([0; 8]);
    Some(answer)
}

/// A DHCP server's message that gives 10.0.2.15.
pub fn dhcp_reply(number: u32, mac: Mac, kind: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([10, 0, 2, 15]);
    bytes.resize(28, 0);
    bytes.extend(mac.0);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    bytes.extend(options);
    bytes
}

fn nameserver(net: &FakeNet, question: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
    let known = net.dns.get(&name.join("."));
    let kind = *question.get(at + 2)?;
    let mut answer = question.to_vec();
    let (code, count) = match known {
        None => (3, 0),
        Some(address) => (0, u8::from(kind == if address.is_ipv4() { 1 } else { 28 })),
    };
    for (place, value) in [(2, 0x81), (3, code), (7, count)] {
        *answer.get_mut(place)? = value;
    }
    if let (Some(address), 1) = (known, count) {
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0]);
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        answer.push(u8::try_from(octets.len()).ok()?);
        answer.extend(octets);
    }
    Some(answer)
}
