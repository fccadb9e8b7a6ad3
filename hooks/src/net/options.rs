//! dracut's words for a network on the kernel command line (dracut.cmdline(7), "Network"), followed as it follows them.
//!
//! In: a command line. Out: a [`Network`], or none if the command line does not speak of one. A word that cannot be
//! followed is an error that quotes it: a network that is half as meant is found out about after the crash.

use super::model::{Cidr, EVERY, Interface, Kind, Method, Network, Route, prefix_of};
use crate::cmdline::Cmdline;
use anyhow::{Context, bail};
use std::net::IpAddr;

/// No wait is longer, whoever sets it.
const LONGEST: u64 = 3600;

/// Every word that this module reads.
pub const WORDS: [&str; 11] =
    ["ip", "bond", "vlan", "bridge", "team", "nameserver", "rd.route", "ifname", "bootdev", "BOOTIF", "rd.neednet"];

impl Network {
    /// The network that the command line asks for; `None` if it asks for none.
    ///
    /// # Errors
    /// A word that cannot be followed.
    pub fn from_cmdline(cmdline: &Cmdline) -> anyhow::Result<Option<Network>> {
        let mut network = Network::default();
        let mut asked = false;
        for (name, value) in cmdline.options() {
            let value = value.unwrap_or_default();
            asked |= network.follow(name, value).with_context(|| format!("cannot follow `{name}={value}`"))?;
        }
        network.waits.follow(cmdline);
        if asked && !network.interfaces.iter().any(Interface::is_addressed) {
            network.interface(EVERY).acquire = vec![Method::Any];
        }
        network.bottom_up()?;
        Ok(asked.then_some(network))
    }

    /// Follows one word; tells whether it asks for a network.
    fn follow(&mut self, name: &str, value: &str) -> anyhow::Result<bool> {
        match name {
            "ip" => self.ip(value)?,
            "bond" => self.bond(value)?,
            "vlan" => self.vlan(value)?,
            "bridge" => self.bridge(value)?,
            "team" => bail!("teams need a daemon of their own, which no image of this version has; write bond="),
            "rd.route" => self.route(value)?,
            "nameserver" => self.nameservers.push(address(value)?),
            "ifname" => {
                let (name, mac) = value.split_once(':').context("write it as NAME:HARDWARE-ADDRESS")?;
                let name = checked(name)?.to_owned();
                self.names.insert(name, mac.parse().map_err(anyhow::Error::msg)?);
            }
            "rd.neednet" if value == "1" || value.is_empty() => return Ok(true),
            _ => return Ok(false),
        }
        Ok(matches!(name, "ip" | "bond" | "vlan" | "bridge"))
    }

    fn ip(&mut self, value: &str) -> anyhow::Result<()> {
        let fields = split(value);
        match fields.as_slice() {
            [word] => {
                let method =
                    acquire(word)?.context("this names neither a way to an address nor an interface for it")?;
                self.add_method(EVERY, method);
                Ok(())
            }
            [name, word, rest @ ..] if is_method(word) && !name.is_empty() => {
                let Some(method) = acquire(word)? else { return self.touch(name) };
                self.add_method(checked(name)?, method);
                self.mtu_and_mac(name, rest)
            }
            [client, _peer, gateway, mask, _hostname, name, rest @ ..] => {
                let name = if name.is_empty() { EVERY } else { checked(name)? };
                let (word, rest) = rest.split_first().map_or(("", rest), |(word, rest)| (word.as_str(), rest));
                let method = acquire(word)?;
                if client.is_empty() {
                    let Some(method) = method else { bail!("it names no address and no way to find one") };
                    self.add_method(name, method);
                } else {
                    self.fixed(name, client, mask, gateway)?;
                    method.into_iter().for_each(|method| self.add_method(name, method));
                }
                match rest {
                    [dns, more @ ..] if address(dns).is_ok() => {
                        let servers = std::iter::once(dns).chain(more).take(2).filter(|server| !server.is_empty());
                        for server in servers {
                            self.nameservers.push(address(server)?);
                        }
                        Ok(())
                    }
                    rest => self.mtu_and_mac(name, rest),
                }
            }
            _ => bail!(
                "write INTERFACE:dhcp, or ADDRESS::GATEWAY:NETMASK:HOSTNAME:INTERFACE:none, with IPv6 addresses in brackets"
            ),
        }
    }

