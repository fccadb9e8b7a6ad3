//! From words to what was typed, and from that to what is meant.
//! May surprise: nothing is opened or looked for here; which words go together is all that is decided.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use super::meant::{
    Command, DumpOptions, ExamineOptions, Format, LogOptions, MemoryOptions, ReassembleOptions, RebuildOptions,
    UsageOptions,
};
use super::table::{Does, OPTIONS, help, version};
use crate::compress::Kind;
use crate::dmesg::Since;
use crate::error::Error;
use crate::progress::Messages;
use crate::units::DumpLevel;

#[derive(Default)]
struct Typed {
    codec: Kind,
    /// The option that named the codec.
    packed: Option<String>,
    elf: bool,
    compress_level: Option<i32>,
    level: DumpLevel,
    next_levels: Vec<DumpLevel>,
    limit: Option<u64>,
    by_use: bool,
    dry_run: bool,
    memory: MemoryOptions,
    threads: Option<usize>,
    force: bool,
    flatten: bool,
    rebuild: bool,
    split: bool,
    reassemble: bool,
    messages: Option<u8>,
    more_messages: u8,
    no_mapping: bool,
    report: Option<PathBuf>,
    vmcoreinfo: Option<PathBuf>,
    log: bool,
    since: Since,
    mem_usage: bool,
    json: bool,
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
            Does::Codec(kind) => (typed.codec, typed.packed) = (kind, Some(name)),
            Does::Elf => typed.elf = true,
            Does::CompressLevel => typed.compress_level = Some(number(&value()?, &name, "a number such as 3 or -5")?),
            Does::Level => (typed.level, typed.next_levels) = levels(&value()?)?,
            Does::Limit => typed.limit = Some(size(&value()?, &name)?),
            Does::ByUse => typed.by_use = true,
            Does::DryRun => typed.dry_run = true,
            Does::Memory => typed.memory.budget = Some(size(&value()?, &name)?),
            Does::BitmapMemory => {
                let kib: u32 = number(&value()?, &name, "a number of KiB")?;
                typed.memory.bitmap = Some(u64::from(kib) << 10);
            }
            Does::WholeBitmap => typed.memory.whole_bitmap = true,
            Does::BatchOrder => {
                let order: u32 = number(&value()?, &name, "a number from 0 to 11")?;
                typed.memory.batch = Some(1usize.checked_shl(order).unwrap_or(usize::MAX));
            }
            Does::Threads => typed.threads = Some(number(&value()?, &name, "a number from 0 to 65535").map(u16::into)?),
            Does::Force => typed.force = true,
            Does::Flatten => typed.flatten = true,
            Does::Rebuild => typed.rebuild = true,
            Does::Split => typed.split = true,
            Does::Reassemble => typed.reassemble = true,
            Does::Messages if found.value.is_empty() => typed.more_messages |= Messages::DEBUG,
            Does::Messages => {
                let bits: u8 = number(&value()?, &name, "a number from 0 to 31")?;
                typed.messages = Some(bits & 31);
            }
            Does::NoMapping => typed.no_mapping = true,
            Does::Vmcoreinfo => typed.vmcoreinfo = Some(value()?.into()),
            Does::Report => typed.report = Some(value()?.into()),
            Does::Log => typed.log = true,
            Does::LogSinceClear => (typed.log, typed.since) = (true, Since::Clear),
            Does::MemUsage => typed.mem_usage = true,
            Does::Json => typed.json = true,
            Does::Check => typed.check = true,
            Does::Statistics => typed.more_messages |= Messages::REPORT,
            Does::Help => return Ok(Command::Say(help())),
            Does::Version => return Ok(Command::Say(version())),
            Does::Nothing(takes_value) => {
                if takes_value {
                    value()?;
                }
            }
            Does::Refused(why) => {
                return Err(usage(format!("{name}: {}: {why}", found.help)));
            }
        }
    }
    typed.meant(plain_log)
}

