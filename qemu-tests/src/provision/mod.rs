//! Everything that the demo and the tests need and a fresh Debian lacks: installed by apt, or fetched and unpacked
//! below `target/qemu`. What is there already is left alone; nothing is fetched twice.
//!
//! | wanted | comes from | kept in |
//! |---|---|---|
//! | QEMU, mkfs.ext4, cpio, depmod, mandoc, rpm, lintian, shellcheck | the machine's apt, installed | the system |
//! | the machine's own cloud kernel | the machine's apt, downloaded | `target/qemu/kernels/` |
//! | LVM, mdadm, cryptsetup, mkfs, open-iscsi for a guest | the machine's apt, downloaded | `target/qemu/storage-tools*/` |
//! | mkfs for vfat and f2fs, mtools | the machine's apt, downloaded | `target/qemu/small-filesystems/` |
//! | nfs-ganesha, as NFS server | the machine's apt, downloaded | `target/qemu/ganesha/` |
//! | tgt, as iSCSI server | the machine's apt, downloaded | `target/qemu/tgt/` |
//! | Samba, as SMB server | the machine's apt, downloaded | `target/qemu/samba/` |
//! | kdump-tools, for its configuration | the machine's apt, downloaded | `target/qemu/kdump-tools/` |
//! | OpenSSH's server, vsftpd | the machine's apt, downloaded | `target/qemu/servers/` |
//! | modules of our own, live patches among them | built with the kernel's headers, from the machine's apt | `target/qemu/{headers,modules}/` |
//! | OVMF, firmware with EFI | the machine's apt, downloaded | `target/qemu/ovmf/` |
//! | GRUB, for machines without EFI | the machine's apt, downloaded | `target/qemu/grub/` |
//! | systemd's stub for unified kernel images | the machine's apt, downloaded | `target/qemu/stub/` |
//! | busybox, for guests with scripts or a shell | the machine's apt, downloaded | `target/qemu/busybox/` |
//! | a newer cloud kernel, a newer makedumpfile | later suites of the same archive, private apt state | `target/qemu/{kernels,oracle}/` |
//! | a small Debian with systemd | the machine's archive, by debootstrap | `target/qemu/debian-root/` |
//! | crash, kdumpid; drgn | the newest suite, likewise; PyPI | `target/qemu/{readers,drgn}/` |
//!
//! Surprising: only root can install. Anyone else gets one error that names the packages.

mod apt;
mod busybox;
mod debian_root;
mod ganesha;
mod grub;
mod kdump_tools;
mod kernels;
mod later;
mod makedumpfile;
mod modules;
mod ovmf;
mod packages;
mod readers;
mod samba;
mod servers;
pub(crate) mod small_filesystems;
pub(crate) mod storage;
mod stub;
mod tgt;

pub use busybox::busybox;
pub use debian_root::debian_system;
pub use ganesha::ganesha;
pub use grub::{Grub, grub};
pub use kdump_tools::kdump_tools;
pub use kernels::{Kernel, Suite, debug_vmlinux, generic_kernel, kernel};
pub use makedumpfile::{Codec, Makedumpfile, ORACLE_IN_GUEST, makedumpfile};
pub use modules::own_module;
pub use ovmf::{Firmware, firmware};
pub use packages::{for_manual_pages, for_packages, openssl, sbsign, tools};
pub use readers::{Readers, readers};
pub use samba::samba;
pub use servers::servers;
pub use stub::stub;
pub use tgt::tgt;
