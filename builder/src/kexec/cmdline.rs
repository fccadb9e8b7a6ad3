//! The command line of the capture kernel.
//!
//! In: the running kernel's command line or the configured one, and what is configured to go and to come. Out: one line
//! that the loading kernel accepts. It is made as RHEL makes it, without what only systemd and udev would read.

use crate::config::Dialect;
use crate::crashkernel::Arch;
use anyhow::bail;
use kdump_hooks::cmdline::{same_name, words};
use std::ffi::CString;

/// Options that would be wrong in any capture kernel: memory that is not there, a root that is not used, another init,
/// what GRUB counts.
const ALWAYS_REMOVED: [&str; 16] = [
    "crashkernel",
    "panic_on_warn",
    "root",
    "rd.lvm.lv",
    "rd.luks.uuid",
    "rd.dm.uuid",
    "rd.md.uuid",
    "fcoe",
    "netroot",
    "rd.iscsi.initiator",
    "iscsi_initiator",
    "disable_cpu_apicid",
    "rdinit",
    "initrd",
    "kpatch.boots",
    "kpatch.accounts",
];

/// `KDUMP_COMMANDLINE_REMOVE` as RHEL ships it everywhere.
const RHEL_REMOVE: &str = "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb hugetlb_cma ignition.firstboot";

/// What SUSE's scripts take out.
const SUSE_REMOVE: &str = "resume splash mem BOOT_IMAGE showopts zfcp.allow_lun_scan hugepages hugepagesz \
    acpi_no_memhotplug cgroup_disable unknown_nmi_panic notsc rd.udev.children-max";

/// What SUSE's scripts put behind it, but for what only udev would read.
const SUSE_APPEND: &str =
    "sysrq=yes reset_devices acpi_no_memhotplug cgroup_disable=memory nokaslr numa=off irqpoll panic=1";

/// What Debian's kdump-config takes out.
const DEBIAN_REMOVE: &str = "hugepages hugepagesz abm";

/// What Debian's kdump-config puts behind it, but for the unit that only systemd would start.
const DEBIAN_APPEND: &str = "reset_devices nr_cpus=1 irqpoll usbcore.nousb";

/// `KDUMP_COMMANDLINE_APPEND` as RHEL ships it everywhere, but for the size of the root.
const RHEL_APPEND: &str = "novmcoredd hugetlb_cma=0 kfence.sample_interval=0";

/// What every image of ours is the better for, whoever configured it.
///
/// Before Linux 6.6, which got eventfs, `tracer_init_tracefs` makes a directory and several files for each trace event,
/// some 9 MB that are there before the image is unpacked. Without it the least `crashkernel=` of 6.1 is 68M, with it 80M.
const OURS: &str = "initramfs_options=size=90% initcall_blacklist=tracer_init_tracefs";

/// What RHEL takes out on one architecture, besides.
fn rhel_remove(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 | Arch::Aarch64 => "cma",
        Arch::S390x => "vmcp_cma cma prot_virt zfcp.allow_lun_scan",
        Arch::Ppc64le | Arch::Other => "",
    }
}

/// What RHEL puts behind the command line on one architecture, but for what only udev would read.
fn rhel_append(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => {
            "irqpoll nr_cpus=1 reset_devices cgroup_disable=memory mce=off numa=off panic=10 acpi_no_memhotplug \
             transparent_hugepage=never nokaslr hest_disable cma=0 pcie_ports=compat"
        }
        Arch::Aarch64 => "irqpoll nr_cpus=1 reset_devices cgroup_disable=memory panic=10 swiotlb=noforce cma=0",
        Arch::Ppc64le => {
            "irqpoll nr_cpus=16 noirqdistrib reset_devices cgroup_disable=memory numa=off ehea.use_mcs=0 panic=10 \
             kvm_cma_resv_ratio=0 transparent_hugepage=never"
        }
        Arch::S390x => "nr_cpus=1 cgroup_disable=memory numa=off panic=10 transparent_hugepage=never vmcp_cma=0 cma=0",
        Arch::Other => "irqpoll maxcpus=1 reset_devices cma=0",
    }
}

