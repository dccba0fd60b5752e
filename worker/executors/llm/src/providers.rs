//! The providers of one process: names resolved to models, connections pooled and bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use trireme_secrets::SecretName;

use crate::clients::Clients;
use crate::config::{Api, BUILT_IN, Config, ModelConfig, ProviderConfig, StructuredOutput};
use crate::limits::Bounds;
use crate::{Error, Kind, Usage};

const DEFAULT_IN_FLIGHT: usize = 4_096;
const DEFAULT_CALLS_PER_CONNECTION: usize = 100;

/// All providers and models; cloning shares the connections.
#[derive(Clone)]
pub struct Providers {
    shared: Arc<BTreeMap<String, Arc<Provider>>>,
    models: Arc<BTreeMap<String, ModelConfig>>,
    pub(crate) bounds: Bounds,
}

/// One provider, ready to be called.
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) endpoint: Url,
    pub(crate) headers: HeaderMap,
    /// Headers whose values each call looks up, with what stands before the secret.
    pub(crate) named: Vec<(HeaderName, &'static str, SecretName)>,
    /// The variable that should hold the key and does not.
    pub(crate) missing_key: Option<String>,
    /// Values that must not appear in an error.
    pub(crate) secrets: Vec<String>,
    pub(crate) structured_output: StructuredOutput,
    pub(crate) max_completion_tokens: bool,
    pub(crate) prompt_cache_key: bool,
    pub(crate) stream_usage: bool,
    pub(crate) in_flight: Semaphore,
    pub(crate) clients: Clients,
}

/// A resolved model: its provider, its name there, its defaults and prices.
#[derive(Clone)]
pub struct ModelRef {
    pub(crate) provider: Arc<Provider>,
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
}

impl Providers {
    /// Builds the providers of `config` and the built-in ones (`openai`, `anthropic`, `deepseek`,
    /// `groq`, `fireworks`, `ollama`), reading keys from the process's environment now. Opens no
    /// socket.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`], with the place; also when the process has installed no rustls
    /// crypto provider, since the first call would panic.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_env(config, &|name| std::env::var(name).ok())
    }

    /// As [`Providers::new`], with another environment.
    ///
    /// # Errors
    /// As [`Providers::new`].
    pub fn with_env(config: Config, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(invalid("no rustls crypto provider is installed".into()));
        }
        let mut settings = config.providers;
        for name in BUILT_IN {
            settings.entry(name.to_owned()).or_default();
        }
        let mut shared = BTreeMap::new();
        for (name, given) in settings {
            let merged = match ProviderConfig::built_in(&name, env) {
                Some(base) => given.over(base),
                None => given,
            };
            let provider = Provider::new(&name, merged, env)
                .map_err(|reason| invalid(format!("providers.{name}: {reason}")))?;
            shared.insert(name, Arc::new(provider));
        }
        let providers = Self {
            shared: Arc::new(shared),
            models: Arc::default(),
            bounds: Bounds::with_response(config.max_response_bytes),
        };
        providers.with_models(config.models)
    }

    /// These providers with more models, such as a run's own aliases, which win over configured
    /// ones. Connections are shared.
    ///
    /// # Errors
    /// [`Kind::InvalidConfig`] when a model has no known provider or an impossible value.
    pub fn with_models(&self, models: BTreeMap<String, ModelConfig>) -> Result<Self, Error> {
        for (alias, model) in &models {
            let bad = |reason: &str| invalid(format!("models.{alias}: {reason}"));
            if self.split(&model.model).is_none() {
                return Err(bad(&format!(
                    "`{}` is not provider/model of a known provider ({})",
                    model.model,
                    self.provider_names()
                )));
            }
            if model.prices.is_some_and(|prices| !prices.valid()) {
                return Err(bad("a price is negative or not a number"));
            }
            if model.max_tokens == Some(0) {
                return Err(bad("max_tokens is 0"));
            }
        }
        let mut all = (*self.models).clone();
        all.extend(models);
        Ok(Self { models: Arc::new(all), ..self.clone() })
    }

    /// Finds an alias or `provider/model`, without any I/O, so that a spec can be checked before
    /// it runs. Whether the model exists at the provider, only a call can tell.
    ///
    /// # Errors
    /// [`Kind::UnknownModel`], naming what is known.
    pub fn resolve(&self, name: &str) -> Result<ModelRef, Error> {
        let config = match self.models.get(name) {
            Some(config) => config.clone(),
            None => ModelConfig::from(name),
        };
        match self.split(&config.model) {
            Some((provider, model)) => {
                Ok(ModelRef { provider: provider.clone(), name: model.to_owned(), config })
            }
            None => Err(Error::new(Kind::UnknownModel {
                name: name.chars().take(200).collect(),
                known: self.known(),
            })),
        }
    }

    /// Aliases, then a `provider/...` for each provider.
    pub fn known(&self) -> Vec<String> {
        let providers = self.shared.keys().map(|name| format!("{name}/..."));
        self.models.keys().cloned().chain(providers).collect()
    }

    fn provider_names(&self) -> String {
        self.shared.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    fn split<'m>(&self, name: &'m str) -> Option<(&Arc<Provider>, &'m str)> {
        let (provider, model) = name.split_once('/')?;
        let provider = self.shared.get(provider)?;
        (!model.is_empty()).then_some((provider, model))
    }
}

