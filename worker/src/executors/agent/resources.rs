//! What calls touch. The store lets tasks on the same resource begin one after the other; what is left to do here is that
//! no call overtakes one that waits for the end of its turn or plan.

use std::collections::HashSet;

use trireme_tool::Tools;

use crate::executors::tool::resource;

/// What the calls touch that wait for the end of the turn or plan.
#[derive(Default)]
pub(super) struct Deferred {
    named: HashSet<String>,
    /// One of them touches something that is not known yet: its arguments refer to results that are not there.
    unnamed: bool,
}

impl Deferred {
    /// What a call of `tool` touches, if that is known, and whether it waits for the end of the turn. `known` tells
    /// whether `args` are complete; `waits` whether it has to wait in any case.
    pub(super) fn touch(
        &mut self,
        tools: &Tools,
        tool: &str,
        (args, known): (&serde_json::Value, bool),
        waits: bool,
    ) -> (Option<String>, bool) {
        if tools.get(tool).is_none_or(|tool| tool.spec().resource.is_none()) {
            return (None, waits);
        }
        // a template that can't be rendered touches nothing, and fails the call when it is made
        let name = if known { resource(tools, tool, args) } else { None };
        if known && name.is_none() {
            return (None, waits);
        }
        let behind =
            self.unnamed || name.as_ref().map_or(!self.named.is_empty(), |name| self.named.contains(name));
        let waits = waits || behind;
        match &name {
            Some(name) if waits => drop(self.named.insert(name.clone())),
            None if waits => self.unnamed = true,
            _ => {}
        }
        (name, waits)
    }
}
