//! Files that others source as shell, read here without one.
//!
//! Assignments, comments, quotes and continued lines mean what they mean to a shell. Expansion and commands are errors
//! with their place: guessing what a shell would have made of them is worse than asking. `NAME+=value` is for
//! dracut.conf alone, which bash reads, and of which only single words are read here.
//!
//! [`Variables`] is what a dialect then takes, name by name. What is left over is nobody's, and is told.

use super::words::nearest;
use super::{Complaints, Given, Origin, values};
use std::collections::BTreeMap;
use std::path::Path;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Where it begins.
    pub(super) line: usize,
    /// The variable.
    pub(super) name: String,
    /// Whether the value goes behind what is there (`+=`).
    pub(super) appends: bool,
    /// The value.
    pub(super) value: String,
}

/// The assignments of a shell script that has nothing else, up to the first thing that is none.
pub(super) fn assignments(text: &str, file: &Path, complaints: &mut Complaints) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut scanner = Scanner { chars: text.chars().peekable(), line: 1, bash: false };
    loop {
        let next = scanner.name().and_then(|name| match name {
            Some((line, name, appends)) => Ok(Some(Assignment { line, name, appends, value: scanner.value()? })),
            None => Ok(None),
        });
        match next {
            Ok(Some(assignment)) => found.push(assignment),
            Ok(None) => return found,
            // A shell would have lost its way too: what follows may be inside of something.
            Err(Problem { line, what }) => {
                complaints.error(&Origin::Line(file.to_owned(), line), what);
                return found;
            }
        }
    }
}

/// The assignment that one word of a bash script is, if it is one, and why only a shell knows its value.
pub(super) fn assignment(word: &str, line: usize) -> Option<(Assignment, Option<String>)> {
    let mut scanner = Scanner { chars: word.chars().peekable(), line, bash: true };
    let (line, name, appends) = scanner.name().ok().flatten()?;
    let (value, problem) = match scanner.value() {
        Ok(value) => (value, None),
        Err(Problem { what, .. }) => (String::new(), Some(what)),
    };
    Some((Assignment { line, name, appends, value }, problem))
}

/// The assignments of a file that is none of kdump's, each with its line.
///
/// # Errors
/// The first thing that is no assignment.
pub(crate) fn assignments_of(text: &str, file: &Path) -> anyhow::Result<Vec<(usize, String, String)>> {
    let mut complaints = Complaints::default();
    let found = assignments(text, file, &mut complaints);
    complaints.check()?;
    Ok(found.into_iter().map(|Assignment { line, name, value, .. }| (line, name, value)).collect())
}

/// The variables that a file sets.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    values: BTreeMap<String, Given<String>>,
    pub(super) complaints: &'a mut Complaints,
}

impl<'a> Variables<'a> {
    /// Those of the text of `file`. The last of several assignments counts, as for a shell.
    pub(super) fn read(text: &str, file: &Path, complaints: &'a mut Complaints) -> Variables<'a> {
        let mut values: BTreeMap<String, Given<String>> = BTreeMap::new();
        for Assignment { line, name, value, .. } in assignments(text, file, complaints) {
            let origin = Origin::Line(file.to_owned(), line);
            if let Some(first) = values.get(&name)
                && first.value != value
            {
                let Origin::Line(_, first) = &first.origin else { continue };
                complaints.warn(&origin, format!("{name} replaces what line {first} says; take one of the two out"));
            }
            values.insert(name, Given { value, origin });
        }
        Variables { values, complaints }
    }

    /// Whether one is set, be it to nothing.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Its value, even an empty one.
    pub(super) fn any(&mut self, name: &str) -> Option<Given<String>> {
        self.values.remove(name)
    }

    /// Its value; an empty one is as good as none.
    pub(super) fn text(&mut self, name: &str) -> Option<Given<String>> {
        self.any(name).filter(|given| !given.value.trim().is_empty())
    }

    /// What `make` makes of it.
    pub(super) fn made<T>(&mut self, name: &str, make: impl FnOnce(&str) -> anyhow::Result<T>) -> Option<Given<T>> {
        let Given { value, origin } = self.text(name)?;
        self.complaints.take(name, &origin, make(value.trim()))
    }

    /// A switch.
    pub(super) fn switch(&mut self, name: &str) -> Option<Given<bool>> {
        self.made(name, values::switch)
    }

    /// A number of at most `most`.
    pub(super) fn number(&mut self, name: &str, most: u32) -> Option<Given<u32>> {
        self.made(name, |value| values::number(value, most))
    }

    /// Refuses it, if it is set.
    pub(super) fn refuse(&mut self, name: &str, words: &str) {
        if let Some(given) = self.text(name) {
            self.complaints.error(&given.origin, format!("{name} {words}"));
        }
    }

    /// Warns of it, if it is set.
    pub(super) fn warn(&mut self, name: &str, words: &str) {
        if let Some(given) = self.text(name) {
            self.complaints.warn(&given.origin, format!("{name} {words}"));
        }
    }

    /// Notes why it has no meaning here, if it is set.
    pub(super) fn note(&mut self, name: &str, why: &str) {
        if let Some(given) = self.text(name) {
            self.complaints.note(&given.origin, format!("{name}: {why}"));
        }
    }

    /// Tells of everything that nobody has taken. One that looks like a word of `known` is an error, since somebody
    /// wanted something; a foreign one may be a helper of the script that the file once was.
    pub(super) fn finish(self, known: &[&str]) {
        for (name, Given { origin, .. }) in &self.values {
            match nearest(name, known.iter().copied()) {
                Some(near) => {
                    self.complaints.error(origin, format!("there is no variable {name}; was {near} meant?"));
                }
                None if name.starts_with("KDUMP_") => self
                    .complaints
                    .error(origin, format!("there is no variable {name}; take the line out or put a # in front of it")),
                None => self.complaints.warn(origin, format!("{name} has no effect; take the line out")),
            }
        }
    }
}

/// What is no assignment, and where.
struct Problem {
    line: usize,
    what: String,
}

struct Scanner<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    bash: bool,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn fail<T>(line: usize, problem: &str) -> Result<T, Problem> {
        Err(Problem { line, what: problem.to_owned() })
    }

    /// Goes to the next assignment and over its `=`.
    fn name(&mut self) -> Result<Option<(usize, String, bool)>, Problem> {
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
                    return Self::fail(self.line, "this is not an assignment; write NAME=\"value\"");
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
                let appends = self.bash && name.ends_with('+');
                if appends {
                    name.pop();
                }
                let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                return match good {
                    true => Ok(Some((line, name, appends))),
                    false => Self::fail(line, &format!("`{name}` is not the name of a variable; write NAME=\"value\"")),
                };
            }
            name.push(c);
        }
        match name.is_empty() {
            true => Ok(None),
            false => Self::fail(
                line,
                &format!("`{name}` is not an assignment, and no commands are run here; write NAME=\"value\""),
            ),
        }
    }

    fn value(&mut self) -> Result<String, Problem> {
        let mut value = String::new();
        let mut quote: Option<(char, usize)> = None;
        while let Some(&c) = self.chars.peek() {
            match (c, quote.map(|(quote, _)| quote)) {
                ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
                (_, Some('\'')) => value.push(c),
                ('$' | '`', _) => {
                    return Self::fail(
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
                    return Self::fail(self.line, &format!("`{c}` is a command to a shell; put the value in quotes"));
                }
                (c, None) => value.push(c),
            }
            self.next();
        }
        match quote {
            Some((quote, line)) => Self::fail(line, &format!("the {quote} that opens here is never closed")),
            None => Ok(value),
        }
    }
}
