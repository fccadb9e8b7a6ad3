//! The network that an image brings up, if its target is not on the machine itself.
//!
//! In: the targets, `ip=` and its kin in KDUMP_COMMANDLINE_APPEND, KDUMP_NETCONFIG, and the running machine. Out: the
//! targets with their servers' addresses, and the network. The first of these that says something decides: the command
//! line, KDUMP_NETCONFIG, the way that this machine takes to the server. An image for another machine asks every card for
//! an address.
//!
//! May surprise: when an image is there already, [`changes`] tells whether the network still is what it was; what cannot
//! be found out, such as while a cable is out, is no change.

pub mod change;

use crate::config::{Config, Sysconfig};
use crate::host::SystemHost;
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::net::model::EVERY;
use kdump_hooks::net::{Method, Net, Network, Source, dns, snapshot};
use kdump_hooks::{Settings, Target};
use kdump_init::sys::LinuxNet;
use std::net::IpAddr;

const REMEDY: &str = "describe the network with ip= in KDUMP_COMMANDLINE_APPEND, such as ip=eth0:dhcp";

/// The targets with their servers resolved, and the network that leads to them and to `others`.
///
/// # Errors
/// The network cannot be made in the image, or what is said of it cannot be followed.
pub fn find(
    config: &Config,
    host: &SystemHost,
    targets: Vec<Target>,
    others: &[IpAddr],
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Vec<Target>, Option<Network>)> {
    let mut net = LinuxNet::default();
    let here = host.devices_are_here && host.tree.is_this_machine();
    let net: Option<&mut dyn Net> = if here { Some(&mut net) } else { None };
    find_with(&config.system, targets, others, net, warnings)
}

