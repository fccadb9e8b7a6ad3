//! The command line. In: arguments. Out: what is meant, or why it cannot be.
//! May surprise: options are data (one table, from which help is made); those of makedumpfile that are not built in
//! are refused by name, with what to do instead. `--check-params` parses and does nothing, as mkdumprd wants it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::compress::Kind;
use crate::error::Error;
use crate::progress::Messages;
use crate::units::DumpLevel;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Print this and end.
    Say(String),
    /// Write a dump.
    Dump(DumpOptions),
    /// Write the log.
    Log(LogOptions),
    /// Say what is in a dump.
    Info(ExamineOptions),
    /// Check a dump.
    Verify(ExamineOptions),
}

/// How to write a dump.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// The vmcore.
    pub input: PathBuf,
    /// The dump.
    pub output: PathBuf,
    /// What is left out.
    pub level: DumpLevel,
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Number of workers.
    pub threads: usize,
    /// Overwrite the output.
    pub force: bool,
    /// Map the vmcore rather than copy from it.
    pub mapping: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to write the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The vmcore.
    pub input: PathBuf,
    /// The log; `None` is stdout.
    pub output: Option<PathBuf>,
    /// Overwrite the output.
    pub force: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to look at a dump.
#[derive(Debug, Clone)]
pub struct ExamineOptions {
    /// The dump.
    pub file: PathBuf,
    /// Answer in JSON.
    pub json: bool,
    /// Number of workers.
    pub threads: usize,
    /// Which messages appear.
    pub messages: Messages,
}

