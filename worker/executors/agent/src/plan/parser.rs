//! The reader of a plan that arrives in pieces.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use trireme_llm::{Brackets, read_answer};
use trireme_model::Need;

use super::head::{self, Args, Head, JoinLine};
use super::problem::excerpt;
use super::{Item, Join, Known, MAX_ARGUMENTS, MAX_PREAMBLE, Node, Problem, THINK, references};

/// Reads a plan while it streams; see [the module](super) for the grammar.
///
/// Holds at most a line's head, one node's arguments ([`MAX_ARGUMENTS`]) and the text before the plan
/// ([`MAX_PREAMBLE`]), next to the piece at hand.
#[derive(Debug)]
pub struct PlanParser {
    known: Known,
    state: State,
    /// What has come and is not decided yet.
    rest: String,
    preamble: Preamble,
    /// Usable nodes of this plan, in its order.
    nodes: Vec<u32>,
    /// All numbers of this plan, and whether their node is usable.
    numbers: BTreeMap<u32, bool>,
    /// Nodes of either kind.
    count: usize,
    joined: bool,
}

#[derive(Debug)]
enum State {
    /// Where a line may begin.
    Line,
    /// In text, up to the end of its line.
    Text,
    /// In a node's arguments.
    Arguments(Arguments),
    /// Behind the join, or past the preamble's bound.
    Done,
}

#[derive(Debug)]
struct Arguments {
    /// `None` for a node that is known to be a problem: its arguments are skipped.
    node: Option<(u32, String)>,
    /// Dropped when they are past [`MAX_ARGUMENTS`].
    text: String,
    /// Their size, kept or not.
    bytes: usize,
    brackets: Brackets,
    /// At the beginning of a line, where the next node or the join may show that they were never closed.
    line_begins: bool,
}

/// How a node's arguments ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// At their bracket.
    Closed,
    /// At the next line of the plan.
    Overrun,
    /// With the plan.
    Cut,
}

/// The text so far, as long as nothing of a plan has been seen.
#[derive(Debug, Default)]
struct Preamble {
    text: String,
    /// There was more.
    cut: bool,
    /// A plan has begun; no text is kept any more.
    over: bool,
}

impl PlanParser {
    /// A reader of one plan.
    pub fn new(known: Known) -> Self {
        Self {
            known,
            state: State::Line,
            rest: String::new(),
            preamble: Preamble::default(),
            nodes: Vec::new(),
            numbers: BTreeMap::new(),
            count: 0,
            joined: false,
        }
    }

    /// Takes the next piece of the stream and returns what it completes.
    pub fn push(&mut self, piece: &str) -> Vec<Item> {
        let mut items = Vec::new();
        if !self.done() {
            self.rest.push_str(piece);
            self.advance(false, &mut items);
        }
        items
    }

    /// Nothing that follows counts: the join has come, or too much text without a plan. The stream may be
    /// cancelled.
    pub fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The stream has ended. Without a join, there is an implicit one over all nodes.
    pub fn finish(mut self) -> Vec<Item> {
        let mut items = Vec::new();
        self.advance(true, &mut items);
        if self.joined {
            return items;
        }
        let text = self.preamble.text.trim();
        items.push(if !self.preamble.over && !text.is_empty() {
            Item::Problem(Problem::PlainText { text: text.to_owned(), cut: self.preamble.cut })
        } else if self.nodes.is_empty() {
            Item::Problem(Problem::Empty)
        } else {
            Item::Join(Join { nodes: self.nodes, need: Need::All, implicit: true })
        });
        items
    }

    fn advance(&mut self, last: bool, items: &mut Vec<Item>) {
        let mut rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Some(bytes) = self.step(&rest[at..], last, items) {
            at += bytes;
        }
        self.rest = rest.split_off(at);
    }