    fn fixed(&mut self, name: &str, client: &str, mask: &str, gateway: &str) -> anyhow::Result<()> {
        let cidr: Cidr = client.parse().map_err(anyhow::Error::msg)?;
        let cidr = match mask {
            "" => cidr,
            mask => {
                let prefix = prefix_of(mask.trim_matches(['[', ']']), &cidr.address).map_err(anyhow::Error::msg)?;
                Cidr::new(cidr.address, prefix)
            }
        };
        if name == EVERY {
            bail!("a fixed address needs the name of its interface");
        }
        self.interface(name).addresses.push(cidr);
        if !gateway.is_empty() {
            self.routes.push(Route { to: None, via: Some(address(gateway)?), interface: Some(name.to_owned()) });
        }
        Ok(())
    }

    fn add_method(&mut self, name: &str, method: Method) {
        let acquire = &mut self.interface(name).acquire;
        if !acquire.contains(&method) {
            acquire.push(method);
        }
    }

    /// An interface that is there, and no more.
    fn touch(&mut self, name: &str) -> anyhow::Result<()> {
        self.interface(checked(name)?);
        Ok(())
    }

    /// `[MTU][:MAC]`, whose colons have been taken for those between fields.
    fn mtu_and_mac(&mut self, name: &str, rest: &[String]) -> anyhow::Result<()> {
        let Some((mtu, mac)) = rest.split_first() else { return Ok(()) };
        let interface = self.interface(name);
        if !mtu.is_empty() {
            interface.mtu = Some(number(mtu, "an MTU")?);
        }
        let mac = mac.join(":");
        if !mac.is_empty() {
            interface.mac = Some(mac.parse().map_err(anyhow::Error::msg)?);
        }
        Ok(())
    }

    /// `NAME[:PORTS[:OPTIONS[:MTU]]]`.
    fn bond(&mut self, value: &str) -> anyhow::Result<()> {
        let fields = split(value);
        let field = |index: usize| fields.get(index).map(String::as_str).filter(|field| !field.is_empty());
        let name = checked(field(0).unwrap_or("bond0"))?;
        let ports = names(field(1).unwrap_or("eth0,eth1"))?;
        let mut options = Vec::new();
        for option in field(2).unwrap_or("mode=balance-rr").split([',', ' ']).filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').with_context(|| format!("`{option}` is not OPTION=VALUE"))?;
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                bail!("`{key}` is not the name of a bond's option");
            }
            // Several addresses stand with `;` between them, since `,` divides the options.
            options.push((key.to_owned(), value.replace(';', ",")));
        }
        ports.iter().try_for_each(|port| self.touch(port))?;
        let mtu = field(3).map(|mtu| number(mtu, "an MTU")).transpose()?;
        let bond = self.interface(name);
        bond.kind = Kind::Bond { ports, options };
        bond.mtu = mtu.or(bond.mtu);
        Ok(())
    }

    /// `NAME:PARENT`; the number is the end of the name.
    fn vlan(&mut self, value: &str) -> anyhow::Result<()> {
        let (name, parent) = value.split_once(':').context("write it as NAME:INTERFACE")?;
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let id: u16 = number(name.get(digits..).unwrap_or_default(), "a VLAN at the end of a name")?;
        if !(1..=4094).contains(&id) {
            bail!("{id} is no VLAN, which go from 1 to 4094");
        }
        self.touch(parent)?;
        self.interface(checked(name)?).kind = Kind::Vlan { parent: parent.to_owned(), id };
        Ok(())
    }

    /// `NAME:PORTS`.
    fn bridge(&mut self, value: &str) -> anyhow::Result<()> {
        let (name, ports) = value.split_once(':').unwrap_or(("br0", "eth0"));
        let ports = names(ports)?;
        ports.iter().try_for_each(|port| self.touch(port))?;
        self.interface(checked(name)?).kind = Kind::Bridge { ports };
        Ok(())
    }

    /// `NETWORK/PREFIX:GATEWAY[:INTERFACE]`.
    fn route(&mut self, value: &str) -> anyhow::Result<()> {
        let fields = split(value);
        let (Some(to), Some(via)) = (fields.first(), fields.get(1)) else {
            bail!("write it as NETWORK/PREFIX:GATEWAY or NETWORK/PREFIX:GATEWAY:INTERFACE")
        };
        let to = match to.split_once('/') {
            Some((network, mask)) => {
                let network = address(network)?;
                Cidr::new(network, prefix_of(mask.trim_end_matches(']'), &network).map_err(anyhow::Error::msg)?)
            }
            None => to.parse().map_err(anyhow::Error::msg)?,
        };
        let via = if via.is_empty() { None } else { Some(address(via)?) };
        let interface = fields.get(2).filter(|name| !name.is_empty()).map(|name| checked(name)).transpose()?;
        if via.is_none() && interface.is_none() {
            bail!("a route needs a gateway or an interface");
        }
        self.routes.push(Route { to: Some(to), via, interface: interface.map(str::to_owned) });
        Ok(())
    }
}

