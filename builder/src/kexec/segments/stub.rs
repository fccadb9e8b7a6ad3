//! The instructions between the two kernels.
//!
//! In: three addresses. Out: one page of x86 machine code and its data.
//!
//! The old kernel jumps to it in 64-bit mode, with all memory mapped where it is, interrupts off and registers cleared.
//! The new kernel wants a table of segments with code at 0x10 and data at 0x18, and in `rsi` where its parameters are
//! (Documentation/arch/x86/boot.rst, 64-bit boot protocol).
//!
//! ```text
//!  0x000 code   0x080 descriptors   0x0a0 their length and address   … a stack that grows down from ▼ 0x1000
//! ```

/// Where things are in the page.
const DESCRIPTORS: usize = 0x80;
const POINTER: usize = 0xa0;
const SIZE: usize = 0x1000;

/// Nothing twice, then 64-bit code and flat data.
const TABLE: [u64; 4] = [0, 0, 0x00af_9a00_0000_ffff, 0x00cf_9200_0000_ffff];

/// Makes the page that will lie at `place`, enters the kernel at `entry` and tells it of `parameters`.
pub(super) fn make(place: u64, entry: u64, parameters: u64) -> Vec<u8> {
    let mut code: Vec<u8> = Vec::new();
    code.extend([0xfa]); // cli
    code.extend([0xfc]); // cld
    code.extend([0x48, 0xbc]); // mov rsp, the end of the page
    code.extend((place + SIZE as u64).to_le_bytes());
    code.extend([0x48, 0xb8]); // mov rax, the pointer to the descriptors
    code.extend((place + POINTER as u64).to_le_bytes());
    code.extend([0x0f, 0x01, 0x10]); // lgdt [rax]
    code.extend([0xb8, 0x18, 0, 0, 0]); // mov eax, 0x18
    for segment in [0xd8, 0xc0, 0xd0, 0xe0, 0xe8] {
        code.extend([0x8e, segment]); // mov ds, es, ss, fs and gs, eax
    }
    code.extend([0x48, 0xbe]); // mov rsi, the parameters
    code.extend(parameters.to_le_bytes());
    code.extend([0x48, 0xb8]); // mov rax, the entry
    code.extend(entry.to_le_bytes());
    code.extend([0x6a, 0x10]); // push 0x10
    code.extend([0x50]); // push rax
    code.extend([0x48, 0xcb]); // retfq
    code.resize(DESCRIPTORS, 0);
    code.extend(TABLE.iter().flat_map(|descriptor| descriptor.to_le_bytes()));
    code.resize(POINTER, 0);
    let limit = u16::try_from(size_of_val(&TABLE) - 1).unwrap_or(u16::MAX);
    code.extend(limit.to_le_bytes());
    code.extend((place + DESCRIPTORS as u64).to_le_bytes());
    code.resize(SIZE, 0);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_data_do_not_touch_and_the_addresses_are_in_their_places() {
        let page = make(0x1234_5000, 0x1600_0200, 0x1dff_e000);
        assert_eq!(page.len(), SIZE);
        let code = page[..DESCRIPTORS].iter().rposition(|byte| *byte != 0).unwrap();
        assert_eq!((code, &page[code - 1..=code]), (0x40, &[0x48, 0xcb][..]));
        assert_eq!(page[0x2a..0x32], 0x1dff_e000_u64.to_le_bytes());
        assert_eq!(page[0x34..0x3c], 0x1600_0200_u64.to_le_bytes());
        assert_eq!(page[POINTER..POINTER + 2], [31, 0]);
        assert_eq!(page[POINTER + 2..POINTER + 10], 0x1234_5080_u64.to_le_bytes());
    }
}
