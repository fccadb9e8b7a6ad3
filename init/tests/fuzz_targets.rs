//! Every fuzz target for a moment, on the stable compiler; see `kdump_hooks::fake::fuzz`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, unused_attributes)]

extern crate self as libfuzzer_sys;

pub use kdump_hooks::fuzz_target;

const CONFIG: &str = "version = 1\nkernel_release = \"6.1\"\nbuilt_by = \"x\"\nendings = []\n[dump]\npath = \"/var/crash\"\n\
    collector = [\"kdump-capture\", \"-z\"]\n[[hooks.targets]]\nkind = \"filesystem\"\nfstype = \"ext4\"\n\
    device = \"UUID=1\"\n";
const EVENT: &str =
    "add@/devices/pci0\0ACTION=add\0DEVPATH=/devices/pci0\0SUBSYSTEM=block\0MODALIAS=pci:v1\0DEVNAME=vda\0";
const MOUNTS: &str = "27 1 254:1 / / rw - ext4 /dev/vda1 rw\n28 27 0:5 / /dev rw shared:2 - devtmpfs udev rw\n\
    29 27 254:2 / /sysroot rw - xfs /dev/vda2 rw\n";

kdump_hooks::fuzz_targets! {
    image_config "../fuzz/fuzz_targets/image_config.rs" any_text_is_read_as_what_init_is_told [CONFIG, ""],
    normal_boot "../fuzz/fuzz_targets/normal_boot.rs" any_command_line_asks_for_some_boot_or_for_none
        ["root=UUID=12-34 ro rootfstype=ext4 rootflags=noatime rootwait rd.timeout=7 rd.break=pre-mount", MOUNTS],
    partition "../fuzz/fuzz_targets/partition.rs" any_partition_table_is_read_within_bounds
        [[&[0, 1, 0, 0, 0][..], &[0; 2048]].concat(), [&[1, 2, 0, 0, 0][..], &[7; 4096]].concat()],
    superblock "../fuzz/fuzz_targets/superblock.rs" any_superblock_is_read_within_bounds
        [[&[0xff, 0x3f, 0, 0][..], &[1; 512]].concat(), [&[1, 0, 0, 4][..], &[0; 64]].concat()],
    uevent "../fuzz/fuzz_targets/uevent.rs" any_message_of_the_kernel_is_read_within_bounds [EVENT, "stage vmcore 3\n"],
}
