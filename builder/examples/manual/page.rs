//! One page: name, synopsis, options, commands, exits, files.
//!
//! In: a clap command, and what it does not know of itself. Out: roff. May surprise: the commands of a program are all
//! on its one page, where clap_mangen would have a page for each.

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// A page.
pub(crate) struct Page {
    /// The command line.
    pub(crate) command: Command,
    /// The section of the manual.
    pub(crate) section: u8,
    /// Exit codes.
    pub(crate) exits: &'static [(u8, &'static str)],
    /// The files that count.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub(crate) see: &'static [&'static str],
}

impl Page {
    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.{}", self.command.get_name(), self.section)
    }

    /// The page's text.
    pub(crate) fn render(&self) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command.clone().disable_help_subcommand(true);
        // Gives each subcommand its whole name and the options that are valid everywhere.
        command.build();
        let man = Man::new(command.clone()).section(self.section.to_string());
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        let mut rest = Roff::new();
        commands(&command, &mut rest);
        let exits: Vec<(String, &str)> = self.exits.iter().map(|(code, text)| (code.to_string(), *text)).collect();
        list(&mut rest, "EXIT STATUS", exits.iter().map(|(code, text)| (code.as_str(), *text)));
        list(&mut rest, "FILES", self.files.iter().copied());
        rest.control("SH", ["SEE ALSO"]);
        rest.text([roman(self.see.join(", "))]);
        rest.to_writer(&mut page)?;
        Ok(page)
    }
}

fn list<'a>(roff: &mut Roff, title: &str, items: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        roff.control("SH", [title]);
    }
    for (name, text) in items {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(text)]);
    }
}

/// What the program can be told, each with its options and what can follow it.
fn commands(program: &Command, roff: &mut Roff) {
    if program.get_subcommands().next().is_some() {
        roff.control("SH", ["COMMANDS"]);
    }
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        describe(command, roff);
    }
}

fn describe(command: &Command, roff: &mut Roff) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.lines().next().unwrap_or_default().trim_start_matches("Usage: ").to_owned();
    roff.control("TP", []);
    roff.text([bold(usage)]);
    roff.text([roman(text(command.get_long_about().or(command.get_about())))]);
    roff.control("RS", []);
    for arg in command.get_arguments().filter(|arg| is_own(arg)) {
        roff.control("TP", []);
        roff.text(names(arg));
        roff.text([roman(text(arg.get_long_help().or(arg.get_help())))]);
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        describe(below, roff);
    }
    roff.control("RE", []);
}

/// What is valid everywhere stands among the program's options.
fn is_own(arg: &Arg) -> bool {
    !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help" && arg.get_id() != "version"
}

fn names(arg: &Arg) -> Vec<Inline> {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut names: Vec<String> = short.into_iter().chain(long).collect();
    let takes = arg.get_num_args().is_some_and(|count| count.takes_values());
    let values = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = if takes { values.join(" ") } else { String::new() };
    if names.is_empty() {
        names.push(String::new());
    }
    let mut inline = vec![bold(names.join(", "))];
    if !value.is_empty() {
        inline.extend([roman(if arg.is_positional() { "" } else { " " }), italic(value)]);
    }
    inline
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}
