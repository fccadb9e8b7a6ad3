//! Every fuzz target for a moment, on the stable compiler; see `kdump_hooks::fake::fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, unused_attributes)]

extern crate self as libfuzzer_sys;

pub use kdump_hooks::fuzz_target;

use kdump_hooks::fake::{object, unified_image};
use kdump_hooks::livepatch::overlay;
use kdump_hooks::raw::layout::Header;

const CERTIFICATE: &[u8] = include_bytes!("data/module-signer.der");
const SIGNATURE: &[u8] = include_bytes!("data/debian-dummy.p7s");

/// modules.dep, modules.alias, modules.softdep, modprobe.d, a command line, a request.
const MODULES: &str = "kernel/a.ko: kernel/b.ko.xz\nkernel/b.ko.xz:\nkernel/c.ko:\0alias pci:v*d* a\nalias x-* b\n\0\
    softdep a pre: c post: b\n\0alias eth0 a\noptions a x=1\nblacklist b\ninstall c /bin/true\nremove c x\n\0\
    a.y=2 module_blacklist=c quiet\0pci:v1d2";
const NETWORK: &str = "\x01eth0:10.0.2.15::10.0.2.2:255.255.255.0:host:eth0:none:10.0.2.3";
const RESOLV: &str = "\0nameserver 10.0.2.3\nsearch example.com\noptions ndots:2 timeout:1\n";
/// An ACK's options, and an answer to the nameserver's question.
const LEASE: &[u8] = b"\x01\x04\xff\xff\xff\0\x03\x04\x0a\0\x02\x02\x06\x04\x0a\0\x02\x03\x33\x04\0\x01\x51\x80\xff";
const ANSWER: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\x02\x07";
/// An interface's address, as the kernel tells it, behind the kind of its message.
const ADDRESS: &[u8] = b"\x14\x02\x18\x80\0\x02\0\0\0\x08\0\x01\0\x0a\0\x02\x0f\x08\0\x02\0\x0a\0\x02\x0f";
/// A root, its one child behind it, and that one's value.
const INDEX: &[u8] = b"\x20\0\0\x0c\0aa\0\x20\0\0\x19\0\0\0\x01\0\0\0\x02value\0";
const KEYS: &str = "1f2e3d4c I--Q---     2 perm 3f010000     0     0 keyring   _ses: 1\n\
    2b3c4d5e I------     1 perm 1f030000     0     0 asymmetri kernel key: abcd: X509.rsa 1234 []\n";
const FSTAB: &str = "# a table\nUUID=12-34 / ext4 rw,noatime 0 1\n//server/a\\040b /mnt cifs credentials=/c,_netdev 0 0\n\
    /dev/vg/lv /var/crash xfs defaults,nofail,x-systemd.device-timeout=9\n";
const SYSCTL: &str =
    "# a comment\nkernel.panic = 10\n-net/ipv4/conf/eth0.1/rp_filter=1\nvm.dirty_ratio=5 ; no comment\n";
const PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\nbm9uZQAAAAA=\n\
    -----END OPENSSH PRIVATE KEY-----\n";
const PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// A store's archive behind an image, as a boot configuration has it at its end.
fn patched() -> Vec<u8> {
    let archive = overlay::archive("6.1", &[("a.ko".to_owned(), object(&["name=a", "livepatch=Y"]))]).unwrap();
    [&b"image"[..], &[0; 507], &archive].concat()
}

fn raw_header() -> [u8; 512] {
    Header::begun(1_700_000_000, "6.1").encode().as_ref().try_into().unwrap()
}

kdump_hooks::fuzz_targets! {
    binary_index "../fuzz/fuzz_targets/binary_index.rs" any_binary_index_is_read_within_bounds [INDEX],
    datagrams "../fuzz/fuzz_targets/datagrams.rs" any_answer_of_a_server_is_read_within_bounds [LEASE, ANSWER],
    fstab "../fuzz/fuzz_targets/fstab.rs" a_line_of_fstab_is_read_back_as_it_is_written [FSTAB],
    kernel_image "../fuzz/fuzz_targets/kernel_image.rs" any_kernel_s_image_is_unpacked_or_refused
        [unified_image(&[(".linux", b"\x7fELF"), (".initrd", b"070701"), (".uname", b"6.1")]), object(&["name=a"])],
    livepatch "../fuzz/fuzz_targets/livepatch.rs" any_end_of_an_image_and_any_marker_are_read_within_bounds
        [patched(), "a 0123abcd 1\nb 4567cdef 3\n"],
    modules "../fuzz/fuzz_targets/modules.rs" a_plan_never_names_a_module_twice [MODULES],
    network_words "../fuzz/fuzz_targets/network_words.rs" a_network_survives_the_way_through_the_image
        [NETWORK, RESOLV, "\x02server.example:/export/a:vers=4"],
    proc_keys "../fuzz/fuzz_targets/proc_keys.rs" there_is_at_most_a_key_for_each_line [KEYS],
    raw_header "../fuzz/fuzz_targets/raw_header.rs" parts_of_a_raw_device_never_overlap [raw_header(), raw_header()[16..]],
    remote "../fuzz/fuzz_targets/remote.rs" no_password_is_in_an_address_that_is_shown
        ["sftp://user:secret@[fe80::1]:22/var/crash", "ftp://server.example/a", "user@server.example"],
    rtnetlink "../fuzz/fuzz_targets/rtnetlink.rs" any_answer_of_the_kernel_is_read_within_bounds [ADDRESS],
    servers "../fuzz/fuzz_targets/servers.rs" what_servers_say_and_are_called_is_read_again_as_written
        ["//server/share/a:vers=3", "username=a\npassword=b\ndomain=c\n", "http://server:80/a?b", "a@b.example, c@d",
         "HTTP/1.1 204 No Content\r\n\r\n", "250-server\r\n250 SIZE\r\n"],
    signatures "../fuzz/fuzz_targets/signatures.rs" any_signature_and_any_certificate_is_read_within_bounds
        [SIGNATURE, CERTIFICATE],
    ssh_key "../fuzz/fuzz_targets/ssh_key.rs" a_host_s_key_that_is_taken_has_its_kind_in_it [PRIVATE, PUBLIC],
    sysctl "../fuzz/fuzz_targets/sysctl.rs" no_setting_leads_out_of_proc_sys [SYSCTL],
    wildcard "../fuzz/fuzz_targets/wildcard.rs" a_wildcard_matches_as_it_is_defined ["a*b?c\0axxbyc", "*\0"],
}
