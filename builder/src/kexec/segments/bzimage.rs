//! An x86 kernel as files have it, and the page of parameters that it is started with.
//!
//! In: a bzImage. Out: its code, how much memory it takes, and, for a place in memory, the parameters:
//!
//! ```text
//!  offset  0     0x40   0x70             0x1e8     0x1f1 ────── setup header ──────  0x2d0
//!         │screen│  …  │ACPI's table│ … │entries│  …│as in the file, then filled in│  …  │memory: address, size, kind│…
//! ```
//!
//! All of it is in the kernel's Documentation/arch/x86/boot.rst and zero-page.rst.

use super::PAGE;
use super::iomem::Kind;
use crate::host::Tree;
use anyhow::{Context, bail};
use std::fs;
use std::ops::Range;

/// Where the 64-bit entry is in the code.
pub(super) const ENTRY: u64 = 0x200;

const HEADER: usize = 0x1f1;
const SCREEN: Range<usize> = 0..0x40;
const RSDP: usize = 0x70;
const EDID: Range<usize> = 0x140..0x1c0;
const MEMORY_COUNT: usize = 0x1e8;
const MEMORY: usize = 0x2d0;
/// As many entries as fit into the page.
const MEMORY_MOST: usize = 128;
/// Sizes above which a file is no kernel.
const MOST: u64 = 1 << 30;

/// A kernel.
#[derive(Clone, Debug)]
pub struct BzImage<'a> {
    /// What is loaded.
    pub code: &'a [u8],
    /// The memory that it takes until it has unpacked itself.
    pub size: u64,
    /// What its address must be a multiple of.
    pub alignment: u64,
    /// Whether it can be loaded above 4 GiB.
    pub above_4g: bool,
    /// The longest command line.
    pub longest: u32,
    header: &'a [u8],
}

impl BzImage<'_> {
    /// Reads the setup header.
    ///
    /// # Errors
    /// It is none, or one that cannot be entered in 64-bit mode.
    pub fn parse(file: &[u8]) -> anyhow::Result<BzImage<'_>> {
        if file.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || file.get(0x202..0x206) != Some(b"HdrS") {
            bail!("this is no bzImage; name one with KDUMP_IMG");
        }
        let end = 0x202 + usize::from(byte(file, 0x201)?);
        if !(0x268..=0x290).contains(&end) || half(file, 0x206)? < 0x20c {
            bail!("this kernel is older than Linux 3.8, of which nobody can say how it is entered");
        }
        let flags = half(file, 0x236)?;
        let (relocatable, alignment) = (byte(file, 0x234)?, u64::from(word(file, 0x230)?));
        if flags & 1 == 0 {
            bail!("this kernel has no 64-bit entry; it is one for 32 bits");
        }
        if relocatable == 0 || !alignment.is_power_of_two() || !(PAGE..=MOST).contains(&alignment) {
            bail!("this kernel runs at one address only; build it with CONFIG_RELOCATABLE");
        }
        let sectors = match byte(file, HEADER)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let code = file.get((sectors + 1) * 512..).context("this kernel ends before its code begins")?;
        let size = u64::from(word(file, 0x260)?).max(code.len() as u64).next_multiple_of(PAGE);
        if size > MOST || (code.len() as u64) <= ENTRY {
            bail!("this kernel says that it is of {size} bytes, which is no size for one");
        }
        Ok(BzImage {
            code,
            size,
            alignment,
            above_4g: flags & 2 != 0,
            longest: word(file, 0x238)?,
            header: file.get(HEADER..end).context("this kernel ends in its header")?,
        })
    }

    /// The page of parameters and the command line behind it, which will lie at `line_at`.
    ///
    /// # Errors
    /// The command line is too long.
    pub(super) fn parameters(
        &self,
        line_at: u64,
        line: &[u8],
        initramfs: Option<&Range<u64>>,
        memory: &[(Range<u64>, Kind)],
        firmware: &Firmware,
    ) -> anyhow::Result<Vec<u8>> {
        let longest = usize::try_from(self.longest).unwrap_or(usize::MAX).min(4095);
        if line.len() > longest + 1 {
            bail!("the command line has {} bytes, {longest} are possible", line.len() - 1);
        }
        let mut page = vec![0; 4096];
        put(&mut page, HEADER, self.header);
        // What a file says of its loader is not true any more.
        put(&mut page, 0x210, &[0xff, 0]);
        let (low, high) = halves(line_at);
        put(&mut page, 0x228, &low);
        put(&mut page, 0xc8, &high);
        for (place, more, value) in [
            (0x218, 0xc0, initramfs.map_or(0, |range| range.start)),
            (0x21c, 0xc4, initramfs.map_or(0, |range| range.end - range.start)),
        ] {
            let (low, high) = halves(value);
            put(&mut page, place, &low);
            put(&mut page, more, &high);
        }
        // No list of more data.
        put(&mut page, 0x250, &[0; 8]);
        put(&mut page, SCREEN.start, &firmware.screen);
        put(&mut page, EDID.start, &firmware.edid);
        put(&mut page, RSDP, &firmware.rsdp.to_le_bytes());
        let memory = memory.get(..memory.len().min(MEMORY_MOST)).unwrap_or_default();
        put(&mut page, MEMORY_COUNT, &[u8::try_from(memory.len()).unwrap_or(u8::MAX)]);
        for (number, (range, kind)) in memory.iter().enumerate() {
            let mut entry = [0; 20];
            put(&mut entry, 0, &range.start.to_le_bytes());
            put(&mut entry, 8, &(range.end - range.start).to_le_bytes());
            put(&mut entry, 16, &kind.number().to_le_bytes());
            put(&mut page, MEMORY + number * entry.len(), &entry);
        }
        page.extend_from_slice(line);
        Ok(page)
    }
}

