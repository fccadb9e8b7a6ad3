//! finit_module(2) and delete_module(2), and what their refusals mean.
//!
//! May surprise: a module is never unpacked here. The kernel does where it can (`MODULE_INIT_COMPRESSED_FILE`), and
//! for the others the builder has done it.

use super::log::KernelLog;
use super::signature::is_signed;
use crate::kmod::ModuleName;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h, since Linux 5.17.
const COMPRESSED_FILE: u32 = 4;
/// The one compression that the kernel undoes itself, if it undoes any.
const KERNEL_UNPACKS: &str = "/sys/module/compression";

/// A module that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The errno and what it means here.
    pub reason: String,
    /// The lines that the kernel logged meanwhile.
    pub kernel: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.kernel.is_empty() { Ok(()) } else { write!(f, "; the kernel says: {}", self.kernel.join(" | ")) }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Whether the kernel may take it a moment later, or let go of it.
    pub fn is_for_now(&self) -> bool {
        // A reason that is the kernel's begins with the errno.
        ["EBUSY", "EAGAIN"].iter().any(|errno| self.reason.starts_with(errno))
    }
}

/// Whether the module is loaded or built in.
pub fn is_there(name: &ModuleName) -> bool {
    match fs::read_to_string(format!("/sys/module/{name}/initstate")) {
        Ok(state) => state.trim() == "live",
        // A directory without a state belongs to a built-in module.
        Err(_) => Path::new(&format!("/sys/module/{name}")).exists(),
    }
}

/// Inserts the module in `file`, and says what the kernel remarked, such as a parameter that it ignores. One that is
/// there already is a success.
///
/// # Errors
/// Why the kernel refused it.
pub fn insert(name: &ModuleName, file: &Path, parameters: &str) -> Result<Vec<String>, Refusal> {
    insert_explained(name, file, parameters, explain)
}

/// What an errno of finit_module(2) means.
pub type Explain = fn(Errno, &Facts, &[String]) -> String;

/// As [`insert`], with other words for refusals.
///
/// # Errors
/// As there.
pub fn insert_explained(
    name: &ModuleName,
    file: &Path,
    parameters: &str,
    explain: Explain,
) -> Result<Vec<String>, Refusal> {
    let refused = |reason: String| Refusal { reason, kernel: Vec::new() };
    let mut image = File::open(file).map_err(|error| refused(format!("cannot open {}: {error}", file.display())))?;
    let parameters = CString::new(parameters).map_err(|_| refused("a parameter holds a NUL character".to_owned()))?;
    let facts = Facts::of(&mut image);
    let flags = match facts.compression {
        Some(_) => ModuleInitFlags::from_bits_retain(COMPRESSED_FILE),
        None => ModuleInitFlags::empty(),
    };
    let mut log = KernelLog::from_now().ok();
    let outcome = finit_module(image, &parameters, flags);
    let said = std::iter::from_fn(|| log.as_mut()?.next_line()).take(1000);
    match outcome {
        Ok(()) | Err(Errno::EEXIST) => Ok(said.filter(|line| is_remark(line, name)).take(8).collect()),
        Err(errno) => {
            let concerns = |line: &String| {
                // Our own lines quote names, too.
                !line.contains("] kdump: ")
                    && ["module", "compressed", "livepatch: ", name.as_str()].iter().any(|word| line.contains(word))
            };
            let kernel: Vec<String> = said.filter(concerns).take(4).collect();
            Err(Refusal { reason: explain(errno, &facts, &kernel), kernel })
        }
    }
}

/// Takes a module out of the kernel again.
///
/// # Errors
/// Why the kernel keeps it.
pub fn remove(name: &ModuleName) -> Result<(), Refusal> {
    let word = CString::new(name.as_str()).unwrap_or_default();
    delete_module(&word, DeleteModuleFlags::O_NONBLOCK).map_err(|errno| {
        let meaning = match errno {
            Errno::EWOULDBLOCK => "it is in use",
            Errno::ENOENT => "it is not loaded",
            Errno::EBUSY => "it is still starting, or cannot be removed",
            Errno::EPERM => "removing modules is not allowed",
            _ => return Refusal { reason: errno.to_string(), kernel: Vec::new() },
        };
        Refusal { reason: format!("{errno}: {meaning}"), kernel: Vec::new() }
    })
}

/// Whether the kernel says that it passes over a parameter of that module.
fn is_remark(line: &str, name: &ModuleName) -> bool {
    let of = |text: &str| text.contains(&format!("{name}: "));
    of(line) && (line.contains("unknown parameter") || line.contains("ignored"))
}

