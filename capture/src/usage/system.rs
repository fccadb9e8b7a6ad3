//! What the running system says of itself, besides its memory. In: its files. Out: numbers.
//! May surprise: for users other than root /proc/iomem shows every address as 0, which here is no address.

use std::io::{self, Read};
use std::ops::Range;

use crate::units::PhysAddr;

/// The longest file taken; /proc/iomem has one line for each device.
const MAX_FILE: u64 = 4 << 20;

/// Ranges beyond this number are not looked at; kernels reserve two at most.
const MAX_RANGES: usize = 8;

/// Where the system's files come from: the system itself, or a test.
pub trait System {
    /// The text of the file `path`.
    fn text(&self, path: &str) -> io::Result<String>;
}

/// The system this program runs on.
#[derive(Debug, Clone, Copy)]
pub struct Running;

impl System for Running {
    fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Memory reserved for a crash kernel, out of the text of /proc/iomem, where an end is the last byte.
pub(super) fn crash_kernel(iomem: &str) -> Vec<Range<u64>> {
    let range = |line: &str| {
        let (range, name) = line.split_once(" : ")?;
        let (start, last) = range.trim().split_once('-').filter(|_| name.trim() == "Crash kernel")?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = number(start)?..number(last)?.checked_add(1)?;
        (range.start > 0 && !range.is_empty()).then_some(range)
    };
    iomem.lines().filter_map(range).take(MAX_RANGES).collect()
}

/// Where the note with vmcoreinfo is and how long, out of the text of /sys/kernel/vmcoreinfo: both in hexadecimal.
pub(super) fn vmcoreinfo(text: &str) -> Option<(PhysAddr, u64)> {
    let (address, size) = text.trim().split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok().filter(|n| *n > 0);
    Some((PhysAddr(number(address)?), number(size)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_is_its_last_byte() {
        let iomem = "00100000-1ffdffff : System RAM\n  01000000-02ffffff : Kernel code\n  19000000-1effffff : Crash kernel\n\
                     100000000-13fffffff : System RAM\n  130000000-13effffff : Crash kernel\n";
        assert_eq!(crash_kernel(iomem), [0x1900_0000..0x1f00_0000, 0x1_3000_0000..0x1_3f00_0000]);
    }

    #[test]
    fn what_another_user_than_root_sees_is_no_range() {
        assert_eq!(crash_kernel("00000000-00000000 : System RAM\n  00000000-00000000 : Crash kernel\n"), []);
        assert_eq!(
            crash_kernel("Crash kernel\n5-4 : Crash kernel\nx-y : Crash kernel\n1-ffffffffffffffff : Crash kernel"),
            []
        );
    }

    #[test]
    fn both_numbers_of_vmcoreinfo_are_hexadecimal() {
        assert_eq!(vmcoreinfo("0x00000000012e8000 1024\n"), Some((PhysAddr(0x12e_8000), 0x1024)));
        assert_eq!(vmcoreinfo("12e8000 1024"), Some((PhysAddr(0x12e_8000), 0x1024)));
        for wrong in ["", "0x1000", "0 0", "0x1000 none"] {
            assert_eq!(vmcoreinfo(wrong), None, "{wrong}");
        }
    }
}
