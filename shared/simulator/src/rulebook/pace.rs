//! How fast an answer comes: what its rule says, else what the model's speed says, else the scenario.

use std::time::Duration;

use super::compile::invalid;
use crate::{
    draw::Stream,
    matcher::Glob,
    reply::Pace,
    scenario::{Error, Latency, Scenario, Span},
};

/// What one place of the scenario says about speed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    time_to_first_token: Option<Latency>,
    prompt_tokens_per_second: Option<f64>,
    tokens_per_second: Option<f64>,
    chunk_interval: Option<Duration>,
}

/// What holds for calls whose rule says nothing.
#[derive(Debug)]
pub(super) struct Speeds {
    models: Vec<(Glob, Own)>,
    all: Own,
}

// === impl Own ===

impl Own {
    pub(super) fn compile(
        place: &str,
        time_to_first_token: Option<Latency>,
        prompt_tokens_per_second: Option<f64>,
        tokens_per_second: Option<f64>,
        chunk_interval: Option<Span>,
    ) -> Result<Self, Error> {
        let at = |field: &str| if place.is_empty() { field.to_owned() } else { format!("{place}.{field}") };
        let first = time_to_first_token.map(|own| latency(&at("time_to_first_token"), own));
        let chunk_interval = chunk_interval.map(|own| interval(&at("chunk_interval"), own.0));
        Ok(Self {
            time_to_first_token: first.transpose()?,
            prompt_tokens_per_second: speed(&at("prompt_tokens_per_second"), prompt_tokens_per_second)?,
            tokens_per_second: speed(&at("tokens_per_second"), tokens_per_second)?,
            chunk_interval: chunk_interval.transpose()?,
        })
    }

    fn or(self, other: Self) -> Self {
        Self {
            time_to_first_token: self.time_to_first_token.or(other.time_to_first_token),
            prompt_tokens_per_second: self.prompt_tokens_per_second.or(other.prompt_tokens_per_second),
            tokens_per_second: self.tokens_per_second.or(other.tokens_per_second),
            chunk_interval: self.chunk_interval.or(other.chunk_interval),
        }
    }
}

// === impl Speeds ===

impl Speeds {
    pub(super) fn compile(scenario: &Scenario) -> Result<Self, Error> {
        let models = scenario.speeds.iter().enumerate().map(|(i, speed)| {
            let (first, prompt) = (speed.time_to_first_token, speed.prompt_tokens_per_second);
            let own = Own::compile(&format!("speeds[{i}]"), first, prompt, speed.tokens_per_second, None)?;
            Ok((Glob::new(&speed.model), own))
        });
        let all = Own::compile(
            "",
            Some(scenario.time_to_first_token),
            scenario.prompt_tokens_per_second,
            scenario.tokens_per_second,
            Some(scenario.chunk_interval),
        )?;
        Ok(Self { models: models.collect::<Result<_, Error>>()?, all })
    }

    /// The pace of an answer of `model`, to a prompt that is as much work as `tokens` tokens that are not cached.
    pub(super) fn pace(&self, own: Own, model: &str, tokens: f64, stream: &mut Stream) -> Pace {
        let speed = self.models.iter().find(|(glob, _)| glob.holds(model));
        let own = own.or(speed.map(|(_, own)| *own).unwrap_or_default()).or(self.all);
        let reading = own.prompt_tokens_per_second.map_or(0.0, |speed| (tokens / speed).min(86_400.0));
        let first = own.time_to_first_token.unwrap_or_default().draw(stream);
        Pace {
            first_token: first + Duration::from_secs_f64(reading),
            tokens_per_second: own.tokens_per_second,
            chunk_interval: own.chunk_interval.unwrap_or_default(),
        }
    }
}

pub(super) fn latency(place: &str, latency: Latency) -> Result<Latency, Error> {
    match latency.problem() {
        Some(problem) => Err(invalid(place.to_owned(), problem)),
        None => Ok(latency),
    }
}

fn speed(place: &str, speed: Option<f64>) -> Result<Option<f64>, Error> {
    match speed {
        Some(speed) if !(0.001..=1e9).contains(&speed) => {
            Err(invalid(place.to_owned(), "must be from 0.001 to 1000000000"))
        }
        speed => Ok(speed),
    }
}

/// Under a millisecond the timer could not follow.
fn interval(place: &str, interval: Duration) -> Result<Duration, Error> {
    if interval < Duration::from_millis(1) {
        return Err(invalid(place.to_owned(), "must be at least 1ms"));
    }
    Ok(interval)
}
