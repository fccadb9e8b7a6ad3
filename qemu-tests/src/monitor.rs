//! QEMU's monitor, as machines talk to it (QMP).
//!
//! In: the socket, a command and its arguments. Out: done, or what QEMU answered. May surprise: a socket serves one at a
//! time, so who wants to ask in a thread of his own needs a socket of his own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Asks for one command.
pub fn ask(socket: &Path, command: &str, arguments: &Value) -> Result<()> {
    let ask = || {
        let mut socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let command = json!({"execute": command, "arguments": arguments});
        write!(socket, "{}\n{command}\n", json!({"execute": "qmp_capabilities"}))?;
        let answers = BufReader::new(socket).lines().map_while(Result::ok);
        let answers: Vec<String> = answers.filter(|line| !line.contains("\"event\"")).take(3).collect();
        let refused = answers.iter().any(|answer| answer.contains("\"error\""));
        ensure!(answers.len() == 3 && !refused, "it answered {}", answers.join(" "));
        Ok(())
    };
    ask().with_context(|| format!("unable to ask QEMU's monitor for {command} {arguments}"))
}
