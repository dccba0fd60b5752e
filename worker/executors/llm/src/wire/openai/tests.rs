//! Recorded shapes of Chat Completions streams: the plain ones and each server's quirks.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::Api;
use crate::limits::Bounds;
use crate::turn::Fault;
use crate::wire::testing::{
    Replay, Seen, assert_chunking_is_irrelevant, chunkings, replay, replay_cut, sse, whole,
};
use crate::{ChatRequest, Config, FinishReason, ModelRef, Providers, ToolCall, Usage};

const DONE: &str = "[DONE]";

fn delta(delta: &Value) -> String {
    json!({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
        .to_string()
}

fn finish(reason: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).to_string()
}

/// A stream of `tool_calls` deltas, ended properly.
fn calls(deltas: &[Value]) -> Replay {
    let mut events: Vec<_> = deltas.iter().map(|d| delta(&json!({"tool_calls": [d]}))).collect();
    events.extend([finish("tool_calls"), DONE.to_owned()]);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    whole(Api::OpenAi, &sse(&events))
}

fn brief(replay: &Replay) -> Vec<(String, String, Value)> {
    let calls = replay.calls.iter();
    calls.map(|c| (c.id.clone(), c.name.clone(), c.arguments.clone())).collect()
}

fn part(index: Option<u32>, id: impl Into<Value>, name: &str, arguments: &str) -> Value {
    let mut part = json!({"function": {"arguments": arguments}});
    if let Some(index) = index {
        part["index"] = json!(index);
    }
    let id = id.into();
    if !id.is_null() {
        part["id"] = id;
    }
    if !name.is_empty() {
        part["function"]["name"] = json!(name);
    }
    part
}

const NULL: Value = Value::Null;

fn rich_stream() -> String {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 8}}});
    let events = [
        delta(&json!({"role": "assistant", "content": ""})),
        delta(&json!({"content": "Grüße 😀"})),
        r#"{"choices":[{"index":0,"delta":{"content":"\ud83d\ude00 \"x\""}}]}"#.to_owned(),
        delta(&json!({"tool_calls": [part(Some(0), "a", "search", "")]})),
        delta(&json!({"tool_calls": [part(Some(0), NULL, "", "{\"q\":\"}\\")]})),
        delta(&json!({"tool_calls": [part(Some(0), NULL, "", "\"é\"}")]})),
        delta(&json!({"tool_calls": [part(Some(1), "b", "now", "{}")]})),
        finish("tool_calls"),
        usage.to_string(),
        DONE.to_owned(),
    ];
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    sse(&events).replace("data: {\"choices\":[],", ": keep-alive\r\n\r\ndata: {\"choices\":[],")
}

#[test]
fn text_calls_and_usage_in_wire_order() {
    let got = whole(Api::OpenAi, &rich_stream());
    let call = |index, id: &str, name: &str, arguments| ToolCall {
        index,
        id: id.into(),
        name: name.into(),
        arguments,
    };
    let usage = Usage { input: 100, output: 20, cached_input: 64, cache_write_input: 0, reasoning: 8 };
    assert_eq!(
        got.seen,
        [
            Seen::Text("Grüße 😀".into()),
            Seen::Text("😀 \"x\"".into()),
            Seen::Call(call(0, "a", "search", json!({"q": "}\"é"}))),
            Seen::Call(call(1, "b", "now", json!({}))),
            Seen::Usage(usage),
        ]
    );
    assert_eq!(got.finish, Some(FinishReason::ToolCalls));
    assert_eq!(got.end, Ok(true));
}

#[test]
fn every_cut_gives_the_same_events() {
    assert_chunking_is_irrelevant(Api::OpenAi, &rich_stream());
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(cuts in chunkings(&rich_stream())) {
        let text = rich_stream();
        prop_assert_eq!(replay_cut(Api::OpenAi, &text, &cuts), whole(Api::OpenAi, &text));
    }

    /// Whatever a server sends, the answer is a value or a typed fault, within the bounds.
    #[test]
    fn garbage_never_panics(text in "(data: )?(\\{\"choices\":\\[\\{\"delta\":)?[ -~é\n]{0,120}(\n\n)?") {
        let bounds = Bounds { response: 64, event: 100, arguments: 16, calls: 2 };
        for api in [Api::OpenAi, Api::Anthropic] {
            let got = replay(api, &[text.as_bytes()], bounds);
            prop_assert!(got.text.len() <= 64);
            prop_assert!(got.end != Ok(true));
        }
    }
}

