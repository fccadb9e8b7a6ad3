//! Which modules the capture kernel loads, and which it must not.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qemu_tests::crash::Outcome;
use qemu_tests::prelude::*;
use qemu_tests::provision::{Kernel, own_module};

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

/// The file of a module that the kernel's package has.
fn file_of(kernel: &Kernel, module: &str) -> Result<PathBuf> {
    kernel.load_order(module)?.pop().with_context(|| format!("{module} is no module of {}", kernel.release))
}

/// A changed module for an image, in the place of the right one.
fn changed(kernel: &Kernel, module: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<(String, Vec<u8>)> {
    let file = file_of(kernel, module)?;
    let mut bytes = fs::read(&file)?;
    change(&mut bytes);
    let inside = file.strip_prefix(kernel.modules_root()?).context("the module is elsewhere")?;
    Ok((inside.display().to_string(), bytes))
}

/// The signature lies between the module and the last 28 bytes, and tells its length just before those.
fn signature(bytes: &[u8]) -> std::ops::Range<usize> {
    let end = bytes.len().saturating_sub(28);
    let length = bytes[end - 4..end].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    end - 12 - length..end - 12
}

fn strip_signature(bytes: &mut Vec<u8>) {
    bytes.truncate(signature(bytes).start);
}

/// Has somebody else sign it: of a name in the signature one letter is another.
fn rename_signer(bytes: &mut [u8]) {
    let range = signature(bytes);
    let letters = bytes[range.clone()].windows(6).position(|window| window.iter().all(u8::is_ascii_lowercase));
    let at = range.start + letters.unwrap_or_default();
    bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
}

/// Fails unless the report refuses the module with an error that has all these words.
fn refused(outcome: &Outcome, module: &str, words: &[&str]) -> Result<()> {
    let status = outcome.status()?;
    let refused = status.at("/modules/refused")?;
    let list = refused.as_array().context("no list")?;
    let entry = list.iter().find(|entry| entry["name"] == module);
    let error = entry.with_context(|| format!("{module} was not refused: {refused}"))?["error"].to_string();
    for word in words {
        ensure!(error.contains(word), "the error of {module} does not say \"{word}\": {error}");
    }
    Ok(())
}

#[test]
fn a_driver_that_hangs_holds_nothing_and_every_other_refusal_names_its_cause() -> Result<()> {
    const SPOILT: &str = "dummy ifb veth nlmon team vxlan loop";
    let kernel = kernel(Suite::Own)?;
    let hang = format!("lib/modules/{}/kernel/hang.ko", kernel.release);
    let mut files = Vec::new();
    for name in SPOILT.split(' ') {
        files.push(file_of(&kernel, name)?);
    }
    // What the image is told about dependencies: of vxlan none, though it has some; and of the module that hangs.
    let order = kernel.load_order("vxlan")?;
    ensure!(order.len() > 1, "vxlan needs nothing");
    let root = kernel.modules.clone();
    let mut dep = fs::read_to_string(root.join("modules.dep"))?;
    dep = dep.lines().filter(|line| !line.contains("/vxlan.ko:")).map(|line| format!("{line}\n")).collect::<String>();
    let vxlan = file_of(&kernel, "vxlan")?;
    dep += &format!("{}:\nkernel/hang.ko:\nkernel/packed.ko.zst:\n", vxlan.strip_prefix(&root)?.display());
    // This kernel unpacks no module at all.
    let packed = zstd::encode_all(&fs::read(file_of(&kernel, "macvlan")?)?[..], 1)?;
    let middle = |bytes: &Vec<u8>| bytes.len() / 2;
    let scenario = Scenario {
        other_collector: Some("/usr/libexec/saboteur mount overlay,hang,nosuchfs kdump-capture -z -d 31".into()),
        conf: vec![format!("extra_modules {SPOILT} overlay")],
        append: "rd.driver.pre=hang rd.driver.post=dummy,ifb,veth,nlmon,team,vxlan,bonding,nosuch,loop,packed \
                 module_blacklist=team rd.kdump.forbid=bonding loop.max_loop=many veth.nosuch=1 rd.kdump.driver=6"
            .into(),
        overlay: vec![
            changed(&kernel, "dummy", |bytes| {
                let at = middle(bytes);
                bytes[at] ^= 0xff;
            })?,
            changed(&kernel, "ifb", |bytes| bytes.truncate(middle(bytes)))?,
            (format!("lib/modules/{}/kernel/packed.ko.zst", kernel.release), packed),
            (hang, fs::read(own_module(&kernel, "hang")?)?),
            (format!("lib/modules/{}/modules.dep", kernel.release), dep.into_bytes()),
            // The kernel, too, asks for it, and must not be kept waiting.
            ("etc/modprobe.d/hang.conf".into(), b"alias fs-hang hang\n".to_vec()),
        ],
        ..Scenario::of(kernel.clone(), "hanging-driver")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "the final action was {:?}", outcome.ending);
    ensure!(outcome.dump()?.join("vmcore").exists(), "there is no complete dump");
    let status = outcome.status()?;
    status.expect_outcome("complete")?;
    ensure!(status.names("/modules/stuck")? == ["hang"], "stuck: {}", status.at("/modules/stuck")?);
    refused(&outcome, "dummy", &["EKEYREJECTED", "does not fit its content"])?;
    refused(&outcome, "ifb", &["ENOEXEC", "cut short"])?;
    refused(&outcome, "team", &["EPERM", "module_blacklist=", "is blacklisted"])?;
    refused(&outcome, "vxlan", &["ENOENT", "Unknown symbol", "is not loaded"])?;
    // It is not even in the image, for that reason.
    refused(&outcome, "bonding", &["forbidden", "rd.kdump.forbid="])?;
    refused(&outcome, "loop", &["EINVAL", "invalid for parameter", "bad value"])?;
    refused(&outcome, "packed", &["it is compressed by zstd"])?;
    let loaded = status.names("/modules/loaded")?;
    ensure!(loaded.contains(&"veth") && loaded.contains(&"nlmon"), "loaded: {loaded:?}");
    let remark = status.text("/modules/remarks/0/error")?;
    ensure!(remark.contains("unknown parameter 'nosuch' ignored"), "the remark is: {remark}");
    // The kernel itself asks through the modprobe of the image.
    ensure!(loaded.contains(&"overlay"), "the kernel's own request was not heard: {loaded:?}");
    let missing = status.at("/modules/missing")?;
    for (request, who) in [("nosuch", "rd.driver.post="), ("fs-nosuchfs", "the kernel")] {
        let found = missing.as_array().context("no list")?.iter().find(|entry| entry["request"] == request);
        let asked_by = &found.with_context(|| format!("{request} is not told as missing: {missing}"))?["asked_by"];
        ensure!(asked_by == who, "{request} was asked for by {asked_by}");
    }
    let log = fs::read_to_string(outcome.dump()?.join("kexec-dmesg.log"))?;
    ensure!(
        log.contains("this image lacks nosuch, asked for by rd.driver.post="),
        "the log does not list what was missing"
    );
    ensure!(log.contains("module hang is still starting"), "the log does not name the stuck driver");
    Ok(())
}

#[test]
fn where_signatures_are_enforced_an_unsigned_module_is_refused_as_such() -> Result<()> {
    let kernel = kernel(Suite::Own)?;
    let scenario = Scenario {
        append: "module.sig_enforce=1 rd.driver.post=dummy,ifb,nlmon,veth".into(),
        overlay: vec![
            changed(&kernel, "dummy", strip_signature)?,
            changed(&kernel, "nlmon", |bytes| rename_signer(bytes))?,
            changed(&kernel, "ifb", |bytes| bytes.truncate(bytes.len() / 2))?,
        ],
        ..Scenario::of(kernel.clone(), "unsigned-module")
    };
    let outcome = crash(&scenario)?;
    let status = outcome.status()?;
    status.expect_outcome("complete")?;
    refused(&outcome, "dummy", &["EKEYREJECTED", "it has no signature", "Loading of unsigned module is rejected"])?;
    refused(&outcome, "ifb", &["EKEYREJECTED", "it has no signature", "cut short"])?;
    refused(&outcome, "nlmon", &["EKEYREJECTED", "unavailable key is rejected"])?;
    let loaded = status.names("/modules/loaded")?;
    ensure!(loaded.contains(&"veth") && loaded.contains(&"virtio_blk"), "loaded: {loaded:?}");
    Ok(())
}
