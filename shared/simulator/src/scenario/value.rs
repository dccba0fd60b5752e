//! Small values that rules are made of: durations with a unit, text conditions, ranges, faults.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Latency;

/// A duration with its unit in words: `250us`, `300ms`, `1.5s`, `2m` or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span(pub Duration);

/// A condition on a text; all given parts must hold. A plain string means `contains`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TextMatch {
    /// The text holds this, case sensitive.
    pub contains: Option<String>,
    /// The text does not hold this.
    pub lacks: Option<String>,
    /// The text is exactly this.
    pub equals: Option<String>,
    /// The regular expression (crate `regex`, unanchored) finds something.
    pub regex: Option<String>,
}

/// Numbers from `min` to `max`, both included and both optional. A plain number means just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Smallest number.
    pub min: u64,
    /// Largest number.
    pub max: u64,
}

/// Conditions on named values, for instance the arguments of a tool call.
pub type Match = BTreeMap<String, TextMatch>;

/// What goes wrong with a call. Where `after_tokens` stands, that many tokens are sent first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An HTTP error in the provider's format.
    #[serde(rename_all = "snake_case")]
    Error {
        /// 400 to 599.
        status: u16,
        /// Sent as `Retry-After` in whole seconds rounded up, and as `retry-after-ms`.
        #[serde(default)]
        retry_after: Option<Span>,
        /// Message in the body; the provider's usual one unless told.
        #[serde(default)]
        message: Option<String>,
        /// How long the error takes to come; none unless told.
        #[serde(default)]
        after: Latency,
    },
    /// An error event inside a stream that began with 200. Not streamed: as `error`.
    StreamError {
        /// Tokens sent before.
        #[serde(default)]
        after_tokens: u64,
        /// The status that stands for the kind of error; 529 unless told.
        #[serde(default = "overloaded")]
        status: u16,
    },
    /// The connection breaks in the middle of the body.
    Cut {
        /// Tokens sent before.
        #[serde(default)]
        after_tokens: u64,
    },
    /// The body ends early but cleanly: no finish reason, no closing event.
    Truncate {
        /// Tokens sent before.
        #[serde(default)]
        after_tokens: u64,
    },
    /// Nothing more comes, for a while or until the client leaves (at most one hour, then a cut).
    Hang {
        /// Tokens sent before.
        #[serde(default)]
        after_tokens: u64,
        /// Not even the status line is sent.
        #[serde(default)]
        before_headers: bool,
        /// Go on after this long; without it, never.
        #[serde(default, rename = "for")]
        pause: Option<Span>,
    },
    /// Bytes that are neither UTF-8 nor JSON, then the end.
    Garbage {
        /// Tokens sent before.
        #[serde(default)]
        after_tokens: u64,
    },
    /// Status 200 with something else, as a captive portal or a proxy does.
    WrongContentType {
        /// The content type; `text/html` unless told.
        #[serde(default = "html")]
        content_type: String,
        /// The body; a small page unless told.
        #[serde(default = "page")]
        body: String,
    },
    /// Status 200 with an empty body.
    Empty,
}

fn overloaded() -> u16 {
    529
}

fn html() -> String {
    "text/html".to_owned()
}

fn page() -> String {
    "<html><body>proxy error</body></html>".to_owned()
}

// === impl Span ===

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a duration such as 300ms, 1.5s or 2m");
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = text[..split].parse().map_err(|_| bad())?;
        let unit = match text[split..].trim() {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            _ => return Err(bad()),
        };
        let seconds = number * unit;
        if seconds > 86_400.0 {
            return Err(format!("`{text}` is over a day"));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}us", self.0.as_micros()))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as 300ms or 1.5s")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                Span::parse(&number.to_string()).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Span, E> {
                Span::parse(&number.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

// === impl TextMatch ===

impl<'de> Deserialize<'de> for TextMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            contains: Option<String>,
            lacks: Option<String>,
            equals: Option<String>,
            regex: Option<String>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = TextMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text to contain, or a map of contains, lacks, equals, regex")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextMatch, E> {
                Ok(TextMatch { contains: Some(text.to_owned()), ..TextMatch::default() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TextMatch, A::Error> {
                let Parts { contains, lacks, equals, regex } =
                    Parts::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(TextMatch { contains, lacks, equals, regex })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

// === impl Range ===

impl Range {
    pub(crate) fn holds(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Bounds {
            #[serde(default)]
            min: u64,
            #[serde(default = "unlimited")]
            max: u64,
        }
        fn unlimited() -> u64 {
            u64::MAX
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Range;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a map of min and max")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Range, E> {
                Ok(Range { min: number, max: number })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Range, E> {
                let number = u64::try_from(number).map_err(|_| E::custom("a count cannot be negative"))?;
                self.visit_u64(number)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Range, A::Error> {
                let Bounds { min, max } = Bounds::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Range { min, max })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
