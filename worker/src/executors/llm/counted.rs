//! What one call to a model uses: as its provider reports it, and an estimate of what is not reported.

use trireme_llm::{ChatEvent, ChatRequest, Usage};

/// Characters that are about one token.
const PER_TOKEN: u64 = 4;

/// The tokens of one call. A provider that reports them at the end says nothing of a call that is cut or refused before;
/// a budget must see them all the same.
pub(super) struct Counted {
    /// Of the prompt, estimated.
    input: u64,
    /// Characters that were generated.
    written: u64,
    /// As the provider last reported.
    reported: Usage,
    /// The model has begun to answer: before that a provider charges nothing, or says so.
    begun: bool,
    /// Nothing was generated since the last report.
    fresh: bool,
}

impl Counted {
    pub(super) fn new(request: &ChatRequest) -> Self {
        let input = tokens(request.prompt_bytes() as u64);
        Self { input, written: 0, reported: Usage::default(), begun: false, fresh: true }
    }

    pub(super) fn saw(&mut self, event: &ChatEvent<'_>) {
        self.fresh = matches!(event, ChatEvent::Usage(_));
        match event {
            ChatEvent::FirstToken => self.begun = true,
            ChatEvent::TextDelta(text) => self.written += text.chars().count() as u64,
            ChatEvent::ToolCall(call) => {
                self.written += (call.name.len() + call.arguments.to_string().len()) as u64;
            }
            ChatEvent::Usage(usage) => self.reported = **usage,
        }
    }

    /// What was used so far, and how many tokens of it are an estimate.
    pub(super) fn usage(&self) -> (Usage, u64) {
        let mut usage = self.reported;
        if self.fresh || !self.begun {
            return (usage, 0);
        }
        // an early report has all of the prompt, and of the answer as much as there was then
        if usage.input == 0 {
            usage.input = self.input;
        }
        usage.output = usage.output.max(tokens(self.written)).max(1);
        let added = (usage.input - self.reported.input) + (usage.output - self.reported.output);
        (usage, added)
    }
}

fn tokens(characters: u64) -> u64 {
    characters.div_ceil(PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use trireme_llm::Message;

    use super::*;

    #[test]
    fn what_is_reported_counts_and_the_rest_is_estimated() {
        let request = ChatRequest {
            system: Some("x".repeat(40)),
            messages: vec![Message::user("y".repeat(42))],
            ..ChatRequest::default()
        };
        let mut counted = Counted::new(&request);
        assert_eq!(counted.usage(), (Usage::default(), 0), "nothing was generated, nothing is charged");
        counted.saw(&ChatEvent::FirstToken);
        assert_eq!(counted.usage(), (Usage { input: 21, output: 1, ..Usage::default() }, 22));
        counted.saw(&ChatEvent::TextDelta(&"ä".repeat(39)));
        assert_eq!(counted.usage(), (Usage { input: 21, output: 10, ..Usage::default() }, 31));
        let early = Usage { input: 30, output: 1, cached_input: 9, ..Usage::default() };
        counted.saw(&ChatEvent::Usage(&early));
        assert_eq!(counted.usage(), (early, 0));
        counted.saw(&ChatEvent::TextDelta("and"));
        assert_eq!(counted.usage(), (Usage { output: 11, ..early }, 10));
        let all = Usage { output: 4, ..early };
        counted.saw(&ChatEvent::Usage(&all));
        assert_eq!(counted.usage(), (all, 0));
    }
}
