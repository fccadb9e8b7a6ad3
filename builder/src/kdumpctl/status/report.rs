//! Everything that there is to know of kdump on a machine, as `status -v` and `status --json` tell it.
//!
//! In: the machine. Out: [`Report`]. What cannot be found out is left out; a wrong configuration is one of the things that
//! are told.

use super::{Machine, feasible, is_loaded, reserved};
use crate::config::Config;
use crate::crashkernel::mib;
use crate::inspect;
use crate::kdumpctl::dumps::{self, Dump};
use crate::kdumpctl::load::{self, Loaded};
use crate::kdumpctl::{kernel, oops, start, test};
use crate::kexec::Guard;
use crate::kexec::segments::Iomem;
use kdump_hooks::Target;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// What is told.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether a capture kernel is loaded.
    operational: bool,
    /// Bytes that are reserved.
    reserved: u64,
    /// Where they are, from and up to but not including.
    ranges: Vec<(u64, u64)>,
    /// Why no capture kernel could be loaded.
    obstacle: Option<String>,
    /// What forbids kernels without a signature.
    lockdown: Option<String>,
    /// What is loaded, if we loaded it.
    loaded: Option<Loaded>,
    /// Whether the kernel follows memory and processors that come and go.
    follows_hotplug: bool,
    /// Whether an oops is a panic, and so leaves a dump.
    oops_is_panic: Option<bool>,
    /// The kernel that would be loaded.
    kernel: Option<PathBuf>,
    /// Its image.
    image: Option<PathBuf>,
    /// Where the image's dumps go.
    targets: Vec<String>,
    /// The directory of dumps in the targets.
    path: Option<PathBuf>,
    /// What is out of date.
    stale: Vec<String>,
    /// What the configuration says that cannot be followed.
    configuration_error: Option<String>,
    /// The newest dump on the disks of this machine.
    last_dump: Option<Dump>,
    /// The last test.
    last_test: Option<test::Record>,
}

/// What there is to know.
pub(super) fn of(machine: &Machine) -> Report {
    let tree = &machine.tree;
    let obstacle = feasible(tree).and_then(|()| super::may_load(tree)).err().map(|error| format!("{error:#}"));
    let mut report = Report {
        operational: is_loaded(tree),
        reserved: reserved(tree),
        // Who is not root sees no addresses.
        ranges: Iomem::of(tree)
            .map(|iomem| iomem.crash_kernels().map(|it| (it.start, it.end)).collect())
            .unwrap_or_default(),
        obstacle,
        lockdown: Guard::of(tree).forbids_unsigned(),
        loaded: load::last(tree).filter(|_| is_loaded(tree)),
        follows_hotplug: tree.line("sys/devices/system/memory/crash_hotplug").as_deref() == Some("1"),
        oops_is_panic: oops::is_one(tree),
        ..Report::default()
    };
    let config = match Config::read(&machine.files) {
        Ok(config) => config,
        Err(error) => {
            report.configuration_error = Some(format!("{error:#}"));
            return report;
        }
    };
    report.last_dump = dumps::newest(machine, &config);
    report.last_test = test::record(machine, &config);
    let disk = match kernel::find(tree, &config.system) {
        Ok(disk) => disk,
        Err(error) => {
            report.configuration_error = Some(format!("{error:#}"));
            return report;
        }
    };
    report
        .stale
        .extend(start::lacking(machine, &config, &disk).map(|lack| format!("{}: {lack}", disk.image.display())));
    if let Some(loaded) = &report.loaded {
        if load::written(&loaded.image).is_none_or(|written| written != loaded.image_written) {
            report.stale.push(format!("{} is not what was loaded: kdumpctl reload loads it", loaded.image.display()));
        }
        if loaded.release != disk.release {
            report.stale.push(format!("kernel {} is loaded, and {} would be", loaded.release, disk.release));
        }
    }
    if let Some(image) = fs::read(&disk.image).ok().and_then(|image| inspect::config(&image).ok()) {
        report.targets = image.hooks.targets.iter().map(Target::to_string).collect();
        report.path = Some(image.dump.path);
    }
    (report.kernel, report.image) = (Some(disk.kernel), Some(disk.image));
    report
}

impl Report {
    /// Says it in lines.
    pub(super) fn say(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut line = |name: &str, text: String| writeln!(out, "{name:<14} {text}");
        let places: Vec<String> = self.ranges.iter().map(|(start, end)| format!(" {start:#x}-{end:#x}")).collect();
        line("Reserved:", format!("{}M{}", mib(self.reserved), places.concat()))?;
        if let Some(obstacle) = &self.obstacle {
            line("Obstacle:", obstacle.clone())?;
        }
        if let Some(lockdown) = &self.lockdown {
            line("Signatures:", lockdown.clone())?;
        }
        match &self.loaded {
            Some(loaded) => {
                let by = &loaded.syscall;
                line("Loaded:", format!("{} with {} ({by})", loaded.kernel.display(), loaded.image.display()))?;
                line("Command line:", loaded.cmdline.clone())?;
            }
            None if self.operational => line("Loaded:", "by another program".into())?,
            None => line("Loaded:", "nothing".into())?,
        }
        line("Hotplug:", if self.follows_hotplug { "the kernel follows it" } else { "takes a reload" }.into())?;
        match self.oops_is_panic {
            Some(true) => line("An oops:", "is a panic, of which there is a dump".into())?,
            Some(false) => line("An oops:", "leaves no dump: kernel.panic_on_oops is 0".into())?,
            None => {}
        }
        if let (Some(path), false) = (&self.path, self.targets.is_empty()) {
            line("Dumps go to:", format!("{} of {}", path.display(), self.targets.join(", then ")))?;
        }
        if let Some(error) = &self.configuration_error {
            line("Configuration:", error.clone())?;
        }
        match &self.last_dump {
            Some(dump) => line("Last dump:", format!("{} ({})", dump.path.display(), dump.outcome))?,
            None => line("Last dump:", "none on the disks of this machine".into())?,
        }
        match &self.last_test {
            Some(test) => line("Last test:", test.to_string())?,
            None => line("Last test:", "none; `kdumpctl rehearse` and `kdumpctl test` do one".into())?,
        }
        for stale in &self.stale {
            line("Out of date:", stale.clone())?;
        }
        Ok(())
    }
}

/// The one line of RHEL's `status` on the last test, if there was one.
pub(super) fn last_test(machine: &Machine) -> Option<String> {
    let config = Config::read(&machine.files).ok()?;
    test::record(machine, &config).map(|record| format!("Last test: {record}"))
}