/// What an option does.
#[derive(Clone, Copy)]
enum Does {
    Codec(Kind),
    CompressLevel,
    Level,
    Threads,
    Force,
    Messages,
    NoMapping,
    Report,
    Log,
    Check,
    Statistics,
    Help,
    Version,
    /// Taken for compatibility; there is nothing for it to change. The flag says whether it takes a value.
    Nothing(bool),
    /// Not built in; the text says what to do.
    Refused(&'static str),
}

struct Opt {
    short: Option<char>,
    long: Option<&'static str>,
    value: &'static str,
    help: &'static str,
    does: Does,
}

const fn opt(short: char, long: &'static str, value: &'static str, help: &'static str, does: Does) -> Opt {
    Opt {
        short: if short == ' ' { None } else { Some(short) },
        long: if long.is_empty() { None } else { Some(long) },
        value,
        help,
        does,
    }
}

const ONE_FILE: &str = "write one file; its workers need no splitting";
const LATER: &str = "use makedumpfile for that";

const OPTIONS: &[Opt] = &[
    opt('c', "", "", "pack pages with zlib", Does::Codec(Kind::Zlib)),
    opt('l', "", "", "pack pages with lzo", Does::Codec(Kind::Lzo)),
    opt('p', "", "", "pack pages with snappy", Does::Codec(Kind::Snappy)),
    opt('z', "", "", "pack pages with zstd", Does::Codec(Kind::Zstd)),
    opt(
        ' ',
        "compress-level",
        "N",
        "how hard zlib (1 to 12) or zstd (up to 22; below 0 faster) tries (default 1)",
        Does::CompressLevel,
    ),
    opt(
        'd',
        "",
        "LEVEL",
        "leave out: 1 zero, 2 cache, 4 private cache, 8 user, 16 free; add them up (default 0)",
        Does::Level,
    ),
    opt(' ', "num-threads", "N", "number of workers (default: one per CPU)", Does::Threads),
    opt('f', "", "", "overwrite DUMPFILE", Does::Force),
    opt(
        ' ',
        "message-level",
        "N",
        "1 progress, 2 common, 4 error, 8 debug, 16 report; add them up (default 7)",
        Does::Messages,
    ),
    opt(' ', "non-mmap", "", "read the vmcore instead of mapping it", Does::NoMapping),
    opt(' ', "report", "FILE", "write what happened to FILE, as JSON", Does::Report),
    opt(' ', "dump-dmesg", "", "write the kernel log to LOGFILE instead of a dump", Does::Log),
    opt(' ', "check-params", "", "check the command line and end", Does::Check),
    opt(' ', "show-stats", "", "print the page statistics (message level 16)", Does::Statistics),
    opt('h', "help", "", "print this text", Does::Help),
    opt('v', "version", "", "print the version", Does::Version),
    opt('D', "", "", "print debugging messages (message level 8)", Does::Messages),
    opt(' ', "cyclic-buffer", "KB", "", Does::Nothing(true)),
    opt('b', "", "ORDER", "", Does::Nothing(true)),
    opt(' ', "non-cyclic", "", "", Does::Nothing(false)),
    opt(
        'E',
        "",
        "",
        "ELF output",
        Does::Refused("leave -E out for a kdump-compressed dump, which crash and drgn read"),
    ),
    opt('F', "", "", "flattened output", Does::Refused("give a file to write to instead of a stream")),
    opt('R', "", "", "rebuilding a flattened dump", Does::Refused(LATER)),
    opt('L', "", "", "a limit of the output size", Does::Refused("choose a level with -d")),
    opt('x', "", "", "a vmlinux", Does::Refused("leave -x out; vmcoreinfo is read from the vmcore")),
    opt('i', "", "", "a vmcoreinfo file", Does::Refused("leave -i out; vmcoreinfo is read from the vmcore")),
    opt('g', "", "", "making a vmcoreinfo file", Does::Refused(LATER)),
    opt('X', "", "", "Xen filtering", Does::Refused(LATER)),
    opt('e', "exclude-unused-vm", "", "leaving out unused vmemmap", Does::Refused("leave it out")),
    opt(' ', "split", "", "splitting", Does::Refused(ONE_FILE)),
    opt(' ', "splitblock-size", "", "splitting", Does::Refused(ONE_FILE)),
    opt(' ', "reassemble", "", "reassembling a split dump", Does::Refused(LATER)),
    opt(' ', "work-dir", "", "a working directory", Does::Refused("leave it out; the bitmap is kept in memory")),
    opt(' ', "partial-dmesg", "", "the log since the last clear", Does::Refused("use --dump-dmesg for all of it")),
    opt(' ', "mem-usage", "", "--mem-usage", Does::Refused(LATER)),
    opt(' ', "dry-run", "", "a dry run", Does::Refused("use --check-params to check a command line")),
    opt(' ', "vtop", "", "address translation", Does::Refused(LATER)),
    opt(' ', "config", "", "erasing", Does::Refused(LATER)),
    opt(' ', "eppic", "", "erasing", Does::Refused(LATER)),
    opt(' ', "extension", "", "extensions", Does::Refused(LATER)),
    opt(' ', "diskset", "", "sadump input", Does::Refused(LATER)),
    opt(' ', "xen-syms", "", "Xen filtering", Does::Refused(LATER)),
    opt(' ', "xen-vmcoreinfo", "", "Xen filtering", Does::Refused(LATER)),
    opt(' ', "xen_phys_start", "", "Xen filtering", Does::Refused(LATER)),
];

const USAGE: &str = "\
kdump-capture writes a filtered dump of a crashed kernel's memory.

  kdump-capture [OPTIONS] VMCORE DUMPFILE
  kdump-capture --dump-dmesg [OPTIONS] VMCORE LOGFILE
  vmcore-dmesg VMCORE
  kdump-capture info [--json] FILE      says what is in a dump: kernel, crash, panic, level, pages
  kdump-capture verify [--json] FILE    checks its layout, every page, and its sha256 if status.json lies beside it

VMCORE is /proc/vmcore in a capture kernel, or an ELF vmcore file; FILE is a dump of this or another program. Called as makedumpfile it does the same.

";

const ENDING: &str = "\nExit code: 0 complete, 1 failed or incomplete, 2 wrong kernel.\n";

fn help() -> String {
    let mut text = String::from(USAGE);
    for o in OPTIONS.iter().filter(|o| !matches!(o.does, Does::Nothing(_) | Does::Refused(_))) {
        let mut names = match (o.short, o.long) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, long) => format!("    --{}", long.unwrap_or_default()),
        };
        if !o.value.is_empty() {
            names = format!("{names} {}", o.value);
        }
        text.push_str(&format!("  {names:<24} {}\n", o.help));
    }
    text + ENDING
}

