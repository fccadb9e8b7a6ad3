//! `/etc/sysconfig/kdump`, and which file counts.

mod effects;
mod machine;
mod round_trip;
mod shipped;

use super::*;
use kdump_init::config::Ending;
use proptest::prelude::*;
use std::fs;

/// What the text says as `/etc/sysconfig/kdump` beside a kdump.conf.
fn parse(text: &str) -> anyhow::Result<(Sysconfig, Vec<String>)> {
    let (config, complaints) = read(text, true);
    complaints.check()?;
    Ok((config.system, complaints.warnings))
}

fn read(text: &str, has_conf: bool) -> (Config, Complaints) {
    let mut complaints = Complaints::default();
    let config = Config::of_sysconfig(text, Path::new("kdump"), !has_conf, &mut complaints);
    (config, complaints)
}

#[test]
fn assignments_mean_what_they_mean_to_a_shell() {
    for (text, value) in [
        ("KDUMP_COMMANDLINE_APPEND=\"a b\"", "a b"),
        ("KDUMP_COMMANDLINE_APPEND='a $b'", "a $b"),
        ("KDUMP_COMMANDLINE_APPEND=a\\ b", "a b"),
        ("KDUMP_COMMANDLINE_APPEND=\"a \\\n  b\" # more", "a   b"),
        ("KDUMP_COMMANDLINE_APPEND=a'b'\"c\"#d", "abc#d"),
        ("KDUMP_COMMANDLINE_APPEND=\"\\$x \\y\"", "$x \\y"),
        ("KDUMP_COMMANDLINE_APPEND=first\nKDUMP_COMMANDLINE_APPEND=last", "last"),
        ("KDUMP_COMMANDLINE_APPEND=\nKEXEC_ARGS=\"-s\"", ""),
    ] {
        assert_eq!(parse(text).unwrap().0.append.unwrap().value, value, "{text}");
    }
}

#[test]
fn what_needs_a_shell_is_refused_with_its_line() {
    for (text, message) in [
        ("A=1\nB=\"$A\"", "kdump:2: `$` asks a shell to expand something; write the value itself, or \\$ for the mark"),
        ("A=`x`", "kdump:1: ``` asks a shell to expand something; write the value itself, or \\` for the mark"),
        ("A=x | y", "kdump:1: `|` is not an assignment, and no commands are run here; write NAME=\"value\""),
        ("\n\necho hello", "kdump:3: `echo` is not an assignment, and no commands are run here; write NAME=\"value\""),
        ("A=(b)", "kdump:1: `(` is a command to a shell; put the value in quotes"),
        ("A=1\nB='x\ny", "kdump:2: the ' that opens here is never closed"),
        (
            "KDUMP_PRESCRIPT=\"/bin/a; /bin/b\"",
            "kdump:1: KDUMP_PRESCRIPT: `;` asks for a shell, and none is run here; write a script and name it instead",
        ),
        (
            "KDUMP_POSTSCRIPT=\"mail root\"",
            "kdump:1: KDUMP_POSTSCRIPT: `mail` is not an absolute path; write it from / on",
        ),
        (
            "KDUMP_TRANSFER=/bin/x",
            "kdump:1: KDUMP_TRANSFER is not supported: nothing but the collector takes the dump; write \
             KDUMP_POSTSCRIPT for what is to be done with it afterwards",
        ),
        (
            "KDUMP_FAIL_CMD=\"/bin/notify; reboot -f\"",
            "kdump:1: KDUMP_FAIL_CMD: a chain of commands asks for a shell, and none is run here; put programs into \
             /etc/kdump/emergency.d, and write the last command alone: reboot -f, halt -f or poweroff -f",
        ),
        ("KDUMP_FAIL_CMD=restart", "kdump:1: KDUMP_FAIL_CMD: `restart` is not an absolute path; write it from / on"),
        ("KDUMP_CONTINUE_ON_ERROR=maybe", "kdump:1: KDUMP_CONTINUE_ON_ERROR: `maybe` is neither true nor false"),
        ("A+=1", "kdump:1: `A+` is not the name of a variable; write NAME=\"value\""),
        (
            "KEXEC_ARGS=\"-s --reset-vga\"",
            "kdump:1: KEXEC_ARGS: `--reset-vga` is not supported: nothing of a kernel's loading can be chosen but the \
             system call; write -s, -c or -a, or take it out",
        ),
    ] {
        assert_eq!(format!("{:#}", parse(text).unwrap_err()), message, "{text}");
    }
}

