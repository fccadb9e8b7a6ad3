//! A file that bash reads, without a bash: what it assigns, and where it does anything else.
//!
//! In: the text. Out: its statements in order. An assignment whose value only a shell knows, or that a condition may pass
//! over, is told as such; whether that matters is for the one who knows what the variable means.
//! May surprise: nothing stops the reading. Commands are passed over together with their quotes and blocks, so that the
//! lines behind them are read as what they are.

use crate::config::assignments::{Assignment, assignment};

/// What a file says in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// A variable gets a value, or why that cannot be told.
    Assigns(Assignment, Result<(), String>),
    /// Something is run.
    Runs {
        /// Where.
        line: usize,
        /// Its first word.
        word: String,
    },
}

/// What makes variables of what follows it.
const DECLARATIONS: [&str; 4] = ["export", "declare", "typeset", "readonly"];

/// What a command may follow on.
const BEFORE_COMMANDS: [&str; 8] = ["if", "then", "else", "elif", "while", "until", "do", "!"];

/// What begins a block, and what ends one.
const OPENS: [&str; 7] = ["if", "for", "while", "until", "case", "select", "{"];
const CLOSES: [&str; 4] = ["fi", "done", "esac", "}"];

/// All statements of a text.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut splitter = Splitter { chars: text.chars().peekable(), line: 1 };
    let mut reader = Reader::default();
    let mut words = Vec::new();
    loop {
        match splitter.next() {
            Some(Token::Word(line, word)) => words.push((line, word)),
            Some(Token::Operator(operator)) => {
                reader.statement(&words);
                reader.operator(operator, words.is_empty());
                words.clear();
            }
            None => {
                reader.statement(&words);
                return reader.found;
            }
        }
    }
}

/// A word as it is written, quotes and all, or what ends a statement.
enum Token {
    Word(usize, String),
    Operator(char),
}

struct Splitter<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Splitter<'_> {
    fn take(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn next(&mut self) -> Option<Token> {
        let mut word = String::new();
        let mut line = self.line;
        while let Some(&c) = self.chars.peek() {
            match c {
                '#' if word.is_empty() => while self.chars.next_if(|&c| c != '\n').is_some() {},
                '\n' | ';' | '&' | '|' | '(' | ')' if word.is_empty() => {
                    self.take();
                    // Two of them are one; what matters is which.
                    let _ = self.chars.next_if(|&next| next == c && "&|;".contains(c));
                    return Some(Token::Operator(c));
                }
                // An array is part of its word.
                '(' if word.ends_with('=') => self.nested(&mut word, ')'),
                '\n' | ';' | '&' | '|' | '(' | ')' => break,
                c if c.is_whitespace() => {
                    if !word.is_empty() {
                        break;
                    }
                    self.take();
                }
                c => {
                    if word.is_empty() {
                        line = self.line;
                    }
                    self.piece(c, &mut word);
                }
            }
        }
        (!word.is_empty()).then_some(Token::Word(line, word))
    }

    /// One character of a word, or all that belongs to it.
    fn piece(&mut self, c: char, word: &mut String) {
        word.extend(self.take());
        match c {
            '\\' => {
                let next = self.take();
                match next {
                    Some('\n') => {
                        word.pop();
                    }
                    next => word.extend(next),
                }
            }
            '\'' | '`' => self.until(word, c),
            '"' => self.quoted(word),
            '$' => match self.chars.peek() {
                Some('(') => self.nested(word, ')'),
                Some('{') => self.nested(word, '}'),
                _ => {}
            },
            _ => {}
        }
    }

    fn until(&mut self, word: &mut String, end: char) {
        while let Some(c) = self.take() {
            word.push(c);
            match c {
                c if c == end => return,
                '\\' if end != '\'' => word.extend(self.take()),
                _ => {}
            }
        }
    }

    fn quoted(&mut self, word: &mut String) {
        while let Some(&c) = self.chars.peek() {
            match c {
                '"' => return word.extend(self.take()),
                // A line that goes on is for the one who reads the value.
                '\\' => word.extend([self.take(), self.take()].into_iter().flatten()),
                '\'' => word.extend(self.take()),
                c => self.piece(c, word),
            }
        }
    }

    /// What is in brackets, with those inside of it. Not by recursion: a hostile file has a million of them.
    fn nested(&mut self, word: &mut String, end: char) {
        let begin = if end == ')' { '(' } else { '{' };
        let mut depth = 0_usize;
        while let Some(c) = self.take() {
            word.push(c);
            match c {
                '\'' | '`' | '"' => self.until(word, c),
                '\\' => word.extend(self.take()),
                c if c == begin => depth += 1,
                c if c == end && depth <= 1 => return,
                c if c == end => depth -= 1,
                _ => {}
            }
        }
    }
}

/// Puts statements together, and knows what is inside of what.
#[derive(Default)]
struct Reader {
    found: Vec<Statement>,
    /// Open blocks and parentheses.
    blocks: usize,
    parentheses: usize,
    /// Whether the next statement hangs on the one before.
    hangs: bool,
    /// The line of the last command.
    told: usize,
}

