//! A machine that a text describes: its devices, its kernel's modules, its configuration.
//!
//! In: two TOML texts. Out: the files of a machine below a directory, as its sysfs, its `/lib/modules` and its `/etc` would
//! have them, so that an image can be planned for it. A device is told with what matters: where it hangs, its modalias,
//! the module that drives it, what supplies it, what it is made of, and further files of its directory.

use super::{FakeSystem, RELEASE, object};
use anyhow::Context;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    #[serde(default)]
    device: Vec<Device>,
    /// Further files: path and text.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Links: path and target.
    #[serde(default)]
    links: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    /// Its directory in sysfs.
    at: String,
    /// `block` or `net`, if it is one that has a name.
    class: Option<String>,
    modalias: Option<String>,
    /// The module that drives it.
    driver: Option<String>,
    /// The directories of the devices without which it does not work.
    #[serde(default)]
    suppliers: Vec<String>,
    /// The block devices that it is made of.
    #[serde(default)]
    slaves: Vec<String>,
    /// Files of its directory.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// What is written on it: places and text, `\xx` for any byte.
    #[serde(default)]
    content: Vec<(usize, String)>,
}

/// The modules of a kernel, by name.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Modules(BTreeMap<String, Module>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    /// Its directory below `kernel`, or `builtin`.
    #[serde(rename = "in")]
    dir: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    alias: Vec<String>,
    #[serde(default)]
    softdep: Option<String>,
    #[serde(default)]
    firmware: Vec<String>,
}