/// Names of options that are left out if nobody says which.
pub fn usual_remove(dialect: Dialect, arch: Arch) -> String {
    match dialect {
        Dialect::Native | Dialect::Rhel => format!("{RHEL_REMOVE} {}", rhel_remove(arch)).trim_end().to_owned(),
        Dialect::Suse => SUSE_REMOVE.to_owned(),
        Dialect::Debian => DEBIAN_REMOVE.to_owned(),
    }
}

/// Options that are put behind the command line if nobody says which.
pub fn usual_append(dialect: Dialect, arch: Arch) -> String {
    match dialect {
        Dialect::Native | Dialect::Rhel => format!("{} {RHEL_APPEND} {OURS}", rhel_append(arch)),
        Dialect::Suse => format!("{SUSE_APPEND} {OURS} nr_cpus=1"),
        Dialect::Debian => format!("{DEBIAN_APPEND} {OURS}"),
    }
}

/// An x86 kernel takes 2047 bytes; the loading kernel puts up to 30 with the place of the dump's headers in front and
/// counts the NUL.
const LIMIT: usize = 2047 - 30 - 1;

/// What the command line is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The command line to start from.
    pub base: &'a str,
    /// Names of options to leave out, with blanks between.
    pub remove: &'a str,
    /// Options to put behind it.
    pub append: &'a str,
    /// The APIC id of the processor that booted this kernel, which the capture kernel must not start again.
    pub boot_apicid: Option<u32>,
}

/// Puts the command line together.
///
/// # Errors
/// It is too long.
pub fn capture(parts: Parts) -> anyhow::Result<CString> {
    // An option to remove is named; a value that is given with it does not matter.
    let removed: Vec<String> = words(parts.remove).iter().map(|word| name(word).to_owned()).collect();
    let stays = |word: &String| {
        let name = name(word);
        !word.ends_with('=')
            && !ALWAYS_REMOVED.iter().any(|gone| same_name(gone, name))
            && !removed.iter().any(|gone| same_name(gone, name))
    };
    let mut line: Vec<String> = words(parts.base).into_iter().filter(stays).collect();
    line.extend(words(parts.append));
    if let Some(id) = parts.boot_apicid
        && !line.iter().any(|word| name(word) == "disable_cpu_apicid")
    {
        line.push(format!("disable_cpu_apicid={id}"));
    }
    let line = line.join(" ");
    if line.len() > LIMIT {
        bail!(
            "the command line of the capture kernel has {} bytes, {LIMIT} are possible; take options out with \
             KDUMP_COMMANDLINE_REMOVE",
            line.len()
        );
    }
    Ok(CString::new(line)?)
}

/// The APIC id of the boot processor, from `/proc/cpuinfo`.
pub fn boot_apicid(cpuinfo: &str) -> Option<u32> {
    let first = cpuinfo.split("\n\n").next()?;
    let line = first.lines().find_map(|line| line.strip_prefix("initial apicid"))?;
    line.trim_start().strip_prefix(':')?.trim().parse().ok()
}

