//! Recorded shapes of Messages streams.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Api;
use crate::turn::Fault;
use crate::wire::testing::{Seen, assert_chunking_is_irrelevant, chunkings, replay_cut, sse, whole};
use crate::{ChatRequest, Config, FinishReason, ModelConfig, ModelRef, Providers, Tool, ToolCall, Usage};

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","model":"claude-x","usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":70,"output_tokens":1}}}"#;
const TEXT: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const STOP_0: &str = r#"{"type":"content_block_stop","index":0}"#;
const STOP_1: &str = r#"{"type":"content_block_stop","index":1}"#;
const TOOL: &str = r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"get","input":{}}}"#;
const END: &str = r#"{"type":"message_stop"}"#;

fn json_delta(partial: &str) -> String {
    json!({"type": "content_block_delta", "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": partial}})
    .to_string()
}

fn message_delta(reason: &str) -> String {
    json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 33}})
        .to_string()
}

fn rich_stream() -> String {
    let events = [
        START.to_owned(),
        r#"{"type":"content_block_start","index":9,"content_block":{"type":"thinking","thinking":""}}"#.into(),
        r#"{"type":"content_block_delta","index":9,"delta":{"type":"thinking_delta","thinking":"hm"}}"#.into(),
        r#"{"type":"content_block_delta","index":9,"delta":{"type":"signature_delta","signature":"s"}}"#.into(),
        TEXT.into(),
        r#"{"type":"ping"}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße \ud83d\ude00"}}"#.into(),
        STOP_0.into(),
        TOOL.into(),
        json_delta(""),
        json_delta("{\"city\": \"Zü"),
        json_delta("rich}\"}"),
        STOP_1.into(),
        message_delta("tool_use"),
        END.into(),
    ];
    let lines = events.iter().map(|e| {
        let kind = serde_json::from_str::<Value>(e).unwrap()["type"].clone();
        format!("event: {}\ndata: {e}\n\n", kind.as_str().unwrap())
    });
    lines.collect()
}

#[test]
fn text_calls_and_usage_in_wire_order() {
    let got = whole(Api::Anthropic, &rich_stream());
    let usage = |output| Usage { input: 100, output, cached_input: 70, cache_write_input: 20, reasoning: 0 };
    let call = ToolCall {
        index: 0,
        id: "toolu_1".into(),
        name: "get".into(),
        arguments: json!({"city": "Zürich}"}),
    };
    assert_eq!(
        got.seen,
        [Seen::Usage(usage(1)), Seen::Text("Grüße 😀".into()), Seen::Call(call), Seen::Usage(usage(33)),]
    );
    assert_eq!(got.finish, Some(FinishReason::ToolCalls));
    assert_eq!(got.end, Ok(true));
}

#[test]
fn every_cut_gives_the_same_events() {
    assert_chunking_is_irrelevant(Api::Anthropic, &rich_stream());
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(cuts in chunkings(&rich_stream())) {
        let text = rich_stream();
        prop_assert_eq!(replay_cut(Api::Anthropic, &text, &cuts), whole(Api::Anthropic, &text));
    }
}

#[test]
fn an_answer_without_its_end_is_cut() {
    let all = rich_stream();
    let end = all.find("event: message_stop").unwrap();
    let delta = all.find("event: message_delta").unwrap();
    for text in [&all[..end], &all[..delta], ""] {
        assert_eq!(whole(Api::Anthropic, text).end, Ok(false));
    }
    // A `message_stop` without a reason is no end either.
    assert_eq!(whole(Api::Anthropic, &sse(&[START, END])).end, Ok(false));
}

#[test]
fn errors_and_garbage_are_typed() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let end = whole(Api::Anthropic, &sse(&[START, overloaded])).end;
    assert_eq!(end, Err(Fault::Reported(overloaded.into())));
    for garbage in ["{", "{}", r#"{"type":7}"#] {
        let end = whole(Api::Anthropic, &sse(&[garbage])).end;
        assert!(matches!(end, Err(Fault::Garbage(..))), "{garbage}: {end:?}");
    }
    let new = r#"{"type":"event_of_next_year","x":1}"#;
    let got = whole(Api::Anthropic, &sse(&[START, new, &message_delta("end_turn"), END]));
    assert_eq!((got.end, got.finish), (Ok(true), Some(FinishReason::Stop)));
}

