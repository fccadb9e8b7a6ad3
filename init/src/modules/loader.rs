//! Loads each module once, whoever asks for it.

use super::{Modules, Refusal};
use kdump_hooks::kmod::{Action, Config, Index, ModuleName, Plan, Reached, Step, plan};
use log::{debug, info, warn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What became of the modules, for `status.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Loaded modules, in the order in which the kernel took them.
    pub loaded: Vec<ModuleName>,
    /// Modules that could not be loaded.
    pub refused: Vec<Refused>,
    /// Modules that a device asked for and a blacklist kept out.
    pub blacklisted: BTreeSet<ModuleName>,
}

/// A module that could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The module.
    pub name: ModuleName,
    /// Why.
    pub error: String,
}

/// Loads modules. Clones share their work.
#[derive(Clone, Debug)]
pub struct Loader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `/lib/modules/KVER`.
    tree: PathBuf,
    index: Index,
    config: Config,
    kernel: Box<dyn Modules>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What has been or is being loaded.
    modules: BTreeMap<ModuleName, Progress>,
    /// Every alias that was asked for; each is handled once.
    requested: BTreeSet<String>,
    queue: VecDeque<String>,
    /// Workers that are at a request.
    busy: usize,
    report: Report,
}

#[derive(Clone, Debug)]
enum Progress {
    Loading,
    Done(Result<(), String>),
}

impl Loader {
    /// A loader of the modules below `tree`.
    pub fn new(tree: PathBuf, index: Index, config: Config, kernel: Box<dyn Modules>) -> Loader {
        let shared = Shared { tree, index, config, kernel, state: Mutex::default(), changed: Condvar::new() };
        Loader { shared: Arc::new(shared) }
    }

    /// Starts `count` workers for [`Loader::request`].
    pub fn start(&self, count: usize) {
        for _ in 0..count {
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || shared.work());
        }
    }

    /// Asks for an alias, such as the modalias of a device. Handled by a worker, once.
    pub fn request(&self, alias: &str) {
        let mut state = self.shared.lock();
        if state.requested.insert(alias.to_owned()) {
            state.queue.push_back(alias.to_owned());
            self.shared.changed.notify_all();
        }
    }

    /// Waits until no request is open. `false` if that takes longer than `limit`.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.queue.is_empty() || state.busy > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Loads a module by name or alias and waits for it. Built in or loaded already is a success.
    ///
    /// # Errors
    /// Nothing answers to that name, a blacklist stops it, or the kernel refused it.
    pub fn load(&self, request: &str) -> Result<(), String> {
        self.shared.load(request)
    }

    /// What became of the modules so far.
    pub fn report(&self) -> Report {
        self.shared.lock().report.clone()
    }

    /// The modules that are being loaded at this moment.
    pub fn in_flight(&self) -> Vec<ModuleName> {
        let state = self.shared.lock();
        state.modules.iter().filter(|(_, at)| matches!(at, Progress::Loading)).map(|(name, _)| name.clone()).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let alias = loop {
                match state.queue.pop_front() {
                    Some(alias) => break alias,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.busy += 1;
            drop(state);
            if let Err(reason) = self.load(&alias) {
                debug!("{alias}: {reason}");
            }
            self.lock().busy -= 1;
            self.changed.notify_all();
        }
    }

    fn load(&self, request: &str) -> Result<(), String> {
        match plan(&self.index, &self.config, request) {
            Plan::BuiltIn => Ok(()),
            Plan::Unknown => Err(format!("no module of this image answers to {request}")),
            Plan::Blacklisted(names) => {
                let mut state = self.lock();
                for name in &names {
                    if state.report.blacklisted.insert(name.clone()) {
                        info!("module {name} is blacklisted; {request} does not load it");
                    }
                }
                Err(format!("{request}: every module that answers is blacklisted"))
            }
            Plan::Load(steps) => self.walk(request, &steps),
        }
    }

    /// Takes the steps in order. Several modules may have been asked for: one that fails does not stop the others.
    fn walk(&self, request: &str, steps: &[Step]) -> Result<(), String> {
        let mut failed: BTreeMap<&ModuleName, String> = BTreeMap::new();
        for step in steps {
            let needs = self.index.get(&step.module).map(|file| file.needs.as_slice()).unwrap_or_default();
            let lacks = needs.iter().find(|need| failed.contains_key(need));
            if let Err(reason) = self.ensure(step, lacks) {
                failed.insert(&step.module, reason);
            }
        }
        let asked = |step: &&Step| step.reached == Reached::Request;
        match steps.iter().filter(asked).find_map(|step| failed.get(&step.module).map(|reason| (step, reason))) {
            None => Ok(()),
            Some((step, reason)) if step.module.as_str() == request => Err(format!("module {request}: {reason}")),
            Some((step, reason)) => Err(format!("module {} for {request}: {reason}", step.module)),
        }
    }

    /// Loads one module unless that has been done or is being done by somebody else. `lacks` is a module that it needs
    /// and that could not be loaded.
    fn ensure(&self, step: &Step, lacks: Option<&ModuleName>) -> Result<(), String> {
        let name = &step.module;
        let mut state = self.lock();
        loop {
            match state.modules.get(name) {
                Some(Progress::Done(outcome)) => return outcome.clone(),
                Some(Progress::Loading) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        state.modules.insert(name.clone(), Progress::Loading);
        drop(state);
        let outcome = match lacks {
            Some(need) => Err(self.note_refusal(name, format!("it needs {need}, which is not loaded"))),
            None => self.insert(step),
        };
        self.lock().modules.insert(name.clone(), Progress::Done(outcome.clone()));
        self.changed.notify_all();
        outcome
    }

    fn insert(&self, step: &Step) -> Result<(), String> {
        let name = &step.module;
        match &step.action {
            Action::Skip => return Ok(()),
            Action::Forbidden(ban) => {
                return Err(self.note_refusal(name, ban.reason(name)));
            }
            Action::Load => {}
        }
        if self.kernel.is_there(name) {
            return Ok(());
        }
        let Some(file) = self.index.get(name) else {
            return Err(self.note_refusal(name, "it is not in this image".to_owned()));
        };
        let started = Instant::now();
        match self.kernel.insert(name, &self.tree.join(&file.path), &step.parameters) {
            Ok(()) => {
                info!("module {name} loaded in {} ms", started.elapsed().as_millis());
                self.lock().report.loaded.push(name.clone());
                Ok(())
            }
            Err(refusal) => Err(self.note_refusal(name, Refusal::to_string(&refusal))),
        }
    }

    fn note_refusal(&self, name: &ModuleName, error: String) -> String {
        warn!("module {name} is not loaded: {error}");
        self.lock().report.refused.push(Refused { name: name.clone(), error: error.clone() });
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A kernel that takes every module but those that it is told to refuse.
    #[derive(Debug, Default)]
    struct FakeKernel {
        refuses: BTreeSet<&'static str>,
        hangs: BTreeSet<&'static str>,
        inserted: Arc<Mutex<Vec<String>>>,
    }

    impl Modules for FakeKernel {
        fn is_there(&self, name: &ModuleName) -> bool {
            name.as_str() == "there"
        }

        fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<(), Refusal> {
            while self.hangs.contains(name.as_str()) {
                thread::sleep(Duration::from_secs(3600));
            }
            if self.refuses.contains(name.as_str()) {
                return Err(Refusal { reason: "EINVAL".into(), kernel: vec!["it says why".into()] });
            }
            let line = format!("{} {parameters}", file.display());
            self.inserted.lock().unwrap().push(line.trim().to_owned());
            Ok(())
        }
    }

    fn loader(kernel: FakeKernel, modprobe_d: &str) -> Loader {
        let mut index = Index::default();
        index.add_dep("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\nd.ko: c.ko there.ko\nthere.ko:\n");
        index.add_aliases("alias dev:a* a\nalias dev:d* d\nalias dev:* c\n");
        let mut config = Config::default();
        config.add(modprobe_d, "test");
        Loader::new("/m".into(), index, config, Box::new(kernel))
    }

    #[test]
    fn each_module_is_inserted_once_however_many_devices_ask() {
        let inserted = Arc::default();
        let loader = loader(FakeKernel { inserted: Arc::clone(&inserted), ..FakeKernel::default() }, "options a x=1");
        loader.start(3);
        for _ in 0..3 {
            for alias in ["dev:a1", "dev:a2", "dev:d1"] {
                loader.request(alias);
            }
        }
        assert!(loader.wait_idle(Duration::from_secs(10)));
        let lines = inserted.lock().unwrap().clone();
        let at = |line: &str| lines.iter().position(|have| have == line).unwrap();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(at("/m/c.ko") < at("/m/b.ko") && at("/m/b.ko") < at("/m/a.ko x=1"));
        assert!(at("/m/c.ko") < at("/m/d.ko"));
    }

    #[test]
    fn a_refused_module_costs_those_who_need_it_and_nobody_else() {
        let loader = loader(FakeKernel { refuses: ["b"].into(), ..FakeKernel::default() }, "");
        for _ in 0..3 {
            assert_eq!(loader.load("a").unwrap_err(), "module a: it needs b, which is not loaded");
        }
        assert_eq!(loader.load("d"), Ok(()));
        let report = loader.report();
        let refused: Vec<_> = report.refused.iter().map(|it| (it.name.as_str(), it.error.as_str())).collect();
        assert_eq!(refused, [("b", "EINVAL; the kernel says: it says why"), ("a", "it needs b, which is not loaded")]);
    }

    #[test]
    fn a_blacklist_keeps_a_device_from_its_driver_but_not_its_siblings() {
        let loader = loader(FakeKernel::default(), "blacklist a");
        loader.start(2);
        loader.request("dev:a1");
        loader.request("dev:d1");
        assert!(loader.wait_idle(Duration::from_secs(10)));
        let report = loader.report();
        assert!(!report.loaded.contains(&"a".into()));
        assert!(report.loaded.contains(&"d".into()) && report.loaded.contains(&"c".into()));
    }

    #[test]
    fn only_blacklisted_answers_are_reported_as_such() {
        let loader = loader(FakeKernel::default(), "blacklist a\nblacklist c");
        assert!(loader.load("dev:a1").unwrap_err().contains("blacklisted"));
        assert_eq!(loader.report().blacklisted, BTreeSet::from(["a".into(), "c".into()]));
    }

    #[test]
    fn a_forbidden_module_is_refused_with_the_line_that_forbids_it() {
        let loader = loader(FakeKernel::default(), "install c /bin/false");
        assert!(loader.load("c").unwrap_err().contains("install c /bin/false"));
    }

    #[test]
    fn a_driver_that_hangs_does_not_hold_the_others() {
        let loader = loader(FakeKernel { hangs: ["b"].into(), ..FakeKernel::default() }, "");
        loader.start(2);
        loader.request("dev:a1");
        loader.request("dev:d1");
        assert!(!loader.wait_idle(Duration::from_millis(300)));
        assert_eq!(loader.in_flight(), [ModuleName::new("b")]);
        assert!(loader.report().loaded.contains(&"d".into()));
    }
}
