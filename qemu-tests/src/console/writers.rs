//! Who wrote what on a console that two write to: the kernel its records, and programs, through the terminal, their lines.
//!
//! ```text
//!  GUE[    4.148363] a record                      a record comes whole, but anywhere: the program's line goes on
//!  ST: booted                                      in the next one that has no stamp
//!  wai[    4.2] Kernetl pianincg - not syncing     a panic waits for no lock (oops_in_progress): its letters are
//!                                                  looked for between those of a program
//! ```

/// What programs had begun to write when the kernel spoke.
#[derive(Debug, Default)]
pub(super) struct Begun(String);

impl Begun {
    /// Takes the next line as it came, and gives the whole line of a program that ends in it, if a record came into that.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(at) = record(line) {
            self.0.push_str(&line[..at]);
            return None;
        }
        let begun = std::mem::take(&mut self.0);
        (!begun.is_empty()).then(|| begun + line)
    }
}

/// Where in a line the kernel's time stamp is: `[`, seconds to five places at least, a dot and six digits, `] `.
fn record(line: &str) -> Option<usize> {
    let stamp = |text: &str| {
        let (stamp, _) = text.strip_prefix('[')?.split_once("] ")?;
        let (seconds, fraction) = stamp.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (seconds.len() >= 5 && digits(seconds.trim_start()) && fraction.len() == 6 && digits(fraction)).then_some(())
    };
    line.match_indices('[').map(|(at, _)| at).find(|&at| stamp(&line[at..]).is_some())
}

/// How many lines a panic's first can lie in when a program's come into it.
pub(super) const WOVEN: usize = 3;

/// As much as a port takes at once of the other writer's.
const BURST: usize = 16;

/// Whether `words`, the first line of a panic, begin in the first of `lines`, with letters of a program's lines between
/// their own.
pub(super) fn hold_woven<'a>(mut lines: impl Iterator<Item = &'a str>, words: &str) -> bool {
    let mut text: Vec<char> = lines.next().unwrap_or_default().chars().collect();
    let mut starts = 0..text.len();
    text.extend(lines.flat_map(str::chars));
    starts.any(|start| {
        let mut at = start;
        words.chars().all(|letter| {
            let strange = if at == start { 0 } else { BURST };
            let next = text[at..].iter().take(strange + 1).position(|&other| other == letter);
            at += next.map_or(0, |next| next + 1);
            next.is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_lines(console: &str) -> Vec<String> {
        let mut begun = Begun::default();
        console.lines().filter_map(|line| begun.line(line)).collect()
    }

    #[test]
    fn a_programs_line_is_whole_wherever_a_record_came_into_it() {
        let (line, record) = ("GUEST: booted [1/2]", "[    4.148363] virtio_blk virtio0: [vda] 8 blocks");
        for at in 1..line.len() {
            let console = format!("before\n{}{record}\n{}\nbehind", &line[..at], &line[at..]);
            assert_eq!(whole_lines(&console), [line], "{console}");
        }
        assert_eq!(whole_lines(&format!("{record}\n{line}\n{record}\n")), [""; 0]);
    }

    #[test]
    fn several_records_can_come_into_one_line() {
        let console = "GU[12345.000001] a\nE[12345.000002] b\n[12345.000003] c\nST: x\ny";
        assert_eq!(whole_lines(console), ["GUEST: x"]);
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_a_programs() {
        for line in ["a[ OK ] b", "a[1.5] b", "a[    1.25] b", "a[    a.123456] b", "a[    1.123456]b"] {
            assert_eq!(whole_lines(&format!("{line}\nc")), [""; 0]);
        }
    }

    #[test]
    fn the_words_of_a_panic_are_found_between_letters_of_a_programs_lines() {
        let words = "Kernel panic - not syncing: a live patch";
        let hold = |lines: &[&str]| hold_woven(lines.iter().copied(), words);
        assert!(hold(&["kdump: l[    4.148363] Kernel paniicv e-p antocth syncing: a live patch"]));
        assert!(hold(&["[    4.148363] Kernwel pa", "nixctidnug 1 s", " - not syncing: a live patch"]));
        assert!(!hold(&["[    4.148363] Kernel paniicv e-p antocth syncing: a live"]));
        assert!(!hold(&["before", "[    4.148363] Kernel panic - not syncing: a live patch"]));
        assert!(!hold(&["[    4.148363] Kernel panic - not syncing: sysrq triggered crash", "a live patch"]));
    }
}
