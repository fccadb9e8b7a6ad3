//! The example in a module's documentation, so that a test can read it as its reader would.

/// The first block of TOML in the documentation with which `source` opens; nothing, if there is none.
pub fn example(source: &str) -> String {
    let docs = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).skip_while(|line| *line != "```toml").skip(1);
    lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_is_the_example() {
        let source =
            "//! Words.\n//!\n//! ```toml\n//! a = 1\n//!\n//! [b]\n//! ```\n//! ```toml\n//! c = 2\n//! ```\n";
        assert_eq!(example(source), "a = 1\n\n[b]\n");
        assert_eq!(example("//! Words.\n\n//! ```toml\n//! a = 1\n"), "");
    }
}