/// What the running kernel knows from the firmware and the next one cannot ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firmware {
    screen: Vec<u8>,
    edid: Vec<u8>,
    /// Where ACPI's tables begin; 0 if the next kernel finds that itself, as with a BIOS.
    rsdp: u64,
}

impl Firmware {
    /// What this machine's was.
    pub(super) fn of(tree: &Tree) -> Firmware {
        let own = fs::read(tree.path("sys/kernel/boot_params/data")).unwrap_or_default();
        let part = |range: Range<usize>| own.get(range).unwrap_or_default().to_vec();
        let systab = tree.line("sys/firmware/efi/systab").unwrap_or_default();
        let listed = ["ACPI20=0x", "ACPI=0x"].iter().find_map(|name| {
            let address = systab.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(address, 16).ok()
        });
        let booted = own.get(RSDP..RSDP + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        Firmware { screen: part(SCREEN), edid: part(EDID), rsdp: listed.or(booted).unwrap_or(0) }
    }
}

fn put(page: &mut [u8], place: usize, bytes: &[u8]) {
    if let Some(target) = page.get_mut(place..place + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// The lower and the upper four bytes.
fn halves(value: u64) -> ([u8; 4], [u8; 4]) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    ([a, b, c, d], [e, f, g, h])
}

fn byte(file: &[u8], place: usize) -> anyhow::Result<u8> {
    file.get(place).copied().context("this kernel ends in its header")
}

fn half(file: &[u8], place: usize) -> anyhow::Result<u16> {
    Ok(u16::from_le_bytes([byte(file, place)?, byte(file, place + 1)?]))
}

fn word(file: &[u8], place: usize) -> anyhow::Result<u32> {
    let bytes = file.get(place..place + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).context("this kernel ends in its header")
}

#[cfg(test)]
pub(in crate::kexec) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A kernel with so much code that takes so much memory.
    pub(in crate::kexec) fn kernel(code: usize, size: u32) -> Vec<u8> {
        let mut file = vec![0x90; 5 * 512 + code];
        file[HEADER..0x290].fill(0);
        file[HEADER] = 4;
        put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
        put(&mut file, 0x202, b"HdrS");
        put(&mut file, 0x206, &0x20f_u16.to_le_bytes());
        put(&mut file, 0x210, &[0x21, 1]);
        put(&mut file, 0x230, &(2_u32 << 20).to_le_bytes());
        put(&mut file, 0x234, &[1, 21, 3, 0]);
        put(&mut file, 0x238, &2047_u32.to_le_bytes());
        put(&mut file, 0x260, &size.to_le_bytes());
        file
    }

    #[test]
    fn the_header_says_where_code_is_and_what_it_takes() {
        let file = kernel(10_000, 20 << 20);
        let found = BzImage::parse(&file).unwrap();
        assert_eq!((found.code.len(), found.size, found.alignment), (10_000, 20 << 20, 2 << 20));
        assert!(found.above_4g);
        assert_eq!(BzImage::parse(&kernel(5000, 1)).unwrap().size, 8192);
    }

    #[test]
    fn what_cannot_be_entered_is_refused_with_its_reason() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: [(Spoil, &str); 6] = [
            (|file| file[0x203] = 0, "no bzImage"),
            (|file| file[0x206] = 5, "older than Linux 3.8"),
            (|file| file[0x236] = 0, "no 64-bit entry"),
            (|file| file[0x234] = 0, "CONFIG_RELOCATABLE"),
            (|file| file.truncate(0x250), "ends"),
            (|file| put(file, 0x260, &u32::MAX.to_le_bytes()), "no size for one"),
        ];
        for (spoil, words) in cases {
            let mut file = kernel(10_000, 1 << 20);
            spoil(&mut file);
            let error = BzImage::parse(&file).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn the_parameters_tell_the_kernel_where_everything_is() {
        let file = kernel(10_000, 1 << 20);
        let kernel = BzImage::parse(&file).unwrap();
        let firmware = Firmware { screen: vec![9; 0x40], edid: vec![], rsdp: 0x7fff_0014 };
        let memory = [(0x1000..0xa0000, Kind::Ram), (0x1_2000_0000..0x1_3000_0000, Kind::AcpiTables)];
        let initramfs = 0x1_2345_6000..0x1_2345_7001;
        let page = kernel.parameters(0x1_2345_8000, b"quiet\0", Some(&initramfs), &memory, &firmware).unwrap();
        assert_eq!(page.len(), 4096 + 6);
        assert_eq!(&page[4096..], b"quiet\0");
        assert_eq!(word(&page, 0x202).unwrap(), u32::from_le_bytes(*b"HdrS"));
        assert_eq!(page[0x210], 0xff);
        let wide = |low, high| u64::from(word(&page, low).unwrap()) | u64::from(word(&page, high).unwrap()) << 32;
        assert_eq!(wide(0x228, 0xc8), 0x1_2345_8000);
        assert_eq!(wide(0x218, 0xc0), 0x1_2345_6000);
        assert_eq!(wide(0x21c, 0xc4), 0x1001);
        assert_eq!(wide(RSDP, RSDP + 4), 0x7fff_0014);
        assert_eq!((page[MEMORY_COUNT], page[0]), (2, 9));
        assert_eq!(wide(MEMORY + 20, MEMORY + 24), 0x1_2000_0000);
        assert_eq!(wide(MEMORY + 28, MEMORY + 32), 0x1000_0000);
        assert_eq!(word(&page, MEMORY + 36).unwrap(), 3);
        let long = vec![b'x'; 2049];
        assert!(
            kernel.parameters(0, &long, None, &[], &firmware).unwrap_err().to_string().contains("2048 bytes, 2047")
        );
    }

    proptest! {
        #[test]
        fn a_damaged_kernel_is_refused_or_read_in_peace(place in 0..0x300_usize, value in any::<u8>(), cut in 0..6000_usize) {
            let mut file = kernel(3000, 1 << 20);
            file[place] = value;
            file.truncate(cut);
            if let Ok(kernel) = BzImage::parse(&file) {
                let page = kernel.parameters(0x1000, b"\0", None, &[], &Firmware::default());
                prop_assert!(page.is_err() || page.unwrap().len() == 4097);
            }
        }
    }
}
