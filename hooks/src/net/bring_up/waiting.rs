//! Waiting: for whatever the kernel may have a moment later, and for carriers.
//!
//! In: a question to the kernel. Out: its answer, or none within the limit. May surprise: no wait outlasts the network's
//! own limit, whatever it is told; each says every few seconds what it waits for.

use super::{LOOK_AGAIN, Site};
use crate::net::kernel::{Link, Net};
use crate::net::model::{EVERY, Interface};
use log::warn;
use std::time::Duration;

/// How often a wait says that it is still waiting.
const SAY_SO: Duration = Duration::from_secs(5);
/// When one of several cards has a carrier, the others have so long to get theirs.
const STRAGGLERS: Duration = Duration::from_secs(2);

impl Site<'_> {
    /// Waits until `ready` has something, at most `seconds`, saying what for.
    pub(super) fn wait<T>(
        &mut self,
        seconds: u64,
        what: &str,
        mut ready: impl FnMut(&mut dyn Net) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let began = self.net.now();
        let limit = Duration::from_secs(seconds).min(self.end.saturating_sub(began));
        let mut said = began;
        loop {
            if let Some(found) = ready(self.net)? {
                return Ok(Some(found));
            }
            let now = self.net.now();
            if now.saturating_sub(began) >= limit {
                return Ok(None);
            }
            if now.saturating_sub(said) >= SAY_SO {
                said = now;
                warn!("network: waiting for {what}, {} of {} s", now.saturating_sub(began).as_secs(), limit.as_secs());
            }
            self.net.pause(LOOK_AGAIN);
        }
    }

    /// Waits until all cards that are named have a carrier, and one of those that are not.
    pub(super) fn await_carriers(&mut self, order: &[&Interface]) {
        let seconds = self.network.waits.carrier;
        let named = order.iter().filter(|interface| interface.name != EVERY && interface.is_addressed());
        let named: Vec<Link> = named.filter_map(|interface| self.links.get(&interface.name)).cloned().collect();
        let of: Vec<&str> = named.iter().map(|link| link.name.as_str()).collect();
        let waited = self.wait(seconds, &format!("a carrier of {}", of.join(" and ")), |net| {
            let links = net.links()?;
            let runs = |one: &Link| links.iter().any(|link| link.index == one.index && link.is_running);
            Ok(named.iter().all(runs).then_some(()))
        });
        match waited {
            Ok(Some(())) => {}
            Ok(None) => {
                let links = self.net.links().unwrap_or_default();
                for link in named.iter().filter(|one| links.iter().any(|now| now.index == one.index && !now.is_running))
                {
                    self.problems
                        .push(format!("{} has had no carrier for {seconds} s; is its cable plugged in?", link.name));
                }
            }
            Err(error) => self.problem("carriers", &error),
        }
        if order.iter().any(|interface| interface.name == EVERY) {
            let free: Vec<u32> = self.free_cards().iter().map(|link| link.index).collect();
            let what = format!("a carrier of any of {} network cards", free.len());
            let running = |net: &mut dyn Net| -> anyhow::Result<usize> {
                Ok(net.links()?.iter().filter(|link| link.is_running && free.contains(&link.index)).count())
            };
            match self.wait(seconds, &what, |net| Ok((running(net)? > 0).then_some(()))) {
                Ok(Some(())) if free.len() > 1 => {
                    let _ =
                        self.wait(STRAGGLERS.as_secs(), &what, |net| Ok((running(net)? == free.len()).then_some(())));
                }
                Ok(_) => {}
                Err(error) => self.problem("carriers", &error),
            }
        }
    }
}
