//! `kdumpctl dumps show`: what the capture environment reported of one dump.

use super::{Dump, meant, printable, status};
use anyhow::Context;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

/// Shows the one that is named, else the newest.
pub(super) fn run(dumps: &[Dump], typed: Option<&Path>, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let dump = match typed {
        Some(typed) => meant(dumps, typed)?,
        None => Cow::Borrowed(dumps.first().context("there is no dump")?),
    };
    let status = status(&dump.path).unwrap_or(Value::Null);
    if json {
        writeln!(out, "{:#}", json!({ "dump": dump, "status": status }))?;
        return Ok(());
    }
    let mut line = |name: &str, text: &str| writeln!(out, "{name:<10} {}", printable(text));
    line("Dump:", &dump.path.display().to_string())?;
    line("Outcome:", &dump.outcome)?;
    for (name, text) in [("Kernel:", &dump.kernel), ("Panic:", &dump.panic)] {
        if let Some(text) = text {
            line(name, text)?;
        }
    }
    for (name, pointer) in [
        ("Reason:", "/reason"),
        ("Format:", "/vmcore/format"),
        ("Codec:", "/vmcore/codec"),
        ("Level:", "/vmcore/level"),
        ("Kept:", "/vmcore/pages/kept"),
        ("Pages:", "/vmcore/pages/total"),
        ("Ending:", "/ending"),
    ] {
        match status.pointer(pointer) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => line(name, text)?,
            Some(other) => line(name, &other.to_string())?,
        }
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let list = |key: &str| status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for target in list("targets") {
        let error = target.get("error").and_then(Value::as_str).map(|error| format!(": {error}")).unwrap_or_default();
        line("Target:", &format!("{} {}{error}", text(&target, "target"), text(&target, "outcome")))?;
    }
    for stage in list("stages") {
        let seconds = stage.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
        line("Stage:", &format!("{:<10} {seconds:8.3} s  {}", text(&stage, "name"), text(&stage, "outcome")))?;
    }
    for file in list("files") {
        let bytes = file.get("bytes").and_then(Value::as_u64).unwrap_or(0);
        line("File:", &format!("{} {bytes} bytes, sha256 {}", text(&file, "name"), text(&file, "sha256")))?;
    }
    Ok(())
}
