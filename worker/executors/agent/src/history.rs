//! An agent's past as a conversation. It only grows at its end, so that a provider's prompt cache keeps its start:
//! tools and system prompt, then the goal, then the turns. It changes in the middle only when a summary replaces
//! turns, or observations are cleared in one piece.

use trireme_llm::{Message, ToolCall};

use crate::{
    prompt,
    record::{Observed, Seen, StepRecord},
};

/// The conversation that a turn continues. `records` are those of turns `seen.from` and later, `observed` the results
/// of the last one's calls, `nudge` what the model is told besides.
pub fn messages(
    goal: &str,
    summary: Option<&str>,
    seen: &Seen,
    records: &[StepRecord],
    observed: &[Observed],
    nudge: Option<&str>,
) -> Vec<Message> {
    let mut messages = vec![Message::user(goal)];
    if let Some(summary) = summary {
        messages.push(Message::user(prompt::summary(summary)));
    }
    for (at, record) in (seen.from..).zip(records) {
        // what the first turn shown observed belongs to a turn that is not shown
        if at > seen.from {
            observations(&record.observed, at.saturating_sub(1) < seen.cleared, &mut messages);
        }
        if let Some(nudge) = &record.nudge {
            messages.push(Message::user(nudge));
        }
        let calls = record.calls.iter().enumerate().map(|(index, call)| ToolCall {
            // bounded by the calls of one turn
            index: index as u32,
            id: call.id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        });
        let calls: Vec<ToolCall> = calls.collect();
        if calls.is_empty() && record.text.is_empty() {
            // providers refuse an empty message
            continue;
        }
        messages.push(Message::assistant(record.text.clone(), calls));
    }
    observations(observed, false, &mut messages);
    if let Some(nudge) = nudge {
        messages.push(Message::user(nudge));
    }
    messages
}

fn observations(observed: &[Observed], cleared: bool, into: &mut Vec<Message>) {
    for one in observed {
        let content = match (&one.task, cleared) {
            (Some(task), true) => prompt::cleared(one.content.len(), task.as_str()),
            _ => one.content.clone(),
        };
        into.push(Message::Tool { tool_call_id: one.id.clone(), content, is_error: one.error });
    }
}

/// The turns `from` to `upto` as text, for a summary. `next` is the record of turn `upto`, which observed the last one.
pub fn transcript(summary: Option<&str>, records: &[StepRecord], next: Option<&StepRecord>) -> String {
    let mut text = String::new();
    if let Some(summary) = summary {
        text.push_str(&prompt::summary(summary));
        text.push('\n');
    }
    let after = records.iter().skip(1).chain(next);
    for (at, record) in records.iter().enumerate() {
        if !record.text.is_empty() {
            text.push_str(&format!("Assistant: {}\n", record.text));
        }
        let observed = after.clone().nth(at).map_or(&[][..], |record| &record.observed);
        for call in &record.calls {
            let result = observed.iter().find(|one| one.id == call.id);
            let result = result.map_or("(no result)", |one| one.content.as_str());
            text.push_str(&format!("{}({}) -> {result}\n", call.name, call.arguments));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_model::TaskId;

    use super::*;
    use crate::record::Called;

    fn turn(at: u32) -> StepRecord {
        let call = Called {
            id: format!("c{at}"),
            name: "search".into(),
            arguments: json!({"q": at}),
            task: None,
            refused: None,
        };
        let observed = at.checked_sub(1).map(result).into_iter().collect();
        StepRecord { text: format!("t{at}"), calls: vec![call], observed, ..StepRecord::default() }
    }

    fn result(at: u32) -> Observed {
        let task = Some(TaskId::new(format!("a/{at}")).unwrap());
        Observed { id: format!("c{at}"), content: format!("r{at}"), key: String::new(), error: false, task }
    }

    fn texts(messages: &[Message]) -> Vec<String> {
        let text = |message: &Message| match message {
            Message::User { content } | Message::Tool { content, .. } => content.clone(),
            Message::Assistant { content, .. } => content.clone(),
        };
        messages.iter().map(text).collect()
    }

    #[test]
    fn a_history_only_grows_at_its_end() {
        let all: Vec<StepRecord> = (0..4).map(turn).collect();
        let mut before: Vec<Message> = Vec::new();
        for turns in 1..4 {
            let now =
                messages("goal", None, &Seen::default(), &all[..turns], &[result(turns as u32 - 1)], None);
            assert_eq!(now[..before.len()], before);
            before = now;
        }
        assert_eq!(texts(&before), ["goal", "t0", "r0", "t1", "r1", "t2", "r2"]);
    }

    #[test]
    fn a_summary_stands_for_the_turns_before_it() {
        let all: Vec<StepRecord> = (2..4).map(turn).collect();
        let seen = Seen { summary: None, from: 2, cleared: 3 };
        let shown = texts(&messages("goal", Some("so far"), &seen, &all, &[result(3)], Some("hurry")));
        assert_eq!(shown[2..], ["t2", &prompt::cleared(2, "a/2"), "t3", "r3", "hurry"]);
        assert!(shown[1].contains("so far"));
    }

    #[test]
    fn a_transcript_has_each_result_behind_its_call() {
        let all: Vec<StepRecord> = (0..2).map(turn).collect();
        let text = transcript(None, &all, Some(&turn(2)));
        assert_eq!(text, "Assistant: t0\nsearch({\"q\":0}) -> r0\nAssistant: t1\nsearch({\"q\":1}) -> r1\n");
    }
}
