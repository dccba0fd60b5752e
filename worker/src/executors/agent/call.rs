//! Tool calls and reasoning nodes of agents.

use std::collections::HashMap;

use serde_json::{Value, json};
use trireme_agent::{Arguments, plan::resolve};
use trireme_llm::{ChatEvent, ChatRequest, Message};
use trireme_model::{Payload, TaskId};
use trireme_spec::agent::READ_RESULT;

use super::{dispatch::fit, past::values};
use crate::{
    executors::{Executors, Job, llm},
    outcome::{Ended, Failure},
};

/// Bytes that `read_result` gives at once, unless the agent shows less of a result anyway.
const READ_BYTES: usize = 4 * 1024;

/// The arguments with everything that they refer to.
pub(super) async fn arguments(job: &Job<'_>, arguments: &Arguments) -> Result<Value, Failure> {
    let Some(nodes) = &arguments.nodes else { return Ok(arguments.args.clone()) };
    let (numbers, ids): (Vec<u32>, Vec<TaskId>) =
        nodes.iter().map(|(number, id)| (*number, id.clone())).unzip();
    let mut nodes: HashMap<u32, Value> = HashMap::with_capacity(numbers.len());
    for (number, value) in numbers.into_iter().zip(values(job, &ids).await?) {
        if let Some(Ok(value)) = value.map(|value| value.parse::<Value>()) {
            nodes.insert(number, value);
        }
    }
    resolve(&arguments.args, |number| nodes.get(&number))
        .map_err(|error| Failure::permanent("missing_reference", error.to_string()))
}

/// Calls a tool.
pub(super) async fn tool(
    executors: &Executors,
    job: &Job<'_>,
    agent: &TaskId,
    tool: &str,
    args: &Arguments,
) -> Result<Ended, Failure> {
    let planned = args.nodes.is_some();
    let mut args = arguments(job, args).await?;
    if planned && let Some(spec) = executors.tools.get(tool) {
        // what a reference brings in may be of another type; the call itself says what is wrong with the rest
        let _ = fit(&executors.tools, tool, &spec.spec().args, &mut args);
    }
    if tool == READ_RESULT {
        return read_result(job, agent, &args).await;
    }
    crate::executors::tool::call(&executors.tools, job, tool, args).await
}

/// Reads part of a result that was elided. Only results of the agent itself can be read.
async fn read_result(job: &Job<'_>, agent: &TaskId, args: &Value) -> Result<Ended, Failure> {
    let handle = args.get("handle").and_then(Value::as_str).unwrap_or_default();
    let offset = args.get("offset").and_then(Value::as_u64).unwrap_or(0);
    let unknown = || Failure::permanent("unknown_handle", format!("no result has the handle {handle:?}"));
    // a call of one of its turns: not a record of the engine's, and nothing of an agent inside it
    let inside = handle.strip_prefix(agent.as_str()).is_some_and(|rest| {
        let mut parts = rest.split('/');
        let call = (parts.next(), parts.next(), parts.next(), parts.next());
        matches!(call, (Some(""), Some(turn), Some(_), None) if turn.starts_with("step-"))
    });
    let id = TaskId::new(handle).ok().filter(|_| inside).ok_or_else(unknown)?;
    let value = values(job, &[id]).await?.pop().flatten().ok_or_else(unknown)?;
    let text = match value.parse::<Value>() {
        Ok(Value::String(text)) => text,
        _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let border = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let from = border(usize::try_from(offset).unwrap_or(usize::MAX).min(text.len()));
    let to = border((from + READ_BYTES).min(text.len()));
    let part = json!({"text": text[from..to], "offset": from, "end": to, "total_bytes": text.len()});
    Ok(Ended::result(Payload::of(&part)))
}

/// Asks a model about earlier results; the answer is the result, as text.
pub(super) async fn think(
    executors: &Executors,
    job: &Job<'_>,
    (model, max_tokens, temperature): (String, Option<u32>, Option<f64>),
    args: &Arguments,
) -> Result<Ended, Failure> {
    let args = arguments(job, args).await?;
    let mut prompt = args.get("prompt").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (name, value) in args.as_object().into_iter().flatten().filter(|(name, _)| *name != "prompt") {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        prompt.push_str(&format!("\n\n{name}: {text}"));
    }
    let request = ChatRequest {
        max_tokens,
        temperature: temperature.map(|temperature| temperature as f32),
        messages: vec![Message::user(prompt)],
        ..llm::request_of(job, model, 0)
    };
    match llm::ask(&executors.providers, job, &request, job.deadline, |_: ChatEvent<'_>| {}).await {
        Ok(response) => Ok(Ended::result(Payload::of(&response.text))),
        Err(error) => Err(llm::failure(&error)),
    }
}
