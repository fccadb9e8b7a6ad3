//! What the network hooks may do to the kernel: rtnetlink, sockets, a few files, the clock.
//!
//! `init` implements [`Net`] over system calls, for PID 1 and for the builder's snapshot; [`crate::fake::FakeNet`] plays
//! a kernel with a network around it.

use super::model::{Cidr, Kind, Mac};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An interface as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The one that was burnt in, where the driver tells it.
    pub permanent: Option<Mac>,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether it is up and frames can pass.
    pub is_running: bool,
    /// Its MTU.
    pub mtu: u32,
    /// What made it, such as `bond`; none for a card.
    pub kind: Option<String>,
    /// The interface below it.
    pub parent: Option<u32>,
    /// The bond or bridge whose port it is.
    pub master: Option<u32>,
    /// Its VLAN.
    pub vlan: Option<u16>,
}

impl Link {
    /// Whether it is a card and not something that software made.
    pub fn is_card(&self) -> bool {
        self.kind.is_none() && !self.is_loopback && self.mac.is_some()
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub link: u32,
    /// The address.
    pub cidr: Cidr,
    /// Whether it is valid beyond the link.
    pub is_global: bool,
    /// Whether the kernel is still asking if somebody else has it.
    pub is_tentative: bool,
    /// Whether somebody else has it.
    pub is_duplicate: bool,
    /// Whether it was set by hand, or by a program that does not let it expire.
    pub is_permanent: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Where it leads to; everywhere if it is none.
    pub to: Option<Cidr>,
    /// The router.
    pub via: Option<IpAddr>,
    /// The interface.
    pub link: Option<u32>,
    /// The address that is used for what goes that way.
    pub source: Option<IpAddr>,
    /// Who made it: `RTPROT_KERNEL` is 2, of what an address brings by itself.
    pub protocol: u8,
    /// The smaller, the better.
    pub metric: u32,
}

/// What is changed about an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The bond or bridge whose port it becomes.
    pub master: Option<u32>,
}

/// A UDP socket that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpPlan {
    /// The interface that it is bound to.
    pub device: Option<String>,
    /// Its own address and port; port 0 for any.
    pub local: SocketAddr,
}

/// A UDP socket.
pub trait Datagrams {
    /// Sends one datagram.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> anyhow::Result<()>;

    /// The next datagram, or none within `limit`.
    ///
    /// # Errors
    /// The socket is broken.
    fn receive(&mut self, limit: Duration) -> anyhow::Result<Option<Vec<u8>>>;
}

/// The kernel's network.
pub trait Net {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's refusal, as with everything below.
    fn links(&mut self) -> anyhow::Result<Vec<Link>>;

    /// All addresses.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn addresses(&mut self) -> anyhow::Result<Vec<Address>>;

    /// The routes of the main table.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn routes(&mut self) -> anyhow::Result<Vec<KernelRoute>>;

    /// The way to `address`.
    ///
    /// # Errors
    /// As [`Net::links`], and there is no way.
    fn route_to(&mut self, address: IpAddr) -> anyhow::Result<KernelRoute>;

    /// Makes a VLAN, bond or bridge; `parent` is the interface below a VLAN. One that is there already will do.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn create(&mut self, name: &str, kind: &Kind, parent: Option<u32>) -> anyhow::Result<()>;

    /// Changes an interface.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn change(&mut self, link: u32, change: &LinkChange) -> anyhow::Result<()>;

    /// Gives an interface an address; one that it has already will do.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn add_address(&mut self, link: u32, address: Cidr) -> anyhow::Result<()>;

    /// Adds a route; one that is there already will do.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn add_route(&mut self, route: &KernelRoute) -> anyhow::Result<()>;

    /// The text of a small file such as `/sys/class/net/bond0/bonding/mode` or `/etc/resolv.conf`.
    fn read(&mut self, path: &str) -> Option<String>;

    /// Writes such a file.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()>;

    /// Opens a UDP socket.
    ///
    /// # Errors
    /// As [`Net::links`].
    fn udp(&mut self, plan: &UdpPlan) -> anyhow::Result<Box<dyn Datagrams>>;

    /// A number that nobody can guess.
    fn random(&mut self) -> u32;

    /// Time that passes steadily.
    fn now(&mut self) -> Duration;

    /// Waits a moment.
    fn pause(&mut self, time: Duration);
}
