//! Filters and transforms: the Common Expression Language (<https://cel.dev>), fenced in so that no text can
//! hang, flood or crash the process.
//!
//! The language has no step budget of its own, its parser recurses and some of its functions multiply their
//! input. So a source is short and shallow before it is parsed, only functions known to be tame can be
//! called, comprehensions nest once, and every turn of a comprehension, every part of a list or map and every `+` draws
//! on a budget.

use std::cell::OnceCell;
use std::sync::Arc;

use cel::common::types::DYN_TYPE;
use cel::objects::{Key, Map as CelMap};
use cel::parser::Expression as Tree;
use cel::{Context, Env, ExecutionError, Value as Cel, extensions};
use serde_json::{Map, Number, Value};

use super::budget::{self, MAX_COPIED, left};
use super::convert::quoted;
use super::fence::{ADD, PART, Reads, TURN, check_source, fence_in};
use super::functions;

/// Stack of the thread that parses, in bytes.
const PARSER_STACK: usize = 32 << 20;
/// Largest record that expressions see, in bytes of text.
const MAX_RECORD: usize = 256 << 10;

thread_local! {
    static ROOT: Context<'static, 'static> = root();
}

/// A compiled expression over `value` and `record`.
#[derive(Clone, Debug)]
pub struct Expression {
    tree: Arc<Tree>,
    reads: Reads,
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn compile(source: &str) -> Result<Self, String> {
        check_source(source)?;
        // The parser recurses through all precedences at every level; what it accepts is then held shallow
        // enough for any thread.
        std::thread::scope(|scope| {
            let parser =
                std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, || parse(source));
            parser.ok()?.join().ok()
        })
        .unwrap_or_else(|| Err("it could not be parsed".to_owned()))
    }

    /// What it reads of the record.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The value of this expression for `value` (null where there is none) and a record.
    ///
    /// # Errors
    /// One sentence; it may quote the record.
    pub fn evaluate(&self, record: &Record<'_>, value: &Value) -> Result<Value, String> {
        ROOT.with(|root| {
            let mut scope = root.new_inner_scope();
            if self.reads != Reads::NOTHING {
                scope.add_variable_from_value("record", record.cel()?);
            }
            scope.add_variable_from_value("value", to_cel_bounded(value)?);
            budget::begin();
            let result = Cel::resolve_val(&self.tree, &scope).map_err(|error| sentence(&error))?;
            left(&*result, MAX_COPIED).ok_or("the result becomes too large")?;
            from_cel(&result.as_ref().try_into().map_err(|error| sentence(&error))?)
        })
    }

    /// The same for a filter, whose value must be true or false.
    ///
    /// # Errors
    /// One sentence; it may quote the record.
    pub fn holds(&self, record: &Record<'_>, value: &Value) -> Result<bool, String> {
        match self.evaluate(record, value)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("a filter must be true or false, not {}", kind_of(&other))),
        }
    }
}

fn parse(source: &str) -> Result<Expression, String> {
    let parsed = environment().parser().parse(source);
    let mut tree = parsed.map_err(|errors| first_line(&errors.to_string()))?;
    let reads = fence_in(&mut tree)?;
    Ok(Expression { tree: Arc::new(tree), reads })
}

/// A record as expressions see it; converted once, when first asked for.
#[derive(Debug)]
pub struct Record<'a> {
    fields: &'a Map<String, Value>,
    cel: OnceCell<Result<Cel, String>>,
}

impl<'a> Record<'a> {
    /// The record with these fields.
    pub fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, cel: OnceCell::new() }
    }

    /// Its fields.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.fields
    }

    fn cel(&self) -> Result<Cel, String> {
        self.cel
            .get_or_init(|| {
                let mut room = MAX_RECORD;
                map_to_cel(self.fields, &mut room).ok_or_else(too_large)
            })
            .clone()
    }
}

