//! What is in the way of a plan: all of it at once, not the first of it alone.

use anyhow::Context;

/// Problems that have been met so far.
#[derive(Debug, Default)]
pub struct Problems(Vec<anyhow::Error>);

impl Problems {
    /// The value, or a problem more.
    pub fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// As [`Problems::note`], for problems that somebody else has collected.
    pub fn add(&mut self, problems: impl IntoIterator<Item = anyhow::Error>) {
        self.0.extend(problems);
    }

    /// Whether nothing is in the way.
    ///
    /// # Errors
    /// Something is: one problem is told as it is, several as a list.
    pub fn finish(mut self) -> anyhow::Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => self.0.pop().map_or(Ok(()), Err),
            count => {
                let mut told: Vec<String> = Vec::new();
                for problem in self.0.iter().map(|problem| format!("\n  - {problem:#}")) {
                    if !told.contains(&problem) {
                        told.push(problem);
                    }
                }
                Err(anyhow::Error::msg(told.concat())).with_context(|| format!("there are {count} problems"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn one_problem_is_told_as_it_is_and_several_as_a_list() {
        let mut problems = Problems::default();
        assert_eq!(problems.note(Ok(1)), Some(1));
        Problems::default().finish().unwrap();
        assert_eq!(problems.note::<()>(Err(anyhow!("a").context("b"))), None);
        let mut more = Problems::default();
        more.add([anyhow!("c"), anyhow!("d")]);
        assert_eq!(format!("{:#}", problems.finish().unwrap_err()), "b: a");
        assert_eq!(format!("{:#}", more.finish().unwrap_err()), "there are 2 problems: \n  - c\n  - d");
    }
}
