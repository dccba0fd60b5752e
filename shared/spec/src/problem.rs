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
        Err(Invalid { problems: self.0, more })
    }
}

impl Invalid {
    /// One problem alone.
    pub(crate) fn one(path: &str, place: Option<Place>, message: impl Into<String>) -> Self {
        let problem = Problem { path: path.to_owned(), place, message: message.into() };
        Self { problems: vec![problem], more: 0 }
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
