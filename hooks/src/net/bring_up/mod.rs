//! Brings a network up: cards found, piles of bonds, VLANs and bridges built, carriers and addresses awaited.
//!
//! ```text
//!   Network ─▶ links: find, build ─▶ waiting: carriers ─▶ addresses: fixed, DHCP, advertised ─▶ routes ─▶ summary
//! ```
//!
//! In: a [`Network`] and the kernel. Out: a line per interface for the log, or why there is no network. Everything is
//! done within one limit; what one interface cannot do is told and stops no other.

mod addresses;
mod links;
mod waiting;

use super::dns::{RESOLV_CONF, ResolvConf};
use super::kernel::{KernelRoute, Link, Net};
use super::model::{EVERY, Network};
use anyhow::bail;
use log::warn;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the kernel is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Brings `network` up within `limit`.
///
/// # Errors
/// No interface has an address.
pub fn bring_up(network: &Network, net: &mut dyn Net, limit: Duration) -> anyhow::Result<Vec<String>> {
    let order = network.bottom_up()?;
    let end = net.now() + limit;
    let mut site =
        Site { network, net, end, links: BTreeMap::new(), problems: Vec::new(), conf: ResolvConf::default() };
    site.conf.nameservers.clone_from(&network.nameservers);
    site.loopback();
    site.find_cards(&order);
    for interface in &order {
        if interface.name != EVERY {
            site.build(interface).unwrap_or_else(|error| site.problem(&interface.name, &error));
        }
    }
    let everything = order.iter().find(|interface| interface.name == EVERY);
    if let Some(every) = everything {
        site.every_card(every);
    }
    site.await_carriers(&order);
    let mut addressed = 0;
    for interface in order.iter().filter(|interface| interface.name != EVERY && interface.is_addressed()) {
        match site.address(interface) {
            Ok(()) => addressed += 1,
            Err(error) => site.problem(&interface.name, &error),
        }
    }
    if let Some(every) = everything {
        addressed += site.address_any(every);
    }
    site.routes();
    let text = site.conf.text();
    site.net.write(RESOLV_CONF, &text).unwrap_or_else(|error| warn!("cannot note the nameservers: {error:#}"));
    if addressed == 0 {
        bail!("no interface has an address: {}", site.problems.join("; "));
    }
    site.problems.iter().for_each(|problem| warn!("network: {problem}"));
    site.summary()
}

/// A network that is being brought up.
struct Site<'a> {
    network: &'a Network,
    net: &'a mut dyn Net,
    end: Duration,
    /// What the kernel calls the interfaces of the configuration.
    links: BTreeMap<String, Link>,
    problems: Vec<String>,
    conf: ResolvConf,
}

impl Site<'_> {
    fn problem(&mut self, name: &str, error: &anyhow::Error) {
        self.problems.push(format!("{name}: {error:#}"));
    }

    fn routes(&mut self) {
        for route in &self.network.routes {
            let link = route.interface.as_ref().and_then(|name| self.links.get(name)).map(|link| link.index);
            let wanted = KernelRoute { to: route.to, via: route.via, link, source: None, protocol: 0, metric: 0 };
            if let Err(error) = self.net.add_route(&wanted) {
                let to = route.to.map_or("everywhere".to_owned(), |to| to.to_string());
                self.problem(&format!("route to {to}"), &error);
            }
        }
    }

    /// What came up, a line per interface.
    fn summary(&mut self) -> anyhow::Result<Vec<String>> {
        let (links, addresses, routes) = (self.net.links()?, self.net.addresses()?, self.net.routes()?);
        let mut lines = Vec::new();
        for link in links.iter().filter(|link| !link.is_loopback) {
            let own = addresses.iter().filter(|address| address.link == link.index && address.is_global);
            let own: Vec<String> = own.map(|address| address.cidr.to_string()).collect();
            if own.is_empty() {
                continue;
            }
            let routers = routes.iter().filter(|route| route.link == Some(link.index) && route.to.is_none());
            let via: Vec<String> = routers.filter_map(|route| route.via).map(|via| format!(" via {via}")).collect();
            lines.push(format!("{}: {}{}, MTU {}", told(link), own.join(" "), via.concat(), link.mtu));
        }
        if !self.conf.nameservers.is_empty() {
            let servers: Vec<String> = self.conf.nameservers.iter().map(ToString::to_string).collect();
            lines.push(format!("nameservers: {}", servers.join(" ")));
        }
        Ok(lines)
    }
}

