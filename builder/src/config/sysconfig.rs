//! `/etc/sysconfig/kdump`: a file that RHEL sources as shell, read here without one.
//!
//! Assignments, comments, quotes and continued lines mean what they mean to a shell. Expansion and commands are errors
//! with their place: guessing what a shell would have made of them is worse than asking.

use super::{Given, Origin, Savedir};
use anyhow::{Context, bail};
use kdump_hooks::net::NetConfig;
use kdump_hooks::remote::Password;
use kdump_init::config::Ending;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The variables that matter to the image and to loading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysconfig {
    /// `KDUMP_KERNELVER`: the capture kernel, if not the running one.
    pub kernelver: Option<Given<String>>,
    /// `KDUMP_COMMANDLINE`: in place of the running kernel's command line.
    pub commandline: Option<Given<String>>,
    /// `KDUMP_COMMANDLINE_REMOVE`: options left out of it.
    pub remove: Option<Given<String>>,
    /// `KDUMP_COMMANDLINE_APPEND`: options put behind it.
    pub append: Option<Given<String>>,
    /// `KDUMP_BOOTDIR`: where the kernel is.
    pub bootdir: Option<Given<PathBuf>>,
    /// `KDUMP_IMG`: the first part of the kernel's file name.
    pub img: Option<Given<String>>,
    /// `KDUMP_IMG_EXT`: the last part of the kernel's file name.
    pub img_ext: Option<Given<String>>,
    /// `KDUMP_NETCONFIG` of SUSE: how the network is made.
    pub netconfig: Option<Given<NetConfig>>,
    /// SUSE's `KDUMP_SAVEDIR`: where dumps go.
    pub savedir: Option<Given<Savedir>>,
    /// SUSE's `KDUMP_SSH_IDENTITY`: private keys, relative to root's.
    pub ssh_identity: Option<Given<String>>,
    /// SUSE's `KDUMP_HOST_KEY`: the key of the host that dumps go to; `*` for any.
    pub host_key: Option<Given<String>>,
    /// SUSE's `KDUMP_NET_TIMEOUT`: how many seconds that host is waited for.
    pub net_timeout: Option<Given<u64>>,
    /// SUSE's `KDUMP_PRESCRIPT`: run before the dump.
    pub prescript: Option<Given<Vec<String>>>,
    /// SUSE's `KDUMP_POSTSCRIPT`: run after the dump.
    pub postscript: Option<Given<Vec<String>>>,
    /// SUSE's `KDUMP_SMTP_SERVER`: who takes mail.
    pub smtp_server: Option<Given<String>>,
    /// SUSE's `KDUMP_SMTP_USER`: as whom it is handed over.
    pub smtp_user: Option<Given<String>>,
    /// SUSE's `KDUMP_SMTP_PASSWORD`.
    pub smtp_password: Option<Given<Password>>,
    /// SUSE's `KDUMP_NOTIFICATION_TO`: who gets it.
    pub notification_to: Option<Given<String>>,
    /// SUSE's `KDUMP_NOTIFICATION_CC`: who gets a copy.
    pub notification_cc: Option<Given<String>>,
    /// SUSE's `KDUMP_REQUIRED_PROGRAMS`: what these need.
    pub required_programs: Vec<Given<PathBuf>>,
    /// SUSE's `KDUMP_IMMEDIATE_REBOOT`: `false` asks for a shell before the final action.
    pub immediate_reboot: Option<Given<bool>>,
    /// SUSE's `KDUMP_CONTINUE_ON_ERROR`: `false` asks for a shell when there is no complete dump.
    pub continue_on_error: Option<Given<bool>>,
    /// Debian's `KDUMP_FAIL_CMD`: what follows when there is no complete dump.
    pub fail_command: Option<Given<FailCommand>>,
    /// SUSE's `KDUMP_KEEP_OLD_DUMPS` or Debian's `KDUMP_NUM_DUMPS`: how many dumps stay, the new one among them.
    pub keep: Option<Given<NonZeroU32>>,
    /// SUSE's `KDUMP_FREE_DISK_SIZE`: bytes that stay free.
    pub free: Option<Given<u64>>,
}

/// What `KDUMP_FAIL_CMD` comes to without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailCommand {
    /// `reboot -f` and its kin.
    End(Ending),
    /// A program is run; the failure action follows.
    Run(Vec<String>),
}

/// Accepted and without effect here: how much RHEL's scripts print, and a notice that this version does not give.
const WITHOUT_EFFECT: [&str; 4] =
    ["KDUMP_STDLOGLVL", "KDUMP_SYSLOGLVL", "KDUMP_KMSGLOGLVL", "VMCORE_CREATION_NOTIFICATION"];

