//! finit_module(2), and what its refusals mean.

use crate::kmsg::KernelLog;
use crate::modules::{Modules, Refusal};
use kdump_hooks::kmod::ModuleName;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h, since Linux 5.17.
const COMPRESSED_FILE: u32 = 4;

/// The modules of the running kernel.
#[derive(Clone, Copy, Debug)]
pub struct LinuxModules;

impl Modules for LinuxModules {
    fn is_there(&self, name: &ModuleName) -> bool {
        match fs::read_to_string(format!("/sys/module/{name}/initstate")) {
            Ok(state) => state.trim() == "live",
            // A directory without a state belongs to a built-in module.
            Err(_) => Path::new(&format!("/sys/module/{name}")).exists(),
        }
    }

    fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<(), Refusal> {
        let refused = |reason: String| Refusal { reason, kernel: Vec::new() };
        let image = File::open(file).map_err(|error| refused(format!("cannot open {}: {error}", file.display())))?;
        let parameters =
            CString::new(parameters).map_err(|_| refused("a parameter holds a NUL character".to_owned()))?;
        let compressed = file.extension().is_some_and(|extension| extension != "ko");
        let flags =
            if compressed { ModuleInitFlags::from_bits_retain(COMPRESSED_FILE) } else { ModuleInitFlags::empty() };
        let mut log = KernelLog::from_now().ok();
        match finit_module(image, &parameters, flags) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => {
                let kernel: Vec<String> = std::iter::from_fn(|| log.as_mut()?.next_line())
                    .filter(|line| {
                        line.contains(name.as_str()) || line.contains("module") || line.contains("compressed")
                    })
                    .take(4)
                    .collect();
                Err(Refusal { reason: explain(errno, compressed, &kernel), kernel })
            }
        }
    }
}

/// What an errno of finit_module(2) means, in words that tell what to do.
pub fn explain(errno: Errno, compressed: bool, kernel: &[String]) -> String {
    let said = |words: &str| kernel.iter().any(|line| line.contains(words));
    let meaning = match errno {
        Errno::ENOENT if said("Unknown symbol") => "a module that it needs is not loaded",
        Errno::ENOENT => "a symbol that it needs is missing",
        Errno::ENOEXEC if said("version magic") || said("disagrees about version") => {
            "it was built for another kernel; rebuild the image for this one"
        }
        Errno::ENOEXEC if compressed => {
            "this kernel cannot decompress modules; rebuild the image with its configuration at hand"
        }
        Errno::ENOEXEC => "the file is damaged or no module of this kernel",
        Errno::EINVAL if said("compressed module") => "it is compressed in another way than this kernel knows",
        Errno::EINVAL if said("invalid for parameter") => "a parameter has a bad value",
        Errno::EKEYREJECTED if compressed && said("unsigned") => {
            "the kernel enforces signatures and cannot look into the compressed file"
        }
        Errno::EKEYREJECTED => "its signature is missing, damaged, or of a key that this kernel does not trust",
        Errno::EPERM if said("is blacklisted") => "`module_blacklist=` on the kernel command line forbids it",
        Errno::EPERM => "loading modules is switched off or not allowed",
        Errno::ENODEV => "it found no device to work with",
        Errno::ENOMEM => "there is not enough memory; reserve more with crashkernel=",
        _ => "",
    };
    match meaning {
        "" => errno.to_string(),
        meaning => format!("{errno}: {meaning}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_errno_is_told_apart_by_what_the_kernel_log_says() {
        let line = |text: &str| vec![text.to_owned()];
        assert!(explain(Errno::EPERM, false, &line("Module x is blacklisted")).contains("module_blacklist="));
        assert!(explain(Errno::EINVAL, false, &line("x: `9' invalid for parameter `p'")).contains("parameter"));
        assert!(explain(Errno::ENOEXEC, false, &line("x: version magic '6.1' should be")).contains("another kernel"));
        assert!(explain(Errno::ENOEXEC, true, &[]).contains("decompress"));
        assert!(explain(Errno::EKEYREJECTED, false, &[]).contains("signature"));
        assert!(explain(Errno::ENOENT, false, &line("x: Unknown symbol y (err -2)")).contains("not loaded"));
        assert_eq!(explain(Errno::EIO, false, &[]), Errno::EIO.to_string());
    }
}
