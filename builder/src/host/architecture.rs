//! Whether the programs of an image are for the processor that its kernel is for.
//!
//! In: the kernel's configuration or file, or a module of the plan, and all programs of the plan. Out: a problem for each
//! program of another architecture. May surprise: a kernel of which none of these tells is not checked, and 32-bit
//! programs pass on a 64-bit kernel of their kind.

use super::{Kernel, Tree, kernel};
use crate::plan::{Entry, Kind, Plan};
use anyhow::anyhow;
use goblin::elf::header::{EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_PPC, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64};
use std::fs::File;
use std::io::Read;

/// Architectures as ELF numbers them, what a kernel's configuration says of each, and their names.
const KNOWN: [(u16, &str, &str); 9] = [
    (EM_X86_64, "CONFIG_X86_64", "x86_64"),
    (EM_AARCH64, "CONFIG_ARM64", "aarch64"),
    (EM_PPC64, "CONFIG_PPC64", "ppc64"),
    (EM_S390, "CONFIG_S390", "s390x"),
    (EM_RISCV, "CONFIG_RISCV", "riscv64"),
    (EM_LOONGARCH, "CONFIG_LOONGARCH", "loongarch64"),
    (EM_386, "CONFIG_X86_32", "i386"),
    (EM_ARM, "CONFIG_ARM", "arm"),
    (EM_PPC, "CONFIG_PPC32", "ppc"),
];

/// Kernels, and whose programs they run besides their own.
const ALSO: [(u16, u16); 3] = [(EM_X86_64, EM_386), (EM_AARCH64, EM_ARM), (EM_PPC64, EM_PPC)];

/// What of a file tells.
const HEAD: usize = 0x210;

/// A problem for each program that the kernel cannot run.
pub fn check(plan: &Plan, kernel: &Kernel, tree: &Tree) -> Vec<anyhow::Error> {
    let Some(machine) = machine(plan, kernel, tree) else { return Vec::new() };
    let programs = plan.entries().filter(|entry| entry.mode & 0o111 != 0 && !is_module(entry));
    let wrong = programs.filter_map(|entry| {
        let of = of_elf(bytes(entry)?).filter(|of| *of != machine && !ALSO.contains(&(machine, *of)))?;
        let (release, kernels, own) = (&kernel.release, name(machine), name(of));
        let remedy = match entry.path.as_str() {
            "init" => "name the directory with programs of ours for that architecture with --programs",
            path if path.contains("kdump-") => "its directory of --programs has to be for that architecture, too",
            _ => "take it from a system of that architecture, with --sysroot",
        };
        Some(anyhow!("kernel {release} is for {kernels}, and /{} for {own} ({}): {remedy}", entry.path, entry.reason))
    });
    wrong.collect()
}

/// What the kernel is for.
fn machine(plan: &Plan, kernel: &Kernel, tree: &Tree) -> Option<u16> {
    let config = kernel::config_of(tree, &kernel.release, &kernel.modules_dir);
    let by_config =
        config.and_then(|config| KNOWN.iter().find(|(_, option, _)| config.has(option)).map(|known| known.0));
    let by_file = || {
        let mut head = Vec::new();
        let file = File::open(kernel.file(tree).ok()?).ok()?;
        file.take(HEAD as u64).read_to_end(&mut head).ok()?;
        of_kernel(&head)
    };
    by_config
        .or_else(by_file)
        .or_else(|| plan.entries().filter(|entry| is_module(entry)).find_map(|entry| of_elf(bytes(entry)?)))
}

fn is_module(entry: &Entry) -> bool {
    entry.path.starts_with("lib/modules/")
}

fn bytes(entry: &Entry) -> Option<&[u8]> {
    match &entry.kind {
        Kind::File(bytes) => Some(bytes),
        _ => None,
    }
}

/// What a kernel is for by its first bytes: a bzImage, arm64's or RISC-V's Image, or an ELF file.
fn of_kernel(head: &[u8]) -> Option<u16> {
    match () {
        () if head.get(0x202..0x206) == Some(b"HdrS") => Some(EM_X86_64),
        () if head.get(0x38..0x3c) == Some(b"ARM\x64") => Some(EM_AARCH64),
        () if head.get(0x38..0x3c) == Some(b"RSC\x05") => Some(EM_RISCV),
        () => of_elf(head),
    }
}

/// What an ELF file is for.
fn of_elf(bytes: &[u8]) -> Option<u16> {
    let field = bytes.strip_prefix(b"\x7fELF").and(bytes.get(18..20))?.try_into().ok()?;
    Some(if bytes.get(5) == Some(&2) { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) })
}

fn name(machine: u16) -> String {
    let known = KNOWN.iter().find(|(number, ..)| *number == machine);
    known.map_or_else(|| format!("the architecture {machine} of ELF"), |(.., name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::object;

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = object(&[]);
        bytes[18] = machine;
        bytes
    }

    fn arm_image() -> Vec<u8> {
        let mut image = vec![0; 64];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image
    }

    fn problems(config: &str, image: &[u8], module: Option<u8>, program: &[u8]) -> Vec<String> {
        let (_dir, tree) =
            crate::fake::tree(&[("lib/modules/6.1/modules.dep", ""), ("boot/config-6.1", config)]).unwrap();
        std::fs::write(tree.path("boot/vmlinuz-6.1"), image).unwrap();
        let kernel = Kernel::find(&tree, Some("6.1"), None).unwrap();
        let mut plan = Plan::default();
        plan.add(Entry::program("init", program.to_vec(), "PID 1")).unwrap();
        plan.add(Entry::file("lib/firmware/x", elf(40), "firmware of a coprocessor")).unwrap();
        if let Some(machine) = module {
            plan.add(Entry::file("lib/modules/6.1/a.ko", elf(machine), "a")).unwrap();
        }
        check(&plan, &kernel, &tree).iter().map(|error| format!("{error:#}")).collect()
    }

    #[test]
    fn a_program_for_another_processor_than_the_kernel_s_is_told_with_the_remedy() {
        let words = "kernel 6.1 is for aarch64, and /init for x86_64 (PID 1): name the directory with programs of ours for \
                     that architecture with --programs";
        assert_eq!(problems("CONFIG_ARM64=y\n", b"", None, &elf(62)), [words]);
        assert_eq!(problems("", &arm_image(), None, &elf(62)), [words]);
        assert_eq!(problems("", b"?", Some(183), &elf(62)), [words]);
        assert_eq!(problems("CONFIG_S390=y\n", b"", None, &elf(62)).len(), 1);
    }

    #[test]
    fn what_the_kernel_runs_passes_and_so_does_what_nobody_can_tell() {
        for (config, image, module, program) in [
            ("CONFIG_ARM64=y\n", &b""[..], None, elf(183)),
            ("CONFIG_ARM64=y\n", b"", None, elf(40)),
            ("CONFIG_X86_64=y\n", b"", Some(62), elf(3)),
            ("CONFIG_ARM64=y\n", b"", None, b"#!/bin/sh\n".to_vec()),
            ("", b"?", None, elf(62)),
        ] {
            assert_eq!(problems(config, image, module, &program), [""; 0], "{config}");
        }
    }
}
