//! Log lines: on standard error, because standard output belongs to results.

mod line;

use std::{io::IsTerminal, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people; colours only on a terminal, and never with `NO_COLOR`.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not one: `info,trireme_worker=debug` is an example of one.
    #[error("the log filter {filter:?} is not valid: {reason}")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody set up logging in this process before.
    #[error("logging is set up already")]
    Twice,
}

/// A name that is not a log format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a log format: use auto, text or json")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownFormat(other.into())),
        }
    }
}

/// lapin says at level `error` what its caller is told as an error anyway, and may have asked for: that a queue is not
/// there yet, say. Whoever wants it names it (`info,lapin=error`).
const QUIET: &str = "lapin=off";

/// Sends log lines that pass `filter` (as in `info,trireme_worker=debug`) to standard error. Once per process.
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let parsed = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| InitError::Filter { filter: filter.into(), reason: error.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let json = format == Format::Json || (format == Format::Auto && !terminal);
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(colours);
    let done = if json {
        builder.event_format(line::Json).finish().try_init()
    } else {
        builder.event_format(line::Text::new(colours)).finish().try_init()
    };
    done.map_err(|_| InitError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_before_anything_is_set_up() {
        let error = init(Format::Text, "trireme=loud").unwrap_err();
        assert!(error.to_string().contains("trireme=loud"), "{error}");
        // the failed call must not have taken the one slot
        init(Format::Json, "off").unwrap();
        assert!(matches!(init(Format::Json, "off"), Err(InitError::Twice)));
    }

    #[test]
    fn of_the_broker_s_client_is_heard_what_is_asked_for() {
        let shown = |filter: &str| EnvFilter::new(format!("{QUIET},{filter}")).to_string();
        assert!(shown("debug").contains("lapin=off"), "{}", shown("debug"));
        assert!(!shown("info,lapin=error").contains("lapin=off"), "{}", shown("info,lapin=error"));
    }

    #[test]
    fn formats_are_named_in_lower_case() {
        assert_eq!("auto".parse(), Ok(Format::Auto));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("JSON".parse::<Format>().unwrap_err().to_string().contains("auto, text or json"));
    }
}
