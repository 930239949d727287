//! The fence around expressions: what a source may be before it is parsed, and what it may do after.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Expression as Tree;

use super::functions;

/// Longest source, in characters.
pub const MAX_CHARS: usize = 1_024;
/// Deepest nesting of brackets.
const MAX_BRACKETS: usize = 16;
/// Most prefix operators in a row.
const MAX_PREFIXES: usize = 8;
/// Most operators, brackets and member accesses.
const MAX_OPERATORS: usize = 150;
/// Most levels of the parsed tree; evaluating one takes some 20 KiB of stack in a debug build.
const MAX_DEPTH: usize = 24;
/// Functions of the standard library and its extensions that may be called, besides our own.
pub(super) const TAME: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "timestamp",
    "duration",
    "type",
    "dyn",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "upperAscii",
    "trim",
    "split",
    "substring",
    "reverse",
    "slice",
    "sort",
    "ceil",
    "floor",
    "trunc",
    "abs",
    "sign",
    "sqrt",
    "isInf",
    "isNaN",
    "isFinite",
];
/// Functions that multiply their input; ours, of the same meaning, bound it.
const BOUNDED: &[(&str, &str)] = &[("replace", "@replace"), ("join", "@join"), ("round", "@round")];
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// The function that every turn of a comprehension calls; no source can spell it.
pub(super) const TURN: &str = "@turn";
/// The function that is called for every part of a list or map that is no literal.
pub(super) const PART: &str = "@part";
/// What stands for `+`.
pub(super) const ADD: &str = "@add";

/// What the parser may see at all. Brackets and operators inside of texts count too: a source that hides them
/// there is refused rather than understood.
pub(super) fn check_source(source: &str) -> Result<(), String> {
    let (mut brackets, mut deepest, mut prefixes, mut longest, mut operators) = (0_usize, 0, 0, 0, 0);
    let mut characters = 0;
    for character in source.chars() {
        characters += 1;
        match character {
            '(' | '[' | '{' => brackets += 1,
            ')' | ']' | '}' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        match character {
            '!' | '-' => prefixes += 1,
            c if c.is_whitespace() => {}
            _ => prefixes = 0,
        }
        if matches!(
            character,
            '.' | '+' | '-' | '*' | '/' | '%' | '?' | '&' | '|' | '<' | '>' | '=' | '[' | '('
        ) {
            operators += 1;
        }
        deepest = deepest.max(brackets);
        longest = longest.max(prefixes);
    }
    if source.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let limit = |found, most, what| {
        if found > most { Err(format!("it has more than {most} {what}")) } else { Ok(()) }
    };
    limit(characters, MAX_CHARS, "characters")?;
    limit(deepest, MAX_BRACKETS, "brackets inside each other")?;
    limit(longest, MAX_PREFIXES, "`!` or `-` in a row")?;
    limit(operators, MAX_OPERATORS, "operators")?;
    limit(source.matches('?').count(), MAX_BRACKETS, "`?`")?;
    let ins = source.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| *word == "in").count();
    limit(ins, MAX_BRACKETS, "`in`")
}

/// What is read of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Its fields of these names.
    Fields(BTreeSet<String>),
    /// All of it, or fields that only a record can name.
    Everything,
}

impl Reads {
    /// Reads nothing.
    pub const NOTHING: Self = Self::Fields(BTreeSet::new());

    /// Reads the field `name`.
    pub fn field(name: &str) -> Self {
        Self::Fields(BTreeSet::from([name.to_owned()]))
    }

    /// Reads this and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fields(mut one), Self::Fields(other)) => {
                one.extend(other);
                Self::Fields(one)
            }
            _ => Self::Everything,
        }
    }

    /// Whether something is read by both.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fields(one), Self::Fields(other)) => !one.is_disjoint(other),
            (one, other) => *one != Self::NOTHING && *other != Self::NOTHING,
        }
    }
}

/// Checks a parsed tree and puts the budget into its comprehensions.
struct Fence {
    /// Variables of the comprehensions around.
    scope: Vec<String>,
    depth: usize,
    reads: Reads,
}

/// Checks a parsed tree, and makes its comprehensions draw on the budget; says what it reads of `record`.
///
/// # Errors
/// One sentence that says what is not allowed.
pub(super) fn fence_in(tree: &mut Tree) -> Result<Reads, String> {
    let mut fence = Fence { scope: Vec::new(), depth: 0, reads: Reads::NOTHING };
    fence.walk(tree, 0)?;
    Ok(fence.reads)
}

