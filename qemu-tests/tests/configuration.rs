//! Configuration files as their packages ship them, without booting.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::programs::programs;
use qemu_tests::provision;
use serde_json::Value;

/// What `kdumpctl config WORD --json` says of a configuration.
fn kdumpctl(config: &Path, word: &str) -> Result<Value> {
    let mut command = Command::new(programs()?.path("kdumpctl"));
    let output = command.arg("--config").arg(config).args(["config", word, "--json"]).output()?;
    let stdout = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&stdout).with_context(|| format!("no JSON: {stdout}"))
}

#[test]
fn the_configuration_of_debian_s_kdump_tools_is_read_without_a_complaint() -> Result<()> {
    let shipped = provision::kdump_tools()?.join("usr/share/kdump-tools/kdump-tools.conf");
    let folder = tempfile::tempdir()?;
    // Its package copies it to this name when it is installed.
    let config = folder.path().join("kdump-tools");
    let text = fs::read_to_string(&shipped).with_context(|| format!("unable to read {}", shipped.display()))?;
    fs::write(&config, &text)?;
    let found = kdumpctl(&config, "check")?;
    ensure!(found["dialect"] == "Debian", "{found}");
    for kind in ["errors", "warnings"] {
        ensure!(found[kind].as_array().is_some_and(Vec::is_empty), "{kind}: {found}");
    }
    let shown = kdumpctl(&config, "show")?;
    let value = |key: &str| {
        let all = shown["settings"].as_array()?;
        all.iter().find(|setting| setting["key"] == key).map(|setting| setting["value"].clone())
    };
    ensure!(value("enabled") == Some(true.into()) && value("path") == Some("/var/crash".into()), "{shown}");

    // Each line that it has as an example is a word that is known.
    let mut tried = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix('#')) {
        let is_example = line.split_once('=').is_some_and(|(name, value)| {
            name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !value.contains(['<', '|'])
        });
        if is_example {
            fs::write(&config, format!("{line}\n"))?;
            let found = kdumpctl(&config, "check")?;
            ensure!(found["errors"].as_array().is_some_and(Vec::is_empty), "{line}: {found}");
            tried += 1;
        }
    }
    ensure!(tried >= 10, "only {tried} examples were found");
    Ok(())
}
