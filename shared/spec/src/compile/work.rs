//! Makes the body of each kind of task, noting what it waits for.

use trireme_model::{Children, Kind, Payload, merge::Merge, wide_integer};

use super::{Compiler, Inputs};
use crate::{
    body::{LlmWire, MapWire, MessageWire, ToolWire, Wire},
    problem::{Place, WIDE, quoted},
    source::{Data, Node, join},
    spec::{self, Gather, Settings, Work},
    template::{has_template, is_template},
};

impl<'s> Compiler<'s> {
    pub(super) fn llm(&mut self, llm: &'s spec::Llm, in_map: bool, inputs: &mut Inputs) -> Wire {
        let (model, aliases) = self.model(&llm.model, in_map, inputs);
        for source in
            llm.system.iter().chain(llm.messages.iter().map(|(_, content)| content)).chain(&llm.stop)
        {
            self.source(source, in_map, inputs);
        }
        for tool in &llm.tools {
            self.check_tool(&tool.text, &tool.path, tool.place);
        }
        let messages = llm.messages.iter();
        let wire = LlmWire {
            model,
            aliases,
            system: llm.system.as_ref().map(|system| system.text.clone()),
            messages: messages
                .map(|(role, content)| MessageWire { role: *role, content: content.text.clone() })
                .collect(),
            max_tokens: llm.max_tokens,
            temperature: llm.temperature,
            stop: llm.stop.iter().map(|stop| stop.text.clone()).collect(),
            schema: llm.schema.as_ref().map(|schema| self.schema(schema)),
            tools: llm.tools.iter().map(|tool| tool.text.clone()).collect(),
            stream: llm.stream,
        };
        Wire { llm: Some(wire), ..Wire::default() }
    }

    /// The model's name with aliases resolved; where only the run will tell it, the aliases go along.
    pub(super) fn model(
        &mut self,
        model: &spec::Source,
        in_map: bool,
        inputs: &mut Inputs,
    ) -> (String, Vec<(String, String)>) {
        if is_template(&model.text) {
            self.source(model, in_map, inputs);
            let aliases = self.spec.models.iter().map(|(alias, target, _)| (alias.clone(), target.clone()));
            return (model.text.clone(), aliases.collect());
        }
        if let Some((_, target, _)) = self.spec.models.iter().find(|(alias, ..)| *alias == model.text) {
            return (target.clone(), Vec::new());
        }
        self.check_model(&model.text, &model.path, model.place);
        (model.text.clone(), Vec::new())
    }

    pub(super) fn check_model(&mut self, model: &str, path: &str, place: Place) {
        if self.models.get(model) == Some(&true) {
            return;
        }
        let checked = self.checker.model(model);
        self.models.insert(model.to_owned(), checked.is_ok());
        if let Err(message) = checked {
            self.report.add(path, Some(place), message);
        }
    }

    /// Numbers that a tool would not get as they were written.
    fn exact(&mut self, node: &Node, path: &str) {
        match &node.data {
            Data::Number(number) if wide_integer(number).is_some() => {
                self.report.add(path, Some(node.place), format!("{} {WIDE}", quoted(number)));
            }
            Data::List(items) => {
                items.iter().enumerate().for_each(|(at, item)| self.exact(item, &format!("{path}[{at}]")));
            }
            Data::Map(entries) => {
                entries.iter().for_each(|entry| self.exact(&entry.value, &join(path, &entry.key)));
            }
            _ => {}
        }
    }

    pub(super) fn tool(&mut self, tool: &'s spec::Tool, in_map: bool, inputs: &mut Inputs) -> Wire {
        let name = &tool.name;
        let known = if is_template(&name.text) {
            Err("a tool's name can't be a template".to_owned())
        } else {
            self.checker.tool(&name.text)
        };
        let mut args = Payload::from_json("{}");
        if let Some((node, path)) = &tool.args {
            self.templates(node, path, in_map, inputs);
            args = node.payload();
            self.exact(node, path);
        }
        match known {
            Err(message) => self.report.add(&name.path, Some(name.place), message),
            Ok(()) => {
                let (path, place) =
                    tool.args.as_ref().map_or((&name.path, name.place), |(node, path)| (path, node.place));
                let value =
                    tool.args.as_ref().map_or_else(|| serde_json::json!({}), |(node, _)| node.value());
                if !has_template(&value)
                    && let Err(message) = self.checker.args(&name.text, &value)
                {
                    self.report.add(path, Some(place), message);
                }
            }
        }
        Wire { tool: Some(ToolWire { name: name.text.clone(), args }), ..Wire::default() }
    }

    pub(super) fn join(&mut self, join: &'s spec::Join, inputs: &mut Inputs) -> Wire {
        for (_, name) in &join.from {
            self.refer(name, inputs);
        }
        let names = join.from.iter().map(|(name, _)| name.clone()).collect();
        Wire { merge: Some(merge(&join.gather, names)), ..Wire::default() }
    }

    pub(super) fn map(
        &mut self,
        map: &'s spec::Map,
        own: &Settings,
        inputs: &mut Inputs,
    ) -> (Wire, Children) {
        let (over, over_path) = &map.over;
        if let Data::Text(text) = &over.data {
            let analysis = self.template(text, over_path, over.place, false, inputs);
            let whole = analysis
                .as_ref()
                .is_none_or(|found| found.parts.as_ref().is_some_and(|parts| parts.len() == 1));
            if !is_template(text) || !whole {
                let message = "expected a list, or exactly one reference such as `{{ news.items }}`: anything around \
                               it makes it text";
                self.report.add(over_path, Some(over.place), message);
            }
        } else {
            self.templates(over, over_path, false, inputs);
        }
        let (kind, each) = match &map.each {
            Work::Llm(llm) => (Kind::Llm, self.llm(llm, true, inputs)),
            Work::Tool(tool) => (Kind::Tool, self.tool(tool, true, inputs)),
            // not readable; reported where it was read
            _ => (Kind::Tool, Wire::default()),
        };
        let children = Children { exec: self.exec(kind, &map.settings, Some(own)), at_once: map.at_once };
        let wire = Wire {
            map: Some(MapWire { over: over.payload(), each: Box::new(each) }),
            merge: Some(merge(&map.gather, Vec::new())),
            ..Wire::default()
        };
        (wire, children)
    }
}

fn merge(gather: &Gather, names: Vec<String>) -> Merge {
    Merge { form: gather.form, names, default: gather.default.clone() }
}
