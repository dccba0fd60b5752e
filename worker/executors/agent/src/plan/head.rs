//! How a line of the plan begins: as a node, as the join, or as text.

/// Most bytes from a node's number to its arguments, and of a join's line; longer ones are text.
const MAX_HEAD: usize = 4 * 1024;
/// Most bytes of a tool's name.
const MAX_NAME: usize = 128;

/// What the text begins with. More text never changes any of these but `More`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// A call: `bytes` to the bracket that opens its arguments, or past `()`, or up to the line after a bare name.
    Node { number: &'a str, tool: &'a str, args: Args, bytes: usize },
    /// The join: `bytes` to the end of its line.
    Join { join: JoinLine, bytes: usize },
    /// Neither.
    Text,
    /// The decision needs more text.
    More,
}

/// What follows a node's tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Args {
    /// An object begins.
    Object,
    /// `()`.
    Nothing,
    /// Nothing on the line: a call without arguments where there is such a tool, else text.
    Bare,
    /// Something else: bad arguments where there is such a tool, else text.
    Other,
}

/// `join`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JoinLine {
    /// `None`: all.
    pub need: Option<u32>,
    /// Empty: every node of the plan.
    pub nodes: Vec<u32>,
}

/// Reads the beginning of `text`, whose first character is no white space. `last`: nothing follows `text`.
pub(super) fn read(text: &str, last: bool) -> Head<'_> {
    match decide(text, last) {
        Head::More if last || text.len() > MAX_HEAD => Head::Text,
        Head::Node { bytes, .. } | Head::Join { bytes, .. } if bytes > MAX_HEAD => Head::Text,
        head => head,
    }
}

fn decide(text: &str, last: bool) -> Head<'_> {
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    if rest.is_empty() {
        return Head::More;
    }
    let named = if number.is_empty() {
        rest
    } else {
        let after = rest.strip_prefix(['.', ')', ':']).unwrap_or(rest);
        let named = after.trim_start_matches([' ', '\t']);
        if named.is_empty() {
            return Head::More;
        }
        if named.len() == rest.len() {
            return Head::Text;
        }
        named
    };
    // Closers too: inside of arguments, a line is known to be no head at once.
    let name_end = named.find(|c: char| c.is_whitespace() || "(){}[]\",".contains(c)).unwrap_or(named.len());
    let (name, rest) = named.split_at(name_end);
    if name.trim_end_matches(['.', ';', ':']) == "join" {
        return join(text, rest, last);
    }
    if number.is_empty() {
        return if rest.is_empty() && "join".starts_with(name) { Head::More } else { Head::Text };
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return Head::Text;
    }
    if rest.is_empty() && !last {
        return Head::More;
    }
    let args = rest.trim_start();
    let bytes = text.len() - args.len();
    let node = |args, bytes| Head::Node { number, tool: name, args, bytes };
    match args.as_bytes().first() {
        Some(b'{') => node(Args::Object, bytes),
        Some(b'(') => {
            let inner = args[1..].trim_start();
            let bytes = text.len() - inner.len();
            match inner.as_bytes().first() {
                Some(b'{') => node(Args::Object, bytes),
                Some(b')') => node(Args::Nothing, bytes + 1),
                Some(_) => node(Args::Other, bytes),
                None => Head::More,
            }
        }
        None if !last => Head::More,
        _ if args.is_empty() || rest[..rest.len() - args.len()].contains('\n') => node(Args::Bare, bytes),
        _ => node(Args::Other, bytes),
    }
}

/// `rest` is what follows `join` in `text`.
fn join<'a>(text: &'a str, rest: &str, last: bool) -> Head<'a> {
    let line = match rest.find('\n') {
        Some(end) => &rest[..end],
        None if last => rest,
        None => return Head::More,
    };
    let bytes = text.len() - rest.len() + line.len();
    match join_line(line) {
        Some(join) => Head::Join { join, bytes },
        None => Head::Text,
    }
}

/// ` 2 3`, ` any 2 3`, ` 2 of 1 2 3`, `()`, `(2, $3)`, nothing.
fn join_line(line: &str) -> Option<JoinLine> {
    let is_filler = |c: char| c.is_whitespace() || "(){}[],;.$`".contains(c);
    let mut words = line.split(is_filler).filter(|word| !word.is_empty()).peekable();
    let (mut need, mut nodes) = (None, Vec::new());
    match words.peek() {
        Some(&"any") => {
            need = Some(1);
            words.next();
        }
        Some(&"all") => {
            words.next();
        }
        _ => {}
    }
    while let Some(word) = words.next() {
        match word {
            "of" if need.is_none() && nodes.len() == 1 => need = nodes.pop(),
            "of" if nodes.is_empty() => {}
            "all" | "and" if words.peek().is_none() || word == "and" => {}
            number => nodes.push(number.parse().ok().filter(|&n| n > 0)?),
        }
    }
    Some(JoinLine { need, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_as_models_write_them() {
        for (line, need, nodes) in [
            ("", None, vec![]),
            (" 2 3", None, vec![2, 3]),
            ("()", None, vec![]),
            (" {}", None, vec![]),
            ("(2, $3).", None, vec![2, 3]),
            (" any 2 3", Some(1), vec![2, 3]),
            (" any", Some(1), vec![]),
            (" any of 2 3", Some(1), vec![2, 3]),
            (" 2 of 1 2 3", Some(2), vec![1, 2, 3]),
            (" 2 of", Some(2), vec![]),
            (" 2 of all", Some(2), vec![]),
            (" all", None, vec![]),
            (" 2 and 3", None, vec![2, 3]),
        ] {
            assert_eq!(join_line(line), Some(JoinLine { need, nodes }), "{line}");
        }
        for line in [" us", " the 2 results", " 2 3 of 4", " 0", " 2 of 3 of 4", " 99999999999"] {
            assert_eq!(join_line(line), None, "{line}");
        }
    }

    #[test]
    fn heads_that_nobody_ends_are_text() {
        let long = format!("1 search{}", " ".repeat(MAX_HEAD));
        assert_eq!(read(&long, false), Head::Text);
        assert_eq!(read(&format!("{long}{{"), false), Head::Text);
        assert_eq!(read(&long[..100], false), Head::More);
        assert_eq!(read(&format!("1 {}", "x".repeat(MAX_NAME + 1)), false), Head::Text);
        assert_eq!(read(&"9".repeat(MAX_HEAD + 1), false), Head::Text);
    }
}
