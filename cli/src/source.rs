//! Specs from files and standard input.

use std::{
    io::{IsTerminal, Read},
    path::Path,
};

use serde_json::{Map, Value};

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

/// Parses `KEY=VALUE` pairs; a value is JSON, or else text.
pub fn inputs(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let parse = |pair: &String| {
        let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Failure::usage(format!("--input {pair}: give KEY=VALUE, such as --input company=Acme"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok((key.to_owned(), value))
    };
    pairs.iter().map(parse).collect()
}

/// `text` with `pairs` set in its `input`; unchanged without pairs.
pub fn with_inputs(text: &str, pairs: &[String]) -> Result<String, Failure> {
    let given = inputs(pairs)?;
    if given.is_empty() {
        return Ok(text.to_owned());
    }
    let mut spec: Value =
        serde_saphyr::from_str(text).map_err(|error| Failure::usage(format!("spec: {error}")))?;
    let input =
        spec.as_object_mut().map(|spec| spec.entry("input").or_insert_with(|| Value::Object(Map::new())));
    let Some(Value::Object(input)) = input else {
        return Err(Failure::usage("--input needs a spec whose `input` is an object"));
    };
    input.extend(given);
    Ok(spec.to_string())
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
        let spec: Value = serde_json::from_str(&given).unwrap();
        assert_eq!(spec["input"], serde_json::json!({"a": "x y", "b": 2, "c": [1]}));
        assert_eq!(with_inputs("not: touched", &[]).unwrap(), "not: touched");
        assert!(inputs(&["novalue".into()]).is_err());
    }
}
