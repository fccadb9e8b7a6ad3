//! Every option, as data. In: nothing. Out: the table, and the texts that are made of it.
//! May surprise: what is accepted without effect, and what is refused, is in the table too, and not in the help.

use crate::compress::Kind;

/// What an option does.
#[derive(Clone, Copy)]
pub(super) enum Does {
    Codec(Kind),
    CompressLevel,
    Level,
    Threads,
    Force,
    Elf,
    Flatten,
    Rebuild,
    Split,
    Reassemble,
    Limit,
    ByUse,
    DryRun,
    Memory,
    BitmapMemory,
    BatchOrder,
    WholeBitmap,
    Messages,
    NoMapping,
    Report,
    Vmcoreinfo,
    Log,
    LogSinceClear,
    MemUsage,
    Json,
    Check,
    Statistics,
    Help,
    Version,
    /// Taken for compatibility; there is nothing for it to change. The flag says whether it takes a value.
    Nothing(bool),
    /// Not built in; the text says why, and what to do.
    Refused(&'static str),
}

/// An option.
pub(super) struct Opt {
    pub(super) short: Option<char>,
    pub(super) long: Option<&'static str>,
    pub(super) value: &'static str,
    pub(super) help: &'static str,
    pub(super) does: Does,
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

const XEN: &str = "Xen dumps are not read";
const XEN_WHY: &str =
    "whose a page is, only the hypervisor's own tables tell, and those are not followed; use makedumpfile";
const ERASE: &str = "nothing is erased from a dump";
const ERASE_WHY: &str = "finding data by name takes a vmlinux with debug information; use makedumpfile";

/// Every option that this program or makedumpfile knows.
pub(super) const OPTIONS: &[Opt] = &[
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
        "leave out: 1 zero, 2 cache, 4 private cache, 8 user, 16 free; add them up (default 0); \
         LEVEL,LEVEL… takes the next one if the dump does not fit",
        Does::Level,
    ),
    opt('L', "", "SIZE", "end the dump, incomplete, at SIZE bytes (suffix K, M, G, T, P or E)", Does::Limit),
    opt(
        ' ',
        "by-use",
        "",
        "write what a debugger needs first, free memory last, as with -L, for targets that may get full; not with -E",
        Does::ByUse,
    ),
    opt(' ', "split", "", "write the dump in parts, one for each DUMPFILE named", Does::Split),
    opt(' ', "reassemble", "", "make one DUMPFILE of the parts of a split dump", Does::Reassemble),
    opt(' ', "num-threads", "N", "number of workers (default: one per CPU)", Does::Threads),
    opt('E', "", "", "write an ELF core; its pages are not packed", Does::Elf),
    opt('f', "", "", "overwrite DUMPFILE", Does::Force),
    opt('F', "", "", "write a flattened stream to stdout, messages to stderr; no DUMPFILE is named", Does::Flatten),
    opt('R', "", "", "rebuild DUMPFILE from a flattened stream on stdin", Does::Rebuild),
    opt(
        ' ',
        "message-level",
        "N",
        "1 progress, 2 common, 4 error, 8 debug, 16 report; add them up (default 7)",
        Does::Messages,
    ),
    opt(
        ' ',
        "memory",
        "SIZE",
        "take no more memory than SIZE (default: as the machine's, or as is free)",
        Does::Memory,
    ),
    opt(
        ' ',
        "cyclic-buffer",
        "KB",
        "the part of it for the bitmap; with less, pages are filtered in windows",
        Does::BitmapMemory,
    ),
    opt(' ', "non-cyclic", "", "never filter in windows, whatever it takes", Does::WholeBitmap),
    opt('b', "", "ORDER", "each worker packs no more than 2^ORDER pages at once", Does::BatchOrder),
    opt(
        'i',
        "",
        "VMCOREINFO",
        "take the text in this file for vmcoreinfo, where the note is missing or damaged",
        Does::Vmcoreinfo,
    ),
    opt(' ', "work-dir", "DIR", "accepted; nothing is ever spilled to files, so DIR is not used", Does::Nothing(true)),
    opt(' ', "non-mmap", "", "read the vmcore instead of mapping it", Does::NoMapping),
    opt(' ', "report", "FILE", "write what happened to FILE, as JSON", Does::Report),
    opt(' ', "dump-dmesg", "", "write the kernel log to LOGFILE instead of a dump", Does::Log),
    opt(' ', "partial-dmesg", "", "the same from where the log was last cleared (dmesg --clear)", Does::LogSinceClear),
    opt(' ', "mem-usage", "", "count the running system's pages, by what a dump level leaves out", Does::MemUsage),
    opt(' ', "json", "", "with --mem-usage: answer in JSON", Does::Json),
    opt(' ', "check-params", "", "check the command line and end", Does::Check),
    opt(' ', "dry-run", "", "do everything but write; the report has the size", Does::DryRun),
    opt(' ', "show-stats", "", "print the page statistics (message level 16)", Does::Statistics),
    opt('h', "help", "", "print this text", Does::Help),
    opt('v', "version", "", "print the version", Does::Version),
    opt('D', "", "", "print debugging messages (message level 8)", Does::Messages),
    opt(' ', "splitblock-size", "KB", "", Does::Nothing(true)),
    opt(
        'x',
        "",
        "",
        "vmlinux files are not read",
        Does::Refused("no debug information is needed, since vmcoreinfo has all that is asked for; leave -x out"),
    ),
    opt(
        'g',
        "",
        "",
        "vmcoreinfo files are not made",
        Does::Refused(
            "that takes a vmlinux with debug information, and a vmcore has its vmcoreinfo in it; use makedumpfile",
        ),
    ),
    opt('X', "", "", XEN, Does::Refused(XEN_WHY)),
    opt(' ', "xen-syms", "", XEN, Does::Refused(XEN_WHY)),
    opt(' ', "xen-vmcoreinfo", "", XEN, Does::Refused(XEN_WHY)),
    opt(' ', "xen_phys_start", "", XEN, Does::Refused(XEN_WHY)),
    opt(
        'e',
        "exclude-unused-vm",
        "",
        "struct pages are not left out",
        Does::Refused("a dump without them cannot be filtered again, and readers miss them; leave -e out"),
    ),
    opt(
        ' ',
        "vtop",
        "",
        "addresses are not translated for display",
        Does::Refused("that is a debugging aid, and crash's vtop does it on the dump"),
    ),
    opt(' ', "config", "", ERASE, Does::Refused(ERASE_WHY)),
    opt(' ', "eppic", "", ERASE, Does::Refused(ERASE_WHY)),
    opt(
        ' ',
        "extension",
        "",
        "extensions are not loaded",
        Does::Refused("code from outside would run as root in this program; leave it out, or use makedumpfile"),
    ),
    opt(
        ' ',
        "diskset",
        "",
        "sadump files are not read",
        Does::Refused("their format belongs to one vendor's firmware; use makedumpfile to make a vmcore of them"),
    ),
];

pub(super) const USAGE: &str = "\
kdump-capture writes a filtered dump of a crashed kernel's memory.

