//! What a template refers to, found in its syntax tree; and its cheap form where it has no statements.

use std::collections::HashSet;

use minijinja::{
    machinery::{Token, ast, parse, tokenize},
    syntax::SyntaxConfig,
};

use super::{
    Part,
    engine::{GLOBALS, engine, has_filter, has_test},
    path::{Path, Step},
};

/// Tokens of one `{{ … }}` or `{% … %}`; the parser and the compiler recurse along them.
const MAX_TAG_TOKENS: usize = 500;
/// Brackets inside each other in an expression.
const MAX_BRACKETS: usize = 32;
/// `{% … %}` in one template.
const MAX_STATEMENTS: usize = 200;

/// `+` in one expression: of two lists it makes a third one, which minijinja's fuel does not pay for.
const MAX_PLUS: usize = 8;

/// A name that a template takes from outside, and where it stands in the template (both from 1).
#[derive(Debug)]
pub(crate) struct Root {
    pub name: String,
    pub line: u32,
    pub column: u32,
}

/// What a template is made of.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    /// In the order of the template, without repeats.
    pub roots: Vec<Root>,
    /// References printed as they are, outside any statement.
    pub paths: Vec<Path>,
    /// The template in pieces, if it has no statements.
    pub parts: Option<Vec<Part>>,
}

/// Parses `source`; the error says what is wrong and where.
pub(crate) fn analyse(source: &str) -> Result<Analysis, String> {
    let expressions = measure(source)?;
    let tree = parse(source, "template", SyntaxConfig::default()).map_err(|error| describe(&error))?;
    let ast::Stmt::Template(template) = &tree else { return Ok(Analysis::default()) };
    let mut walk =
        Walk { names: vec![HashSet::new()], binding: false, seen: HashSet::new(), roots: Vec::new() };
    for child in &template.children {
        walk.statement(child)?;
    }
    // minijinja's own list leaves out what is sliced (`x` in `x[1:]`), so expressions get all the template's names
    let names: Vec<String> = walk.roots.iter().map(|root| root.name.clone()).collect();
    let mut analysis = Analysis { roots: walk.roots, ..Analysis::default() };
    let pieces: Option<Vec<Piece<'_, '_>>> = template.children.iter().map(Piece::of).collect();
    let Some(pieces) = pieces else { return Ok(analysis) };
    let mut parts = Vec::with_capacity(pieces.len());
    let mut sources = expressions.into_iter();
    for piece in pieces {
        match piece {
            Piece::Text(text) => parts.push(Part::Text(text.to_owned())),
            Piece::Emit(expression) => {
                let source = sources.next().unwrap_or_default();
                if let Some(path) = plain(expression) {
                    analysis.paths.push(path.clone());
                    parts.push(Part::Path(path));
                } else {
                    parts.push(compile(source, &names)?);
                }
            }
        }
    }
    analysis.parts = Some(parts);
    Ok(analysis)
}

fn compile(source: &str, roots: &[String]) -> Result<Part, String> {
    let compiled = engine().compile_expression_owned(source.to_owned()).map_err(|error| describe(&error))?;
    Ok(Part::Expression { compiled, roots: roots.to_vec(), source: source.trim().to_owned() })
}

fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("template error in line {line} of the text: {detail}"),
        None => format!("template error: {detail}"),
    }
}

/// Bounds the size of each tag before anything recurses along it; answers with the source of each `{{ … }}`.
fn measure(source: &str) -> Result<Vec<&str>, String> {
    let (mut tokens, mut statements, mut brackets, mut plus) = (0, 0, 0_usize, 0);
    let (mut start, mut expressions) = (0, Vec::new());
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let (token, span) = token.map_err(|error| describe(&error))?;
        tokens += 1;
        match token {
            Token::VariableStart => {
                (tokens, brackets, plus) = (0, 0, 0);
                start = span.end_offset as usize;
            }
            Token::VariableEnd => {
                expressions.push(source.get(start..span.start_offset as usize).unwrap_or_default());
            }
            Token::BlockStart => {
                (tokens, brackets, plus) = (0, 0, 0);
                statements += 1;
            }
            Token::Plus => plus += 1,
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                brackets = brackets.saturating_sub(1);
            }
            _ => {}
        }
        if tokens > MAX_TAG_TOKENS || brackets > MAX_BRACKETS {
            return Err(format!(
                "an expression has more than {MAX_TAG_TOKENS} words or {MAX_BRACKETS} nested brackets"
            ));
        }
        if plus > MAX_PLUS {
            return Err(format!("an expression has more than {MAX_PLUS} `+`"));
        }
        if statements > MAX_STATEMENTS {
            return Err(format!("a template has more than {MAX_STATEMENTS} statements"));
        }
    }
    Ok(expressions)
}

