//! What is wrong with a run spec: every problem at once, each with its place.

use std::fmt;

/// Problems listed in one answer; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;

/// A position in the text of a spec, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column; of JSON in bytes, of YAML in characters.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the spec: `tasks.brief.llm.prompt`; empty for the spec as a whole.
    pub path: String,
    /// Where in its text, as far as known.
    pub place: Option<Place>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Why a spec was refused: at least one problem, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// At most [`MAX_PROBLEMS`] of them.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

/// What is wrong with a whole number that 64 bits don't hold, where a value is made of it.
pub(crate) const WIDE: &str = "is over 64 bits and would become another one: give it as text, in quotes";

/// Collects problems.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Problem>);

impl Report {
    pub fn add(&mut self, path: impl Into<String>, place: Option<Place>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), place, message: message.into() });
    }

    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.0.extend(problems);
    }

    /// [`hint`], as long as it may be shown: to look among all tasks for each of thousands of unknown names
    /// would take minutes.
    pub fn hint<'a>(&self, given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        if self.0.len() < MAX_PROBLEMS { hint(given, known) } else { String::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Err` when there is any problem.
    pub fn finish(mut self) -> Result<(), Invalid> {
        if self.0.is_empty() {
            return Ok(());
        }
        // stable: problems without a place stay in the order they were found, after the others
        self.0.sort_by_key(|problem| problem.place.map_or((1, None), |place| (0, Some(place))));
        self.0.dedup();
        let more = self.0.len().saturating_sub(MAX_PROBLEMS);
        self.0.truncate(MAX_PROBLEMS);
        Err(Invalid { problems: self.0.into_iter().map(Problem::visible).collect(), more })
    }
}

impl Invalid {
    /// One problem alone.
    pub(crate) fn one(path: &str, place: Option<Place>, message: impl Into<String>) -> Self {
        let problem = Problem { path: path.to_owned(), place, message: message.into() };
        Self { problems: vec![problem.visible()], more: 0 }
    }
}

impl Problem {
    fn visible(self) -> Self {
        Self { path: visible(&self.path), place: self.place, message: visible(&self.message) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_empty() { "spec" } else { &self.path })?;
        if let Some(place) = self.place {
            write!(f, " ({place})")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more problems", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// `text` with what would steer a terminal, break a line or turn its direction around written as an escape.
pub(crate) fn visible(text: &str) -> String {
    let steers = |char: char| {
        char.is_control()
            || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if steers(char) { out.extend(char.escape_default()) } else { out.push(char) }
    }
    out
}

/// The start of a text that may be long, quoted.
pub(crate) fn quoted(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { format!("`{start}…`") } else { format!("`{start}`") }
}

/// `; did you mean …?`, or the known names when they are few.
pub(crate) fn hint<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    // a long name is no typing error of anything, and the distance costs the product of the lengths
    let nearest = known
        .iter()
        .filter(|_| given.len() <= 64)
        .map(|name| (strsim::damerau_levenshtein(given, name), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.len().max(given.len()) / 3).max(1));
    match nearest {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None if known.is_empty() || known.len() > 12 => String::new(),
        None => format!("; known are {}", list(&known)),
    }
}

/// Names as `a`, `b`.
pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_looked_up_for_a_problem_that_is_only_counted() {
        let mut report = Report::default();
        for _ in 0..MAX_PROBLEMS {
            assert_eq!(report.hint("taks", ["task"]), "; did you mean `task`?");
            report.add("", None, "x");
        }
        assert_eq!(report.hint("taks", ["task"]), "");
    }
}
