//! `/proc/iomem`: which memory is what.
//!
//! In: its lines, indented below what contains them. Out: resources. May surprise: who is not root sees zeros in place of
//! addresses; then there is no memory in it, which is an error here.

use super::{LOW, PAGE};
use crate::host::Tree;
use anyhow::{Context, bail};
use std::fs;
use std::ops::Range;

/// What a piece of memory is for, as the firmware's table of memory tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ordinary memory.
    Ram,
    /// Not to be touched.
    Reserved,
    /// Tables of ACPI.
    AcpiTables,
    /// What ACPI keeps over a sleep.
    AcpiStorage,
}

impl Kind {
    /// Its number in the table.
    pub(super) fn number(self) -> u32 {
        match self {
            Kind::Ram => 1,
            Kind::Reserved => 2,
            Kind::AcpiTables => 3,
            Kind::AcpiStorage => 4,
        }
    }

    fn named(name: &str) -> Option<Kind> {
        match name.to_ascii_lowercase().as_str() {
            "system ram" => Some(Kind::Ram),
            "reserved" | "unusable memory" => Some(Kind::Reserved),
            "acpi tables" => Some(Kind::AcpiTables),
            "acpi non-volatile storage" => Some(Kind::AcpiStorage),
            _ => None,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// From, and up to but not including.
    pub range: Range<u64>,
    /// Its name.
    pub name: String,
    /// How many resources contain it.
    pub depth: usize,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iomem {
    /// In the order of the file.
    pub resources: Vec<Resource>,
}

impl Iomem {
    /// That of a machine.
    ///
    /// # Errors
    /// It cannot be read, or it has no addresses in it.
    pub fn of(tree: &Tree) -> anyhow::Result<Iomem> {
        let text = fs::read_to_string(tree.path("proc/iomem")).context("cannot read /proc/iomem")?;
        let iomem = Iomem::parse(&text);
        if !iomem.ram().any(|range| range.end > PAGE) {
            bail!("/proc/iomem shows no addresses; run it as root, with CAP_SYS_ADMIN");
        }
        Ok(iomem)
    }

    /// Reads the text; lines that are no resources are passed over.
    pub fn parse(text: &str) -> Iomem {
        let resource = |line: &str| {
            let (span, name) = line.split_once(" : ")?;
            let (from, to) = span.trim().split_once('-')?;
            let from = u64::from_str_radix(from, 16).ok()?;
            let to = u64::from_str_radix(to, 16).ok()?.checked_add(1)?;
            let depth = (line.len() - line.trim_start().len()) / 2;
            (from < to).then(|| Resource { range: from..to, name: name.trim().to_owned(), depth })
        };
        Iomem { resources: text.lines().filter_map(resource).collect() }
    }

    fn ram(&self) -> impl Iterator<Item = Range<u64>> {
        let is_ram = |it: &&Resource| it.depth == 0 && Kind::named(&it.name) == Some(Kind::Ram);
        self.resources.iter().filter(is_ram).map(|it| it.range.clone())
    }

    /// What is reserved for a capture kernel.
    pub fn crash_kernels(&self) -> impl Iterator<Item = Range<u64>> {
        self.resources.iter().filter(|it| it.name == "Crash kernel").map(|it| it.range.clone())
    }

    /// The memory in which a capture kernel is loaded. Of two, the lower one only serves devices that reach no higher.
    pub fn crash_kernel(&self) -> Option<Range<u64>> {
        self.crash_kernels().max_by_key(|range| range.start)
    }

    /// The largest piece of ordinary memory that every kernel can be loaded into.
    pub(super) fn largest_below_4g(&self) -> Option<Range<u64>> {
        let pieces = self.ram().map(|range| range.start.max(LOW)..range.end.min(1 << 32));
        pieces.filter(|range| range.start < range.end).max_by_key(|range| range.end - range.start)
    }

    /// The memory that a dump has in it: all but the lowest MiB and what is reserved for the capture kernel.
    pub(super) fn dumped(&self) -> Vec<Range<u64>> {
        let mut holes: Vec<Range<u64>> = self.crash_kernels().collect();
        holes.push(0..LOW);
        let mut pieces: Vec<Range<u64>> = self.ram().collect();
        for hole in holes {
            pieces = pieces.into_iter().flat_map(|piece| without(piece, &hole)).collect();
        }
        pieces
    }

    /// What a capture kernel is told of memory: that it may use the lowest MiB and what is reserved for it, but for the
    /// headers of the dump; and what is not memory.
    pub(super) fn for_capture(&self, headers: Option<&Range<u64>>) -> Vec<(Range<u64>, Kind)> {
        let mut memory: Vec<Range<u64>> = self.ram().map(|range| range.start..range.end.min(LOW)).collect();
        memory.retain(|range| range.start < range.end);
        memory.extend(self.crash_kernels());
        if let Some(headers) = headers {
            memory = memory.into_iter().flat_map(|piece| without(piece, headers)).collect();
        }
        let mut table: Vec<(Range<u64>, Kind)> = memory.into_iter().map(|range| (range, Kind::Ram)).collect();
        table.extend(self.others());
        table.sort_by_key(|(range, _)| range.start);
        table
    }

    /// What the next kernel of a reboot is told: what the firmware said.
    pub(super) fn for_reboot(&self, tree: &Tree) -> Vec<(Range<u64>, Kind)> {
        let mut table = firmware(tree);
        if table.is_empty() {
            table = self.ram().map(|range| (range, Kind::Ram)).chain(self.others()).collect();
        }
        table.sort_by_key(|(range, _)| range.start);
        table
    }

    fn others(&self) -> impl Iterator<Item = (Range<u64>, Kind)> {
        let other = |it: &Resource| {
            let kind = Kind::named(&it.name).filter(|kind| *kind != Kind::Ram && it.depth == 0)?;
            Some((it.range.clone(), kind))
        };
        self.resources.iter().filter_map(other)
    }
}

/// The firmware's own table, before the kernel has taken anything out of it.
fn firmware(tree: &Tree) -> Vec<(Range<u64>, Kind)> {
    let entries = fs::read_dir(tree.path("sys/firmware/memmap")).into_iter().flatten().flatten();
    let entry = |dir: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        let number = |name: &str| u64::from_str_radix(read(name)?.trim().strip_prefix("0x")?, 16).ok();
        let range = number("start")?..number("end")?.checked_add(1)?;
        Some((range, Kind::named(read("type")?.trim()).unwrap_or(Kind::Reserved)))
    };
    entries.filter_map(entry).collect()
}

/// A piece without a hole: what is left on both sides.
fn without(piece: Range<u64>, hole: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let below = piece.start..piece.end.min(hole.start);
    let above = piece.start.max(hole.end)..piece.end;
    let parts = if hole.start >= hole.end { [piece, 0..0] } else { [below, above] };
    parts.into_iter().filter(|part| part.start < part.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_capture_kernel_gets_its_own_memory_and_the_dump_has_the_rest() {
        let iomem = Iomem::parse(
            "00001000-0009ffff : System RAM\n00100000-bfffffff : System RAM\n  01000000-01ffffff : Kernel code\n  \
             a0000000-a47fffff : Crash kernel\nc0000000-c0ffffff : ACPI Tables\nd0000000-dfffffff : PCI Bus 0000:00\n\
             100000000-2ffffffff : System RAM\n  200000000-21fffffff : Crash kernel\n",
        );
        assert_eq!(iomem.crash_kernel(), Some(0x2_0000_0000..0x2_2000_0000));
        assert_eq!(
            iomem.dumped(),
            [
                0x10_0000..0xa000_0000,
                0xa480_0000..0xc000_0000,
                0x1_0000_0000..0x2_0000_0000,
                0x2_2000_0000..0x3_0000_0000
            ]
        );
        assert_eq!(
            iomem.for_capture(Some(&(0x2_1fff_0000..0x2_2000_0000))),
            [
                (0x1000..0xa_0000, Kind::Ram),
                (0xa000_0000..0xa480_0000, Kind::Ram),
                (0xc000_0000..0xc100_0000, Kind::AcpiTables),
                (0x2_0000_0000..0x2_1fff_0000, Kind::Ram)
            ]
        );
    }

    #[test]
    fn who_is_not_root_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        fs::create_dir(tree.path("proc")).unwrap();
        fs::write(tree.path("proc/iomem"), "00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n").unwrap();
        assert!(Iomem::of(&tree).unwrap_err().to_string().contains("run it as root"));
    }

    proptest! {
        #[test]
        fn a_hole_takes_away_what_it_covers_and_no_more(a in 0..100_u64, b in 0..100_u64, c in 0..100_u64, d in 0..100_u64) {
            let (piece, hole) = (a.min(b)..a.max(b), c.min(d)..c.max(d));
            let left: Vec<Range<u64>> = without(piece.clone(), &hole).collect();
            for at in 0..100 {
                let expected = piece.contains(&at) && !hole.contains(&at);
                prop_assert_eq!(left.iter().any(|part| part.contains(&at)), expected);
            }
        }

        #[test]
        fn any_text_is_read_in_peace(text in "[0-9a-f :\\n-]{0,200}") {
            let iomem = Iomem::parse(&text);
            prop_assert!(iomem.dumped().iter().all(|range| range.start < range.end));
        }
    }
}
