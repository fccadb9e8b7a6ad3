//! Reads a block back. In: its bytes. Out: the page, or `None` if they make none.
//! May surprise: every length and distance is checked against what is there, and nothing after the end is let pass.

use super::{FAR, NEAR};

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*first))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A length of which `bits` are in the instruction, `more` at least; 0 there means that it goes on in more bytes.
    fn length(&mut self, instruction: usize, bits: u32, more: usize) -> Option<usize> {
        let most = (1 << bits) - 1;
        let mut length = instruction & most;
        if length == 0 {
            length = most;
            let mut byte = self.byte()?;
            while byte == 0 {
                length += 255;
                byte = self.byte()?;
            }
            length += byte;
        }
        Some(length + more)
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        let from = self.len.checked_sub(distance)?;
        let end = self.len.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        if distance >= len {
            self.bytes.copy_within(from..from + len, self.len);
        } else {
            // What is copied is made on the way: a run.
            for at in self.len..end {
                self.bytes[at] = self.bytes[at - distance];
            }
        }
        self.len = end;
        Some(())
    }
}

/// Unpacks a block into the start of `out`; returns the length of what it held, `None` if it is damaged or too large.
pub fn unpack(block: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut input = Input(block);
    let mut output = Output { bytes: out, len: 0 };
    // How many literals the last instruction brought: 0, 1 to 3, or 4 for more.
    let mut before = 0;
    if let Some(first) = block.first().filter(|first| **first > 17) {
        let count = usize::from(*first) - 17;
        input.byte()?;
        output.literals(input.take(count)?)?;
        before = count.min(4);
    }
    loop {
        let instruction = input.byte()?;
        let (distance, len, after) = match instruction {
            0..=15 if before == 0 => {
                let count = input.length(instruction, 4, 3)?;
                output.literals(input.take(count)?)?;
                before = 4;
                continue;
            }
            0..=15 => {
                let distance = (input.byte()? << 2) + (instruction >> 2) + 1;
                if before < 4 { (distance, 2, instruction & 3) } else { (distance + NEAR, 3, instruction & 3) }
            }
            16..=31 => {
                let len = input.length(instruction, 3, 2)?;
                let low = input.byte()? | input.byte()? << 8;
                let distance = FAR + ((instruction & 8) << 11) + (low >> 2);
                if distance == FAR {
                    return (len == 3 && input.0.is_empty()).then_some(output.len);
                }
                (distance, len, low & 3)
            }
            32..=63 => {
                let len = input.length(instruction, 5, 2)?;
                let low = input.byte()? | input.byte()? << 8;
                ((low >> 2) + 1, len, low & 3)
            }
            _ => {
                let distance = (input.byte()? << 3) + (instruction >> 2 & 7) + 1;
                (distance, (instruction >> 5) + 1, instruction & 3)
            }
        };
        output.copy(distance, len)?;
        output.literals(input.take(after)?)?;
        before = after;
    }
}
