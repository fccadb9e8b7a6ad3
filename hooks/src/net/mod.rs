//! The hook that brings a network up, for targets that are reached by one.
//!
//! ```text
//!   builder:  running machine ── rtnetlink ─▶ snapshot ─┐
//!             ip= bond= vlan= … ─▶ options ─────────────┼▶ Network ─▶ image.toml, drivers
//!             KDUMP_NETCONFIG ─▶ netconfig ─────────────┘
//!   init:     Network, or what ip= … of this boot say ─▶ bring_up ─▶ Net (rtnetlink, DHCP) ─▶ /etc/resolv.conf
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`model`] | what a network is |
//! | [`options`], [`netconfig`] | dracut's and SUSE's words for it |
//! | [`snapshot`](mod@snapshot) | the way from the running machine to one address |
//! | [`mod@bring_up`] | what is done at boot |
//! | [`dhcp4`], [`dhcp6`], [`dns`] | the three protocols that are spoken |
//! | [`rtnl`], [`kernel`] | the kernel's messages; the kernel itself, a trait |
//!
//! May surprise: the network is brought up once, at its stage, and stays up to the end; a wait for it says what it waits
//! for. What `ip=` and its kin say on the capture kernel's own command line takes the place of what is in the image.

pub mod bring_up;
pub mod dhcp4;
pub mod dhcp6;
pub mod dns;
pub mod kernel;
pub mod model;
pub mod netconfig;
pub mod options;
pub mod rtnl;
pub mod server;
pub mod snapshot;

pub use kernel::{Address, Datagrams, KernelRoute, Link, LinkChange, Net, UdpPlan};
pub use model::{Cidr, Interface, Kind, Mac, Method, Network, Route, Waits};
pub use netconfig::{NetConfig, Source};

use crate::cmdline::Cmdline;
use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::Machine;
use crate::stage::Stage;
use crate::{Hook, Moment, Next};
use anyhow::Context;
use model::EVERY;
use std::time::Duration;

/// What init keeps for itself of the stage's limit, so that the supervisor does not find it late.
const RESERVE: Duration = Duration::from_secs(5);

impl Hook for Network {
    fn name(&self) -> &'static str {
        "net"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |request: &str, reason: String, required: bool, by_device: bool| ModuleNeed {
            request: request.to_owned(),
            reason,
            required,
            by_device,
        };
        let mut modules = Vec::new();
        let mut unknown = None;
        for interface in &self.interfaces {
            let name = &interface.name;
            if let (Some(kind), Some(module)) = (interface.kind.word(), interface.kind.module()) {
                modules.push(need(module, format!("the interface {name} is a {kind}"), true, false));
                continue;
            }
            let chain = match name.as_str() {
                EVERY => None,
                name => host
                    .interface_chain(name)
                    .with_context(|| format!("cannot find the drivers of the network card {name}"))?,
            };
            match chain {
                Some(chain) => modules.extend(chain.into_iter().map(|request| {
                    let required = !request.contains(':');
                    need(&request, format!("driver of the network card {name}"), required, true)
                })),
                None => unknown = Some(name.clone()),
            }
        }
        if let Some(name) = unknown {
            let which =
                if name == EVERY { "any network card will do".to_owned() } else { format!("{name} is not here") };
            let generic = CARDS.iter().flat_map(|(kind, modules)| modules.iter().map(move |module| (kind, module)));
            modules
                .extend(generic.map(|(kind, module)| need(module, format!("driver of {kind}: {which}"), false, true)));
        }
        for module in ["ipv6", "af_packet"] {
            modules.push(need(module, "what speaks on a network".to_owned(), false, false));
        }
        Ok(Contribution { modules, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Network]
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let limit = moment.limit;
        let line = Cmdline::parse(&machine.network().read("/proc/cmdline").unwrap_or_default());
        let network = self.at_boot(&line)?;
        for module in network.interfaces.iter().filter_map(|interface| interface.kind.module()) {
            // The kernel asks for it too, by an alias that only some modules have.
            machine.load_module(module).unwrap_or_else(|error| log::warn!("{error:#}"));
        }
        for line in bring_up::bring_up(&network, machine.network(), limit.saturating_sub(RESERVE))? {
            log::info!("network: {line}");
        }
        Ok(Next::GoOn)
    }
}

