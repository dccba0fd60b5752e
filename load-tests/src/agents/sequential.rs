//! The baseline: the same agent, one thing at a time. One model, one call of it at a time, at most one tool call a turn,
//! made after the turn has ended.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use trireme_llm::{ChatRequest, Limits, Message, Providers, Tool};
use trireme_tool::{CallContext, Tools};

use super::{Outcome, calibration, product, suite};

/// Turns after which it gives up; the longest suite needs 13.
const MAX_TURNS: usize = 40;
/// Longest time of one tool call.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// The agent; its clients keep their connections between items.
pub(super) struct Sequential {
    providers: Providers,
    tools: Tools,
    offered: Vec<Tool>,
    system: String,
}

impl Sequential {
    /// An agent with the tools of `suite` at the simulator `base`.
    pub(super) async fn new(base: &str, suite: &suite::Suite) -> anyhow::Result<Self> {
        let offered = suite.tools.iter().map(|tool| Tool {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
        });
        Ok(Self {
            providers: product::providers(base)?,
            tools: product::tools(base, suite).await?,
            offered: offered.collect(),
            system: suite::system(),
        })
    }

    /// Pursues the goal of `item`.
    pub(super) async fn run(&self, item: &suite::Item) -> Outcome {
        let start = Instant::now();
        let answer = self.answer(item).await;
        Outcome { wall: start.elapsed(), answer: answer.map_err(|error| format!("{error:#}")) }
    }

    async fn answer(&self, item: &suite::Item) -> anyhow::Result<String> {
        let mut request = ChatRequest {
            system: Some(self.system.clone()),
            tools: self.offered.clone(),
            parallel_tool_calls: Some(false),
            ..ChatRequest::new(format!("sim/{}", calibration::BEST), item.goal.as_str())
        };
        for turn in 0..MAX_TURNS {
            let response = self.providers.chat(&request, Limits::default(), |_| {}).await?;
            if response.tool_calls.is_empty() {
                return Ok(response.text);
            }
            request.messages.push(Message::assistant(response.text, response.tool_calls.clone()));
            for call in response.tool_calls {
                let deadline = tokio::time::Instant::now() + TOOL_LIMIT;
                let context = CallContext::new(&item.id, &format!("turn-{turn}"), call.index, 1, deadline);
                let output = self.tools.call(&call.name, &context, call.arguments).await;
                let output = output.with_context(|| call.name.clone())?;
                let text = match output.value {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                request.messages.push(Message::tool(call.id, text));
            }
        }
        bail!("no answer within {MAX_TURNS} turns")
    }
}

#[cfg(test)]
mod tests;
