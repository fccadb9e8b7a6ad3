//! `mkdumprd --plan`: what would be in the image and why, and what memory the capture kernel would take.
//!
//! In: a plan. Out: lines or JSON; nothing is written. May surprise: the image is packed to know its size, and then let go.

use crate::build::Built;
use crate::estimate::Estimate;
use crate::image::{self, Parts};
use crate::plan::{Entry, Kind};
use anyhow::bail;
use kdump_hooks::Target;
use serde::Serialize;
use std::io::Write;

/// What an image may weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Its file, in bytes.
    pub size: Option<u64>,
    /// What would have to be reserved, in bytes.
    pub memory: Option<u64>,
}

impl Budget {
    /// Whether a limit is set.
    pub fn is_set(&self) -> bool {
        *self != Budget::default()
    }

    /// Holds an estimate against the limits.
    ///
    /// # Errors
    /// It is above one of them.
    pub fn check(&self, estimate: &Estimate) -> anyhow::Result<()> {
        let remedy = "mkdumprd --plan says what takes it";
        let over = |limit: Option<u64>, have: u64| limit.filter(|limit| have > *limit);
        match (over(self.size, estimate.image), over(self.memory, estimate.recommended())) {
            (Some(size), _) => bail!("the image comes to {} bytes, and --max-size is {size}; {remedy}", estimate.image),
            (_, Some(memory)) => bail!(
                "the capture kernel needs crashkernel={estimate} ({} bytes), and --max-memory is {memory}; {remedy}",
                estimate.recommended()
            ),
            (None, None) => Ok(()),
        }
    }
}

/// The estimate for a plan with the size that its image comes to.
///
/// # Errors
/// An entry does not fit the format.
pub fn estimate(built: &Built) -> anyhow::Result<Estimate> {
    let image = image::measure(&Parts::of(built))?;
    Ok(Estimate { image, ..built.estimate.clone() })
}

/// Prints a plan.
///
/// # Errors
/// `out` refuses.
pub fn print(built: &Built, estimate: &Estimate, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "image for kernel {}, {}:", built.config.kernel_release, targets(built).join(", then "))?;
    for line in built.plan.lines() {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "modules:")?;
    for module in &built.modules {
        writeln!(out, "{:>9} {}: {}", module.size, module.name, module.reason)?;
    }
    for left_out in &built.left_out {
        writeln!(out, "        - {left_out}")?;
    }
    writeln!(out, "memory, in KiB:")?;
    for (part, bytes) in estimate.parts().into_iter().filter(|(_, bytes)| *bytes > 0) {
        writeln!(out, "{:>9} {part}", bytes.div_ceil(1024))?;
    }
    writeln!(out, "{:>9} at the worst moment; crashkernel={estimate}", estimate.sum().div_ceil(1024))?;
    Ok(())
}

/// Where the dump goes, in words.
fn targets(built: &Built) -> Vec<String> {
    if built.config.normal.is_some() {
        return vec!["for a normal boot".to_owned()];
    }
    built.config.hooks.targets.iter().map(Target::to_string).collect()
}

#[derive(Serialize)]
struct Report<'a> {
    kernel: &'a str,
    targets: Vec<String>,
    compress: String,
    entries: Vec<Line<'a>>,
    modules: &'a [crate::build::Planned],
    left_out: &'a [String],
    warnings: &'a [String],
    memory: &'a Estimate,
    worst: u64,
    crashkernel: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    size: u64,
    reason: &'a str,
}

/// Prints a plan as JSON.
///
/// # Errors
/// As [`print()`].
pub fn describe(built: &Built, estimate: &Estimate, out: &mut dyn Write) -> anyhow::Result<()> {
    let line = |entry: &'_ Entry| match entry.kind {
        Kind::Directory => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symlink",
        Kind::CharDevice { .. } => "character device",
    };
    let lines = built.plan.entries().map(|entry| Line {
        path: &entry.path,
        kind: line(entry),
        mode: format!("{:04o}", entry.mode),
        size: entry.size(),
        reason: &entry.reason,
    });
    let report = Report {
        kernel: &built.config.kernel_release,
        targets: targets(built),
        compress: built.packing.to_string(),
        entries: lines.collect(),
        modules: &built.modules,
        left_out: &built.left_out,
        warnings: &built.warnings,
        memory: estimate,
        worst: estimate.sum(),
        crashkernel: estimate.recommended(),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)?;
    Ok(())
}

/// A number of bytes, with `K`, `M` or `G` behind it or without; `KB`, `MB` and `GB` are powers of ten, as they are told.
///
/// # Errors
/// It is none.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "kb" => Some(1000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        _ => None,
    };
    let number = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    number.ok_or_else(|| format!("`{text}` is not a size; write it as 8M, which is 8 MiB, or as 8MB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(["12", "3K", "2m", "1G"].map(|text| bytes(text).unwrap()), [12, 3 << 10, 2 << 20, 1 << 30]);
        assert_eq!(
            ["8MB", "8MiB", "1kb", "2GB"].map(|text| bytes(text).unwrap()),
            [8_000_000, 8 << 20, 1000, 2_000_000_000]
        );
        for bad in ["", "M", "-1", "1T", "1.5M", "1Mb/s", "99999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_above_a_budget_is_told_with_both_numbers() {
        let estimate = Estimate { image: 5 << 20, ..Estimate::default() };
        let budget = |size, memory| Budget { size, memory }.check(&estimate).map_err(|error| error.to_string());
        budget(None, None).unwrap();
        budget(Some(5 << 20), Some(1 << 30)).unwrap();
        assert!(budget(Some(1), None).unwrap_err().contains("comes to 5242880 bytes, and --max-size is 1"));
        assert!(budget(None, Some(1)).unwrap_err().contains("--max-memory is 1"));
    }
}
