//! The variables of an EFI machine, out of the flash memory of its firmware.
//!
//! In: the file that OVMF keeps its variables in. Out: those that are valid, each with its name and what is in it. A variable
//! is, at a multiple of four and all numbers little-endian (UEFI PI, "Variable Storage"; edk2,
//! `MdeModulePkg/Include/Guid/VariableFormat.h`):
//!
//! ```text
//!  0 0x55AA │ 2 state │ 4 attributes │ 8 count │ 16 time │ 32 key │ 36 bytes of name │ 40 of data │ 44 GUID │ 60 name, data
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const BEGIN: [u8; 2] = [0xaa, 0x55];
/// Written, and not deleted since.
const VALID: u8 = 0x3f;
const HEADER: usize = 60;
/// No variable is larger.
const LARGEST: usize = 1 << 16;

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub data: Vec<u8>,
}

/// The variables in the flash memory `file`.
pub fn read(file: &Path) -> Result<Vec<Variable>> {
    let flash = fs::read(file).with_context(|| format!("unable to read {}", file.display()))?;
    let mut variables = Vec::new();
    let mut at = 0;
    while at + HEADER <= flash.len() {
        let found = variable(&flash[at..]);
        at += found.as_ref().map_or(4, |(_, length)| length.next_multiple_of(4));
        variables.extend(found.map(|(variable, _)| variable));
    }
    Ok(variables)
}

/// The variable that begins here, if one does, and its length.
fn variable(bytes: &[u8]) -> Option<(Variable, usize)> {
    let number = |at: usize| -> Option<usize> {
        let number = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        usize::try_from(number).ok().filter(|number| *number <= LARGEST)
    };
    if !bytes.starts_with(&BEGIN) || bytes.get(2) != Some(&VALID) {
        return None;
    }
    let (name, data) = (number(36)?, number(40)?);
    let name_bytes = bytes.get(HEADER..HEADER + name)?;
    let units: Vec<u16> = name_bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    let data_bytes = bytes.get(HEADER + name..HEADER + name + data)?;
    let name_text = String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned();
    Some((Variable { name: name_text, data: data_bytes.to_vec() }, HEADER + name + data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, data: &[u8], state: u8) -> Vec<u8> {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[BEGIN[0], BEGIN[1], state]);
        bytes[36..40].copy_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
        bytes[40..44].copy_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(name);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0xff);
        bytes
    }

    #[test]
    fn valid_variables_are_found_and_deleted_ones_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let flash = [vec![0xff; 72], made("Boot", b"one", VALID), made("Gone", b"no", 0x3c), made("dump", b"", VALID)];
        fs::write(file.path(), [flash.concat(), vec![0xff; 100]].concat()).unwrap();
        let variable = |name: &str, data: &[u8]| Variable { name: name.into(), data: data.into() };
        assert_eq!(read(file.path()).unwrap(), [variable("Boot", b"one"), variable("dump", b"")]);
    }
}
