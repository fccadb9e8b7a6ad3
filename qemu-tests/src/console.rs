//! A guest's serial console: every line with the time it came, in memory and in a log file, and a way to wait for words.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const SHOWN: usize = 40;

/// One line of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Since the machine was started.
    pub at: Duration,
    /// Without its line ending and without the terminal's control sequences.
    pub text: String,
}

/// Who looks at the console while it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// Nobody.
    #[default]
    Silent,
    /// Each line on stderr, indented, dimmed where stderr is a terminal.
    Lines,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    ended: bool,
}

/// The console of one machine.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
}

impl Console {
    /// Follows what a machine prints until it closes the pipe.
    pub(crate) fn follow(pipe: impl Read + Send + 'static, log: &Path, echo: Echo) -> Result<Console> {
        let log = File::create(log).with_context(|| format!("unable to write the console log {}", log.display()))?;
        let console = Console { shared: Arc::default() };
        let shared = Arc::clone(&console.shared);
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || shared.read(BufReader::new(pipe), log, echo))
            .context("unable to start a thread for the console")?;
        Ok(console)
    }

    /// Waits until a line holds one of `words`; returns which, and the line.
    pub fn wait_for_any(&self, words: &[&str], limit: Duration) -> Result<(usize, Line)> {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            for line in &state.lines[seen..] {
                if let Some(which) = words.iter().position(|word| line.text.contains(word)) {
                    return Ok((which, line.clone()));
                }
            }
            seen = state.lines.len();
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                drop(state);
                let why =
                    if left.is_zero() { format!("within {} s", limit.as_secs()) } else { "before it ended".into() };
                bail!("the console did not say {} {why}; its last lines:\n{}", quoted(words), self.tail());
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a line holds `word`.
    pub fn wait_for(&self, word: &str, limit: Duration) -> Result<Line> {
        self.wait_for_any(&[word], limit).map(|(_, line)| line)
    }

    /// The first line so far that holds `word`.
    pub fn find(&self, word: &str) -> Option<Line> {
        self.shared.lock().lines.iter().find(|line| line.text.contains(word)).cloned()
    }

    /// Waits until the machine has closed its console.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let ended = self.shared.changed.wait_timeout_while(state, limit, |state| !state.ended);
        ended.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        let state = self.shared.lock();
        state.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The last lines so far.
    pub fn tail(&self) -> String {
        crate::tools::tail(&self.text(), SHOWN)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, mut pipe: impl BufRead, mut log: File, echo: Echo) {
        let began = Instant::now();
        let mut bytes = Vec::new();
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = plain(&String::from_utf8_lossy(&bytes));
            bytes.clear();
            let _ = writeln!(log, "{text}");
            if echo == Echo::Lines {
                crate::progress::guest(&text);
            }
            self.lock().lines.push(Line { at: began.elapsed(), text });
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

/// A line without its ending and without escape sequences, which a firmware prints to clear the screen.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            let in_sequence = |character: &char| !character.is_ascii_alphabetic();
            characters.by_ref().take_while(in_sequence).for_each(drop);
        } else if !character.is_control() || character == '\t' {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &'static str) -> Console {
        let log = tempfile::NamedTempFile::new().unwrap();
        Console::follow(text.as_bytes(), log.path(), Echo::Silent).unwrap()
    }

    #[test]
    fn control_sequences_are_not_text() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[01;01Hone\ttwo\r\n"), "one\ttwo");
    }

    #[test]
    fn the_first_line_with_any_of_the_words_is_found() {
        let (which, line) = console("a\nb\nc\n").wait_for_any(&["c", "b"], Duration::from_secs(9)).unwrap();
        assert_eq!((which, line.text.as_str()), (1, "b"));
    }

    #[test]
    fn a_console_that_ends_without_the_word_is_an_error_that_shows_its_last_lines() {
        let error = console("one\nlast words\n").wait_for("never", Duration::from_secs(9)).unwrap_err().to_string();
        assert!(error.contains("\"never\" before it ended") && error.contains("last words"), "{error}");
    }
}