impl super::model::Waits {
    /// Takes the limits that the kernel command line sets, from one second to an hour.
    pub fn follow(&mut self, cmdline: &Cmdline) {
        let seconds =
            |name| cmdline.last(name).and_then(|value| value.parse::<u64>().ok()).map(|s| s.clamp(1, LONGEST));
        self.link = seconds("rd.net.timeout.iflink").unwrap_or(self.link);
        self.carrier = seconds("rd.net.timeout.carrier").unwrap_or(self.carrier);
        let address = seconds("rd.net.timeout.dhcp").max(seconds("rd.net.timeout.ipv6auto"));
        self.address = address.unwrap_or(self.address);
    }
}

/// The fields between colons; those inside brackets divide nothing, and the brackets are dropped.
fn split(value: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in value.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => fields.push(String::new()),
            c => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields
}

fn is_method(word: &str) -> bool {
    acquire(word).is_err()
        || (!word.is_empty() && matches!(acquire(word), Ok(Some(_))))
        || matches!(word, "none" | "off")
}

/// The way to an address that a word of `ip=` means; `Ok(None)` for no way at all. A word that is none is taken for none
/// where it stands in the place of one.
fn acquire(word: &str) -> anyhow::Result<Option<Method>> {
    Ok(Some(match word {
        "dhcp" | "dhcp4" | "single-dhcp" => Method::Dhcp,
        "on" | "any" => Method::Any,
        "auto6" => Method::Auto6,
        "dhcp6" => Method::Dhcp6,
        "link6" | "link-local" => Method::Link6,
        "either6" => Method::Either6,
        "ibft" => {
            bail!("addresses from a firmware's iBFT table are not supported by this version; write the address itself")
        }
        _ => return Ok(None),
    }))
}

fn address(text: &str) -> anyhow::Result<IpAddr> {
    text.trim_matches(['[', ']']).parse().ok().with_context(|| format!("`{text}` is not an IP address"))
}

fn number<T: std::str::FromStr>(text: &str, what: &str) -> anyhow::Result<T> {
    text.parse().ok().with_context(|| format!("`{text}` is not {what}"))
}

fn names(list: &str) -> anyhow::Result<Vec<String>> {
    list.split([',', ' ']).filter(|name| !name.is_empty()).map(|name| checked(name).map(str::to_owned)).collect()
}