#[test]
fn a_call_closes_before_the_stream_ends() {
    // No finish_reason: the stream is cut, yet the call was already told.
    let text = sse(&[&delta(&json!({"tool_calls": [part(Some(0), "a", "f", "{\"x\":1}")]}))]);
    let got = whole(Api::OpenAi, &text);
    assert!(matches!(&got.seen[..], [Seen::Call(call)] if call.arguments == json!({"x": 1})));
    assert_eq!(got.end, Ok(false));
}

#[test]
fn interleaved_calls_keep_their_order() {
    let got = calls(&[
        part(Some(0), "a", "f", ""),
        part(Some(1), "b", "g", ""),
        part(Some(1), NULL, "", "{\"y\":2}"),
        part(Some(0), NULL, "", "{\"x\":1}"),
    ]);
    assert_eq!(got.calls[0].arguments, json!({"x": 1}));
    assert!(matches!(&got.seen[0], Seen::Call(call) if call.id == "b" && call.index == 1));
    assert_eq!(got.end, Ok(true));
}

#[test]
fn quirks_of_compatible_servers() {
    let one = |id: &str, arguments| vec![(id.to_owned(), "f".to_owned(), arguments)];
    let x = json!({"x": 1});
    // LM Studio, Kimi: a new id with each delta.
    let got = calls(&[
        part(Some(0), "i1", "f", ""),
        part(Some(0), "i2", "", "{\"x\""),
        part(Some(0), "i3", "", ":1}"),
        part(Some(0), "i4", "", ""),
    ]);
    assert_eq!(brief(&got), one("i1", x.clone()));
    // MiniMax, NIM: the whole name with each delta, also together with new ids.
    let got = calls(&[
        part(Some(0), "i1", "f", ""),
        part(Some(0), NULL, "f", "{\"x\""),
        part(Some(0), "i2", "f", ":1}"),
        part(Some(0), "i3", "f", ""),
    ]);
    assert_eq!(brief(&got), one("i1", x.clone()));
    // Poolside: integer ids.
    assert_eq!(brief(&calls(&[part(Some(0), 7, "f", "{\"x\":1}")])), one("7", x.clone()));
    // Arguments as an object, and no index and id at all.
    let whole_object = json!({"function": {"name": "f", "arguments": {"x": 1}}});
    assert_eq!(brief(&calls(&[whole_object])), one("call_0", x.clone()));
    // A false start from a gateway, in two deltas and in one.
    let got = calls(&[part(Some(0), "i", "f", "{}"), part(Some(0), NULL, "", "{\"x\":1}")]);
    assert_eq!(brief(&got), one("i", x.clone()));
    let got = calls(&[part(Some(0), "i", "f", "{}{\"x\":"), part(Some(0), NULL, "", "1}")]);
    assert_eq!(brief(&got), one("i", x.clone()));
    // No arguments at all.
    assert_eq!(brief(&calls(&[part(Some(0), "i", "f", "")])), one("i", json!({})));
    // The same call resent.
    let again = part(Some(0), "i", "f", "{\"x\":1}");
    assert_eq!(brief(&calls(&[again.clone(), again])), one("i", x));
}

