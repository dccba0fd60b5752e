//! An API key that cannot reach a log by accident: it prints and serialises as a placeholder.
//!
//! Configuration is printable before any socket opens, so the type that holds keys must be
//! printable too, without the key in it.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trireme_secrets::{Missing, SecretName};

/// A secret value, written in configuration as a literal, as `secret://NAME`, as `${NAME}` or as `{env: NAME}`.
///
/// `secret://NAME` is looked up at each call, see [`trireme_secrets`]. The two last forms are read from the environment when [`crate::Providers`] is built, so a
/// printed configuration shows the variable's name and never its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Literal(String),
    Env(String),
    Named(SecretName),
}

impl Secret {
    /// A secret given by value.
    pub fn literal(value: impl Into<String>) -> Self {
        Self(Source::Literal(value.into()))
    }

    /// A secret read from the environment variable `name`.
    pub fn env(name: impl Into<String>) -> Self {
        Self(Source::Env(name.into()))
    }

    /// The environment variable that this secret comes from, if it does.
    pub fn variable(&self) -> Option<&str> {
        match &self.0 {
            Source::Literal(_) | Source::Named(_) => None,
            Source::Env(name) => Some(name),
        }
    }

    /// The name under which it is looked up at each call, if it is.
    pub(crate) fn named(&self) -> Option<&SecretName> {
        match &self.0 {
            Source::Named(name) => Some(name),
            _ => None,
        }
    }

    /// The value; `None` when it is one that calls look up, or when its variable is unset or blank.
    pub(crate) fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let value = match &self.0 {
            Source::Literal(value) => value.clone(),
            Source::Env(name) => env(name)?,
            Source::Named(_) => return None,
        };
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn parse(text: &str) -> Result<Self, Missing> {
        if let Some(named) = SecretName::parse(text) {
            let (before, name) = named?;
            // a header's value may begin with other words, a key not: neither may hide in front of the name
            return if before.is_empty() {
                Ok(Self(Source::Named(name)))
            } else {
                Err(Missing::Name("…".into()))
            };
        }
        Ok(match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
            Some(name) => Self::env(name.trim()),
            None => Self::literal(text),
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Literal(_) => f.write_str("[redacted]"),
            Source::Env(name) => write!(f, "${{{name}}}"),
            Source::Named(name) => write!(f, "{name}"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;
        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, \"secret://NAME\", \"${NAME}\" or {env: NAME}")
            }

            // Wrong types are reported without their value: it may be the key.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Secret::parse(text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let mut name = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "env" {
                        return Err(de::Error::unknown_field(&key, &["env"]));
                    }
                    name = Some(map.next_value::<String>()?);
                }
                name.map(Secret::env).ok_or_else(|| de::Error::missing_field("env"))
            }
        }
        deserializer.deserialize_any(SecretVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_and_no_leak() {
        let env = |name: &str| (name == "K").then(|| " sk-env \n".to_owned());
        for (json, value, shown) in [
            ("\"sk-lit\"", Some("sk-lit"), "[redacted]"),
            ("\"${K}\"", Some("sk-env"), "${K}"),
            ("{\"env\":\"K\"}", Some("sk-env"), "${K}"),
            ("\"${UNSET}\"", None, "${UNSET}"),
            ("\"secret://k-1\"", None, "secret://k-1"),
        ] {
            let secret: Secret = serde_json::from_str(json).unwrap();
            assert_eq!(secret.resolve(&env).as_deref(), value);
            assert_eq!(format!("{secret:?}"), shown);
            assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        }
        assert!(serde_json::from_str::<Secret>("{\"var\":\"K\"}").is_err());
        assert!(serde_json::from_str::<Secret>("{}").is_err());
        for bad in ["\"secret://a/b\"", "\"sk-lit secret://a\""] {
            let error = serde_json::from_str::<Secret>(bad).unwrap_err().to_string();
            assert!(!error.contains("sk-lit"), "{error}");
        }
    }
}