impl Network {
    /// What is brought up: what the command line of this boot describes, else what is in the image. Names are known to
    /// the image alone, unless the command line gives them.
    fn at_boot(&self, line: &Cmdline) -> anyhow::Result<Network> {
        let mut network = match Network::from_cmdline(line)? {
            Some(mut network) => {
                let named: Vec<_> = self.names.iter().filter(|(name, _)| !network.names.contains_key(*name)).collect();
                let named: Vec<_> = named.into_iter().map(|(name, mac)| (name.clone(), *mac)).collect();
                network.names.extend(named);
                network
            }
            None => self.clone(),
        };
        network.waits.follow(line);
        Ok(network)
    }
}

/// Drivers by the kind of machine that needs them, for a machine that cannot be looked at.
const CARDS: [(&str, &[&str]); 5] = [
    (
        "virtual machines",
        &["virtio_pci", "virtio_mmio", "virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve"],
    ),
    ("emulated machines", &["e1000", "e1000e", "8139cp", "8139too"]),
    ("gigabit cards", &["igb", "igc", "tg3", "r8169", "bnx2"]),
    ("faster cards", &["ixgbe", "i40e", "ice", "bnxt_en", "bnx2x", "mlx5_core", "mlx4_en", "qede", "cxgb4", "sfc"]),
    ("virtual functions", &["ixgbevf", "iavf"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine, FakeNet};

    fn network(line: &str) -> Network {
        Network::from_cmdline(&Cmdline::parse(line)).unwrap().unwrap()
    }

    #[test]
    fn the_image_gets_the_drivers_of_the_cards_and_of_what_stands_on_them() {
        let mut host = FakeHost::default();
        host.cards.insert("eno1".into(), vec!["virtio:d1v1".into(), "virtio_net".into()]);
        let requests = |line: &str| -> Vec<String> {
            let needs = network(line).gather(&host).unwrap().modules;
            needs.iter().map(|need| need.request.clone()).collect()
        };
        assert_eq!(
            requests("bond=bond0:eno1 vlan=bond0.7:bond0 bridge=br0:bond0.7 ip=br0:dhcp"),
            ["virtio:d1v1", "virtio_net", "bonding", "8021q", "bridge", "ipv6", "af_packet"]
        );
        for line in ["ip=dhcp", "ip=elsewhere0:dhcp"] {
            assert!(requests(line).contains(&"e1000e".to_owned()), "{line}");
        }
    }

    #[test]
    fn the_command_line_of_the_boot_takes_the_place_of_the_image_but_for_the_names() {
        let mut image = network("ip=eno1:dhcp");
        image.names.insert("eno1".into(), Mac([2; 6]));
        let line = Cmdline::parse("ip=10.0.0.1::10.0.0.2:24::eno1:none rd.net.timeout.carrier=3");
        let boot = image.at_boot(&line).unwrap();
        assert_eq!(boot.interfaces[0].addresses.len(), 1);
        assert_eq!((boot.names["eno1"], boot.waits.carrier), (Mac([2; 6]), 3));
        assert_eq!(image.at_boot(&Cmdline::parse("rd.net.timeout.carrier=3")).unwrap().waits.carrier, 3);
    }

    #[test]
    fn at_its_stage_the_network_comes_up() {
        let net = FakeNet { dhcp: Some(FakeNet::OPTIONS.to_vec()), ..FakeNet::with_cards(&["eth0"]) };
        let mut machine = FakeMachine { net, ..FakeMachine::default() };
        network("ip=dhcp").act(&Moment::at(Stage::Network, Duration::from_secs(300)), &mut machine).unwrap();
        assert!(machine.net.journal().contains(&"address 2 10.0.2.15/24".to_owned()));
        assert_eq!(machine.net.files["/etc/resolv.conf"], "nameserver 10.0.2.3\n");
    }
}
