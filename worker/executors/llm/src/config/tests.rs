use super::*;

#[test]
fn config_reads_both_model_forms_and_refuses_unknown_fields() {
    let config: Config = serde_json::from_str(
        r#"{"providers": {"vllm": {"base_url": "http://gpu:8000/v1", "api_key": "sk-x"}},
            "models": {"fast": "groq/llama", "best": {"model": "openai/gpt", "max_tokens": 9,
                       "prices": {"input": 2.0, "output": 8.0}}}}"#,
    )
    .unwrap();
    assert_eq!(config.models["fast"].model, "groq/llama");
    assert_eq!(config.models["best"].max_tokens, Some(9));
    let printed = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("sk-x"), "{printed}");

    for (json, says) in [
        (r#"{"provider": {}}"#, "unknown field `provider`"),
        (r#"{"providers": {"a": {"url": ""}}}"#, "unknown field `url`"),
        (r#"{"models": {"a": {"model": "x/y", "price": 1}}}"#, "unknown field `price`"),
        (r#"{"models": {"a": {}}}"#, "missing field `model`"),
        (r#"{"models": {"a": 1}}"#, "provider/model"),
    ] {
        let error = serde_json::from_str::<Config>(json).unwrap_err().to_string();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn cost_counts_each_kind_of_token_once() {
    let prices = Prices { input: 3.0, output: 15.0, cached_input: Some(0.3), cache_write_input: Some(3.75) };
    let usage = Usage { input: 1_000, output: 10, cached_input: 600, cache_write_input: 300, reasoning: 5 };
    // 100 x 3 + 600 x 0.3 + 300 x 3.75 + 10 x 15
    assert_eq!(prices.cost_usd_micros(&usage), 1_755);
    let plain = Prices { cached_input: None, cache_write_input: None, ..prices };
    assert_eq!(plain.cost_usd_micros(&usage), 3_150);
}

#[test]
fn ollama_host_in_every_usual_form() {
    for (host, url) in [
        (None, "http://127.0.0.1:11434/v1"),
        (Some("0.0.0.0"), "http://127.0.0.1:11434/v1"),
        (Some("gpu:8080"), "http://gpu:8080/v1"),
        (Some("http://gpu/"), "http://gpu:11434/v1"),
        (Some("https://gpu.example"), "https://gpu.example/v1"),
    ] {
        assert_eq!(ollama_url(host), url);
    }
}
