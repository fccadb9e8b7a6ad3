//! The story: what happens between the panic and the reboot, in order. This is the worker's whole life.
//!
//! [`main`] sets the machine up (early, modules, devices); `dump` does what the image is for, against any
//! [`Machine`], target by target, until one has a complete dump. Where nothing has crashed, [`normal`] mounts the root
//! of a system instead.

use crate::beat::{Beat, Pulse, ToSupervisor};
use crate::collect::Collection;
use crate::config::{self, ImageConfig, Limits};
use crate::devices::Devices;
use crate::dump_dir::DumpDir;
use crate::kmsg::{self, KernelLog};
use crate::modules::{self, Loader};
use crate::normal::{self, Mode};
use crate::status::{self, FileReport, Legacy, Outcome, Status, TargetReport};
use crate::sys::{self, CaptureMachine, LinuxModules, LinuxNet};
use anyhow::{Context, anyhow, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::{Config, Index};
use kdump_hooks::{Destination, Machine, Moment, Next, Stage, Target};
use log::{error, info, warn};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// How PID 1 calls the worker.
pub const ROLE: &str = "worker";

/// The names of the files in a dump directory, in order of writing.
const LOG: &str = "vmcore-dmesg.txt";
const VMCORE: &str = "vmcore";
const ENVIRONMENT_LOG: &str = "kexec-dmesg.log";

/// A local dump is named after this address, as kdump always has.
const LOCAL: &str = "127.0.0.1";

/// How many modules are loaded at the same time. Each is held in memory as a whole while it is loaded.
const LOADERS: usize = 3;

/// How much longer than one driver may take modules are waited for that no device asks for.
const MARGIN: Duration = Duration::from_secs(30);

/// Where things are in the image.
#[derive(Clone, Debug)]
pub struct Places {
    /// In front of every destination; `/` but for tests.
    pub root: PathBuf,
    /// The old kernel's memory.
    pub vmcore: PathBuf,
    /// Our own collector.
    pub collector: PathBuf,
    /// For files that live as long as this boot.
    pub state: PathBuf,
}

impl Places {
    /// Those of every image.
    pub fn real() -> Places {
        Places {
            root: "/".into(),
            vmcore: "/proc/vmcore".into(),
            collector: "/usr/bin/kdump-capture".into(),
            state: "/run/kdump".into(),
        }
    }
}

/// Entry of the worker process.
pub fn main() -> ExitCode {
    kmsg::install();
    sys::spare_this_process();
    std::panic::set_hook(Box::new(|panic| error!("the worker has a bug: {panic}")));
    let last_word = boot().unwrap_or_else(|error| Beat::Failed(format!("{error:#}")));
    let is_well = !matches!(last_word, Beat::Failed(_));
    ToSupervisor.beat(last_word);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sets the machine up and dumps, or mounts the root of a system; gives the worker's last word.
fn boot() -> anyhow::Result<Beat> {
    let places = Places::real();
    let release = nix::sys::utsname::uname().context("uname")?.release().to_string_lossy().into_owned();
    let mode = Mode::of(&places.vmcore);
    let mut run = Run::new(Status::new(release.clone()), places, Box::new(ToSupervisor));
    run.status.memory.available_first = sys::memory_available().unwrap_or_default();

    let mut config = None;
    run.stage(Stage::Early, Duration::from_secs(30), |run| {
        fs::create_dir_all(&run.places.state).context("cannot make the state directory")?;
        config = Some(ImageConfig::read(Path::new(config::PATH))?);
        let which = if mode == Mode::Capture { "capture kernel" } else { "normal boot, kernel" };
        info!("kdump-rs {}, {which} {release}", env!("CARGO_PKG_VERSION"));
        Ok(())
    })?;
    let mut config = config.context("no image configuration")?;
    if mode == Mode::Normal {
        if config.normal.is_none() {
            bail!(
                "there is no {}: this kernel was not started by a panic, and its image is not for a normal boot \
                 (mkdumprd --normal)",
                run.places.vmcore.display()
            );
        }
        normal::begin(&command_line());
    }
    if mode == Mode::Capture || !normal::flag(&command_line(), "rd.earlykdump") {
        config.hooks.early_kdump = None;
    }
    run.status.ending = Some(config.endings.failure_action);
    if config.kernel_release != release {
        error!(
            "the image has the modules of {}, this kernel is {release}; only what is built in will work: rebuild it \
             with mkdumprd --kver {release}",
            config.kernel_release
        );
    }

    let mut loader = None;
    let limit = config.limits.stage();
    config.limits.follow(&command_line());
    let settled = config.limits.driver() + MARGIN;
    run.stage(Stage::Modules, limit + settled, |_| {
        let made = loader_of_this_image()?;
        modules::complain(&made);
        made.start(LOADERS);
        sys::make_device_nodes(Path::new("/dev"), made.index().nodes());
        modules::load_without_devices(&made, &command_line());
        settle(&made, settled);
        loader = Some(made);
        Ok(())
    })?;
    let loader = loader.context("no module loader")?;

    let mut devices = None;
    run.stage(Stage::Devices, limit + config.limits.device() + settled, |_| {
        let (watched, subscribed) = Devices::watch(&loader);
        devices = Some(watched);
        settle(&loader, config.limits.device());
        modules::load_last(&loader);
        settle(&loader, settled);
        subscribed
    })
    .unwrap_or_else(|error| warn!("{error:#}"));
    let devices = devices.context("no device watch")?;

    // Should the worker die, the aftermath has this much to tell.
    run.status.modules = loader.report();
    let net = LinuxNet::default();
    let mut machine = CaptureMachine { loader: loader.clone(), devices, net, patience: limit };
    for stage in [Stage::Early, Stage::Modules, Stage::Devices, Stage::Network] {
        act(&mut run, &config, stage, &mut machine);
    }
    let state = run.places.state.clone();
    if mode == Mode::Normal {
        // What the image lacks may be why there is no root.
        return mount_root(&mut run, &config, &mut machine).inspect_err(|_| loader.report().with_journal(&state).say());
    }
    Ok(dump(&mut run, &config, &mut machine, &mut |status| {
        status.modules = loader.report().with_journal(&state);
        status.modules.say();
    }))
}

/// The last stage of a normal boot.
fn mount_root(run: &mut Run, config: &ImageConfig, machine: &mut dyn Machine) -> anyhow::Result<Beat> {
    let cmdline = command_line();
    let known = config.normal.clone().unwrap_or_default();
    let request = normal::Request::of(&cmdline, &known, config.limits.device())?;
    let mut init = String::new();
    run.stage(Stage::Root, request.limit + config.limits.stage(), |_| {
        init = normal::prepare(&request, machine, Path::new(normal::SYSROOT), &normal::types_on)?;
        Ok(())
    })?;
    Ok(Beat::Ready(init))
}

/// Waits for the modules that have been asked for. A driver that takes long is no reason not to look for the target.
fn settle(loader: &Loader, limit: Duration) {
    if !loader.wait_idle(limit) {
        let late: Vec<String> = loader.in_flight().iter().map(ToString::to_string).collect();
        warn!("still loading: {}; going on without waiting", late.join(", "));
    }
}

/// The loader of the modules in the image that is running.
///
/// # Errors
/// The image has no module index, or a configuration that cannot be read.
pub fn loader_of_this_image() -> anyhow::Result<Loader> {
    let release = nix::sys::utsname::uname().context("uname")?.release().to_string_lossy().into_owned();
    let tree = Path::new("/lib/modules").join(release);
    // An image for a kernel that has everything built in needs no modules.
    let index = if tree.exists() { Index::read(&tree)? } else { Index::default() };
    let mut config = Config::read(Path::new("/"))?;
    config.add_cmdline(&command_line());
    // A configuration that cannot be read has been told elsewhere.
    if let Ok(image) = ImageConfig::read(Path::new(config::PATH)) {
        config.add_settings(&image.hooks.modules);
    }
    Ok(Loader::new(tree, index, config, Box::new(LinuxModules), limits_of_this_image().driver()))
}

/// The limits of the image that is running, as the kernel command line has them.
pub fn limits_of_this_image() -> Limits {
    let mut limits = ImageConfig::read(Path::new(config::PATH)).map(|image| image.limits).unwrap_or_default();
    limits.follow(&command_line());
    limits
}

fn command_line() -> Cmdline {
    Cmdline::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// A boot under way.
struct Run {
    status: Status,
    places: Places,
    pulse: Box<dyn Pulse>,
    /// The target in hand.
    target: Option<String>,
    dump_dir: Option<DumpDir>,
    /// Whether the hooks have acted that do so once, before the first dump and after the first failure.
    pre_done: bool,
    emergency_done: bool,
}

impl Run {
    fn new(status: Status, places: Places, pulse: Box<dyn Pulse>) -> Run {
        Run { status, places, pulse, target: None, dump_dir: None, pre_done: false, emergency_done: false }
    }

    /// How things stand.
    fn moment(&self, stage: Stage, limit: Duration, outcome: Option<Outcome>) -> Moment {
        Moment {
            kernel_release: self.status.capture_kernel.clone(),
            target: self.target.clone(),
            dump_dir: self.dump_dir.as_ref().map(|dir| dir.path().to_owned()),
            outcome,
            reason: outcome.and(self.status.reason.clone()),
            ..Moment::at(stage, limit)
        }
    }

    /// Does one stage: announced, timed, noted.
    fn stage(
        &mut self,
        stage: Stage,
        limit: Duration,
        work: impl FnOnce(&mut Run) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.pulse.beat(Beat::Stage(stage.name().to_owned(), limit));
        self.leave_legacy(Some(stage));
        let start = Instant::now();
        let outcome = work(self);
        let took = start.elapsed();
        let available = sys::memory_available().unwrap_or_default();
        match &outcome {
            Ok(()) => info!("stage {stage} done in {:.2} s, {} MiB available", took.as_secs_f32(), available / 1024),
            Err(error) => error!("stage {stage} failed after {:.2} s: {error:#}", took.as_secs_f32()),
        }
        self.status.stage(stage, took, &outcome, available);
        self.leave_legacy(None);
        outcome
    }

    fn leave_legacy(&self, stage: Option<Stage>) {
        let legacy = Legacy {
            status: self.status.clone(),
            stage: stage.map(|stage| (stage.name().to_owned(), SystemTime::now())),
            target: self.target.clone(),
            dump_dir: self.dump_dir.as_ref().map(|dir| dir.path().to_owned()),
        };
        legacy.save(&self.places.state);
    }
}

/// Lets the hooks act that have something to do at `stage`; what one cannot do stops nothing.
fn act(run: &mut Run, config: &ImageConfig, stage: Stage, machine: &mut dyn Machine) -> Next {
    act_knowing(run, config, stage, None, machine)
}

/// As [`act`], when it is known how the dump came out. The first reason to stop is the one that counts.
fn act_knowing(
    run: &mut Run,
    config: &ImageConfig,
    stage: Stage,
    outcome: Option<Outcome>,
    machine: &mut dyn Machine,
) -> Next {
    // What waits for devices is not to wait longer than the target would.
    let limit = if stage == Stage::Devices { config.limits.device() } else { config.limits.stage() };
    let moment = run.moment(stage, limit, outcome);
    let mut next = Next::GoOn;
    for hook in config.hooks.hooks().into_iter().filter(|hook| hook.stages().contains(&stage)) {
        let acted = run.stage(stage, limit + config.limits.stage(), |_| {
            match hook.act(&moment, machine).context(hook.name())? {
                Next::Stop(reason) if next == Next::GoOn => {
                    next = Next::Stop(reason.clone());
                    bail!("{reason}")
                }
                _ => Ok(()),
            }
        });
        acted.unwrap_or_else(|error| warn!("{error:#}"));
    }
    next
}

/// What came of one target.
enum Came {
    /// A complete dump is on it.
    Complete,
    /// A complete dump is on it, and yet it counts as failed: why.
    Spoilt(String),
    /// No dump is wanted: why.
    Declined(String),
}

/// Tries target by target until one has a complete dump, and gives the worker's last word. `last_words` may add to the
/// status before it is written.
fn dump(
    run: &mut Run,
    config: &ImageConfig,
    machine: &mut dyn Machine,
    last_words: &mut dyn FnMut(&mut Status),
) -> Beat {
    let mut reasons = Vec::new();
    let mut targets = config.hooks.targets.iter().peekable();
    while let Some(target) = targets.next() {
        if target.hook().is_last_resort() && !reasons.is_empty() {
            run.status.reason = Some(reasons.join("; "));
            emergency(run, config, machine);
        }
        let came = dump_to(run, config, target, machine, last_words);
        let error = match &came {
            Ok(Came::Complete) => None,
            Ok(Came::Spoilt(reason) | Came::Declined(reason)) => Some(reason.clone()),
            Err(error) => Some(format!("{error:#}")),
        };
        run.status.targets.push(target_report(target, error.as_deref()));
        match came {
            Ok(Came::Complete) => {
                run.status.outcome = Outcome::Complete;
                return Beat::Complete;
            }
            Ok(Came::Spoilt(reason)) => {
                emergency(run, config, machine);
                return Beat::Failed(reason);
            }
            Ok(Came::Declined(reason)) => return Beat::Declined(reason),
            Err(error) => {
                reasons.push(format!("target {target}: {error:#}"));
                if let Some(next) = targets.peek() {
                    warn!("going on with the next target, {next}");
                }
            }
        }
    }
    run.status.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    emergency(run, config, machine);
    Beat::Failed(run.status.reason.clone().unwrap_or_else(|| "no target is configured".to_owned()))
}

/// What belongs to a failure, once.
fn emergency(run: &mut Run, config: &ImageConfig, machine: &mut dyn Machine) {
    if !std::mem::replace(&mut run.emergency_done, true) {
        let outcome = run.status.outcome;
        act_knowing(run, config, Stage::Emergency, Some(outcome), machine);
    }
}

/// Everything that is done with one target.
fn dump_to(
    run: &mut Run,
    config: &ImageConfig,
    target: &Target,
    machine: &mut dyn Machine,
    last_words: &mut dyn FnMut(&mut Status),
) -> anyhow::Result<Came> {
    let hook = target.hook();
    let (stage_limit, device_limit) = (config.limits.stage(), config.limits.device());
    run.target = Some(target.to_string());
    run.stage(Stage::Target, stage_limit + device_limit, |run| {
        let Destination::Directory(root) = hook.open(machine, device_limit)?;
        let path = hook.path().unwrap_or(&config.dump.path);
        let root = run.places.root.join(relative(&root)).join(relative(path));
        let client = hook.client(machine).map_or(LOCAL.to_owned(), |address| address.to_string());
        run.dump_dir = Some(DumpDir::create(&root, &client, SystemTime::now()).inspect_err(|_| {
            // Whatever goes wrong after the target has been opened, it is let go.
            hook.close(machine).unwrap_or_else(|error| warn!("{error:#}"));
        })?);
        Ok(())
    })?;
    let dump_dir = run.dump_dir.clone().context("no dump directory")?;
    info!("writing to {}", dump_dir.path().display());
    let came = match before(run, config, machine) {
        Next::Stop(reason) => {
            warn!("no dump is taken: {reason}");
            run.status.outcome = Outcome::Failed;
            run.status.reason = Some(reason.clone());
            run.status.ending = Some(config.endings.final_action.into());
            Ok(Came::Declined(reason))
        }
        Next::GoOn => save(run, config, &dump_dir, machine),
    };

    let error = match &came {
        Ok(Came::Complete) => None,
        Ok(Came::Spoilt(reason) | Came::Declined(reason)) => Some(reason.clone()),
        Err(error) => Some(format!("{error:#}")),
    };
    let ending = run.stage(Stage::Ending, stage_limit, |run| {
        last_words(&mut run.status);
        save_environment_log(&dump_dir).unwrap_or_else(|error| warn!("{error:#}"));
        run.status.files = digests(&dump_dir, &mut *run.pulse, stage_limit);
        let mut status = run.status.clone();
        status.targets.push(target_report(target, error.as_deref()));
        // A disk that is too full for the status has the dump all the same.
        dump_dir.write(status::FILE, &status.json()).unwrap_or_else(|error| warn!("{error:#}"));
        hook.close(machine)
    });
    (run.dump_dir, run.target) = (None, None);
    match (came, ending) {
        (Ok(Came::Complete), Ok(())) => {
            info!("dump complete: {}", dump_dir.path().display());
            Ok(Came::Complete)
        }
        (Ok(Came::Declined(reason)), _) => Ok(Came::Declined(reason)),
        (Err(error), Err(also)) => Err(anyhow!("{error:#}; and {also:#}")),
        (came, ending) => ending.and(came),
    }
}

/// The hooks that act before the first dump, once.
fn before(run: &mut Run, config: &ImageConfig, machine: &mut dyn Machine) -> Next {
    match std::mem::replace(&mut run.pre_done, true) {
        true => Next::GoOn,
        false => act(run, config, Stage::Pre, machine),
    }
}

/// Log, dump, and the hooks that act after them.
fn save(run: &mut Run, config: &ImageConfig, dump_dir: &DumpDir, machine: &mut dyn Machine) -> anyhow::Result<Came> {
    // The log is worth having without the dump, and the dump without the log.
    let (stall, stage_limit) = (config.limits.stall(), config.limits.stage());
    let log = run.stage(Stage::Log, stage_limit, |run| save_log(run, dump_dir, stall));
    let vmcore = run.stage(Stage::Vmcore, stall + stage_limit, |run| save_vmcore(run, config, dump_dir));
    let saved = vmcore.map_err(|error| error.context("the dump was not saved"));
    run.status.outcome = outcome_on_disk(dump_dir);
    run.status.reason = saved.as_ref().err().or(log.as_ref().err()).map(|error| format!("{error:#}"));

    let outcome = if saved.is_ok() { Outcome::Complete } else { run.status.outcome };
    let next = act_knowing(run, config, Stage::Post, Some(outcome), machine);
    let came = match (saved, next) {
        (Ok(()), Next::GoOn) => Ok(Came::Complete),
        (Ok(()), Next::Stop(reason)) => {
            run.status.reason = Some(reason.clone());
            Ok(Came::Spoilt(reason))
        }
        (Err(error), _) => Err(error),
    };
    let endings = config.endings;
    run.status.ending = Some(match came {
        Ok(Came::Complete) => endings.final_action.into(),
        _ => endings.failure_action,
    });
    came
}

fn target_report(target: &Target, error: Option<&str>) -> TargetReport {
    TargetReport::new(target.to_string(), error.map(str::to_owned))
}

/// The old kernel's log, with our own collector whatever collects the dump.
fn save_log(run: &mut Run, dump_dir: &DumpDir, stall: Duration) -> anyhow::Result<()> {
    let report = run.places.state.join("log-report.json");
    let command = [run.places.collector.display().to_string(), "--dump-dmesg".to_owned()];
    let outcome = Collection::of(&command, &run.places.vmcore, &dump_dir.pending(LOG), &report, stall)
        .run(&mut *run.pulse)
        .and_then(|()| dump_dir.finish(LOG));
    run.status.log = read_report(&report);
    outcome
}

/// The dump, with the collector that the configuration names.
fn save_vmcore(run: &mut Run, config: &ImageConfig, dump_dir: &DumpDir) -> anyhow::Result<()> {
    let report = run.places.state.join("vmcore-report.json");
    let collector = &config.dump.collector;
    let pending = dump_dir.pending(VMCORE);
    let outcome = Collection::of(collector, &run.places.vmcore, &pending, &report, config.limits.stall())
        .run(&mut *run.pulse)
        .and_then(|()| match fs::metadata(&pending) {
            Ok(metadata) if metadata.len() > 0 => dump_dir.finish(VMCORE),
            _ => Err(anyhow!("the collector ended well but wrote nothing")),
        });
    run.status.vmcore = read_report(&report);
    outcome
}

fn read_report(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The log of the capture environment itself, beside the dump.
///
/// # Errors
/// The kernel log cannot be read or the file not be written.
pub fn save_environment_log(dump_dir: &DumpDir) -> anyhow::Result<()> {
    let mut log = KernelLog::from_start().context("cannot read the log of the capture environment")?;
    dump_dir.write_lines(ENVIRONMENT_LOG, std::iter::from_fn(|| log.next_line().map(|line| line + "\n")))
}

/// How much of a dump there is.
pub fn outcome_on_disk(dump_dir: &DumpDir) -> Outcome {
    match (dump_dir.path().join(VMCORE).exists(), dump_dir.pending(VMCORE).exists()) {
        (true, _) => Outcome::Complete,
        (false, true) => Outcome::Incomplete,
        (false, false) => Outcome::Failed,
    }
}

/// Reads back what has been written.
fn digests(dump_dir: &DumpDir, pulse: &mut dyn Pulse, limit: Duration) -> Vec<FileReport> {
    digests_up_to(dump_dir, u64::MAX, pulse, limit)
}

/// Reads back those files that are not longer than `most`.
pub fn digests_up_to(dump_dir: &DumpDir, most: u64, pulse: &mut dyn Pulse, limit: Duration) -> Vec<FileReport> {
    let incomplete = format!("{VMCORE}{}", crate::dump_dir::INCOMPLETE);
    let names = [LOG, VMCORE, &incomplete, ENVIRONMENT_LOG];
    names
        .into_iter()
        .filter(|name| fs::metadata(dump_dir.path().join(name)).is_ok_and(|metadata| metadata.len() <= most))
        .filter_map(|name| match dump_dir.digest(name, || pulse.beat(Beat::Still(limit))) {
            Ok((bytes, sha256)) => Some(FileReport { name: name.to_owned(), bytes, sha256 }),
            Err(error) => {
                warn!("{error:#}");
                None
            }
        })
        .collect()
}

/// A path without its leading `/`, so that it can stand below another.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dump, Ending, Endings, Limits};
    use kdump_hooks::fake::{FakeMachine, FakeNet};
    use kdump_hooks::filesystem::Filesystem;
    use kdump_hooks::net::Net;
    use kdump_hooks::rootfs::Rootfs;
    use kdump_hooks::user::Script;
    use kdump_hooks::{DeviceSpec, Settings};
    use std::os::unix::fs::PermissionsExt;

    /// A capture environment in a directory, with a shell script for a collector.
    struct Rehearsal {
        tree: tempfile::TempDir,
        config: ImageConfig,
        machine: FakeMachine,
    }

    impl Rehearsal {
        fn new(collector: &str) -> Rehearsal {
            let tree = tempfile::tempdir().unwrap();
            let script = tree.path().join("collector");
            fs::write(&script, format!("#!/bin/sh\nfor last; do :; done; out=$last\n{collector}\n")).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            fs::create_dir(tree.path().join("state")).unwrap();
            let target = |label: &str| {
                Target::Filesystem(Filesystem {
                    fstype: "ext4".into(),
                    device: DeviceSpec::Label(label.into()),
                    options: Vec::new(),
                })
            };
            let config = ImageConfig {
                version: config::VERSION,
                kernel_release: "6.1".into(),
                built_by: "test".into(),
                dump: Dump { path: "/var/crash".into(), collector: vec![script.display().to_string(), "-z".into()] },
                endings: Endings { failure_action: Ending::Halt.into(), final_action: Ending::Reboot },
                limits: Limits { device: 5, stall: 20, stage: 30, driver: 5 },
                normal: None,
                hooks: Settings { targets: vec![target("first"), target("second")], ..Settings::default() },
            };
            Rehearsal { tree, config, machine: FakeMachine::default() }
        }

        fn with_device(mut self, label: &str) -> Rehearsal {
            self.machine.devices.insert(format!("LABEL={label}"), "/dev/vda".into());
            self
        }

        fn run(&mut self) -> Status {
            self.end().0
        }

        fn end(&mut self) -> (Status, Beat) {
            let places = Places {
                root: self.tree.path().to_owned(),
                vmcore: "/dev/null".into(),
                collector: self.tree.path().join("collector"),
                state: self.tree.path().join("state"),
            };
            let mut run = Run::new(Status::new("6.1".into()), places, Box::<Vec<Beat>>::default());
            let last_word = dump(&mut run, &self.config, &mut self.machine, &mut |_| {});
            (run.status, last_word)
        }

        /// The files of the only dump directory, and its status.
        fn files(&self) -> (Vec<String>, serde_json::Value) {
            let base = self.tree.path().join("kdump/target/var/crash");
            let dirs: Vec<_> = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(dirs.len(), 1);
            let mut names: Vec<String> = fs::read_dir(&dirs[0])
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name != ENVIRONMENT_LOG && name != "kexec-dmesg.log-incomplete")
                .collect();
            names.sort();
            let status = serde_json::from_slice(&fs::read(dirs[0].join(status::FILE)).unwrap()).unwrap();
            (names, status)
        }
    }

    #[test]
    fn a_good_collector_leaves_log_dump_and_status() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore", "vmcore-dmesg.txt"]);
        assert_eq!(status["outcome"], "complete");
        assert_eq!(status["ending"], "reboot");
        assert_eq!(status["targets"][0]["outcome"], "ok");
        assert_eq!(status["files"][1]["name"], "vmcore");
        assert_eq!(status["files"][1]["bytes"], 5);
        assert_eq!(rehearsal.machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn a_dump_on_a_server_is_named_after_the_address_that_the_server_sees() {
        let mut rehearsal = Rehearsal::new("echo data > $out");
        rehearsal.config.hooks.targets = vec![Target::Nfs("10.0.2.2:/srv".parse().unwrap())];
        rehearsal.machine.net = FakeNet::with_cards(&["eth0"]);
        rehearsal.machine.net.add_address(2, "10.0.2.15/24".parse().unwrap()).unwrap();
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let base = rehearsal.tree.path().join("kdump/target/var/crash");
        let name = fs::read_dir(base).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("10.0.2.15-20"), "{name}");
    }

    #[test]
    fn a_failing_collector_leaves_an_incomplete_dump_and_a_status_that_says_why() {
        let script =
            "case $1 in --dump-dmesg) echo log > $out;; *) echo half > $out; echo disk is full >&2; exit 1;; esac";
        let mut rehearsal = Rehearsal::new(script).with_device("first");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Incomplete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore-dmesg.txt", "vmcore-incomplete"]);
        assert_eq!(status["outcome"], "incomplete");
        assert_eq!(status["ending"], "halt");
        assert!(status["reason"].as_str().unwrap().contains("disk is full"), "{status}");
    }

    #[test]
    fn a_log_that_cannot_be_read_does_not_stop_the_dump() {
        let mut rehearsal =
            Rehearsal::new("case $1 in --dump-dmesg) exit 1;; *) echo d > $out;; esac").with_device("first");
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore"]);
        assert_eq!(status["stages"][1]["name"], "log");
        assert_ne!(status["stages"][1]["outcome"], "ok");
    }

    #[test]
    fn the_next_target_is_tried_when_one_is_missing() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("second");
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Complete);
        let targets: Vec<_> = status.targets.iter().map(|it| (it.target.as_str(), it.outcome.as_str())).collect();
        assert_eq!(targets, [("ext4 LABEL=first", "failed"), ("ext4 LABEL=second", "ok")]);
        let (_, status) = rehearsal.files();
        assert_eq!(status["targets"][0]["error"], "LABEL=first did not appear within 5 s");
    }

    #[test]
    fn without_any_target_the_reason_names_every_one_that_was_tried() {
        let status = Rehearsal::new("exit 0").run();
        assert_eq!(status.outcome, Outcome::Failed);
        assert_eq!(
            status.reason.unwrap(),
            "target ext4 LABEL=first: LABEL=first did not appear within 5 s; \
             target ext4 LABEL=second: LABEL=second did not appear within 5 s"
        );
    }

    #[test]
    fn a_target_is_let_go_even_if_there_is_no_room_for_a_directory_or_a_status() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        fs::create_dir_all(rehearsal.tree.path().join("kdump/target")).unwrap();
        fs::write(rehearsal.tree.path().join("kdump/target/var"), "in the way").unwrap();
        let status = rehearsal.run();
        assert_eq!(status.outcome, Outcome::Failed);
        let unmounted = |rehearsal: &Rehearsal| {
            rehearsal.machine.journal.iter().filter(|line| *line == "unmount /kdump/target").count()
        };
        assert_eq!(unmounted(&rehearsal), 2);

        let script = "mkdir -p $(dirname $out)/status.json-incomplete; echo data > $out";
        let mut rehearsal = Rehearsal::new(script).with_device("first");
        assert_eq!(rehearsal.run().outcome, Outcome::Complete);
        assert_eq!(unmounted(&rehearsal), 1);
    }

    fn script(path: &str) -> Script {
        Script { argv: vec![path.into()], named_by: "here".into(), decides: true }
    }

    fn ends_badly(rehearsal: &mut Rehearsal, program: &str) {
        rehearsal.machine.programs.insert(program.into(), kdump_hooks::Ended { code: 7, said: String::new() });
    }

    #[test]
    fn kdump_pre_can_say_no_and_the_final_action_follows() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        rehearsal.config.hooks.user.pre.push(script("/bin/pre"));
        ends_badly(&mut rehearsal, "pre");
        let (status, last_word) = rehearsal.end();
        assert_eq!(last_word, Beat::Declined("here /bin/pre ended with 7".into()));
        assert_eq!((status.outcome, status.targets.len()), (Outcome::Failed, 1));
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json"]);
        assert_eq!(status["ending"], "reboot");
        assert_eq!(status["reason"], "here /bin/pre ended with 7");
        assert_eq!(rehearsal.machine.journal.last().unwrap(), "unmount /kdump/target");
    }

    #[test]
    fn kdump_post_can_spoil_a_good_dump_and_the_failure_action_follows_without_another_target() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first").with_device("second");
        rehearsal.config.hooks.user.post.push(script("/bin/post"));
        rehearsal.config.hooks.user.emergency.push(script("/bin/emergency"));
        ends_badly(&mut rehearsal, "post");
        let (_, last_word) = rehearsal.end();
        assert_eq!(last_word, Beat::Failed("here /bin/post ended with 7".into()));
        let (names, status) = rehearsal.files();
        assert_eq!(names, ["status.json", "vmcore", "vmcore-dmesg.txt"]);
        assert_eq!((&status["outcome"], &status["ending"]), (&"complete".into(), &"halt".into()));
        assert!(
            rehearsal.machine.journal.last().unwrap().contains("/bin/emergency"),
            "{:?}",
            rehearsal.machine.journal
        );
    }

    #[test]
    fn hooks_before_the_dump_run_once_and_those_of_a_failure_before_the_last_resort() {
        let mut rehearsal =
            Rehearsal::new("case $out in *rootdumps*) echo data > $out;; *) exit 1;; esac").with_device("first");
        let user = &mut rehearsal.config.hooks.user;
        (user.pre, user.post) = (vec![script("/bin/pre")], vec![script("/bin/post")]);
        user.emergency = vec![script("/bin/emergency")];
        let Target::Filesystem(filesystem) = rehearsal.config.hooks.targets.remove(0) else { panic!() };
        rehearsal.config.hooks.targets = vec![
            Target::Filesystem(filesystem.clone()),
            Target::Rootfs(Rootfs { path: "/rootdumps".into(), filesystem }),
        ];
        let (status, last_word) = rehearsal.end();
        assert_eq!((status.outcome, last_word), (Outcome::Complete, Beat::Complete));
        let order: Vec<&str> = rehearsal
            .machine
            .journal
            .iter()
            .filter_map(|line| line.split(' ').find(|word| word.starts_with("/bin/")))
            .collect();
        assert_eq!(order, ["/bin/pre", "/bin/post", "/bin/emergency", "/bin/post"]);
        let dumps = rehearsal.tree.path().join("kdump/target/rootdumps");
        assert_eq!(fs::read_dir(dumps).unwrap().count(), 1);
    }

    #[test]
    fn each_stage_notes_the_memory_that_is_left_at_its_end() {
        let mut rehearsal = Rehearsal::new("echo data > $out").with_device("first");
        rehearsal.run();
        let (_, status) = rehearsal.files();
        assert!(status["stages"].as_array().unwrap().iter().all(|stage| stage["available"].as_u64().unwrap() > 0));
    }

    #[test]
    fn a_collector_that_writes_nothing_has_not_dumped() {
        let mut rehearsal = Rehearsal::new("exit 0").with_device("first");
        assert!(rehearsal.run().reason.unwrap().contains("wrote nothing"));
    }
}
