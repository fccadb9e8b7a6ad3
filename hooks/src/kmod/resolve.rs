//! From a request to the modules to load, in order.
//!
//! The order of look-ups is kmod's: `alias` lines, module names, symbols, names in `install` and `remove` lines,
//! `modules.alias`, what is built in; the first that answers is taken. A blacklist only stops a module that was reached
//! through an alias; `install /bin/false` stops it however it is reached, except that soft dependencies take precedence
//! over it; *forbid*, which is ours, stops it always.

use super::config::Config;
use super::index::{Index, Softdep};
use super::names::{ModuleName, is_balanced};

/// One module of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The module.
    pub module: ModuleName,
    /// Its parameters, as init_module(2) takes them.
    pub parameters: String,
    /// How the plan came to it.
    pub reached: Reached,
    /// What is to be done.
    pub action: Action,
}

/// How a plan came to a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was asked for.
    Request,
    /// A module of the plan cannot be loaded without it.
    Dependency(ModuleName),
    /// A module of the plan works better with it; if it fails, the plan goes on.
    Softdep(ModuleName),
}

/// What to do with a module of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Load it.
    Load,
    /// An `install` line says that it counts as loaded (`/bin/true`).
    Skip,
    /// It must not be loaded.
    Forbidden(Ban),
}

/// Who forbids a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ban {
    /// An `install` line: `/bin/false`, or a command, which an image without a shell cannot run.
    Install(String),
    /// `rd.kdump.forbid=`, or `forbid_modules` of kdump.conf.
    Explicit,
}

impl Ban {
    /// Why `module` is not loaded.
    pub fn reason(&self, module: &ModuleName) -> String {
        match self {
            Ban::Install(command) => format!("modprobe.d has `install {module} {command}`"),
            Ban::Explicit => format!("{module} is forbidden (rd.kdump.forbid= or forbid_modules)"),
        }
    }
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// These modules, in this order. One alias may ask for several modules.
    Load(Vec<Step>),
    /// What is asked for is built into the kernel.
    BuiltIn,
    /// Modules answer, and the blacklist stops each of them.
    Blacklisted(Vec<ModuleName>),
    /// Nothing answers.
    Unknown,
}

/// Finds what a module name or an alias comes to.
pub fn plan(index: &Index, config: &Config, request: &str) -> Plan {
    if !is_balanced(request) {
        return Plan::Unknown;
    }
    let name = ModuleName::new(request);
    // A name is a name as a whole: `ext4.ko` asks for nothing.
    let is_name = !request.contains('.');
    let aliased = config.by_alias(request);
    let (wanted, by_alias): (Vec<&ModuleName>, bool) = if !aliased.is_empty() {
        (aliased, true)
    } else if let Some(module) = index.get(&name).filter(|_| is_name) {
        (vec![&module.name], false)
    } else if let Some(module) = index.by_symbol(request) {
        (vec![module], true)
    } else if is_name && config.has_command(&name) {
        (vec![&name], false)
    } else {
        (index.by_alias(request), true)
    };
    // What is built in is there, whatever blacklists and commands say; its soft dependencies may not be.
    let builtin = if wanted.is_empty() { index.builtin_by(request) } else { Vec::new() };
    let (wanted, by_alias) = if wanted.is_empty() { (builtin.clone(), false) } else { (wanted, by_alias) };
    if wanted.is_empty() {
        return Plan::Unknown;
    }
    let (stopped, allowed): (Vec<&ModuleName>, Vec<&ModuleName>) =
        wanted.into_iter().partition(|module| by_alias && config.is_blacklisted(module));
    if allowed.is_empty() {
        return Plan::Blacklisted(stopped.into_iter().cloned().collect());
    }
    let mut walk = Walk { index, config, builtin, steps: Vec::new(), visited: Vec::new() };
    for module in allowed {
        walk.add_with_dependencies(module, Reached::Request, request);
    }
    if walk.steps.is_empty() { Plan::BuiltIn } else { Plan::Load(walk.steps) }
}

/// The soft dependencies of a module: the administrator's line in place of the module's own.
pub fn softdep<'a>(index: &'a Index, config: &'a Config, name: &ModuleName) -> Option<&'a Softdep> {
    config.softdep(name).or_else(|| index.softdep(name))
}

