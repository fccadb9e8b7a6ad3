//! fence_kdump: while a dump is taken, the other nodes of a cluster are told so, and wait with taking over instead of
//! cutting the power.
//!
//! *Into the image*: nothing; names have been resolved when the configuration was read. *At boot*: from the moment when
//! the network is up a datagram goes to each node, again and again, until the worker ends.
//!
//! ```text
//!  0        4        8
//!  ├ magic ─┼ version┤      UDP, port 7410; both in the byte order of the sender, as fence_kdump_send has them
//! ```
//!
//! May surprise: nobody answers. A message that cannot be sent is logged once for each node and tried again.

use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::moment::{Moment, Next};
use crate::{Hook, Stage};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

/// The port on which fence_kdump listens.
pub const PORT: u16 = 7410;
/// Seconds between two messages, if nobody says otherwise.
pub const INTERVAL: u64 = 10;

const MAGIC: u32 = 0x1B30_2A40;
const VERSION: u32 = 1;

/// Who is told, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The other nodes.
    pub nodes: Vec<IpAddr>,
    /// Where they listen.
    pub port: u16,
    /// Seconds between two messages.
    pub interval: u64,
    /// How many messages each node gets; 0 is no limit but the end of the dump.
    pub count: u64,
}

impl Hook for Fence {
    fn name(&self) -> &'static str {
        "fence"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        Ok(Contribution::default())
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Network]
    }

    fn act(&self, _moment: &Moment, _machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let fence = self.clone();
        let telling = thread::Builder::new().name("fence".to_owned()).spawn(move || fence.tell());
        telling.context("cannot tell the other nodes that a dump is taken: no thread for it")?;
        log::info!("telling {} nodes every {} s that a dump is taken", self.nodes.len(), self.interval);
        Ok(Next::GoOn)
    }
}

impl Fence {
    /// Sends as often as it is asked to.
    fn tell(&self) {
        let mut quiet = BTreeSet::new();
        let mut left = if self.count == 0 { u64::MAX } else { self.count };
        while left > 0 {
            for node in &self.nodes {
                match self.send(*node) {
                    Ok(()) => _ = quiet.remove(node),
                    Err(error) if quiet.insert(*node) => {
                        log::warn!("cannot tell {node} that a dump is taken: {error}; trying again");
                    }
                    Err(_) => {}
                }
            }
            left -= 1;
            thread::sleep(Duration::from_secs(self.interval.max(1)));
        }
    }

    /// One message to one node. A socket of its own each time: the network may come and go.
    fn send(&self, node: IpAddr) -> io::Result<()> {
        let any: IpAddr = if node.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        UdpSocket::bind(SocketAddr::new(any, 0))?.send_to(&message(), SocketAddr::new(node, self.port)).map(drop)
    }
}

fn message() -> Vec<u8> {
    [MAGIC.to_ne_bytes(), VERSION.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeMachine;

    #[test]
    fn a_node_hears_the_message_again_and_again() {
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        node.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let fence = Fence {
            nodes: vec![Ipv4Addr::LOCALHOST.into()],
            port: node.local_addr().unwrap().port(),
            interval: 1,
            count: 2,
        };
        let moment = Moment::at(Stage::Network, Duration::ZERO);
        assert_eq!(fence.act(&moment, &mut FakeMachine::default()).unwrap(), Next::GoOn);
        for _ in 0..2 {
            let mut bytes = [0; 16];
            let length = node.recv(&mut bytes).unwrap();
            if cfg!(target_endian = "little") {
                assert_eq!(bytes[..length], [0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0]);
            }
        }
    }

    #[test]
    fn a_node_that_cannot_be_reached_does_not_stop_it() {
        let fence = Fence { nodes: vec!["192.0.2.1".parse().unwrap()], port: 0, interval: 1, count: 1 };
        assert!(fence.send(fence.nodes[0]).is_err());
        fence.tell();
    }
}
