//! The intake for run specs: the language of `docs/spec.md`.

use std::sync::Arc;

use trireme_spec::{Checker, Invalid, compile};

use crate::intake::{Compiled, Format, Intake, Refused, SpecProblem};

/// Compiles run specs.
#[derive(Clone)]
pub struct SpecIntake {
    checker: Arc<dyn Checker + Send + Sync>,
}

impl SpecIntake {
    /// `checker` knows the models and tools that a spec may name; [`trireme_spec::Permissive`] where only
    /// workers know them.
    pub fn new(checker: Arc<dyn Checker + Send + Sync>) -> Self {
        Self { checker }
    }
}

impl Intake for SpecIntake {
    fn compile(&self, text: &str, format: Format) -> Result<Compiled, Refused> {
        if format == Format::Json {
            strict_json(text)?;
        }
        // only a refused text is read once more, so that runs that start don't pay for it
        compile(text, &[], &*self.checker)
            .map_err(|invalid| refused(invalid, format == Format::Yaml && format.read(text).is_none()))
    }
}

/// Who says JSON means JSON, though the compiler would take YAML as well.
fn strict_json(text: &str) -> Result<(), Refused> {
    let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) else { return Ok(()) };
    let message = error.to_string();
    if message.starts_with("recursion limit") {
        // JSON all the same; the compiler has a word for what is nested too deep
        return Ok(());
    }
    Err(Refused { malformed: true, problems: vec![SpecProblem { path: String::new(), message }], more: 0 })
}

fn refused(invalid: Invalid, malformed: bool) -> Refused {
    let problems = invalid.problems.into_iter().map(|problem| SpecProblem {
        path: problem.path,
        message: match problem.place {
            Some(place) => format!("{place}: {}", problem.message),
            None => problem.message,
        },
    });
    Refused { malformed, problems: problems.collect(), more: invalid.more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_spec::Permissive;

    fn refuse(text: &str, format: Format) -> Refused {
        SpecIntake::new(Arc::new(Permissive)).compile(text, format).unwrap_err()
    }

    #[test]
    fn a_text_that_is_no_language_is_told_from_a_spec_with_errors() {
        for (text, format) in [
            ("{\"tasks\": ", Format::Json),
            ("tasks: {}", Format::Json),
            ("{tasks: {}}", Format::Json),
            ("tasks: [", Format::Yaml),
            ("tasks:\n\t- a", Format::Yaml),
            ("a: 'b", Format::Yaml),
        ] {
            assert!(refuse(text, format).malformed, "{text:?}");
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (text, format) in [
            ("{\"color\": 1}", Format::Json),
            ("[]", Format::Json),
            (deep.as_str(), Format::Json),
            ("color: red", Format::Yaml),
            ("tasks: {}\ntasks: {}", Format::Yaml),
            ("just words", Format::Yaml),
        ] {
            let refused = refuse(text, format);
            assert!(!refused.malformed, "{text:?}");
            assert!(!refused.problems.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_problem_says_its_path_and_its_line() {
        let refused = refuse("tasks:\n  a: {tool: {name: t}, color: red}\n", Format::Yaml);
        let problem = &refused.problems[0];
        assert_eq!(problem.path, "tasks.a.color");
        assert!(problem.message.starts_with("line 2, column "), "{}", problem.message);
    }
}
