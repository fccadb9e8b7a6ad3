//! The same questions to kmod's modprobe and to us: every module and every alias of a kernel, and modprobe.d in many
//! situations.
//!
//! modprobe is asked with `--show-depends`, hundreds of requests a call; an `install` line that nothing else has marks
//! where the next answer begins. Where answers may differ:
//!
//! 1. modprobe lists a module again for each answer of an alias that needs it; ours loads it once.
//! 2. modprobe names built-in modules among soft dependencies; ours are not mentioned.
//! 3. What is built in is there for us, whatever `blacklist` and `install` say of it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, ensure};
use kdump_hooks::kmod::{Action, Ban, Config, Index, Plan, Step, plan};
use qemu_tests::prelude::*;
use qemu_tests::provision::{self, Kernel, generic_kernel};
use qemu_tests::tools;

/// The request that ends an answer, and what modprobe prints for it.
const MARK: &str = "kdump_mark";
const MARKED: &str = "install mark";
/// Requests of one modprobe.
const BATCH: usize = 400;

/// What one request comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    /// `insmod PATH PARAMETERS` and `install COMMAND`, in order, each once.
    lines: Vec<String>,
    /// It is built in.
    builtin: bool,
}

/// kmod's answers.
fn theirs(kernel: &Kernel, conf: &[(&str, &str)], requests: &[String]) -> Result<Vec<Answer>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("000-mark.conf"), format!("install {MARK} mark\n"))?;
    for (name, text) in conf {
        fs::write(folder.path().join(name), text)?;
    }
    let mut answers = Vec::new();
    for batch in requests.chunks(BATCH) {
        let mut modprobe = tools::command("modprobe");
        modprobe.arg("-d").arg(kernel.modules_root()?).args(["-S", &kernel.release, "-C"]).arg(folder.path());
        modprobe.args(["-a", "-q", "--show-depends", "--"]);
        modprobe.args(batch.iter().flat_map(|request| [request.as_str(), MARK]));
        // One that is not found makes it fail in the end; the others are answered all the same.
        let output = modprobe.output().context("unable to start modprobe")?;
        let text = String::from_utf8(output.stdout).context("modprobe does not speak UTF-8")?;
        let mut answer = Answer::default();
        for line in text.lines().map(str::trim_end) {
            match line {
                MARKED => answers.push(std::mem::take(&mut answer)),
                line if line.starts_with("builtin ") => answer.builtin = true,
                line if answer.lines.iter().any(|known| known == line) => {}
                line => answer.lines.push(line.to_owned()),
            }
        }
    }
    ensure!(answers.len() == requests.len(), "{} answers to {} requests", answers.len(), requests.len());
    Ok(answers)
}

/// Our answer in modprobe's words.
fn ours(kernel: &Kernel, index: &Index, config: &Config, request: &str) -> Answer {
    match plan(index, config, request) {
        Plan::BuiltIn => Answer { builtin: true, ..Answer::default() },
        Plan::Unknown | Plan::Blacklisted(_) => Answer::default(),
        Plan::Load(steps) => {
            let line = |step: Step| match step.action {
                // What is not there is not listed.
                Action::Load => index.get(&step.module).map(|file| {
                    let file = kernel.modules.join(&file.path);
                    format!("insmod {} {}", file.display(), step.parameters).trim_end().to_owned()
                }),
                Action::Skip | Action::Forbidden(Ban::Install(_)) => config
                    .install(&step.module)
                    .map(|command| format!("install {command} {}", step.parameters).trim_end().to_owned()),
                Action::Forbidden(Ban::Explicit) => Some("forbidden".to_owned()),
            };
            Answer { lines: steps.into_iter().filter_map(line).collect(), builtin: false }
        }
    }
}

/// Fails unless all requests have the same answers.
fn compare(kernel: &Kernel, conf: &[(&str, &str)], requests: &[String]) -> Result<()> {
    let index = Index::read(&kernel.modules)?;
    ensure!(index.problems.is_empty(), "{:?}", index.problems);
    let mut config = Config::default();
    conf.iter().for_each(|(name, text)| config.add(text, name));
    let mut differences = String::new();
    let (mut count, mut loading) = (0, 0);
    for (request, their) in requests.iter().zip(theirs(kernel, conf, requests)?) {
        let our = ours(kernel, &index, &config, request);
        // The second rule: beside modules that are loaded, built-in ones are only company.
        let their = Answer { builtin: their.builtin && their.lines.is_empty(), ..their };
        loading += usize::from(!their.lines.is_empty());
        if our != their {
            count += 1;
            if count <= 10 {
                writeln!(differences, "{request}\n  kmod {their:?}\n  ours {our:?}")?;
            }
        }
    }
    ensure!(count == 0, "{count} of {} answers differ:\n{differences}", requests.len());
    eprintln!("{}: {} requests answered alike, {loading} of them by modules", kernel.release, requests.len());
    Ok(())
}