fn environment() -> Env {
    let mut env = Env::stdlib().with_optional_support(false);
    let added = [
        env.add_extension(extensions::strings),
        env.add_extension(extensions::math),
        env.add_extension(extensions::lists),
        env.add_overload(TURN, TURN, vec![DYN_TYPE], budget::turn),
        env.add_overload(PART, PART, vec![DYN_TYPE], budget::part),
        env.add_overload(ADD, ADD, vec![DYN_TYPE, DYN_TYPE], budget::add),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
    env
}

fn root() -> Context<'static, 'static> {
    let mut root = Context::with_env(Arc::new(environment()));
    for (name, function) in functions::all() {
        let added = root.add_function(name, function);
        debug_assert!(added.is_ok(), "{added:?}");
    }
    root
}

/// What an error of the evaluator means, without the values that it dumps.
fn sentence(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no field {}", quoted(key)),
        ExecutionError::UnsupportedKeyType(_) => "a map does not take such a key".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has one key twice".to_owned(),
        ExecutionError::FunctionError { function, message } => match function.as_str() {
            // These repeat the value in ways that grouping cannot leave out.
            "duration" => "duration: it takes a text such as '1h30m'".to_owned(),
            "matches" => "matches: the pattern is not valid".to_owned(),
            "timezone" => "the time zone is not known".to_owned(),
            name => format!("{}: {message}", name.trim_start_matches('@')),
        },
        ExecutionError::UnsupportedTargetType { .. } => "a function does not take such a value".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("'{operator}' does not take such values")
        }
        ExecutionError::NotSupportedAsMethod { method, .. } => {
            format!("'{method}' does not take such a value")
        }
        other => first_line(&other.to_string()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn too_large() -> String {
    format!("the record is larger than the {} KiB that expressions may see", MAX_RECORD >> 10)
}

fn to_cel_bounded(value: &Value) -> Result<Cel, String> {
    let mut room = MAX_RECORD;
    to_cel(value, &mut room).ok_or_else(too_large)
}

/// Whole numbers become `int`, others `double`: the crate's own conversion makes positive ones `uint`, which can be
/// compared with both, but not reckoned with. Only what is too large for an `int` is one, as a `double` would lose digits.
fn to_cel(value: &Value, room: &mut usize) -> Option<Cel> {
    *room = room.checked_sub(1)?;
    Some(match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None => match number.as_u64() {
                Some(whole) => Cel::UInt(whole),
                None => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
        },
        Value::String(text) => {
            *room = room.checked_sub(text.len())?;
            Cel::from(text.as_str())
        }
        Value::Array(items) => {
            let items: Option<Vec<Cel>> = items.iter().map(|item| to_cel(item, room)).collect();
            Cel::List(Arc::new(items?))
        }
        Value::Object(fields) => map_to_cel(fields, room)?,
    })
}

fn map_to_cel(fields: &Map<String, Value>, room: &mut usize) -> Option<Cel> {
    let mut map = std::collections::HashMap::with_capacity(fields.len());
    for (name, value) in fields {
        *room = room.checked_sub(name.len())?;
        map.insert(Key::String(Arc::new(name.clone())), to_cel(value, room)?);
    }
    Some(Cel::Map(CelMap { map: Arc::new(map) }))
}

fn from_cel(value: &Cel) -> Result<Value, String> {
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => Value::Bool(*flag),
        Cel::Int(whole) => Value::from(*whole),
        Cel::UInt(whole) => Value::from(*whole),
        Cel::Float(number) => {
            Number::from_f64(*number).map(Value::Number).ok_or("the result is not a number")?
        }
        Cel::String(text) => Value::String(text.to_string()),
        Cel::List(items) => Value::Array(items.iter().map(from_cel).collect::<Result<_, _>>()?),
        Cel::Map(map) => {
            let mut fields = Vec::with_capacity(map.map.len());
            for (key, value) in map.map.iter() {
                fields.push((key.to_string(), from_cel(value)?));
            }
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Cel::Timestamp(moment) => {
            Value::String(moment.to_utc().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        }
        _ => return Err("the result is neither text, number, true or false, list nor map".to_owned()),
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(source: &str, value: Value) -> Result<Value, String> {
        let record = json!({
            "n": 3, "price": 2.5, "status": "paid", "email": " Ana@Example.com ", "tags": ["a", "b"], "none": null,
            "long": (0..5_000).collect::<Vec<_>>(), "lines": [{"sku": "x", "qty": 2}, {"sku": "y", "qty": 0}]
        });
        let fields = record.as_object().unwrap();
        Expression::compile(source)?.evaluate(&Record::new(fields), &value)
    }

    #[test]
    fn expressions_see_value_and_record() {
        for (source, value, expected) in [
            ("record.status in ['paid', 'partially_refunded']", Value::Null, json!(true)),
            ("record.n * 2", Value::Null, json!(6)),
            ("record.price * 1.5 > 3.0", Value::Null, json!(true)),
            ("value.trim().lowerAscii()", json!(" A "), json!("a")),
            ("has(record.missing) ? record.missing : 'none'", Value::Null, json!("none")),
            ("'SHOP-' + string(value)", json!(12), json!("SHOP-12")),
            ("{'lead': 'Lead', 'customer': 'Customer'}[value]", json!("lead"), json!("Lead")),
            ("record.lines.filter(l, l.qty > 0).map(l, l.sku)", Value::Null, json!(["x"])),
            ("record.lines.exists(l, l.sku == 'y')", Value::Null, json!(true)),
            ("value.split('-')[1]", json!("a-b"), json!("b")),
            ("value.substring(0, 2)", json!("abc"), json!("ab")),
            ("value.replace('a', 'bb')", json!("aca"), json!("bbcbb")),
            ("['a', 'b'].join('/')", Value::Null, json!("a/b")),
            ("math.round(value)", json!(2.6), json!(3.0)),
            ("math.greatest(value, 5)", json!(2), json!(5)),
            ("timestamp(value).getFullYear()", json!("2026-11-20T14:15:00Z"), json!(2026)),
            ("{'b': 1, 'a': [true]}", Value::Null, json!({"a": [true], "b": 1})),
            ("value", json!(1e300), json!(1e300)),
            ("concat('T-', value)", json!(18_446_744_073_709_551_614_u64), json!("T-18446744073709551614")),
            ("value", json!(9_223_372_036_854_775_808_u64), json!(9_223_372_036_854_775_808_u64)),
            ("value > 0 && value >= 1.5 && 7 < value && value != 7", json!(u64::MAX), json!(true)),
            (
                "string(value) + value.round().concat(to_integer(value))",
                json!(u64::MAX),
                json!(format!("{0}{0}{0}", u64::MAX)),
            ),
            ("lookup({18446744073709551615u: 'most'}, value)", json!(u64::MAX), json!("most")),
            ("to_number(value)", json!(u64::MAX), json!(18_446_744_073_709_551_615.0)),
            ("value", json!(i64::MAX), json!(i64::MAX)),
            ("value == null", Value::Null, json!(true)),
            ("[3, 1].sort()[0]", Value::Null, json!(1)),
        ] {
            assert_eq!(run(source, value), Ok(expected), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_before_a_record_is_read() {
        for (source, expected) in [
            ("", "empty"),
            ("value.trm()", "no function `trm`"),
            ("recrod.status", "`recrod` is no variable"),
            ("value +", "Syntax error"),
            ("record.items.map(x, y)", "`y` is no variable"),
            ("lists.range(1000000000)", "`lists` is no variable"),
            ("'%.1000000f'.format([1.0])", "no function `format`"),
            ("[1].distinct()", "no function `distinct`"),
            ("Foo{a: 1}", "message"),
        ] {
            let error = Expression::compile(source).unwrap_err();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }

    #[test]
    fn what_fails_for_a_record_is_one_sentence() {
        assert_eq!(run("record.nope", Value::Null), Err("there is no field 'nope'".to_owned()));
        assert_eq!(run("value + 1", json!("a")), Err("'add' does not take such values".to_owned()));
        assert!(run("1 / 0", Value::Null).unwrap_err().to_lowercase().contains("zero"));
        assert!(run("1.0 / 0.0", Value::Null).unwrap_err().contains("not a number"));
    }

    #[test]
    fn a_source_cannot_blow_the_stack() {
        let long = |piece: &str, times: usize| piece.repeat(times) + "true";
        for source in [
            long("!", 10_000),
            long("!", 1_000),
            format!("1{}", "+1".repeat(60)),
            long("! ", 500),
            long("-", 900),
            format!("{}1{}", "(".repeat(500), ")".repeat(500)),
            format!("{}1{}", "[".repeat(500), "]".repeat(500)),
            format!("1{}", " + 1".repeat(250)),
            format!("value{}", ".a".repeat(500)),
            format!("{}1", "true?1:".repeat(130)),
            format!("1{}", " in 1".repeat(200)),
        ] {
            assert!(Expression::compile(&source).unwrap_err().contains("more than"), "{source}");
        }
        // As deep as is allowed, evaluated with half the stack that a worker's thread has.
        let deepest = [
            format!("{}1{}", "(".repeat(16), ")".repeat(16)),
            format!("1{} > 2", "+1".repeat(21)),
            format!("{}1", "true?1:".repeat(16)),
            format!("value{}", ".a".repeat(23)),
            format!("value{}", "[0]".repeat(23)),
            format!("{}true", "!".repeat(8)),
            format!("true{}", "&&true".repeat(70)),
            format!("value{}", ".trim()".repeat(23)),
            format!("{}1{}", "[".repeat(16), "]".repeat(16)),
        ];
        let compiled = deepest
            .map(|source| Expression::compile(&source).unwrap_or_else(|error| panic!("{source}: {error}")));
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let ran = thread.spawn(move || {
            let fields = Map::new();
            compiled.map(|expression| expression.evaluate(&Record::new(&fields), &json!("a")).is_ok())
        });
        assert_eq!(ran.unwrap().join().unwrap(), [true, true, true, false, false, true, true, true, true]);
    }

    #[test]
    fn comprehensions_nest_once_and_draw_on_a_budget() {
        let deep = "record.long.all(a, record.long.all(b, record.long.all(c, a + b + c >= 0)))";
        assert!(Expression::compile(deep).unwrap_err().contains("more than one comprehension"));
        for source in [
            "record.long.all(a, record.long.all(b, a + b >= 0))",
            "record.long.exists(a, record.long.exists(b, a + b < 0))",
            "record.long.map(a, record.long.map(b, a + b)).size()",
            "record.long.filter(a, record.long.filter(b, a == b).size() == 1).size()",
            "record.long.exists_one(a, record.long.exists_one(b, a == b))",
        ] {
            assert!(run(source, Value::Null).unwrap_err().contains("too long"), "{source}");
        }
        assert_eq!(run("record.long.all(a, a >= 0)", Value::Null), Ok(json!(true)));
        assert_eq!(run("record.long.map(a, a + 1).size()", Value::Null), Ok(json!(5_000)));
    }

    #[test]
    fn what_multiplies_is_bounded() {
        let text = json!("a".repeat(2_000));
        for source in [
            "value.replace('a', value).replace('a', value)",
            "value.split('').join(value).split('').join(value)",
            "record.long.map(a, value + value).size()",
        ] {
            assert!(run(source, text.clone()).unwrap_err().contains("too l"), "{source}");
        }
        assert!(run("value.size()", json!("a".repeat(300 << 10))).unwrap_err().contains("256 KiB"));
    }

    #[test]
    fn lists_maps_and_sums_weigh_what_they_hold() {
        let record = json!({"t": "a".repeat(250_000), "tags": (0..1_000).collect::<Vec<_>>()});
        let run = |source: &str| {
            let fields = record.as_object().unwrap();
            Expression::compile(source)?.evaluate(&Record::new(fields), &Value::Null)
        };
        let copies = |times: usize| vec!["a"; times].join(",");
        let twelve = format!("[[{}]]", ["record.t"; 12].join(","));
        for source in [
            "record.tags.map(a, [record.t + record.t]).size()".to_owned(),
            "record.tags.filter(a, a >= 0).map(a, {'k': record.t}).size()".to_owned(),
            format!("{twelve}.map(a, [{}].size())", copies(200)),
            format!("{twelve}.all(a, {{'k': [{}]}}.size() == 1)", copies(200)),
            format!("{twelve}.map(a, coalesce({}).size())", copies(200)),
            format!("{twelve}.map(a, a + a).map(a, a + a)"),
            "record.tags.map(a, [record.t]).size()".to_owned(),
            "record.tags.map(a, {'k': [record.t]}).size()".to_owned(),
            "record.tags.map(a, {record.t: a}).size()".to_owned(),
            "record.tags.all(a, ([record.t] + [record.t]).size() == 2)".to_owned(),
            format!("({}).size()", ["record.t"; 20].join(" + ")),
            format!("[{}]", ["record.t"; 100].join(", ")),
        ] {
            let error = run(&source).unwrap_err();
            assert!(error.contains("too large"), "{source}: {error}");
        }
        for (source, expected) in [
            ("record.tags.map(a, {'tag': a, 'more': [a, 'x' + string(a)]}).size()", json!(1_000)),
            ("(record.t + record.t + record.t).size()", json!(750_000)),
            ("([1] + [2])[1] + 3", json!(5)),
            ("timestamp('2026-11-23T00:00:00Z') + duration('1h')", json!("2026-11-23T01:00:00Z")),
        ] {
            assert_eq!(run(source), Ok(expected), "{source}");
        }
    }
}
