//! Brings a network up: cards found, piles of bonds, VLANs and bridges built, carriers and addresses awaited.
//!
//! In: a [`Network`] and the kernel. Out: a line per interface for the log, or why there is no network. Everything is
//! done within one limit; what one interface cannot do is told and stops no other.

use super::dhcp4::{self, Lease};
use super::dhcp6;
use super::dns::{RESOLV_CONF, ResolvConf};
use super::kernel::{KernelRoute, Link, LinkChange, Net};
use super::model::{Cidr, EVERY, Interface, Kind, Method, Network};
use anyhow::{Context, anyhow, bail};
use log::{info, warn};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often the kernel is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a wait says that it is still waiting.
const SAY_SO: Duration = Duration::from_secs(5);
/// When one of several cards has a carrier, the others have so long to get theirs.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// For one card of several, before the next one is tried.
const ONE_TRY: Duration = Duration::from_secs(12);
/// DHCPv6 brings no routes: a router has so many seconds to advertise itself after the lease. Routers answer at once.
const ADVERTISED: u64 = 6;
/// With less time left nothing is begun.
const SHORTEST_TRY: Duration = Duration::from_secs(1);
/// Routes of a lease are worse than those that are configured.
const LEASED: u32 = 100;
/// A lease shorter than this may end before the dump does.
const SHORT_LEASE: u32 = 3600;

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

    fn loopback(&mut self) {
        let links = self.net.links().unwrap_or_default();
        if let Some(lo) = links.iter().find(|link| link.is_loopback) {
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            self.net.change(lo.index, &up).unwrap_or_else(|error| warn!("cannot switch the loopback on: {error:#}"));
        }
    }

    /// Waits until `ready` has something, at most `seconds`, saying what for.
    fn wait<T>(
        &mut self,
        seconds: u64,
        what: &str,
        mut ready: impl FnMut(&mut dyn Net) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let began = self.net.now();
        let limit = Duration::from_secs(seconds).min(self.end.saturating_sub(began));
        let mut said = began;
        loop {
            if let Some(found) = ready(self.net)? {
                return Ok(Some(found));
            }
            let now = self.net.now();
            if now.saturating_sub(began) >= limit {
                return Ok(None);
            }
            if now.saturating_sub(said) >= SAY_SO {
                said = now;
                warn!("network: waiting for {what}, {} of {} s", now.saturating_sub(began).as_secs(), limit.as_secs());
            }
            self.net.pause(LOOK_AGAIN);
        }
    }

    /// Finds the cards by their hardware addresses, or by their names where no address is known.
    fn find_cards(&mut self, order: &[&Interface]) {
        let network = self.network;
        let wanted: Vec<&str> = order
            .iter()
            .filter(|one| one.kind == Kind::Card && one.name != EVERY)
            .map(|one| one.name.as_str())
            .collect();
        let any_will_do = order.iter().any(|one| one.name == EVERY);
        let mut found = BTreeMap::new();
        let what = if wanted.is_empty() { "a network card".to_owned() } else { wanted.join(" and ") };
        let waited = self.wait(network.waits.link, &what, |net| {
            let links = net.links()?;
            for name in &wanted {
                let link = match network.names.get(*name) {
                    Some(mac) => links
                        .iter()
                        .filter(|link| link.is_card() && (link.permanent == Some(*mac) || link.mac == Some(*mac)))
                        .min_by_key(|link| link.master.is_some()),
                    None => links.iter().find(|link| link.name == *name),
                };
                link.map(|link| found.insert((*name).to_owned(), link.clone()));
            }
            let enough = found.len() == wanted.len() && (!any_will_do || links.iter().any(Link::is_card));
            Ok(enough.then_some(()))
        });
        if let Err(error) = waited {
            self.problem("cards", &error);
        }
        let there: Vec<String> =
            self.net.links().unwrap_or_default().iter().filter(|link| link.is_card()).map(told).collect();
        let there =
            if there.is_empty() { "no card, so its driver may be missing".to_owned() } else { there.join(", ") };
        for name in wanted.iter().filter(|name| !found.contains_key(**name)) {
            let as_what = network.names.get(*name).map(|mac| format!(" ({mac})")).unwrap_or_default();
            self.problems.push(format!("{name}{as_what} did not appear; there is {there}"));
        }
        if wanted.is_empty() && any_will_do && !self.net.links().unwrap_or_default().iter().any(Link::is_card) {
            self.problems.push(format!("there is {there}"));
        }
        self.links = found;
    }

    /// Makes an interface, sets it up and on; those below it are there already.
    fn build(&mut self, interface: &Interface) -> anyhow::Result<()> {
        let name = &interface.name;
        if interface.kind != Kind::Card {
            let below: Vec<Link> =
                interface.kind.below().iter().filter_map(|name| self.links.get(*name)).cloned().collect();
            if below.is_empty() {
                bail!("nothing that it stands on is there");
            }
            let parent = below.first().map(|link| link.index);
            self.net
                .create(name, &interface.kind, parent.filter(|_| matches!(interface.kind, Kind::Vlan { .. })))
                .with_context(|| format!("cannot make the {}", interface.kind.word().unwrap_or_default()))?;
            let made = self.link_named(name)?;
            self.links.insert(name.clone(), made.clone());
            if let Kind::Bond { options, .. } = &interface.kind {
                self.bond_options(name, options);
            }
            if !matches!(interface.kind, Kind::Vlan { .. }) {
                for port in below {
                    // A bond takes no port that is on.
                    self.net.change(port.index, &LinkChange { up: Some(false), ..LinkChange::default() })?;
                    let join = LinkChange { master: Some(made.index), ..LinkChange::default() };
                    let on = LinkChange { up: Some(true), ..LinkChange::default() };
                    let joined = self.net.change(port.index, &join).and_then(|()| self.net.change(port.index, &on));
                    if let Err(error) = joined {
                        self.problem(&port.name, &error.context(format!("cannot join {name}")));
                    }
                }
            }
        }
        let Some(link) = self.links.get(name) else { return Ok(()) };
        let (index, mac) = (link.index, interface.mac);
        let change = LinkChange { mtu: interface.mtu, mac, ..LinkChange::default() };
        if change != LinkChange::default() {
            self.net.change(index, &change).context("cannot set its MTU or hardware address")?;
        }
        self.net.change(index, &LinkChange { up: Some(true), ..LinkChange::default() }).context("cannot be switched on")
    }

    fn link_named(&mut self, name: &str) -> anyhow::Result<Link> {
        let links = self.net.links()?;
        links.into_iter().find(|link| link.name == name).ok_or_else(|| anyhow!("it is not there after it was made"))
    }

    /// The mode first: it decides which other options there are.
    fn bond_options(&mut self, name: &str, options: &[(String, String)]) {
        let (mode, others): (Vec<_>, Vec<_>) = options.iter().partition(|(key, _)| key == "mode");
        for (key, value) in mode.into_iter().chain(others) {
            let path = format!("/sys/class/net/{name}/bonding/{key}");
            // Targets are added one by one.
            let values: Vec<String> = match key.as_str() {
                "arp_ip_target" | "ns_ip6_target" => value.split(',').map(|target| format!("+{target}")).collect(),
                // It names a port as the running system calls it.
                "primary" | "active_slave" => vec![self.links.get(value).map_or(value, |link| &link.name).clone()],
                _ => vec![value.clone()],
            };
            for value in values {
                if let Err(error) = self.net.write(&path, &value) {
                    self.problem(name, &error.context(format!("cannot set {key}={value}")));
                }
            }
        }
    }

    /// Switches on all cards that are no part of anything.
    fn every_card(&mut self, every: &Interface) {
        for link in self.free_cards() {
            let change = LinkChange { up: Some(true), mtu: every.mtu, ..LinkChange::default() };
            self.net.change(link.index, &change).unwrap_or_else(|error| self.problem(&link.name, &error));
        }
    }

    /// The cards, bonds, VLANs and bridges that nothing else stands on and that are not configured by name.
    fn free_cards(&mut self) -> Vec<Link> {
        let links = self.net.links().unwrap_or_default();
        let network = self.network;
        let taken = |link: &Link| {
            let mut known = self.links.iter().filter(|(_, known)| known.index == link.index);
            known.any(|(name, _)| {
                network.is_below_another(name)
                    || network.interfaces.iter().any(|interface| interface.name == *name && interface.is_addressed())
            })
        };
        let ours = |link: &Link| link.is_card() || self.links.contains_key(&link.name);
        links.iter().filter(|link| link.master.is_none() && ours(link) && !taken(link)).cloned().collect()
    }

    fn await_carriers(&mut self, order: &[&Interface]) {
        let seconds = self.network.waits.carrier;
        let named = order.iter().filter(|interface| interface.name != EVERY && interface.is_addressed());
        let named: Vec<Link> = named.filter_map(|interface| self.links.get(&interface.name)).cloned().collect();
        let of: Vec<&str> = named.iter().map(|link| link.name.as_str()).collect();
        let waited = self.wait(seconds, &format!("a carrier of {}", of.join(" and ")), |net| {
            let links = net.links()?;
            let runs = |one: &Link| links.iter().any(|link| link.index == one.index && link.is_running);
            Ok(named.iter().all(runs).then_some(()))
        });
        match waited {
            Ok(Some(())) => {}
            Ok(None) => {
                let links = self.net.links().unwrap_or_default();
                for link in named.iter().filter(|one| links.iter().any(|now| now.index == one.index && !now.is_running))
                {
                    self.problems
                        .push(format!("{} has had no carrier for {seconds} s; is its cable plugged in?", link.name));
                }
            }
            Err(error) => self.problem("carriers", &error),
        }
        if order.iter().any(|interface| interface.name == EVERY) {
            let free: Vec<u32> = self.free_cards().iter().map(|link| link.index).collect();
            let what = format!("a carrier of any of {} network cards", free.len());
            let running = |net: &mut dyn Net| -> anyhow::Result<usize> {
                Ok(net.links()?.iter().filter(|link| link.is_running && free.contains(&link.index)).count())
            };
            match self.wait(seconds, &what, |net| Ok((running(net)? > 0).then_some(()))) {
                Ok(Some(())) if free.len() > 1 => {
                    let _ =
                        self.wait(STRAGGLERS.as_secs(), &what, |net| Ok((running(net)? == free.len()).then_some(())));
                }
                Ok(_) => {}
                Err(error) => self.problem("carriers", &error),
            }
        }
    }

    /// Gives an interface its addresses.
    fn address(&mut self, interface: &Interface) -> anyhow::Result<()> {
        let link = self.links.get(&interface.name).cloned().context("it is not there")?;
        for cidr in &interface.addresses {
            self.net.add_address(link.index, *cidr).with_context(|| format!("cannot give it the address {cidr}"))?;
        }
        let limit = Duration::from_secs(self.network.waits.address);
        let mut outcome = if interface.addresses.is_empty() { Err(anyhow!("no way to an address")) } else { Ok(()) };
        for method in &interface.acquire {
            let acquired = self.acquire(&link, *method, limit);
            match (&outcome, acquired) {
                (_, Ok(())) => outcome = Ok(()),
                (Ok(()), Err(error)) => self.problem(&interface.name, &error),
                (Err(_), Err(error)) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Tries all free cards that have a carrier, again and again, until one has an address.
    fn address_any(&mut self, every: &Interface) -> usize {
        let end = self.end.min(self.net.now() + Duration::from_secs(self.network.waits.address));
        let mut last = BTreeMap::new();
        loop {
            let cards: Vec<Link> = self.free_cards().into_iter().filter(|link| link.is_running).collect();
            let mut good = 0;
            for link in &cards {
                for method in &every.acquire {
                    let left = end.saturating_sub(self.net.now());
                    let limit = if cards.len() > 1 { ONE_TRY.min(left) } else { left };
                    match self.acquire(link, *method, limit) {
                        Ok(()) => good += 1,
                        Err(error) => drop(last.insert(link.name.clone(), format!("{error:#}"))),
                    }
                }
            }
            if good > 0 || self.net.now() + SHORTEST_TRY > end {
                let problems = last.iter().map(|(name, problem)| format!("{name}: {problem}"));
                self.problems.extend(problems);
                if cards.is_empty() {
                    self.problems.push("no network card has a carrier".to_owned());
                }
                return good;
            }
            self.net.pause(LOOK_AGAIN);
        }
    }

    /// Gets an address in one way.
    fn acquire(&mut self, link: &Link, method: Method, limit: Duration) -> anyhow::Result<()> {
        let limit = limit.min(self.end.saturating_sub(self.net.now()));
        info!("network: {}: asking for an address ({}), at most {} s", link.name, method.word(), limit.as_secs());
        match method {
            Method::Dhcp => self.dhcp(link, limit),
            Method::Auto6 => self.six(link, limit, true),
            Method::Link6 => self.six(link, limit, false),
            Method::Dhcp6 => self.dhcp6(link, limit),
            Method::Any => self
                .dhcp(link, limit)
                .or_else(|four| self.six(link, ONE_TRY, true).map_err(|six| anyhow!("{four:#}; {six:#}"))),
            Method::Either6 => self
                .six(link, limit / 2, true)
                .or_else(|auto| self.dhcp6(link, limit / 2).map_err(|dhcp| anyhow!("{auto:#}; {dhcp:#}"))),
        }
    }

    fn dhcp(&mut self, link: &Link, limit: Duration) -> anyhow::Result<()> {
        let mac = self.net.links()?.into_iter().find(|now| now.index == link.index).and_then(|now| now.mac);
        let mac = mac.context("it has no Ethernet address, which DHCP needs")?;
        let lease = dhcp4::lease(self.net, &link.name, mac, limit)?;
        info!("network: {}: {} for {} s from {}", link.name, lease.address, lease.seconds, lease.server);
        if lease.seconds < SHORT_LEASE {
            warn!("network: {}: the lease ends after {} s and is not renewed", link.name, lease.seconds);
        }
        let Lease { address, routes, nameservers, mtu, .. } = lease;
        if mtu.is_some() {
            self.net.change(link.index, &LinkChange { mtu, ..LinkChange::default() }).unwrap_or_else(|error| {
                self.problem(&link.name, &error.context("cannot set the MTU of the lease"));
            });
        }
        self.net.add_address(link.index, address)?;
        for (to, via) in routes {
            let to = Some(to).filter(|to| to.prefix > 0);
            let via = via.map(IpAddr::from);
            let route = KernelRoute { to, via, link: Some(link.index), source: None, protocol: 0, metric: LEASED };
            if let Err(error) = self.net.add_route(&route) {
                self.problem(&link.name, &error.context("cannot add a route of the lease"));
            }
        }
        self.conf.nameservers.extend(nameservers);
        Ok(())
    }

    /// Waits for an IPv6 address that the kernel makes by itself.
    fn six(&mut self, link: &Link, limit: Duration, global: bool) -> anyhow::Result<()> {
        let what = format!("an IPv6 address of {}", link.name);
        let found = self.wait(limit.as_secs(), &what, |net| {
            let addresses = net.addresses()?;
            let mut own = addresses.iter().filter(|address| {
                address.link == link.index && address.cidr.address.is_ipv6() && address.is_global == global
            });
            if let Some(taken) = own.clone().find(|address| address.is_duplicate) {
                bail!("another machine has the address {}", taken.cidr.address);
            }
            Ok(own.find(|address| !address.is_tentative).copied())
        })?;
        match found {
            Some(_) => Ok(()),
            None if global => bail!("no router advertised an IPv6 network within {} s", limit.as_secs()),
            None => bail!("no link-local IPv6 address within {} s", limit.as_secs()),
        }
    }

    fn dhcp6(&mut self, link: &Link, limit: Duration) -> anyhow::Result<()> {
        self.six(link, limit, false)?;
        let addresses = self.net.addresses()?;
        let own = addresses
            .iter()
            .find(|address| address.link == link.index && !address.is_global && address.cidr.address.is_ipv6());
        let local = own.map(|address| address.cidr.address).context("it has no link-local address")?;
        let mac = self.net.links()?.into_iter().find(|now| now.index == link.index).and_then(|now| now.mac);
        let mac = mac.context("it has no Ethernet address, which DHCP needs")?;
        let lease = dhcp6::lease(self.net, link, local, mac, limit)?;
        info!("network: {}: {} from a DHCPv6 server", link.name, lease.address);
        self.net.add_address(link.index, Cidr::host(lease.address))?;
        self.conf.nameservers.extend(lease.nameservers);
        let what = format!("a router of {}", link.name);
        let advertised = self.wait(ADVERTISED, &what, |net| {
            let routes = net.routes()?;
            let mut own = routes.iter().filter(|route| route.link == Some(link.index) && route.to.is_none());
            Ok(own.any(|route| route.via.is_some_and(|via| via.is_ipv6())).then_some(()))
        })?;
        if advertised.is_none() {
            self.problems
                .push(format!("{}: no router has advertised itself, so the address leads nowhere far", link.name));
        }
        Ok(())
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