    /// Takes one step and returns how much of `text` it used; `None` when there is no step without more text.
    fn step(&mut self, text: &str, last: bool, items: &mut Vec<Item>) -> Option<usize> {
        match std::mem::replace(&mut self.state, State::Line) {
            State::Done => {
                self.state = State::Done;
                None
            }
            State::Text => {
                let bytes = text.find('\n').map_or(text.len(), |end| end + 1);
                if !text[..bytes].ends_with('\n') {
                    self.state = State::Text;
                }
                self.skip(&text[..bytes])
            }
            State::Line => {
                // Behind a node on the same line too: what closes `tool({...})` stands there.
                let filler = |c: char| c.is_whitespace() || matches!(c, ')' | ',' | ';' | '`');
                let bytes = text.len() - text.trim_start_matches(filler).len();
                if bytes > 0 || text.is_empty() {
                    self.skip(&text[..bytes])
                } else {
                    self.line(text, last, items)
                }
            }
            State::Arguments(arguments) => self.arguments(arguments, text, last, items),
        }
    }

    fn skip(&mut self, text: &str) -> Option<usize> {
        if !self.preamble.keep(text) {
            self.state = State::Done;
        }
        (!text.is_empty()).then_some(text.len())
    }

    fn line(&mut self, text: &str, last: bool, items: &mut Vec<Item>) -> Option<usize> {
        match head::read(text, last) {
            Head::More => None,
            Head::Text => {
                self.state = State::Text;
                Some(0)
            }
            Head::Join { join, bytes } => {
                self.join(&join, items);
                Some(bytes)
            }
            Head::Node { number, tool, args, bytes } => Some(self.head(number, tool, args, bytes, items)),
        }
    }

    /// A line that looks like a node. Returns how much of it is used.
    fn head(&mut self, number: &str, tool: &str, args: Args, bytes: usize, items: &mut Vec<Item>) -> usize {
        match (args, self.usable(tool)) {
            (Args::Object, _) => {
                self.preamble.end();
                let node = self.admit(number, tool, items);
                self.state = State::Arguments(Arguments::of(node));
                return bytes;
            }
            (Args::Nothing | Args::Bare, true) => {
                self.preamble.end();
                if let Some((number, tool)) = self.admit(number, tool, items) {
                    self.node(number, tool, Value::Object(Map::new()), items);
                }
                return bytes;
            }
            // These may as well be prose, so the text is kept too.
            (Args::Other, true) => {
                if let Some((number, tool)) = self.admit(number, tool, items) {
                    self.reject(number, Problem::NotAnObject { number, tool }, items);
                }
            }
            (Args::Nothing, false) => {
                self.admit(number, tool, items);
            }
            (Args::Bare | Args::Other, false) => {}
        }
        self.state = State::Text;
        0
    }

    fn usable(&self, tool: &str) -> bool {
        tool == THINK || self.known.tools.contains(tool)
    }

    /// The node's number and tool, unless they are a problem.
    fn admit(&mut self, number: &str, tool: &str, items: &mut Vec<Item>) -> Option<(u32, String)> {
        let limit = self.known.max_nodes;
        if self.count >= limit {
            if self.count == limit {
                self.count += 1;
                items.push(Item::Problem(Problem::TooManyNodes { limit }));
            }
            return None;
        }
        self.count += 1;
        let Some(number) = number.parse().ok().filter(|&n: &u32| n > 0) else {
            items.push(Item::Problem(Problem::Number { tool: excerpt(tool) }));
            return None;
        };
        if self.known.nodes.contains(&number) || self.numbers.contains_key(&number) {
            items.push(Item::Problem(Problem::Duplicate { number }));
            return None;
        }
        if !self.usable(tool) {
            self.reject(number, Problem::UnknownTool { number, tool: excerpt(tool) }, items);
            return None;
        }
        Some((number, tool.to_owned()))
    }

    fn reject(&mut self, number: u32, problem: Problem, items: &mut Vec<Item>) {
        self.numbers.insert(number, false);
        items.push(Item::Problem(problem));
    }

