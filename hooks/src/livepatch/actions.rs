//! Loading and unloading: what kpatch does to the kernel.
//!
//! May surprise: a transition that stalls is reversed, never left half done; what cannot even be reversed is said so. The
//! kernel never lets go of the module of a patch that was disabled or replaced by force.
//! Since 5.1 a patch that is disabled can only be had back by its module being taken out and put in again.

use super::boots::accounts;
use super::guard;
use super::identity::Identity;
use super::kernel::Kernel;
use super::patch::{Patch, State, name_of, patches};
use super::store::Store;
use super::transition::{Limits, Stalled, Why, settle, signal};
use super::trust::Judge;
use crate::cmdline::Cmdline;
use crate::kmod::ModuleName;
use crate::signatures::Verdict;
use anyhow::{Context, anyhow, bail};
use std::path::Path;
use std::time::Duration;

/// How long a module may be in use after its patch has been disabled.
const RELEASE: Duration = Duration::from_secs(15);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a patch is put in that the kernel is too busy to take, and how long it is waited in between.
const TRIES: u32 = 5;
const BUSY: Duration = Duration::from_secs(2);

/// What may be done to the kernel's patches.
pub struct Actions<'a> {
    /// The kernel.
    pub kernel: &'a mut dyn Kernel,
    /// What is installed.
    pub store: Store,
    /// How long things may take.
    pub limits: Limits,
    /// Whether a transition that stalls is forced to its end.
    pub force: bool,
    /// Tells whether the kernel would accept a patch.
    pub judge: Judge<'a>,
    /// Hears what is being done.
    pub tell: &'a mut dyn FnMut(&str),
}

/// What came of loading a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It is enabled now; these patches have been replaced by it.
    Now(Vec<ModuleName>),
    /// It was enabled before.
    Before,
}