fn version() -> String {
    let codecs: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).filter(|name| *name != "none").collect();
    format!("kdump-capture {} (codecs: {})\n", env!("CARGO_PKG_VERSION"), codecs.join(", "))
}

#[derive(Default)]
struct Typed {
    codec: Kind,
    compress_level: Option<i32>,
    level: DumpLevel,
    threads: Option<usize>,
    force: bool,
    messages: Option<u8>,
    more_messages: u8,
    no_mapping: bool,
    report: Option<PathBuf>,
    log: bool,
    check: bool,
    files: Vec<PathBuf>,
}

fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

fn number<T: std::str::FromStr>(value: &OsString, name: &str, range: &str) -> Result<T, Error> {
    let wrong = || usage(format!("{name} takes {range}, not {:?}", value.to_string_lossy()));
    value.to_str().and_then(|v| v.parse().ok()).ok_or_else(wrong)
}

/// Reads the arguments, the program's own name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    let plain_log = Path::new(&program).file_name().is_some_and(|name| name == "vmcore-dmesg");
    let mut args = args.peekable();
    let word = args.next_if(|word| {
        // As the other two, it takes only their command line, in which the word would be a file.
        !["makedumpfile", "vmcore-dmesg"].iter().any(|name| Path::new(&program).ends_with(name))
            && (word == "info" || word == "verify")
    });
    let mut parser = lexopt::Parser::from_args(args);
    if let Some(word) = word {
        let options = examination(&mut parser)?;
        let info = word == "info";
        return Ok(options.map_or_else(|| Command::Say(help()), if info { Command::Info } else { Command::Verify }));
    }
    let mut typed = Typed::default();
    loop {
        let arg = parser.next().map_err(|e| usage(e.to_string()))?;
        let (name, found) = match arg {
            None => break,
            Some(Arg::Value(file)) => {
                typed.files.push(file.into());
                continue;
            }
            Some(Arg::Short(c)) => (format!("-{c}"), OPTIONS.iter().find(|o| o.short == Some(c))),
            Some(Arg::Long(long)) => (format!("--{long}"), OPTIONS.iter().find(|o| o.long == Some(long))),
        };
        let found = found.ok_or_else(|| usage(format!("{name} is not an option; see --help")))?;
        let mut value = || parser.value().map_err(|e| usage(e.to_string()));
        match found.does {
            Does::Codec(kind) => typed.codec = kind,
            Does::CompressLevel => typed.compress_level = Some(number(&value()?, &name, "a number such as 3 or -5")?),
            Does::Level => typed.level = level(&value()?)?,
            Does::Threads => typed.threads = Some(number(&value()?, &name, "a number from 0 to 65535").map(u16::into)?),
            Does::Force => typed.force = true,
            Does::Messages if found.value.is_empty() => typed.more_messages |= Messages::DEBUG,
            Does::Messages => {
                let bits: u8 = number(&value()?, &name, "a number from 0 to 31")?;
                typed.messages = Some(bits & 31);
            }
            Does::NoMapping => typed.no_mapping = true,
            Does::Report => typed.report = Some(value()?.into()),
            Does::Log => typed.log = true,
            Does::Check => typed.check = true,
            Does::Statistics => typed.more_messages |= Messages::REPORT,
            Does::Help => return Ok(Command::Say(help())),
            Does::Version => return Ok(Command::Say(version())),
            Does::Nothing(takes_value) => {
                if takes_value {
                    value()?;
                }
            }
            Does::Refused(remedy) => {
                return Err(usage(format!("{name}: {} is not built into this kdump-capture; {remedy}", found.help)));
            }
        }
    }
    typed.meant(plain_log)
}

