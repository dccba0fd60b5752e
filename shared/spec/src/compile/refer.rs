//! Finds what templates refer to, and holds it to the tasks there are.

use trireme_model::merge::Form;

use super::{Compiler, Inputs};
use crate::{
    problem::Place,
    source::{Data, Node, join},
    spec::{Source, Work},
    template::{
        analyse::{Analysis, analyse},
        is_template,
        path::{Path, Step},
    },
};

impl Compiler<'_> {
    /// Notes what `source` refers to; `item` and `index` exist inside the `do` of a map.
    pub(super) fn source(&mut self, source: &Source, in_map: bool, inputs: &mut Inputs) -> Option<Analysis> {
        self.template(&source.text, &source.path, source.place, in_map, inputs)
    }

    /// Notes what the templates anywhere in `node` refer to.
    pub(super) fn templates(&mut self, node: &Node, path: &str, in_map: bool, inputs: &mut Inputs) {
        match &node.data {
            Data::Text(text) => {
                self.template(text, path, node.place, in_map, inputs);
            }
            Data::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.templates(item, &format!("{path}[{at}]"), in_map, inputs);
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    if is_template(&entry.key) {
                        let path = join(path, &entry.key);
                        self.report.add(path, Some(entry.place), "a key can't be a template");
                    }
                    self.templates(&entry.value, &join(path, &entry.key), in_map, inputs);
                }
            }
            _ => {}
        }
    }

    pub(super) fn template(
        &mut self,
        text: &str,
        path: &str,
        place: Place,
        in_map: bool,
        inputs: &mut Inputs,
    ) -> Option<Analysis> {
        if !is_template(text) {
            return None;
        }
        let analysis = match analyse(text) {
            Ok(analysis) => analysis,
            Err(message) => {
                self.report.add(path, Some(place), message);
                return None;
            }
        };
        for root in &analysis.roots {
            match root.name.as_str() {
                "input" => {}
                "item" | "index" if in_map => {}
                name if self.index.contains_key(name) => inputs.add(name),
                name => {
                    // the first line of a text stands where the text does; later ones only the text knows
                    let within = match (root.line, root.column) {
                        (1, _) => String::new(),
                        (line, column) => format!(" in line {line}, column {column} of the text"),
                    };
                    let message = match name {
                        "item" | "index" => format!("`{name}`{within} exists only inside the `do` of a map"),
                        _ => format!("unknown reference `{name}`{within}{}", self.known(name, in_map)),
                    };
                    self.report.add(path, Some(place), message);
                }
            }
        }
        // a statement may ask whether something is defined, so only references printed as they are count
        if analysis.parts.is_some() {
            for reference in &analysis.paths {
                self.first_step(reference, path, place);
            }
        }
        Some(analysis)
    }

    fn known(&self, name: &str, in_map: bool) -> String {
        let tasks = self.spec.tasks.iter().map(|task| task.id.as_str());
        let bound =
            ["input"].into_iter().chain(if in_map { &["item", "index"][..] } else { &[] }.iter().copied());
        self.report.hint(name, bound.chain(tasks))
    }

    /// Of the input, and of joins into objects, the fields are known beforehand.
    fn first_step(&mut self, reference: &Path, path: &str, place: Place) {
        let Some(Step::Key(key)) = reference.steps.first() else { return };
        let fields: Vec<&str> = if reference.root == "input" {
            self.spec.input.iter().map(|(name, _)| name.as_str()).collect()
        } else {
            let task = self.index.get(reference.root.as_str()).map(|at| &self.spec.tasks[*at]);
            match task {
                Some(task) if task.settings.fallback.is_none() => match &task.work {
                    Work::Join(join) if join.gather.form == Form::Object => {
                        join.from.iter().map(|(name, _)| name.as_str()).collect()
                    }
                    _ => return,
                },
                _ => return,
            }
        };
        if !fields.contains(&key.as_str()) {
            let hint = self.report.hint(key, fields);
            let message =
                format!("`{reference}` does not exist: `{}` has no field `{key}`{hint}", reference.root);
            self.report.add(path, Some(place), message);
        }
    }
}
