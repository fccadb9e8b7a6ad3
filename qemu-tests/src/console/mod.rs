//! A guest's serial console: every line with the time it came, in memory and in a log file, and a way to wait for words.
//!
//! May surprise: two write to it, the kernel and programs, and neither keeps out of the other's lines. Lines are kept as
//! they came; what is waited for is found nevertheless, see `writers`. A line without its end, such as a prompt, is found once nothing has come behind it for a moment, and so is
//! never told in part. The log has it when it ends, or when the console does.

mod writers;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use writers::{Begun, WOVEN, hold_woven};

const SHOWN: usize = 40;
/// With these words a kernel panics; only then does it write into lines letter by letter.
const PANIC: &str = "Kernel panic";
/// A line that has not grown for that long is what somebody waits behind.
const QUIET: Duration = Duration::from_millis(500);

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
    begun: Begun,
    /// What came behind the last of them, and when something of it came last.
    unfinished: Option<(Line, Instant)>,
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
            .spawn(move || shared.read(pipe, log, echo))
            .context("unable to start a thread for the console")?;
        Ok(console)
    }

    /// Waits until a line holds one of `words`; returns which, and the line.
    pub fn wait_for_any(&self, words: &[&str], limit: Duration) -> Result<(usize, Line)> {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = state.first_from(seen, words) {
                return Ok(found);
            }
            seen = state.lines.len().saturating_sub(WOVEN - 1);
            let left = until.saturating_duration_since(Instant::now());
            let mut pause = left;
            if let Some((line, since)) = &state.unfinished
                && let Some(which) = words.iter().position(|word| line.text.contains(word))
            {
                let still = QUIET.saturating_sub(since.elapsed());
                if still.is_zero() {
                    return Ok((which, line.clone()));
                }
                pause = left.min(still);
            }
            if state.ended || left.is_zero() {
                drop(state);
                let why =
                    if left.is_zero() { format!("within {} s", limit.as_secs()) } else { "before it ended".into() };
                bail!("the console did not say {} {why}; its last lines:\n{}", quoted(words), self.tail());
            }
            state = self.shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a line holds `word`.
    pub fn wait_for(&self, word: &str, limit: Duration) -> Result<Line> {
        self.wait_for_any(&[word], limit).map(|(_, line)| line)
    }

    /// The first line so far that holds `word`.
    pub fn find(&self, word: &str) -> Option<Line> {
        let state = self.shared.lock();
        let unfinished =
            || state.unfinished.iter().map(|(line, _)| line).find(|line| line.text.contains(word)).cloned();
        state.first_from(0, &[word]).map(|(_, line)| line).or_else(unfinished)
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
        state.all().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
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

    fn read(&self, mut pipe: impl Read, mut log: File, echo: Echo) {
        let began = Instant::now();
        let mut finish = |bytes: &[u8]| {
            let text = plain(&String::from_utf8_lossy(bytes));
            let _ = writeln!(log, "{text}");
            if echo == Echo::Lines {
                crate::progress::guest(&text);
            }
            Line { at: began.elapsed(), text }
        };
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let count = match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            bytes.extend(&chunk[..count]);
            let mut lines = Vec::new();
            while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
                lines.push(finish(&bytes[..end]));
                bytes.drain(..=end);
            }
            let text = plain(&String::from_utf8_lossy(&bytes));
            let rest = (!text.is_empty()).then(|| (Line { at: began.elapsed(), text }, Instant::now()));
            let mut state = self.lock();
            lines.into_iter().for_each(|line| state.add(line));
            state.unfinished = rest;
            self.changed.notify_all();
        }
        let last = (!bytes.is_empty()).then(|| finish(&bytes));
        let mut state = self.lock();
        state.unfinished = None;
        last.into_iter().for_each(|line| state.add(line));
        state.ended = true;
        self.changed.notify_all();
    }
}

impl State {
    /// Adds a line as it came and, behind it, the program's whole line of which it is the end.
    fn add(&mut self, line: Line) {
        let whole = self.begun.line(&line.text).map(|text| Line { text, ..line });
        self.lines.push(line);
        self.lines.extend(whole);
    }

