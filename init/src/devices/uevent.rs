//! The kernel's device events (`Documentation/driver-api/kobject.rst`; netlink family `NETLINK_KOBJECT_UEVENT`).

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// The multicast group of the kernel itself; group 2 is udevd's.
const KERNEL_GROUP: u32 = 1;
/// Room for events while all of a machine's devices come up at once.
const BUFFER: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    action: String,
    properties: Vec<(String, String)>,
}

impl Uevent {
    /// Reads a message: `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by NUL. `None` if it is none of the kernel's.
    pub fn parse(message: &[u8]) -> Option<Uevent> {
        let text = String::from_utf8_lossy(message);
        let mut parts = text.split('\0').filter(|part| !part.is_empty());
        let (action, _) = parts.next()?.split_once('@')?;
        let properties =
            parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(Uevent { action: action.to_owned(), properties: properties.collect() })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(have, _)| have == key).map(|(_, value)| value.as_str())
    }

    /// What a device that has appeared or changed asks for.
    pub fn modalias(&self) -> Option<&str> {
        matches!(self.action.as_str(), "add" | "change" | "bind").then(|| self.get("MODALIAS")).flatten()
    }

    /// The device's directory below `/sys`.
    pub fn device(&self) -> &str {
        self.get("DEVPATH").unwrap_or("/devices/")
    }

    /// Whether it concerns a block device.
    pub fn is_block(&self) -> bool {
        self.get("SUBSYSTEM") == Some("block")
    }
}

/// A subscription to the kernel's events.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
}

impl Listener {
    pub(super) fn open() -> nix::Result<Listener> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // A smaller buffer only makes lost events likelier.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Listener { socket })
    }

    /// The next event; `None` when the subscription is broken.
    pub(super) fn next(&self) -> Option<Uevent> {
        let mut message = [0; 8192];
        loop {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(length) => match message.get(..length).and_then(Uevent::parse) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                // Events were lost: those who wait look again by themselves.
                Err(Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => {
                    log::error!("the kernel's device events cannot be received any more: {errno}");
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_tells_what_a_device_asks_for() {
        let event = Uevent::parse(
            b"add@/devices/pci0/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0",
        )
        .unwrap();
        assert_eq!(event.modalias(), Some("virtio:d00000002v00001AF4"));
        assert!(!event.is_block());
        assert!(Uevent::parse(b"add@/block/vda\0SUBSYSTEM=block\0DEVNAME=vda\0").unwrap().is_block());
        assert_eq!(Uevent::parse(b"remove@/x\0MODALIAS=a\0").unwrap().modalias(), None);
    }

    #[test]
    fn udevd_s_own_messages_are_none() {
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Uevent::parse(&message);
        }
    }
}
