//! What kexec_load is given: every byte that the next kernel finds in its memory, and where.
//!
//! In: a bzImage, an image, a command line, and what this kernel says of the machine. Out: [`Layout`]. For a crash all of it
//! lies in the reserved memory:
//!
//! ```text
//!  │ kernel, as much as it takes to unpack itself │  …  │ stub │ boot_params, command line │ initramfs │ elfcorehdr │
//!  ▲ start of the reserved memory                                                                     its end ▲
//! ```
//!
//! | file | has |
//! |---|---|
//! | `iomem.rs` | `/proc/iomem`: which memory is what |
//! | `bzimage.rs` | the kernel's setup header and the page of boot parameters made of it |
//! | `elfcorehdr.rs` | the headers of the next `/proc/vmcore` |
//! | `stub.rs` | the few instructions between the two kernels |
//!
//! May surprise: there is no checksum over the segments here, as other loaders have it; what overwrites reserved memory in
//! the old kernel is found by the kernel that unpacks itself or by init, if at all. The lowest MiB is not part of the dump,
//! as with kexec_file_load: the next kernel uses it. EFI services are not handed on; ACPI's tables are.

mod bzimage;
mod elfcorehdr;
mod iomem;
mod stub;

pub use bzimage::BzImage;
pub use iomem::{Iomem, Kind, Resource};

use super::Purpose;
use crate::host::Tree;
use anyhow::{Context, bail};
use std::ffi::CStr;
use std::fmt;
use std::ops::Range;

/// Bytes of a page of x86.
pub(super) const PAGE: u64 = 4096;
/// What no segment of a normal kernel may lie in, and no memory of a dump.
const LOW: u64 = 1 << 20;

/// Bytes, and where the next kernel finds them.
#[derive(Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is.
    pub name: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their physical address.
    pub place: u64,
    /// How much memory is set aside for them; the rest is zeros.
    pub size: u64,
}

impl Segment {
    fn new(name: &'static str, bytes: Vec<u8>, place: u64, size: u64) -> Segment {
        Segment { name, bytes, place, size }
    }

    fn range(&self) -> Range<u64> {
        self.place..self.place.saturating_add(self.size)
    }
}

/// `kernel 0x2000000+0x1400000`.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}+{:#x}", self.name, self.place, self.size)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All that is loaded.
#[derive(Debug)]
pub struct Layout {
    /// Where the next kernel is entered.
    pub entry: u64,
    /// What is in memory, lowest first.
    pub segments: Vec<Segment>,
    /// Whether there is room for the running kernel to keep the headers of the dump up to date.
    pub follows: bool,
}

/// Lays everything out.
///
/// # Errors
/// The image is none that can be loaded so, there is too little memory, or this kernel does not say what has to be known.
pub fn lay_out(tree: &Tree, purpose: Purpose, kernel: &[u8], image: Vec<u8>, cmdline: &CStr) -> anyhow::Result<Layout> {
    if !cfg!(target_arch = "x86_64") {
        bail!("kexec_load is only known here for x86_64; use kexec_file_load (--syscall file)");
    }
    let kernel = BzImage::parse(kernel)?;
    let iomem = Iomem::of(tree)?;
    let room = match purpose {
        Purpose::Crash => iomem.crash_kernel().context("there is no `Crash kernel` in /proc/iomem")?,
        Purpose::Reboot => iomem.largest_below_4g().context("there is no memory in /proc/iomem")?,
    };
    let mut shelf = Shelf { room: room.clone(), top: room.end };
    let start = room.start.max(LOW).next_multiple_of(kernel.alignment);
    let mut segments = vec![Segment::new("kernel", kernel.code.to_vec(), start, kernel.size)];
    shelf.room.start = segments.iter().map(|segment| segment.range().end).max().unwrap_or(room.start);
    if shelf.room.start > room.end {
        return Err(shelf.too_small());
    }

    let mut line = cmdline.to_bytes().to_vec();
    let mut follows = false;
    let mut headers = None;
    if purpose == Purpose::Crash {
        let bytes = elfcorehdr::make(tree, &iomem)?;
        // What the kernel says it needs for all processors and memory that may ever come.
        let wanted = tree.line("sys/kernel/crash_elfcorehdr_size").and_then(|size| size.parse::<u64>().ok());
        follows = wanted.is_some();
        let segment = shelf.put("elfcorehdr", bytes, wanted.unwrap_or(0))?;
        line.splice(0..0, format!("elfcorehdr={:#x} ", segment.place).into_bytes());
        headers = Some(segment.range());
        segments.push(segment);
    }
    line.push(0);
    let initramfs = match image.is_empty() {
        true => None,
        false => Some(shelf.put("initramfs", image, 0)?),
    };
    let initramfs_range = initramfs.as_ref().map(|segment| segment.place..segment.place + segment.bytes.len() as u64);
    segments.extend(initramfs);
    let memory = match purpose {
        Purpose::Crash => iomem.for_capture(headers.as_ref()),
        Purpose::Reboot => iomem.for_reboot(tree),
    };
    let place = shelf.next(2 * PAGE)?;
    let firmware = bzimage::Firmware::of(tree);
    let parameters = kernel.parameters(place + PAGE, &line, initramfs_range.as_ref(), &memory, &firmware)?;
    let parameters = shelf.put("parameters", parameters, 2 * PAGE)?;
    let place = shelf.next(PAGE)?;
    let stub = stub::make(place, start + bzimage::ENTRY, parameters.place);
    segments.push(parameters);
    segments.push(shelf.put("stub", stub, PAGE)?);
    if room.end > 1 << 32 && !kernel.above_4g {
        bail!(
            "the memory for it lies above 4 GiB, where this kernel cannot be loaded; reserve it below, with crashkernel=X"
        );
    }
    segments.sort_by_key(|segment| segment.place);
    Ok(Layout { entry: place, segments, follows })
}