fn name(word: &str) -> &str {
    word.trim_start_matches('"').split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(base: &str, remove: &str, append: &str) -> String {
        let parts = Parts { base, remove, append, boot_apicid: Some(0) };
        capture(parts).unwrap().into_string().unwrap()
    }

    #[test]
    fn options_go_by_name_and_come_at_the_end() {
        for (base, remove, append, expected) in [
            (
                "BOOT_IMAGE=/vmlinuz root=UUID=1 ro crashkernel=256M kpatch.boots=1 kpatch.accounts= console=ttyS0 quiet",
                "quiet",
                "nr_cpus=1",
                "BOOT_IMAGE=/vmlinuz ro console=ttyS0 nr_cpus=1 disable_cpu_apicid=0",
            ),
            ("a=1 a-b=2 b= c", "a_b=9", "", "a=1 c disable_cpu_apicid=0"),
            (
                "rootwait dyndbg=\"file x +p\" crashkernel=1M,high crashkernel=2M,low",
                "",
                "x",
                "rootwait dyndbg=\"file x +p\" x disable_cpu_apicid=0",
            ),
            ("disable_cpu_apicid=7", "", "", "disable_cpu_apicid=0"),
            ("", "", "disable_cpu_apicid=3", "disable_cpu_apicid=3"),
        ] {
            assert_eq!(line(base, remove, append), expected);
        }
    }

    #[test]
    fn each_distribution_takes_out_and_puts_in_what_its_own_scripts_do() {
        let base =
            "BOOT_IMAGE=/vmlinuz root=/dev/vda1 splash quiet mce=off abm=1 hugepages=4 console=ttyS0 crashkernel=1M";
        for (dialect, start, word) in [
            (Dialect::Rhel, "BOOT_IMAGE=/vmlinuz splash mce=off abm=1 console=ttyS0 irqpoll nr_cpus=1 ", "cma=0"),
            (Dialect::Suse, "quiet mce=off abm=1 console=ttyS0 sysrq=yes reset_devices ", "nr_cpus=1"),
            (Dialect::Debian, "BOOT_IMAGE=/vmlinuz splash quiet mce=off console=ttyS0 reset_devices ", "usbcore.nousb"),
        ] {
            let made = line(base, &usual_remove(dialect, Arch::X86_64), &usual_append(dialect, Arch::X86_64));
            assert!(made.starts_with(start), "{made}");
            assert!(made.split(' ').any(|had| had == word), "{made}");
            assert!(made.matches("nr_cpus").count() == 1 && made.contains("initcall_blacklist="), "{made}");
        }
    }

    #[test]
    fn each_architecture_has_what_rhel_ships_for_it() {
        let base = "quiet cma=64M vmcp_cma=4 zfcp.allow_lun_scan=0 swiotlb=1 console=ttyS0";
        for (arch, start, words) in [
            (Arch::X86_64, "vmcp_cma=4 zfcp.allow_lun_scan=0 console=ttyS0 irqpoll", "mce=off nr_cpus=1 cma=0 nokaslr"),
            (
                Arch::Aarch64,
                "vmcp_cma=4 zfcp.allow_lun_scan=0 console=ttyS0 irqpoll",
                "swiotlb=noforce nr_cpus=1 cma=0",
            ),
            (
                Arch::Ppc64le,
                "cma=64M vmcp_cma=4 zfcp.allow_lun_scan=0 console=ttyS0 irqpoll",
                "nr_cpus=16 noirqdistrib",
            ),
            (Arch::S390x, "console=ttyS0 nr_cpus=1", "vmcp_cma=0 cma=0 numa=off"),
            (Arch::Other, "cma=64M vmcp_cma=4 zfcp.allow_lun_scan=0 console=ttyS0 irqpoll", "maxcpus=1 reset_devices"),
        ] {
            let made = line(base, &usual_remove(Dialect::Rhel, arch), &usual_append(Dialect::Rhel, arch));
            assert!(made.starts_with(start), "{arch:?}: {made}");
            let all: Vec<&str> = made.split(' ').collect();
            for word in words.split(' ').chain(["novmcoredd", "hugetlb_cma=0", "kfence.sample_interval=0"]) {
                assert!(all.contains(&word), "{arch:?}: {word}: {made}");
            }
            assert_eq!(all.contains(&"mce=off"), arch == Arch::X86_64, "{arch:?}: {made}");
        }
    }

    #[test]
    fn a_line_that_the_kernel_would_not_take_is_an_error_before_it_is_asked() {
        let long = "x".repeat(LIMIT + 1);
        let error = capture(Parts { base: &long, remove: "", append: "", boot_apicid: None }).unwrap_err();
        assert!(error.to_string().contains("2017 bytes, 2016 are possible"), "{error}");
    }

    #[test]
    fn the_boot_processor_is_the_first_one() {
        let text = "processor\t: 0\napicid\t\t: 4\ninitial apicid\t: 2\n\nprocessor\t: 1\ninitial apicid\t: 9\n";
        assert_eq!(boot_apicid(text), Some(2));
        assert_eq!(boot_apicid("processor: 0\n\ninitial apicid: 1"), None);
    }
}
