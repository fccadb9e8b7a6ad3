//! A value with the place it was written at, and what the files say wrong.
//!
//! May surprise: a reader does not stop at the first line that cannot be followed. It notes it as a complaint and goes
//! on, so that one look at the configuration tells everything that is to be mended.

use anyhow::anyhow;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a configuration file.
    Line(PathBuf, usize),
    /// An option of a command line, as it is written there.
    Option(String),
}

impl Origin {
    /// The first line of a file, for what is about all of it.
    pub fn file(file: &Path) -> Origin {
        Origin::Line(file.to_owned(), 1)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Origin::Option(option) => f.write_str(option),
        }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> Given<T> {
    /// A value that nobody asked for.
    pub fn default(value: T) -> Self {
        Given { value, origin: Origin::Default }
    }

    /// A value that `origin` asks for.
    pub fn at(value: T, origin: &Origin) -> Self {
        Given { value, origin: origin.clone() }
    }

    /// Another value from the same place.
    pub fn map<S>(self, make: impl FnOnce(T) -> S) -> Given<S> {
        Given { value: make(self.value), origin: self.origin }
    }
}

/// What the files say wrong.
#[derive(Debug, Default)]
pub struct Complaints {
    /// What cannot be followed, with its place.
    errors: Vec<(Origin, anyhow::Error)>,
    /// What should be looked at, though it stops nothing.
    pub warnings: Vec<String>,
    /// What has no meaning here and need not have one, and why.
    pub notes: Vec<String>,
}

impl Complaints {
    /// Something at `origin` that cannot be followed. The message begins with the place.
    pub fn error(&mut self, origin: &Origin, problem: impl fmt::Display) {
        self.fail(origin, anyhow!("{problem}"));
    }

    /// As [`Complaints::error`], with a chain of causes.
    pub fn fail(&mut self, origin: &Origin, error: anyhow::Error) {
        self.errors.push((origin.clone(), error.context(origin.to_string())));
    }

    /// A file that cannot be read any further; the message begins with the place.
    pub fn stop(&mut self, error: anyhow::Error) {
        self.errors.push((Origin::Default, error));
    }

    /// Something that stops nothing.
    pub fn warn(&mut self, origin: &Origin, problem: impl fmt::Display) {
        self.warnings.push(format!("{origin}: {problem}"));
    }

    /// Something that has no meaning here.
    pub fn note(&mut self, origin: &Origin, reason: impl fmt::Display) {
        self.notes.push(format!("{origin}: {reason}"));
    }

    /// The value, or a complaint about `what` at `origin`.
    pub fn take<T>(&mut self, what: &str, origin: &Origin, result: anyhow::Result<T>) -> Option<Given<T>> {
        match result {
            Ok(value) => Some(Given::at(value, origin)),
            Err(error) => {
                self.fail(origin, error.context(what.to_owned()));
                None
            }
        }
    }

    /// What cannot be followed, each as one line, in the order of the files' lines.
    pub fn errors(&self) -> Vec<String> {
        let mut errors: Vec<_> = self.errors.iter().collect();
        errors.sort_by(|(a, _), (b, _)| a.cmp(b));
        errors.iter().map(|(_, error)| format!("{error:#}")).collect()
    }

    /// Nothing, if everything can be followed.
    ///
    /// # Errors
    /// The first thing that cannot, and how many others there are.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.errors().as_slice() {
            [] => Ok(()),
            [only] => Err(anyhow!("{only}")),
            [first, rest @ ..] => {
                Err(anyhow!("{first} (and {} more; `kdumpctl config check` tells all of them)", rest.len()))
            }
        }
    }
}