#[test]
fn ollama_reuses_index_0() {
    let got = calls(&[
        part(Some(0), "a", "f", "{\"x\":1}"),
        part(Some(0), "b", "f", "{}"),
        part(Some(0), "c", "f", "{\"x\":1}"),
    ]);
    let ids: Vec<_> = got.calls.iter().map(|c| (c.id.as_str(), c.index)).collect();
    assert_eq!(ids, [("a", 0), ("b", 1), ("c", 2)]);
    // Without ids, and with the same id for all.
    for id in [NULL, json!("same")] {
        let got = calls(&[part(None, id.clone(), "f", "{\"x\":1}"), part(None, NULL, "g", "{\"x\":2}")]);
        assert_eq!(got.calls.len(), 2, "{:?}", got.calls);
        assert_ne!(got.calls[0].id, got.calls[1].id);
    }
    let got = calls(&[part(Some(0), "same", "f", "{\"x\":1}"), part(Some(1), "same", "g", "{\"x\":2}")]);
    assert_eq!(got.calls[1].id, "same_1");
}

#[test]
fn stop_after_calls_means_calls() {
    let call = delta(&json!({"tool_calls": [part(Some(0), "a", "f", "{}")]}));
    let got = whole(Api::OpenAi, &sse(&[&call, &finish("stop")]));
    assert_eq!(got.finish, Some(FinishReason::ToolCalls));
}

#[test]
fn unusable_calls_are_typed() {
    for (deltas, says) in [
        (vec![part(Some(0), "a", "f", "{\"x\":")], "not JSON"),
        (vec![part(Some(0), "a", "f", "{\"x\" 1}")], "not JSON"),
        (vec![part(Some(0), "a", "", "{\"x\":1}")], "without a name"),
        (vec![part(Some(0), "a", "f", "{\"x\":1}"), part(Some(0), NULL, "", "}")], "after their end"),
    ] {
        let end = calls(&deltas).end;
        assert!(matches!(&end, Err(Fault::Invalid(text)) if text.contains(says)), "{end:?}");
    }
    let open = delta(&json!({"tool_calls": [part(Some(0), "a", "f", "{\"x\":")]}));
    let end = whole(Api::OpenAi, &sse(&[&open, &finish("length"), DONE])).end;
    assert!(matches!(&end, Err(Fault::Invalid(text)) if text.contains("token limit")), "{end:?}");
}

#[test]
fn an_answer_without_finish_reason_is_cut() {
    let hello = delta(&json!({"content": "hello"}));
    for text in [sse(&[&hello]), sse(&[&hello, DONE]), String::new()] {
        assert_eq!(whole(Api::OpenAi, &text).end, Ok(false), "{text}");
    }
    // [DONE] itself may be missing.
    assert_eq!(whole(Api::OpenAi, &sse(&[&hello, &finish("stop")])).end, Ok(true));
}

#[test]
fn errors_inside_the_stream_are_reported() {
    for error in [
        r#"{"error":{"message":"m","code":429}}"#,
        r#"{"object":"error","message":"m","code":400}"#,
        r#"{"error":"m"}"#,
    ] {
        let end = whole(Api::OpenAi, &sse(&[error])).end;
        assert_eq!(end, Err(Fault::Reported(error.into())));
    }
    for garbage in ["{not json", "[]", "7", r#"{"choices":7}"#] {
        let end = whole(Api::OpenAi, &sse(&[garbage])).end;
        assert!(matches!(end, Err(Fault::Garbage(..))), "{garbage}: {end:?}");
    }
    let utf8 = replay(Api::OpenAi, &[b"data: {\"id\":\"\xff\"}\n\n"], Bounds::default());
    assert!(matches!(utf8.end, Err(Fault::Garbage(..))));
}

#[test]
fn odd_but_usable_frames() {
    let events = [
        r#"{"choices":[],"prompt_filter_results":[]}"#,
        r#"{"id":null,"model":null,"choices":[{"index":1,"delta":{"content":"other choice"}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"text","text":"par"},{"type":"text","text":"ts"}]}}],"usage":null}"#,
        r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}],"error":null}"#,
        r#"{"choices":[{"delta":{"content":" lone \ud83d"}}]}"#,
        r#"{"choices":[{"delta":null,"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":5,"completion_tokens":2}}}"#,
    ];
    let got = whole(Api::OpenAi, &sse(&events));
    assert_eq!(got.text, "parts lone \u{fffd}");
    assert_eq!(got.end, Ok(true));
    assert_eq!(got.usage.map(|u| (u.input, u.output)), Some((5, 2)));
    let deepseek =
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":4}}"#;
    let got = whole(Api::OpenAi, &sse(&[deepseek]));
    assert_eq!(got.usage.map(|u| u.cached_input), Some(4));
    let refusal = delta(&json!({"refusal": "I cannot."}));
    let got = whole(Api::OpenAi, &sse(&[&refusal, &finish("stop")]));
    assert_eq!((got.text.as_str(), got.finish), ("I cannot.", Some(FinishReason::ContentFilter)));
}