#[test]
fn broken_arguments_say_why() {
    for (reason, says) in [("max_tokens", "token limit"), ("tool_use", "not JSON")] {
        for stop in [STOP_1, r#"{"type":"ping"}"#] {
            let text = sse(&[START, TOOL, &json_delta("{\"a\":"), stop, &message_delta(reason), END]);
            let got = whole(Api::Anthropic, &text);
            let end = &got.end;
            assert!(matches!(end, Err(Fault::Invalid(t)) if t.contains(says)), "{end:?}");
            assert!(got.calls.is_empty());
        }
    }
    // No delta at all: the start event's input counts.
    let start = TOOL.replace("\"input\":{}", "\"input\":{\"a\":1}");
    let got = whole(Api::Anthropic, &sse(&[&start, STOP_1, &message_delta("tool_use"), END]));
    assert_eq!(got.calls[0].arguments, json!({"a": 1}));
}

fn model(output: Option<StructuredOutput>) -> ModelRef {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::default();
    let model = ModelConfig { structured_output: output, ..ModelConfig::from("anthropic/claude") };
    config.models.insert("m".into(), model);
    let providers = Providers::with_env(config, &|_| None).unwrap();
    providers.resolve("m").unwrap()
}

fn body(output: Option<StructuredOutput>, request: &ChatRequest) -> Value {
    serde_json::to_value(Body::new(&model(output), request)).unwrap()
}

#[test]
fn request_body() {
    let call = |id: &str| ToolCall { index: 0, id: id.into(), name: "f".into(), arguments: json!({}) };
    let mut request = ChatRequest::new("", "hi");
    request.system = Some("be brief".into());
    request.messages.push(Message::assistant("", vec![call("a"), call("b")]));
    request.messages.push(Message::tool("a", "1"));
    request.messages.push(Message::Tool { tool_call_id: "b".into(), content: "boom".into(), is_error: true });
    request.messages.push(Message::user("go on"));
    request.tools =
        vec![Tool { name: "f".into(), description: "d".into(), parameters: json!({"type": "object"}) }];
    request.parallel_tool_calls = Some(false);
    request.stop = vec!["END".into()];
    request.prompt_cache_key = Some("k".into());
    let mark = json!({"type": "ephemeral"});
    assert_eq!(
        body(None, &request),
        json!({
            "model": "claude",
            "max_tokens": 4096,
            "stream": true,
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
            "system": [{"type": "text", "text": "be brief", "cache_control": mark}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": mark}]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                    {"type": "tool_use", "id": "b", "name": "f", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "b", "content": "boom", "is_error": true}]},
                {"role": "user", "content": [{"type": "text", "text": "go on", "cache_control": mark}]},
            ],
            "stop_sequences": ["END"],
        })
    );
}

#[test]
fn a_schema_is_sent_as_asked() {
    let schema = json!({"type": "object"});
    let mut request = ChatRequest::new("", "hi");
    request.output_schema = Some(schema.clone());
    let native = body(None, &request);
    let expected = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!(native["output_config"], expected);
    let tool = body(Some(StructuredOutput::Tool), &request);
    assert_eq!(tool["tool_choice"], json!({"type": "tool", "name": ANSWER}));
    assert_eq!(tool["tools"][0]["input_schema"], schema);
    assert_eq!(tool.get("output_config"), None);
}

#[test]
fn at_most_four_places_are_cached_and_the_turn_before_is_one() {
    let call = ToolCall { index: 0, id: "a".into(), name: "f".into(), arguments: json!({}) };
    let mut request = ChatRequest::new("", "hi");
    request.system = Some("be brief".into());
    request.prompt_cache_key = Some("k".into());
    for _ in 0..3 {
        request.messages.push(Message::assistant("", vec![call.clone()]));
        request.messages.push(Message::tool("a", "1"));
    }
    let body = body(None, &request);
    assert_eq!(body.to_string().matches("cache_control").count(), 4);
    for at in [0, 4, 6] {
        assert_eq!(body["messages"][at]["content"][0]["cache_control"]["type"], "ephemeral", "message {at}");
    }
}
