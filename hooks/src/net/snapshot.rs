//! The running machine's network, as much of it as is needed to reach one address.
//!
//! In: the kernel's links, addresses and routes. Out: a [`Network`] that makes the same way again. May surprise: only the
//! family of the address is copied; an address that expires was leased or advertised, so the capture environment asks
//! for one in the same way instead of using what may be another machine's by then.

use super::dns::{RESOLV_CONF, ResolvConf};
use super::kernel::{KernelRoute, Link, Net};
use super::model::{Cidr, Kind, Method, Network, Route};
use anyhow::{Context, bail};
use std::net::IpAddr;

/// What systemd-resolved itself asks, where `/etc/resolv.conf` only names systemd-resolved.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// The MTU that needs not be told.
const USUAL_MTU: u32 = 1500;
/// Routes that the kernel makes with each address.
const BY_KERNEL: u8 = 2;
/// Routes of router advertisements.
const BY_ADVERTISEMENT: u8 = 9;
/// Interfaces that may stand on each other.
const DEEPEST: usize = 8;
/// A bond's options, those first that others depend on.
const BOND_OPTIONS: [&str; 15] = [
    "mode",
    "miimon",
    "updelay",
    "downdelay",
    "arp_interval",
    "arp_ip_target",
    "arp_validate",
    "lacp_rate",
    "xmit_hash_policy",
    "ad_select",
    "fail_over_mac",
    "primary",
    "primary_reselect",
    "min_links",
    "all_slaves_active",
];

/// The nameservers of the running machine that are not on it.
pub fn nameservers(net: &mut dyn Net) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for file in [RESOLV_CONF, RESOLVED] {
        conf = ResolvConf::parse(&net.read(file).unwrap_or_default());
        conf.nameservers.retain(|server| !server.is_loopback());
        if !conf.nameservers.is_empty() {
            break;
        }
    }
    conf
}

/// The hardware addresses of all cards, by name.
///
/// # Errors
/// The kernel's refusal.
pub fn names(net: &mut dyn Net) -> anyhow::Result<Network> {
    let mut network = Network::default();
    for link in net.links()?.iter().filter(|link| link.is_card()) {
        network.names.extend(link.permanent.or(link.mac).map(|mac| (link.name.clone(), mac)));
    }
    Ok(network)
}

/// What is needed to reach `target`.
///
/// # Errors
/// There is no way to it, or one that the capture environment cannot make.
pub fn snapshot(net: &mut dyn Net, target: IpAddr) -> anyhow::Result<Network> {
    let way = net.route_to(target).with_context(|| format!("this machine has no route to {target}"))?;
    let index = way.link.with_context(|| format!("the route to {target} names no interface"))?;
    of_link(net, index, Some(target), way.source)
}

/// The network of one interface by its name.
///
/// # Errors
/// There is no such interface, or the capture environment cannot make it.
pub fn of_name(net: &mut dyn Net, name: &str) -> anyhow::Result<Network> {
    let links = net.links()?;
    let link = links.iter().find(|link| link.name == name).with_context(|| format!("there is no interface {name}"))?;
    of_link(net, link.index, None, None)
}

