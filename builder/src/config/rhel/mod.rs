//! `kdump.conf`, as RHEL writes it.
//!
//! One `name value` per line; a line whose first mark is `#` is skipped, a `#` inside a value starts a comment; one pair
//! of double quotes around the whole value is dropped. Every word that RHEL knows is known here too, if only to say
//! that there is no such word any more. `forbid_modules NAME…` is ours: these modules are not loaded for anybody, nor is
//! what cannot do without them, and none of them goes into the image. So is `dracut_conf no`: dracut.conf and its
//! directories, which are about all images of the machine, do not count.

mod sysconfig;
pub(super) mod words;

pub(super) use sysconfig::{VARIABLES, follow as follow_sysconfig};

use super::collector::Collector;
use super::values::{check_tag, directory, filesystem, from_str, module_name, on_failure, program, raw_device, ssh};
use super::words::nearest;
use super::{Complaints, Given, KdumpConf, Origin, Rebuild, TargetLine, Wanted, dracut, fence};
use anyhow::bail;
use std::collections::BTreeMap;
use std::path::Path;
use words::{REFUSED, all, is_target};

/// What `kdump.conf` says.
#[derive(Debug, Default)]
pub struct Rhel {
    /// All but what is about loading.
    pub dump: KdumpConf,
    /// What `dracut_args` asks for.
    pub dracut: dracut::Asked,
    /// Whether dracut.conf counts.
    pub dracut_conf: Option<Given<bool>>,
    force_rebuild: Option<Given<bool>>,
    force_no_rebuild: Option<Given<bool>>,
}

impl Rhel {
    /// Parses the text of `file`.
    pub fn parse(text: &str, file: &Path, complaints: &mut Complaints) -> Rhel {
        let mut conf = Rhel::default();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let place = Origin::Line(file.to_owned(), number);
            let key = match name {
                "default" => "failure_action",
                name if is_target(name) => "a dump target",
                name => name,
            };
            if let Err(problem) = check_known(name) {
                complaints.fail(&place, problem);
                continue;
            }
            let value = clean(value);
            if value.is_empty() {
                complaints.error(&place, format!("`{name}` has no value; give it one or take the line out"));
                continue;
            }
            if let Some(first) = seen.insert(key, number) {
                complaints.error(
                    &place,
                    match key {
                        "a dump target" => {
                            format!("`{name}` is a second dump target, line {first} names the first; keep one")
                        }
                        _ => format!("`{name}` repeats what line {first} says; keep one of the two"),
                    },
                );
                continue;
            }
            if let Err(problem) = conf.follow(name, value, &place, complaints) {
                complaints.fail(&place, problem.context(name.to_owned()));
            }
        }
        conf.finish(complaints);
        conf
    }

    fn follow(&mut self, name: &str, value: &str, place: &Origin, complaints: &mut Complaints) -> anyhow::Result<()> {
        let dump = &mut self.dump;
        match name {
            "path" => dump.path = Given::at(directory(value)?, place),
            "core_collector" => dump.collector = Given::at(Collector::parse(value)?, place),
            "failure_action" => dump.failure_action = Given::at(on_failure(value)?, place),
            "default" => {
                complaints.warn(place, "`default` is the old name of `failure_action`; write that");
                dump.failure_action = Given::at(on_failure(value)?, place);
            }
            "final_action" => dump.final_action = Given::at(from_str(value)?, place),
            "kdump_pre" => dump.kdump_pre = Some(Given::at(program(value)?, place)),
            "kdump_post" => dump.kdump_post = Some(Given::at(program(value)?, place)),
            "kdump_emergency" => dump.kdump_emergency = Some(Given::at(program(value)?, place)),
            "fence_kdump_nodes" => dump.fence_nodes = Some(Given::at(words_of(value), place)),
            "fence_kdump_args" => dump.fence_args = Some(Given::at(fence::Options::parse(value)?, place)),
            "extra_modules" => dump.extra_modules = each(value, place, module_name)?,
            "forbid_modules" => dump.forbid_modules = each(value, place, module_name)?,
            "extra_bins" => dump.extra_bins = each(value, place, program)?,
            // As RHEL has it, only `no` is no.
            "auto_reset_crashkernel" => dump.auto_reset_crashkernel = Some(Given::at(value != "no", place)),
            "force_rebuild" => self.force_rebuild = Some(Given::at(zero_or_one(value)?, place)),
            "force_no_rebuild" => self.force_no_rebuild = Some(Given::at(zero_or_one(value)?, place)),
            "dracut_args" => self.dracut.arguments(value, place, complaints)?,
            "dracut_conf" => self.dracut_conf = Some(Given::at(yes_or_no(value)?, place)),
            "raw_force" => dump.raw_force = Some(Given::at(yes_or_no(value)?, place)),
            "sshkey" => dump.sshkey = Some(Given::at(program(value)?, place)),
            "virtiofs" => self.target(TargetLine::Virtiofs(check_tag(value)?), place),
            "raw" => self.target(TargetLine::Raw(raw_device(value)?), place),
            "ssh" => self.target(TargetLine::Remote(ssh(value)?), place),
            "nfs" => self.target(TargetLine::Nfs(from_str(value)?), place),
            fstype => {
                let (fstype, device) = filesystem(fstype, value)?;
                self.target(TargetLine::Filesystem { fstype, device }, place);
            }
        }
        Ok(())
    }

    fn target(&mut self, line: TargetLine, place: &Origin) {
        self.dump.targets = vec![Given::at(Wanted::from(line), place)];
    }

    /// What two lines say together.
    fn finish(&mut self, complaints: &mut Complaints) {
        if let Some(mount) = self.dracut.target.take() {
            match self.dump.targets.first() {
                Some(target) => complaints.error(
                    &mount.origin,
                    format!(
                        "dracut_args: --mount is a second dump target, {} names the first; keep one",
                        target.origin
                    ),
                ),
                None => self.dump.targets.push(mount),
            }
        }
        let dump = &mut self.dump;
        let is_set = |given: &Option<Given<bool>>| given.clone().filter(|given| given.value);
        dump.rebuild = match (is_set(&self.force_rebuild), is_set(&self.force_no_rebuild)) {
            (Some(always), Some(never)) => {
                let (first, second) =
                    (always.origin.clone().min(never.origin.clone()), always.origin.max(never.origin));
                complaints.error(
                    &second,
                    format!("force_rebuild and force_no_rebuild contradict each other ({first}); keep one of the two"),
                );
                None
            }
            (Some(always), None) => Some(always.map(|_| Rebuild::Always)),
            (None, never) => never.map(|never| never.map(|_| Rebuild::Never)),
        };
        if let (Some(force), false) = (&dump.raw_force, dump.is_raw()) {
            complaints.warn(&force.origin, "raw_force has no effect without a raw target");
        }
        if let (None, Some(args)) = (&dump.fence_nodes, &dump.fence_args) {
            complaints.warn(&args.origin, "fence_kdump_args has no effect without fence_kdump_nodes");
        }
        if let (Some(key), Some(target)) = (&dump.sshkey, dump.targets.first())
            && !matches!(target.value.line, TargetLine::Remote(_))
        {
            complaints.warn(&key.origin, format!("sshkey has no effect: {} names no machine by ssh", target.origin));
        }
    }
}

