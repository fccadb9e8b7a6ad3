//! Kernel modules: from what is asked for to files in the image.
//!
//! In: needs, each a module name or an alias with its reason. Out: every module that any of them may come to load, with
//! its dependencies and soft dependencies, as the distribution packed it.
//!
//! May surprise: init has no decompressor. Where the kernel is known to unpack a module itself
//! (`CONFIG_MODULE_DECOMPRESS`, by one algorithm), the file stays as it is; any other is unpacked here, at the cost of
//! memory in the image, but never of a boot, and PID 1 stays small. Nothing else of a module is changed: its signature
//! covers every byte.

use crate::host::kernel::Compression;
use crate::host::{Kernel, Tree};
use crate::plan::Entry;
use crate::reuse::{Facts, Module, Old};
use crate::signatures::{Judge, Signature, Verdict};
use crate::unpack::unpack;
use anyhow::{Context, bail};
use kdump_hooks::ModuleNeed;
use kdump_hooks::kmod::ModInfo;
use kdump_hooks::kmod::{Action, Ban, Config, Index, ModuleName, Plan, Reached, Step, plan, resolve};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What came of all needs.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What goes into the image.
    pub chosen: BTreeMap<ModuleName, Chosen>,
    /// What somebody would have liked to have in it, and why it is not.
    pub left_out: BTreeMap<ModuleName, String>,
    /// What is required and cannot be had, or is damaged, or of another kernel.
    pub problems: Vec<anyhow::Error>,
    /// What those that go into the image say of themselves.
    pub facts: Facts,
}

/// A module that goes into the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its path in `modules.dep` of the image.
    pub index_path: String,
    /// The file.
    pub entry: Entry,
    /// The firmware files that it names.
    pub firmware: Vec<String>,
    /// What the kernel would make of it, if that is known.
    pub verdict: Option<Verdict>,
}

/// Where modules come from.
#[derive(Debug)]
pub struct Source<'a> {
    /// The files of the machine.
    pub tree: &'a Tree,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its indexes.
    pub index: &'a Index,
    /// The administrator's modprobe.d.
    pub config: &'a Config,
    /// The modules that must not be loaded, and where that is said, if it is known.
    pub bans: &'a BTreeMap<ModuleName, String>,
    /// Who knows what the kernel accepts.
    pub judge: &'a Judge<'a>,
    /// An image that is there, if it is of use.
    pub old: Option<&'a Old>,
}

