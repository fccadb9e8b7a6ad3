//! The kernel's network over rtnetlink, sockets and files: for PID 1, and for the builder that looks at a running machine.
//!
//! In: requests of [`kdump_hooks::net::rtnl`]. Out: the kernel's answers. Each exchange has a limit; a list that
//! does not end is an error.

use anyhow::{Context, anyhow, bail};
use kdump_hooks::net::rtnl::{self, Reply, Request};
use kdump_hooks::net::{Address, Cidr, Datagrams, KernelRoute, Kind, Link, LinkChange, Net, UdpPlan};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The kernel answers at once or not at all.
const PATIENCE: i64 = 10;
/// More datagrams than this are no answer to anything.
const MOST_DATAGRAMS: usize = 4096;
/// The kernel fills datagrams of a list up to this size.
const BUFFER: usize = 32 << 10;
/// Larger datagrams of a network are cut.
const LARGEST_DATAGRAM: usize = 2048;
/// Larger files are none that tell one fact.
const LARGEST_FILE: u64 = 64 << 10;

/// The network of this machine.
#[derive(Debug)]
pub struct LinuxNet {
    socket: Option<OwnedFd>,
    sequence: u32,
    start: Instant,
}

impl Default for LinuxNet {
    fn default() -> Self {
        LinuxNet { socket: None, sequence: 0, start: Instant::now() }
    }
}

impl LinuxNet {
    /// Sends a request and gathers what answers it. An errno of the kernel is the inner result.
    fn exchange(&mut self, request: Request, is_list: bool) -> anyhow::Result<Result<Vec<Reply>, Errno>> {
        let outcome = self.try_exchange(request, is_list);
        if outcome.is_err() {
            // Late answers must not be taken for those of the next request.
            self.socket = None;
        }
        outcome.context("cannot speak with the kernel about its network")
    }

