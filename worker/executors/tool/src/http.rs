//! HTTP tools declared in config: arguments into a request, the answer into a value.

pub(crate) mod answer;
pub(crate) mod fetch;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::{
    CallContext, Error, Limits, Method, Secret, Tool, ToolConfig, ToolOutput, ToolSpec,
    egress::{Egress, Host},
    schema::Schema,
    template::{Escape, JsonTemplate, Template, percent_encode},
};
use fetch::Request;

/// One declared tool.
#[derive(Debug)]
pub(crate) struct HttpTool {
    spec: ToolSpec,
    schema: Arc<Schema>,
    method: reqwest::Method,
    url: Template,
    /// Who chose the host: the operator when it stands literally in the URL template.
    host: Host,
    headers: HeaderMap,
    /// Headers whose values each call looks up.
    named: Vec<(HeaderName, Secret)>,
    /// Values that an error must not repeat.
    secrets: Vec<String>,
    query: Vec<(String, Template)>,
    body: Body,
    /// JSON pointer into the answer.
    result: Option<String>,
    egress: Egress,
    output_bytes: usize,
}

#[derive(Debug)]
enum Body {
    None,
    /// The arguments as they are.
    Args,
    Template(Box<JsonTemplate>),
}

// === impl HttpTool ===

impl HttpTool {
    /// Compiles a declaration, or says what is wrong with it.
    pub fn new(
        name: &str,
        config: &ToolConfig,
        schema: Arc<Schema>,
        limits: &Limits,
        egress: Egress,
    ) -> Result<Self, String> {
        let literal = literal_authority(&config.url)?;
        let tool = Self {
            spec: ToolSpec {
                name: name.to_owned(),
                description: config.description.clone(),
                args: config.args.clone(),
                effect: config.effect,
                resource: config.resource.clone(),
                timeout: config.timeout.unwrap_or(limits.timeout),
                at_once: config.at_once,
            },
            schema,
            method: method(config.method),
            url: Template::new("url", &config.url, Escape::Url)?,
            host: if literal || config.allow_private { Host::Operator } else { Host::Stranger },
            headers: headers(config)?,
            named: named(config)?,
            secrets: secrets(config.headers.values().filter(|value| !value.is_named()).map(Secret::expose)),
            query: config
                .query
                .iter()
                .map(|(n, t)| Ok((n.clone(), Template::new(format!("query.{n}"), t, Escape::None)?)))
                .collect::<Result<_, String>>()?,
            body: match (&config.body, config.method) {
                (Some(body), _) => Body::Template(Box::new(JsonTemplate::new("body", body)?)),
                (None, Method::Post | Method::Put | Method::Patch) => Body::Args,
                (None, Method::Get | Method::Delete) => Body::None,
            },
            result: config.result.clone(),
            egress,
            output_bytes: limits.output_bytes,
        };
        if let Some(pointer) = tool.result.as_deref().filter(|p| !p.is_empty() && !p.starts_with('/')) {
            return Err(format!("`result` is `{pointer}`; a JSON pointer starts with `/`"));
        }
        tool.check_names()?;
        Ok(tool)
    }

    /// A template may use only arguments that the schema lists, when it lists any: otherwise a
    /// typing error would show up as a missing query parameter at best.
    fn check_names(&self) -> Result<(), String> {
        let Some(known) = self.schema.properties() else { return Ok(()) };
        let mut templates = vec![&self.url];
        templates.extend(self.query.iter().map(|(_, t)| t));
        if let Body::Template(body) = &self.body {
            templates.extend(body.templates());
        }
        match templates.iter().flat_map(|t| t.args()).find(|name| !known.contains_key(*name)) {
            Some(name) => Err(format!("a template uses `args.{name}`, which `args` does not list")),
            None => Ok(()),
        }
    }

    /// The request, and what of it an error must not repeat.
    fn request(&self, ctx: &CallContext, args: &Value) -> Result<(Request, Vec<String>), Error> {
        let (mut headers, mut hidden) = (self.headers.clone(), self.secrets.clone());
        for (name, secret) in &self.named {
            let fault = |message: String| Error::Template { place: format!("headers.{name}"), message };
            let value = secret.find().map_err(|missing| fault(missing.to_string()))?;
            let sent = HeaderValue::from_str(&value);
            let mut sent = sent.map_err(|_| fault("the secret has bytes that no header may have".into()))?;
            sent.set_sensitive(true);
            headers.insert(name.clone(), sent);
            hidden.extend(secrets([value.as_str()].into_iter()));
        }
        for (name, value) in [
            ("idempotency-key", &ctx.idempotency_key),
            ("x-trireme-run", &ctx.run),
            ("x-trireme-task", &ctx.task),
        ] {
            // Ids are ASCII; were one not, the call would still be worth making without the header.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let body = match &self.body {
            Body::None => None,
            Body::Args => Some(args.clone()),
            Body::Template(template) => Some(template.render(args)?),
        };
        if body.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = Request {
            method: self.method.clone(),
            url: self.target(args)?,
            headers,
            body: body.map(|b| Bytes::from(b.to_string())),
            host: self.host,
            effect: self.spec.effect,
        };
        Ok((request, hidden))
    }

