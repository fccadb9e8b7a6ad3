//! `kdumpctl config`: what is configured, whether it can be followed, and the same as a `kdump.toml`.
//!
//! In: the configuration files. Out: every complaint at once, or the model with the place of each value. Nothing of the
//! machine is changed, but for the files that `convert` is told to write.
//! May surprise: a secret is shown as `(set)`, and goes nowhere unless a directory is named for it.

use super::Machine;
use crate::cli::ConfigWord;
use crate::config::settings::{Secret, Setting, convert, settings};
use crate::config::{Complaints, Config, Origin};
use crate::endings;
use crate::gather::programs::Programs;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;

/// What is shown in the place of a secret.
const HIDDEN: &str = "(set)";

/// Does what was typed.
///
/// # Errors
/// Why it could not be done. What `check` finds is no error, but an exit of 1.
pub(super) fn run(machine: &Machine, word: &ConfigWord, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match word {
        ConfigWord::Check { json } => check(machine, *json, out),
        ConfigWord::Show { json } => {
            show(&machine.config()?, *json, out)?;
            Ok(ExitCode::SUCCESS)
        }
        ConfigWord::Convert { to, secrets, force } => {
            written(&machine.config()?, to.as_deref(), secrets.as_deref(), *force, out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Machine<'_> {
    fn config(&self) -> anyhow::Result<Config> {
        let config = Config::read(&self.files)?;
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        Ok(config)
    }
}

/// Tells everything that is wrong, and what has no meaning here.
fn check(machine: &Machine, json: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut complaints = Complaints::default();
    let config = match Config::examine(&machine.files, &mut complaints) {
        Ok(config) => config,
        Err(problem) => {
            complaints.stop(problem);
            Config::default()
        }
    };
    together(machine, &config, &mut complaints);
    let errors = complaints.errors();
    if json {
        let files: Vec<String> = config.sources.iter().map(|file| file.display().to_string()).collect();
        let found = json!({
            "dialect": config.dialect.to_string(),
            "files": files,
            "errors": errors,
            "warnings": complaints.warnings,
            "notes": complaints.notes,
        });
        writeln!(out, "{found:#}")?;
    } else {
        for (kind, lines) in [("error", &errors), ("warning", &complaints.warnings), ("note", &complaints.notes)] {
            for line in lines {
                writeln!(out, "{kind}: {line}")?;
            }
        }
        let files: Vec<String> = config.sources.iter().map(|file| file.display().to_string()).collect();
        match errors.len() {
            0 => writeln!(out, "The configuration ({}: {}) can be followed", config.dialect, files.join(", "))?,
            1 => writeln!(out, "One line cannot be followed")?,
            many => writeln!(out, "{many} lines cannot be followed")?,
        }
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What only shows when all of it is looked at together.
fn together(machine: &Machine, config: &Config, complaints: &mut Complaints) {
    if let Err(problem) = endings::find(config) {
        complaints.stop(problem);
    }
    let collector = &config.dump.collector;
    match Programs::find(machine.programs.as_deref()) {
        Ok(programs) => {
            if let Err(problem) = collector.value.check(&programs.capture) {
                complaints.fail(&collector.origin, problem.context("the collector"));
            }
        }
        Err(_) if collector.origin == Origin::Default => {}
        Err(_) => complaints.note(&collector.origin, "the collector is not here to say whether it takes its arguments"),
    }
}

/// One line for each value.
fn show(config: &Config, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let settings = settings(config);
    let keys = keys(&settings);
    if json {
        let all: Vec<Value> = settings
            .iter()
            .zip(&keys)
            .map(|(setting, key)| {
                let (file, line) = match &setting.origin {
                    Origin::Default | Origin::Option(_) => (None, None),
                    Origin::Line(file, line) => (Some(file.display().to_string()), Some(line)),
                };
                let value = match setting.secret {
                    true => Value::String(HIDDEN.to_owned()),
                    false => serde_json::to_value(&setting.value).unwrap_or(Value::Null),
                };
                json!({ "key": key, "value": value, "file": file, "line": line })
            })
            .collect();
        let found = json!({ "dialect": config.dialect.to_string(), "settings": all });
        writeln!(out, "{found:#}")?;
        return Ok(());
    }
    for (setting, key) in settings.iter().zip(&keys) {
        let value = if setting.secret { HIDDEN.to_owned() } else { setting.value.to_string() };
        let said = format!("{key} = {value}");
        writeln!(out, "{said:<60} # {}", setting.origin)?;
    }
    Ok(())
}

/// The name of each value, with the number of its target.
fn keys(settings: &[Setting]) -> Vec<String> {
    let mut target = 0;
    let key = |Setting { table, name, .. }: &Setting| match *table {
        "" => (*name).to_owned(),
        "target" => {
            target += usize::from(*name == "kind");
            format!("target[{target}].{name}")
        }
        table => format!("{table}.{name}"),
    };
    settings.iter().map(key).collect()
}

/// Writes the kdump.toml, and the secrets where that is asked for.
fn written(
    config: &Config,
    to: Option<&Path>,
    secrets: Option<&Path>,
    force: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (text, files) = convert(config, secrets)?;
    if let Some(dir) = secrets.filter(|_| !files.is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
    }
    for Secret { path, bytes } in &files {
        write_new(path, bytes, 0o600, force)?;
        log::info!("{} has a secret and is for root alone", path.display());
    }
    match to {
        Some(path) => write_new(path, text.as_bytes(), 0o644, force),
        None => Ok(out.write_all(text.as_bytes())?),
    }
}

/// Writes a file that is not there yet, or with `force` one in its place.
fn write_new(path: &Path, bytes: &[u8], mode: u32, force: bool) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", path.display());
    if force {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(what),
            _ => {}
        }
    }
    let file = File::options().write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; -f overwrites it", path.display())
        }
        file => file.with_context(what)?,
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(what)
}