impl Sysconfig {
    /// Parses the text of `file`. An empty value is as good as none, except for the options to append.
    ///
    /// # Errors
    /// What is not an assignment, or needs a shell, as `FILE:LINE`.
    pub fn parse(text: &str, file: &Path, warnings: &mut Vec<String>) -> anyhow::Result<Sysconfig> {
        let mut system = Sysconfig::default();
        for (line, name, value) in assignments(text, file)? {
            let origin = Origin::Line(file.to_owned(), line);
            let some = |value: String| (!value.is_empty()).then(|| Given { value, origin: origin.clone() });
            match name.as_str() {
                "KDUMP_KERNELVER" => system.kernelver = some(value),
                "KDUMP_COMMANDLINE" => system.commandline = some(value),
                "KDUMP_COMMANDLINE_REMOVE" => system.remove = Some(Given { value, origin }),
                "KDUMP_COMMANDLINE_APPEND" => system.append = Some(Given { value, origin }),
                "KDUMP_BOOTDIR" => {
                    system.bootdir = some(value).map(|dir| Given { value: dir.value.into(), origin: dir.origin });
                }
                "KDUMP_IMG" => system.img = some(value),
                "KDUMP_IMG_EXT" => system.img_ext = some(value),
                "KDUMP_NETCONFIG" => {
                    let value = NetConfig::parse(&value).with_context(|| format!("{origin}: KDUMP_NETCONFIG"))?;
                    system.netconfig = Some(Given { value, origin });
                }
                "KDUMP_SMTP_SERVER" => system.smtp_server = some(value),
                "KDUMP_SMTP_USER" => system.smtp_user = some(value),
                "KDUMP_SMTP_PASSWORD" => {
                    let secret = |Given { value, origin }| Given { value: Password(Some(value)), origin };
                    system.smtp_password = some(value).map(secret);
                }
                "KDUMP_NOTIFICATION_TO" => system.notification_to = some(value),
                "KDUMP_NOTIFICATION_CC" => system.notification_cc = some(value),
                "KDUMP_SAVEDIR" => {
                    let savedir = |given: Given<String>| Savedir::parse(&given.value);
                    let parsed = some(value).map(savedir).transpose();
                    let parsed = parsed.with_context(|| format!("{origin}: KDUMP_SAVEDIR"))?;
                    system.savedir = parsed.map(|value| Given { value, origin });
                }
                "KDUMP_SSH_IDENTITY" => system.ssh_identity = some(value),
                "KDUMP_HOST_KEY" => {
                    if !value.is_empty() && value != "*" && value.split_whitespace().count() != 2 {
                        bail!("{origin}: KDUMP_HOST_KEY: write a kind and a key, such as `ssh-ed25519 AAAA…`, or `*`");
                    }
                    system.host_key = some(value);
                }
                "KDUMP_NET_TIMEOUT" => {
                    let wrong = || format!("{origin}: KDUMP_NET_TIMEOUT: `{value}` is not a number of seconds");
                    let seconds = (!value.is_empty()).then(|| value.parse().with_context(wrong)).transpose()?;
                    system.net_timeout = seconds.map(|value| Given { value, origin });
                }
                "KDUMP_PRESCRIPT" => system.prescript = command(&name, some(value))?,
                "KDUMP_POSTSCRIPT" => system.postscript = command(&name, some(value))?,
                "KDUMP_REQUIRED_PROGRAMS" => {
                    let program = |path: &str| Given { value: path.into(), origin: origin.clone() };
                    system.required_programs = value.split_whitespace().map(program).collect();
                }
                "KDUMP_IMMEDIATE_REBOOT" => system.immediate_reboot = yes_or_no(&name, some(value))?,
                "KDUMP_CONTINUE_ON_ERROR" => system.continue_on_error = yes_or_no(&name, some(value))?,
                "KDUMP_FAIL_CMD" => system.fail_command = fail_command(&name, some(value))?,
                "KDUMP_KEEP_OLD_DUMPS" => {
                    system.keep = keep_old(&value)
                        .with_context(|| format!("{origin}: KDUMP_KEEP_OLD_DUMPS"))?
                        .map(|value| Given { value, origin });
                }
                "KDUMP_NUM_DUMPS" => {
                    let number: u32 = number(&value).with_context(|| format!("{origin}: KDUMP_NUM_DUMPS"))?;
                    system.keep = NonZeroU32::new(number).map(|value| Given { value, origin });
                }
                "KDUMP_FREE_DISK_SIZE" => {
                    let mib: u32 = number(&value).with_context(|| format!("{origin}: KDUMP_FREE_DISK_SIZE"))?;
                    system.free = Some(Given { value: u64::from(mib) << 20, origin });
                }
                "KDUMP_TRANSFER" if !value.is_empty() => bail!(
                    "{origin}: KDUMP_TRANSFER is not supported: nothing but the collector takes the dump; write \
                     KDUMP_POSTSCRIPT for what is to be done with it afterwards"
                ),
                "KDUMP_TRANSFER" => {}
                "KEXEC_ARGS" => {
                    if let Some(word) = value.split_whitespace().find(|word| *word != "-s") {
                        bail!(
                            "{origin}: KEXEC_ARGS: `{word}` is not supported: the kernel is always loaded by \
                             kexec_file_load; write KEXEC_ARGS=\"-s\""
                        );
                    }
                }
                name if WITHOUT_EFFECT.contains(&name) => {}
                "FADUMP_COMMANDLINE_APPEND" if value.is_empty() => {}
                name => warnings.push(format!("{origin}: {name} has no effect in this version")),
            }
        }
        Ok(system)
    }
}