/// Memory that is given out from its end.
struct Shelf {
    /// What is left of it.
    room: Range<u64>,
    top: u64,
}

impl Shelf {
    /// Where a segment of that size will lie.
    fn next(&self, size: u64) -> anyhow::Result<u64> {
        let place = self.top.checked_sub(size.next_multiple_of(PAGE)).map(|place| place / PAGE * PAGE);
        place.filter(|place| *place >= self.room.start).ok_or_else(|| self.too_small())
    }

    fn put(&mut self, name: &'static str, bytes: Vec<u8>, size: u64) -> anyhow::Result<Segment> {
        let size = size.max(bytes.len() as u64).next_multiple_of(PAGE);
        self.top = self.next(size)?;
        Ok(Segment::new(name, bytes, self.top, size))
    }

    fn too_small(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "the memory up to {:#x} is too small for kernel and image; raise crashkernel= (kdumpctl estimate says to what) \
             and reboot",
            self.top
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IOMEM: &str = "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n0009fc00-0009ffff : Reserved\n\
        00100000-1ffdffff : System RAM\n  01000000-01e00fff : Kernel code\n  16000000-1dffffff : Crash kernel\n\
        1ffe0000-1fffffff : ACPI Tables\nfeffc000-feffffff : Reserved\n";

    fn tree(iomem: &str) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for (path, text) in [
            ("proc/iomem", iomem),
            ("sys/devices/system/cpu/cpu0/crash_notes", "1fe12340\n"),
            ("sys/devices/system/cpu/cpu0/crash_notes_size", "376\n"),
            ("sys/kernel/vmcoreinfo", "1e0b000 1024\n"),
        ] {
            std::fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            std::fs::write(tree.path(path), text).unwrap();
        }
        (dir, tree)
    }

    #[test]
    fn everything_lies_in_the_reserved_memory_and_nothing_on_anything_else() {
        let (_dir, tree) = tree(IOMEM);
        let kernel = bzimage::tests::kernel(5 << 20, 20 << 20);
        let layout = lay_out(&tree, Purpose::Crash, &kernel, vec![7; 3_000_001], c"quiet nr_cpus=1").unwrap();
        assert_eq!(layout.segments.len(), 5);
        for pair in layout.segments.windows(2) {
            assert!(pair[0].range().end <= pair[1].place, "{:?}", layout.segments);
        }
        for segment in &layout.segments {
            assert!(segment.place >= 0x1600_0000 && segment.range().end <= 0x1e00_0000, "{segment}");
            assert!(segment.place % PAGE == 0 && segment.size % PAGE == 0, "{segment}");
            assert!(segment.bytes.len() as u64 <= segment.size, "{segment}");
        }
        assert_eq!(layout.segments[0].to_string(), "kernel 0x16000000+0x1400000");
        assert!(!layout.follows);
        let find = |name| layout.segments.iter().find(|segment| segment.name == name).unwrap();
        assert_eq!(layout.entry, find("stub").place);
        let line = &find("parameters").bytes[4096..];
        let expected = format!("elfcorehdr={:#x} quiet nr_cpus=1\0", find("elfcorehdr").place);
        assert!(line.starts_with(expected.as_bytes()));
    }

    #[test]
    fn a_kernel_that_follows_hotplug_gets_the_room_that_it_asks_for() {
        let (_dir, tree) = tree(IOMEM);
        std::fs::write(tree.path("sys/kernel/crash_elfcorehdr_size"), "200704\n").unwrap();
        let kernel = bzimage::tests::kernel(5 << 20, 20 << 20);
        let layout = lay_out(&tree, Purpose::Crash, &kernel, vec![7; 10], c"").unwrap();
        assert!(layout.follows);
        let headers = layout.segments.iter().find(|segment| segment.name == "elfcorehdr").unwrap();
        assert_eq!(headers.size, 200_704);
    }

    #[test]
    fn too_small_a_reservation_is_told_before_the_kernel_is_asked() {
        let (_dir, tree) = tree(IOMEM);
        for (kernel, image) in [(200 << 20, 1), (20 << 20, 120 << 20)] {
            let kernel = bzimage::tests::kernel(5 << 20, kernel);
            let error = lay_out(&tree, Purpose::Crash, &kernel, vec![7; image], c"").unwrap_err().to_string();
            assert!(error.contains("raise crashkernel="), "{error}");
        }
    }

    #[test]
    fn the_next_kernel_of_a_reboot_lies_in_ordinary_memory_without_headers() {
        let (_dir, tree) = tree(IOMEM);
        let kernel = bzimage::tests::kernel(5 << 20, 20 << 20);
        let layout = lay_out(&tree, Purpose::Reboot, &kernel, vec![7; 10], c"root=/dev/vda1").unwrap();
        assert!(layout.segments.iter().all(|segment| segment.name != "elfcorehdr"));
        assert!(layout.segments.iter().all(|segment| segment.place >= LOW));
    }
}