    /// The first of the finished lines from there on that holds one of `words`, and which.
    fn first_from(&self, from: usize, words: &[&str]) -> Option<(usize, Line)> {
        (from..self.lines.len()).find_map(|at| {
            let holds = |word: &&str| {
                let few = self.lines[at..].iter().take(WOVEN).map(|line| line.text.as_str());
                self.lines[at].text.contains(*word) || word.starts_with(PANIC) && hold_woven(few, word)
            };
            words.iter().position(holds).map(|which| (which, self.lines[at].clone()))
        })
    }

    /// All lines, the last one without its end as well.
    fn all(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().chain(self.unfinished.iter().map(|(line, _)| line))
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

/// What is said behind `words` in the last line of `text` that holds them: one that a record of the kernel's came into
/// stands there as it came, too, but before the whole one.
pub(crate) fn said<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| line.split_once(words)).map(|(_, behind)| behind.trim())
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

    /// A console that says each part when it is sent, and the path of its log.
    fn spoken() -> (Console, std::io::PipeWriter, tempfile::NamedTempFile) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (pipe, writer) = std::io::pipe().unwrap();
        (Console::follow(pipe, log.path(), Echo::Silent).unwrap(), writer, log)
    }

    #[test]
    fn a_prompt_is_found_and_its_line_is_in_the_log_once() {
        let (console, mut writer, log) = spoken();
        writer.write_all(b"booted\r\nsh-5.2# ").unwrap();
        assert_eq!(console.wait_for("sh-5.2#", Duration::from_secs(9)).unwrap().text, "sh-5.2# ");
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "booted\n");
        writer.write_all(b"^C").unwrap();
        assert_eq!(console.wait_for("^C", Duration::from_secs(9)).unwrap().text, "sh-5.2# ^C");
        assert_eq!(
            (console.find("^C").unwrap().text, console.text()),
            ("sh-5.2# ^C".into(), "booted\nsh-5.2# ^C".into())
        );
        drop(writer);
        assert!(console.wait_for_end(Duration::from_secs(9)));
        assert_eq!(console.text(), "booted\nsh-5.2# ^C");
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "booted\nsh-5.2# ^C\n");
    }

    #[test]
    fn a_line_that_comes_in_parts_is_told_as_a_whole() {
        let (console, mut writer, _log) = spoken();
        let waiting = std::thread::spawn(move || console.wait_for("GUEST: ", Duration::from_secs(9)).unwrap().text);
        for part in ["GUE", "ST: ", "cou", "nted ", "7\nmore"] {
            writer.write_all(part.as_bytes()).unwrap();
            std::thread::sleep(QUIET / 10);
        }
        assert_eq!(waiting.join().unwrap(), "GUEST: counted 7");
    }

    #[test]
    fn words_are_found_in_a_line_that_the_other_writer_came_into() {
        let said =
            console("kdump: l[    4.148363] Kernel paniicv e-p antocth syncing: x\nGU[    5.000000] y\nEST: z\n");
        for (words, line) in [("GUEST: z", "GUEST: z"), ("Kernel panic - not syncing: x", "paniicv")] {
            let found = said.wait_for(words, Duration::from_secs(9)).unwrap();
            assert!(found.text.contains(line) && said.find(words) == Some(found.clone()), "{found:?}");
        }
        let torn = console("GUEST: a=1[    5.000000] y\n2\nGUEST: b=2\n");
        torn.wait_for("GUEST: b=2", Duration::from_secs(9)).unwrap();
        let text = torn.text();
        assert_eq!((super::said(&text, "GUEST: a="), super::said(&text, "GUEST: c=")), (Some("12"), None));
    }

    #[test]
    fn a_console_that_ends_without_the_word_is_an_error_that_shows_its_last_lines() {
        let error = console("one\nlast words\n").wait_for("never", Duration::from_secs(9)).unwrap_err().to_string();
        assert!(error.contains("\"never\" before it ended") && error.contains("last words"), "{error}");
    }
}
