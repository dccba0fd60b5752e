//! Where settings come from: a file, and variables of the environment over it, layered by the `config` crate. What is
//! given is taken as it is: a number with a point is no whole number, and nothing is cut to fit. So the layers are read
//! as plain values first, which `config` leaves as they are, and only then as settings, which it would coerce.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    fs::File,
    io::Read,
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use config::{Config, FileFormat};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};
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
    let layer = layer.map_err(|error| anyhow!("{shown}: {error}"))?;
    // `config` takes the last of two, and what is no number as not set
    let sound = match format {
        FileFormat::Json => serde_json::from_str(&text).map_err(anyhow::Error::from),
        _ => layer.clone().try_deserialize().map_err(anyhow::Error::from),
    };
    let _: Sound = sound.map_err(|error| anyhow!("{shown}: {error}"))?;
    Ok(layer)
}

/// Any value in which no key comes twice and every fraction is finite.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self, E> {
        if value.is_finite() { Ok(self) } else { Err(E::custom(format_args!("{value} is no finite number"))) }
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(de::Error::custom(format_args!("`{key}` is given twice")));
            }
            members.next_value::<Self>()?;
            keys.insert(key);
        }
        Ok(self)
    }
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
