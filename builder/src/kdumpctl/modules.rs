//! `kdumpctl modules`: what the kernel would make of the modules of the image, one a line.
//!
//! In: the configuration and the machine. Out: `NAME: VERDICT` for each module that an image built now would hold. One that
//! the kernel would refuse, and that the image cannot do without, is the error that building it ends with.

use super::{Machine, kernel_file, start};
use crate::build;
use crate::config::Config;
use crate::host::kernel::{Compression, running_release};
use crate::host::{Kernel, SystemHost};
use crate::plan::{Entry, Kind};
use crate::signatures::{Judge, Signature, Verdict};
use crate::unpack::unpack;
use anyhow::Context;
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::ModuleName;
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

/// Says what the kernel would make of each.
pub(super) fn run(machine: &Machine, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    let release = match kernel_file::release(&machine.tree, &config.system)? {
        Some(release) => release,
        None => running_release(&machine.tree)?,
    };
    let built = build::plan(&start::request(machine, &release))?;
    built.left_out.iter().for_each(|warning| log::warn!("{warning}"));
    let host = SystemHost::new(machine.tree.clone(), Kernel::find(&machine.tree, Some(&release), None)?)?;
    let cmdline = Cmdline::parse(config.system.append.as_ref().map_or("", |given| &given.value));
    let judge = Judge::new(&host, &cmdline, built.config.hooks.modsign.as_ref()).thorough();
    let mut verdicts = Vec::new();
    for entry in built.plan.entries() {
        let Some((name, module)) = module(entry)? else { continue };
        let here = judge.verdict(&Signature::of(&module));
        verdicts.push((
            name,
            here.unwrap_or_else(|| Verdict::Unknown("the machine that it runs on is not here".to_owned())),
        ));
    }
    if json {
        let list: Vec<_> = verdicts.iter().map(|(name, verdict)| verdict_json(name, verdict)).collect();
        writeln!(out, "{}", serde_json::json!({ "kernel": release, "modules": list }))?;
        return Ok(());
    }
    for (name, verdict) in verdicts {
        writeln!(out, "{name}: {verdict}")?;
    }
    Ok(())
}

/// A module as JSON has it: its verdict in a word, and why.
fn verdict_json(name: &ModuleName, verdict: &Verdict) -> serde_json::Value {
    let (word, why) = match verdict {
        Verdict::Accepted => ("accepted", None),
        Verdict::Taints(why) => ("taints", Some(why)),
        Verdict::Refused(why) => ("refused", Some(why)),
        Verdict::Unknown(why) => ("unknown", Some(why)),
    };
    serde_json::json!({ "name": name.as_str(), "verdict": word, "why": why })
}

/// The name and the content of an entry that is a module, unpacked.
fn module(entry: &Entry) -> anyhow::Result<Option<(ModuleName, Cow<'_, [u8]>)>> {
    let Kind::File(bytes) = &entry.kind else { return Ok(None) };
    let file = Path::new(&entry.path).file_name().unwrap_or_default().to_string_lossy();
    let Some((name, "ko" | "ko.xz" | "ko.zst" | "ko.gz")) = file.split_once('.') else { return Ok(None) };
    let module = match Compression::of(bytes) {
        Some(compression) => {
            Cow::Owned(unpack(bytes, compression).with_context(|| format!("cannot unpack {}", entry.path))?)
        }
        None => Cow::Borrowed(bytes.as_slice()),
    };
    Ok(Some((ModuleName::new(name), module)))
}