fn of_link(net: &mut dyn Net, index: u32, target: Option<IpAddr>, source: Option<IpAddr>) -> anyhow::Result<Network> {
    let links = net.links()?;
    let link = links.iter().find(|link| link.index == index).context("the interface of the route is gone")?;
    if link.is_loopback {
        bail!(
            "{} is this machine itself, which will have crashed",
            target.map_or(link.name.clone(), |ip| ip.to_string())
        );
    }
    let mut network = Network { nameservers: nameservers(net).nameservers, ..Network::default() };
    describe(net, &links, link, &mut network, 0)?;

    let same_family = |address: &IpAddr| target.is_none_or(|target| target.is_ipv4() == address.is_ipv4());
    let mut fixed = true;
    let addresses = net.addresses()?;
    let own = addresses.iter().filter(|address| {
        address.link == index && address.is_global && !address.is_duplicate && same_family(&address.cidr.address)
    });
    let own: Vec<_> = own.collect();
    // With several addresses on one interface the one in use tells how they came.
    let in_use = own.iter().find(|address| Some(address.cidr.address) == source).or(own.first());
    let Some(in_use) = in_use else { bail!("{} has no address of the right family", link.name) };
    let interface = network.interface(&link.name);
    if in_use.is_permanent {
        interface.addresses = own.iter().filter(|address| address.is_permanent).map(|address| address.cidr).collect();
    } else {
        fixed = false;
        interface.acquire = vec![match in_use.cidr {
            Cidr { address: IpAddr::V4(_), .. } => Method::Dhcp,
            Cidr { prefix: 128, .. } => Method::Dhcp6,
            Cidr { .. } => Method::Auto6,
        }];
    }
    for route in net.routes()?.iter().filter(|route| route.link == Some(index) && is_of_use(route, target, fixed)) {
        let interface = Some(link.name.clone());
        network.routes.push(Route { to: route.to.filter(|to| to.prefix > 0), via: route.via, interface });
    }
    Ok(network)
}

/// Whether a route leads to the target and does not come by itself.
fn is_of_use(route: &KernelRoute, target: Option<IpAddr>, fixed: bool) -> bool {
    let to = route.to.filter(|to| to.prefix > 0);
    let family = |address: IpAddr| target.is_none_or(|target| target.is_ipv4() == address.is_ipv4());
    let leads_there = match (to, route.via, target) {
        (Some(to), _, Some(target)) => contains(&to, target),
        (Some(to), _, None) => family(to.address),
        (None, Some(via), _) => family(via),
        (None, None, _) => false,
    };
    let comes_by_itself = match route.protocol {
        BY_KERNEL => true,
        BY_ADVERTISEMENT => !fixed,
        _ => !fixed && to.is_none(),
    };
    leads_there && !comes_by_itself
}

fn contains(network: &Cidr, address: IpAddr) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        let bits = usize::from(network.prefix);
        let whole = a.get(..bits / 8) == b.get(..bits / 8);
        let mask = !u8::MAX.checked_shr(u32::from(network.prefix % 8)).unwrap_or(0);
        let rest = a.get(bits / 8).zip(b.get(bits / 8)).is_none_or(|(a, b)| a & mask == b & mask);
        whole && rest
    };
    match (network.address, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}

/// Notes an interface and what it stands on.
fn describe(net: &mut dyn Net, links: &[Link], link: &Link, network: &mut Network, depth: usize) -> anyhow::Result<()> {
    if depth == DEEPEST {
        bail!("{} stands on too deep a pile of interfaces", link.name);
    }
    let ports: Vec<&Link> = links.iter().filter(|port| port.master == Some(link.index)).collect();
    let (kind, below) = match link.kind.as_deref() {
        None => (Kind::Card, Vec::new()),
        Some("vlan") => {
            let parent = links.iter().find(|parent| Some(parent.index) == link.parent);
            let parent = parent.with_context(|| format!("the interface below the VLAN {} is not here", link.name))?;
            let id =
                link.vlan.with_context(|| format!("the kernel does not tell the number of the VLAN {}", link.name))?;
            (Kind::Vlan { parent: parent.name.clone(), id }, vec![parent])
        }
        Some("bond") => {
            let names = ports.iter().map(|port| port.name.clone()).collect();
            (Kind::Bond { ports: names, options: bond_options(net, &link.name) }, ports)
        }
        Some("bridge") => {
            // Virtual machines and containers have ports too; they are not the way out.
            let outward = |port: &&Link| matches!(port.kind.as_deref(), None | Some("vlan" | "bond"));
            let ports: Vec<&Link> = ports.into_iter().filter(outward).collect();
            (Kind::Bridge { ports: ports.iter().map(|port| port.name.clone()).collect() }, ports)
        }
        Some(other) => bail!(
            "{} is a {other}, which an image of this version cannot make; describe another way with ip= in \
             KDUMP_COMMANDLINE_APPEND",
            link.name
        ),
    };
    if kind != Kind::Card && below.is_empty() {
        bail!("{} has no ports now, so there is no telling what it needs", link.name);
    }
    for one in below {
        describe(net, links, one, network, depth + 1)?;
    }
    if kind == Kind::Card {
        let mac = link.permanent.or(link.mac).with_context(|| format!("{} has no Ethernet address", link.name))?;
        network.names.insert(link.name.clone(), mac);
    }
    // A port of a bond has the bond's hardware address, not one that somebody gave it.
    let given = link.mac.filter(|_| kind == Kind::Card && link.master.is_none() && link.permanent.is_some());
    let interface = network.interface(&link.name);
    interface.kind = kind;
    interface.mtu = Some(link.mtu).filter(|&mtu| mtu != USUAL_MTU && mtu > 0);
    interface.mac = given.filter(|mac| Some(*mac) != link.permanent);
    Ok(())
}