/// Every name and every alias of a kernel, wildcards filled in.
fn requests(kernel: &Kernel) -> Result<Vec<String>> {
    let index = Index::read(&kernel.modules)?;
    let mut requests: BTreeSet<String> = index.modules().map(|file| file.name.to_string()).collect();
    requests.extend(requests.clone().iter().map(|name| name.replace('_', "-")));
    requests.extend(index.builtin().map(ToString::to_string));
    let mut seed = 0x9e37_79b9_u64;
    for (pattern, _) in index.aliases().chain(index.builtin_aliases()) {
        requests.insert(instance(pattern, &mut seed));
    }
    requests.extend(index.symbols().map(|(symbol, _)| symbol.to_owned()));
    requests.extend(["nosuch", "fs-nosuch", "ext4.ko", "pci:v[0", "symbol:nosuch"].map(str::to_owned));
    // A request that begins with a dash or a slash is something else to modprobe.
    requests.retain(|request| !request.starts_with(['-', '/', '.']));
    Ok(requests.into_iter().collect())
}

/// A text that the pattern matches, chosen by a linear congruential generator.
fn instance(pattern: &str, seed: &mut u64) -> String {
    let mut dice = |sides: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*seed >> 33).unwrap_or_default() % sides.max(1)
    };
    let mut text = String::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => text.push_str(["", "0", "00A1", "x-y_z"][dice(4)]),
            '?' => text.push(['0', 'F', '_'][dice(3)]),
            '[' => {
                let set: Vec<char> = rest.by_ref().take_while(|c| *c != ']').collect();
                let members: Vec<char> = match set.as_slice() {
                    [low, '-', high, more @ ..] => (*low..=*high).chain(more.iter().copied()).collect(),
                    _ => set,
                };
                text.extend(members.get(dice(members.len())).filter(|member| **member != '-'));
            }
            '\\' => text.extend(rest.next()),
            c => text.push(c),
        }
    }
    text
}

#[test]
fn every_module_and_alias_of_a_cloud_kernel_is_answered_as_kmod_does() -> Result<()> {
    provision::tools()?;
    for suite in [Suite::Own, Suite::Trixie] {
        let kernel = kernel(suite)?;
        compare(&kernel, &[], &requests(&kernel)?)?;
    }
    Ok(())
}

#[test]
#[ignore = "a download of 70 MB, and minutes of comparing"]
fn every_module_and_alias_of_the_generic_kernel_is_answered_as_kmod_does() -> Result<()> {
    provision::tools()?;
    let kernel = generic_kernel()?;
    compare(&kernel, &[], &requests(&kernel)?)
}

#[test]
fn both_forms_of_the_indexes_say_the_same() -> Result<()> {
    provision::tools()?;
    for suite in [Suite::Own, Suite::Trixie] {
        let kernel = kernel(suite)?;
        let only = |keep: fn(&str) -> bool| -> Result<Index> {
            let folder = tempfile::tempdir()?;
            for entry in fs::read_dir(&kernel.modules)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_file() && keep(&name) {
                    fs::copy(&path, folder.path().join(name))?;
                }
            }
            Index::read(folder.path())
        };
        let (binary, text) = (only(|name| name.ends_with(".bin"))?, only(|name| !name.ends_with(".bin"))?);
        ensure!(binary.modules().eq(text.modules()), "modules.dep differs");
        ensure!(binary.builtin().eq(text.builtin()), "modules.builtin differs");
        ensure!(binary.symbols().eq(text.symbols()), "modules.symbols differs");
        let set = |index: &Index| -> BTreeSet<String> {
            let pairs = index.aliases().chain(index.builtin_aliases());
            pairs.map(|(alias, module)| format!("{alias} {module}")).collect()
        };
        ensure!(set(&binary) == set(&text), "aliases differ");
        for (request, _) in text.aliases().filter(|(alias, _)| !alias.contains(['*', '[', '?'])) {
            ensure!(binary.by_alias(request) == text.by_alias(request), "the order for {request} differs");
        }
    }
    Ok(())
}

/// Files of modprobe.d and what is in them.
type Conf = &'static [(&'static str, &'static str)];

