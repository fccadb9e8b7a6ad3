//! Addresses: those that are configured, and those that somebody on the network gives.
//!
//! In: a link that is on. Out: its addresses, and what comes with them: routes, nameservers, an MTU. May surprise: of
//! several ways to an address one that works will do; what the others lacked is told all the same.

use super::{LOOK_AGAIN, Site};
use crate::net::dhcp4::{self, Lease};
use crate::net::dhcp6;
use crate::net::kernel::{KernelRoute, Link, LinkChange};
use crate::net::model::{Cidr, Interface, Method};
use anyhow::{Context, anyhow, bail};
use log::{info, warn};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// For one card of several, before the next one is tried.
const ONE_TRY: Duration = Duration::from_secs(12);
/// DHCPv6 brings no routes: a router has so many seconds to advertise itself after the lease. Routers answer at once.
pub(super) const ADVERTISED: u64 = 6;
/// With less time left nothing is begun.
const SHORTEST_TRY: Duration = Duration::from_secs(1);
/// Routes of a lease are worse than those that are configured.
const LEASED: u32 = 100;
/// A lease shorter than this may end before the dump does.
const SHORT_LEASE: u32 = 3600;

impl Site<'_> {
    /// Gives an interface its addresses.
    pub(super) fn address(&mut self, interface: &Interface) -> anyhow::Result<()> {
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
    pub(super) fn address_any(&mut self, every: &Interface) -> usize {
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
}
