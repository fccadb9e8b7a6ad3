//! Arbitrary indexes, modprobe.d and kernel command line, and what a request comes to under them. A plan never names a
//! module twice.

#![no_main]

use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::{Config, Index, Plan, plan};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;

fuzz_target!(|texts: (&str, &str, &str, &str, &str, &str)| {
    let (dep, alias, softdep, conf, cmdline, request) = texts;
    let mut index = Index::default();
    index.add_dep(dep);
    index.add_aliases(alias);
    index.add_softdeps(softdep);
    index.add_builtin(dep);
    index.add_builtin_modinfo(alias);
    index.add_symbols(alias);
    index.add_weakdeps(softdep);
    index.add_devnames(dep);
    for node in index.nodes() {
        assert!(!node.path.starts_with('/') && !node.path.split('/').any(|part| part == ".."));
    }
    let mut config = Config::default();
    config.add(conf, "fuzz");
    config.add_cmdline(&Cmdline::parse(cmdline));
    config.foreign_installs().for_each(drop);
    if let Plan::Load(steps) = plan(&index, &config, request) {
        let names: BTreeSet<_> = steps.iter().map(|step| &step.module).collect();
        assert_eq!(names.len(), steps.len());
    }
});
