//! `calculator`: arithmetic for models, which are bad at it.
//!
//! Written here because the expression crates are either under the AGPL (evalexpr), no longer kept
//! (meval, fasteval), or without functions of several arguments (exmex) - and because the errors
//! are for a model to read: each names the place and what would be right there.
//!
//! ```text
//! sum    = term (("+" | "-") term)*
//! term   = unary (("*" | "/" | "%") unary)*
//! unary  = ("-" | "+") unary | power
//! power  = atom ("^" unary)?                        right-associative, so -2^2 is -4
//! atom   = number | name | name "(" sum ("," sum)* ")" | "(" sum ")"
//! ```

use async_trait::async_trait;
use serde_json::{Value, json};

use super::spec;
use crate::{CallContext, Error, Tool, ToolOutput, ToolSpec, error::shorten};

/// Longest expression in bytes.
const MAX_LENGTH: usize = 4096;
/// Deepest nesting; far over any formula, far under the stack of a worker thread.
const MAX_DEPTH: usize = 64;
/// Every function name, for errors and the description.
const FUNCTIONS: &str =
    "abs, ceil, cos, exp, floor, ln, log10, log2, max, min, pow, round, sin, sqrt, sum, tan, trunc";

/// The tool.
pub(super) struct Calculator(ToolSpec);

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

// === impl Calculator ===

impl Calculator {
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "required": ["expression"], "additionalProperties": false,
            "properties": {"expression": {"type": ["string", "number"], "minLength": 1, "maxLength": MAX_LENGTH,
                "description": format!("+ - * / % ^ and parentheses, pi, e, and the functions {FUNCTIONS}; round(x, digits)")}},
        });
        Self(spec("calculator", "Computes an arithmetic expression and returns the number.", args))
    }
}

#[async_trait]
impl Tool for Calculator {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        // a template that is one reference to a number gives a number
        let text = match &args["expression"] {
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        evaluate(&text).map(|v| number(v).into()).map_err(|message| Error::Failed { message })
    }
}

/// The value of `text`, or what is wrong with it and where (counted in characters from 1).
fn evaluate(text: &str) -> Result<f64, String> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(c) => Err(parser.fault(&format!("unexpected `{c}`, expected an operator or the end"))),
    }
}

/// Whole numbers that an `f64` holds exactly come back as integers.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn sum(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(&format!("nested deeper than {MAX_DEPTH}")));
        }
        let mut value = self.term()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.take(operator);
            let right = self.term()?;
            value = self.finite(if operator == '+' { value + right } else { value - right })?;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn term(&mut self) -> Result<f64, String> {
        let mut value = self.unary()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.take(operator);
            let right = self.unary()?;
            if right == 0.0 && operator != '*' {
                return Err(self.fault("division by zero"));
            }
            value = self.finite(match operator {
                '*' => value * right,
                '/' => value / right,
                _ => value % right,
            })?;
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<f64, String> {
        // A loop, so that ten thousand signs need no stack.
        let mut negative = false;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.take(sign);
            negative ^= sign == '-';
        }
        let value = self.power()?;
        Ok(if negative { -value } else { value })
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.atom()?;
        if self.peek() != Some('^') {
            return Ok(base);
        }
        self.take('^');
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(&format!("nested deeper than {MAX_DEPTH}")));
        }
        let exponent = self.unary()?;
        self.depth -= 1;
        self.finite(base.powf(exponent))
    }

    fn atom(&mut self) -> Result<f64, String> {
        match self.peek() {
            Some('(') => {
                self.take('(');
                let value = self.sum()?;
                self.expect(')')?;
                Ok(value)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.literal(),
            Some(c) if c.is_ascii_alphabetic() => self.name(),
            Some(c) => Err(self.fault(&format!("unexpected `{c}`, expected a number, a name or `(`"))),
            None => Err(self.fault("the expression ends here, expected a number, a name or `(`")),
        }
    }

    fn literal(&mut self) -> Result<f64, String> {
        let rest = &self.text[self.at..];
        let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let mut end = digits(rest);
        if rest[end..].starts_with('.') {
            end += 1 + digits(&rest[end + 1..]);
        }
        // An exponent only when digits follow, so that `2e` reads as `2` and a stray name.
        if let Some(tail) = rest[end..].strip_prefix(['e', 'E']) {
            let sign = usize::from(tail.starts_with(['+', '-']));
            let count = digits(&tail[sign..]);
            if count > 0 {
                end += 1 + sign + count;
            }
        }
        let value: f64 =
            rest[..end].parse().map_err(|_| self.fault(&format!("`{}` is not a number", &rest[..end])))?;
        self.at += end;
        self.finite(value)
    }

    fn name(&mut self) -> Result<f64, String> {
        let start = self.at;
        let rest = &self.text[start..];
        let name = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())];
        self.at += name.len();
        if self.peek() != Some('(') {
            return match name {
                "pi" => Ok(std::f64::consts::PI),
                "e" => Ok(std::f64::consts::E),
                _ => {
                    self.at = start;
                    Err(self.fault(&format!(
                        "unknown name `{}`; known are pi, e and the functions {FUNCTIONS}",
                        shorten(name, 50)
                    )))
                }
            };
        }
        self.take('(');
        let mut args = Vec::new();
        if self.peek() != Some(')') {
            args.push(self.sum()?);
            while self.peek() == Some(',') {
                self.take(',');
                args.push(self.sum()?);
            }
        }
        self.expect(')')?;
        let value = apply(name, &args).map_err(|problem| {
            self.at = start;
            self.fault(&problem)
        })?;
        self.finite(value)
    }

    /// The next character that is not white space, without taking it.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.peek() {
            Some(c) if c == wanted => {
                self.take(c);
                Ok(())
            }
            Some(c) => Err(self.fault(&format!("unexpected `{c}`, expected `{wanted}`"))),
            None => Err(self.fault(&format!("the expression ends here, expected `{wanted}`"))),
        }
    }

    fn finite(&self, value: f64) -> Result<f64, String> {
        if value.is_nan() {
            Err(self.fault("the result is not a real number"))
        } else if value.is_infinite() {
            Err(self.fault("the result is too large"))
        } else {
            Ok(value)
        }
    }

    fn fault(&self, problem: &str) -> String {
        format!("at character {}: {problem}", self.text[..self.at].chars().count() + 1)
    }
}

