//! How one network differs from another, in words for the administrator.
//!
//! In: the network of an image, and what it would be now. Out: a line per difference. May surprise: order does not count,
//! and of the hardware addresses only those of cards that are used: a card that was plugged in for something else is no
//! reason to build an image.

use kdump_hooks::net::model::EVERY;
use kdump_hooks::net::{Interface, Kind, Network, Route};
use std::collections::{BTreeMap, BTreeSet};

/// What has changed from `then` to `now`.
pub fn between(then: &Network, now: &Network) -> Vec<String> {
    let mut lines = Vec::new();
    let (before, after) = (interfaces(then), interfaces(now));
    for (name, was) in &before {
        match after.get(name) {
            None => lines.push(format!("{name} is no longer used")),
            Some(is) if is != was => lines.push(format!("{name} was {was}, and is {is}")),
            Some(_) => {}
        }
    }
    lines.extend(after.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("{name} is used now")));
    for name in before.keys().filter(|name| after.contains_key(*name)) {
        if let (Some(was), Some(is)) = (then.names.get(*name), now.names.get(*name))
            && was != is
        {
            lines.push(format!("{name} had the hardware address {was}, and has {is}"));
        }
    }
    let sets = [
        ("routes", then.routes.iter().map(route).collect(), now.routes.iter().map(route).collect()),
        ("nameservers", told(&then.nameservers), told(&now.nameservers)),
    ];
    lines.extend(sets.iter().filter(|(_, was, is)| was != is).map(|(what, was, is): &(_, BTreeSet<String>, _)| {
        format!("the {what} were {}, and are {}", list(was), list(is))
    }));
    lines
}

/// Interfaces in words, by name.
fn interfaces(network: &Network) -> BTreeMap<&str, String> {
    network.interfaces.iter().map(|interface| (interface.name.as_str(), interface_in_words(interface))).collect()
}

fn interface_in_words(interface: &Interface) -> String {
    let mut words = vec![match &interface.kind {
        Kind::Card if interface.name == EVERY => "any card".to_owned(),
        Kind::Card => "a card".to_owned(),
        Kind::Vlan { parent, id } => format!("VLAN {id} on {parent}"),
        Kind::Bridge { ports } => format!("a bridge of {}", list(&told(ports))),
        Kind::Bond { ports, options } => {
            let options = options.iter().map(|(key, value)| format!(" {key}={value}")).collect::<String>();
            format!("a bond of {}{options}", list(&told(ports)))
        }
    }];
    words.extend(told(&interface.addresses));
    words.extend(interface.acquire.iter().map(|method| format!("by {}", method.word())));
    words.extend(interface.mtu.map(|mtu| format!("MTU {mtu}")));
    words.extend(interface.mac.map(|mac| format!("as {mac}")));
    words.join(", ")
}

fn route(route: &Route) -> String {
    let to = route.to.map_or("default".to_owned(), |to| to.to_string());
    let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let by = route.interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    format!("{to}{via}{by}")
}

fn told<T: ToString>(things: &[T]) -> BTreeSet<String> {
    things.iter().map(ToString::to_string).collect()
}

fn list(words: &BTreeSet<String>) -> String {
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.iter().map(String::as_str).collect::<Vec<_>>().join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::cmdline::Cmdline;

    fn network(line: &str) -> Network {
        Network::from_cmdline(&Cmdline::parse(line)).unwrap().unwrap()
    }

    #[test]
    fn each_difference_is_told_in_words() {
        let then = "ip=10.0.0.5::10.0.0.1:24::eno1:none:10.0.0.3 ifname=eno1:52:54:00:00:00:01";
        for (now, lines) in [
            (then, &[][..]),
            (
                "ip=10.0.0.6::10.0.0.1:24::eno1:none:10.0.0.3 ifname=eno1:52:54:00:00:00:02",
                &[
                    "eno1 was a card, 10.0.0.5/24, and is a card, 10.0.0.6/24",
                    "eno1 had the hardware address 52:54:00:00:00:01, and has 52:54:00:00:00:02",
                ],
            ),
            (
                "ip=10.0.0.5::10.0.0.2:24::eno1:none:10.0.0.3:10.0.0.4",
                &[
                    "the routes were default via 10.0.0.1 on eno1, and are default via 10.0.0.2 on eno1",
                    "the nameservers were 10.0.0.3, and are 10.0.0.3 and 10.0.0.4",
                ],
            ),
            (
                "bond=bond0:eno2,eno1:mode=active-backup ip=10.0.0.5::10.0.0.1:24::bond0:none:10.0.0.3",
                &[
                    "eno1 was a card, 10.0.0.5/24, and is a card",
                    "bond0 is used now",
                    "eno2 is used now",
                    "the routes were default via 10.0.0.1 on eno1, and are default via 10.0.0.1 on bond0",
                ],
            ),
        ] {
            assert_eq!(between(&network(then), &network(now)), lines, "{now}");
        }
    }

    #[test]
    fn neither_order_nor_a_card_that_is_not_used_is_a_difference() {
        let then = network("bridge=br0:eno1,eno2 ip=br0:dhcp nameserver=10.0.0.3 nameserver=10.0.0.4");
        let mut now = network("nameserver=10.0.0.4 nameserver=10.0.0.3 ip=br0:dhcp bridge=br0:eno2,eno1");
        now.interfaces.reverse();
        now.names.insert("usb0".into(), "52:54:00:00:00:09".parse().unwrap());
        assert_eq!(between(&then, &now), [""; 0]);
        now.interface("br0").mtu = Some(9000);
        let lines = ["br0 was a bridge of eno1 and eno2, by dhcp, and is a bridge of eno1 and eno2, by dhcp, MTU 9000"];
        assert_eq!(between(&then, &now), lines);
    }
}