fn find_with(
    system: &Sysconfig,
    mut targets: Vec<Target>,
    others: &[IpAddr],
    mut net: Option<&mut dyn Net>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<(Vec<Target>, Option<Network>)> {
    refuse_remote_disks(system)?;
    let asked = on_the_command_line(system)?;
    let netconfig = system.netconfig.as_ref();
    let mut servers = Vec::new();
    for target in &mut targets {
        let name = target.to_string();
        let Some((server, address)) = target.server() else { continue };
        *address = match net.as_deref_mut().map(|net| dns::resolve(net, server)) {
            Some(Ok(address)) => Some(address),
            Some(Err(error)) => {
                warnings.push(format!("{error:#}; the capture environment will ask again"));
                *address
            }
            None => server.parse().ok(),
        };
        servers.push((name, *address));
    }
    servers.extend(others.iter().map(|address| (address.to_string(), Some(*address))));
    if servers.is_empty() && asked.is_none() && !netconfig.is_some_and(|given| given.value.force) {
        return Ok((targets, None));
    }
    let (name, address) = servers.into_iter().next().unwrap_or_default();
    let source = netconfig.map_or(&Source::Auto, |given| &given.value.source);
    let mut network = match (asked, source, net.as_deref_mut()) {
        (Some(asked), ..) => asked,
        (None, Source::Static(device), Some(net)) => snapshot::of_name(net, device)
            .with_context(|| format!("cannot follow KDUMP_NETCONFIG={device}:static; {REMEDY}"))?,
        (None, Source::Auto, Some(net)) if address.is_some() => {
            let address = address.context("no address")?;
            snapshot::snapshot(net, address).with_context(|| format!("cannot find the way to {name}; {REMEDY}"))?
        }
        (None, source, _) => source.network().unwrap_or_else(|| {
            warnings.push(format!(
                "the network to {name} is not known here; the image asks every network card for an address; to be sure, {REMEDY}"
            ));
            let mut network = Network::default();
            network.interface(EVERY).acquire = vec![Method::Any];
            network
        }),
    };
    if let Some(net) = net {
        let known = snapshot::names(net).context("cannot list the network cards")?.names;
        for (name, mac) in known {
            network.names.entry(name).or_insert(mac);
        }
        if network.nameservers.is_empty() {
            network.nameservers = snapshot::nameservers(net).nameservers;
        }
    }
    Ok((targets, Some(network)))
}

/// What has changed since an image got its network. Nothing, if it has none, or if nothing can be told: what the way to
/// the target is while there is none will be seen when there is one again.
pub fn changes(config: &Config, host: &SystemHost, image: &Settings) -> Vec<String> {
    let here = host.devices_are_here && host.tree.is_this_machine();
    if here { changes_with(&config.system, image, &mut LinuxNet::default()) } else { Vec::new() }
}

fn changes_with(system: &Sysconfig, image: &Settings, net: &mut dyn Net) -> Vec<String> {
    let Some(then) = &image.network else { return Vec::new() };
    let mut nodes: Vec<IpAddr> = image.network_storage.iter().filter_map(|layer| layer.0.server()).collect();
    nodes.extend(image.fence.iter().flat_map(|fence| &fence.nodes));
    // A server that no nameserver knows at this moment is where it was.
    match find_with(system, image.targets.clone(), &nodes, Some(net), &mut Vec::new()) {
        Ok((_, Some(now))) => change::between(then, &now),
        Ok((_, None)) => Vec::new(),
        Err(error) => {
            log::info!("the network of the image cannot be compared with the machine's: {error:#}");
            Vec::new()
        }
    }
}

/// Refuses the words by which dracut is told of disks of other machines: here, the running system tells of them.
fn refuse_remote_disks(system: &Sysconfig) -> anyhow::Result<()> {
    const WORDS: [&str; 5] = ["netroot", "rd.iscsi.", "iscsi_", "rd.nvmf.", "rd.nonvmf"];
    let Some(append) = &system.append else { return Ok(()) };
    let line = Cmdline::parse(&append.value);
    let given = line.options().find(|(name, _)| WORDS.iter().any(|word| name.starts_with(word)));
    match given {
        Some((name, _)) => bail!(
            "{}: cannot follow `{name}`: disks of other machines are not described on the command line; log in or \
             connect on this machine, and the image will do so too",
            append.origin
        ),
        None => Ok(()),
    }
}

/// What the capture kernel's own command line will say of a network.
fn on_the_command_line(system: &Sysconfig) -> anyhow::Result<Option<Network>> {
    let mut line = String::new();
    let mut place = None;
    for given in [&system.commandline, &system.append].into_iter().flatten() {
        line = format!("{line} {}", given.value);
        place = Some(&given.origin);
    }
    let network = Network::from_cmdline(&Cmdline::parse(&line));
    match place {
        Some(place) => network.with_context(|| format!("{place}: the command line of the capture kernel")),
        None => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Given, Origin};
    use kdump_hooks::fake::FakeNet;
    use kdump_hooks::net::NetConfig;

    fn machine() -> FakeNet {
        let mut net = FakeNet::with_cards(&["eno1", "eno2"]);
        net.add_address(2, "10.0.2.15/24".parse().unwrap()).unwrap();
        net.files.insert("/etc/resolv.conf".into(), "nameserver 10.0.2.3\n".into());
        net.dns.insert("nas.example".into(), "10.0.2.7".parse().unwrap());
        net
    }

    fn system(append: &str, netconfig: &str) -> Sysconfig {
        let origin = Origin::Line("kdump".into(), 3);
        Sysconfig {
            append: Some(Given { value: append.into(), origin: origin.clone() }),
            netconfig: (!netconfig.is_empty())
                .then(|| Given { value: NetConfig::parse(netconfig).unwrap(), origin: origin.clone() }),
            ..Sysconfig::default()
        }
    }

    fn nfs() -> Vec<Target> {
        vec![Target::Nfs("nas.example:/srv".parse().unwrap())]
    }

    fn found(
        system: &Sysconfig,
        targets: Vec<Target>,
        net: Option<&mut dyn Net>,
    ) -> (Vec<Target>, Option<Network>, Vec<String>) {
        let mut warnings = Vec::new();
        let (targets, network) = find_with(system, targets, &[], net, &mut warnings).unwrap();
        (targets, network, warnings)
    }

    #[test]
    fn the_way_of_this_machine_to_the_server_is_taken_along() {
        let (targets, network, warnings) = found(&system("nr_cpus=1", ""), nfs(), Some(&mut machine()));
        let Target::Nfs(nfs) = &targets[0] else { panic!() };
        assert_eq!(nfs.address, Some("10.0.2.7".parse().unwrap()));
        let network = network.unwrap();
        assert_eq!(network.interfaces.len(), 1);
        assert_eq!(network.interfaces[0].addresses, ["10.0.2.15/24".parse().unwrap()]);
        assert_eq!(network.names.len(), 2);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn the_command_line_and_suse_s_word_come_first() {
        for (append, netconfig, method) in
            [("ip=eno2:dhcp", "eno1:auto6", Method::Dhcp), ("", "eno2:auto6", Method::Auto6)]
        {
            let network = found(&system(append, netconfig), nfs(), Some(&mut machine())).1.unwrap();
            assert_eq!(
                (network.interfaces[0].name.as_str(), &network.interfaces[0].acquire[..]),
                ("eno2", &[method][..])
            );
            assert_eq!(network.names["eno2"].to_string(), "52:54:00:00:00:03");
            assert_eq!(network.nameservers.len(), 1);
        }
        let network = found(&system("", "eno1:static"), nfs(), Some(&mut machine())).1.unwrap();
        assert_eq!(network.interfaces[0].addresses.len(), 1);
    }

    #[test]
    fn an_image_for_another_machine_asks_every_card_and_says_so() {
        let (_, network, warnings) = found(&system("", ""), nfs(), None);
        assert_eq!(network.unwrap().interfaces[0].name, EVERY);
        assert!(warnings[0].contains("nfs nas.example:/srv is not known here"), "{warnings:?}");
    }

    #[test]
    fn a_local_target_needs_no_network_unless_somebody_asks_for_one() {
        assert_eq!(found(&system("", "eno1:dhcp"), Vec::new(), Some(&mut machine())).1, None);
        assert!(found(&system("", "eno1:dhcp:force"), Vec::new(), Some(&mut machine())).1.is_some());
        assert!(found(&system("rd.neednet=1", ""), Vec::new(), None).1.is_some());
    }

    #[test]
    fn dracut_s_words_for_disks_of_other_machines_are_refused_by_name() {
        for word in ["netroot=iscsi:@10.0.2.2::3260::iqn.x", "rd.iscsi.initiator=iqn.y", "rd.nvmf.discover=tcp,x"] {
            let error = find_with(&system(word, ""), Vec::new(), &[], None, &mut Vec::new()).unwrap_err().to_string();
            let name = word.split('=').next().unwrap();
            assert!(error.starts_with(&format!("kdump:3: cannot follow `{name}`")), "{error}");
        }
    }

    #[test]
    fn what_the_command_line_says_wrong_is_an_error_with_its_place() {
        let error = find_with(&system("ip=ibft", ""), Vec::new(), &[], None, &mut Vec::new()).unwrap_err();
        assert!(
            format!("{error:#}")
                .starts_with("kdump:3: the command line of the capture kernel: cannot follow `ip=ibft`")
        );
    }

    fn image_of(net: &mut FakeNet) -> Settings {
        let (targets, network, _) = found(&system("", ""), nfs(), Some(net));
        Settings { targets, network, ..Settings::default() }
    }

    #[test]
    fn a_machine_that_has_moved_differs_from_its_image() {
        let image = image_of(&mut machine());
        assert_eq!(changes_with(&system("", ""), &image, &mut machine()), [""; 0]);
        let mut moved = machine();
        moved.add_address(2, "10.0.2.16/24".parse().unwrap()).unwrap();
        moved.files.insert("/etc/resolv.conf".into(), "nameserver 10.0.2.4\n".into());
        let lines = changes_with(&system("", ""), &image, &mut moved);
        assert_eq!(
            lines,
            [
                "eno1 was a card, 10.0.2.15/24, and is a card, 10.0.2.15/24, 10.0.2.16/24",
                "the nameservers were 10.0.2.3, and are 10.0.2.4"
            ]
        );
        let lines = changes_with(&system("ip=eno2:dhcp", ""), &image, &mut machine());
        assert_eq!(lines, ["eno1 is no longer used", "eno2 is used now"]);
    }

    #[test]
    fn what_cannot_be_found_out_now_is_no_change() {
        let image = image_of(&mut machine());
        let mut silent = machine();
        silent.dns_is_silent = true;
        assert_eq!(changes_with(&system("", ""), &image, &mut silent), [""; 0]);
        assert_eq!(changes_with(&system("", ""), &image, &mut FakeNet::with_cards(&["eno1"])), [""; 0]);
        assert_eq!(changes_with(&system("", ""), &Settings::default(), &mut machine()), [""; 0]);
    }

    #[test]
    fn a_server_that_is_this_machine_is_refused() {
        let target = vec![Target::Nfs("127.0.0.1:/srv".parse().unwrap())];
        let error = find_with(&system("", ""), target, &[], Some(&mut machine()), &mut Vec::new()).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("cannot find the way to nfs 127.0.0.1:/srv") && text.contains("this machine itself"),
            "{text}"
        );
    }
}
