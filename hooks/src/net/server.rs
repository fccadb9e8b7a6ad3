//! The machine at the other end: its address, and the one that it sees of us.

use super::{Net, dns};
use anyhow::Context;
use std::net::IpAddr;

/// The server's address: what a nameserver says now, else what the name meant when the image was built.
///
/// # Errors
/// Nobody knows.
pub fn find(net: &mut dyn Net, name: &str, when_built: Option<IpAddr>) -> anyhow::Result<IpAddr> {
    match (dns::resolve(net, name), when_built) {
        (Ok(address), _) => Ok(address),
        (Err(error), Some(address)) => {
            log::warn!("{error:#}; it was {address} when the image was built, and that is used");
            Ok(address)
        }
        (Err(error), None) => Err(error),
    }
}

/// The address that the server sees of us.
///
/// # Errors
/// There is no way to it.
pub fn own_address(net: &mut dyn Net, server: IpAddr) -> anyhow::Result<IpAddr> {
    let way = net.route_to(server).with_context(|| format!("there is no route to {server}; is the network up?"))?;
    way.source.with_context(|| format!("the route to {server} has no address of ours"))
}

/// As [`own_address`], of a server that is known by name.
pub fn client(net: &mut dyn Net, name: &str, when_built: Option<IpAddr>) -> Option<IpAddr> {
    let server = find(net, name, when_built).ok()?;
    own_address(net, server).ok()
}