/// The value without its comment, its blanks and its quotes.
fn clean(value: &str) -> &str {
    let value = value.split('#').next().unwrap_or_default().trim();
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}

fn check_known(name: &str) -> anyhow::Result<()> {
    if let Some((_, what)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        bail!("`{name}` {what}");
    }
    if all().any(|word| word == name) {
        return Ok(());
    }
    if name.starts_with("KDUMP_") || name.contains('=') {
        bail!("`{name}` is not a directive; variables stand in /etc/sysconfig/kdump");
    }
    match nearest(name, all()) {
        Some(near) => bail!("there is no directive `{name}`; was `{near}` meant?"),
        None => bail!("there is no directive `{name}`; take the line out or put a # in front of it"),
    }
}

fn words_of(value: &str) -> Vec<String> {
    value.split_whitespace().map(str::to_owned).collect()
}

/// Every word of a value.
fn each<T>(value: &str, place: &Origin, make: impl Fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<Given<T>>> {
    value.split_whitespace().map(|word| Ok(Given::at(make(word)?, place))).collect()
}

fn yes_or_no(value: &str) -> anyhow::Result<bool> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => bail!("`{value}` is neither yes nor no"),
    }
}

fn zero_or_one(value: &str) -> anyhow::Result<bool> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => bail!("`{value}` is neither 0 nor 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnFailure;
    use kdump_hooks::DeviceSpec;
    use kdump_init::config::{Ending, FailureAction};

    fn read(text: &str) -> anyhow::Result<(Rhel, Vec<String>)> {
        let mut complaints = Complaints::default();
        let conf = Rhel::parse(text, Path::new("kdump.conf"), &mut complaints);
        complaints.check()?;
        Ok((conf, complaints.warnings))
    }

    fn parse(text: &str) -> anyhow::Result<(KdumpConf, Vec<String>)> {
        read(text).map(|(conf, warnings)| (conf.dump, warnings))
    }

    #[test]
    fn every_directive_finds_its_place() {
        let (conf, warnings) = parse(
            "# comment\n\n  path  /var//crash/ # here\next4 \"LABEL=crash\"\ncore_collector makedumpfile -l -d 31\n\
             failure_action halt\nfinal_action poweroff\nextra_modules e1000 nvme\nextra_bins /bin/a /bin/b\n",
        )
        .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.path.value, Path::new("/var/crash"));
        assert_eq!(conf.path.origin.to_string(), "kdump.conf:3");
        let ext4 = TargetLine::Filesystem { fstype: "ext4".into(), device: DeviceSpec::Label("crash".into()) };
        assert_eq!(conf.targets[0].value, ext4.into());
        assert_eq!(conf.collector.value.argv, ["kdump-capture", "-l", "-d", "31"]);
        assert_eq!(conf.failure_action.value, OnFailure::Action(Ending::Halt.into()));
        assert_eq!(conf.final_action.value, Ending::Poweroff);
        assert_eq!(conf.extra_modules.len(), 2);
        assert_eq!(conf.extra_bins[1].value, Path::new("/bin/b"));
    }

    #[test]
    fn an_nfs_export_is_a_target() {
        for (text, server, export) in
            [("nfs nas.example:/srv/crash", "nas.example", "/srv/crash"), ("nfs [fd00::7]:/x", "fd00::7", "/x")]
        {
            let TargetLine::Nfs(nfs) = parse(text).unwrap().0.targets.remove(0).value.line else { panic!("{text}") };
            assert_eq!((nfs.server.as_str(), nfs.export.as_str()), (server, export));
        }
    }

    #[test]
    fn a_raw_target_is_named_by_what_does_not_lie_on_it() {
        let (conf, warnings) = parse("raw PARTUUID=12-01\nraw_force yes\n").unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.targets[0].value.line, TargetLine::Raw(DeviceSpec::PartUuid("12-01".into())));
        assert!(conf.raw_force.unwrap().value);
        assert!(parse("raw /dev/disk/by-id/virtio-dumps").is_ok());
        for name in ["UUID=12", "LABEL=crash", "/dev/disk/by-uuid/12"] {
            let error = format!("{:#}", parse(&format!("raw {name}")).unwrap_err());
            assert!(error.contains("is the name of what is on a device"), "{error}");
        }
        let (_, warnings) = parse("ext4 UUID=12\nraw_force no").unwrap();
        assert_eq!(warnings, ["kdump.conf:2: raw_force has no effect without a raw target"]);
        assert!(parse("raw_force maybe").is_err());
        let error = format!("{:#}", parse("raw /dev/a\next4 /dev/b").unwrap_err());
        assert!(error.contains("is a second dump target"), "{error}");
    }

    #[test]
    fn what_follows_a_failure_and_who_is_told_is_understood() {
        let (conf, warnings) = parse(
            "failure_action dump_to_rootfs\nkdump_pre /usr/bin/pre\nkdump_post /usr/bin/my post\n\
             kdump_emergency /usr/bin/help\nfence_kdump_nodes node1 192.0.2.2\nfence_kdump_args -p 7411 -i 5\n",
        )
        .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.failure_action.value, OnFailure::DumpToRootfs);
        assert_eq!(conf.kdump_pre.unwrap().value, Path::new("/usr/bin/pre"));
        assert_eq!(conf.kdump_post.unwrap().value, Path::new("/usr/bin/my post"));
        assert_eq!(conf.kdump_emergency.unwrap().origin.to_string(), "kdump.conf:4");
        assert_eq!(conf.fence_nodes.unwrap().value, ["node1", "192.0.2.2"]);
        assert_eq!(conf.fence_args.unwrap().value.port, 7411);
        let shell = parse("failure_action shell").unwrap().0;
        assert_eq!(shell.failure_action.value, OnFailure::Action(FailureAction::Shell));
        let (_, warnings) = parse("fence_kdump_args -i 5").unwrap();
        assert_eq!(warnings, ["kdump.conf:1: fence_kdump_args has no effect without fence_kdump_nodes"]);
    }

    #[test]
    fn the_old_name_of_the_failure_action_still_works_with_a_warning() {
        let (conf, warnings) = parse("default poweroff\n").unwrap();
        assert_eq!(conf.failure_action.value, OnFailure::Action(Ending::Poweroff.into()));
        assert_eq!(warnings, ["kdump.conf:1: `default` is the old name of `failure_action`; write that"]);
    }

    #[test]
    fn a_share_is_named_by_its_tag() {
        let target = |text| parse(text).map(|(conf, _)| conf.targets[0].value.line.clone());
        assert_eq!(target("virtiofs dumps").unwrap(), TargetLine::Virtiofs("dumps".into()));
        assert!(target("virtiofs /srv/dumps").is_err());
    }

    #[test]
    fn a_machine_that_is_sent_to_may_have_an_ipv6_address_without_brackets() {
        for (text, place) in [
            ("ssh me@nas", "ssh://me@nas/"),
            ("ssh me@fe80::1", "ssh://me@[fe80::1]/"),
            ("ssh me@[::1]", "ssh://me@[::1]/"),
        ] {
            let (mut conf, _) = parse(&format!("{text}\nsshkey /root/key\n")).unwrap();
            let TargetLine::Remote(remote) = conf.targets.remove(0).value.line else { panic!("no remote") };
            assert_eq!(remote.to_string(), place);
            assert_eq!(conf.sshkey.unwrap().value, Path::new("/root/key"));
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name_line_and_remedy() {
        for (text, message) in [
            ("pth /x", "kdump.conf:1: there is no directive `pth`; was `path` meant?"),
            ("corecollector x", "kdump.conf:1: there is no directive `corecollector`; was `core_collector` meant?"),
            (
                "\nabracadabra 1",
                "kdump.conf:2: there is no directive `abracadabra`; take the line out or put a # in front of it",
            ),
            ("path", "kdump.conf:1: `path` has no value; give it one or take the line out"),
            ("path # none", "kdump.conf:1: `path` has no value; give it one or take the line out"),
            ("path /a\npath /b", "kdump.conf:2: `path` repeats what line 1 says; keep one of the two"),
            (
                "failure_action halt\ndefault halt",
                "kdump.conf:2: `default` repeats what line 1 says; keep one of the two",
            ),
            (
                "ext4 /dev/a\nxfs /dev/b",
                "kdump.conf:2: `xfs` is a second dump target, line 1 names the first; keep one",
            ),
            ("ssh host", "kdump.conf:1: ssh: `host` is not USER@HOST; write such as `ssh dump@nas`"),
            ("ssh me@a:b", "kdump.conf:1: ssh: `a:b` is neither the name nor the address of a host"),
            ("ssh me@-oProxy", "kdump.conf:1: ssh: `-oProxy` is neither the name nor the address of a host"),
            (
                "nfs host",
                "kdump.conf:1: nfs: `host` is not an NFS export; write HOST:/EXPORT, an IPv6 address in brackets",
            ),
            (
                "ext4 /dev/a\nnfs host:/export",
                "kdump.conf:2: `nfs` is a second dump target, line 1 names the first; keep one",
            ),
            (
                "blacklist foo",
                "kdump.conf:1: `blacklist` was removed from kdump.conf; write `forbid_modules MODULE`, or put \
                 rd.driver.blacklist=MODULE in KDUMP_COMMANDLINE_APPEND",
            ),
            ("kdump_pre bin/x", "kdump.conf:1: kdump_pre: `bin/x` is not an absolute path; write it from / on"),
            ("kdump_post /bin/../x", "kdump.conf:1: kdump_post: `/bin/../x` has `..` in it; write the path without"),
            (
                "final_action shell",
                "kdump.conf:1: final_action: `shell` is not an ending; write reboot, halt or poweroff",
            ),
            (
                "failure_action explode",
                "kdump.conf:1: failure_action: `explode` is none; write reboot, halt, poweroff, shell or dump_to_rootfs",
            ),
            (
                "fence_kdump_args -z 1",
                "kdump.conf:1: fence_kdump_args: `-z` is not supported; -p PORT, -i SECONDS, -c COUNT and \
                 -f ipv4|ipv6|auto are",
            ),
            ("ext4 vda", "kdump.conf:1: ext4: `vda` is not a block device; write /dev/NAME, UUID=… or LABEL=…"),
            ("path /a/../b", "kdump.conf:1: path: `/a/../b` has `..` in it; write the directory without"),
            (
                "path /a\u{3}b",
                "kdump.conf:1: path: `/a\\u{3}b` has a control character in it; write the directory without",
            ),
            ("extra_bins a", "kdump.conf:1: extra_bins: `a` is not an absolute path; write it from / on"),
            (
                "core_collector scp",
                "kdump.conf:1: core_collector: `scp` would copy all of the memory; take the line out: every target has \
                 its way without it, and `makedumpfile -E -d 0` leaves nothing out either",
            ),
            (
                "core_collector mydump",
                "kdump.conf:1: core_collector: `mydump` is neither makedumpfile nor kdump-capture nor an absolute path; \
                 write where the program is",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(format!("{error:#}"), message, "{text}");
        }
    }

    #[test]
    fn every_word_of_rhel_is_known() {
        for name in "auto_reset_crashkernel raw nfs ssh sshkey virtiofs path core_collector kdump_pre kdump_post \
                     kdump_emergency extra_bins extra_modules failure_action default final_action force_rebuild \
                     force_no_rebuild dracut_args fence_kdump_args fence_kdump_nodes net options link_delay \
                     disk_timeout debug_mem_level blacklist"
            .split_whitespace()
        {
            if let Err(error) = parse(&format!("{name} something")) {
                assert!(!format!("{error:#}").contains("there is no directive"), "{error:#}");
            }
        }
    }
}
