//! Which tasks a body refers to, so that a worker reads no result in vain: a task may wait for many others
//! only for the order.

use trireme_model::TaskId;

use super::{Body, Llm, Work};
use crate::template::{Json, Part, Text};

impl Body {
    /// Whether the value of `task` stands in one of the templates of the call that it gives: of a map's body
    /// the map's own, or that of a `child`.
    pub fn reads(&self, task: &TaskId, child: bool) -> bool {
        match &self.0 {
            Work::Map { over, .. } if !child => over.reads(task.as_str()),
            Work::Map { each, .. } => each.reads(task.as_str()),
            work => work.reads(task.as_str()),
        }
    }
}

impl Work {
    fn reads(&self, root: &str) -> bool {
        match self {
            Self::Llm(llm) => llm.reads(root),
            Self::Tool { args, .. } => args.reads(root),
            Self::Agent(agent) => agent.any_text(&|text| text.reads(root)),
            // a map inside a map does not exist
            Self::Map { .. } | Self::Join => false,
        }
    }
}

impl Llm {
    fn reads(&self, root: &str) -> bool {
        let mut texts = self
            .messages
            .iter()
            .map(|(_, content)| content)
            .chain(self.system.iter())
            .chain(self.stop.iter())
            .chain(std::iter::once(&self.model));
        texts.any(|text| text.reads(root))
    }
}

impl Json {
    fn reads(&self, root: &str) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Text(text) => text.reads(root),
            Self::List(items) => items.iter().any(|item| item.reads(root)),
            Self::Map(members) => members.iter().any(|(_, member)| member.reads(root)),
        }
    }
}

impl Text {
    fn reads(&self, root: &str) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Parts(parts) => parts.iter().any(|part| match part {
                Part::Text(_) => false,
                Part::Path(path) => path.root == root,
                Part::Expression { roots, .. } => roots.iter().any(|name| name == root),
            }),
            Self::Whole { roots, .. } => roots.iter().any(|name| name == root),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_model::Payload;

    use super::*;

    #[test]
    fn only_what_stands_in_a_template_is_read() {
        let body = |value| Body::parse(&Payload::of(&value)).unwrap();
        let id = |name: &str| TaskId::new(name).unwrap();
        let args = json!({"a": "{{ news.items }}", "b": ["{{ filings | length }}"], "c": "prices"});
        let tool = body(json!({"tool": {"name": "t", "args": args}}));
        let reads = |name: &str| tool.reads(&id(name), false);
        assert!(reads("news") && reads("filings") && !reads("prices"));
        let each = json!({"tool": {"name": "t", "args": {"q": "{% if facts %}{{ item }}{% endif %}"}}});
        let map = body(json!({"map": {"over": "{{ list }}", "do": each}, "merge": {"form": "list"}}));
        assert!(map.reads(&id("list"), false) && !map.reads(&id("facts"), false));
        assert!(!map.reads(&id("list"), true) && map.reads(&id("facts"), true));
    }
}
