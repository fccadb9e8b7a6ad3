//! What the boot-loop guard has [`Actions`] do: at boot, when a boot is finished, and when a patch is asked for by name.
//!
//! In: what is installed, and the marker. Out: the marker as it is to be in the next boot. May surprise: where there is no
//! place for the marker, patches are loaded all the same, and that nothing watches is told.

use super::actions::Actions;
use super::guard::Accounts;
use super::identity::Identity;
use super::kernel::Kernel;
use super::patch::{State, patches};
use super::store::Store;
use crate::kmod::ModuleName;
use anyhow::{Context, anyhow};
use std::io;

impl Actions<'_> {
    /// As [`Actions::load_all`], before the boot has come to anything else: each patch has this boot on its account
    /// before the first one is loaded.
    ///
    /// # Errors
    /// As there; and the account could not be kept, though patches are loaded all the same.
    pub fn load_at_boot(&mut self) -> anyhow::Result<()> {
        let release = self.release()?;
        let installed = self.store.of(&release)?;
        if installed.is_empty() || self.is_switched_off() {
            return Ok(());
        }
        // A file that is no patch is told when it is loaded.
        let patches: Vec<Identity> = installed.iter().filter_map(|patch| Identity::read(&patch.file).ok()).collect();
        let mut unguarded = None;
        let is_counted = self.kernel.counted().is_some();
        let kept = self.accounts().and_then(|mut accounts| {
            accounts.begin(&patches);
            // GRUB has noted it.
            if is_counted { Ok(()) } else { self.kernel.remember(&accounts.to_string()) }
        });
        if let Err(error) = kept {
            unguarded = Some(format!(
                "the boot-loop guard has no place for its marker, a variable of the firmware ({error}), and GRUB does not \
                 count the boots; should a patch keep the machine from booting, kpatch.enable=0 on the kernel command line \
                 passes over all"
            ));
        }
        self.note_boot();
        let loaded = self.load_all();
        if unguarded.is_none() && !is_counted {
            self.release_refused(&patches);
        }
        match (loaded, unguarded) {
            (loaded, None) => loaded,
            (Ok(()), Some(unguarded)) => Err(anyhow!(unguarded)),
            (Err(error), Some(unguarded)) => Err(error.context(unguarded)),
        }
    }

    /// As [`Actions::load_all`], for the service: where the firmware keeps the marker and no image has begun with it, each
    /// patch that is not enabled yet has this boot on its account before it is loaded.
    ///
    /// # Errors
    /// As there.
    pub fn load_by_service(&mut self) -> anyhow::Result<()> {
        let installed = self.store.of(&self.release()?)?;
        let patches: Vec<Identity> = installed.iter().filter_map(|patch| Identity::read(&patch.file).ok()).collect();
        let new: Vec<Identity> = patches.into_iter().filter(|patch| !self.is_enabled(&patch.name)).collect();
        let is_to_begin = !self.store.boot_is_noted() && self.kernel.counted().is_none() && !self.is_off();
        // Without a place for the marker there is no account.
        let accounts = if is_to_begin && !new.is_empty() { self.accounts().ok() } else { None };
        let Some(mut accounts) = accounts else { return self.load_all() };
        accounts.begin(&new);
        match self.kernel.remember(&accounts.to_string()) {
            Ok(()) => self.note_boot(),
            Err(error) => (self.tell)(&format!("the boot-loop guard cannot write its marker: {error}")),
        }
        let loaded = self.load_all();
        self.release_refused(&new);
        loaded
    }

    /// From now on this boot is on the accounts, or finished.
    fn note_boot(&mut self) {
        if let Err(error) = self.store.note_boot() {
            (self.tell)(&format!("{error:#}"));
        }
    }

    /// What the kernel has refused is not what a boot may fail of.
    fn release_refused(&mut self, patches: &[Identity]) {
        let Ok(mut accounts) = self.accounts() else { return };
        let refused = patches.iter().filter(|patch| !self.is_enabled(&patch.name) && !accounts.is_barred(patch));
        let names: Vec<ModuleName> = refused.map(|patch| patch.name.clone()).collect();
        if names.iter().filter(|name| accounts.close(name)).count() > 0
            && let Err(error) = self.kernel.remember(&accounts.to_string())
        {
            (self.tell)(&format!("the boot-loop guard cannot clear its marker: {error}"));
        }
    }

    /// Notes that the boot is finished: the patches that are enabled are sound. Gives those that had been on trial.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn boot_is_finished(&mut self) -> anyhow::Result<Vec<ModuleName>> {
        self.note_boot();
        // Where there is no marker, nothing is on trial.
        let Ok(mut accounts) = self.accounts() else { return Ok(Vec::new()) };
        let is_counted = self.kernel.counted().is_some_and(|boots| boots > 0);
        if accounts.is_empty() && !is_counted {
            return Ok(Vec::new());
        }
        // A kernel without live patches finishes its boot, too.
        let all = patches(self.kernel).or_else(|error| if is_counted { Ok(Vec::new()) } else { Err(error) })?;
        let enabled = all.into_iter().filter(|patch| patch.state == State::Enabled);
        let sound: Vec<ModuleName> = enabled.map(|patch| patch.name).filter(|name| accounts.close(name)).collect();
        if !sound.is_empty() || is_counted {
            self.kernel.remember(&accounts.to_string()).context("cannot clear the marker of the boot-loop guard")?;
        }
        Ok(sound)
    }

    /// Forgets what is on the account of a patch.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn forget(&mut self, name: &ModuleName) -> anyhow::Result<()> {
        self.clear(|accounts| accounts.close(name))
    }

    /// Forgets what is on the account of that file; another one of its name, for another kernel, keeps its own.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn forget_file(&mut self, patch: &Identity) -> anyhow::Result<()> {
        self.clear(|accounts| accounts.close_file(patch))
    }

    fn clear(&mut self, close: impl FnOnce(&mut Accounts) -> bool) -> anyhow::Result<()> {
        // Where there is no marker, there is nothing to forget.
        let Ok(mut accounts) = self.accounts() else { return Ok(()) };
        match close(&mut accounts) {
            true => {
                self.kernel.remember(&accounts.to_string()).context("cannot clear the marker of the boot-loop guard")
            }
            false => Ok(()),
        }
    }

    /// Puts what GRUB has counted on the accounts of what is installed, and has it count from nothing: what is installed from
    /// now on had no part in those boots, and what is uninstalled leaves its part to nobody.
    pub fn settle_count(&mut self) {
        if self.kernel.counted().is_none_or(|boots| boots == 0) {
            return;
        }
        let settled = self.accounts().and_then(|accounts| self.kernel.remember(&accounts.to_string()));
        if let Err(error) = settled {
            (self.tell)(&format!(
                "GRUB's count of the boots cannot be set back ({error}): until a boot is finished it is on the account of \
                 every patch"
            ));
        }
    }

    fn accounts(&self) -> io::Result<Accounts> {
        accounts(self.kernel, &self.store)
    }
}

/// What is on the accounts, GRUB's count among it.
pub(super) fn accounts(kernel: &dyn Kernel, store: &Store) -> io::Result<Accounts> {
    let mut accounts = kernel.remembered().map(|text| Accounts::parse(&text))?;
    if let Some(boots) = kernel.counted() {
        let installed = store.of(&kernel.release()?).unwrap_or_default();
        let patches: Vec<Identity> = installed.iter().filter_map(|patch| Identity::read(&patch.file).ok()).collect();
        accounts.count(&patches, boots);
    }
    Ok(accounts)
}
