//! The story: what happens between the panic and the reboot, in order. This is the worker's whole life.
//!
//! [`main`] sets the machine up (early, modules, devices, network); [`dump`] does what the image is for. Where nothing
//! has crashed, [`normal`] mounts the root of a system instead.

use crate::beat::{Beat, Pulse, ToSupervisor};
use crate::config::{self, ImageConfig, Limits};
use crate::devices::Devices;
use crate::dump;
use crate::kmsg;
use crate::modules::{self, Loader};
use crate::normal::pause::{self, Step};
use crate::normal::{self, Mode};
use crate::run::{Places, Run, act};
use crate::status::Status;
use crate::sys::{self, CaptureMachine, LinuxModules, LinuxNet};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kernel::LinuxKeys;
use kdump_hooks::kmod::{Config, Index};
use kdump_hooks::livepatch::LinuxKernel;
use kdump_hooks::{Machine, Stage};
use log::{error, info, warn};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How PID 1 calls the worker.
pub const ROLE: &str = "worker";

/// How many modules are loaded at the same time. Each is held in memory as a whole while it is loaded.
const LOADERS: usize = 3;

/// How much longer than one driver may take modules are waited for that no device asks for.
const MARGIN: Duration = Duration::from_secs(30);

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
    let has_shell = config.hooks.shell.is_some();
    if mode == Mode::Normal {
        if config.normal.is_none() {
            bail!(
                "there is no {}: this kernel was not started by a panic, and its image is not for a normal boot \
                 (mkdumprd --normal)",
                run.places.vmcore.display()
            );
        }
        normal::begin(&command_line(), has_shell);
    } else {
        normal::settings();
    }
    if mode == Mode::Capture || !normal::flag(&command_line(), "rd.earlykdump") {
        config.hooks.early_kdump = None;
    }
    if mode == Mode::Capture {
        config.hooks.livepatch = None;
    }
    let known = config.normal.clone().unwrap_or_default();
    if mode == Mode::Normal && !normal::wants_network(&command_line(), &known) {
        config.hooks.network = None;
    }
    let pause = |run: &mut Run, step| {
        if mode == Mode::Normal {
            pause::before(step, &command_line(), has_shell, &mut *run.pulse);
        }
    };
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
    pause(&mut run, Step::Modules);
    run.stage(Stage::Modules, limit, |_| {
        let made = loader_of_this_image()?;
        modules::complain(&made);
        made.start(LOADERS);
        sys::make_device_nodes(Path::new("/dev"), made.index().nodes());
        loader = Some(made);
        Ok(())
    })?;
    let loader = loader.context("no module loader")?;
    let mut machine = CaptureMachine {
        loader: loader.clone(),
        devices: Devices::default(),
        net: LinuxNet::default(),
        keys: LinuxKeys,
        live: LinuxKernel,
        patience: limit,
        left_behind: 0,
    };
    // What is to come before any driver.
    act(&mut run, &config, Stage::Modules, &mut machine);
    run.stage(Stage::Modules, limit + settled, |_| {
        modules::load_without_devices(&loader, &command_line());
        settle(&loader, settled);
        Ok(())
    })?;

    pause(&mut run, Step::Devices);
    run.stage(Stage::Devices, limit + config.limits.device() + settled, |_| {
        let (watched, subscribed) = Devices::watch(&loader);
        machine.devices = watched;
        settle(&loader, config.limits.device());
        modules::load_last(&loader);
        settle(&loader, settled);
        subscribed
    })
    .unwrap_or_else(|error| warn!("{error:#}"));

    // Should the worker die, the aftermath has this much to tell.
    run.status.modules = loader.report();
    pause(&mut run, Step::Storage);
    for stage in [Stage::Early, Stage::Devices, Stage::Network, Stage::Storage] {
        act(&mut run, &config, stage, &mut machine);
    }
    let state = run.places.state.clone();
    if mode == Mode::Normal {
        pause(&mut run, Step::Root);
        // What the image lacks may be why there is no root.
        let ready =
            mount_root(&mut run, &config, &mut machine).inspect_err(|_| loader.report().with_journal(&state).say())?;
        pause(&mut run, Step::Leaving);
        act(&mut run, &config, Stage::Switch, &mut machine);
        return Ok(ready);
    }
    act(&mut run, &config, Stage::Target, &mut machine);
    Ok(dump::to_targets(&mut run, &config, &mut machine, &mut |status| {
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
    normal::hand_over_devices();
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
    loader_with("", "")
}

/// As [`loader_of_this_image`], with parameters that are asked for together with a module.
///
/// # Errors
/// As there.
pub fn loader_with(module: &str, parameters: &str) -> anyhow::Result<Loader> {
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
    config.add_parameters(module, parameters);
    Ok(Loader::new(tree, index, config, Box::new(LinuxModules), limits_of_this_image().driver()))
}

/// The limits of the image that is running, as the kernel command line has them.
pub fn limits_of_this_image() -> Limits {
    let mut limits = ImageConfig::read(Path::new(config::PATH)).map(|image| image.limits).unwrap_or_default();
    limits.follow(&command_line());
    limits
}

/// The kernel command line; a byte in it that is no UTF-8 does not hide the rest.
pub(crate) fn command_line() -> Cmdline {
    Cmdline::parse(&String::from_utf8_lossy(&fs::read("/proc/cmdline").unwrap_or_default()))
}