impl Fence {
    fn walk(&mut self, tree: &mut Tree, comprehensions: usize) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it has more than {MAX_DEPTH} levels"));
        }
        self.walk_parts(tree, comprehensions)?;
        self.depth -= 1;
        Ok(())
    }

    fn walk_parts(&mut self, tree: &mut Tree, comprehensions: usize) -> Result<(), String> {
        if let Some(field) = field_of_record(tree) {
            self.reads = std::mem::replace(&mut self.reads, Reads::NOTHING).and(Reads::field(field));
            return Ok(());
        }
        match &mut tree.expr {
            Expr::Unspecified => Err("it has a part without meaning".to_owned()),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.walk(&mut select.operand, comprehensions),
            Expr::Struct(_) => {
                Err("it makes a message; only texts, numbers, lists and maps are known".to_owned())
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|item| self.part(item, comprehensions)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.part(&mut entry.key, comprehensions)?;
                    self.part(&mut entry.value, comprehensions)
                }
                EntryExpr::StructField(field) => self.walk(&mut field.value, comprehensions),
            }),
            Expr::Call(call) => self.call(call, comprehensions),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, comprehensions + 1),
        }
    }

    /// A part of a list or map, which becomes a copy of what it names.
    fn part(&mut self, tree: &mut Tree, comprehensions: usize) -> Result<(), String> {
        self.walk(tree, comprehensions)?;
        if !matches!(tree.expr, Expr::Literal(_) | Expr::List(_) | Expr::Map(_)) {
            wrap(tree, PART);
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        if name == "record" {
            self.reads = Reads::Everything;
        }
        let known = matches!(name, "record" | "value")
            || name.starts_with('@')
            || TYPES.contains(&name)
            || self.scope.iter().any(|variable| variable == name);
        if known {
            Ok(())
        } else {
            Err(format!("`{name}` is no variable here; there are `value` and `record`"))
        }
    }

    fn call(&mut self, call: &mut CallExpr, comprehensions: usize) -> Result<(), String> {
        let math =
            matches!(call.target.as_deref(), Some(Tree { expr: Expr::Ident(name), .. }) if name == "math");
        if let Some(target) = call.target.as_deref_mut().filter(|_| !math) {
            self.walk(target, comprehensions)?;
        }
        call.args.iter_mut().try_for_each(|arg| self.walk(arg, comprehensions))?;
        if call.func_name == operators::ADD && !call.args.first().is_some_and(gathers) {
            call.func_name = ADD.to_owned();
        }
        let name = call.func_name.as_str();
        let operator = !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.starts_with("math.@");
        if math {
            return if operator || TAME.contains(&name) || name == "round" {
                Ok(())
            } else {
                Err(unknown(name))
            };
        }
        if let Some((_, bounded)) = BOUNDED.iter().find(|(wild, _)| *wild == name) {
            call.func_name = (*bounded).to_owned();
            return Ok(());
        }
        if operator || TAME.contains(&name) || functions::NAMES.contains(&name) {
            Ok(())
        } else {
            Err(unknown(name))
        }
    }

    fn comprehension(&mut self, parts: &mut ComprehensionExpr, depth: usize) -> Result<(), String> {
        if depth > 2 {
            return Err(
                "it has more than one comprehension inside another (`all`, `exists`, `map`, `filter`)"
                    .to_owned(),
            );
        }
        // The list is evaluated once, outside of the loop.
        self.walk(&mut parts.iter_range, depth - 1)?;
        self.walk(&mut parts.accu_init, depth - 1)?;
        let outer = self.scope.len();
        self.scope.push(parts.iter_var.clone());
        self.scope.extend(parts.iter_var2.clone());
        self.scope.push(parts.accu_var.clone());
        self.walk(&mut parts.loop_cond, depth)?;
        self.walk(&mut parts.loop_step, depth)?;
        self.walk(&mut parts.result, depth)?;
        self.scope.truncate(outer);
        draw(turn_of(parts));
        Ok(())
    }
}

/// The name of the field that `tree` is, spelt `record.name` or `record['name']`.
fn field_of_record(tree: &Tree) -> Option<&str> {
    let record = |tree: &Tree| matches!(&tree.expr, Expr::Ident(name) if name == "record");
    match &tree.expr {
        Expr::Select(select) if record(&select.operand) => Some(&select.field),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [of, Tree { expr: Expr::Literal(LiteralValue::String(name)), .. }] if record(of) => {
                Some(name.inner())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether `tree` is what a comprehension gathers, to which its turns add; no source can spell it.
fn gathers(tree: &Tree) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name.starts_with('@'))
}

/// The part of a comprehension that every turn evaluates and that may be wrapped without its losing the
/// evaluator's short cut for `map` and `filter` (which looks at the shape of condition and step).
fn turn_of(parts: &mut ComprehensionExpr) -> &mut Tree {
    if !matches!(parts.loop_cond.expr, Expr::Literal(_)) {
        return &mut parts.loop_cond;
    }
    let Expr::Call(step) = &mut parts.loop_step.expr else { return &mut parts.loop_cond };
    match step.args.as_mut_slice() {
        [condition, _, _] => condition,
        [_, Tree { expr: Expr::List(list), .. }] => list.elements.first_mut().unwrap_or(&mut parts.loop_cond),
        _ => &mut parts.loop_cond,
    }
}

/// Makes `tree` draw on the budget as a turn, rather than as a part only.
fn draw(tree: &mut Tree) {
    match &mut tree.expr {
        Expr::Call(call) if call.func_name == PART => call.func_name = TURN.to_owned(),
        _ => wrap(tree, TURN),
    }
}

/// Wraps `tree` in a call that draws on the budget and returns its argument.
fn wrap(tree: &mut Tree, name: &str) {
    let inner = std::mem::take(tree);
    tree.id = inner.id;
    tree.expr = Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args: vec![inner] });
}

fn unknown(name: &str) -> String {
    format!("there is no function `{name}` here")
}
