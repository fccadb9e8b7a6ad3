//! Which modules the capture kernel loads, and which it must not.

use anyhow::{Result, ensure};
use qemu_tests::prelude::*;

#[test]
fn a_blacklisted_module_is_not_loaded_while_its_siblings_are() -> Result<()> {
    let scenario = Scenario {
        devices: vec!["virtio-rng-pci".into(), "virtio-balloon-pci".into()],
        conf: vec!["extra_modules virtio_rng virtio_balloon".into()],
        append: "rd.driver.blacklist=virtio_balloon".into(),
        keep_raw: true,
        ..Scenario::of(kernel(Suite::Own)?, "blacklist")
    };
    let outcome = crash(&scenario)?;
    judge::against_source(&scenario, &outcome)?;
    let status = outcome.status()?;
    let loaded = status.names("/modules/loaded")?;
    ensure!(loaded.contains(&"virtio_blk") && loaded.contains(&"virtio_rng"), "a sibling is missing: {loaded:?}");
    ensure!(!loaded.contains(&"virtio_balloon"), "the blacklisted module was loaded: {loaded:?}");
    let blacklisted = status.names("/modules/blacklisted")?;
    ensure!(blacklisted.contains(&"virtio_balloon"), "the blacklisting is not reported: {blacklisted:?}");
    Ok(())
}