    fn arguments(
        &mut self,
        mut arguments: Arguments,
        text: &str,
        last: bool,
        items: &mut Vec<Item>,
    ) -> Option<usize> {
        if text.is_empty() && last {
            self.close(arguments, Ending::Cut, items);
            return None;
        }
        let mut bytes = text.find('\n').map_or(text.len(), |end| end + 1);
        if arguments.line_begins {
            let blank = text.len() - text.trim_start().len();
            if blank > 0 {
                bytes = blank;
            } else if !text.is_empty() {
                // No JSON has a line that begins like this.
                let overrun = match head::read(text, last) {
                    Head::More => {
                        self.state = State::Arguments(arguments);
                        return None;
                    }
                    Head::Join { .. } => true,
                    Head::Node { tool, args, .. } => {
                        matches!(args, Args::Object | Args::Nothing) && self.usable(tool)
                    }
                    Head::Text => false,
                };
                if overrun {
                    self.close(arguments, Ending::Overrun, items);
                    return Some(0);
                }
                arguments.line_begins = text[..bytes].ends_with('\n');
            }
        } else {
            arguments.line_begins = text[..bytes].ends_with('\n');
        }
        let closed = arguments.brackets.push(&text[..bytes]);
        arguments.keep(&text[..closed.unwrap_or(bytes)]);
        if let Some(end) = closed {
            self.close(arguments, Ending::Closed, items);
            return Some(end);
        }
        self.state = State::Arguments(arguments);
        (bytes > 0).then_some(bytes)
    }

    fn close(&mut self, arguments: Arguments, ending: Ending, items: &mut Vec<Item>) {
        let Arguments { node: Some((number, tool)), text, bytes, .. } = arguments else { return };
        let problem = match read_answer(&text) {
            _ if bytes > MAX_ARGUMENTS => Problem::TooLarge { number, bytes },
            _ if ending == Ending::Cut => Problem::Unclosed { number },
            Ok((args, _)) => return self.node(number, tool, args, items),
            Err(error) => Problem::NotJson { number, reason: error.to_string() },
        };
        self.reject(number, problem, items);
    }

    /// A node that is complete: only its references are left to check.
    fn node(&mut self, number: u32, tool: String, args: Value, items: &mut Vec<Item>) {
        let references = references(&args);
        let problem = references.iter().find_map(|reference| {
            let to = reference.number;
            match self.numbers.get(&to) {
                _ if to == number => Some(Problem::SelfReference { number }),
                Some(true) => None,
                Some(false) => Some(Problem::BadReference { number, to }),
                None if self.known.nodes.contains(&to) => None,
                None if to > number => Some(Problem::ForwardReference { number, to }),
                None => Some(Problem::UnknownReference { number, to }),
            }
        });
        match problem {
            Some(problem) => self.reject(number, problem, items),
            None => {
                self.numbers.insert(number, true);
                self.nodes.push(number);
                items.push(Item::Node(Node { number, tool, args, references }));
            }
        }
    }

    fn join(&mut self, line: &JoinLine, items: &mut Vec<Item>) {
        self.state = State::Done;
        self.joined = true;
        self.preamble.end();
        let mut nodes: Vec<u32> = Vec::new();
        for &node in &line.nodes {
            if self.numbers.get(&node) != Some(&true) && !self.known.nodes.contains(&node) {
                items.push(Item::Problem(Problem::JoinUnknown { node }));
            } else if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        if nodes.is_empty() {
            nodes.clone_from(&self.nodes);
        }
        if nodes.is_empty() {
            items.push(Item::Problem(Problem::Empty));
            return;
        }
        let need = match line.need {
            Some(need) if (need as usize) < nodes.len() => Need::Count(need),
            Some(need) if need as usize > nodes.len() => {
                items.push(Item::Problem(Problem::JoinNeed { need, of: nodes.len() }));
                Need::All
            }
            _ => Need::All,
        };
        items.push(Item::Join(Join { nodes, need, implicit: false }));
    }
}

impl Arguments {
    fn of(node: Option<(u32, String)>) -> Self {
        Self { node, text: String::new(), bytes: 0, brackets: Brackets::default(), line_begins: false }
    }

    fn keep(&mut self, text: &str) {
        self.bytes += text.len();
        if self.node.is_some() && self.bytes <= MAX_ARGUMENTS {
            self.text.push_str(text);
        } else {
            self.text = String::new();
        }
    }
}

impl Preamble {
    /// Takes text outside of nodes. `false` when there is too much of it.
    fn keep(&mut self, text: &str) -> bool {
        if self.over {
            return true;
        }
        let room = text.floor_char_boundary(MAX_PREAMBLE - self.text.len());
        self.text.push_str(&text[..room]);
        self.cut = room < text.len();
        !self.cut
    }

    fn end(&mut self) {
        self.over = true;
        self.text = String::new();
    }
}