#[test]
fn suse_s_scripts_are_commands_without_a_shell() {
    let text = "KDUMP_PRESCRIPT=\"/opt/pre -v\"\nKDUMP_POSTSCRIPT=\"\"\nKDUMP_REQUIRED_PROGRAMS=\"cat /bin/ls\"";
    let (system, warnings) = parse(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(system.prescript.unwrap().value, ["/opt/pre", "-v"]);
    assert_eq!(system.postscript, None);
    assert_eq!(system.required_programs[1].value, Path::new("/bin/ls"));
}

#[test]
fn suse_s_switches_and_debian_s_command_are_followed() {
    let text = "KDUMP_IMMEDIATE_REBOOT=no\nKDUMP_CONTINUE_ON_ERROR=\"True\"\nKDUMP_FAIL_CMD=\"poweroff -f\"";
    let (system, warnings) = parse(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(!system.immediate_reboot.unwrap().value && system.continue_on_error.unwrap().value);
    assert_eq!(system.fail_command.unwrap().value, FailCommand::End(Ending::Poweroff));
    for (text, expected) in [
        ("/sbin/halt", FailCommand::End(Ending::Halt)),
        ("reboot --force", FailCommand::End(Ending::Reboot)),
        ("/bin/tell -x all", FailCommand::Run(["/bin/tell", "-x", "all"].map(str::to_owned).into())),
    ] {
        let (system, _) = parse(&format!("KDUMP_FAIL_CMD=\"{text}\"")).unwrap();
        assert_eq!(system.fail_command.unwrap().value, expected, "{text}");
    }
    assert_eq!(parse("KDUMP_FAIL_CMD=\nKDUMP_IMMEDIATE_REBOOT=\"\"").unwrap().0, Sysconfig::default());
}

#[test]
fn how_many_dumps_stay_is_counted_with_the_new_one() {
    for (text, keep) in [
        ("KDUMP_KEEP_OLD_DUMPS=0", None),
        ("KDUMP_KEEP_OLD_DUMPS=\"\"", None),
        ("KDUMP_KEEP_OLD_DUMPS=5", Some(6)),
        ("KDUMP_KEEP_OLD_DUMPS=-1", Some(1)),
        ("KDUMP_NUM_DUMPS=5", Some(5)),
        ("KDUMP_NUM_DUMPS=0", None),
    ] {
        let (system, warnings) = parse(text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(system.keep.map(|given| given.value.get()), keep, "{text}");
    }
    assert_eq!(parse("KDUMP_FREE_DISK_SIZE=64").unwrap().0.free.unwrap().value, 64 << 20);
    for text in ["KDUMP_KEEP_OLD_DUMPS=-2", "KDUMP_NUM_DUMPS=many", "KDUMP_FREE_DISK_SIZE=64M"] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.starts_with("kdump:1: KDUMP_") && error.ends_with("write 0 or more"), "{error}");
    }
}

#[test]
fn other_variables_are_named_in_a_warning() {
    let (_, warnings) = parse("KDUMP_STDLOGLVL=3\nMY_VARIABLE=1\n").unwrap();
    assert_eq!(warnings, ["kdump:2: MY_VARIABLE has no effect; take the line out"]);
}

#[test]
fn an_empty_value_is_none_but_for_the_lists() {
    let (system, _) = parse("KDUMP_KERNELVER=\"\"\nKDUMP_COMMANDLINE=\"\"\nKDUMP_IMG=bzImage").unwrap();
    assert_eq!((system.kernelver, system.commandline), (None, None));
    assert_eq!(system.img.unwrap().value, "bzImage");
}

#[test]
fn the_network_of_suse_is_known() {
    let (system, warnings) = parse("KDUMP_NETCONFIG=\"eth0:dhcp:force\"").unwrap();
    assert!(warnings.is_empty() && system.netconfig.unwrap().value.force);
    let error = parse("KDUMP_NETCONFIG=eth0").unwrap_err();
    assert_eq!(format!("{error:#}"), "kdump:1: KDUMP_NETCONFIG: `eth0` is neither `auto` nor DEVICE:MODE");
}

proptest! {
    #[test]
    fn any_text_ends_in_a_result(text in "[A-Z=\"'\\\\$# \n;a|]{0,60}") {
        let _ = parse(&text);
    }
}

fn files(conf: Option<&[u8]>) -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/sysconfig")).unwrap();
    if let Some(conf) = conf {
        fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
    }
    let files = Files::new(root.path(), None, None);
    (root, files)
}

