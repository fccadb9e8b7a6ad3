//! Manual pages and completions. In: the table, and the texts of `--help`. Out: roff, and words for bash.
//! May surprise: nothing of it is in the programs; `examples/collector-manual.rs` writes it to files for packages.

use super::table::{Does, ENDING, OPTIONS, Opt, USAGE};

/// The options that are there to be used.
fn told() -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(|o| !o.help.is_empty() && !matches!(o.does, Does::Refused(_)))
}

/// kdump-capture(8).
pub fn page() -> String {
    let mut page = title("kdump-capture", "save a crashed kernel's memory, filtered and packed");
    section(&mut page, "SYNOPSIS");
    as_it_is(&mut page, USAGE);
    section(&mut page, "OPTIONS");
    for o in told() {
        let short = o.short.map(|short| format!("-{short}"));
        let long = o.long.map(|long| format!("--{long}"));
        let names: Vec<String> =
            short.into_iter().chain(long).map(|name| format!("\\fB{}\\fR", escape(&name))).collect();
        item(&mut page, &format!("{} \\fI{}\\fR", names.join(", "), escape(o.value)), o.help);
    }
    section(&mut page, "NOT BUILT IN");
    for o in OPTIONS {
        let Does::Refused(why) = o.does else { continue };
        let name = o.short.map_or_else(|| format!("--{}", o.long.unwrap_or_default()), |short| format!("-{short}"));
        item(&mut page, &format!("\\fB{}\\fR", escape(&name)), &format!("{}: {why}", o.help));
    }
    section(&mut page, "EXIT STATUS");
    page += &escape(ENDING.trim().trim_start_matches("Exit code: "));
    page.push('\n');
    section(&mut page, "SEE ALSO");
    page + "kdumpctl(8), mkdumprd(8), kdump.toml(5), crash(8)\n"
}

/// The page of a program whose `--help` says all there is to say.
pub fn page_of(name: &str, what: &str, help: &str) -> String {
    let mut page = title(name, what);
    section(&mut page, "DESCRIPTION");
    as_it_is(&mut page, help);
    section(&mut page, "SEE ALSO");
    page + "kdumpctl(8), kdump\\-capture(8)\n"
}

/// What bash completes kdump-capture's options from.
pub fn bash() -> String {
    let names = told().flat_map(|o| {
        let short = o.short.map(|short| format!("-{short}"));
        short.into_iter().chain(o.long.map(|long| format!("--{long}")))
    });
    let names: Vec<String> = names.chain(["info", "verify"].map(String::from)).collect();
    format!("complete -o default -W '{}' kdump-capture\n", names.join(" "))
}

fn title(name: &str, what: &str) -> String {
    let (name, what) = (escape(name), escape(what));
    format!(".TH {name} 8 \"\" \"kdump-rs {}\"\n.SH NAME\n{name} \\- {what}\n", env!("CARGO_PKG_VERSION"))
}

fn section(page: &mut String, title: &str) {
    page.push_str(&format!(".SH \"{title}\"\n"));
}

fn item(page: &mut String, names: &str, text: &str) {
    page.push_str(&format!(".TP\n{}\n{}\n", names.trim_end_matches(" \\fI\\fR"), escape(text)));
}

/// Text whose lines stay lines.
fn as_it_is(page: &mut String, text: &str) {
    page.push_str(".nf\n");
    for line in text.trim_end().lines() {
        page.push_str(&escape(line));
        page.push('\n');
    }
    page.push_str(".fi\n");
}

/// Text in which nothing is a command to the formatter.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\(rs").replace('-', "\\-").replace('…', "...");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_place_in_the_page_and_each_once() {
        let page = page();
        for o in OPTIONS.iter().filter(|o| !o.help.is_empty()) {
            let name = o.long.map_or_else(|| format!("-{}", o.short.unwrap()), |long| format!("--{long}"));
            let shown = format!("\\fB{}\\fR", escape(&name));
            let named = page.matches(&shown).count();
            // What is refused under two names is named by the short one.
            let by_short = matches!(o.does, Does::Refused(_)) && o.short.is_some() && o.long.is_some();
            assert_eq!(named, usize::from(!by_short), "{name}");
        }
    }

    #[test]
    fn text_that_looks_like_a_command_is_text() {
        assert_eq!(escape(".SH a\\b --c"), "\\&.SH a\\(rsb \\-\\-c");
        let page = page_of("x", "y", "'one\n\n.two");
        assert!(page.contains(".nf\n\\&'one\n\n\\&.two\n.fi\n"), "{page}");
    }

    #[test]
    fn what_is_refused_is_not_offered_for_completion() {
        let words = bash();
        assert!(words.contains(" --split ") && words.contains(" verify'"), "{words}");
        assert!(!words.contains("xen") && !words.contains("--splitblock-size"), "{words}");
    }
}