/// What a file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How it is compressed.
    pub compression: Option<&'static str>,
    /// The compression that the kernel undoes.
    pub kernel_unpacks: Option<String>,
    /// Whether a signature is appended; unknown of a compressed file.
    pub signed: Option<bool>,
}

impl Facts {
    /// Looks at both ends of the file.
    fn of(file: &mut File) -> Facts {
        let mut start = [0; 6];
        let compression = match file.read_exact(&mut start).map(|()| start) {
            Ok([0xfd, b'7', b'z', b'X', b'Z', 0]) => Some("xz"),
            Ok([0x28, 0xb5, 0x2f, 0xfd, ..]) => Some("zstd"),
            Ok([0x1f, 0x8b, ..]) => Some("gzip"),
            _ => None,
        };
        let signed = if compression.is_none() { is_signed(file).ok() } else { None };
        let _ = file.rewind();
        let kernel_unpacks = fs::read_to_string(KERNEL_UNPACKS).ok().map(|word| word.trim().to_owned());
        Facts { compression, kernel_unpacks, signed }
    }
}

const UNSIGNED: &str =
    "it has no signature, and the kernel enforces signatures: it was built without one, stripped, or cut short";

/// What an errno of finit_module(2) means, in words that tell what to do.
pub fn explain(errno: Errno, facts: &Facts, kernel: &[String]) -> String {
    let said = |words: &str| kernel.iter().any(|line| line.contains(words));
    let packed = facts.compression.filter(|compression| facts.kernel_unpacks.as_deref() != Some(*compression));
    let meaning = match (errno, packed) {
        // Whatever the errno: without unpacking nothing else can be right, and `unsigned` would be misleading.
        (Errno::ENOEXEC | Errno::EKEYREJECTED | Errno::EINVAL | Errno::EOPNOTSUPP, Some(compression)) => {
            let can = facts.kernel_unpacks.as_deref().unwrap_or("no compressed modules");
            return format!(
                "{errno}: it is compressed by {compression}, and this kernel unpacks {can}; rebuild the image with the \
                 kernel's configuration at hand"
            );
        }
        (Errno::EINVAL, _) if said("compressed module") => "it is compressed in another way than this kernel unpacks",
        (Errno::EINVAL, _) if said("invalid for parameter") => {
            "a parameter has a bad value; look into modprobe.d and at the kernel command line"
        }
        (Errno::EINVAL, _) if said("not found in symbol table") || said("unresolvable ambiguity for symbol") => {
            "a function that it patches is not in this kernel as it expects it: it was built from another source"
        }
        (Errno::EINVAL, _) if said("is not compatible with the already installed livepatches") => {
            "it does not go together with a live patch that is loaded; unload that one, or load one that replaces it"
        }
        (Errno::EINVAL, _) if facts.compression.is_some() => "its compressed data is damaged",
        (Errno::ENOENT, _) if said("Unknown symbol") => {
            "a symbol that it uses is nowhere: a module that it needs is not loaded"
        }
        (Errno::ENOENT, _) => "something that it needs is missing",
        (Errno::ENOEXEC, _) if said("version magic") || said("disagrees about version") => {
            "it was built for another kernel; rebuild the image for this one"
        }
        (Errno::ENOEXEC, _) => "the file is cut short, damaged, or no module of this kernel",
        // The kernel's lines name no module, and another one may be refused at the same moment: what the file itself
        // shows comes first.
        (Errno::EKEYREJECTED, _) if facts.signed == Some(false) => UNSIGNED,
        (Errno::EKEYREJECTED, _) if said("unavailable key") => {
            "it is signed by a key that this kernel does not have, and the kernel enforces signatures"
        }
        (Errno::EKEYREJECTED, _) if facts.signed.is_none() && said("unsigned module") => UNSIGNED,
        (Errno::EKEYREJECTED, _) if said("unsupported crypto") => {
            "the kernel cannot check its signature, and enforces signatures"
        }
        (Errno::EKEYREJECTED, _) => "its signature does not fit its content: the file has been changed or is damaged",
        (Errno::EBADMSG, _) => "its signature is damaged",
        (Errno::EPERM, _) if said("is blacklisted") => "`module_blacklist=` on the kernel command line forbids it",
        (Errno::EPERM, _) => "loading modules is switched off or not allowed (kernel.modules_disabled, lockdown)",
        (Errno::ENODEV, _) => "it found no device to work with",
        (Errno::EBUSY, _) => "the kernel is at work with a module of that name",
        (Errno::ENOMEM, _) => "there is not enough memory; reserve more with crashkernel=",
        _ => return errno.to_string(),
    };
    format!("{errno}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errno, compression of the file and what the kernel unpacks, whether it is signed, the kernel log, what is said.
    type Row = (Errno, Option<&'static str>, Option<&'static str>, Option<bool>, &'static str, &'static str);

    const TABLE: &[Row] = &[
        (Errno::ENOENT, None, None, Some(true), "x: Unknown symbol y (err -2)", "a module that it needs is not loaded"),
        (
            Errno::EINVAL,
            None,
            None,
            Some(true),
            "livepatch: symbol 'gone' not found in symbol table",
            "is not in this kernel as it expects it",
        ),
        (
            Errno::EINVAL,
            None,
            None,
            Some(true),
            "livepatch: Livepatch patch (x) is not compatible with the already installed livepatches.",
            "does not go together with a live patch that is loaded",
        ),
        (Errno::EINVAL, None, None, Some(true), "x: `v' invalid for parameter `p'", "a parameter has a bad value"),
        (Errno::ENOEXEC, Some("xz"), None, None, "", "compressed by xz, and this kernel unpacks no compressed modules"),
        (
            Errno::EKEYREJECTED,
            Some("xz"),
            None,
            None,
            "Loading of unsigned module is rejected",
            "compressed by xz, and this kernel unpacks no compressed modules",
        ),
        (Errno::EINVAL, Some("zstd"), Some("xz"), None, "not an xz compressed module", "this kernel unpacks xz"),
        (Errno::EINVAL, Some("xz"), Some("xz"), None, "xz decompression failed", "compressed data is damaged"),
        (Errno::EKEYREJECTED, None, None, Some(false), "Loading of unsigned module is rejected", "has no signature"),
        (
            Errno::EKEYREJECTED,
            Some("xz"),
            Some("xz"),
            None,
            "Loading of unsigned module is rejected",
            "has no signature",
        ),
        (Errno::EKEYREJECTED, None, None, Some(true), "", "does not fit its content"),
        // Others are refused at the same moment.
        (
            Errno::EKEYREJECTED,
            None,
            None,
            Some(false),
            "Loading of module with unavailable key is rejected",
            "has no signature",
        ),
        (
            Errno::EKEYREJECTED,
            None,
            None,
            Some(true),
            "Loading of unsigned module is rejected",
            "does not fit its content",
        ),
        (
            Errno::EKEYREJECTED,
            None,
            None,
            Some(true),
            "Loading of module with unavailable key is rejected",
            "a key that this kernel does not have",
        ),
        (Errno::EBADMSG, None, None, Some(true), "", "its signature is damaged"),
        (Errno::ENOEXEC, None, None, Some(false), "", "cut short"),
        (Errno::ENOEXEC, None, None, Some(true), "x: version magic '6.1' should be '6.2'", "another kernel"),
        (Errno::EPERM, None, None, Some(true), "Module x is blacklisted", "`module_blacklist=`"),
        (Errno::EPERM, None, None, Some(true), "", "modules_disabled"),
        (Errno::ENOMEM, None, None, Some(true), "", "crashkernel="),
        (Errno::ENODEV, None, None, Some(true), "", "no device"),
        (Errno::EBUSY, None, None, Some(true), "", "at work"),
    ];

    #[test]
    fn every_refusal_names_its_cause() {
        for (errno, compression, unpacks, signed, kernel, expected) in TABLE {
            let facts =
                Facts { compression: *compression, kernel_unpacks: unpacks.map(str::to_owned), signed: *signed };
            let kernel: Vec<String> = Some((*kernel).to_owned()).into_iter().filter(|line| !line.is_empty()).collect();
            let said = explain(*errno, &facts, &kernel);
            assert!(said.contains(expected) && said.starts_with(&errno.to_string()), "{kernel:?}: {said}");
        }
        assert_eq!(explain(Errno::EIO, &Facts::default(), &[]), Errno::EIO.to_string());
    }

    #[test]
    fn a_parameter_that_is_ignored_is_a_remark_on_its_module_alone() {
        let line = "[    1.000000] dummy: unknown parameter 'nosuch' ignored";
        assert!(is_remark(line, &"dummy".into()));
        assert!(!is_remark(line, &"ifb".into()));
        assert!(!is_remark("[    1.000000] dummy: hello", &"dummy".into()));
    }
}
