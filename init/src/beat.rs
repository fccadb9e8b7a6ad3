//! What the worker tells the supervisor, a line each, on its standard output.

use std::io::Write;
use std::time::Duration;

/// One message of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// A stage begins and may take that long from now.
    Stage(String, Duration),
    /// The stage goes on and may take that long from now.
    Still(Duration),
    /// All is done: a complete dump is on the target.
    Complete,
    /// All is done, and there is no complete dump: why.
    Failed(String),
    /// All is done, and no dump was wanted: why.
    Declined(String),
    /// The root is mounted; PID 1 can become this init.
    Ready(String),
}

impl Beat {
    /// The line that says it.
    pub fn line(&self) -> String {
        match self {
            Beat::Stage(name, limit) => format!("stage {} {name}", limit.as_secs()),
            Beat::Still(limit) => format!("still {}", limit.as_secs()),
            Beat::Complete => "complete".to_owned(),
            Beat::Ready(init) => format!("ready {init}"),
            Beat::Failed(reason) => format!("failed {}", one_line(reason)),
            Beat::Declined(reason) => format!("declined {}", one_line(reason)),
        }
    }

    /// Reads a line; `None` if it says nothing known.
    pub fn parse(line: &str) -> Option<Beat> {
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
        match word {
            "stage" => {
                let (limit, name) = rest.split_once(' ')?;
                Some(Beat::Stage(name.to_owned(), seconds(limit)?))
            }
            "still" => Some(Beat::Still(seconds(rest)?)),
            "complete" => Some(Beat::Complete),
            "ready" => Some(Beat::Ready(rest.to_owned())),
            "failed" => Some(Beat::Failed(rest.to_owned())),
            "declined" => Some(Beat::Declined(rest.to_owned())),
            _ => None,
        }
    }
}

/// The supervisor reads no more of a line than it needs for a good reason.
pub const LONGEST: usize = 4096;

fn one_line(reason: &str) -> String {
    let reason = reason.replace(['\n', '\r'], " ");
    let end = reason.floor_char_boundary(LONGEST - 16);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// Where beats go.
pub trait Pulse: std::fmt::Debug {
    /// Sends a beat.
    fn beat(&mut self, beat: Beat);
}

/// Sends to the supervisor.
#[derive(Debug)]
pub struct ToSupervisor;

impl Pulse for ToSupervisor {
    fn beat(&mut self, beat: Beat) {
        // A supervisor that cannot be told will act on the time limit.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", beat.line()).and_then(|()| out.flush());
    }
}

/// Keeps beats for a test to look at.
impl Pulse for Vec<Beat> {
    fn beat(&mut self, beat: Beat) {
        self.push(beat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_read_as_it_was_sent() {
        for beat in [
            Beat::Stage("target".into(), Duration::from_secs(90)),
            Beat::Still(Duration::from_secs(1)),
            Beat::Complete,
            Beat::Ready("/sbin/my init".into()),
            Beat::Failed("UUID=1 did not appear: really".into()),
            Beat::Declined("kdump_pre ended with 1".into()),
        ] {
            assert_eq!(Beat::parse(&beat.line()), Some(beat));
        }
        assert!(Beat::Failed("ä".repeat(LONGEST)).line().len() <= LONGEST);
        assert_eq!(Beat::parse("stage x y"), None);
        assert_eq!(Beat::parse(""), None);
    }
}
