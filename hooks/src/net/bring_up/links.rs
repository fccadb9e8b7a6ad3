//! Links: cards that are found, and what is built on them.
//!
//! In: the interfaces of a configuration, bottom up. Out: links of the kernel that are switched on. May surprise: a card is
//! looked for by its hardware address first, for the capture kernel may call it otherwise.

use super::{Site, told};
use crate::net::kernel::{Link, LinkChange};
use crate::net::model::{EVERY, Interface, Kind};
use anyhow::{Context, anyhow, bail};
use log::warn;
use std::collections::BTreeMap;

impl Site<'_> {
    pub(super) fn loopback(&mut self) {
        let links = self.net.links().unwrap_or_default();
        if let Some(lo) = links.iter().find(|link| link.is_loopback) {
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            self.net.change(lo.index, &up).unwrap_or_else(|error| warn!("cannot switch the loopback on: {error:#}"));
        }
    }

    /// Finds the cards by their hardware addresses, or by their names where no address is known.
    pub(super) fn find_cards(&mut self, order: &[&Interface]) {
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
    pub(super) fn build(&mut self, interface: &Interface) -> anyhow::Result<()> {
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
    pub(super) fn every_card(&mut self, every: &Interface) {
        for link in self.free_cards() {
            let change = LinkChange { up: Some(true), mtu: every.mtu, ..LinkChange::default() };
            self.net.change(link.index, &change).unwrap_or_else(|error| self.problem(&link.name, &error));
        }
    }

    /// The cards, bonds, VLANs and bridges that nothing else stands on and that are not configured by name.
    pub(super) fn free_cards(&mut self) -> Vec<Link> {
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
}
