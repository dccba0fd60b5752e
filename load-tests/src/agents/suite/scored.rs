//! Known answers, and whether a given one is right.

/// Numbers may be off by this share.
const TOLERANCE: f64 = 0.01;

/// The right answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Exactly this.
    Text(String),
    /// This, within 1 %.
    Number(f64),
}

impl Known {
    /// Whether `answer` says it: on its last line that begins with `ANSWER:`, or in the field `answer` of JSON.
    pub fn is(&self, answer: &str) -> bool {
        let Some(said) = said(answer) else { return false };
        match self {
            Self::Text(text) => *text == said,
            Self::Number(number) => {
                said.parse::<f64>().is_ok_and(|said| (said - number).abs() <= TOLERANCE * number.abs())
            }
        }
    }

    /// Whether two answers differ: not when both are right, else unless they say the same.
    pub fn differ(&self, one: &str, other: &str) -> bool {
        !(self.is(one) && self.is(other)) && said(one) != said(other)
    }
}

fn said(answer: &str) -> Option<String> {
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(answer) {
        return fields
            .get("answer")
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let line = answer.lines().rev().find_map(|line| line.trim().strip_prefix("ANSWER:"));
    line.map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn the_last_answer_line_counts() {
        let known = Known::Text("Oslo".into());
        assert!(known.is("ANSWER: Rome\nno\nANSWER: Oslo\n"));
        assert!(!known.is("ANSWER: Oslo\nANSWER: Rome"));
        assert!(!known.is("Oslo"));
        assert!(known.is(r#"{"answer": "Oslo"}"#));
    }

    #[test]
    fn right_answers_do_not_differ_and_wrong_ones_do_by_what_they_say() {
        let known = Known::Number(100.0);
        assert!(!known.differ("ANSWER: 100", "Well.\nANSWER: 100.5"));
        assert!(known.differ("ANSWER: 100", "ANSWER: 102"));
        assert!(!known.differ("one\nANSWER: 7", "two\nANSWER: 7") && known.differ("ANSWER: 7", "ANSWER: 8"));
    }

    #[test]
    fn numbers_may_be_off_by_a_hundredth() {
        let known = Known::Number(-200.0);
        assert!(known.is("ANSWER: -202") && known.is("ANSWER: -198.0") && known.is(r#"{"answer":-200}"#));
        assert!(!known.is("ANSWER: -202.1") && !known.is("ANSWER: 200") && !known.is("ANSWER: many"));
    }
}
