//! The kernel command line, split as the kernel splits it.
//!
//! Options are separated by white space; double quotes protect white space and are dropped when they enclose a value
//! (`lib/cmdline.c`). A bare option has no value. `-` and `_` are the same in option names.

/// A parsed kernel command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    options: Vec<(String, Option<String>)>,
}

impl Cmdline {
    /// Splits `text`. Never fails: an unbalanced quote runs to the end of the line, as in the kernel.
    pub fn parse(text: &str) -> Self {
        let options = words(text)
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) => (unquote(name), Some(unquote(value))),
                None => (unquote(&word), None),
            })
            .collect();
        Cmdline { options }
    }

    /// Every option in order, with its value if it has one.
    pub fn options(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.options.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// The values of every occurrence of `name=…`, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options().filter(move |(option, _)| same_name(option, name)).filter_map(|(_, value)| value)
    }

    /// The value of the last `name=…`: the last one wins.
    pub fn last<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).last()
    }

    /// The comma separated items of every `name=a,b,…`.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).flat_map(|value| value.split(',')).filter(|item| !item.is_empty())
    }
}

/// The words of a command line, quotes still in them.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.push(c);
            }
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether two option names are one to the kernel.
pub fn same_name(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes().zip(b.bytes()).all(|(x, y)| x == y || (matches!(x, b'-' | b'_') && matches!(y, b'-' | b'_')))
}

fn unquote(word: &str) -> String {
    word.chars().filter(|&c| c != '"').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_a_value_together_and_disappear() {
        let line = Cmdline::parse("a=1  dyndbg=\"file x.c +p\" \"mod.par=a b\" quiet\n");
        let options: Vec<_> = line.options().collect();
        assert_eq!(
            options,
            [("a", Some("1")), ("dyndbg", Some("file x.c +p")), ("mod.par", Some("a b")), ("quiet", None)]
        );
    }

    #[test]
    fn lists_are_gathered_over_all_occurrences_and_the_last_value_wins() {
        let line = Cmdline::parse("rd.driver.blacklist=a,b rd.driver.blacklist=c, rd.timeout=5 rd.timeout=7");
        assert_eq!(line.list("rd.driver.blacklist").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(line.last("rd.timeout"), Some("7"));
    }

    #[test]
    fn dash_and_underscore_are_one_in_names() {
        assert_eq!(Cmdline::parse("no-such_x=1").last("no_such-x"), Some("1"));
    }
}
