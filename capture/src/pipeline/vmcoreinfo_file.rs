//! `-i`: vmcoreinfo from a file. In: the file and the input. Out: a kernel, or that it is of another one.
//! May surprise: addresses are random with each boot, so it must be the text of the boot that crashed (what
//! /sys/kernel/vmcoreinfo points to, saved while it ran). The dump keeps the notes of the input.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::dumpfile::read::Source;
use crate::error::Error;
use crate::input::{Input, Notes};
use crate::kernel::{Kernel, name};
use crate::units::FileOffset;
use crate::vmcoreinfo::Facts;

/// The kernel writes one page.
const LONGEST: usize = 1 << 20;

/// vmcoreinfo out of a file.
#[derive(Debug)]
pub(super) struct Given {
    text: Vec<u8>,
    pub(super) facts: Facts,
}

impl Given {
    /// Reads `path`, if there is one.
    pub(super) fn read(path: Option<&Path>) -> Result<Option<Given>, Error> {
        let Some(path) = path else { return Ok(None) };
        let fail = |source| Error::Read { what: "vmcoreinfo", path: path.into(), source };
        let text = read(path).map_err(fail)?;
        let facts = Facts::parse(&text);
        if facts.text("OSRELEASE").is_none() {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "there is no OSRELEASE in it")));
        }
        Ok(Some(Given { text, facts }))
    }
}

/// Learns of the kernel by what was `given`; an error if the input, which is `path`, is of another kernel.
pub(super) fn learn_from_file(
    given: &Given,
    input: &Input<'_>,
    path: &Path,
    problems: &mut Vec<String>,
) -> Result<Kernel, Error> {
    let stated = given.facts.text("OSRELEASE").unwrap_or_default();
    let kernel = Kernel::learn(&given.text, input, problems);
    let noted = Facts::parse(input.vmcoreinfo()).text("OSRELEASE").map(str::to_owned);
    let carried = input.carried().map(|carried| name(&carried.header.utsname, 2));
    let places = [("memory", kernel.other_release.clone()), ("note", noted), ("header", carried)];
    let other = places.into_iter().find_map(|(place, found)| {
        let found = found.filter(|found| !found.is_empty() && found != stated)?;
        Some(format!("its {place} names release {found:?}, the file given with -i names {stated:?}"))
    });
    match other {
        // A note that says something else may be what is damaged: memory has the last word.
        Some(why) if kernel.paging.is_none() => Err(Error::WrongKernel { path: path.into(), why }),
        _ => Ok(kernel),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = vec![0; LONGEST];
    let got = Source::read_at(&File::open(path)?, FileOffset(0), &mut text)?;
    if got == LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for vmcoreinfo"));
    }
    text.truncate(got);
    Ok(text)
}