/// `eth0 (52:54:00:12:34:56)`.
fn told(link: &Link) -> String {
    match link.mac {
        Some(mac) => format!("{} ({mac})", link.name),
        None => link.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::addresses::ADVERTISED;
    use super::*;
    use crate::cmdline::Cmdline;
    use crate::fake::FakeNet;

    const LIMIT: Duration = Duration::from_secs(300);

    fn network(line: &str) -> Network {
        Network::from_cmdline(&Cmdline::parse(line)).unwrap().unwrap()
    }

    #[test]
    fn a_fixed_address_needs_no_one_else() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        let network = network("ip=10.0.2.15::10.0.2.2:24::eth0:none:10.0.2.3");
        let lines = bring_up(&network, &mut net, LIMIT).unwrap();
        assert_eq!(lines, ["eth0 (52:54:00:00:00:02): 10.0.2.15/24 via 10.0.2.2, MTU 1500", "nameservers: 10.0.2.3"]);
        assert_eq!(
            net.journal(),
            [
                "change 1 up",
                "change 2 up",
                "address 2 10.0.2.15/24",
                "route default via 10.0.2.2 dev 2",
                "write /etc/resolv.conf nameserver 10.0.2.3\n"
            ]
        );
    }

    #[test]
    fn a_card_is_known_by_its_hardware_address_whatever_it_is_called() {
        let mut net = FakeNet::with_cards(&["eth0", "eth1"]);
        let mut network = network("ip=eno7:dhcp");
        network.names.insert("eno7".into(), "52:54:00:00:00:03".parse().unwrap());
        net.dhcp = Some(FakeNet::OPTIONS.to_vec());
        let lines = bring_up(&network, &mut net, LIMIT).unwrap();
        assert_eq!(lines[0], "eth1 (52:54:00:00:00:03): 10.0.2.15/24 via 10.0.2.2, MTU 1500");
        assert!(net.journal().contains(&"udp eth1 0.0.0.0:68".to_owned()));
    }

    #[test]
    fn a_vlan_on_a_bond_is_built_from_below() {
        let mut net = FakeNet::with_cards(&["eth0", "eth1"]);
        let network = network(
            "bond=bond0:eth0,eth1:miimon=100,mode=active-backup,arp_ip_target=10.0.0.1;10.0.0.2:1400 \
             vlan=bond0.42:bond0 ip=10.1.1.5::10.1.1.1:24::bond0.42:none",
        );
        bring_up(&network, &mut net, LIMIT).unwrap();
        let journal = net.journal();
        let expected = [
            "create bond0 bond",
            "write /sys/class/net/bond0/bonding/mode active-backup",
            "write /sys/class/net/bond0/bonding/miimon 100",
            "write /sys/class/net/bond0/bonding/arp_ip_target +10.0.0.1",
            "write /sys/class/net/bond0/bonding/arp_ip_target +10.0.0.2",
            "change 2 down",
            "change 2 master 4",
            "change 2 up",
            "change 3 down",
            "change 3 master 4",
            "change 3 up",
            "change 4 mtu 1400",
            "change 4 up",
            "create bond0.42 vlan 42 on 4",
            "change 5 up",
            "address 5 10.1.1.5/24",
        ];
        let start = journal.iter().position(|line| line == expected[0]).unwrap();
        assert_eq!(journal[start..start + expected.len()], expected);
    }

    #[test]
    fn a_missing_card_is_told_with_what_is_there_instead() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        let mut network = network("ip=eno7:dhcp rd.net.timeout.iflink=9");
        network.names.insert("eno7".into(), "aa:00:00:00:00:01".parse().unwrap());
        let error = bring_up(&network, &mut net, LIMIT).unwrap_err().to_string();
        assert!(
            error.contains("eno7 (aa:00:00:00:00:01) did not appear; there is eth0 (52:54:00:00:00:02)"),
            "{error}"
        );
        assert!(net.clock() < Duration::from_secs(11), "{:?}", net.clock());
    }

    #[test]
    fn a_missing_carrier_is_told_within_its_limit() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        net.unplugged.insert("eth0".into());
        let error = bring_up(&network("ip=eth0:dhcp"), &mut net, LIMIT).unwrap_err().to_string();
        assert!(error.contains("eth0 has had no carrier for 30 s; is its cable plugged in?"), "{error}");
        assert!(error.contains("no DHCP server answered within 60 s"), "{error}");
    }

    #[test]
    fn with_any_card_the_one_that_gets_an_address_will_do() {
        let mut net = FakeNet::with_cards(&["eth0", "eth1"]);
        net.unplugged.insert("eth0".into());
        net.dhcp = Some(FakeNet::OPTIONS.to_vec());
        let lines = bring_up(&network("ip=dhcp"), &mut net, LIMIT).unwrap();
        assert!(lines[0].starts_with("eth1 "), "{lines:?}");
        let mut nothing = FakeNet::default();
        let error = bring_up(&network("ip=dhcp rd.net.timeout.iflink=1"), &mut nothing, LIMIT).unwrap_err().to_string();
        assert!(error.contains("its driver may be missing"), "{error}");
    }

    #[test]
    fn addresses_of_router_advertisements_are_awaited_until_they_are_ours() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        net.advertised = Some("fec0::5054:ff:fe00:2/64".parse().unwrap());
        let lines = bring_up(&network("ip=eth0:auto6"), &mut net, LIMIT).unwrap();
        assert!(lines[0].contains("fec0::5054:ff:fe00:2/64"), "{lines:?}");
        assert!(net.clock() >= FakeNet::DAD, "{:?}", net.clock());
        let mut silent = FakeNet::with_cards(&["eth0"]);
        let error = bring_up(&network("ip=eth0:auto6"), &mut silent, LIMIT).unwrap_err().to_string();
        assert!(error.contains("no router advertised an IPv6 network within 60 s"), "{error}");
    }

    #[test]
    fn after_dhcpv6_a_router_is_awaited_and_missed_if_there_is_none() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        net.advertised = Some("fe80::5054:ff:fe00:2/64".parse().unwrap());
        net.dhcp6 = Some("fd00::7".parse().unwrap());
        let lines = bring_up(&network("ip=eth0:dhcp6"), &mut net, LIMIT).unwrap();
        assert!(lines[0].contains("fd00::7/128"), "{lines:?}");
        let waited = FakeNet::DAD + Duration::from_secs(ADVERTISED);
        assert!((waited..waited + Duration::from_secs(1)).contains(&net.clock()), "{:?}", net.clock());
        let journal = net.journal();
        assert!(journal.contains(&"udp eth0 [fe80::5054:ff:fe00:2%2]:546".to_owned()), "{journal:?}");
    }

    #[test]
    fn any_means_ipv4_and_then_ipv6() {
        let mut net = FakeNet::with_cards(&["eth0"]);
        net.advertised = Some("fec0::5054:ff:fe00:2/64".parse().unwrap());
        let lines = bring_up(&network("ip=eth0:any rd.net.timeout.dhcp=5"), &mut net, LIMIT).unwrap();
        assert!(lines[0].contains("fec0::"), "{lines:?}");
    }

    #[test]
    fn nothing_takes_longer_than_the_stage_may() {
        let mut net = FakeNet::with_cards(&["eth0", "eth1"]);
        let network = network("ip=eth0:dhcp ip=eth1:dhcp rd.net.timeout.dhcp=3600");
        bring_up(&network, &mut net, Duration::from_secs(100)).unwrap_err();
        assert!(net.clock() <= Duration::from_secs(102), "{:?}", net.clock());
    }
}
