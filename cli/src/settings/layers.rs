//! Where settings come from: a file, and variables of the environment over it, layered by the `config` crate. What is
//! given is taken as it is: a number with a point is no whole number, and nothing is cut to fit. So the layers are read
//! as plain values first, which `config` leaves as they are, and only then as settings, which it would coerce.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use anyhow::{Context, anyhow, bail};
use config::{Config, FileFormat};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Values that a YAML file may hold, those that aliases stand for included.
const MAX_VALUES: usize = 100_000;
/// Parts of a variable's name: what is deeper is no setting.
const MAX_PARTS: usize = 16;

/// The settings in `file`, if there is one, with `environment` over them: `TRIREME__WORKER__SLOTS` is `worker.slots`.
pub(super) fn read<T: DeserializeOwned>(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<T> {
    let base = file.map_or_else(|| Ok(Config::default()), parse)?;
    let mut variables = Vec::new();
    for (name, text) in environment {
        let parts: Vec<String> = name.split("__").skip(1).map(str::to_ascii_lowercase).collect();
        if parts.iter().any(String::is_empty) || parts.len() > MAX_PARTS {
            bail!("{name}: is not the name of a setting, such as TRIREME__REDIS__URL");
        }
        variables.push(Variable { name, parts, text, value: scalar(text) });
    }
    // a variable says nothing of its type: what reads as a number may be meant as a text, such as a password
    let mut before: Option<(String, anyhow::Error)> = None;
    loop {
        let mut layers = Config::builder().add_source(base.clone());
        for variable in &variables {
            let wrong =
                || format!("{}: is not the name of a setting, such as TRIREME__REDIS__URL", variable.name);
            layers =
                layers.set_override(variable.parts.join("."), variable.value.clone()).with_context(wrong)?;
        }
        let whole: Value = layers.build().and_then(Config::try_deserialize)?;
        let error = match serde_path_to_error::deserialize(&whole) {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let variable = variables.iter_mut().find(|variable| variable.parts.join(".") == path);
        let place = variable.as_ref().map(|variable| variable.name.to_owned());
        let place = place.or_else(|| file.map(|file| file.display().to_string()));
        let place = place.unwrap_or_else(|| "environment".to_owned());
        let told = match path.as_str() {
            "." => anyhow!("{} ({place})", error.inner()),
            path => anyhow!("{path}: {} ({place})", error.inner()),
        };
        match before.take() {
            // as a text it fits no better
            Some((same, first)) if same == path => return Err(first),
            _ => {}
        }
        match variable.filter(|variable| !matches!(variable.value.kind, config::ValueKind::String(_))) {
            Some(variable) => variable.value = variable.text.into(),
            None => return Err(told),
        }
        before = Some((path, told));
    }
}

/// One variable of the environment.
struct Variable<'a> {
    name: &'a str,
    /// Its path in the settings.
    parts: Vec<String>,
    text: &'a str,
    value: config::Value,
}

/// A number, true or false where `text` is exactly how JSON writes it, else text.
fn scalar(text: &str) -> config::Value {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Bool(value)) => value.into(),
        Ok(Value::Number(number)) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(whole), ..) => whole.into(),
            (_, Some(whole), _) => whole.into(),
            (.., Some(fraction)) => fraction.into(),
            _ => text.into(),
        },
        _ => text.into(),
    }
}

fn parse(file: &Path) -> anyhow::Result<Config> {
    let shown = file.display();
    if !file.exists() {
        bail!("{shown}: no such file");
    }
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    read.with_context(|| shown.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        bail!("{shown}: over the limit of {MAX_BYTES} bytes");
    }
    let (text, format) = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => (text, FileFormat::Toml),
        Some("json") => (text, FileFormat::Json),
        Some("yaml" | "yml") => match yaml(&text).map_err(|error| anyhow!("{shown}: {error}"))? {
            Value::Null => return Ok(Config::default()),
            value => (value.to_string(), FileFormat::Json),
        },
        _ => bail!("{shown}: the format is told by the name: use .toml, .yaml or .json"),
    };
    let layer = Config::builder().add_source(config::File::from_str(&text, format)).build();
    layer.map_err(|error| anyhow!("{shown}: {error}"))
}

/// A few lines of anchors and aliases can stand for billions of values, and `config` has no bound on them.
fn yaml(text: &str) -> anyhow::Result<Value> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_VALUES,
            max_events: 4 * MAX_VALUES,
            max_depth: 64,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_VALUES,
        },
    };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}
