//! Devices without udev: what asks for modules, and where the target is.
//!
//! ```text
//!   netlink uevents ─┬▶ MODALIAS ──▶ Loader::request        subscribed before the walk, so nothing is missed
//!   /sys/devices ────┘
//!   /sys/class/block + superblocks + partition tables ─▶ find(UUID=, PARTUUID=, /dev/…) ◀─ woken by block uevents
//! ```

mod coldplug;
mod content;
mod find;
mod partition;
mod superblock;
mod uevent;

pub use coldplug::modaliases;
pub use content::{content, has_partitions};
pub use find::Finder;
pub use partition::{Partition, partition};
pub use superblock::{Superblock, probe};
pub use uevent::Uevent;

use crate::modules::Loader;
use crate::start;
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
use log::{info, warn};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the wait for a device looks again without having been woken: devices may become readable late.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often the wait says that it is still waiting.
const SAY_SO: Duration = Duration::from_secs(5);

/// The devices of this machine.
#[derive(Debug, Default)]
pub struct Devices {
    /// Counts block uevents.
    news: Arc<(Mutex<u64>, Condvar)>,
}

impl Devices {
    /// Begins to listen for uevents, then walks over what is there already; every modalias goes to `loader`.
    ///
    /// # Errors
    /// The kernel's events cannot be subscribed to. What is there already has been walked all the same.
    pub fn watch(loader: &Loader) -> (Devices, anyhow::Result<()>) {
        let devices = Devices { news: Arc::default() };
        let listener = uevent::Listener::open().context("cannot subscribe to the kernel's device events");
        let subscribed = listener.and_then(|listener| {
            let (loader, news) = (loader.clone(), Arc::clone(&devices.news));
            let listen = start::in_thread("uevents", move || {
                while let Some(event) = listener.next() {
                    if let Some(alias) = event.modalias() {
                        loader.request(alias, &format!("/sys{}", event.device()));
                    }
                    if event.is_block() {
                        *news.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                        news.1.notify_all();
                    }
                }
            });
            listen.context("cannot listen to the kernel's device events")
        });
        for (alias, device) in modaliases(Path::new("/sys/devices")) {
            loader.request(&alias, &device.to_string_lossy());
        }
        (devices, subscribed)
    }

    /// Waits until `spec` is there.
    ///
    /// # Errors
    /// It did not appear within `limit`; what is there instead is named.
    pub fn wait_for(&self, spec: &DeviceSpec, limit: Duration) -> anyhow::Result<PathBuf> {
        self.wait(spec, limit, |finder| finder.find(spec).ok_or(())).or_else(|()| missing(spec, limit))
    }

    /// Waits until `count` devices are there that `spec` names, or as many as their superblock wants; gives those that
    /// are there at the end.
    ///
    /// # Errors
    /// None appeared within `limit`; what is there instead is named.
    pub fn wait_for_members(
        &self,
        spec: &DeviceSpec,
        count: Option<u64>,
        limit: Duration,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let look = |finder: &mut Finder| {
            let (nodes, wanted) = finder.find_all(spec);
            if nodes.len() as u64 >= count.unwrap_or(wanted).max(1) { Ok(nodes) } else { Err(nodes) }
        };
        match self.wait(spec, limit, look) {
            Ok(nodes) => Ok(nodes),
            Err(nodes) if nodes.is_empty() => missing(spec, limit),
            Err(nodes) => {
                warn!("of {spec} there is only {}, after {} s", nodes.len(), limit.as_secs());
                Ok(nodes)
            }
        }
    }

    /// Looks again and again until the look is content, or the time is over; the last look's answer.
    fn wait<T, E>(
        &self,
        spec: &DeviceSpec,
        limit: Duration,
        look: impl Fn(&mut Finder) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let mut said = start;
        let mut seen = 0;
        let mut finder = finder();
        loop {
            let answer = look(&mut finder);
            if answer.is_ok() {
                info!("{spec} is there, found after {:.1} s", start.elapsed().as_secs_f32());
                return answer;
            }
            if start.elapsed() >= limit {
                return answer;
            }
            if said.elapsed() >= SAY_SO {
                said = Instant::now();
                warn!("waiting for {spec}, {} of {} s", start.elapsed().as_secs(), limit.as_secs());
            }
            let nap = LOOK_AGAIN.min(limit.saturating_sub(start.elapsed()));
            let count = self.news.0.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.news.1.wait_timeout_while(count, nap, |count| *count == seen);
            seen = *waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn missing<T>(spec: &DeviceSpec, limit: Duration) -> anyhow::Result<T> {
    let there = finder().inventory();
    let there = if there.is_empty() { "no block device".to_owned() } else { there.join(", ") };
    bail!("{spec} did not appear within {} s; there is: {there}", limit.as_secs());
}

fn finder() -> Finder {
    Finder::new(Path::new("/sys/class/block"), Path::new("/dev"))
}