#[test]
fn an_empty_configuration_asks_for_the_defaults() {
    let (_root, files) = files(Some(b""));
    let config = Config::read(&files).unwrap();
    assert_eq!(config.dump.path.value, Path::new("/var/crash"));
    assert_eq!(config.dump.path.origin.to_string(), "the default");
    assert_eq!(config.system, Sysconfig::default());
}

#[test]
fn a_missing_configuration_is_an_error_with_a_remedy() {
    let (_root, files) = files(None);
    let error = Config::read(&files).unwrap_err().to_string();
    assert!(error.contains("etc/kdump.conf, ") && error.contains("kdump.toml asks for all defaults"), "{error}");
}

#[test]
fn the_native_configuration_wins_where_it_is_and_says_so() {
    let (root, files) = files(Some(b"\npath /a\n"));
    assert!(Config::read(&files).unwrap().warnings.is_empty());
    fs::create_dir(root.path().join("etc/kdump")).unwrap();
    let native = root.path().join(native::PATH);
    fs::write(&native, "path = \"/b\"").unwrap();
    let config = Config::read(&files).unwrap();
    assert_eq!(config.dump.path.value, Path::new("/b"));
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("etc/kdump.conf:2: `path` and all of this file has no effect: "), "{warning}");
    let named = Files::new(root.path(), Some(&root.path().join("etc/kdump.conf")), None);
    assert_eq!(Config::read(&named).unwrap().dump.path.value, Path::new("/a"));
    let named = Files::new(root.path(), Some(&native), None);
    assert!(Config::read(&named).unwrap().warnings.is_empty());
    let missing = Files::new(root.path(), Some(Path::new("/nowhere.toml")), None);
    assert!(Config::read(&missing).unwrap_err().to_string().contains("/nowhere.toml, which --config names"));
}

#[test]
fn old_dumps_that_nobody_would_remove_are_told_of() {
    let (root, files) = files(Some(b""));
    fs::create_dir(root.path().join("etc/kdump")).unwrap();
    let warnings = |targets: &str| {
        fs::write(root.path().join(native::PATH), format!("{targets}[room]\nkeep = 3\n")).unwrap();
        let warnings = Config::read(&files).unwrap().warnings;
        warnings.into_iter().filter(|warning| warning.contains("from disks of this machine alone")).count()
    };
    let remote = "[[target]]\nkind = \"nfs\"\nexport = \"nas:/x\"\n";
    assert_eq!((warnings(""), warnings(remote)), (0, 1));
    assert_eq!(
        warnings(&format!("{remote}[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=x\"\n")),
        0
    );
}

#[test]
fn a_sysconfig_file_may_be_missing_unless_it_was_named() {
    let (root, _) = files(Some(b""));
    let named = root.path().join("nowhere");
    let files = Files::new(root.path(), None, Some(&named));
    assert!(Config::read(&files).unwrap_err().to_string().contains("which --sysconfig names"));
}

#[test]
fn suse_has_one_file_and_who_has_both_says_it_once() {
    let (root, files) = files(None);
    fs::write(root.path().join("etc/sysconfig/kdump"), "KDUMP_SAVEDIR=ssh://nas/srv/crash\n").unwrap();
    let config = Config::read(&files).unwrap();
    assert_eq!(config.dump.path.value, Path::new("/srv/crash"));
    assert!(matches!(config.dump.targets[0].value.line, TargetLine::Remote(_)));
    for other in ["path /x\n", "ext4 UUID=1\n"] {
        fs::write(root.path().join("etc/kdump.conf"), other).unwrap();
        let error = Config::read(&files).unwrap_err().to_string();
        assert!(error.contains("KDUMP_SAVEDIR says where dumps go") && error.contains("kdump.conf:1"), "{error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_named_with_their_line() {
    let (_root, files) = files(Some(b"path /a\n\xff\n"));
    let error = Config::read(&files).unwrap_err().to_string();
    assert!(error.contains("kdump.conf:2: this is not UTF-8"), "{error}");
}