/// What follows the words `info` and `verify`; `None` if it is a call for help.
fn examination(parser: &mut lexopt::Parser) -> Result<Option<ExamineOptions>, Error> {
    let (mut file, mut json, mut threads, mut messages) = (None, false, None, 7u8);
    while let Some(arg) = parser.next().map_err(|e| usage(e.to_string()))? {
        let name = match arg {
            Arg::Value(path) if file.is_none() => {
                file = Some(PathBuf::from(path));
                continue;
            }
            Arg::Value(extra) => return Err(usage(format!("one FILE is needed; {} is too much", extra.display()))),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("json") => {
                json = true;
                continue;
            }
            Arg::Short(c) => format!("-{c}"),
            Arg::Long(long) => format!("--{long}"),
        };
        let mut value = || parser.value().map_err(|e| usage(e.to_string()));
        match name.as_str() {
            "--num-threads" => threads = Some(number(&value()?, &name, "a number from 0 to 65535").map(u16::into)?),
            "--message-level" => messages = number(&value()?, &name, "a number from 0 to 31")?,
            _ => return Err(usage(format!("{name} is not an option of info and verify; see --help"))),
        }
    }
    let file = file.ok_or_else(|| usage("no FILE given; see --help"))?;
    Ok(Some(ExamineOptions { file, json, threads: workers(threads), messages: Messages(messages) }))
}

/// makedumpfile takes 0 as "no extra thread".
fn workers(asked: Option<usize>) -> usize {
    let online = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.map_or_else(online, |n| n.max(1))
}

fn level(value: &OsString) -> Result<DumpLevel, Error> {
    if value.to_string_lossy().contains(',') {
        return Err(usage("-d: a list of levels is not built into this kdump-capture; give one, such as -d 31"));
    }
    let level: u8 = number(value, "-d", "a number from 0 to 31")?;
    DumpLevel::new(level).ok_or_else(|| usage(format!("-d takes a number from 0 to 31, not {level}")))
}

impl Typed {
    fn compress_level_fits(&self) -> Result<(), Error> {
        let Some(level) = self.compress_level else { return Ok(()) };
        let name = self.codec.name();
        match self.codec.levels() {
            Some(levels) if levels.contains(&level) => Ok(()),
            Some(levels) => {
                Err(usage(format!("--compress-level of {name} is from {} to {}", levels.start(), levels.end())))
            }
            None => Err(usage(format!("--compress-level is not for {name}; use it with -z (zstd) or -c (zlib)"))),
        }
    }

