//! Specs from files and standard input.

use std::{
    collections::HashSet,
    io::{IsTerminal, Read},
    path::Path,
};

use crate::exit::Failure;

/// Largest spec that is read, in bytes: the coordinator takes no more.
const MAX_BYTES: u64 = 1 << 20;

/// Reads `file`, or standard input for `-`.
pub fn read(file: &Path) -> Result<String, Failure> {
    let name = name(file);
    let failed = |error: std::io::Error| Failure::usage(format!("{name}: {error}"));
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(file)
            .map_err(failed)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::usage(format!("{name}: over the limit of 1 MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("{name}: not UTF-8 at byte {at}"))
    })
}

/// How errors call `file`.
pub fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Checks that `KEY=VALUE` pairs are such, and that no key comes twice.
pub fn inputs(pairs: &[String]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for pair in pairs {
        let (key, _) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Failure::usage(format!("--input {pair}: give KEY=VALUE, such as --input company=Acme"))
        })?;
        if !seen.insert(key) {
            return Err(Failure::usage(format!("--input {key} is given twice")));
        }
    }
    Ok(())
}

/// `text` with `pairs` set in its `input`; unchanged without pairs.
pub fn with_inputs(text: &str, pairs: &[String]) -> Result<String, Failure> {
    inputs(pairs)?;
    if pairs.is_empty() {
        return Ok(text.to_owned());
    }
    trireme_spec::with_input(text, pairs).map_err(|error| Failure::usage(format!("--input: {error}")))
}

/// Whether standard output takes colours.
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_json_or_text() {
        let given = with_inputs("input: {a: 1, b: 2}\ntasks: {}", &["a=x y".into(), "c=[1]".into()]).unwrap();
        let spec: serde_json::Value = serde_json::from_str(&given).unwrap();
        assert_eq!(spec["input"], serde_json::json!({"a": "x y", "b": 2, "c": [1]}));
        let given =
            with_inputs("input: {a: 1}\ntasks: {}", &["n=[123456789012345678901, 0.10]".into()]).unwrap();
        assert_eq!(given, r#"{"input":{"a":1,"n":[123456789012345678901,0.10]},"tasks":{}}"#);
        assert!(with_inputs("input: 3", &["n=1".into()]).is_err());
        assert_eq!(with_inputs("not: touched", &[]).unwrap(), "not: touched");
        let deep = format!("a={}{}", "[".repeat(70), "]".repeat(70));
        for bad in [
            vec!["novalue"],
            vec!["=x"],
            vec!["a=[1"],
            vec!["a={x"],
            vec![r#"a={"x":1,"x":2}"#],
            vec![&*deep],
            vec!["a=1", "a=2"],
        ] {
            let pairs: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert!(with_inputs("tasks: {}", &pairs).is_err(), "{bad:?}");
        }
    }
}