impl Source<'_> {
    /// Finds and reads every module that `needs` come to. What nobody requires and cannot be had is left out, and so is
    /// what would need it.
    pub fn gather(&self, needs: &[ModuleNeed]) -> Gathered {
        let mut all = Gathered::default();
        let mut todo: Vec<ModuleNeed> = needs.iter().rev().cloned().collect();
        while let Some(need) = todo.pop() {
            let mut lost: BTreeSet<ModuleName> = BTreeSet::new();
            let resolved = self.resolve(&need).unwrap_or_else(|problem| {
                all.problems.push(problem);
                Vec::new()
            });
            for Wanted { module, reason, required, ban } in resolved {
                if all.chosen.contains_key(&module) {
                    continue;
                }
                let needs = self.index.get(&module).map(|file| file.needs.as_slice()).unwrap_or_default();
                let lacks = needs.iter().find(|need| lost.contains(need));
                let read = match (ban, lacks) {
                    (Some(ban), _) => Err(anyhow::Error::msg(ban)),
                    (None, Some(lacks)) => Err(anyhow::anyhow!("it needs {lacks}, which is left out")),
                    (None, None) => self.read(&module, &reason, &mut all.facts),
                };
                match read {
                    Ok((file, weakdep)) => {
                        todo.extend(self.later(&module, &weakdep));
                        all.left_out.remove(&module);
                        all.chosen.insert(module, file);
                    }
                    Err(error) if required => {
                        lost.insert(module);
                        all.problems.push(error);
                    }
                    Err(error) => {
                        lost.insert(module.clone());
                        all.left_out.entry(module).or_insert_with(|| format!("{error:#} ({reason})"));
                    }
                }
            }
        }
        all
    }

    /// The modules of one need, what they need first.
    fn resolve(&self, need: &ModuleNeed) -> anyhow::Result<Vec<Wanted>> {
        let steps = match plan(self.index, self.config, &need.request) {
            Plan::Load(steps) => steps,
            Plan::BuiltIn => return Ok(Vec::new()),
            Plan::Blacklisted(modules) if need.required => bail!(
                "{} is blacklisted, by modprobe.d or KDUMP_COMMANDLINE_APPEND, and without it there is no {} ({}); take it \
                 out there",
                modules.iter().map(ModuleName::as_str).collect::<Vec<_>>().join(", "),
                need.request,
                need.reason
            ),
            Plan::Unknown if need.required => bail!(
                "module {} is missing ({}): kernel {} has it neither in {} nor built in; install the package with the rest \
                 of that kernel's modules, or choose something else",
                need.request,
                need.reason,
                self.kernel.release,
                self.kernel.modules_dir.display()
            ),
            Plan::Blacklisted(modules) => {
                let wanted = |module| Wanted {
                    module,
                    reason: need.reason.clone(),
                    required: false,
                    ban: Some("it is blacklisted".to_owned()),
                };
                return Ok(modules.into_iter().map(wanted).collect());
            }
            Plan::Unknown => return Ok(Vec::new()),
        };
        let mut wanted = Vec::new();
        for Step { module, reached, action, .. } in steps.iter().cloned() {
            let required = need.required && is_hard(&steps, &reached);
            // `alias net-pf-10 off` names what nobody has.
            if self.index.get(&module).is_none() && !need.required {
                continue;
            }
            match action {
                Action::Load
                    if need.required
                        && need.by_device
                        && reached == Reached::Request
                        && self.config.is_blacklisted(&module) =>
                {
                    bail!(
                        "{module} ({}) is blacklisted, by modprobe.d or KDUMP_COMMANDLINE_APPEND, so that nothing would \
                         load it in the capture kernel; take it out there",
                        need.reason
                    )
                }
                Action::Load => {
                    let reason = match reached {
                        Reached::Request => need.reason.clone(),
                        Reached::Dependency(of) => format!("needed by {of}"),
                        Reached::Softdep(of) => format!("soft dependency of {of}"),
                    };
                    wanted.push(Wanted { module, reason, required, ban: None });
                }
                Action::Forbidden(ban) if required => bail!(
                    "{}, so there can be no {} ({}); take it out there",
                    self.reason(&ban, &module),
                    need.request,
                    need.reason
                ),
                Action::Forbidden(ban) => {
                    let ban = Some(self.reason(&ban, &module));
                    wanted.push(Wanted { module, reason: need.reason.clone(), required, ban });
                }
                Action::Skip => {}
            }
        }
        Ok(wanted)
    }

    /// Why a module is not loaded.
    fn reason(&self, ban: &Ban, module: &ModuleName) -> String {
        match (ban, self.bans.get(module)) {
            (Ban::Explicit, Some(place)) => format!("{module} is forbidden by {place}"),
            _ => ban.reason(module),
        }
    }

    /// What the kernel may ask for by itself once the module is there.
    fn later(&self, module: &ModuleName, told: &[String]) -> Vec<ModuleNeed> {
        let bare =
            resolve::softdep(self.index, self.config, module).map(|softdep| softdep.bare.clone()).unwrap_or_default();
        // A depmod older than the kernel leaves no modules.weakdep; the module itself tells it, too.
        let told = told.iter().flat_map(|names| names.split_whitespace());
        let listed = self.index.weakdep(module).iter().map(String::as_str);
        let weak = told.chain(listed).chain(self.config.weakdep(module)).map(str::to_owned);
        let need = |request| ModuleNeed {
            request,
            reason: format!("{module} may ask for it"),
            required: false,
            by_device: false,
        };
        bare.into_iter().chain(weak).map(need).collect()
    }

    fn read(&self, module: &ModuleName, reason: &str, facts: &mut Facts) -> anyhow::Result<(Chosen, Vec<String>)> {
        let release = &self.kernel.release;
        let Some(file) = self.index.get(module) else {
            bail!(
                "module {module} ({reason}) is missing: modules.dep of kernel {release} has no line for it; run `depmod {release}`"
            );
        };
        let absolute = file.path.starts_with('/');
        let place = match absolute {
            true => self.tree.resolve(Path::new(&file.path))?,
            false => self.kernel.modules_dir.join(&file.path),
        };
        self.tree.note(&place);
        let known = self.old.and_then(|old| old.module(self.tree, &place, self.kernel.decompresses));
        let read = match known {
            Some(known) => known,
            None => self.read_file(&place, module, reason)?,
        };
        let verdict = self.judge.verdict(&read.signature);
        if let Some(Verdict::Refused(why)) = &verdict {
            bail!("kernel {release} would refuse the module {module} ({reason}): {why}");
        }
        let unpacked = self.unpacks(read.packed);
        let (index_path, reason) = match unpacked {
            Some(compression) => (
                file.path.strip_suffix(suffix(compression)).unwrap_or(&file.path).to_owned(),
                format!("{reason}; unpacked, because the kernel cannot be told to unpack {compression}"),
            ),
            None => (file.path.clone(), reason.to_owned()),
        };
        let path = match absolute {
            true => index_path.clone(),
            false => format!("lib/modules/{release}/{index_path}"),
        };
        facts.add(self.tree, &place, &path, &read, unpacked.is_some());
        let Module { bytes, firmware, weakdep, .. } = read;
        Ok((Chosen { index_path, entry: Entry::file(&path, bytes, reason), firmware, verdict }, weakdep))
    }

    /// How a module has to be unpacked, because the kernel does not do it.
    fn unpacks(&self, packed: Option<Compression>) -> Option<Compression> {
        packed.filter(|_| packed != self.kernel.decompresses)
    }

    /// Reads a module that no image has.
    fn read_file(&self, place: &Path, module: &ModuleName, reason: &str) -> anyhow::Result<Module> {
        let release = &self.kernel.release;
        let file = fs::read(place).with_context(|| {
            format!(
                "module {module} ({reason}) is missing: cannot read {}; install kernel {release} again",
                place.display()
            )
        })?;
        let packed = Compression::of(&file);
        let object = match packed {
            Some(packed) => {
                Cow::Owned(unpack(&file, packed).with_context(|| format!("cannot unpack {}", place.display()))?)
            }
            None => Cow::Borrowed(file.as_slice()),
        };
        let info = ModInfo::read(&object).with_context(|| format!("{} is damaged", place.display()))?;
        if let Some(magic) = info.values("vermagic").next()
            && magic.split(' ').next() != Some(release)
        {
            bail!(
                "{} is for kernel {magic}, not for {release}; name the kernel that it belongs to with --kver",
                place.display()
            );
        }
        if info.values("livepatch").next() == Some("Y") {
            bail!(
                "{module} ({reason}) is a live patch, and an image loads none as a module: a capture kernel never does; for \
                 a normal boot use `kpatch install` and mkdumprd --normal --livepatch; take it out there"
            );
        }
        let all = |key| info.values(key).map(str::to_owned).collect();
        let (firmware, weakdep, signature) = (all("firmware"), all("weakdep"), Signature::of(&object));
        let bytes = match self.unpacks(packed) {
            Some(_) => object.into_owned(),
            None => file,
        };
        Ok(Module { packed, bytes, firmware, weakdep, signature })
    }
}

/// A module that a need comes to.
struct Wanted {
    module: ModuleName,
    reason: String,
    /// Whether the need is not met without it.
    required: bool,
    /// Why it must not be loaded.
    ban: Option<String>,
}

/// Whether what was asked for cannot do without a step that was reached in this way: soft dependencies, and what they
/// need, it can do without.
pub(super) fn is_hard(steps: &[Step], reached: &Reached) -> bool {
    let mut reached = reached;
    // A chain of dependencies is no longer than the plan.
    for _ in 0..=steps.len() {
        reached = match reached {
            Reached::Request => return true,
            Reached::Softdep(_) => return false,
            Reached::Dependency(of) => match steps.iter().find(|step| step.module == *of) {
                Some(step) => &step.reached,
                None => return true,
            },
        };
    }
    true
}

fn suffix(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => ".gz",
        Compression::Xz => ".xz",
        Compression::Zstd => ".zst",
    }
}