/// A bond's options as sysfs tells them: `active-backup 1`, the name before the number.
fn bond_options(net: &mut dyn Net, name: &str) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for key in BOND_OPTIONS {
        let Some(text) = net.read(&format!("/sys/class/net/{name}/bonding/{key}")) else { continue };
        let words: Vec<&str> = text.split_whitespace().collect();
        let value = match (key, words.as_slice()) {
            (_, []) | (_, ["0"]) | (_, ["none", ..]) => continue,
            ("arp_ip_target", words) => words.join(","),
            (_, [value, ..]) => (*value).to_owned(),
        };
        // Options of another mode are refused by the kernel, whatever their value.
        let needs = match key {
            "lacp_rate" | "ad_select" | "min_links" => Some("802.3ad"),
            "primary" | "primary_reselect" | "fail_over_mac" => Some("active-backup"),
            _ => None,
        };
        let mode: Option<&str> = options.first().map(|(_, mode): &(String, String)| mode.as_str());
        if needs.is_none_or(|needed| mode == Some(needed)) {
            options.push((key.to_owned(), value));
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeNet;
    use crate::net::kernel::Address;

    fn address(link: u32, cidr: &str, is_permanent: bool) -> Address {
        Address {
            link,
            cidr: cidr.parse().unwrap(),
            is_global: true,
            is_tentative: false,
            is_duplicate: false,
            is_permanent,
        }
    }

    fn route(to: Option<&str>, via: Option<&str>, link: u32, protocol: u8) -> KernelRoute {
        KernelRoute {
            to: to.map(|to| to.parse().unwrap()),
            via: via.map(|via| via.parse().unwrap()),
            link: Some(link),
            source: None,
            protocol,
            metric: 0,
        }
    }

    #[test]
    fn a_leased_address_is_asked_for_again() {
        let mut net = FakeNet::with_cards(&["eno1", "eno2"]);
        net.addresses = vec![address(2, "10.0.2.15/24", false), address(3, "172.16.0.1/16", true)];
        net.routes = vec![route(None, Some("10.0.2.2"), 2, 16), route(Some("10.0.2.0/24"), None, 2, 2)];
        net.files.insert("/etc/resolv.conf".into(), "nameserver 127.0.0.53\n".into());
        net.files.insert("/run/systemd/resolve/resolv.conf".into(), "nameserver 10.0.2.3\n".into());
        let network = snapshot(&mut net, "192.0.2.7".parse().unwrap()).unwrap();
        assert_eq!(network.interfaces.len(), 1);
        assert_eq!(network.interfaces[0].acquire, [Method::Dhcp]);
        assert_eq!((network.interfaces[0].addresses.len(), network.routes.len()), (0, 0));
        assert_eq!(network.names["eno1"].to_string(), "52:54:00:00:00:02");
        assert_eq!(network.nameservers, ["10.0.2.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_fixed_address_comes_with_the_routes_to_the_target() {
        let mut net = FakeNet::with_cards(&["eno1"]);
        net.addresses = vec![address(2, "10.0.2.15/24", true), address(2, "fd00::15/64", true)];
        net.routes = vec![
            route(None, Some("10.0.2.2"), 2, 3),
            route(Some("192.0.2.0/24"), Some("10.0.2.9"), 2, 4),
            route(Some("198.51.100.0/24"), Some("10.0.2.9"), 2, 4),
            route(None, Some("fd00::1"), 2, 4),
            route(Some("10.0.2.0/24"), None, 2, 2),
        ];
        let network = snapshot(&mut net, "192.0.2.7".parse().unwrap()).unwrap();
        assert_eq!(network.interfaces[0].addresses, ["10.0.2.15/24".parse().unwrap()]);
        let via: Vec<String> = network.routes.iter().map(|route| route.via.unwrap().to_string()).collect();
        assert_eq!(via, ["10.0.2.2", "10.0.2.9"]);
        assert_eq!(network.routes[1].to, Some("192.0.2.0/24".parse().unwrap()));
    }

    #[test]
    fn a_vlan_on_a_bridge_on_a_bond_is_followed_down_to_the_cards() {
        let mut net = FakeNet::with_cards(&["eno1", "eno2", "tap0"]);
        net.links[3].kind = Some("tun".into());
        let made = |index, name: &str, kind: &str| Link {
            index,
            name: name.into(),
            mac: Some("52:54:00:00:00:02".parse().unwrap()),
            is_up: true,
            is_running: true,
            mtu: 9000,
            kind: Some(kind.into()),
            ..Link::default()
        };
        net.links.extend([made(5, "bond0", "bond"), made(6, "br0", "bridge"), made(7, "br0.7", "vlan")]);
        for (index, master) in [(1, 5), (2, 5), (3, 6), (4, 6)] {
            net.links[index].master = Some(master);
        }
        net.links[6].parent = Some(6);
        net.links[6].vlan = Some(7);
        for (key, text) in [
            ("mode", "active-backup 1"),
            ("miimon", "100"),
            ("primary", "eno1"),
            ("lacp_rate", "fast 1"),
            ("updelay", "0"),
        ] {
            net.files.insert(format!("/sys/class/net/bond0/bonding/{key}"), format!("{text}\n"));
        }
        net.addresses = vec![address(7, "10.7.0.2/24", true)];
        let network = snapshot(&mut net, "10.7.0.9".parse().unwrap()).unwrap();
        let order: Vec<&str> = network.bottom_up().unwrap().iter().map(|one| one.name.as_str()).collect();
        assert_eq!(order, ["eno1", "eno2", "bond0", "br0", "br0.7"]);
        let Kind::Bond { ports, options } = &network.interfaces[2].kind else { panic!() };
        assert_eq!(ports, &["eno1", "eno2"]);
        let options: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(options, ["mode=active-backup", "miimon=100", "primary=eno1"]);
        assert_eq!(network.interfaces[3].kind, Kind::Bridge { ports: vec!["bond0".into()] });
        assert_eq!(network.interfaces[4].mtu, Some(9000));
        assert_eq!(network.names.len(), 2);
    }

    #[test]
    fn a_way_that_cannot_be_made_is_refused_with_a_remedy() {
        let mut net = FakeNet::with_cards(&["team0"]);
        net.links[1].kind = Some("team".into());
        net.addresses = vec![address(2, "10.0.0.1/24", true)];
        let error = snapshot(&mut net, "10.0.0.9".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("team0 is a team, which an image of this version cannot make"), "{error}");
        let error = snapshot(&mut net, "127.0.0.1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("this machine itself"), "{error}");
    }

    #[test]
    fn advertised_and_leased_ipv6_addresses_are_told_apart() {
        let mut net = FakeNet::with_cards(&["eno1"]);
        net.addresses = vec![address(2, "fd00::5054:ff:fe00:2/64", false)];
        let six = "fd00::9".parse().unwrap();
        assert_eq!(snapshot(&mut net, six).unwrap().interfaces[0].acquire, [Method::Auto6]);
        net.addresses = vec![address(2, "fd00::77/128", false)];
        assert_eq!(snapshot(&mut net, six).unwrap().interfaces[0].acquire, [Method::Dhcp6]);
    }
}