/// Makes the machine below `root`, which is there and empty.
///
/// # Errors
/// A description is wrong, or `root` cannot be written to.
pub fn machine(root: &Path, host: &str, modules: &str) -> anyhow::Result<FakeSystem> {
    let system = FakeSystem { root: root.to_owned() };
    let described: Described = toml::from_str(host).context("the machine")?;
    system.programs_and_release()?;
    system.kernel(&toml::from_str(modules).context("the kernel")?)?;
    for directory in ["sys/class/block", "sys/class/net", "dev"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for device in &described.device {
        system.device(device).with_context(|| device.at.clone())?;
    }
    for (path, text) in &described.files {
        system.write(path.trim_start_matches('/'), text.as_bytes())?;
    }
    for (path, target) in &described.links {
        system.link(path, target)?;
    }
    Ok(system)
}

impl FakeSystem {
    fn kernel(&self, Modules(modules): &Modules) -> anyhow::Result<()> {
        let path = |name: &str| -> anyhow::Result<String> {
            let module = modules.get(name).with_context(|| format!("there is no module {name}"))?;
            Ok(format!("kernel/{}/{name}.ko", module.dir))
        };
        let (mut dep, mut alias, mut softdep) = (String::new(), String::new(), String::new());
        let (mut builtin, mut info) = (String::new(), Vec::new());
        for (name, module) in modules {
            if module.dir == "builtin" {
                builtin += &format!("kernel/{name}.ko\n");
                info.extend(module.alias.iter().flat_map(|alias| format!("{name}.alias={alias}\0").into_bytes()));
                continue;
            }
            let needs = all_needs(modules, name).into_iter().map(|name| path(&name)).collect::<Result<Vec<_>, _>>()?;
            dep += &format!("{}: {}\n", path(name)?, needs.join(" "));
            alias.extend(module.alias.iter().map(|pattern| format!("alias {pattern} {name}\n")));
            softdep.extend(module.softdep.iter().map(|with| format!("softdep {name} {with}\n")));
            let pairs: Vec<String> = module.firmware.iter().map(|file| format!("firmware={file}")).collect();
            let magic = format!("vermagic={RELEASE} SMP");
            let pairs: Vec<&str> = pairs.iter().map(String::as_str).chain([magic.as_str()]).collect();
            self.module_file(&path(name)?, &object(&pairs))?;
            for file in &module.firmware {
                self.write(&format!("lib/firmware/{file}"), b"firmware")?;
            }
        }
        for (file, bytes) in [
            ("modules.dep", dep.as_bytes()),
            ("modules.alias", alias.as_bytes()),
            ("modules.softdep", softdep.as_bytes()),
            ("modules.builtin", builtin.as_bytes()),
            ("modules.builtin.modinfo", &info),
        ] {
            self.module_file(file, bytes)?;
        }
        Ok(())
    }

    fn device(&self, device: &Device) -> anyhow::Result<()> {
        let at = |path: &str| self.root.join(path.trim_start_matches('/'));
        let here = at(&device.at);
        fs::create_dir_all(&here)?;
        if let Some(alias) = &device.modalias {
            fs::write(here.join("modalias"), format!("{alias}\n"))?;
        }
        if let Some(driver) = &device.driver {
            let place = format!("/sys/bus/any/drivers/{driver}");
            fs::create_dir_all(at(&format!("/sys/module/{driver}")))?;
            self.link(&format!("{place}/module"), &format!("/sys/module/{driver}"))?;
            self.link(&format!("{}/driver", device.at), &place)?;
        }
        let own = device.at.rsplit('/').next().unwrap_or_default();
        for supplier in &device.suppliers {
            let name = supplier.rsplit('/').next().unwrap_or_default();
            let link = format!("/sys/devices/virtual/devlink/platform:{name}--platform:{own}");
            self.link(&format!("{link}/supplier"), supplier)?;
            self.link(&format!("{}/supplier:platform:{name}", device.at), &link)?;
        }
        for slave in &device.slaves {
            fs::create_dir_all(here.join("slaves").join(slave))?;
        }
        for (file, text) in &device.files {
            self.write(&format!("{}/{file}", device.at.trim_start_matches('/')), format!("{text}\n").as_bytes())?;
        }
        match device.class.as_deref() {
            Some("net") => {
                let parent = device.at.rsplit_once("/net/").map_or("", |(parent, _)| parent);
                self.link(&format!("{}/device", device.at), parent)?;
                self.link(&format!("/sys/class/net/{own}"), &device.at)?;
            }
            Some("block") => {
                self.link(&format!("/sys/class/block/{own}"), &device.at)?;
                self.write(&format!("dev/{own}"), &content(&device.content)?)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Links as the kernel has them lead up and down, so that nobody who follows one leaves the machine.
    fn link(&self, path: &str, target: &str) -> anyhow::Result<()> {
        let inside = path.trim_start_matches('/');
        let link = self.root.join(inside);
        fs::create_dir_all(link.parent().context("it has no name")?)?;
        let up = "../".repeat(inside.matches('/').count());
        match fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        Ok(symlink(format!("{up}{}", target.trim_start_matches('/')), link)?)
    }
}

fn all_needs(modules: &BTreeMap<String, Module>, name: &str) -> Vec<String> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    let mut todo: Vec<&String> = modules.get(name).into_iter().flat_map(|module| module.needs.iter().rev()).collect();
    while let Some(name) = todo.pop() {
        let is_loadable = modules.get(name).is_some_and(|module| module.dir != "builtin");
        if seen.insert(name) && is_loadable {
            all.push(name.clone());
            todo.extend(modules.get(name).into_iter().flat_map(|module| &module.needs));
        }
    }
    all
}

/// The start of a device.
fn content(parts: &[(usize, String)]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; 8192];
    for (at, text) in parts {
        let mut part = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('\\') {
            part.extend(before.bytes());
            let (digits, after) = after.split_at_checked(2).context("a byte has two digits")?;
            part.push(u8::from_str_radix(digits, 16)?);
            rest = after;
        }
        part.extend(rest.bytes());
        let place = bytes.get_mut(*at..*at + part.len()).context("it is beyond the first 8 KiB")?;
        place.copy_from_slice(&part);
    }
    Ok(bytes)
}
