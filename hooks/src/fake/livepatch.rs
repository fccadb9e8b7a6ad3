//! A kernel with live patches that exists only in memory.

use super::FakeKeys;
use crate::kernel::Refusal;
use crate::keys::Keys;
use crate::kmod::{ModInfo, ModuleName, section};
use crate::livepatch::{Kernel, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A kernel that plays every state of a live patch. Its modules are what `.modinfo` says they are; `replace=Y` there,
/// which no real module has, makes one take the place of all others.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// Its release.
    pub release: String,
    /// Files of sysfs and procfs besides those of patches.
    pub files: BTreeMap<PathBuf, String>,
    /// Modules that are in.
    pub modules: BTreeSet<String>,
    /// Those of them that are no live patches.
    pub drivers: BTreeSet<String>,
    /// Modules that register no patch when they are put in.
    pub mute: BTreeSet<String>,
    /// Modules that are a part of it.
    pub built_in: BTreeSet<String>,
    /// The notes of their builds.
    pub builds: BTreeMap<PathBuf, Vec<u8>>,
    /// Patches in the order of loading.
    pub patches: Vec<FakePatch>,
    /// How long a transition takes.
    pub transition: Duration,
    /// Tasks that never leave what the patches named here change.
    pub stuck: BTreeMap<String, Vec<Task>>,
    /// Whether those tasks are in the patches instead, and hold up the way out of them.
    pub stuck_inside: bool,
    /// Patches whose modules are never let go, as they were disabled or replaced by force.
    pub forced: BTreeSet<String>,
    /// Whether a stuck transition cannot be reversed either.
    pub irreversible: bool,
    /// Whether it behaves as before 5.1: patches stay when they are disabled, can be enabled again, and only the top one
    /// can be disabled.
    pub is_old: bool,
    /// Modules that it refuses, and why.
    pub refused: BTreeMap<String, String>,
    /// Modules that it does not let go, and why.
    pub keeps: BTreeMap<String, String>,
    /// Whether it was built without live patching.
    pub has_no_patching: bool,
    /// How often it is too busy to take a module.
    pub busy: u32,
    /// How long it takes to look for the tasks that hold a transition up.
    pub look: Duration,
    /// When a signal comes, by its clock.
    pub signal_at: Option<Duration>,
    /// Whether signals are heeded.
    pub heeds: bool,
    /// How long it has been up.
    pub clock: Duration,
    /// Its keys.
    pub keys: FakeKeys,
    /// Whether it was started to dump another one.
    pub is_capture: bool,
    /// What its firmware remembers, if it can.
    pub firmware: Option<String>,
    /// What its GRUB has counted, if it counts; the firmware is GRUB then.
    pub counted: Option<u32>,
    /// Everything that was done to it, one line each.
    pub journal: Vec<String>,
}

/// A patch of it.
#[derive(Clone, Debug, Default)]
pub struct FakePatch {
    /// Its name.
    pub name: String,
    /// The side to which it goes or has gone.
    pub enabled: bool,
    /// What is left of its transition.
    pub moving: Option<Duration>,
    /// Whether it takes the place of all others.
    pub replaces: bool,
}

impl FakeKernel {
    fn patch(&mut self, name: &str) -> io::Result<&mut FakePatch> {
        self.patches.iter_mut().find(|patch| patch.name == name).ok_or_else(missing)
    }

