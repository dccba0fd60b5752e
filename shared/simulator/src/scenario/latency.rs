//! Latency distributions. A latency is a spread (fixed, uniform or log-normal), an optional cap and
//! an optional straggler: with probability `p` the drawn time is multiplied by `factor`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::Span;
use crate::draw::Stream;

/// How long something takes. Zero by default. In a file: `300ms`, or a map with one spread.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// The distribution.
    #[serde(flatten)]
    pub spread: Spread,
    /// Rare slow calls.
    pub straggler: Option<Straggler>,
    /// Upper bound on the result, straggler included.
    pub max: Option<Span>,
}

/// The body of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Always the same.
    Fixed(Span),
    /// Any time between two bounds, all alike.
    Uniform(Uniform),
    /// Mostly near the median with a long tail, which is what networks and models look like.
    LogNormal(LogNormal),
}

/// Bounds of a uniform spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {
    /// Shortest.
    pub min: Span,
    /// Longest.
    pub max: Span,
}

/// A log-normal spread: `median` or `mean`, and `sigma` or `p99`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogNormal {
    /// Half of the calls are faster.
    #[serde(default)]
    pub median: Option<Span>,
    /// The average.
    #[serde(default)]
    pub mean: Option<Span>,
    /// Standard deviation of the logarithm; 0.3 is tame, 1.0 is wild.
    #[serde(default)]
    pub sigma: Option<f64>,
    /// One call in a hundred is slower; needs `median`.
    #[serde(default)]
    pub p99: Option<Span>,
}

/// Rare slow calls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Straggler {
    /// Probability, 0 to 1.
    pub p: f64,
    /// How many times slower, at least 1.
    pub factor: f64,
}

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874;

// === impl Latency ===

impl Latency {
    /// Always `span`.
    pub const fn fixed(span: Duration) -> Self {
        Self { spread: Spread::Fixed(Span(span)), straggler: None, max: None }
    }

    /// What is wrong with the numbers, if anything.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match self.spread {
            Spread::Fixed(_) => {}
            Spread::Uniform(uniform) if uniform.min.0 > uniform.max.0 => {
                return Some("uniform.min is over uniform.max");
            }
            Spread::Uniform(_) => {}
            Spread::LogNormal(spread) => {
                if spread.median.is_some() == spread.mean.is_some() {
                    return Some("log_normal needs either median or mean");
                }
                if spread.sigma.is_some() == spread.p99.is_some() {
                    return Some("log_normal needs either sigma or p99");
                }
                if spread.sigma.is_some_and(|s| !(0.0..=5.0).contains(&s)) {
                    return Some("log_normal.sigma must be from 0 to 5");
                }
                if let Some(p99) = spread.p99 {
                    let Some(median) = spread.median else {
                        return Some("log_normal.p99 needs median");
                    };
                    if median.0.is_zero() || p99.0 < median.0 {
                        return Some("log_normal.p99 must be at least the median, both over 0");
                    }
                }
            }
        }
        match self.straggler {
            Some(s) if !(0.0..=1.0).contains(&s.p) => Some("straggler.p must be from 0 to 1"),
            Some(s) if !(1.0..=1e6).contains(&s.factor) => Some("straggler.factor must be from 1 to 1000000"),
            _ => None,
        }
    }

    /// Draws a time. The numbers taken from the stream do not depend on their values.
    pub(crate) fn draw(&self, stream: &mut Stream) -> Duration {
        let (unit, normal, chance) = (stream.unit(), stream.normal(), stream.unit());
        let seconds = match self.spread {
            Spread::Fixed(span) => span.0.as_secs_f64(),
            Spread::Uniform(Uniform { min, max }) => {
                let (min, max) = (min.0.as_secs_f64(), max.0.as_secs_f64());
                min + (max - min) * unit
            }
            Spread::LogNormal(spread) => spread.at(normal),
        };
        let factor = match self.straggler {
            Some(straggler) if chance < straggler.p => straggler.factor,
            _ => 1.0,
        };
        // A day bounds what a wild sigma can ask for.
        let drawn = Duration::from_secs_f64((seconds * factor).clamp(0.0, 86_400.0));
        self.max.map_or(drawn, |max| drawn.min(max.0))
    }
}

// === impl LogNormal ===

impl LogNormal {
    fn at(&self, z: f64) -> f64 {
        let seconds = |span: Option<Span>| span.map(|span| span.0.as_secs_f64());
        let median = seconds(self.median);
        let sigma = match (self.sigma, seconds(self.p99), median) {
            (Some(sigma), _, _) => sigma,
            (None, Some(p99), Some(median)) => (p99 / median).ln() / Z99,
            _ => 0.0,
        };
        let median = median.unwrap_or_else(|| {
            // The mean of a log-normal is median * exp(sigma^2 / 2).
            seconds(self.mean).unwrap_or_default() / (sigma * sigma / 2.0).exp()
        });
        median * (sigma * z).exp()
    }
}

// === impl Spread ===

impl Default for Spread {
    fn default() -> Self {
        Self::Fixed(Span::default())
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            fixed: Option<Span>,
            uniform: Option<Uniform>,
            log_normal: Option<LogNormal>,
            straggler: Option<Straggler>,
            max: Option<Span>,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 300ms, or a map with fixed, uniform or log_normal")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Latency, E> {
                let span = Span::parse(text).map_err(E::custom)?;
                Ok(Latency::fixed(span.0))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Latency, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Latency, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                let parts = Parts::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let spread = match (parts.fixed, parts.uniform, parts.log_normal) {
                    (Some(span), None, None) => Spread::Fixed(span),
                    (None, Some(uniform), None) => Spread::Uniform(uniform),
                    (None, None, Some(spread)) => Spread::LogNormal(spread),
                    _ => {
                        return Err(de::Error::custom(
                            "a latency needs exactly one of fixed, uniform, log_normal",
                        ));
                    }
                };
                Ok(Latency { spread, straggler: parts.straggler, max: parts.max })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