impl ModelRef {
    /// Name of the provider.
    pub fn provider(&self) -> &str {
        &self.provider.name
    }

    /// The provider's name of the model.
    pub fn model(&self) -> &str {
        &self.name
    }

    /// The environment variable that should hold the provider's key and is unset; a call would
    /// fail with [`Kind::MissingKey`].
    pub fn missing_key(&self) -> Option<&str> {
        self.provider.missing_key.as_deref()
    }

    /// What `usage` costs in millionths of a US dollar, where prices are configured.
    pub fn cost_usd_micros(&self, usage: &Usage) -> Option<u64> {
        self.config.prices.map(|prices| prices.cost_usd_micros(usage))
    }

    pub(crate) fn structured_output(&self) -> StructuredOutput {
        self.config.structured_output.unwrap_or(self.provider.structured_output)
    }
}

impl Provider {
    fn new(name: &str, config: ProviderConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        if name.is_empty() || name.contains('/') {
            return Err("a provider's name may not be empty or contain `/`".into());
        }
        let api = config.api.unwrap_or_default();
        let base = config.base_url.ok_or("base_url is missing")?;
        let endpoint = endpoint(api, &base)?;
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        let mut missing_key = None;
        let mut named = Vec::new();
        let (header, before) = match api {
            Api::OpenAi => ("authorization", "Bearer "),
            Api::Anthropic => ("x-api-key", ""),
        };
        let key = config.api_key.map(|secret| (secret.resolve(env), secret));
        match key {
            Some((Some(key), _)) => {
                let value = sensitive(&format!("{before}{key}"));
                headers.insert(header, value.ok_or("api_key has bad bytes")?);
                secrets.push(key);
            }
            Some((None, secret)) if secret.named().is_some() => {
                named.extend(
                    secret.named().map(|name| (HeaderName::from_static(header), before, name.clone())),
                );
            }
            Some((None, secret)) => {
                missing_key = Some(secret.variable().unwrap_or("api_key").to_owned());
            }
            None => {}
        }
        if api == Api::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        for (header, secret) in config.headers {
            let key = HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| format!("headers.{header}: not a header name"))?;
            if let Some(name) = secret.named() {
                named.push((key, "", name.clone()));
                continue;
            }
            let value = secret
                .resolve(env)
                .ok_or_else(|| format!("headers.{header}: {secret:?} is unset or empty"))?;
            let bad = || format!("headers.{header}: bad bytes in its value");
            headers.insert(key, sensitive(&value).ok_or_else(bad)?);
            secrets.push(value);
        }
        let max_in_flight = config.max_in_flight.map_or(DEFAULT_IN_FLIGHT, usize::from);
        let per_connection =
            config.calls_per_connection.map_or(DEFAULT_CALLS_PER_CONNECTION, usize::from).min(1_000);
        let proxy = match config.proxy {
            None => None,
            Some(url) => Some(reqwest::Proxy::all(&url).map_err(|e| format!("proxy: {}", e.without_url()))?),
        };
        Ok(Self {
            name: name.to_owned(),
            api,
            clients: Clients::new(&endpoint, proxy, max_in_flight, per_connection),
            endpoint,
            headers,
            named,
            missing_key,
            secrets,
            structured_output: config.structured_output.unwrap_or_default(),
            max_completion_tokens: config.max_completion_tokens.unwrap_or(false),
            prompt_cache_key: config.prompt_cache_key.unwrap_or(false),
            stream_usage: config.stream_usage.unwrap_or(true),
            in_flight: Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)),
        })
    }
}

/// Headers of one call, and the values that must not appear in its error.
#[derive(Default)]
pub(crate) struct Named {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) secrets: Vec<String>,
}

impl Provider {
    /// Looks up the secrets that are given by name; else says where one should be.
    pub(crate) fn find_named(&self) -> Result<Named, String> {
        let mut found = Named::default();
        for (header, before, name) in &self.named {
            let value = name.find().map_err(|missing| missing.to_string())?;
            let sent = sensitive(&format!("{before}{value}"));
            let sent = sent.ok_or_else(|| format!("{name} has bytes that no header may have"))?;
            found.headers.push((header.clone(), sent));
            found.secrets.push(value);
        }
        Ok(found)
    }
}

fn endpoint(api: Api, base: &str) -> Result<Url, String> {
    let base = base.trim().trim_end_matches('/');
    let path = match api {
        Api::OpenAi => "/chat/completions",
        Api::Anthropic if base.ends_with("/v1") => "/messages",
        Api::Anthropic => "/v1/messages",
    };
    let url = Url::parse(&format!("{base}{path}")).map_err(|e| format!("base_url: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("base_url: not an http or https URL".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("base_url: put credentials into api_key or headers".into());
    }
    Ok(url)
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn invalid(reason: String) -> Error {
    Error::new(Kind::InvalidConfig(reason))
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").field("known", &self.known()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider.name, self.name)
    }
}

#[cfg(test)]
mod tests;