impl std::fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actions").field("store", &self.store).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Actions<'_> {
    /// Loads the patch in a file, or the installed one of that name, and waits until it is enabled.
    ///
    /// # Errors
    /// Why it is not; the kernel is then as it was.
    pub fn load(&mut self, typed: &str) -> anyhow::Result<Loaded> {
        let patch = self.identify(typed)?;
        let loaded = self.enable(&patch);
        // Whoever loads all later must know what came after what; what cannot be had back may be enabled yet.
        if (matches!(loaded, Ok(Loaded::Now(_))) || loaded.is_err() && self.is_moving(&patch.name))
            && let Err(error) = self.store.note_loaded(&patch.name)
        {
            (self.tell)(&format!("{error:#}"));
        }
        loaded
    }

    fn enable(&mut self, patch: &Identity) -> anyhow::Result<Loaded> {
        let name = &patch.name;
        let state = Patch::read(self.kernel, name)?.map(|patch| patch.state);
        if state.is_some() {
            patch.check(self.kernel)?;
        }
        match state {
            Some(State::Disabled) if patch.is_another_build(self.kernel) => {
                self.take_out(name)?;
                return self.insert(patch);
            }
            Some(_) if patch.is_another_build(self.kernel) => bail!(
                "another build of {name} is loaded than that in {}; `kpatch unload {name}` first",
                patch.file.display()
            ),
            Some(State::Enabled) => return Ok(Loaded::Before),
            Some(State::Enabling) => {}
            Some(State::Disabling) => self.switch(name, true)?,
            Some(State::Disabled) => {
                // Only kernels before 5.1 enable a patch again.
                if self.switch(name, true).is_err() {
                    self.take_out(name)?;
                    return self.insert(patch);
                }
            }
            None => return self.insert(patch),
        }
        self.bring(name, true)?;
        Ok(Loaded::Now(Vec::new()))
    }

    /// Loads every patch that is installed for the running kernel, in its order; goes on behind one that fails. None, if the
    /// kernel command line has `kpatch.enable=0`. One that has been loaded before and is gone because a later one has
    /// replaced it is not put above that one.
    ///
    /// # Errors
    /// Which ones were not loaded, and why.
    pub fn load_all(&mut self) -> anyhow::Result<()> {
        if self.is_switched_off() {
            return Ok(());
        }
        let release = self.release()?;
        let accounts = accounts(self.kernel, &self.store).unwrap_or_default();
        let mut failed = Vec::new();
        let installed = self.store.of(&release)?;
        // As things are before the first one is loaded.
        let replaced: Vec<Option<ModuleName>> = installed.iter().map(|patch| self.replaced_by(&patch.name)).collect();
        for (patch, replaced) in installed.into_iter().zip(replaced) {
            if let Some(signal) = self.kernel.interrupted() {
                failed.push(format!("{}: {signal} came before it was loaded", patch.name));
                continue;
            }
            let file = patch.file.display().to_string();
            if Identity::read(&patch.file).is_ok_and(|patch| accounts.is_barred(&patch))
                && !self.is_enabled(&patch.name)
            {
                failed.push(guard::told(&patch.name));
                continue;
            }
            if let Some(later) = replaced {
                (self.tell)(&format!("{} has been loaded, and {later} after it, which has replaced it", patch.name));
                continue;
            }
            match self.load(&file) {
                Ok(loaded) => (self.tell)(&told(&patch.name, &loaded)),
                Err(error) => failed.push(format!("{}: {error:#}", patch.name)),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(anyhow!(failed.join("\n"))) }
    }

    /// Whether the kernel command line switches all patches off; it is told.
    pub(super) fn is_switched_off(&mut self) -> bool {
        let off = self.is_off();
        if off {
            (self.tell)("kpatch.enable=0 is on the kernel command line: no patch is loaded");
        }
        off
    }

    pub(super) fn is_off(&self) -> bool {
        let cmdline = Cmdline::parse(&self.kernel.read(Path::new("/proc/cmdline")).unwrap_or_default());
        cmdline.last("kpatch.enable") == Some("0")
    }

    /// A patch that was loaded after that one and is enabled, while that one is not.
    fn replaced_by(&self, name: &ModuleName) -> Option<ModuleName> {
        let loaded = self.store.loaded();
        let at = loaded.iter().position(|other| other == name).filter(|_| !self.is_enabled(name))?;
        loaded.get(at + 1..)?.iter().find(|later| self.is_enabled(later)).cloned()
    }

    pub(super) fn is_enabled(&self, name: &ModuleName) -> bool {
        Patch::read(self.kernel, name).ok().flatten().is_some_and(|patch| patch.state == State::Enabled)
    }

    fn is_moving(&self, name: &ModuleName) -> bool {
        Patch::read(self.kernel, name).ok().flatten().is_some_and(|patch| !patch.state.is_settled())
    }

    /// Disables a patch and takes its module out.
    ///
    /// # Errors
    /// Why it is still there.
    pub fn unload(&mut self, typed: &str) -> anyhow::Result<()> {
        let name = name_of(typed);
        let forced = match Patch::read(self.kernel, &name)?.map(|patch| patch.state) {
            None if !self.has_module(&name)? => bail!("{name} is not loaded; `kpatch list` names the patches that are"),
            None | Some(State::Disabled) => false,
            Some(State::Disabling) => self.bring(&name, false)?,
            Some(State::Enabled | State::Enabling) => {
                self.wait_for_others(&name)?;
                self.switch(&name, false)?;
                let forced = self.bring(&name, false)?;
                // What somebody has unloaded was not replaced.
                if let Err(error) = self.store.note_unloaded(&name) {
                    (self.tell)(&format!("{error:#}"));
                }
                forced
            }
        };
        if forced && self.kernel.remove(&name).is_err() {
            (self.tell)(&format!(
                "{name} is disabled; its module stays until the reboot, as its transition was forced"
            ));
            return Ok(());
        }
        if forced { Ok(()) } else { self.take_out(&name) }
    }

    /// Unloads every patch, the last one loaded first.
    ///
    /// # Errors
    /// Which ones are still there, and why.
    pub fn unload_all(&mut self) -> anyhow::Result<Vec<ModuleName>> {
        let mut unloaded = Vec::new();
        loop {
            // Where the kernel does not tell the order, it refuses what is not on top; so each round tries all.
            let mut failed = Vec::new();
            let before = unloaded.len();
            for patch in patches(self.kernel)?.iter().rev() {
                if let Some(signal) = self.kernel.interrupted() {
                    failed.push(format!("{}: {signal} came before it was unloaded", patch.name));
                    continue;
                }
                match self.unload(patch.name.as_str()) {
                    Ok(()) => unloaded.push(patch.name.clone()),
                    Err(error) => failed.push(format!("{}: {error:#}", patch.name)),
                }
            }
            if failed.is_empty() {
                return Ok(unloaded);
            }
            if unloaded.len() == before || self.kernel.interrupted().is_some() {
                return Err(anyhow!(failed.join("\n")));
            }
        }
    }

    /// Nudges the tasks that hold transitions up; gives the patches that are in one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn signal(&mut self) -> anyhow::Result<Vec<ModuleName>> {
        let moving: Vec<Patch> = patches(self.kernel)?.into_iter().filter(|patch| !patch.state.is_settled()).collect();
        for patch in &moving {
            let done = signal(self.kernel, &patch.name).with_context(|| format!("cannot signal for {}", patch.name))?;
            if !done {
                (self.tell)("this kernel signals tasks by itself");
            }
        }
        Ok(moving.into_iter().map(|patch| patch.name).collect())
    }

    /// The patch that was typed: a file, or the name of an installed one.
    pub(super) fn identify(&mut self, typed: &str) -> anyhow::Result<Identity> {
        let path = Path::new(typed);
        let file = match path.is_file() {
            true => path.to_owned(),
            false => self.store.find(&self.release()?, typed)?.file,
        };
        let patch = Identity::read(&file)?;
        self.store.verify(&patch)?;
        Ok(patch)
    }

    fn insert(&mut self, patch: &Identity) -> anyhow::Result<Loaded> {
        if self.kernel.is_capture() {
            bail!("this is a capture kernel, which dumps the crashed one and is gone again: no live patch is loaded");
        }
        patch.check(self.kernel)?;
        self.trust(patch)?;
        self.wait_for_others(&patch.name)?;
        if self.has_module(&patch.name)? {
            // Disabled some time ago.
            self.take_out(&patch.name)?;
        }
        let before = patches(self.kernel)?;
        (self.tell)(&format!("loading patch module: {}", patch.file.display()));
        self.kernel.heed();
        let mut inserted = self.kernel.insert(&patch.name, &patch.file);
        for _ in 1..TRIES {
            let Some(refusal) = inserted.as_ref().err().filter(|refusal| refusal.is_for_now()) else { break };
            if self.kernel.interrupted().is_some() {
                break;
            }
            // Somebody else may have begun a transition meanwhile.
            (self.tell)(&format!("{}: {refusal}; once more in {} s", patch.name, BUSY.as_secs()));
            self.kernel.pause(BUSY);
            inserted = self.kernel.insert(&patch.name, &patch.file);
        }
        inserted.with_context(|| format!("the kernel refuses {}", patch.file.display()))?;
        if Patch::read(self.kernel, &patch.name)?.is_none() {
            // It is of no use, and would be in the way of the next one.
            let error = anyhow!("{} was loaded, but the kernel knows no patch of that name", patch.name);
            return Err(match self.take_out(&patch.name) {
                Ok(()) => error,
                Err(also) => error.context(format!("{also:#}")),
            });
        }
        let forced = match self.bring(&patch.name, true) {
            Ok(forced) => forced,
            // What cannot be had back is in use.
            Err(error) if self.is_moving(&patch.name) => return Err(error),
            // What was not enabled is of no use.
            Err(error) => {
                return Err(match self.take_out(&patch.name) {
                    Ok(()) => error,
                    Err(also) => error.context(format!("{also:#}")),
                });
            }
        };
        let after = patches(self.kernel)?;
        let is_gone = |patch: &&Patch| !after.iter().any(|other| other.name == patch.name);
        let replaced: Vec<ModuleName> = before.iter().filter(is_gone).map(|patch| patch.name.clone()).collect();
        self.sweep(&replaced, forced);
        Ok(Loaded::Now(replaced))
    }

    /// Takes the modules of replaced patches out: nothing else names them any more. One that stays is told.
    fn sweep(&mut self, replaced: &[ModuleName], forced: bool) {
        for name in replaced {
            let gone = match forced {
                true => self.kernel.remove(name).map_err(|error| anyhow!("{error}; the transition was forced")),
                false => self.take_out(name),
            };
            if let Err(error) = gone {
                (self.tell)(&format!("{name} has been replaced, and its module stays until the reboot: {error:#}"));
            }
        }
    }

    /// Whether the kernel would accept it; one that taints the kernel is told. What cannot be told is left to the kernel.
    fn trust(&mut self, patch: &Identity) -> anyhow::Result<()> {
        match (self.judge)(patch, self.kernel) {
            Verdict::Refused(why) => bail!("the kernel would refuse {}: {why}", patch.file.display()),
            Verdict::Taints(why) => {
                (self.tell)(&format!("the kernel takes {}, but is tainted by it: {why}", patch.name));
            }
            Verdict::Accepted | Verdict::Unknown(_) => {}
        }
        Ok(())
    }

    /// The kernel does one transition at a time.
    fn wait_for_others(&mut self, name: &ModuleName) -> anyhow::Result<()> {
        for other in patches(self.kernel)? {
            if other.name != *name && !other.state.is_settled() {
                (self.tell)(&format!("waiting for the transition of {}", other.name));
                let enabled = other.state == State::Enabling;
                self.settle(&other.name, enabled, self.limits.reversal, true)
                    .context("another patch is in transition")?;
            }
        }
        Ok(())
    }

    fn switch(&mut self, name: &ModuleName, enabled: bool) -> anyhow::Result<()> {
        let (word, verb, doing) = if enabled { ("1", "enable", "enabling") } else { ("0", "disable", "disabling") };
        (self.tell)(&format!("{doing} patch module: {name}"));
        self.kernel.heed();
        self.kernel.write(&Patch::directory(name).join("enabled"), word).map_err(|error| {
            let above = match error.raw_os_error() {
                Some(nix::libc::EBUSY) => "; another patch lies above it or is in transition",
                _ => "",
            };
            anyhow!("cannot {verb} {name}: {error}{above}")
        })
    }

    fn settle(
        &mut self,
        name: &ModuleName,
        enabled: bool,
        limit: Duration,
        is_interruptible: bool,
    ) -> anyhow::Result<()> {
        let tell = &mut *self.tell;
        let limits = Limits { transition: limit, ..self.limits };
        settle(self.kernel, name, enabled, limits, is_interruptible, &mut |waited, tasks| {
            tell(&format!("{name}: waiting for {tasks} tasks, {} s", waited.as_secs()));
        })
    }

    /// Waits for a transition; one that stalls is forced if that is wanted, and else reversed, as it is when a signal comes.
    /// Whether it was forced.
    fn bring(&mut self, name: &ModuleName, enabled: bool) -> anyhow::Result<bool> {
        self.kernel.heed();
        let Err(error) = self.settle(name, enabled, self.limits.transition, true) else { return Ok(false) };
        let Some(Stalled { why, .. }) = error.downcast_ref() else { return Err(error) };
        if self.force && matches!(why, Why::Limit(_)) {
            (self.tell)(&format!("{error:#}"));
            (self.tell)(&format!("forcing the transition of {name}"));
            let file = Patch::directory(name).join("force");
            self.kernel.write(&file, "1").with_context(|| format!("cannot force the transition of {name}"))?;
            return self.settle(name, enabled, self.limits.reversal, false).map(|()| true);
        }
        let reversed =
            self.switch(name, !enabled).and_then(|()| self.settle(name, !enabled, self.limits.reversal, false));
        Err(match reversed {
            Ok(()) => error.context(match enabled {
                true => format!("{name} was not enabled; its transition has been reversed"),
                false => format!("{name} was not disabled; its transition has been reversed"),
            }),
            Err(also) => error.context(format!("{name} is in transition and cannot be had back: {also:#}")),
        })
    }

    /// Takes a module out, when those that still use it are done.
    fn take_out(&mut self, name: &ModuleName) -> anyhow::Result<()> {
        (self.tell)(&format!("unloading patch module: {name}"));
        let start = self.kernel.now();
        loop {
            let waited = self.kernel.now().saturating_sub(start);
            let Err(error) = self.kernel.remove(name) else { return Ok(()) };
            if !error.is_for_now() {
                // Somebody else may have been faster.
                return match self.directory_of(name) {
                    None => Ok(()),
                    Some(_) => Err(error).with_context(|| format!("the kernel keeps the module of {name}")),
                };
            }
            if waited >= RELEASE {
                return Err(error).with_context(|| {
                    format!(
                        "the module of {name} is still there; if a transition of it was forced, it stays so until the \
                         reboot"
                    )
                });
            }
            self.kernel.pause(AGAIN);
        }
    }

    /// Whether the module of a patch is in, be the patch disabled. One that is no live patch is not for kpatch to touch.
    fn has_module(&self, name: &ModuleName) -> anyhow::Result<bool> {
        let Some(files) = self.directory_of(name) else { return Ok(false) };
        if !files.iter().any(|file| file == "initstate") {
            bail!("{name} is no live patch, but a part of the kernel itself; `kpatch list` names the patches");
        }
        let taint = self.kernel.read(&Path::new("/sys/module").join(name.as_str()).join("taint"));
        // Kernels before 4.9 do not mark the module of a patch (2992ef29ae01, "livepatch/module: make TAINT_LIVEPATCH
        // module-specific").
        if taint.is_ok_and(|taint| taint.contains('K')) || self.store.loaded().contains(name) {
            return Ok(true);
        }
        bail!(
            "the module {name} that is loaded is no live patch, and is left alone; `kpatch list` names the patches, and \
             `rmmod {name}` takes out any module"
        )
    }

    /// The files of a module, and of what is built in.
    fn directory_of(&self, name: &ModuleName) -> Option<Vec<String>> {
        self.kernel.list(&Path::new("/sys/module").join(name.as_str())).ok()
    }

    pub(super) fn release(&self) -> anyhow::Result<String> {
        self.kernel.release().context("cannot tell the release of the running kernel")
    }
}

/// What is said of a patch that has been loaded.
pub(super) fn told(name: &ModuleName, loaded: &Loaded) -> String {
    match loaded {
        Loaded::Before => format!("{name} is already enabled"),
        Loaded::Now(replaced) if replaced.is_empty() => format!("{name} is enabled"),
        Loaded::Now(replaced) => {
            let replaced: Vec<&str> = replaced.iter().map(ModuleName::as_str).collect();
            format!("{name} is enabled and has replaced {}", replaced.join(", "))
        }
    }
}