/// A switch, in the words that SUSE's own scripts take.
fn yes_or_no(name: &str, given: Option<Given<String>>) -> anyhow::Result<Option<Given<bool>>> {
    let Some(Given { value, origin }) = given else { return Ok(None) };
    let value = match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => true,
        "false" | "no" | "0" => false,
        _ => bail!("{origin}: {name}: `{value}` is neither true nor false"),
    };
    Ok(Some(Given { value, origin }))
}

/// The words by which Debian's documentation ends a machine, or one program.
fn fail_command(name: &str, given: Option<Given<String>>) -> anyhow::Result<Option<Given<FailCommand>>> {
    let Some(Given { value, origin }) = given else { return Ok(None) };
    if value.contains([';', '&', '|']) {
        bail!(
            "{origin}: {name}: a chain of commands asks for a shell, and none is run here; put programs into \
             /etc/kdump/emergency.d, and write the last command alone: reboot -f, halt -f or poweroff -f"
        );
    }
    let words: Vec<&str> = value.split_whitespace().collect();
    let ending = match words.as_slice() {
        [program, rest @ ..] if rest.iter().all(|word| matches!(*word, "-f" | "--force")) => {
            let name = program.strip_prefix("/sbin/").or(program.strip_prefix("/usr/sbin/")).unwrap_or(program);
            name.parse::<Ending>().ok()
        }
        _ => None,
    };
    match ending {
        Some(ending) => Ok(Some(Given { value: FailCommand::End(ending), origin })),
        None => Ok(command(name, Some(Given { value, origin }))?
            .map(|Given { value, origin }| Given { value: FailCommand::Run(value), origin })),
    }
}

/// How many dumps stay with the new one: SUSE counts those before it, 0 is all of them, -1 none.
fn keep_old(value: &str) -> anyhow::Result<Option<NonZeroU32>> {
    if value == "-1" {
        return Ok(Some(NonZeroU32::MIN));
    }
    let old: u32 = number(value)?;
    Ok(NonZeroU32::new(old).map(|old| old.saturating_add(1)))
}

/// A number; an empty value is 0.
fn number(value: &str) -> anyhow::Result<u32> {
    if value.is_empty() {
        return Ok(0);
    }
    value.parse().map_err(|_| anyhow::anyhow!("`{value}` is not a number that can be followed; write 0 or more"))
}

/// A command, which SUSE would give to a shell and which is run without one here.
fn command(name: &str, given: Option<Given<String>>) -> anyhow::Result<Option<Given<Vec<String>>>> {
    let Some(Given { value, origin }) = given else { return Ok(None) };
    if let Some(mark) = value.chars().find(|mark| "|&;<>()$`\\\"'*?[]~{}#!\n".contains(*mark)) {
        bail!("{origin}: {name}: `{mark}` asks for a shell, and none is run here; write a script and name it instead");
    }
    let argv: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    match argv.first() {
        Some(program) if program.starts_with('/') => Ok(Some(Given { value: argv, origin })),
        Some(program) => bail!("{origin}: {name}: `{program}` is not an absolute path; write it from / on"),
        None => Ok(None),
    }
}

/// The assignments of a shell script that has nothing else, each with its line.
fn assignments(text: &str, file: &Path) -> anyhow::Result<Vec<(usize, String, String)>> {
    let mut found = Vec::new();
    let mut scanner = Scanner { chars: text.chars().peekable(), line: 1, file };
    while let Some((line, name)) = scanner.name()? {
        let value = scanner.value()?;
        found.push((line, name, value));
    }
    Ok(found)
}