fn apply(name: &str, args: &[f64]) -> Result<f64, String> {
    let wrong = |wanted: &str| Err(format!("`{name}` takes {wanted}, not {} arguments", args.len()));
    match (name, args) {
        ("min", [first, rest @ ..]) => Ok(rest.iter().copied().fold(*first, f64::min)),
        ("max", [first, rest @ ..]) => Ok(rest.iter().copied().fold(*first, f64::max)),
        ("sum", values) => Ok(values.iter().sum()),
        ("pow", [base, exponent]) => Ok(base.powf(*exponent)),
        ("round", [value, digits]) => {
            if digits.fract() != 0.0 || digits.abs() > 15.0 {
                return Err("`round` takes a whole number of digits from -15 to 15".to_owned());
            }
            let scale = 10f64.powi(*digits as i32);
            Ok((value * scale).round() / scale)
        }
        (_, [x]) => Ok(match name {
            "abs" => x.abs(),
            "ceil" => x.ceil(),
            "cos" => x.cos(),
            "exp" => x.exp(),
            "floor" => x.floor(),
            "ln" => x.ln(),
            "log10" => x.log10(),
            "log2" => x.log2(),
            "round" => x.round(),
            "sin" => x.sin(),
            "sqrt" => x.sqrt(),
            "tan" => x.tan(),
            "trunc" => x.trunc(),
            "pow" => return wrong("2 arguments"),
            _ => return Err(format!("unknown function `{}`; known are {FUNCTIONS}", shorten(name, 50))),
        }),
        ("min" | "max", []) => wrong("at least 1 argument"),
        ("pow", _) => wrong("2 arguments"),
        ("round", _) => wrong("1 or 2 arguments"),
        _ if FUNCTIONS.split(", ").any(|known| known == name) => wrong("1 argument"),
        _ => Err(format!("unknown function `{}`; known are {FUNCTIONS}", shorten(name, 50))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, want) in [
            ("1 + 2 * 3", json!(7)),
            ("(1 + 2) * 3", json!(9)),
            ("-2 ^ 2", json!(-4)),
            ("2 ^ 3 ^ 2", json!(512)),
            ("2 ^ -1", json!(0.5)),
            ("7 % 4 - --1", json!(2)),
            ("10 / 4", json!(2.5)),
            ("1e3 + .5 + 2.", json!(1002.5)),
            ("2e", json!(null)),
            ("sqrt(16) + abs(-1) + min(3, 1, 2) + max(4)", json!(10)),
            ("round(2.3456, 2)", json!(2.35)),
            ("round(1234, -2)", json!(1200)),
            ("floor(-0.5) + ceil(0.2) + trunc(-1.9)", json!(-1)),
            ("ln(e) + log10(100) + log2(8) + cos(0) + exp(0)", json!(8)),
            ("sum(1, 2, 3) + sum()", json!(6)),
            ("pi", json!(std::f64::consts::PI)),
            ("9007199254740991", json!(9007199254740991_i64)),
            ("2 ^ 60", json!(1152921504606846976.0)),
            (" 0 * -1 ", json!(0)),
        ] {
            match evaluate(text) {
                Ok(value) => assert_eq!(number(value), want, "{text}"),
                Err(error) => assert_eq!(want, Value::Null, "{text}: {error}"),
            }
        }
    }

    #[test]
    fn errors_name_the_place_and_what_is_right() {
        for (text, want) in [
            ("", "at character 1: the expression ends here, expected a number, a name or `(`"),
            ("1 +", "at character 4: the expression ends here, expected a number, a name or `(`"),
            ("1 $ 2", "at character 3: unexpected `$`, expected an operator or the end"),
            ("(1 + 2", "at character 7: the expression ends here, expected `)`"),
            ("é + 1", "at character 1: unexpected `é`, expected a number, a name or `(`"),
            ("1 / 0", "at character 6: division by zero"),
            ("1 % (1 - 1)", "at character 12: division by zero"),
            ("sqrt(-1)", "at character 9: the result is not a real number"),
            ("10 ^ 400", "at character 9: the result is too large"),
            ("min()", "at character 1: `min` takes at least 1 argument, not 0 arguments"),
            ("2 * sqrt(1, 2)", "at character 5: `sqrt` takes 1 argument, not 2 arguments"),
            ("pow(2)", "at character 1: `pow` takes 2 arguments, not 1 arguments"),
            ("1.2.3", "at character 4: unexpected `.`, expected an operator or the end"),
        ] {
            assert_eq!(evaluate(text).unwrap_err(), want, "{text}");
        }
        assert!(evaluate("system(1)").unwrap_err().contains("unknown function `system`; known are abs"));
        assert!(evaluate("x + 1").unwrap_err().starts_with("at character 1: unknown name `x`"));
    }

    #[test]
    fn depth_is_bounded_and_signs_are_not() {
        assert!(evaluate(&"(".repeat(2000)).unwrap_err().contains("nested deeper"));
        assert!(evaluate(&"2^".repeat(2000)).unwrap_err().contains("nested deeper"));
        assert_eq!(evaluate(&format!("{}1", "-".repeat(4000))), Ok(1.0));
    }
}
