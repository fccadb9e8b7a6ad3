//! kdump.toml(5). In: the documentation of `config::native`, whose first example has every key. Out: roff.

use anyhow::ensure;
use clap_mangen::roff::{Roff, bold, roman};

/// Where every key is described.
const SOURCE: &str = include_str!("../../src/config/native/mod.rs");

/// The page's text.
pub(crate) fn render() -> anyhow::Result<Vec<u8>> {
    let example = kdump_hooks::fake::example(SOURCE);
    ensure!(!example.is_empty(), "config/native/mod.rs does not open with an example in TOML any more");
    let mut roff = Roff::new();
    roff.control("TH", ["kdump.toml", "5", "", "kdump-rs"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("kdump.toml - what is dumped when the kernel has crashed, how, and where to")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("/etc/kdump/kdump.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "Where this file is, it takes the place of /etc/kdump.conf, which is then not read. It is TOML; everything in it \
         may be left out, and an empty file asks for a dump to /var/crash of the file system that holds it. What it \
         cannot mean is refused with its line.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "After a change a restart of kdump.service builds the image again. Passwords and keys stand in files of their own, \
         which this one names.",
    )]);
    roff.control("SH", ["EVERY KEY"]);
    roff.control("nf", []);
    for line in example.lines() {
        roff.text([roman(if line.is_empty() { " " } else { line })]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("kdumpctl(8), mkdumprd(8), kdump-capture(8)")]);
    Ok(roff.render().into_bytes())
}
