//! Every fuzz target for a moment, on the stable compiler; see `kdump_hooks::fake::fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, unused_attributes)]

extern crate self as libfuzzer_sys;

pub use kdump_hooks::fuzz_target;

use kdump_hooks::newc::Header;

const GRUB: &str =
    "\0GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"quiet crashkernel=1G-:128M\" # a\nGRUB_CMDLINE_LINUX_DEFAULT='a b'\n";
const ZIPL: &str =
    "\x01[defaultboot]\ndefault=linux\n[linux]\ntarget=/boot\nimage=/boot/a\nparameters=\"root=/dev/a\"\n";
const ENTRY: &str = "\x02title A\nversion 6.1\nlinux /vmlinuz\ninitrd /initrd\noptions root=UUID=1 crashkernel=auto\n";
const RHEL: &str = "ssh root@server.example\nsshkey /root/.ssh/kdump\npath /var/crash\ncore_collector makedumpfile -F -l \
    --message-level 7 -d 31\nextra_modules a b\ndracut_args --mount \"/dev/a /b ext4 defaults\" --install c\nfailure_action \
    shell\nfence_kdump_args -p 7410 -f auto -c 0 -i 10\nfence_kdump_nodes a b\n";
const SYSCONFIG: &str = "KDUMP_KERNELVER=\"6.1\"\nKDUMP_COMMANDLINE_APPEND=\"irqpoll nr_cpus=1\"\nKEXEC_ARGS=\"-s\"\n\
    KDUMP_SAVEDIR=\"file:///var/crash\"\nKDUMP_DUMPLEVEL=\"31\"\nKDUMP_KEEP_OLD_DUMPS='4'\nMKDUMPRD_ARGS=a\n";
const DEBIAN: &str = "USE_KDUMP=1\nKDUMP_COREDIR=\"/var/crash\"\nKDUMP_KERNEL=/var/lib/kdump/vmlinuz\nMAKEDUMP_ARGS=\"-c \
    -d 31\"\nSSH=\"a@b\"\nSSH_KEY=/k\nNFS=\"server:/a\"\nHOSTTAG=\"hostname\"\nKDUMP_FAIL_CMD=\"reboot -f\"\n";
const DRACUT: &str = "add_drivers+=\" a b \"\nomit_dracutmodules+=\" c \"\ncompress=\"zstd\"\nhostonly=yes\n\
    install_items+=\" /etc/a /bin/b \"\nfilesystems=\"ext4\"\n";
const NATIVE: &str = "[dump]\npath = \"/var/crash\"\nlevel = 31\ncompress = \"zstd\"\n[[target]]\nkind = \"nfs\"\n\
    location = \"server:/a\"\n[kernel]\nappend = \"nr_cpus=1\"\n[image]\ndrivers = [\"a\"]\n";
const IOMEM: &str = "00001000-0009fbff : System RAM\n000a0000-000bffff : PCI Bus 0000:00\n00100000-bffdffff : System RAM\n  \
    01000000-01e00d80 : Kernel code\n  2f000000-3effffff : Crash kernel\n3f000000-3f0fffff : ACPI Tables\n";
const KNOWN_HOSTS: &str = "server,10.0.2.2 ssh-ed25519 AAAAC3Nz\n@revoked * ssh-rsa AAAA\n[other]:2222 ecdsa-sha2-nistp256 \
    AAAA comment\n|1|2gujB9Q2nLrXoVBHjZCVTG6BW1s=|FZEzFeDsfRrMk8Ym0fUpCC8oLIY= ssh-rsa AAAA\n\0server";
const CIB: &str = "<?xml version=\"1.0\"?>\n<cib epoch=\"7\"><configuration><crm_config/><nodes><node id=\"1\" \
    uname=\"own\"/><node id=\"2\" uname=\"192.0.2.2\"><instance_attributes id=\"n\"/></node></nodes><resources><group \
    id=\"g\"><primitive id=\"kdump\" class=\"stonith\" type=\"fence_kdump\"/></group></resources></configuration></cib>\n";
const CRYPTTAB: &str = "# a table\nsecret UUID=aa010203-0405-0607-0809-0a0b0c0d0e0f /etc/key luks,discard,keyfile-offset=512\n\
    other /dev/a none\n\0luks,keyfile-size=32";

/// The same text with the number of its dialect in front.
fn dialects() -> [String; 3] {
    [format!("\0{RHEL}"), format!("\x01{SYSCONFIG}"), format!("\x02{DEBIAN}")]
}