    fn try_exchange(&mut self, request: Request, is_list: bool) -> anyhow::Result<Result<Vec<Reply>, Errno>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open()?,
        };
        let fd = self.socket.insert(socket).as_raw_fd();
        self.sequence = self.sequence.wrapping_add(1);
        send(fd, &request.finish(self.sequence), MsgFlags::empty())?;
        let mut all = Vec::new();
        let mut buffer = vec![0; BUFFER];
        for _ in 0..MOST_DATAGRAMS {
            let length = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => bail!("no answer within {PATIENCE} s"),
                Err(errno) => return Err(errno.into()),
            };
            for reply in rtnl::replies(buffer.get(..length).unwrap_or_default(), self.sequence) {
                match reply {
                    Reply::Done => return Ok(Ok(all)),
                    Reply::Answer(0) => return Ok(Ok(all)),
                    Reply::Answer(errno) => return Ok(Err(Errno::from_raw(errno))),
                    other => all.push(other),
                }
            }
            if !is_list && !all.is_empty() {
                return Ok(Ok(all));
            }
        }
        bail!("the answer does not end")
    }

    fn list(&mut self, request: Request) -> anyhow::Result<Vec<Reply>> {
        Ok(self.exchange(request, true)??)
    }

    /// Has something done; what is so already will do.
    fn act(&mut self, request: Request) -> anyhow::Result<()> {
        match self.exchange(request, true)? {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn open() -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    Ok(socket)
}

impl Net for LinuxNet {
    fn links(&mut self) -> anyhow::Result<Vec<Link>> {
        let replies = self.list(Request::links())?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| if let Reply::Link(link) = reply { Some(link) } else { None })
            .collect())
    }

    fn addresses(&mut self) -> anyhow::Result<Vec<Address>> {
        let replies = self.list(Request::addresses())?;
        let address = |reply| if let Reply::Address(address) = reply { Some(address) } else { None };
        Ok(replies.into_iter().filter_map(address).collect())
    }

    fn routes(&mut self) -> anyhow::Result<Vec<KernelRoute>> {
        let replies = self.list(Request::routes())?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| if let Reply::Route(route) = reply { Some(route) } else { None })
            .collect())
    }

    fn route_to(&mut self, address: IpAddr) -> anyhow::Result<KernelRoute> {
        let replies = self.exchange(Request::route_to(address), false)??;
        let route =
            replies.into_iter().find_map(|reply| if let Reply::Route(route) = reply { Some(route) } else { None });
        route.ok_or_else(|| anyhow!("the kernel names no route to {address}"))
    }

    fn create(&mut self, name: &str, kind: &Kind, parent: Option<u32>) -> anyhow::Result<()> {
        self.act(Request::create(name, kind, parent))
    }

    fn change(&mut self, link: u32, change: &LinkChange) -> anyhow::Result<()> {
        self.act(Request::change(link, change))
    }

    fn add_address(&mut self, link: u32, address: Cidr) -> anyhow::Result<()> {
        self.act(Request::add_address(link, address))
    }

    fn add_route(&mut self, route: &KernelRoute) -> anyhow::Result<()> {
        self.act(Request::add_route(route))
    }

    fn read(&mut self, path: &str) -> Option<String> {
        use std::io::Read;
        let mut text = String::new();
        fs::File::open(path).ok()?.take(LARGEST_FILE).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        // Files of sysfs are there; others are not yet.
        fs::write(path, text).with_context(|| format!("cannot write {path}"))
    }

    fn udp(&mut self, plan: &UdpPlan) -> anyhow::Result<Box<dyn Datagrams>> {
        let family = if plan.local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if plan.local.is_ipv4() {
            setsockopt(&fd, sockopt::Broadcast, &true)?;
        }
        if let Some(device) = &plan.device {
            setsockopt(&fd, sockopt::BindToDevice, &OsString::from(device))
                .with_context(|| format!("cannot bind to {device}"))?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(plan.local))
            .with_context(|| format!("cannot bind to {}", plan.local))?;
        Ok(Box::new(Udp { socket: UdpSocket::from(fd) }))
    }

    fn random(&mut self) -> u32 {
        // Keys of the standard library's hashers come from the kernel's random numbers.
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn now(&mut self) -> Duration {
        self.start.elapsed()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A UDP socket.
#[derive(Debug)]
struct Udp {
    socket: UdpSocket,
}

impl Datagrams for Udp {
    fn send(&mut self, to: SocketAddr, bytes: &[u8]) -> anyhow::Result<()> {
        self.socket.send_to(bytes, to).with_context(|| format!("cannot send to {to}"))?;
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        // No time at all would mean no limit.
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut bytes = vec![0; LARGEST_DATAGRAM];
        match self.socket.recv(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("cannot receive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_its_loopback_and_of_the_way_to_it() {
        let mut net = LinuxNet::default();
        let links = net.links().unwrap();
        let lo = links.iter().find(|link| link.is_loopback).unwrap();
        assert_eq!(lo.name, "lo");
        let own = IpAddr::from([127, 0, 0, 1]);
        if lo.is_up {
            assert!(net.addresses().unwrap().iter().any(|address| address.cidr.address == own));
            let way = net.route_to(own).unwrap();
            assert_eq!((way.link, way.source), (Some(lo.index), Some(own)));
        }
        net.routes().unwrap();
        let nowhere = LinkChange { up: Some(true), ..LinkChange::default() };
        assert_eq!(net.change(u32::MAX >> 1, &nowhere).unwrap_err().to_string(), Errno::ENODEV.to_string());
    }

    #[test]
    fn a_snapshot_of_this_machine_leads_where_its_default_route_leads() {
        let mut net = LinuxNet::default();
        let away = IpAddr::from([192, 0, 2, 200]);
        // A machine without a network has nothing to tell.
        let Ok(way) = net.route_to(away) else { return };
        let links = net.links().unwrap();
        let link = links.iter().find(|link| Some(link.index) == way.link).unwrap();
        match kdump_hooks::net::snapshot::snapshot(&mut net, away) {
            Ok(network) => {
                let interface = network.interfaces.iter().find(|interface| interface.name == link.name).unwrap();
                assert!(interface.is_addressed(), "{network:?}");
            }
            // A container's card is half of a pair whose other half is outside.
            Err(error) => assert!(link.kind.is_some(), "{error:#}"),
        }
    }

    #[test]
    fn datagrams_go_and_come_within_the_limit() {
        let mut net = LinuxNet::default();
        let plan = UdpPlan { device: None, local: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut socket = net.udp(&plan).unwrap();
        assert_eq!(socket.receive(Duration::from_millis(20)).unwrap(), None);
        socket.send(peer.local_addr().unwrap(), b"question").unwrap();
        let mut bytes = [0; 16];
        let (length, from) = peer.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"question");
        peer.send_to(b"answer", from).unwrap();
        assert_eq!(socket.receive(Duration::from_secs(5)).unwrap().as_deref(), Some(&b"answer"[..]));
        assert_ne!(net.random(), net.random());
    }
}