    fn meant(self, plain_log: bool) -> Result<Command, Error> {
        self.compress_level_fits()?;
        let messages = Messages(self.messages.unwrap_or(7) | self.more_messages);
        let mut files = self.files.into_iter();
        let input = files.next().ok_or_else(|| usage("no VMCORE given; see --help"))?;
        if plain_log {
            let quiet = Messages(messages.0 & (Messages::ERROR | Messages::DEBUG));
            let log = LogOptions { input, output: None, force: false, messages: quiet, report: self.report };
            return Ok(Command::Log(log));
        }
        let what = if self.log { "LOGFILE" } else { "DUMPFILE" };
        let output = files.next().ok_or_else(|| usage(format!("no {what} given; see --help")))?;
        if let Some(extra) = files.next() {
            return Err(usage(format!("one VMCORE and one {what} are needed; {} is too much", extra.display())));
        }
        if self.check {
            return Ok(Command::Say(String::new()));
        }
        if self.log {
            let output = Some(output);
            return Ok(Command::Log(LogOptions { input, output, force: self.force, messages, report: self.report }));
        }
        Ok(Command::Dump(DumpOptions {
            input,
            output,
            level: self.level,
            codec: self.codec,
            compress_level: self.compress_level,
            threads: workers(self.threads),
            force: self.force,
            mapping: !self.no_mapping,
            messages,
            report: self.report,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Command, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|e| e.to_string())
    }

    fn dump(line: &str) -> DumpOptions {
        match typed(line) {
            Ok(Command::Dump(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_distributions_type_is_understood() {
        let o = dump("makedumpfile -z --message-level 7 -d 31 --num-threads=4 /proc/vmcore out");
        assert_eq!((o.codec, o.level.get(), o.threads, o.messages), (Kind::Zstd, 31, 4, Messages(7)));
        assert_eq!(dump("makedumpfile -l --message-level 7 -d 31 /proc/vmcore out").codec, Kind::Lzo);
        let o = dump("makedumpfile -cfd31 in out");
        assert_eq!((o.codec, o.level.get(), o.force), (Kind::Zlib, 31, true));
        let o = dump("makedumpfile in out -D --cyclic-buffer 1024 -b 8");
        assert_eq!((o.codec, o.level.get(), o.messages.0), (Kind::None, 0, 15));
    }

    #[test]
    fn the_last_codec_wins() {
        assert_eq!(dump("x -c -z in out").codec, Kind::Zstd);
        assert_eq!(dump("x -z -l -p in out").codec, Kind::Snappy);
    }

    #[test]
    fn what_is_not_built_in_is_refused_by_name_with_a_remedy() {
        let error = typed("makedumpfile -x vmlinux -d 31 in out").unwrap_err();
        let remedy = "leave -x out; vmcoreinfo is read from the vmcore";
        assert_eq!(error, format!("-x: a vmlinux is not built into this kdump-capture; {remedy}"));
        for option in ["-E", "-F", "-x", "--split", "--vtop", "-d 31,1", "-d 32", "-d x", "--none-such"] {
            assert!(typed(&format!("makedumpfile {option} in out")).is_err(), "{option}");
        }
    }

    #[test]
    fn only_zlib_and_zstd_take_a_compress_level() {
        assert_eq!(dump("x in out -z --compress-level -5").compress_level, Some(-5));
        assert_eq!(dump("x in out --compress-level=12 -c").compress_level, Some(12));
        assert_eq!(dump("x in out -c").compress_level, None);
        let refused = |line| typed(line).unwrap_err();
        assert_eq!(refused("x -c --compress-level 13 in out"), "--compress-level of zlib is from 1 to 12");
        assert!(refused("x -z --compress-level 23 in out").contains("zstd is from -"));
        assert!(refused("x -z --compress-level fast in out").contains("a number"));
        for (option, name) in [("-l", "lzo"), ("-p", "snappy"), ("-f", "none")] {
            let remedy = "use it with -z (zstd) or -c (zlib)";
            let line = format!("x --check-params {option} --compress-level 3 in out");
            assert_eq!(typed(&line).unwrap_err(), format!("--compress-level is not for {name}; {remedy}"));
        }
    }

    #[test]
    fn check_params_reads_nothing() {
        assert!(
            matches!(typed("makedumpfile --check-params -z -d 31 vmcore dumpfile"), Ok(Command::Say(text)) if text.is_empty())
        );
        assert!(typed("makedumpfile --check-params -l --message-level 7 -d 31 vmcore dumpfile").is_ok());
        assert!(typed("makedumpfile --check-params -F vmcore dumpfile").is_err());
    }

    #[test]
    fn info_and_verify_take_one_file() {
        let Ok(Command::Info(o)) = typed("kdump-capture info vmcore --json") else { panic!() };
        assert_eq!((o.file.to_str(), o.json), (Some("vmcore"), true));
        let Ok(Command::Verify(o)) = typed("kdump-capture verify --num-threads 0 --message-level 4 vmcore") else {
            panic!()
        };
        assert_eq!((o.json, o.threads, o.messages.0), (false, 1, 4));
        for line in ["x info", "x info a b", "x verify -d 31 a"] {
            assert!(typed(line).is_err(), "{line}");
        }
        assert!(matches!(typed("x verify --help"), Ok(Command::Say(_))));
        // Called as makedumpfile, the word is a file like any other.
        assert_eq!(dump("/sbin/makedumpfile info out").input.to_str(), Some("info"));
    }

    #[test]
    fn vmcore_dmesg_takes_one_file_and_is_quiet() {
        let Ok(Command::Log(o)) = typed("/sbin/vmcore-dmesg /proc/vmcore") else { panic!() };
        assert_eq!((o.output, o.messages.0), (None, 4));
    }

    #[test]
    fn help_names_every_option_that_is_built_in() {
        let Ok(Command::Say(text)) = typed("x --help") else { panic!() };
        for name in ["-d LEVEL", "--num-threads N", "--report FILE", "--dump-dmesg", "-h, --help"] {
            assert!(text.contains(name), "{name}");
        }
    }
}
