use super::*;
use crate::{Class, Secret};

fn build(config: Config, env: &[(&str, &str)]) -> Result<Providers, Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Providers::with_env(config, &|name| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn built_in_providers_need_only_their_variable() {
    let providers = build(Config::default(), &[("GROQ_API_KEY", "gsk")]).unwrap();
    let groq = providers.resolve("groq/llama-3/70b").unwrap();
    assert_eq!((groq.provider(), groq.model()), ("groq", "llama-3/70b"));
    assert_eq!(groq.missing_key(), None);
    assert_eq!(groq.provider.headers["authorization"], "Bearer gsk");
    let urls: Vec<_> = BUILT_IN
        .iter()
        .map(|name| {
            let model = providers.resolve(&format!("{name}/m")).unwrap();
            model.provider.endpoint.to_string()
        })
        .collect();
    assert_eq!(
        urls,
        [
            "https://api.anthropic.com/v1/messages",
            "https://api.deepseek.com/v1/chat/completions",
            "https://api.fireworks.ai/inference/v1/chat/completions",
            "https://api.groq.com/openai/v1/chat/completions",
            "http://127.0.0.1:11434/v1/chat/completions",
            "https://api.openai.com/v1/chat/completions",
        ]
    );
    let model = providers.resolve("anthropic/claude").unwrap();
    assert_eq!(model.missing_key(), Some("ANTHROPIC_API_KEY"));
    assert_eq!(providers.resolve("ollama/x").unwrap().missing_key(), None);
}

#[test]
fn usual_variables_move_the_built_in_providers() {
    let env = [
        ("OPENAI_BASE_URL", "http://gw:1/v1/"),
        ("ANTHROPIC_BASE_URL", "http://gw:2/v1"),
        ("OLLAMA_HOST", "gpu"),
    ];
    let providers = build(Config::default(), &env).unwrap();
    for (model, url) in [
        ("openai/m", "http://gw:1/v1/chat/completions"),
        ("anthropic/m", "http://gw:2/v1/messages"),
        ("ollama/m", "http://gpu:11434/v1/chat/completions"),
    ] {
        let model = providers.resolve(model).unwrap();
        assert_eq!(model.provider.endpoint.as_str(), url);
    }
}

#[test]
fn unknown_models_name_the_known() {
    let mut config = Config::default();
    config.models.insert("fast".into(), "groq/x".into());
    let providers = build(config, &[]).unwrap();
    assert_eq!(format!("{:?}", providers.resolve("fast").unwrap()), "groq/x");
    for name in ["best", "nobody/x", "openai/", "groq", ""] {
        let error = providers.resolve(name).unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        let text = error.to_string();
        assert!(text.contains("fast, anthropic/..."), "{text}");
    }
    // A run's own aliases win, and do not leak into the process.
    let of_run = BTreeMap::from([("fast".to_owned(), ModelConfig::from("ollama/y"))]);
    let more = providers.with_models(of_run).unwrap();
    assert_eq!(format!("{:?}", more.resolve("fast").unwrap()), "ollama/y");
    assert_eq!(format!("{:?}", providers.resolve("fast").unwrap()), "groq/x");
}

#[test]
fn bad_configuration_is_named() {
    let with = |name: &str, provider: ProviderConfig| {
        let mut config = Config::default();
        config.providers.insert(name.into(), provider);
        build(config, &[]).unwrap_err().to_string()
    };
    let url = |url: &str| ProviderConfig { base_url: Some(url.into()), ..ProviderConfig::default() };
    assert!(with("a", ProviderConfig::default()).contains("providers.a: base_url is missing"));
    assert!(with("a", url("ftp://x")).contains("not an http or https URL"));
    assert!(with("a", url("nonsense")).contains("base_url"));
    let text = with("a", url("http://u:pass@x"));
    assert!(text.contains("credentials") && !text.contains("pass@"), "{text}");
    assert!(with("a/b", url("http://x")).contains("name"));
    let mut headers = url("http://x");
    headers.headers.insert("x-team".into(), Secret::env("TEAM"));
    assert!(with("a", headers).contains("headers.x-team: ${TEAM} is unset"));

    let mut config = Config::default();
    config.models.insert("fast".into(), "gork/x".into());
    let text = build(config, &[]).unwrap_err().to_string();
    assert!(text.contains("models.fast: `gork/x`"), "{text}");
}