impl Reader {
    /// What ends a statement, be it one without words.
    fn operator(&mut self, operator: char, is_empty: bool) {
        match operator {
            '(' => self.parentheses += 1,
            ')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        let goes_on = operator == '(' || (operator == '\n' && is_empty);
        self.hangs = matches!(operator, '&' | '|') || (self.hangs && goes_on);
    }

    fn statement(&mut self, words: &[(usize, String)]) {
        let mut words = words.iter().map(|(line, word)| (*line, word.as_str()));
        let mut is_declaration = false;
        while let Some((line, word)) = words.next() {
            let is_sure = self.blocks == 0 && self.parentheses == 0 && !self.hangs;
            if let Some((assignment, problem)) = assignment(word, line) {
                let told = match problem {
                    None if !is_sure => {
                        Err("a condition of a shell decides about it; write the line without one".into())
                    }
                    None => Ok(()),
                    Some(problem) => Err(problem),
                };
                self.found.push(Statement::Assigns(assignment, told));
                continue;
            }
            self.blocks += usize::from(OPENS.contains(&word));
            self.blocks = self.blocks.saturating_sub(usize::from(CLOSES.contains(&word)));
            match word {
                word if DECLARATIONS.contains(&word) => is_declaration = true,
                // Its options, and variables that keep their value.
                _ if is_declaration => {}
                word if BEFORE_COMMANDS.contains(&word) || word == "{" => self.runs(line, word),
                word => {
                    self.runs(line, word);
                    // A function's body begins behind its name.
                    self.blocks +=
                        usize::from(word == "function" && words.next_back().is_some_and(|(_, last)| last == "{"));
                    return;
                }
            }
        }
    }

    /// Once a line is often enough.
    fn runs(&mut self, line: usize, word: &str) {
        if std::mem::replace(&mut self.told, line) != line {
            self.found.push(Statement::Runs { line, word: word.chars().take(32).collect() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each statement as a word: `a=1`, `a=?` if its value is not known, `a=~` if it may be passed over, `!word`.
    fn told(text: &str) -> String {
        let one = |statement: &Statement| match statement {
            Statement::Assigns(Assignment { name, value, appends, .. }, told) => {
                let sign = if *appends { "+=" } else { "=" };
                match told {
                    Ok(()) => format!("{name}{sign}{value}"),
                    Err(problem) if problem.contains("condition") => format!("{name}{sign}~"),
                    Err(_) => format!("{name}{sign}?"),
                }
            }
            Statement::Runs { line, word } => format!("{line}!{word}"),
        };
        statements(text).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn assignments_before_and_behind_what_only_a_shell_can_do_are_read() {
        for (text, expected) in [
            ("a=1\nb=\"$x\"\nc+=\" 2 \"", "a=1 b=? c+= 2 "),
            ("a=\"x-$(cat \"/y z\" | tr ; )\" b=2", "a=? b=2"),
            ("a=${b:-c d} e=`f g` h=1", "a=? e=? h=1"),
            ("a=(b c) d=1", "a=? d=1"),
            ("export A=1\nexport -n B\nreadonly C=\"2\"", "A=1 C=2"),
            ("if [ -e /x ]; then\n  a=1\nelse b=2; fi\nc=3", "1!if a=~ 3!else b=~ c=3"),
            ("[[ $x == y ]] && a=1\nb=2", "1![[ a=~ b=2"),
            ("[ x ] ||\n a=1\nb=2", "1![ a=~ b=2"),
            ("case $(uname -m) in\n x*) a=1;;\nesac\nb=2", "1!case 2!x* a=~ 3!esac b=2"),
            ("for i in 1 2; do a+=\" $i \"; done; b=1", "1!for a+=? b=1"),
            ("f() {\n a=1\n}\nb=2", "1!f a=~ 3!} b=2"),
            ("function f {\n a=1\n}\nb=2", "1!function a=~ 3!} b=2"),
            ("(a=1)\nb=2", "a=~ b=2"),
            (". /etc/other # a=1\n# b=2\nc=3", "1!. c=3"),
            ("a='$x' b=\\$y c=\"d'e\"", "a=$x b=$y c=d'e"),
            ("a=b\\\nc\nd=1", "a=bc d=1"),
            ("a=\"b \\\nc\" d=1", "a=b c d=1"),
            ("a=1 # it's\nb=2", "a=1 b=2"),
            ("echo it's; b=2'\nc=1", "1!echo c=1"),
            ("a=\"1\nb=2", "a=?"),
            ("a=1>x\nb=2", "a=? b=2"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn a_statement_has_the_line_that_it_begins_in() {
        let lines: Vec<usize> = statements("\na=\"\n\"\n\nb=1; x \\\n y\nc=$z")
            .iter()
            .map(|statement| match statement {
                Statement::Assigns(assignment, _) => assignment.line,
                Statement::Runs { line, .. } => *line,
            })
            .collect();
        assert_eq!(lines, [2, 5, 5, 7]);
    }

    proptest! {
        #[test]
        fn any_text_ends_in_statements(text in "[a=+ \\n\"'`$(){};&|#\\\\]{0,60}") {
            let _ = statements(&text);
        }

        #[test]
        fn quoted_values_are_read_back_whatever_is_between_them(
            values in proptest::collection::vec("[a-z /$#;&|()'`]{0,8}", 1..5),
            between in "(echo \"a b\"|if x; then y; fi|export Z|# it's|)",
        ) {
            let quote = |value: &String| format!("'{}'", value.replace('\'', "'\\''"));
            let text: String = values.iter().map(|value| format!("v+={}\n{between}\n", quote(value))).collect();
            let read: Vec<String> = statements(&text)
                .into_iter()
                .filter_map(|statement| match statement {
                    Statement::Assigns(assignment, Ok(())) => Some(assignment.value),
                    _ => None,
                })
                .collect();
            prop_assert_eq!(read, values);
        }
    }
}