/// One level, or several with commas between them.
fn levels(value: &OsString) -> Result<(DumpLevel, Vec<DumpLevel>), Error> {
    let text = value.to_string_lossy();
    let mut levels = text.split(',').map(|one| {
        let level: u8 = number(&one.into(), "-d", "a number from 0 to 31")?;
        DumpLevel::new(level).ok_or_else(|| usage(format!("-d takes a number from 0 to 31, not {level}")))
    });
    let first = levels.next().unwrap_or_else(|| Err(usage("-d takes a level")))?;
    Ok((first, levels.collect::<Result<_, _>>()?))
}

/// Bytes; a suffix multiplies by powers of 1024, as makedumpfile has it.
fn size(value: &OsString, name: &str) -> Result<u64, Error> {
    let text = value.to_string_lossy();
    let (digits, power) =
        match text.char_indices().next_back().map(|(at, c)| (at, "KMGTPE".find(c.to_ascii_uppercase()))) {
            Some((at, Some(index))) => (&text[..at], index + 1),
            _ => (&text[..], 0),
        };
    let bytes = digits.parse().ok().and_then(|n: u64| (0..power).try_fold(n, |n, _| n.checked_mul(1024)));
    bytes.filter(|n| *n > 0).ok_or_else(|| usage(format!("{name} takes a size such as 500M, not {text:?}")))
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
        if self.mem_usage {
            return self.usage(messages);
        }
        if self.json {
            return Err(usage("--json goes with --mem-usage; what a dump was written of is told by --report FILE"));
        }
        if self.rebuild {
            return self.rebuilt(messages);
        }
        if self.reassemble {
            return self.reassembled(messages);
        }
        if self.split && (self.elf || self.flatten || self.log) {
            return Err(usage("--split writes kdump-compressed files; it goes with none of -E, -F and --dump-dmesg"));
        }
        if let Some(packed) = self.packed.filter(|_| self.elf) {
            return Err(usage(format!("-E: pages of an ELF core are not packed; leave {packed} out, or -E")));
        }
        if self.by_use && self.elf {
            return Err(usage("--by-use: an ELF core has its pages in the order of memory; leave -E out, or --by-use"));
        }
        let mut files = self.files.into_iter();
        let input = files.next().ok_or_else(|| usage("no VMCORE given; see --help"))?;
        if plain_log {
            let quiet = Messages(messages.0 & (Messages::ERROR | Messages::DEBUG));
            let (since, vmcoreinfo, report) = (self.since, self.vmcoreinfo, self.report);
            let log = LogOptions { input, output: None, since, force: false, vmcoreinfo, messages: quiet, report };
            return Ok(Command::Log(log));
        }
        let what = if self.log { "LOGFILE" } else { "DUMPFILE" };
        let output = if self.flatten { Some("STDOUT".into()) } else { files.next() };
        let output = output.ok_or_else(|| usage(format!("no {what} given; see --help")))?;
        let more_outputs: Vec<PathBuf> = if self.split { files.by_ref().collect() } else { Vec::new() };
        if self.split && more_outputs.is_empty() {
            return Err(usage("--split: at least two DUMPFILEs are needed"));
        }
        if let Some(extra) = files.next() {
            let needed = if self.flatten { "-F: one VMCORE".into() } else { format!("one VMCORE and one {what}") };
            return Err(usage(format!("{needed} and no more; {} is too much", extra.display())));
        }
        if self.check {
            return Ok(Command::Say(String::new()));
        }
        if self.log {
            // The log is plain text, never flattened.
            let output = Some(output).filter(|_| !self.flatten);
            let (since, force, vmcoreinfo, report) = (self.since, self.force, self.vmcoreinfo, self.report);
            return Ok(Command::Log(LogOptions { input, output, since, force, vmcoreinfo, messages, report }));
        }
        Ok(Command::Dump(DumpOptions {
            input,
            output,
            more_outputs,
            flattened: self.flatten,
            level: self.level,
            next_levels: self.next_levels,
            limit: self.limit,
            // What is to be cut had better be cut where it hurts least.
            by_use: self.by_use || (self.limit.is_some() && !self.elf),
            dry_run: self.dry_run,
            format: if self.elf { Format::Elf } else { Format::Kdump },
            codec: self.codec,
            compress_level: self.compress_level,
            threads: workers(self.threads),
            force: self.force,
            mapping: !self.no_mapping,
            vmcoreinfo: self.vmcoreinfo,
            messages,
            memory: self.memory,
            report: self.report,
        }))
    }

    fn reassembled(mut self, messages: Messages) -> Result<Command, Error> {
        if self.log || self.flatten || self.split {
            return Err(usage("--reassemble goes with none of -F, --split and --dump-dmesg"));
        }
        let few = || usage("--reassemble: at least two parts and one DUMPFILE are needed");
        let output = self.files.pop().filter(|_| self.files.len() > 1).ok_or_else(few)?;
        if self.check {
            return Ok(Command::Say(String::new()));
        }
        let (parts, force, report) = (self.files, self.force, self.report);
        Ok(Command::Reassemble(ReassembleOptions { parts, output, force, messages, report }))
    }

    fn usage(self, messages: Messages) -> Result<Command, Error> {
        if self.log || self.flatten || self.rebuild || self.split || self.reassemble {
            return Err(usage(
                "--mem-usage writes no dump; it goes with none of -F, -R, --split, --reassemble and --dump-dmesg",
            ));
        }
        let [kcore] = <[PathBuf; 1]>::try_from(self.files)
            .map_err(|_| usage("--mem-usage: /proc/kcore is needed, and no more"))?;
        if self.check {
            return Ok(Command::Say(String::new()));
        }
        let (json, threads, report) = (self.json, workers(self.threads), self.report);
        Ok(Command::Usage(UsageOptions { kcore, json, threads, messages, report }))
    }

    fn rebuilt(self, messages: Messages) -> Result<Command, Error> {
        if self.log || self.flatten {
            return Err(usage("-R rebuilds a dump from stdin; it goes with neither -F nor --dump-dmesg"));
        }
        let [output] = <[PathBuf; 1]>::try_from(self.files).map_err(|_| usage("-R: one DUMPFILE and no more"))?;
        if self.check {
            return Ok(Command::Say(String::new()));
        }
        Ok(Command::Rebuild(RebuildOptions { output, force: self.force, messages, report: self.report }))
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
        let o = dump("makedumpfile in out -D --splitblock-size 1024");
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
        let why = "no debug information is needed, since vmcoreinfo has all that is asked for; leave -x out";
        assert_eq!(error, format!("-x: vmlinux files are not read: {why}"));
        for o in OPTIONS {
            let Does::Refused(why) = o.does else { continue };
            let name = o.short.map_or_else(|| format!("--{}", o.long.unwrap_or_default()), |c| format!("-{c}"));
            let error = typed(&format!("makedumpfile {name} in out")).unwrap_err();
            assert_eq!(error, format!("{name}: {}: {why}", o.help));
        }
        assert!(dump("makedumpfile --work-dir /tmp -i info in out").vmcoreinfo == Some("info".into()));
        for option in [
            "-F",
            "-R",
            "-x",
            "--split",
            "--reassemble",
            "--vtop",
            "-d 31,32",
            "-d 31,",
            "-d 32",
            "-d x",
            "--none-such",
        ] {
            assert!(typed(&format!("makedumpfile {option} in out")).is_err(), "{option}");
        }
    }

    #[test]
    fn a_stream_has_no_dumpfile_and_rebuilding_no_vmcore() {
        let o = dump("makedumpfile -F -c -d 31 --num-threads 4 /proc/vmcore");
        assert!(o.flattened && o.output == Path::new("STDOUT"));
        let Ok(Command::Log(o)) = typed("makedumpfile -F --dump-dmesg /proc/vmcore") else { panic!() };
        assert_eq!(o.output, None);
        for line in ["makedumpfile --partial-dmesg in log", "makedumpfile --dump-dmesg --partial-dmesg in log"] {
            let Ok(Command::Log(o)) = typed(line) else { panic!("{line}") };
            assert_eq!((o.since, o.output.as_deref()), (Since::Clear, Some(Path::new("log"))));
        }
        let Ok(Command::Rebuild(o)) = typed("makedumpfile -f -R out") else { panic!() };
        assert!(o.force && o.output == Path::new("out"));
        for line in ["x -F", "x -R", "x -R -F out", "x -R --dump-dmesg out"] {
            assert!(typed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_have_suffixes_and_levels_follow_each_other() {
        let o = dump("makedumpfile -d 0,17,31 -L 3G in out");
        assert_eq!(o.limit, Some(3 << 30));
        assert_eq!((o.level.get(), o.next_levels.iter().map(|l| l.get()).collect::<Vec<_>>()), (0, vec![17, 31]));
        assert_eq!(dump("x -L 4096 in out").limit, Some(4096));
        assert_eq!(dump("x -L 2k in out").limit, Some(2048));
        assert_eq!(dump("x -L 1E in out").limit, Some(1 << 60));
        for (line, by_use) in [("x", false), ("x -L 4K", true), ("x --by-use", true), ("x -E -L 4K", false)] {
            assert_eq!(dump(&format!("{line} in out")).by_use, by_use, "{line}");
        }
        assert!(typed("x -E --by-use in out").unwrap_err().contains("leave -E out"));
        for wrong in ["0", "16E", "M", "-1", "1.5G", "1Z", "é"] {
            assert!(typed(&format!("x -L {wrong} in out")).unwrap_err().contains("such as 500M"), "{wrong}");
        }
        assert!(dump("x --dry-run in out").dry_run);
    }

    #[test]
    fn what_is_said_of_memory_is_taken_for_the_budget() {
        assert_eq!(dump("x in out").memory, MemoryOptions::default());
        let o = dump("x in out --memory 20M --cyclic-buffer 1024 -b 4 --non-cyclic");
        let (budget, bitmap) = (Some(20 << 20), Some(1 << 20));
        assert_eq!(o.memory, MemoryOptions { budget, bitmap, batch: Some(16), whole_bitmap: true });
        assert!(typed("x in out --cyclic-buffer much").unwrap_err().contains("a number of KiB"));
        assert!(typed("x in out --memory 0").unwrap_err().contains("--memory takes a size such as"));
    }

    #[test]
    fn an_elf_core_is_not_packed() {
        assert_eq!(dump("makedumpfile -E -d 31 in out").format, Format::Elf);
        let error = typed("makedumpfile -E -z in out").unwrap_err();
        assert_eq!(error, "-E: pages of an ELF core are not packed; leave -z out, or -E");
        assert!(dump("makedumpfile -F -E --num-threads 2 in").flattened);
    }

    #[test]
    fn a_split_dump_has_two_files_at_least() {
        let o = dump("makedumpfile --split --splitblock-size 64 -z in a b c");
        assert_eq!((o.output.as_path(), o.more_outputs.len()), (Path::new("a"), 2));
        let Ok(Command::Reassemble(o)) = typed("makedumpfile --reassemble a b c out") else { panic!() };
        assert_eq!((o.output.as_path(), o.parts.len()), (Path::new("out"), 3));
        for line in ["x --split in a", "x --split -E in a b", "x --split -F in", "x --reassemble a out"] {
            assert!(typed(line).is_err(), "{line}");
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
    fn mem_usage_takes_the_running_kernel_and_nothing_else() {
        let Ok(Command::Usage(o)) = typed("makedumpfile -f --mem-usage /proc/kcore") else { panic!() };
        assert_eq!((o.kcore.as_path(), o.json), (Path::new("/proc/kcore"), false));
        let Ok(Command::Usage(o)) = typed("x --mem-usage /proc/kcore --json -D --message-level 4") else { panic!() };
        assert_eq!((o.json, o.messages.0), (true, 12));
        for line in
            ["x --mem-usage", "x --mem-usage a b", "x --mem-usage -F a", "x --mem-usage -R a", "x --json in out"]
        {
            assert!(typed(line).is_err(), "{line}");
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
