//! Loads each module once, whoever asks for it.
//!
//! May surprise: the kernel is called in a thread of its own, and nobody waits for it longer than a driver may take. A driver
//! that is still starting then is *late*: what needs it fails for now, and everything else goes on. Should it come to an
//! end after all, the requests that were given up are made again.

use super::report::{Missing, Refused, Report, Stuck};
use super::{Modules, Refusal};
use crate::start;
use kdump_hooks::kmod::{Action, Ban, Config, Index, ModuleName, Plan, Reached, Step, plan};
use log::{debug, info, warn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a thread that only calls the kernel needs.
const STACK: usize = 128 << 10;
/// A machine has many devices; of those that nothing answers to, that many are told.
const MOST_MISSING: usize = 500;

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
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What has been or is being loaded.
    modules: BTreeMap<ModuleName, Progress>,
    /// Every alias that was asked for; each is handled once.
    requested: BTreeSet<String>,
    queue: VecDeque<Request>,
    /// Workers that are at a request.
    busy: usize,
    /// Requests that failed because a driver is late.
    given_up: Vec<Request>,
    report: Report,
}

/// What is asked for, and by whom.
#[derive(Clone, Debug)]
struct Request {
    alias: String,
    by: String,
}

#[derive(Clone, Debug)]
enum Progress {
    Loading { since: Instant, late: bool },
    Done(Result<(), String>),
}

/// Why a module is not there.
#[derive(Clone, Debug)]
enum Failure {
    /// It will not come.
    Refused(String),
    /// It, or what it needs, is still starting.
    Late(String),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Failure::Refused(reason) | Failure::Late(reason) => reason,
        }
    }
}

impl Loader {
    /// A loader of the modules below `tree`. A driver may take as long to start as `patience` is.
    pub fn new(tree: PathBuf, index: Index, config: Config, kernel: Box<dyn Modules>, patience: Duration) -> Loader {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Loader { shared: Arc::new(Shared { tree, index, config, kernel, patience, state, changed }) }
    }

    /// What the administrator says about modules.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What depmod knows of them.
    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// Starts `count` workers for [`Loader::request`].
    pub fn start(&self, count: usize) {
        for _ in 0..count {
            let loader = self.clone();
            if let Err(error) = start::in_thread("loader", move || loader.work()) {
                warn!("one module loader less: {error}");
            }
        }
    }

    /// Asks for an alias, such as the modalias of a device, or for a module by name. Handled by a worker, once.
    pub fn request(&self, alias: &str, by: &str) {
        let mut state = self.lock();
        if state.requested.insert(alias.to_owned()) {
            state.queue.push_back(Request { alias: alias.to_owned(), by: by.to_owned() });
            self.shared.changed.notify_all();
        }
    }