#[test]
fn bounds_hold() {
    let bounds = Bounds { response: 10, event: 200, arguments: 4, calls: 1 };
    let over = |events: &[&str]| replay(Api::OpenAi, &[sse(events).as_bytes()], bounds).end;
    let text = delta(&json!({"content": "12345678901"}));
    assert_eq!(over(&[&text]), Err(Fault::TooLarge("bytes of text and arguments", 10)));
    let long = delta(&json!({"tool_calls": [part(Some(0), "a", "f", "{\"x\":1}")]}));
    assert_eq!(over(&[&long]), Err(Fault::TooLarge("bytes of tool-call arguments", 4)));
    let call = |i| delta(&json!({"tool_calls": [part(Some(i), NULL, "f", "{}")]}));
    assert_eq!(over(&[&call(0), &call(1)]), Err(Fault::TooLarge("tool calls in one turn", 1)));
    assert_eq!(over(&[&"x".repeat(300)]), Err(Fault::TooLarge("event", 200)));
}

fn model(name: &str) -> ModelRef {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let providers = Providers::with_env(Config::default(), &|_| None).unwrap();
    providers.resolve(name).unwrap()
}

fn body(name: &str, request: &ChatRequest) -> Value {
    serde_json::to_value(Body::new(&model(name), request)).unwrap()
}

#[test]
fn request_body_for_openai_and_for_others() {
    let call = ToolCall { index: 0, id: "a".into(), name: "f".into(), arguments: json!({"x": 1}) };
    let mut request = ChatRequest::new("", "hi");
    request.system = Some("be brief".into());
    request.messages.push(Message::assistant("", vec![call]));
    request.messages.push(Message::tool("a", "42"));
    request.tools =
        vec![Tool { name: "f".into(), description: String::new(), parameters: json!({"type": "object"}) }];
    request.tool_choice = ToolChoice::Tool("f".into());
    request.parallel_tool_calls = Some(false);
    request.max_tokens = Some(9);
    request.temperature = Some(0.5);
    request.stop = vec!["END".into()];
    request.prompt_cache_key = Some("k".into());
    let mut expected = json!({
        "model": "gpt",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "42"},
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false,
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "stop": ["END"],
        "prompt_cache_key": "k",
    });
    assert_eq!(body("openai/gpt", &request), expected);
    let map = expected.as_object_mut().unwrap();
    map.remove("max_completion_tokens");
    map.remove("prompt_cache_key");
    map.insert("max_tokens".into(), json!(9));
    assert_eq!(body("groq/gpt", &request), expected);
    // Nothing but what was asked for.
    let plain = body("ollama/m", &ChatRequest::new("", "hi"));
    let keys: Vec<_> = plain.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["model", "messages", "stream", "stream_options"]);
}

#[test]
fn a_schema_is_sent_as_the_provider_takes_it() {
    let mut request = ChatRequest::new("", "hi");
    let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "required": ["a"], "additionalProperties": false});
    request.output_schema = Some(closed.clone());
    assert_eq!(
        body("openai/m", &request)["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": ANSWER, "schema": closed, "strict": true}})
    );
    request.output_schema = Some(json!({"type": "object", "properties": {"a": {}}}));
    let format = &body("openai/m", &request)["response_format"];
    assert_eq!(format["json_schema"]["strict"], json!(false));
    let deepseek = body("deepseek/m", &request);
    assert_eq!(deepseek["response_format"], json!({"type": "json_object"}));
    let system = deepseek["messages"][0]["content"].as_str().unwrap();
    assert!(system.contains(r#"{"type":"object""#), "{system}");
}