enum Piece<'t, 's> {
    Text(&'s str),
    Emit(&'t ast::Expr<'s>),
}

impl<'t, 's> Piece<'t, 's> {
    fn of(statement: &'t ast::Stmt<'s>) -> Option<Self> {
        match statement {
            ast::Stmt::EmitRaw(raw) => Some(Self::Text(raw.raw)),
            ast::Stmt::EmitExpr(emit) => Some(Self::Emit(&emit.expr)),
            _ => None,
        }
    }
}

fn plain(expression: &ast::Expr<'_>) -> Option<Path> {
    let mut steps = Vec::new();
    let mut at = expression;
    loop {
        match at {
            ast::Expr::Var(var) if !GLOBALS.contains(&var.id) => {
                steps.reverse();
                return Some(Path { root: var.id.to_owned(), steps });
            }
            ast::Expr::GetAttr(attr) => {
                steps.push(Step::Key(attr.name.to_owned()));
                at = &attr.expr;
            }
            ast::Expr::GetItem(item) => {
                let ast::Expr::Const(constant) = &item.subscript_expr else { return None };
                steps.push(match constant.value.as_str() {
                    Some(key) => Step::Key(key.to_owned()),
                    None if constant.value.is_number() => Step::Index(constant.value.as_i64()?),
                    None => return None,
                });
                at = &item.expr;
            }
            _ => return None,
        }
    }
}

struct Walk<'s> {
    names: Vec<HashSet<&'s str>>,
    /// Inside what a name is bound to. Bound values that are put together from bound values double with each
    /// step, so a few lines would fill any memory: here they can only be picked apart.
    binding: bool,
    seen: HashSet<&'s str>,
    roots: Vec<Root>,
}