    /// As its modules are marked.
    fn taint(&self, file: &Path) -> Option<&'static str> {
        let module = file.strip_prefix("/sys/module").ok()?.parent().filter(|_| file.ends_with("taint"))?;
        let module = module.to_str().filter(|module| self.modules.contains(*module))?;
        Some(if self.drivers.contains(module) { "OE" } else { "OEK" })
    }

    fn end_transition(&mut self, name: &str) {
        let Ok(patch) = self.patch(name) else { return };
        patch.moving = None;
        let (enabled, replaces) = (patch.enabled, patch.replaces);
        if enabled && replaces {
            self.patches.retain(|other| other.name == name);
        }
        if !enabled && !self.is_old {
            self.patches.retain(|other| other.name != name);
        }
    }

    /// As kernels since 5.19 do it.
    fn force(&mut self, name: &str) {
        let Ok(patch) = self.patch(name) else { return };
        match (patch.enabled, patch.replaces) {
            (false, _) => drop(self.forced.insert(name.to_owned())),
            (true, true) => {
                let others = self.patches.iter().map(|other| other.name.clone()).filter(|other| other != name);
                self.forced.extend(others);
            }
            (true, false) => {}
        }
        self.end_transition(name);
    }

    fn switch(&mut self, name: &str, enabled: bool) -> io::Result<()> {
        let (time, old, irreversible) = (self.transition, self.is_old, self.irreversible);
        let is_top = self.patches.last().is_some_and(|patch| patch.name == name);
        let patch = self.patch(name)?;
        let is_reversal = patch.moving.is_some();
        if patch.enabled == enabled || (enabled && !is_reversal && !old) || (is_reversal && irreversible) {
            return Err(io::Error::from_raw_os_error(nix::libc::EINVAL));
        }
        if old && !enabled && !is_top {
            return Err(io::Error::from_raw_os_error(nix::libc::EBUSY));
        }
        patch.enabled = enabled;
        patch.moving = Some(time);
        Ok(())
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The patch and the file of it that a path below `/sys/kernel/livepatch` names.
fn parts(path: &Path) -> Option<(String, String)> {
    let mut names = path.strip_prefix("/sys/kernel/livepatch").ok()?.iter().map(|name| name.to_string_lossy().into());
    Some((names.next()?, names.next().unwrap_or_default()))
}

impl Kernel for FakeKernel {
    fn release(&self) -> io::Result<String> {
        Ok(self.release.clone())
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        if let Some(taint) = self.taint(file) {
            return Ok(taint.to_owned());
        }
        let Some((name, file_name)) = parts(file) else { return self.files.get(file).cloned().ok_or_else(missing) };
        let at = self.patches.iter().position(|patch| patch.name == name).ok_or_else(missing)?;
        let patch = self.patches.get(at).ok_or_else(missing)?;
        let number = |flag: bool| u32::from(flag).to_string();
        match file_name.as_str() {
            "enabled" => Ok(number(patch.enabled)),
            "transition" => Ok(number(patch.moving.is_some())),
            "replace" if !self.is_old => Ok(number(patch.replaces)),
            "stack_order" if !self.is_old => Ok((at + 1).to_string()),
            _ => Err(missing()),
        }
    }

    fn read_bytes(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.builds.get(file).cloned().ok_or_else(missing)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        if directory == Path::new("/sys/kernel/livepatch") {
            if self.has_no_patching {
                return Err(missing());
            }
            let mut names: Vec<String> = self.patches.iter().map(|patch| patch.name.clone()).collect();
            names.sort();
            return Ok(names);
        }
        if let Ok(module) = directory.strip_prefix("/sys/module") {
            let module = module.to_string_lossy();
            return match (self.modules.contains(&*module), self.built_in.contains(&*module)) {
                (true, _) => Ok(["initstate", "taint"].map(str::to_owned).into()),
                (false, true) => Ok(vec!["parameters".to_owned()]),
                (false, false) => Err(missing()),
            };
        }
        match parts(directory) {
            Some((_, object)) if object == "vmlinux" => Ok(vec!["cmdline_proc_show,1".to_owned()]),
            Some((_, object)) if object.is_empty() => {
                let mut names = vec!["enabled", "force", "transition", "vmlinux"];
                names.extend(self.is_old.then_some("signal"));
                Ok(names.into_iter().map(str::to_owned).collect())
            }
            _ => Err(missing()),
        }
    }

    fn write(&mut self, file: &Path, text: &str) -> io::Result<()> {
        let (name, file_name) = parts(file).ok_or_else(missing)?;
        self.journal.push(format!("{file_name} of {name} = {text}"));
        match file_name.as_str() {
            "enabled" => self.switch(&name, text == "1"),
            "force" => {
                self.force(&name);
                Ok(())
            }
            "signal" if self.is_old => {
                self.stuck.remove(&name);
                Ok(())
            }
            _ => Err(missing()),
        }
    }

    fn insert(&mut self, name: &ModuleName, file: &Path) -> Result<(), Refusal> {
        self.journal.push(format!("insert {name}"));
        let refused = |reason: &str| Refusal { reason: reason.to_owned(), kernel: Vec::new() };
        if let Some(reason) = self.refused.get(name.as_str()) {
            return Err(refused(reason));
        }
        let is_busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        if is_busy || self.patches.iter().any(|patch| patch.moving.is_some()) {
            return Err(refused("EBUSY: another transition is under way"));
        }
        let content = fs::read(file).map_err(|error| refused(&error.to_string()))?;
        let info = ModInfo::read(&content).map_err(|error| refused(&error.to_string()))?;
        let replaces = info.values("replace").next() == Some("Y");
        let module = Path::new("/sys/module").join(name.as_str());
        if let Ok(Some(note)) = section(&content, ".note.gnu.build-id") {
            self.builds.insert(module.join("notes/.note.gnu.build-id"), note.to_owned());
        }
        if let Some(version) = info.values("srcversion").next() {
            self.files.insert(module.join("srcversion"), version.to_owned());
        }
        self.modules.insert(name.to_string());
        if self.mute.contains(name.as_str()) {
            return Ok(());
        }
        let moving = Some(self.transition);
        self.patches.push(FakePatch { name: name.to_string(), enabled: true, moving, replaces });
        Ok(())
    }

    fn remove(&mut self, name: &ModuleName) -> Result<(), Refusal> {
        self.journal.push(format!("remove {name}"));
        if let Some(reason) = self.keeps.get(name.as_str()) {
            return Err(Refusal { reason: reason.clone(), kernel: Vec::new() });
        }
        let is_used = self.patches.iter().any(|patch| patch.name == name.as_str() && patch.enabled)
            || self.forced.contains(name.as_str());
        if is_used || !self.modules.remove(name.as_str()) {
            let reason = if is_used { "EAGAIN: it is in use" } else { "ENOENT: it is not loaded" };
            return Err(Refusal { reason: reason.to_owned(), kernel: Vec::new() });
        }
        self.patches.retain(|patch| patch.name != name.as_str());
        Ok(())
    }

    fn holding_up(&mut self, _enabled: bool) -> Vec<Task> {
        self.pause(self.look);
        let moving = self.patches.iter().filter(|patch| patch.moving.is_some());
        moving.filter_map(|patch| self.stuck.get(&patch.name)).flatten().cloned().collect()
    }

    fn heed(&mut self) {
        self.heeds = true;
    }

    fn interrupted(&self) -> Option<&'static str> {
        self.signal_at.filter(|at| self.heeds && self.clock >= *at).map(|_| "SIGTERM")
    }

    fn now(&self) -> Duration {
        self.clock
    }

    fn pause(&mut self, time: Duration) {
        self.clock += time;
        let mut done = Vec::new();
        for patch in &mut self.patches {
            let Some(left) = &mut patch.moving else { continue };
            *left = left.saturating_sub(time);
            // A task holds up the way out of the function that it sits in, not the way back.
            let is_held = patch.enabled != self.stuck_inside || self.irreversible;
            let is_stuck = self.stuck.contains_key(&patch.name) && is_held;
            if left.is_zero() && !is_stuck {
                done.push(patch.name.clone());
            }
        }
        done.iter().for_each(|name| self.end_transition(name));
    }

    fn keys(&self) -> &dyn Keys {
        &self.keys
    }

    fn is_capture(&self) -> bool {
        self.is_capture
    }

    fn remembered(&self) -> io::Result<String> {
        self.firmware.clone().ok_or_else(missing)
    }

    fn remember(&mut self, text: &str) -> io::Result<()> {
        self.journal.push(format!("remember {}", text.trim_end()));
        *self.firmware.as_mut().ok_or_else(missing)? = text.to_owned();
        self.counted = self.counted.map(|_| 0);
        Ok(())
    }

    fn counted(&self) -> Option<u32> {
        self.counted
    }
}
