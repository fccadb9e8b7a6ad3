//! `kdumpctl` on a machine made of files, with a reserved memory that only records. Each test file adds what it asks of it.

use clap::Parser;
use kdump_builder::cli::Kdumpctl;
use kdump_builder::fake::FakeSystem;
use kdump_builder::host::Tree;
use kdump_builder::kdumpctl;
use kdump_builder::kexec::fake::FakeKexec;
use std::io::Write;
use std::process::ExitCode;
use tempfile::TempDir;

pub(crate) struct Machine {
    _dir: TempDir,
    pub(crate) system: FakeSystem,
    pub(crate) kexec: FakeKexec,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let system = FakeSystem::new(dir.path()).unwrap();
        Machine { _dir: dir, system, kexec: FakeKexec::default() }
    }

    /// What comes of `kdumpctl` with these words, and what it says.
    pub(crate) fn kdumpctl<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> (anyhow::Result<ExitCode>, String) {
        let mut out = Vec::new();
        let result = self.kdumpctl_to(words, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    /// As [`Machine::kdumpctl`], with what it says as it is said.
    pub(crate) fn kdumpctl_to<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        out: &mut dyn Write,
    ) -> anyhow::Result<ExitCode> {
        let programs = self.system.programs();
        let typed = ["kdumpctl", "--programs", programs.to_str().unwrap()].map(str::to_owned);
        let typed = Kdumpctl::try_parse_from(typed.into_iter().chain(words.into_iter().map(str::to_owned))).unwrap();
        kdumpctl::run(&typed, Tree::new(&self.system.root), &self.kexec, out)
    }
}
