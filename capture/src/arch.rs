//! The kinds of machine a vmcore may come from. In: an ELF machine number, or a name as `uname -m` says it. Out:
//! [`Arch`]: what differs between them, in one value.
//! May surprise: nothing is chosen when the program is built: a dump of one architecture can be filtered and looked at on
//! any other.
//!
//! A new architecture is one file in `paging/` and one line in [`Arch::ALL`]. riscv64 (Sv39, Sv48, Sv57) and ppc64le
//! (radix trees, or a hash table with `vmemmap_list` beside it) need no more than that; page-table entries of ppc64le
//! are big-endian since Linux 4.7, which is its own file's business. s390x is big-endian throughout: before its file
//! there, `le64` and its like in `units.rs` would have to learn the byte order, as would the ELF reader.

use crate::paging::{Translate, aarch64, x86_64};
use crate::units::PageSize;
use crate::vmcore::segments::Load;
use crate::vmcoreinfo::Facts;

/// Makes the paging of one kernel, or says what is missing for it.
pub type NewPaging = fn(&Facts, PageSize, &[Load]) -> Result<Box<dyn Translate>, String>;

/// What differs between architectures.
pub struct Arch {
    /// As `uname -m` says it.
    pub name: &'static str,
    /// `e_machine`.
    pub elf: u16,
    /// The page sizes it can have; the first is the usual one.
    pub pages: &'static [PageSize],
    /// log2 of the bytes of a section, where the kernel does not say.
    pub section_bits: u32,
    /// log2 of the bytes of physical memory there can be, where the kernel does not say.
    pub physmem_bits: u32,
    /// What the header of a dump has as `phys_base`.
    pub phys_base: fn(&Facts) -> u64,
    /// Where the first page of FLATMEM's mem_map lies (`ARCH_PFN_OFFSET`, in bytes), if that is known.
    pub flat_base: fn(&Facts) -> Option<u64>,
    /// How virtual addresses are followed.
    pub paging: NewPaging,
}

impl std::fmt::Debug for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Known by name, so that they can be refused by name.
const NOT_YET: [(u16, &str); 7] =
    [(3, "i386"), (21, "ppc64"), (22, "s390x"), (40, "arm"), (50, "ia64"), (243, "riscv64"), (258, "loongarch64")];

impl Arch {
    /// All that are known.
    pub const ALL: [&'static Arch; 2] = [&x86_64::ARCH, &aarch64::ARCH];

    /// By `e_machine`.
    pub fn of_elf(machine: u16) -> Option<&'static Arch> {
        Self::ALL.into_iter().find(|arch| arch.elf == machine)
    }

    /// By the machine's name in utsname.
    pub fn named(name: &str) -> Option<&'static Arch> {
        Self::ALL.into_iter().find(|arch| arch.name == name)
    }

    /// The page size a kernel states, if such a machine can have it; else the usual one.
    pub fn page(&self, facts: &Facts) -> PageSize {
        let stated = facts.plain("PAGESIZE").and_then(PageSize::new);
        stated.filter(|page| self.pages.contains(page)).or(self.pages.first().copied()).unwrap_or(PageSize::K4)
    }

    /// The names of all, for messages.
    pub fn names() -> String {
        Self::ALL.map(|arch| arch.name).join(" and ")
    }

    /// What an ELF machine number means, known here or not.
    pub fn describe(machine: u16) -> String {
        let name = NOT_YET.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
        let name = name.or(Self::of_elf(machine).map(|arch| arch.name));
        name.map_or(format!("ELF machine {machine}"), |name| format!("{name} (ELF machine {machine})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_size_the_machine_cannot_have_is_not_believed() {
        for (arch, stated, used) in [
            ("x86_64", "4096", 4096),
            ("x86_64", "65536", 4096),
            ("aarch64", "65536", 65536),
            ("aarch64", "16384", 16384),
            ("aarch64", "8192", 4096),
            ("aarch64", "0", 4096),
            ("aarch64", "huge", 4096),
        ] {
            let facts = Facts::parse(format!("PAGESIZE={stated}").as_bytes());
            assert_eq!(Arch::named(arch).unwrap().page(&facts).bytes(), used, "{arch} {stated}");
        }
    }

    #[test]
    fn every_architecture_is_found_by_number_and_by_name() {
        for arch in Arch::ALL {
            assert_eq!(Arch::of_elf(arch.elf).unwrap().name, arch.name);
            assert_eq!(Arch::named(arch.name).unwrap().elf, arch.elf);
            assert!(!NOT_YET.iter().any(|(number, _)| *number == arch.elf));
        }
        assert_eq!(Arch::describe(22), "s390x (ELF machine 22)");
        assert_eq!(Arch::describe(9999), "ELF machine 9999");
    }
}
