//! The directives of `kdump.conf`: those that are followed, and those that no version follows any more.

/// The directives that name a file system.
pub(in super::super) const FILESYSTEMS: [&str; 9] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "minix", "virtiofs"];

/// The other directives that name a target.
pub(in super::super) const TARGETS: [&str; 3] = ["raw", "nfs", "ssh"];

/// The other directives that are followed. `raw_force`, `forbid_modules` and `dracut_conf` are ours.
pub(in super::super) const FOLLOWED: [&str; 20] = [
    "path",
    "raw_force",
    "sshkey",
    "core_collector",
    "failure_action",
    "default",
    "final_action",
    "extra_modules",
    "forbid_modules",
    "extra_bins",
    "auto_reset_crashkernel",
    "kdump_pre",
    "kdump_post",
    "kdump_emergency",
    "fence_kdump_nodes",
    "fence_kdump_args",
    "force_rebuild",
    "force_no_rebuild",
    "dracut_args",
    "dracut_conf",
];

/// What is no directive any more, or never was, and what to do instead.
pub(in super::super) const REFUSED: [(&str, &str); 7] = [
    ("net", "was removed from kdump.conf; write `nfs HOST:/EXPORT` or `ssh USER@HOST` in its place"),
    ("options", "was removed from kdump.conf; write a modprobe.d file with an `options` line instead"),
    ("link_delay", "was removed from kdump.conf; take the line out"),
    ("disk_timeout", "was removed from kdump.conf; put rd.timeout=SECONDS in KDUMP_COMMANDLINE_APPEND instead"),
    ("debug_mem_level", "was removed from kdump.conf; take the line out"),
    (
        "blacklist",
        "was removed from kdump.conf; write `forbid_modules MODULE`, or put rd.driver.blacklist=MODULE in KDUMP_COMMANDLINE_APPEND",
    ),
    ("override_resettable", "never had an effect; take the line out"),
];

/// Whether the directive names a target.
pub(in super::super) fn is_target(name: &str) -> bool {
    FILESYSTEMS.contains(&name) || TARGETS.contains(&name)
}

/// All directives that there are or were.
pub(in super::super) fn all() -> impl Iterator<Item = &'static str> {
    let refused = REFUSED.iter().map(|(word, _)| *word);
    FILESYSTEMS.iter().chain(&TARGETS).chain(&FOLLOWED).copied().chain(refused)
}
