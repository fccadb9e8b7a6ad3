//! What is known of the crashed kernel. In: vmcoreinfo and memory. Out: [`Kernel`]: its name, its time of death, its
//! paging if that can be trusted.
//! May surprise: paging is trusted only if the release read through it from the kernel's own memory is the one
//! vmcoreinfo names; that one comparison catches a wrong `phys_base`, a wrong mask and foreign notes alike.

use crate::arch::Arch;
use crate::dumpfile::layout::UTSNAME;
use crate::paging::{Translate, Virtual};
use crate::units::PageSize;
use crate::vmcore::read::PhysMem;
use crate::vmcoreinfo::Facts;

/// One name of utsname.
const NAME: usize = 65;

/// Which name of utsname is the machine's.
pub const MACHINE: usize = 4;

/// The crashed kernel.
pub struct Kernel {
    /// Its vmcoreinfo.
    pub facts: Facts,
    /// The machine it ran on, if it is one that is known.
    pub arch: Option<&'static Arch>,
    /// Its page size.
    pub page: PageSize,
    /// How its virtual memory is read, if it can be.
    pub paging: Option<Box<dyn Translate>>,
    /// The six names of `init_uts_ns`; made up from vmcoreinfo where memory does not tell.
    pub utsname: Box<[u8; UTSNAME]>,
    /// Unix time of the crash.
    pub crash_time: Option<u64>,
    /// What memory says instead, where that is not the release that vmcoreinfo names.
    pub other_release: Option<String>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("release", &self.release()).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Learns what `vmcoreinfo` and `mem` tell. What they do not tell is named in `problems`.
    pub fn learn(vmcoreinfo: &[u8], mem: &dyn PhysMem, problems: &mut Vec<String>) -> Kernel {
        let facts = Facts::parse(vmcoreinfo);
        if facts.is_empty() {
            problems.push("vmcoreinfo is missing from the vmcore".into());
        }
        let (arch, page) = (mem.arch(), mem.segments().page());
        if let Some(stated) = facts.text("PAGESIZE").filter(|stated| *stated != page.bytes().to_string()) {
            problems.push(format!("vmcoreinfo states a page size of {stated}; {} is used", page.bytes()));
        }
        let (utsname, crash_time) = (made_up(&facts, arch), facts.plain("CRASHTIME"));
        let mut kernel = Kernel { arch, page, paging: None, utsname, crash_time, facts, other_release: None };
        if kernel.facts.is_empty() {
            return kernel;
        }
        let unknown = || format!("this program knows machines of {} only", Arch::names());
        let paging = arch.ok_or_else(unknown);
        let paging = paging.and_then(|arch| (arch.paging)(&kernel.facts, page, &mem.segments().loads));
        match paging.and_then(|paging| kernel.trust(mem, paging)) {
            Ok(()) => {}
            Err(why) => problems.push(format!("the kernel's virtual memory cannot be read: {why}")),
        }
        kernel
    }

    fn trust(&mut self, mem: &dyn PhysMem, paging: Box<dyn Translate>) -> Result<(), String> {
        let base = self.facts.symbol("init_uts_ns").ok_or("no SYMBOL(init_uts_ns) in vmcoreinfo")?;
        let offset = self.facts.offset("uts_namespace.name").ok_or("no OFFSET(uts_namespace.name) in vmcoreinfo")?;
        let at = base.checked_add(offset as u64).ok_or("SYMBOL(init_uts_ns) makes no sense")?;
        let mut names = Box::new([0; UTSNAME]);
        let read = Virtual::new(mem, paging.as_ref()).read(at, names.as_mut_slice());
        read.map_err(|e| format!("init_uts_ns: {}", crate::error::chain(&e)))?;
        let (found, stated) = (name(&names, 2), self.facts.text("OSRELEASE").unwrap_or_default());
        if found != stated {
            self.other_release = Some(found.clone());
            return Err(format!("it names release {found:?} where vmcoreinfo names {stated:?}"));
        }
        self.utsname = names;
        self.paging = Some(paging);
        Ok(())
    }

    /// What dumps call `phys_base`.
    pub fn phys_base(&self) -> u64 {
        self.arch.map_or(0, |arch| (arch.phys_base)(&self.facts))
    }

    /// The kernel release, empty if not known.
    pub fn release(&self) -> String {
        name(&self.utsname, 2)
    }

    /// A reader of its virtual memory.
    pub fn memory<'a>(&'a self, mem: &'a dyn PhysMem) -> Option<Virtual<'a>> {
        self.paging.as_deref().map(|paging| Virtual::new(mem, paging))
    }
}

/// Name number `index` of utsname, as far as it can be printed.
pub fn name(utsname: &[u8; UTSNAME], index: usize) -> String {
    let name = &utsname[index * NAME..(index + 1) * NAME];
    let end = name.iter().position(|b| *b == 0).unwrap_or(NAME);
    name[..end].iter().map(|b| if (b' '..=b'~').contains(b) { char::from(*b) } else { '?' }).collect()
}

/// Readers insist on the machine's name, so that one is always there.
fn made_up(facts: &Facts, arch: Option<&Arch>) -> Box<[u8; UTSNAME]> {
    let mut names = Box::new([0; UTSNAME]);
    let machine = arch.map_or("", |arch| arch.name);
    for (index, text) in [(0, "Linux"), (2, facts.text("OSRELEASE").unwrap_or_default()), (MACHINE, machine)] {
        let room = &mut names[index * NAME..(index + 1) * NAME - 1];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
    names
}
