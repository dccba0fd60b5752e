//! Providers and model aliases as an operator writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Secret, Usage, limits};

/// All that [`crate::Providers`] needs; the default knows the built-in providers and no alias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Providers by name. One named like a built-in provider changes only the fields it gives.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Models by alias. A key of the form `provider/model` gives defaults and prices to that model
    /// under its own name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Bound of one answer's text and tool arguments together, in bytes. Default 16 MiB.
    pub max_response_bytes: usize,
}

/// The API that a provider speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `POST {base_url}/chat/completions`, as OpenAI and everything compatible with it.
    #[default]
    OpenAi,
    /// `POST {base_url}/v1/messages`, as Anthropic.
    Anthropic,
}

/// How a JSON schema for the answer is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// The provider's own: `response_format: json_schema`, or Anthropic's `output_config.format`.
    #[default]
    JsonSchema,
    /// `response_format: json_object` and the schema in the system prompt, for servers (DeepSeek)
    /// that promise JSON but take no schema. On Anthropic only the prompt is changed.
    JsonObject,
    /// One forced tool whose arguments are the answer; for older models and servers. Cannot be
    /// combined with a forced tool of the request.
    Tool,
}

/// One provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// API; default `openai`.
    pub api: Option<Api>,
    /// Where the API is, with the version for OpenAI (`https://api.openai.com/v1`) and without for
    /// Anthropic (`https://api.anthropic.com`). Needed unless the provider is built in.
    pub base_url: Option<String>,
    /// API key: a literal, `${NAME}` or `{env: NAME}`. None is sent when absent.
    pub api_key: Option<Secret>,
    /// Further request headers; their values may come from the environment too.
    pub headers: BTreeMap<String, Secret>,
    /// Most calls in flight; further ones wait, which counts to their total time. Default 4,096.
    pub max_in_flight: Option<NonZeroUsize>,
    /// Calls that share one connection where the server speaks HTTP/2, 1 to 1,000. Servers allow
    /// about 100 to 250 streams and hold back the others without a word, so more connections are
    /// opened. Default 100.
    pub calls_per_connection: Option<NonZeroUsize>,
    /// Proxy URL. The environment's `HTTP_PROXY` and its kin are **not** used.
    pub proxy: Option<String>,
    /// How a schema for the answer is sent; default `json_schema`.
    pub structured_output: Option<StructuredOutput>,
    /// Send the token limit as `max_completion_tokens` (OpenAI; its reasoning models take nothing
    /// else) and not as `max_tokens` (everybody else). Default false.
    pub max_completion_tokens: Option<bool>,
    /// Send `prompt_cache_key`, which only OpenAI knows and strict servers refuse. Default false.
    pub prompt_cache_key: Option<bool>,
    /// Ask for usage by `stream_options.include_usage`. Default true.
    pub stream_usage: Option<bool>,
}

/// One model: `openai/gpt-4.1-mini`, or a map with `model` and defaults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// `provider/model`.
    pub model: String,
    /// Most tokens to generate when the request does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Temperature when the request does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Prices, to compute costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
    /// Overrides the provider's way to send a schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_output: Option<StructuredOutput>,
}

/// US dollars for a million tokens, which is the same as millionths of a dollar for a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Prompt tokens.
    pub input: f64,
    /// Generated tokens.
    pub output: f64,
    /// Prompt tokens read from the cache; default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Prompt tokens written to the cache; default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_input: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            max_response_bytes: limits::DEFAULT_RESPONSE_BYTES,
        }
    }
}

impl From<&str> for ModelConfig {
    fn from(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            max_tokens: None,
            temperature: None,
            prices: None,
            structured_output: None,
        }
    }
}

impl Prices {
    /// Cost of `usage` in millionths of a US dollar, rounded to the nearest.
    pub fn cost_usd_micros(&self, usage: &Usage) -> u64 {
        let plain = usage.input.saturating_sub(usage.cached_input.saturating_add(usage.cache_write_input));
        let cost = plain as f64 * self.input
            + usage.cached_input as f64 * self.cached_input.unwrap_or(self.input)
            + usage.cache_write_input as f64 * self.cache_write_input.unwrap_or(self.input)
            + usage.output as f64 * self.output;
        cost.round() as u64
    }