struct Scanner<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    file: &'a Path,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn fail<T>(&self, line: usize, problem: &str) -> anyhow::Result<T> {
        bail!("{}:{line}: {problem}", self.file.display())
    }

    /// Goes to the next assignment and over its `=`.
    fn name(&mut self) -> anyhow::Result<Option<(usize, String)>> {
        while let Some(&c) = self.chars.peek() {
            if c == '#' {
                while self.chars.peek().is_some_and(|&c| c != '\n') {
                    self.next();
                }
            } else if c.is_whitespace() || c == ';' {
                self.next();
            } else if c == '\\' {
                self.next();
                if self.next() != Some('\n') {
                    return self.fail(self.line, "this is not an assignment; write NAME=\"value\"");
                }
            } else {
                break;
            }
        }
        let line = self.line;
        let mut name = String::new();
        while let Some(&c) = self.chars.peek() {
            if c.is_whitespace() {
                break;
            }
            self.next();
            if c == '=' {
                let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                return match good {
                    true => Ok(Some((line, name))),
                    false => self.fail(line, &format!("`{name}` is not the name of a variable; write NAME=\"value\"")),
                };
            }
            name.push(c);
        }
        match name.is_empty() {
            true => Ok(None),
            false => self.fail(
                line,
                &format!("`{name}` is not an assignment, and no commands are run here; write NAME=\"value\""),
            ),
        }
    }

    fn value(&mut self) -> anyhow::Result<String> {
        let mut value = String::new();
        let mut quote: Option<(char, usize)> = None;
        while let Some(&c) = self.chars.peek() {
            match (c, quote.map(|(quote, _)| quote)) {
                ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
                (_, Some('\'')) => value.push(c),
                ('$' | '`', _) => {
                    return self.fail(
                        self.line,
                        &format!(
                            "`{c}` asks a shell to expand something; write the value itself, or \\{c} for the mark"
                        ),
                    );
                }
                ('\\', quoted) => {
                    self.next();
                    match (self.chars.peek().copied(), quoted) {
                        (Some('\n'), _) => {}
                        (Some(c @ ('$' | '`' | '"' | '\\')), Some(_)) => value.push(c),
                        (Some(c), Some(_)) => value.extend(['\\', c]),
                        (Some(c), None) => value.push(c),
                        (None, _) => break,
                    }
                }
                (c, Some(_)) => value.push(c),
                ('\'' | '"', None) => quote = Some((c, self.line)),
                (c, None) if c.is_whitespace() || c == ';' => break,
                ('(' | ')' | '<' | '>' | '|' | '&', None) => {
                    return self.fail(self.line, &format!("`{c}` is a command to a shell; put the value in quotes"));
                }
                (c, None) => value.push(c),
            }
            self.next();
        }
        match quote {
            Some((quote, line)) => self.fail(line, &format!("the {quote} that opens here is never closed")),
            None => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> anyhow::Result<(Sysconfig, Vec<String>)> {
        let mut warnings = Vec::new();
        Sysconfig::parse(text, Path::new("kdump"), &mut warnings).map(|system| (system, warnings))
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
            (
                "A=1\nB=\"$A\"",
                "kdump:2: `$` asks a shell to expand something; write the value itself, or \\$ for the mark",
            ),
            ("A=`x`", "kdump:1: ``` asks a shell to expand something; write the value itself, or \\` for the mark"),
            ("A=x | y", "kdump:1: `|` is not an assignment, and no commands are run here; write NAME=\"value\""),
            (
                "\n\necho hello",
                "kdump:3: `echo` is not an assignment, and no commands are run here; write NAME=\"value\"",
            ),
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
            (
                "KDUMP_FAIL_CMD=restart",
                "kdump:1: KDUMP_FAIL_CMD: `restart` is not an absolute path; write it from / on",
            ),
            ("KDUMP_CONTINUE_ON_ERROR=maybe", "kdump:1: KDUMP_CONTINUE_ON_ERROR: `maybe` is neither true nor false"),
            ("A+=1", "kdump:1: `A+` is not the name of a variable; write NAME=\"value\""),
            (
                "KEXEC_ARGS=\"-s --reset-vga\"",
                "kdump:1: KEXEC_ARGS: `--reset-vga` is not supported: the kernel is always loaded by kexec_file_load; \
                 write KEXEC_ARGS=\"-s\"",
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
        assert_eq!(warnings, ["kdump:2: MY_VARIABLE has no effect in this version"]);
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
}