    fn target(&self, args: &Value) -> Result<Url, Error> {
        let fault = |message: String| Error::Template { place: "url".to_owned(), message };
        let mut text = if self.url.is_whole() {
            match self.url.required(args)? {
                Value::String(text) => text,
                _ => return Err(fault("the whole value is not a string".to_owned())),
            }
        } else {
            let text = self.url.text(args)?;
            // `Url` resolves dot segments, percent-encoded ones too, so an argument could climb out
            // of the path that the operator wrote.
            if has_dot_segment(&text) {
                return Err(fault("an argument makes a path segment of `.` or `..`".to_owned()));
            }
            text
        };
        for (name, template) in &self.query {
            let value = match template.value(args)? {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
            };
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(&format!("{}={}", percent_encode(name), percent_encode(&value)));
        }
        Url::parse(&text)
            .map_err(|e| fault(format!("`{}` is not a URL: {e}", crate::error::shorten(&text, 200))))
    }
}

#[async_trait]
impl Tool for HttpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        let args = self.schema.with_defaults(args);
        let (request, hidden) = self.request(ctx, &args)?;
        let answer = async {
            let answer = fetch::fetch(&self.egress, request, self.output_bytes).await?;
            answer.select(self.result.as_deref())
        };
        answer.await.map_err(|error| answer::redact(error, &hidden))
    }
}

/// Whether the URL template names its host literally. Values are percent-encoded, so they cannot
/// change a host that does.
fn literal_authority(source: &str) -> Result<bool, String> {
    let Some((scheme, rest)) = source.split_once("://") else {
        return if source.contains("{{") {
            Ok(false)
        } else {
            Err(format!("`url` is `{source}`; it starts with http:// or https://"))
        };
    };
    if scheme.contains('{') {
        return Ok(false);
    }
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`url` is `{source}`; it starts with http:// or https://"));
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    Ok(!authority.is_empty() && !authority.contains('{'))
}

fn has_dot_segment(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).skip(1).any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(plain.as_str(), "." | "..")
    })
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    }
}

fn headers(config: &ToolConfig) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in config.headers.iter().filter(|(_, value)| !value.is_named()) {
        let key: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
        let mut value: HeaderValue = value
            .expose()
            .parse()
            .map_err(|_| format!("the value of header `{name}` is not allowed in a header"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Headers that name their secrets.
fn named(config: &ToolConfig) -> Result<Vec<(HeaderName, Secret)>, String> {
    let named = config.headers.iter().filter(|(_, value)| value.is_named());
    named
        .map(|(name, value)| {
            value.check_name().map_err(|wrong| format!("header `{name}`: {wrong}"))?;
            let key = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
            Ok((key, value.clone()))
        })
        .collect()
}

/// Header values and their last words (`Bearer X` gives X too), unless too short to be secret.
fn secrets<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let values = values.map(str::trim);
    values
        .flat_map(|v| [Some(v), v.rsplit_once(' ').map(|(_, last)| last)])
        .flatten()
        .filter(|v| v.len() >= 8)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_chose_the_host() {
        for literal in ["http://h/{{ args.x }}", "https://h:1?{{ args.x }}", "http://h"] {
            assert_eq!(literal_authority(literal), Ok(true), "{literal}");
        }
        for open in [
            "{{ args.url }}",
            "http://{{ args.h }}/",
            "http://h{{ args.x }}",
            "http://a.{{ args.h }}.b/",
            "{% if args.x %}http://a/{% endif %}",
            "{{ args.s }}://h/",
            "http:///{{ args.x }}",
        ] {
            assert_eq!(literal_authority(open), Ok(false), "{open}");
        }
        assert!(literal_authority("ftp://h/").is_err());
        assert!(literal_authority("h/path").is_err());
    }

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for bad in ["http://h/a/../b", "http://h/a/%2e%2E", "http://h/.%2e/b?c", "http://h/./"] {
            assert!(has_dot_segment(bad), "{bad}");
        }
        for good in ["http://h/a..b/..c", "http://h/a?x=../..", "http://h/..%2Fx", "http://../a"] {
            assert!(!has_dot_segment(good), "{good}");
        }
    }
}
