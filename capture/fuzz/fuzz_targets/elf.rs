//! Arbitrary bytes as a vmcore: ELF header, program headers, notes, segments, and reading what they promise.

#![no_main]

use std::io::Write;
use std::os::fd::AsRawFd;

use kdump_capture::vmcore::Vmcore;
use kdump_capture::vmcore::read::{Pages, PhysMem};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 62, 0, 1, 0, 0, 0];
    bytes.extend([0; 8]);
    bytes.extend(64u64.to_le_bytes());
    bytes.extend(data);
    let mut file = std::fs::File::from(memfd());
    file.write_all(&bytes).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    for mapping in [true, false] {
        let Ok(vmcore) = Vmcore::open(path.as_ref(), mapping) else { return };
        let _ = vmcore.vmcoreinfo();
        let mut pages = Pages::new(&vmcore, vmcore.page());
        for run in vmcore.segments().backed().iter().take(8) {
            let _ = (pages.page(run.start).is_ok(), pages.page(run.end).is_ok());
        }
    }
});

/// A file without a name.
fn memfd() -> std::os::fd::OwnedFd {
    let path = format!("/dev/shm/kdump-fuzz-{}", std::process::id());
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.into()
}