impl<'s> Walk<'s> {
    fn bind(&mut self, target: &ast::Expr<'s>) {
        match target {
            ast::Expr::Var(var) => {
                if let Some(names) = self.names.last_mut() {
                    names.insert(var.id);
                }
            }
            ast::Expr::List(list) => list.items.iter().for_each(|item| self.bind(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.bind(item)),
            _ => {}
        }
    }

    fn body(&mut self, body: &[ast::Stmt<'s>]) -> Result<(), String> {
        self.names.push(HashSet::new());
        let walked = body.iter().try_for_each(|statement| self.statement(statement));
        self.names.pop();
        walked
    }

    fn statement(&mut self, statement: &ast::Stmt<'s>) -> Result<(), String> {
        match statement {
            ast::Stmt::Template(template) => self.body(&template.children),
            ast::Stmt::EmitRaw(_) => Ok(()),
            ast::Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            ast::Stmt::ForLoop(each) => {
                match &each.iter {
                    ast::Expr::List(list) => list.items.iter().try_for_each(|item| self.bound(item))?,
                    iter => self.bound(iter)?,
                }
                self.names.push(HashSet::from(["loop"]));
                self.bind(&each.target);
                let walked = each
                    .filter_expr
                    .iter()
                    .try_for_each(|filter| self.expression(filter))
                    .and_then(|()| self.body(&each.body));
                self.names.pop();
                walked.and_then(|()| self.body(&each.else_body))
            }
            ast::Stmt::IfCond(cond) => {
                self.expression(&cond.expr)?;
                self.body(&cond.true_body)?;
                self.body(&cond.false_body)
            }
            ast::Stmt::WithBlock(with) => {
                self.names.push(HashSet::new());
                let walked = with.assignments.iter().try_for_each(|(target, value)| {
                    let walked = self.bound(value);
                    self.bind(target);
                    walked
                });
                let walked = walked.and_then(|()| self.body(&with.body));
                self.names.pop();
                walked
            }
            ast::Stmt::Set(set) => {
                self.bound(&set.expr)?;
                self.bind(&set.target);
                Ok(())
            }
            ast::Stmt::FilterBlock(block) => {
                self.expression(&block.filter)?;
                self.body(&block.body)
            }
            _ => Err(
                "include, import, extends, block, macro, call, do, autoescape and a set without `=` are not \
                      supported in templates"
                    .to_owned(),
            ),
        }
    }

    /// What a name is bound to.
    fn bound(&mut self, value: &ast::Expr<'s>) -> Result<(), String> {
        self.binding = true;
        let walked = self.expression(value);
        self.binding = false;
        walked
    }

    /// Whether a list or an object may be written out here.
    fn literal(&self, constant: bool) -> Result<(), String> {
        if self.binding && !constant {
            return Err(
                "lists and objects of values can't be written out in `set`, `with` and `for`".to_owned()
            );
        }
        Ok(())
    }

    fn call(&mut self, call: &ast::Call<'s>) -> Result<(), String> {
        if let ast::Expr::Var(var) = &call.expr
            && !GLOBALS.contains(&var.id)
            && !self.names.iter().any(|names| names.contains(var.id))
        {
            return Err(format!(
                "unknown function `{}`{}",
                var.id,
                crate::problem::hint(var.id, GLOBALS.iter().copied())
            ));
        }
        self.expression(&call.expr)?;
        self.arguments(&call.args)
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'s>]) -> Result<(), String> {
        arguments.iter().try_for_each(|argument| match argument {
            ast::CallArg::Pos(value)
            | ast::CallArg::Kwarg(_, value)
            | ast::CallArg::PosSplat(value)
            | ast::CallArg::KwargSplat(value) => self.expression(value),
        })
    }

    fn expression(&mut self, expression: &ast::Expr<'s>) -> Result<(), String> {
        match expression {
            ast::Expr::Var(var) => {
                let bound =
                    GLOBALS.contains(&var.id) || self.names.iter().any(|names| names.contains(var.id));
                if !bound && self.seen.insert(var.id) {
                    let span = var.span();
                    self.roots.push(Root {
                        name: var.id.to_owned(),
                        line: span.start_line.into(),
                        column: u32::from(span.start_col) + 1,
                    });
                }
                Ok(())
            }
            ast::Expr::Const(_) => Ok(()),
            ast::Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                [&slice.start, &slice.stop, &slice.step]
                    .into_iter()
                    .flatten()
                    .try_for_each(|bound| self.expression(bound))
            }
            ast::Expr::UnaryOp(op) => self.expression(&op.expr),
            ast::Expr::BinOp(op) => {
                if self.binding && matches!(op.op, ast::BinOpKind::Add) {
                    return Err(
                        "`+` can't be used in `set`, `with` and `for`: use it where the value is printed"
                            .to_owned(),
                    );
                }
                self.expression(&op.left)?;
                self.expression(&op.right)
            }
            ast::Expr::Compare(compare) => {
                self.expression(&compare.expr)?;
                compare.ops.iter().try_for_each(|op| self.expression(&op.expr))
            }
            ast::Expr::IfExpr(cond) => {
                self.expression(&cond.test_expr)?;
                self.expression(&cond.true_expr)?;
                cond.false_expr.iter().try_for_each(|value| self.expression(value))
            }
            ast::Expr::Filter(filter) => {
                if !has_filter(filter.name) {
                    return Err(format!("unknown filter `{}`", filter.name));
                }
                filter.expr.iter().try_for_each(|value| self.expression(value))?;
                self.arguments(&filter.args)
            }
            ast::Expr::Test(test) => {
                if !has_test(test.name) {
                    return Err(format!("unknown test `{}`", test.name));
                }
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            ast::Expr::GetAttr(attr) => self.expression(&attr.expr),
            ast::Expr::GetItem(item) => {
                self.expression(&item.expr)?;
                self.expression(&item.subscript_expr)
            }
            ast::Expr::Call(call) => self.call(call),
            ast::Expr::List(list) => {
                self.literal(list.as_const().is_some())?;
                list.items.iter().try_for_each(|item| self.expression(item))
            }
            ast::Expr::Tuple(tuple) => {
                self.literal(tuple.as_const().is_some())?;
                tuple.items.iter().try_for_each(|item| self.expression(item))
            }
            ast::Expr::Map(map) => {
                self.literal(map.as_const().is_some())?;
                map.keys.iter().chain(&map.values).try_for_each(|value| self.expression(value))
            }
        }
    }
}