    pub(crate) fn valid(&self) -> bool {
        [Some(self.input), Some(self.output), self.cached_input, self.cache_write_input]
            .into_iter()
            .flatten()
            .all(|price| price.is_finite() && price >= 0.0)
    }
}

impl ProviderConfig {
    /// The built-in provider of this name. What users set for official clients is honoured:
    /// `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and `OLLAMA_HOST`.
    pub(crate) fn built_in(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let at = |url: &str, key: &str| Self {
            base_url: Some(url.to_owned()),
            api_key: Some(Secret::env(key)),
            ..Self::default()
        };
        Some(match name {
            "openai" => Self {
                base_url: Some(set("OPENAI_BASE_URL").unwrap_or_else(|| "https://api.openai.com/v1".into())),
                max_completion_tokens: Some(true),
                prompt_cache_key: Some(true),
                ..at("", "OPENAI_API_KEY")
            },
            "anthropic" => Self {
                api: Some(Api::Anthropic),
                base_url: Some(
                    set("ANTHROPIC_BASE_URL").unwrap_or_else(|| "https://api.anthropic.com".into()),
                ),
                ..at("", "ANTHROPIC_API_KEY")
            },
            "deepseek" => Self {
                structured_output: Some(StructuredOutput::JsonObject),
                ..at("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY")
            },
            "groq" => at("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
            "fireworks" => at("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
            "ollama" => Self { base_url: Some(ollama_url(set("OLLAMA_HOST").as_deref())), ..Self::default() },
            _ => return None,
        })
    }

    /// `self` where it says something, `base` elsewhere.
    pub(crate) fn over(self, base: Self) -> Self {
        let mut headers = base.headers;
        headers.extend(self.headers);
        Self {
            api: self.api.or(base.api),
            base_url: self.base_url.or(base.base_url),
            api_key: self.api_key.or(base.api_key),
            headers,
            max_in_flight: self.max_in_flight.or(base.max_in_flight),
            calls_per_connection: self.calls_per_connection.or(base.calls_per_connection),
            proxy: self.proxy.or(base.proxy),
            structured_output: self.structured_output.or(base.structured_output),
            max_completion_tokens: self.max_completion_tokens.or(base.max_completion_tokens),
            prompt_cache_key: self.prompt_cache_key.or(base.prompt_cache_key),
            stream_usage: self.stream_usage.or(base.stream_usage),
        }
    }
}

pub(crate) const BUILT_IN: [&str; 6] = ["anthropic", "deepseek", "fireworks", "groq", "ollama", "openai"];

/// `OLLAMA_HOST` may lack the scheme and the port, and may be the address that a server binds.
fn ollama_url(host: Option<&str>) -> String {
    let host = host.unwrap_or("127.0.0.1").trim().trim_end_matches('/');
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let rest = rest.replacen("0.0.0.0", "127.0.0.1", 1);
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if has_port || scheme == "https" { "" } else { ":11434" };
    format!("{scheme}://{rest}{port}/v1")
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            model: String,
            max_tokens: Option<u32>,
            temperature: Option<f32>,
            prices: Option<Prices>,
            structured_output: Option<StructuredOutput>,
        }
        // Not `serde(untagged)`: its only error says that nothing matched.
        struct ModelVisitor;
        impl<'de> Visitor<'de> for ModelVisitor {
            type Value = ModelConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"provider/model\" or a map with `model`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ModelConfig, E> {
                Ok(ModelConfig::from(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelConfig, A::Error> {
                let full = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ModelConfig {
                    model: full.model,
                    max_tokens: full.max_tokens,
                    temperature: full.temperature,
                    prices: full.prices,
                    structured_output: full.structured_output,
                })
            }
        }
        deserializer.deserialize_any(ModelVisitor)
    }
}

#[cfg(test)]
mod tests;