  kdump-capture [OPTIONS] VMCORE DUMPFILE
  kdump-capture -F [OPTIONS] VMCORE > STREAM
  kdump-capture -R DUMPFILE < STREAM
  kdump-capture --split [OPTIONS] VMCORE PART PART...
  kdump-capture --reassemble PART PART... DUMPFILE
  kdump-capture --dump-dmesg [OPTIONS] VMCORE LOGFILE
  kdump-capture --mem-usage [--json] /proc/kcore
  vmcore-dmesg VMCORE
  kdump-capture info [--json] FILE      says what is in a dump: kernel, crash, panic, level, pages
  kdump-capture verify [--json] FILE    checks its layout, every page, and its sha256 if status.json lies beside it

VMCORE is /proc/vmcore in a capture kernel, an ELF vmcore file, or a dump (kdump-compressed, or either one flattened)
that is to be filtered further or packed otherwise. FILE is a dump of this or another program.
Called as makedumpfile it does the same.

";

pub(super) const ENDING: &str = "\nExit code: 0 complete, 1 failed or incomplete, 2 wrong kernel.\n";

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from(USAGE);
    for o in OPTIONS.iter().filter(|o| !o.help.is_empty() && !matches!(o.does, Does::Refused(_))) {
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

/// The text of `--version`.
pub(super) fn version() -> String {
    let codecs: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).filter(|name| *name != "none").collect();
    format!("kdump-capture {} (codecs: {})\n", env!("CARGO_PKG_VERSION"), codecs.join(", "))
}