    /// Waits until no request is open. `false` if that takes longer than `limit`.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.queue.is_empty() || state.busy > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
        true
    }

    /// Loads a module by name or alias and waits for it. Built in or loaded already is a success.
    ///
    /// # Errors
    /// Nothing answers to that name, a blacklist stops it, the kernel refused it, or it does not come to an end.
    pub fn load(&self, request: &str, by: &str) -> Result<(), String> {
        self.load_or_fail(&Request { alias: request.to_owned(), by: by.to_owned() })
    }

    /// What became of the modules so far.
    pub fn report(&self) -> Report {
        let state = self.lock();
        let stuck = state.modules.iter().filter_map(|(name, at)| match at {
            Progress::Loading { since, .. } => Some(Stuck { name: name.clone(), seconds: since.elapsed().as_secs() }),
            Progress::Done(_) => None,
        });
        Report { stuck: stuck.collect(), ..state.report.clone() }
    }

    /// The modules that are being loaded at this moment.
    pub fn in_flight(&self) -> Vec<ModuleName> {
        self.report().stuck.into_iter().map(|stuck| stuck.name).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.shared.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let request = loop {
                match state.queue.pop_front() {
                    Some(request) => break request,
                    None => state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.busy += 1;
            drop(state);
            if let Err(reason) = self.load_or_fail(&request) {
                debug!("{}: {reason}", request.alias);
            }
            self.lock().busy -= 1;
            self.shared.changed.notify_all();
        }
    }

    fn load_or_fail(&self, request: &Request) -> Result<(), String> {
        let alias = &request.alias;
        match plan(&self.shared.index, &self.shared.config, alias) {
            Plan::BuiltIn => Ok(()),
            Plan::Unknown if self.shared.config.is_forbidden(&ModuleName::new(alias)) => {
                // The builder has left it out for that very reason.
                let name = ModuleName::new(alias);
                let reason = Ban::Explicit.reason(&name);
                let mut state = self.lock();
                if !state.modules.contains_key(&name) {
                    note(&mut state, &name, reason.clone());
                }
                Err(reason)
            }
            Plan::Unknown => {
                let missing = Missing { request: alias.clone(), asked_by: request.by.clone() };
                let mut state = self.lock();
                if state.report.missing.len() < MOST_MISSING && !state.report.missing.contains(&missing) {
                    state.report.missing.push(missing);
                }
                Err(format!("no module of this image answers to {alias}"))
            }
            Plan::Blacklisted(names) => {
                let mut state = self.lock();
                for name in &names {
                    if state.report.blacklisted.insert(name.clone()) {
                        info!("module {name} is blacklisted; {alias} does not load it");
                    }
                }
                Err(format!("{alias}: every module that answers is blacklisted"))
            }
            Plan::Load(steps) => self.walk(request, &steps),
        }
    }

    /// Takes the steps in order. Several modules may have been asked for: one that fails does not stop the others.
    fn walk(&self, request: &Request, steps: &[Step]) -> Result<(), String> {
        let mut failed: BTreeMap<&ModuleName, Failure> = BTreeMap::new();
        for step in steps {
            let needs = self.shared.index.get(&step.module).map(|file| file.needs.as_slice()).unwrap_or_default();
            let lacks = needs.iter().find_map(|need| failed.get(need).map(|failure| (need, failure)));
            if let Err(failure) = self.ensure(step, lacks) {
                failed.insert(&step.module, failure);
            }
        }
        if failed.values().any(|failure| matches!(failure, Failure::Late(_))) {
            self.lock().given_up.push(request.clone());
        }
        let asked = |step: &&Step| step.reached == Reached::Request;
        match steps.iter().filter(asked).find_map(|step| failed.get(&step.module).map(|failure| (step, failure))) {
            None => Ok(()),
            Some((step, failure)) if step.module.as_str() == request.alias => {
                Err(format!("module {}: {}", request.alias, failure.reason()))
            }
            Some((step, failure)) => Err(format!("module {} for {}: {}", step.module, request.alias, failure.reason())),
        }
    }

    /// Loads one module unless that has been done or is being done by somebody else. `lacks` is a module that it needs
    /// and that could not be loaded.
    fn ensure(&self, step: &Step, lacks: Option<(&ModuleName, &Failure)>) -> Result<(), Failure> {
        let name = &step.module;
        let mut state = self.lock();
        if !state.modules.contains_key(name) {
            if let Some((need, failure)) = lacks {
                let reason = format!("it needs {need}, which is not loaded: {}", failure.reason());
                return match failure {
                    // It may be had yet.
                    Failure::Late(_) => Err(Failure::Late(reason)),
                    Failure::Refused(_) => Err(Failure::Refused(note(&mut state, name, reason))),
                };
            }
            if let Some(outcome) = self.without_the_kernel(step) {
                if let Err(reason) = outcome {
                    return Err(Failure::Refused(note(&mut state, name, reason)));
                }
                state.modules.insert(name.clone(), Progress::Done(Ok(())));
                return Ok(());
            }
            state.modules.insert(name.clone(), Progress::Loading { since: Instant::now(), late: false });
            drop(state);
            self.call_the_kernel(step);
            state = self.lock();
        }
        loop {
            match state.modules.get_mut(name) {
                Some(Progress::Done(outcome)) => return outcome.clone().map_err(Failure::Refused),
                Some(Progress::Loading { since, late }) => {
                    let left = self.shared.patience.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        let seconds = since.elapsed().as_secs();
                        if !std::mem::replace(late, true) {
                            warn!("module {name} has been starting for {seconds} s; the others go on without it");
                        }
                        return Err(Failure::Late(format!("it is still starting after {seconds} s")));
                    }
                    state = self.wait(state, left);
                }
                None => return Err(Failure::Refused("its loading was lost".to_owned())),
            }
        }
    }

    /// What can be said of a module without loading it.
    fn without_the_kernel(&self, step: &Step) -> Option<Result<(), String>> {
        match &step.action {
            Action::Skip => Some(Ok(())),
            Action::Forbidden(ban) => Some(Err(ban.reason(&step.module))),
            Action::Load if self.shared.kernel.is_there(&step.module) => Some(Ok(())),
            Action::Load if self.shared.index.get(&step.module).is_none() => {
                Some(Err("it is not in this image".to_owned()))
            }
            Action::Load => None,
        }
    }

    /// Lets a thread of its own insert the module and note what came of it.
    fn call_the_kernel(&self, step: &Step) {
        let (loader, step) = (self.clone(), step.clone());
        let name = step.module.clone();
        let insert = move || {
            let outcome = match loader.shared.index.get(&step.module) {
                Some(file) => {
                    let path = loader.shared.tree.join(&file.path);
                    loader.shared.kernel.insert(&step.module, &path, &step.parameters)
                }
                None => Err(Refusal { reason: "it is not in this image".to_owned(), kernel: Vec::new() }),
            };
            loader.finish(&step.module, outcome);
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(insert) {
            note(&mut self.lock(), &name, format!("there can be no thread for it: {error}"));
        }
    }

    fn finish(&self, name: &ModuleName, outcome: Result<Vec<String>, Refusal>) {
        let mut state = self.lock();
        let (took, late) = match state.modules.get(name) {
            Some(Progress::Loading { since, late }) => (since.elapsed(), *late),
            _ => (Duration::ZERO, false),
        };
        match outcome {
            Ok(remarks) => {
                info!("module {name} loaded in {} ms", took.as_millis());
                for error in remarks {
                    warn!("module {name} is loaded, but: {error}");
                    state.report.remarks.push(Refused { name: name.clone(), error });
                }
                state.report.loaded.push(name.clone());
                state.modules.insert(name.clone(), Progress::Done(Ok(())));
            }
            Err(refusal) => {
                note(&mut state, name, refusal.to_string());
            }
        }
        if late {
            let again = std::mem::take(&mut state.given_up);
            state.queue.extend(again);
        }
        self.shared.changed.notify_all();
    }
}

