//! Holds JSON schemas to being schemas, so that a broken one fails before anything is paid for.

use std::collections::{HashMap, hash_map::Entry};

use trireme_model::Payload;

use super::Compiler;
use crate::{
    problem::Report,
    source::{Data, Node, join},
    spec,
};

/// Bytes of one schema.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Patterns of all schemas of a spec, those in equal schemas counted once: a large one takes some milliseconds.
const MAX_PATTERNS: usize = 500;
/// References in a schema that has `unevaluatedProperties` or `unevaluatedItems`: the validator follows each anew
/// wherever it is met, so that twenty take minutes.
const MAX_UNEVALUATED_REFS: usize = 8;

/// What is wrong with a schema: a JSON pointer into it, and what.
type Fault = (String, String);

/// The schemas that were compiled: the tasks of a spec often share one.
#[derive(Default)]
pub(super) struct Schemas {
    faults: HashMap<Payload, Option<Fault>>,
    patterns: usize,
}

/// What makes a schema dear to compile.
#[derive(Default)]
struct Cost {
    patterns: usize,
    refs: usize,
    unevaluated: bool,
}

impl Compiler<'_> {
    /// Checks a schema and gives it back.
    pub(super) fn schema(&mut self, (node, path): &spec::Schema) -> Payload {
        let payload = node.payload();
        let fault = match self.schemas.faults.entry(payload.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(fault(node, &payload, &mut self.schemas.patterns)),
        };
        if let Some((pointer, message)) = fault {
            add(self.report, node, path, pointer, message);
        }
        payload
    }
}

fn fault(node: &Node, payload: &Payload, patterns: &mut usize) -> Option<Fault> {
    let mut cost = Cost::default();
    cost.add(node);
    *patterns += cost.patterns;
    let bytes = payload.len();
    let dear = if bytes > MAX_SCHEMA_BYTES {
        format!("a schema has at most {MAX_SCHEMA_BYTES} bytes, this one {bytes}")
    } else if *patterns > MAX_PATTERNS {
        format!("with this schema there are more than {MAX_PATTERNS} patterns in the spec's schemas")
    } else if cost.unevaluated && cost.refs > MAX_UNEVALUATED_REFS {
        format!(
            "a schema with `unevaluatedProperties` or `unevaluatedItems` has at most {MAX_UNEVALUATED_REFS} \
             references, this one {}",
            cost.refs
        )
    } else {
        // offline: a reference to another document is a fault
        let error = jsonschema::options().offline().build(&node.value()).err()?;
        let words: String = error.to_string().chars().take(300).collect();
        return Some((error.instance_path().to_string(), format!("this is no JSON schema: {words}")));
    };
    Some((String::new(), dear))
}

impl Cost {
    /// The depth of a tree is bounded by its reader.
    fn add(&mut self, node: &Node) {
        match &node.data {
            Data::Map(entries) => {
                for entry in entries {
                    match (entry.key.as_str(), &entry.value.data) {
                        ("$ref" | "$dynamicRef" | "$recursiveRef", Data::Text(_)) => self.refs += 1,
                        ("pattern", Data::Text(_)) => self.patterns += 1,
                        ("patternProperties", Data::Map(patterns)) => self.patterns += patterns.len(),
                        ("unevaluatedProperties" | "unevaluatedItems", _) => self.unevaluated = true,
                        _ => {}
                    }
                    self.add(&entry.value);
                }
            }
            Data::List(items) => items.iter().for_each(|item| self.add(item)),
            _ => {}
        }
    }
}

/// Reports at the innermost value that the JSON `pointer` leads to.
fn add(report: &mut Report, node: &Node, path: &str, pointer: &str, message: &str) {
    let (mut node, mut path) = (node, path.to_owned());
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        match &node.data {
            Data::Map(entries) => {
                let Some(entry) = entries.iter().find(|entry| entry.key == step) else { break };
                (node, path) = (&entry.value, join(&path, &step));
            }
            Data::List(items) => {
                let Some(item) = step.parse().ok().and_then(|at: usize| items.get(at)) else { break };
                (node, path) = (item, format!("{path}[{step}]"));
            }
            _ => break,
        }
    }
    report.add(path, Some(node.place), message);
}