/// A name that the kernel takes for an interface: it becomes part of paths below `/sys/class/net`.
pub(super) fn checked(name: &str) -> anyhow::Result<&str> {
    let good = !name.is_empty()
        && name.len() < 16
        && !matches!(name, "." | "..")
        && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':'));
    if good { Ok(name) } else { bail!("`{name}` is not the name of an interface") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Mac;
    use proptest::prelude::*;

    fn network(line: &str) -> Network {
        Network::from_cmdline(&Cmdline::parse(line)).unwrap().unwrap()
    }

    fn only(line: &str) -> Interface {
        let network = network(line);
        assert_eq!(network.interfaces.len(), 1, "{line}");
        network.interfaces[0].clone()
    }

    #[test]
    fn every_way_to_an_address_is_known_for_one_interface_and_for_all() {
        for (word, method) in [
            ("dhcp", Method::Dhcp),
            ("single-dhcp", Method::Dhcp),
            ("on", Method::Any),
            ("any", Method::Any),
            ("auto6", Method::Auto6),
            ("dhcp6", Method::Dhcp6),
            ("either6", Method::Either6),
            ("link6", Method::Link6),
        ] {
            let all = only(&format!("ip={word}"));
            assert_eq!((all.name.as_str(), all.acquire.as_slice()), (EVERY, &[method][..]), "{word}");
            let one = only(&format!("ip=eth0:{word}:1400:52:54:00:12:34:56"));
            assert_eq!((one.name.as_str(), one.acquire.as_slice()), ("eth0", &[method][..]), "{word}");
            assert_eq!((one.mtu, one.mac), (Some(1400), Some(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]))));
        }
        assert_eq!(only("ip=:::::eth1:dhcp").acquire, [Method::Dhcp]);
        assert_eq!(only("ip=eth0:dhcp ip=eth0:auto6").acquire, [Method::Dhcp, Method::Auto6]);
        assert_eq!(only("ip=eth0:dhcp::52:54:00:12:34:56").mtu, None);
    }

    #[test]
    fn a_fixed_address_comes_with_mask_gateway_and_nameservers() {
        for line in [
            "ip=10.0.2.15::10.0.2.2:255.255.255.0:host:eth0:none:10.0.2.3",
            "ip=10.0.2.15:10.0.2.9:10.0.2.2:24::eth0:off:10.0.2.3",
            "ip=10.0.2.15/24::10.0.2.2:::eth0:none nameserver=10.0.2.3",
        ] {
            let network = network(line);
            assert_eq!(network.interfaces[0].addresses, ["10.0.2.15/24".parse().unwrap()], "{line}");
            assert_eq!(network.routes[0].via, Some("10.0.2.2".parse().unwrap()), "{line}");
            assert_eq!(network.nameservers, ["10.0.2.3".parse::<IpAddr>().unwrap()], "{line}");
        }
        let six = network("ip=[fec0::15]::[fec0::2]:64::eth0:none:1280 nameserver=fec0::3");
        assert_eq!(six.interfaces[0].addresses, ["fec0::15/64".parse().unwrap()]);
        assert_eq!((six.interfaces[0].mtu, six.nameservers.len()), (Some(1280), 1));
    }

    #[test]
    fn bonds_vlans_and_bridges_bring_what_they_stand_on() {
        let network = network(
            "bond=bond0:eth0,eth1:mode=active-backup,miimon=100,arp_ip_target=10.0.0.1;10.0.0.2:1450 \
             vlan=bond0.0042:bond0 vlan=vlan7:eth2 bridge=br0:bond0.0042,eth3 ip=br0:dhcp",
        );
        let kind = |name: &str| network.interfaces.iter().find(|one| one.name == name).unwrap().kind.clone();
        let Kind::Bond { ports, options } = kind("bond0") else { panic!() };
        assert_eq!(ports, ["eth0", "eth1"]);
        assert_eq!(options[2], ("arp_ip_target".into(), "10.0.0.1,10.0.0.2".into()));
        assert_eq!(kind("bond0.0042"), Kind::Vlan { parent: "bond0".into(), id: 42 });
        assert_eq!(kind("vlan7"), Kind::Vlan { parent: "eth2".into(), id: 7 });
        assert_eq!(kind("br0"), Kind::Bridge { ports: vec!["bond0.0042".into(), "eth3".into()] });
        assert_eq!(network.bottom_up().unwrap().last().unwrap().name, "br0");
    }

    #[test]
    fn the_short_forms_have_the_values_that_dracut_gives_them() {
        let mut bond = network("bond=");
        let Kind::Bond { ports, options } = &bond.interface("bond0").clone().kind.clone() else { panic!() };
        assert_eq!((ports.len(), options[0].1.as_str()), (2, "balance-rr"));
        assert_eq!(network("bridge=").interface("br0").kind, Kind::Bridge { ports: vec!["eth0".into()] });
        assert_eq!(only("rd.neednet=1").acquire, [Method::Any]);
    }

    #[test]
    fn routes_names_and_limits() {
        let network = network(
            "ip=lan:dhcp ifname=lan:52:54:00:12:34:56 rd.route=10.8.0.0/16:10.0.2.2:lan rd.route=[2001:db8::/32]:[fe80::1]:lan \
             rd.net.timeout.carrier=7 rd.net.timeout.dhcp=0 rd.net.timeout.iflink=99999999",
        );
        assert_eq!(network.names["lan"], Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(network.routes[0].to, Some("10.8.0.0/16".parse().unwrap()));
        assert_eq!(network.routes[1].to, Some("2001:db8::/32".parse().unwrap()));
        assert_eq!(network.routes[1].interface.as_deref(), Some("lan"));
        assert_eq!((network.waits.carrier, network.waits.address, network.waits.link), (7, 1, LONGEST));
    }

    #[test]
    fn a_command_line_without_a_network_asks_for_none() {
        for line in ["quiet root=/dev/vda1", "rd.neednet=0 nameserver=1.1.1.1", "ifname=a:52:54:00:12:34:56"] {
            assert_eq!(Network::from_cmdline(&Cmdline::parse(line)).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_quoted() {
        for (line, words) in [
            ("ip=ibft", "cannot follow `ip=ibft`: addresses from a firmware's iBFT"),
            ("ip=eth0:ibft", "iBFT"),
            ("team=team0:eth0", "cannot follow `team=team0:eth0`: teams need a daemon"),
            ("ip=10.0.2.15", "neither a way to an address nor an interface"),
            ("ip=10.0.2.15::10.0.2.2:255.255.0.1::eth0:none", "`255.255.0.1` is not a netmask"),
            ("ip=1.2.3.4::1.2.3.1:24:::none", "needs the name of its interface"),
            ("ip=eth0:dhcp:big", "`big` is not an MTU"),
            ("ip=a/b:dhcp", "`a/b` is not the name of an interface"),
            ("vlan=lan:eth0", "`` is not a VLAN at the end of a name"),
            ("vlan=vlan5000:eth0", "5000 is no VLAN"),
            ("vlan=vlan5", "write it as NAME:INTERFACE"),
            ("bond=b:eth0:mode", "`mode` is not OPTION=VALUE"),
            ("bond=b:eth0:../x=1", "`../x` is not the name of a bond's option"),
            ("vlan=v1:v2 vlan=v2:v1", "stands on itself"),
            ("ifname=eth0", "write it as NAME:HARDWARE-ADDRESS"),
            ("rd.route=10.0.0.0/8:", "a route needs a gateway or an interface"),
            ("nameserver=dns.example", "`dns.example` is not an IP address"),
        ] {
            let error = Network::from_cmdline(&Cmdline::parse(line)).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{line}: {error:#}");
        }
    }

    proptest! {
        #[test]
        fn any_value_ends_in_a_result(value in "[a-z0-9:\\[\\],.=/]{0,60}", word in 0..WORDS.len()) {
            let _ = Network::from_cmdline(&Cmdline::parse(&format!("{}={value}", WORDS[word])));
        }
    }
}