/// Notes that a module is not loaded, and says why.
fn note(state: &mut State, name: &ModuleName, reason: String) -> String {
    warn!("module {name} is not loaded: {reason}");
    state.report.refused.push(Refused { name: name.clone(), error: reason.clone() });
    state.modules.insert(name.clone(), Progress::Done(Err(reason.clone())));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A kernel that takes every module but those that it is told to refuse.
    #[derive(Debug, Default)]
    struct FakeKernel {
        refuses: BTreeSet<&'static str>,
        hangs: BTreeSet<&'static str>,
        /// Ends every hang.
        released: Arc<AtomicBool>,
        /// What it says of each module that it takes.
        remarks: Vec<&'static str>,
        inserted: Arc<Mutex<Vec<String>>>,
    }

    impl Modules for FakeKernel {
        fn is_there(&self, name: &ModuleName) -> bool {
            name.as_str() == "there"
        }

        fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<Vec<String>, Refusal> {
            while self.hangs.contains(name.as_str()) && !self.released.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            if self.refuses.contains(name.as_str()) {
                return Err(Refusal { reason: "EINVAL".into(), kernel: vec!["it says why".into()] });
            }
            let line = format!("{} {parameters}", file.display());
            self.inserted.lock().unwrap().push(line.trim().to_owned());
            Ok(self.remarks.iter().map(|remark| (*remark).to_owned()).collect())
        }
    }

    /// What no thread of a test takes, however busy the machine is.
    const LONG: Duration = Duration::from_secs(60);

    fn loader(kernel: FakeKernel, modprobe_d: &str) -> Loader {
        patient(kernel, modprobe_d, LONG)
    }

    fn patient(kernel: FakeKernel, modprobe_d: &str, patience: Duration) -> Loader {
        let mut index = Index::default();
        index.add_dep("a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\nd.ko: c.ko there.ko\nthere.ko:\n");
        index.add_aliases("alias dev:a* a\nalias dev:d* d\nalias dev:* c\n");
        let mut config = Config::default();
        config.add(modprobe_d, "test");
        Loader::new("/m".into(), index, config, Box::new(kernel), patience)
    }

    #[test]
    fn each_module_is_inserted_once_however_many_devices_ask() {
        let inserted = Arc::default();
        let loader = loader(FakeKernel { inserted: Arc::clone(&inserted), ..FakeKernel::default() }, "options a x=1");
        loader.start(3);
        for _ in 0..3 {
            for alias in ["dev:a1", "dev:a2", "dev:d1"] {
                loader.request(alias, "a device");
            }
        }
        assert!(loader.wait_idle(LONG));
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
            assert_eq!(
                loader.load("a", "a test").unwrap_err(),
                "module a: it needs b, which is not loaded: EINVAL; the kernel says: it says why"
            );
        }
        assert_eq!(loader.load("d", "a test"), Ok(()));
        let report = loader.report();
        let refused: Vec<_> = report.refused.iter().map(|it| (it.name.as_str(), it.error.as_str())).collect();
        assert_eq!(
            refused,
            [
                ("b", "EINVAL; the kernel says: it says why"),
                ("a", "it needs b, which is not loaded: EINVAL; the kernel says: it says why")
            ]
        );
    }

    #[test]
    fn a_blacklist_keeps_a_device_from_its_driver_but_not_its_siblings() {
        let loader = loader(FakeKernel::default(), "blacklist a");
        loader.start(2);
        loader.request("dev:a1", "a device");
        loader.request("dev:d1", "a device");
        assert!(loader.wait_idle(LONG));
        let report = loader.report();
        assert!(!report.loaded.contains(&"a".into()));
        assert!(report.loaded.contains(&"d".into()) && report.loaded.contains(&"c".into()));
    }

    #[test]
    fn only_blacklisted_answers_are_reported_as_such() {
        let loader = loader(FakeKernel::default(), "blacklist a\nblacklist c");
        assert!(loader.load("dev:a1", "a test").unwrap_err().contains("blacklisted"));
        assert_eq!(loader.report().blacklisted, BTreeSet::from(["a".into(), "c".into()]));
    }

    #[test]
    fn a_forbidden_module_is_refused_with_the_line_that_forbids_it() {
        let loader = loader(FakeKernel::default(), "install c /bin/false");
        assert!(loader.load("c", "a test").unwrap_err().contains("install c /bin/false"));
    }

    #[test]
    fn a_forbidden_module_that_the_image_does_not_have_is_told_as_forbidden() {
        let mut config = Config::default();
        config.add_settings(&kdump_hooks::kmod::Settings { forbid: vec!["gone".into()] });
        let kernel = Box::new(FakeKernel::default());
        let loader = Loader::new("/m".into(), Index::default(), config, kernel, LONG);
        for _ in 0..2 {
            assert!(loader.load("gone", "a test").unwrap_err().contains("gone is forbidden"));
        }
        let report = loader.report();
        assert!(report.missing.is_empty() && report.refused.len() == 1, "{report:?}");
    }

    #[test]
    fn forbid_stops_those_who_need_the_module_and_says_so() {
        let kernel = FakeKernel::default();
        let mut config = Config::default();
        config.add_settings(&kdump_hooks::kmod::Settings { forbid: vec!["b".into()] });
        let mut index = Index::default();
        index.add_dep("a.ko: b.ko\nb.ko:\n");
        let loader = Loader::new("/m".into(), index, config, Box::new(kernel), Duration::from_secs(10));
        let error = loader.load("a", "a test").unwrap_err();
        assert!(error.contains("it needs b") && error.contains("rd.kdump.forbid="), "{error}");
    }

    #[test]
    fn a_driver_that_hangs_holds_those_who_need_it_and_nobody_else() {
        let released = Arc::default();
        let kernel = FakeKernel { hangs: ["b"].into(), released: Arc::clone(&released), ..FakeKernel::default() };
        let loader = patient(kernel, "", Duration::from_millis(200));
        loader.start(1);
        for alias in ["b", "dev:a1", "dev:a2", "dev:d1"] {
            loader.request(alias, "a device");
        }
        // Where the machine is busy, even a driver that does not hang may be late.
        wait_until(|| loader.in_flight() == [ModuleName::new("b")] && loader.report().loaded.contains(&"d".into()));
        assert!(loader.wait_idle(LONG));
        assert!(loader.report().refused.is_empty());
        assert!(
            loader.load("a", "a test").unwrap_err().contains("it needs b, which is not loaded: it is still starting")
        );

        released.store(true, Ordering::Relaxed);
        wait_until(|| loader.report().loaded.contains(&"a".into()));
        wait_until(|| loader.report().stuck.is_empty());
    }

    #[track_caller]
    fn wait_until(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so() {
            assert!(Instant::now() < deadline, "it never came to that");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_the_image_lacks_is_told_once_with_who_asked() {
        let loader = loader(FakeKernel::default(), "");
        for _ in 0..2 {
            assert!(loader.load("fs-nosuch", "mount").is_err());
        }
        let missing = Missing { request: "fs-nosuch".to_owned(), asked_by: "mount".to_owned() };
        assert_eq!(loader.report().missing, [missing]);
    }

    #[test]
    fn what_the_kernel_ignores_is_told_although_the_module_is_loaded() {
        let kernel = FakeKernel { remarks: vec!["unknown parameter"], ..FakeKernel::default() };
        let loader = loader(kernel, "");
        assert_eq!(loader.load("c", "a test"), Ok(()));
        assert_eq!(loader.report().remarks, [Refused { name: "c".into(), error: "unknown parameter".to_owned() }]);
    }
}