struct Walk<'a> {
    index: &'a Index,
    config: &'a Config,
    /// What answers to a built-in alias; not all of it is in `modules.builtin`.
    builtin: Vec<&'a ModuleName>,
    steps: Vec<Step>,
    /// Modules whose dependencies have been walked: soft dependencies may form circles.
    visited: Vec<ModuleName>,
}

impl Walk<'_> {
    fn add_with_dependencies(&mut self, module: &ModuleName, reached: Reached, request: &str) {
        if self.visited.contains(module) {
            return;
        }
        self.visited.push(module.clone());
        // What is never loaded needs nothing.
        if let Some(file) = self.index.get(module).filter(|_| !self.config.is_forbidden(module)) {
            for need in &file.needs {
                self.add_with_softdeps(need, Reached::Dependency(module.clone()), need.as_str());
            }
        }
        self.add_with_softdeps(module, reached, request);
    }

    fn add_with_softdeps(&mut self, module: &ModuleName, reached: Reached, request: &str) {
        if self.steps.iter().any(|step| step.module == *module) {
            return;
        }
        let softdep = softdep(self.index, self.config, module).cloned().unwrap_or_default();
        for word in &softdep.pre {
            self.add_soft(word, module);
        }
        let builtin = self.index.is_builtin(module) || self.builtin.contains(&module);
        if !builtin && !self.steps.iter().any(|step| step.module == *module) {
            self.steps.push(Step {
                module: module.clone(),
                parameters: self.config.parameters(module, request),
                reached,
                action: self.action(module),
            });
        }
        for word in &softdep.post {
            self.add_soft(word, module);
        }
    }

    fn add_soft(&mut self, word: &str, of: &ModuleName) {
        let name = ModuleName::new(word);
        let found: Vec<ModuleName> = match self.index.get(&name) {
            Some(file) => vec![file.name.clone()],
            None => self.index.by_alias(word).into_iter().cloned().collect(),
        };
        for module in found {
            self.add_with_dependencies(&module, Reached::Softdep(of.clone()), word);
        }
    }

    fn action(&self, module: &ModuleName) -> Action {
        if self.config.is_forbidden(module) {
            return Action::Forbidden(Ban::Explicit);
        }
        // Soft dependencies, whoever names them, take precedence over an install line.
        let softdep = softdep(self.index, self.config, module);
        if softdep.is_some_and(|softdep| !softdep.pre.is_empty() || !softdep.post.is_empty()) {
            return Action::Load;
        }
        match self.config.install(module).map(str::trim) {
            None => Action::Load,
            Some(command) => match command.split_whitespace().next() {
                Some("/bin/true" | "/usr/bin/true" | "true" | ":") => Action::Skip,
                _ => Action::Forbidden(Ban::Install(command.to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        index.add_dep(
            "k/virtio_blk.ko: k/virtio_ring.ko k/virtio.ko\nk/virtio_ring.ko: k/virtio.ko\nk/virtio.ko:\n\
             k/virtio_rng.ko: k/virtio_ring.ko k/virtio.ko\nk/jbd2.ko:\nk/ext4.ko: k/jbd2.ko\nk/crc_a.ko:\nk/crc_b.ko: \
             k/jbd2.ko\nk/late.ko:\n",
        );
        index.add_aliases(
            "alias virtio:d2v* virtio_blk\nalias virtio:d4v* virtio_rng\nalias crypto-crc crc_a\nalias crypto-crc \
             crc_b\nalias fs-ext4 ext4\n",
        );
        index.add_softdeps("softdep ext4 pre: crypto-crc post: late gone\nsoftdep late pre: ext4\n");
        index.add_builtin("k/fat.ko\n");
        index
    }

    fn names(plan: Plan) -> Vec<String> {
        match plan {
            Plan::Load(steps) => steps.into_iter().map(|step| step.module.to_string()).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add(text, "t");
        config
    }

    #[test]
    fn dependencies_stand_before_what_needs_them() {
        assert_eq!(names(plan(&index(), &config(""), "virtio:d2vX")), ["virtio", "virtio_ring", "virtio_blk"]);
    }

    #[test]
    fn soft_dependencies_stand_around_their_module_and_circles_end() {
        assert_eq!(names(plan(&index(), &config(""), "ext4")), ["jbd2", "crc_a", "crc_b", "ext4", "late"]);
    }

    #[test]
    fn a_blacklist_stops_aliases_but_neither_names_nor_dependencies() {
        let blacklist = config("blacklist virtio_blk\nblacklist virtio\n");
        assert_eq!(plan(&index(), &blacklist, "virtio:d2vX"), Plan::Blacklisted(vec!["virtio_blk".into()]));
        assert_eq!(names(plan(&index(), &blacklist, "virtio_blk")), ["virtio", "virtio_ring", "virtio_blk"]);
        assert_eq!(names(plan(&index(), &blacklist, "virtio:d4vX")), ["virtio", "virtio_ring", "virtio_rng"]);
    }

    #[test]
    fn a_blacklisted_sibling_does_not_stop_the_other_answers() {
        assert_eq!(names(plan(&index(), &config("blacklist crc_a"), "crypto-crc")), ["jbd2", "crc_b"]);
    }

    #[test]
    fn install_false_forbids_by_any_way_and_install_true_skips() {
        let forbid = config("install virtio_ring /bin/false\ninstall virtio /bin/true\n");
        let Plan::Load(steps) = plan(&index(), &forbid, "virtio_blk") else { panic!("no plan") };
        let actions: Vec<_> = steps.into_iter().map(|step| step.action).collect();
        let forbidden = Action::Forbidden(Ban::Install("/bin/false".into()));
        assert_eq!(actions, [Action::Skip, forbidden, Action::Load]);
    }

    #[test]
    fn a_softdep_line_takes_precedence_over_an_install_line() {
        let both = config("install virtio /bin/false\nsoftdep virtio pre: jbd2\n");
        let Plan::Load(steps) = plan(&index(), &both, "virtio") else { panic!("no plan") };
        assert_eq!(steps.last().map(|step| &step.action), Some(&Action::Load));
    }

    #[test]
    fn an_alias_line_is_asked_first_and_options_follow_name_and_alias() {
        let config = config("alias disk virtio_blk\noptions disk a=1\noptions virtio_blk b=2\n");
        let Plan::Load(steps) = plan(&index(), &config, "disk") else { panic!("no plan") };
        assert_eq!(steps.last().map(|step| step.parameters.as_str()), Some("a=1 b=2"));
    }

    #[test]
    fn what_is_built_in_and_what_is_unknown_are_told_apart() {
        assert_eq!(plan(&index(), &config(""), "fat"), Plan::BuiltIn);
        assert_eq!(plan(&index(), &config(""), "pci:v1"), Plan::Unknown);
    }

    #[test]
    fn forbid_stops_a_module_by_name_by_alias_and_as_a_dependency() {
        let mut forbid = config("softdep virtio pre: jbd2\n");
        forbid.add_settings(&super::super::Settings { forbid: vec!["virtio".into()] });
        for request in ["virtio", "virtio_blk", "virtio:d2vX"] {
            let Plan::Load(steps) = plan(&index(), &forbid, request) else { panic!("no plan for {request}") };
            let step = steps.iter().find(|step| step.module.as_str() == "virtio").unwrap();
            assert_eq!(step.action, Action::Forbidden(Ban::Explicit), "{request}");
        }
    }

    #[test]
    fn what_a_forbidden_module_needs_is_not_loaded_in_vain() {
        let mut forbid = config("");
        forbid.add_settings(&super::super::Settings { forbid: vec!["virtio_blk".into()] });
        assert_eq!(names(plan(&index(), &forbid, "virtio_blk")), ["virtio_blk"]);
    }

    #[test]
    fn a_symbol_is_looked_up_before_aliases_and_a_file_name_is_no_name() {
        let mut index = index();
        index.add_symbols("alias symbol:jbd2_start jbd2\n");
        assert_eq!(names(plan(&index, &config(""), "symbol:jbd2-start")), ["jbd2"]);
        assert_eq!(
            plan(&index, &config("blacklist jbd2"), "symbol:jbd2_start"),
            Plan::Blacklisted(vec!["jbd2".into()])
        );
        assert_eq!(plan(&index, &config(""), "jbd2.ko"), Plan::Unknown);
        assert_eq!(plan(&index, &config(""), "virtio:d2v[0"), Plan::Unknown);
    }
}