/// What modprobe.d says, and what is asked.
const SITUATIONS: &[(Conf, &[&str])] = &[
    (&[("a.conf", "blacklist dummy\nblacklist xfs\n")], &["dummy", "rtnl-link-dummy", "fs-xfs", "xfs"]),
    // A blacklisted dependency is loaded all the same.
    (&[("a.conf", "blacklist libcrc32c\n")], &["xfs", "fs-xfs", "libcrc32c"]),
    (&[("a.conf", "install dummy /bin/false\n")], &["dummy", "rtnl-link-dummy"]),
    (&[("a.conf", "install dummy /bin/true\noptions dummy numdummies=2\n")], &["dummy", "rtnl-link-dummy"]),
    (&[("a.conf", "install libcrc32c /bin/false\n")], &["xfs", "libcrc32c", "fs-xfs"]),
    (&[("a.conf", "install nosuch echo hello \\\n  world\n")], &["nosuch"]),
    // Soft dependencies take precedence over install, whoever names them.
    (&[("a.conf", "install dummy /bin/false\nsoftdep dummy pre: ifb\n")], &["dummy"]),
    (&[("a.conf", "install dummy /bin/false\nsoftdep dummy ifb\n")], &["dummy"]),
    (&[("a.conf", "install xfs /bin/false\n")], &["xfs", "fs-xfs"]),
    (
        &[("a.conf", "softdep dummy pre: ifb post: veth\nsoftdep ifb pre: dummy\nsoftdep veth post: dummy\n")],
        &["dummy", "ifb", "veth"],
    ),
    (&[("a.conf", "softdep dummy pre: ifb\n"), ("b.conf", "softdep dummy pre: veth\n")], &["dummy"]),
    (&[("a.conf", "softdep dummy pre: fs-ext4 nosuch post: crypto-crc32c\n")], &["dummy"]),
    (&[("a.conf", "softdep ext4 pre: dummy\n")], &["ext4", "fs-ext4"]),
    (&[("a.conf", "softdep libcrc32c pre: dummy\n")], &["xfs", "fs-xfs"]),
    (
        &[("a.conf", "options dummy numdummies=1\noptions net0 mtu=1\nalias net0 dummy\n")],
        &["net0", "dummy", "rtnl-link-dummy"],
    ),
    (&[("a.conf", "options rtnl-link-dummy numdummies=3\n")], &["rtnl-link-dummy", "dummy"]),
    (&[("a.conf", "alias net-* dummy\nalias net-* ifb\n")], &["net-pf-99", "net_x"]),
    (&[("a.conf", "alias dummy ifb\n")], &["dummy", "ifb"]),
    (&[("a.conf", "alias one two\nalias two dummy\n")], &["one", "two"]),
    (&[("a.conf", "alias one off\n")], &["one"]),
    (&[("a.conf", "alias x-y dummy\nblacklist dummy\n")], &["x-y", "x_y"]),
    (
        &[("a.conf", "blacklist virtio-rng\noptions virtio-rng a=1\n")],
        &["virtio-rng", "virtio_rng", "virtio:d00000004v00001AF4"],
    ),
    (&[("a.conf", "remove gone /bin/true\n")], &["gone"]),
    (&[("a.conf", "options dummy a=\"b c\" d=1\n  options dummy e=2\n# options dummy f=3\n")], &["dummy"]),
    (&[("a.conf", "install du* /bin/false\n")], &["dummy"]),
    (&[("a.conf", "options dummy a=1\n"), ("b.conf", "options dummy a=2\n")], &["dummy"]),
];

/// Situations of the third rule.
const BUILT_IN: &[(Conf, &str)] =
    &[(&[("a.conf", "blacklist ext4\n")], "fs-ext4"), (&[("a.conf", "install jbd2 /bin/false\n")], "jbd2")];

#[test]
fn what_is_built_in_is_there_whatever_modprobe_d_says() -> Result<()> {
    provision::tools()?;
    let kernel = kernel(Suite::Own)?;
    let index = Index::read(&kernel.modules)?;
    for (conf, request) in BUILT_IN {
        let mut config = Config::default();
        conf.iter().for_each(|(name, text)| config.add(text, name));
        ensure!(plan(&index, &config, request) == Plan::BuiltIn, "{request} under {conf:?}");
        let their = theirs(&kernel, conf, &[(*request).to_owned()])?;
        ensure!(!their[0].builtin, "kmod agrees now on {request} under {conf:?}: the rule is not needed");
    }
    Ok(())
}

#[test]
fn modprobe_d_means_what_it_means_to_kmod() -> Result<()> {
    provision::tools()?;
    let kernel = kernel(Suite::Own)?;
    let mut failures = Vec::new();
    for (conf, asked) in SITUATIONS {
        let asked: Vec<String> = asked.iter().map(|request| (*request).to_owned()).collect();
        if let Err(error) = compare(&kernel, conf, &asked) {
            failures.push(format!("{conf:?}: {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