/// An archive of init, of a link to it and of what an image says of itself.
fn image() -> Vec<u8> {
    let mut image = Vec::new();
    let files: [(&str, u32, &str); 4] = [
        ("init", 0o100_755, "\x7fELF"),
        ("bin/a", 0o120_777, "../init"),
        ("etc/kdump/image.toml", 0o100_600, "version = 1\nkernel_release = \"6.1\"\nbuilt_by = \"x\"\n"),
        ("TRAILER!!!", 0, ""),
    ];
    for (name, mode, data) in files {
        let (namesize, filesize) = (u32::try_from(name.len() + 1).unwrap(), u32::try_from(data.len()).unwrap());
        image.extend(Header { ino: 1, nlink: 1, mode, namesize, filesize, ..Header::default() }.encode().bytes());
        for text in [format!("{name}\0"), data.to_owned()] {
            image.extend(text.bytes());
            image.resize(image.len().next_multiple_of(4), 0);
        }
    }
    image
}

/// The header of a kernel, and some code.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 2048];
    let fields: [(usize, &[u8]); 7] = [
        (0x1f1, &[1]),
        (0x1fe, &[0x55, 0xaa, 0xeb, 0x66]),
        (0x202, b"HdrS\x0f\x02"),
        (0x230, &[0, 0, 0x20, 0]),
        (0x234, &[1, 21, 3, 0]),
        (0x238, &[0xff, 7, 0, 0]),
        (0x260, &[0, 0, 0x40, 1]),
    ];
    for (at, bytes) in fields {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

/// Two records of a flattened stream, and their end.
fn records() -> Vec<u8> {
    let record = |at: i64, data: &[u8]| [&at.to_be_bytes()[..], &(data.len() as i64).to_be_bytes(), data].concat();
    [record(0, b"KDUMP   "), record(4096, &[7; 40]), [-1_i64, -1].map(i64::to_be_bytes).concat()].concat()
}

kdump_hooks::fuzz_targets! {
    boot_entries "../fuzz/fuzz_targets/boot_entries.rs" what_a_boot_loader_was_told_once_is_settled [GRUB, ZIPL, ENTRY],
    bzimage "../fuzz/fuzz_targets/bzimage.rs" what_is_taken_for_a_kernel_has_an_entry_and_takes_memory [kernel()],
    convert "../fuzz/fuzz_targets/convert.rs" what_is_converted_asks_for_the_same
        [dialects()[0], dialects()[1], dialects()[2]],
    crashkernel "../fuzz/fuzz_targets/crashkernel.rs" any_reservation_is_read_again_as_it_is_written
        ["1G-4G:192M,4G-64G:256M,64G-:512M@16M", "256M,high", "quiet crashkernel=128M crashkernel=72M,low"],
    crypttab "../fuzz/fuzz_targets/crypttab.rs" any_crypttab_is_read_within_bounds [CRYPTTAB],
    debian "../fuzz/fuzz_targets/debian.rs" every_refusal_of_kdump_tools_names_its_line [DEBIAN],
    dracut_conf "../fuzz/fuzz_targets/dracut_conf.rs" every_refusal_of_dracut_conf_names_its_line [DRACUT],
    fence "../fuzz/fuzz_targets/fence.rs" what_is_accepted_for_fencing_can_be_sent_by ["-p 7410 -f auto -c 0 -i 10 -v"],
    image "../fuzz/fuzz_targets/image.rs" any_image_is_listed_and_compared_within_bounds [image()],
    initramfs_modules "../fuzz/fuzz_targets/initramfs_modules.rs" every_refusal_of_a_list_of_modules_names_its_line
        ["# a list\n\n  nbd\nraid1 # behind it\ndummy numdummies=2\n"],
    iomem "../fuzz/fuzz_targets/iomem.rs" no_piece_of_memory_ends_before_it_begins [IOMEM],
    kdump_conf "../fuzz/fuzz_targets/kdump_conf.rs" every_refusal_of_kdump_conf_names_its_line [RHEL],
    known_hosts "../fuzz/fuzz_targets/known_hosts.rs" every_known_key_is_a_kind_and_a_key [KNOWN_HOSTS],
    native "../fuzz/fuzz_targets/native.rs" every_refusal_of_kdump_toml_names_its_line [NATIVE],
    nvme_address "../fuzz/fuzz_targets/nvme_address.rs" any_controller_s_address_is_read_within_bounds
        ["traddr=10.0.2.2,trsvcid=4420,host_traddr=10.0.2.15", "traddr=fe80::1%eth0,trsvcid=4420"],
    pacemaker "../fuzz/fuzz_targets/pacemaker.rs" a_node_has_a_name_only_if_the_text_has_it [CIB],
    raw_stream "../fuzz/fuzz_targets/raw_stream.rs" a_stream_s_measure_lies_within_the_device [records()],
    sysconfig "../fuzz/fuzz_targets/sysconfig.rs" every_refusal_of_sysconfig_names_its_line [SYSCONFIG],
}
