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

#[test]
fn a_module_that_the_kernel_refuses_is_reported_and_costs_nothing_else() -> Result<()> {
    let scenario = Scenario {
        devices: vec!["virtio-rng-pci".into(), "virtio-balloon-pci".into()],
        conf: vec!["extra_modules virtio_rng virtio_balloon".into()],
        // The kernel's own list, which no one in user space looks at.
        append: "module_blacklist=virtio_rng".into(),
        ..Scenario::of(kernel(Suite::Own)?, "refused-module")
    };
    let outcome = crash(&scenario)?;
    let status = outcome.status()?;
    status.expect_outcome("complete")?;
    let loaded = status.names("/modules/loaded")?;
    ensure!(loaded.contains(&"virtio_balloon") && !loaded.contains(&"virtio_rng"), "loaded: {loaded:?}");
    ensure!(status.names("/modules/refused")? == ["virtio_rng"], "refused: {}", status.at("/modules/refused")?);
    let error = status.text("/modules/refused/0/error")?;
    ensure!(
        error.contains("EPERM") && error.contains("module_blacklist=") && error.contains("is blacklisted"),
        "neither errno nor the kernel's reason: {error}"
    );
    Ok(())
}
