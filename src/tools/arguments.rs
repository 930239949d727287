//! Reading arguments: leniently first (models write `"5"`, `"FAILED"`, `name` for `flow`), then strictly by
//! the published schema.

use std::collections::HashSet;

use jsonschema::Validator;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::{ArgumentError, ToolError};
use crate::domain::names::nearest_word;
use crate::domain::untrusted::{unfenced, word};

/// Other names that models use for an argument, where the tool has it and was not given it.
const ALIASES: &[(&str, &str)] = &[
    ("flow_name", "flow"),
    ("flow_id", "flow"),
    ("name", "flow"),
    ("id", "flow"),
    ("id", "run_id"),
    ("run", "run_id"),
    ("time_window", "window"),
    ("statuses", "status"),
    ("tz", "timezone"),
];

/// Longest argument text, in characters; schemas say less where less is meant.
const MAX_CHARS: usize = 2_000;
/// Longest name of an argument that is told, in characters.
const MAX_NAME_CHARS: usize = 64;
/// Mistakes that are told at once.
const MAX_ERRORS: usize = 5;

/// Reads the arguments of one tool.
pub(super) struct Reader {
    properties: Map<String, Value>,
    validator: Validator,
}

impl Reader {
    pub(super) fn new(tool: &str, schema: &Value) -> Self {
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        #[expect(clippy::panic, reason = "a mistake in a schema of ours, met at start-up")]
        let validator =
            jsonschema::validator_for(schema).unwrap_or_else(|error| panic!("schema of {tool}: {error}"));
        Self { properties, validator }
    }

    /// The arguments as the schema wants them.
    pub(super) fn read(&self, given: Map<String, Value>) -> Result<Value, ToolError> {
        let mut arguments = Map::new();
        let mut errors = Vec::new();
        // Other names count only where an argument was not given by its own.
        let (own, others): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|(name, _)| self.properties.contains_key(name));
        for (name, value) in own.into_iter().chain(others) {
            let value = plain(value);
            // Clients put bookkeeping of theirs beside the arguments.
            if name == "_meta" || is_absent(&value) {
                continue;
            }
            let (name, value) = self.renamed(name, value, &arguments);
            match self.properties.get(&name) {
                Some(property) => {
                    let value = loosened(value, property);
                    // A text may have been read as an empty list.
                    if !is_absent(&value) {
                        arguments.insert(name, value);
                    }
                }
                None if errors.len() < MAX_ERRORS => errors.push(self.unknown(&name)),
                None => {}
            }
        }
        let arguments = Value::Object(arguments);
        if errors.is_empty() {
            errors.extend(
                self.validator.iter_errors(&arguments).take(MAX_ERRORS).map(|error| self.wrong(&error)),
            );
        }
        if errors.is_empty() { Ok(arguments) } else { Err(ToolError::Arguments(errors)) }
    }

    fn renamed(&self, name: String, value: Value, so_far: &Map<String, Value>) -> (String, Value) {
        if self.properties.contains_key(&name) {
            return (name, value);
        }
        let lower = name.to_ascii_lowercase();
        let free = |meant: &str| self.properties.contains_key(meant) && !so_far.contains_key(meant);
        if free(&lower) {
            return (lower, value);
        }
        if free("window") && matches!(lower.as_str(), "hours" | "days" | "minutes") {
            let number = loosened(value, &json!({ "type": "integer" }));
            let number = number.as_str().map_or_else(|| number.to_string(), str::to_owned);
            return ("window".to_owned(), Value::String(format!("{number}{}", &lower[..1])));
        }
        for (alias, meant) in ALIASES {
            if *alias == lower && free(meant) {
                return ((*meant).to_owned(), value);
            }
        }
        (name, value)
    }

    fn unknown(&self, name: &str) -> ArgumentError {
        let shown = word(&name.chars().take(MAX_NAME_CHARS).collect::<String>());
        let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
        ArgumentError {
            path: format!("/{shown}"),
            message: format!("there is no argument `{shown}`"),
            expected: if known.is_empty() {
                "no arguments".to_owned()
            } else {
                format!("one of {}", known.join(", "))
            },
            did_you_mean: nearest_word(&name.to_ascii_lowercase(), known).map(str::to_owned),
        }
    }

    fn wrong(&self, error: &jsonschema::ValidationError<'_>) -> ArgumentError {
        let path = error.instance_path().to_string();
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let schema = self.properties.get(name);
        if name.is_empty() {
            // The root's only rule that can fail here is `required`.
            let missing = error.to_string();
            let missing = missing.split('"').nth(1).unwrap_or_default().to_owned();
            return ArgumentError {
                expected: self.properties.get(&missing).map_or_else(String::new, expected),
                message: format!("`{missing}` is required"),
                path: format!("/{missing}"),
                did_you_mean: None,
            };
        }
        ArgumentError {
            message: format!("`{name}` is not what it should be"),
            expected: schema.map_or_else(String::new, expected),
            did_you_mean: schema
                .and_then(|schema| allowed(schema))
                .and_then(|words| {
                    nearest_word(error.instance().as_str()?, words.iter().filter_map(Value::as_str))
                })
                .map(str::to_owned),
            path,
        }
    }
}

/// The input that the schema admitted.
pub(super) fn deserialize<T: DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|error| {
        // The schema admits a little more than the types (integers too large for them).
        ToolError::Arguments(vec![ArgumentError {
            path: String::new(),
            message: "an argument does not fit".to_owned(),
            expected: error.to_string().chars().take(120).collect(),
            did_you_mean: None,
        }])
    })
}

/// A text without U+0000, which PostgreSQL keeps in none, and without the marks of the data fence around it, which no
/// name has that we tell between them.
fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(unfenced(&text.replace('\0', "")).to_owned()),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        other => other,
    }
}

/// What models send for "not given".
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_absent),
        _ => false,
    }
}

/// `value` as `schema` wants it, where that is plain; anything else is left for the schema to refuse.
fn loosened(value: Value, schema: &Value) -> Value {
    match (schema["type"].as_str(), value) {
        (Some("integer"), Value::String(text)) => match text.trim().parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => Value::String(text),
        },
        (Some("integer"), Value::Number(number)) => match number.as_f64() {
            Some(whole) if number.as_i64().is_none() && whole.fract() == 0.0 && whole.abs() < 9e15 => {
                json!(whole as i64)
            }
            _ => Value::Number(number),
        },
        (Some("number"), Value::String(text)) => {
            match text.trim().trim_end_matches('%').trim().parse::<f64>() {
                Ok(number) if number.is_finite() => json!(number),
                _ => Value::String(text),
            }
        }
        (Some("boolean"), Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => json!(true),
            "false" | "no" | "0" => json!(false),
            _ => Value::String(text),
        },
        (Some("array"), Value::String(text)) => {
            let text = text.trim().trim_start_matches('[').trim_end_matches(']');
            let items = text.split(',').map(|item| item.trim().trim_matches(['"', '\'']));
            let items = items.filter(|item| !item.is_empty());
            distinct(items.map(|item| respelt(json!(item), &schema["items"])))
        }
        (Some("array"), Value::Array(items)) => distinct(
            items.into_iter().filter(|item| !is_absent(item)).map(|item| respelt(item, &schema["items"])),
        ),
        (Some("string"), Value::String(text)) => respelt(Value::String(text), schema),
        (Some("string"), Value::Number(number)) => Value::String(number.to_string()),
        (_, value) => value,
    }
}

/// A list without repetitions, which mean nothing where these tools take lists but would make answers long.
fn distinct(items: impl Iterator<Item = Value>) -> Value {
    let mut seen = HashSet::new();
    Value::Array(items.filter(|item| seen.insert(item.to_string())).collect())
}

/// A word of a closed list in the list's own spelling.
fn respelt(value: Value, schema: &Value) -> Value {
    let (Some(words), Some(text)) = (allowed(schema), value.as_str()) else { return value };
    let text = text.trim().replace([' ', '-'], "_");
    words
        .iter()
        .find(|word| word.as_str().is_some_and(|word| word.eq_ignore_ascii_case(&text)))
        .cloned()
        .unwrap_or(value)
}

fn allowed(schema: &Value) -> Option<&Vec<Value>> {
    schema["enum"].as_array().or_else(|| schema["items"]["enum"].as_array())
}

/// What a property's schema wants, in words.
fn expected(schema: &Value) -> String {
    if let Some(words) = allowed(schema) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        let some = if schema["type"] == "array" { "a list of" } else { "one of" };
        return format!("{some} {}", words.join(", "));
    }
    let kind = schema["type"].as_str().unwrap_or("a value");
    let mut text = match kind {
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        _ => "a text".to_owned(),
    };
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Null, Value::Null) => {}
        (low, high) => text.push_str(&format!(" from {low} to {high}")),
    }
    let most = schema["maxLength"].as_u64().unwrap_or(MAX_CHARS as u64);
    if kind == "string" {
        text.push_str(&format!(" of at most {most} characters"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader::new(
            "t",
            &json!({
                "type": "object", "additionalProperties": false, "required": ["flow"],
                "properties": {
                    "flow": { "type": "string", "minLength": 1, "maxLength": 20 },
                    "limit": { "type": "integer", "minimum": 1, "maximum": 200 },
                    "status": { "type": "array", "items": { "type": "string", "enum": ["failed", "partial"] } },
                    "type": { "type": "string", "enum": ["REST", "SQL_DB"] },
                    "window": { "type": "string" },
                    "deep": { "type": "boolean" },
                    "share": { "type": "number" }
                }
            }),
        )
    }

    fn read(given: Value) -> Result<Value, Vec<ArgumentError>> {
        let Value::Object(given) = given else { panic!() };
        reader().read(given).map_err(|error| match error {
            ToolError::Arguments(errors) => errors,
            _ => panic!(),
        })
    }

    #[test]
    fn what_models_write_is_understood() {
        assert_eq!(
            read(json!({
                "Flow": "orders", "limit": "5", "status": "FAILED, Partial", "type": "sql db", "hours": 24,
                "deep": "true", "share": "80%", "_meta": {}, "nothing": null
            })),
            Ok(json!({
                "flow": "orders", "limit": 5, "status": ["failed", "partial"], "type": "SQL_DB", "window": "24h",
                "deep": true, "share": 80.0
            }))
        );
        assert_eq!(
            read(json!({ "flow_name": "orders", "limit": 5.0, "type": "" })),
            Ok(json!({ "flow": "orders", "limit": 5 }))
        );
        assert_eq!(
            read(json!({ "flow": 7, "status": ["FAILED"] })),
            Ok(json!({ "flow": "7", "status": ["failed"] }))
        );
        assert_eq!(
            read(json!({ "flow": "<<data a b: c, d? data>>", "status": ["<<data failed data>>"] })),
            Ok(json!({ "flow": "a b: c, d?", "status": ["failed"] }))
        );
        for whole in [json!(24), json!(24.0), json!("24")] {
            assert_eq!(
                read(json!({ "flow": "x", "window": null, "hours": whole })),
                Ok(json!({ "flow": "x", "window": "24h" }))
            );
        }
        for empty in [json!([]), json!([""]), json!([null, []]), json!("[]"), json!(" , "), json!("[\"\"]")] {
            assert_eq!(read(json!({ "flow": "x", "status": empty })), Ok(json!({ "flow": "x" })), "{empty}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_explained() {
        let errors = read(json!({ "flow": "x", "limitt": 5 })).unwrap_err();
        assert_eq!(errors[0].did_you_mean.as_deref(), Some("limit"));
        let errors = read(json!({ "limit": 500 })).unwrap_err();
        assert_eq!(errors.len(), 2);
        let missing = errors.iter().find(|error| error.path == "/flow").unwrap();
        assert_eq!(missing.message, "`flow` is required");
        let range = errors.iter().find(|error| error.path == "/limit").unwrap();
        assert_eq!(range.expected, "a whole number from 1 to 200");
        for twice in [
            json!({ "flow": "x", "window": "7d", "hours": 24 }),
            json!({ "flow": "x", "hours": 24, "window": "7d" }),
            json!({ "flow": "x", "days": 7, "hours": 24 }),
            json!({ "flow_name": "y", "flow": "x" }),
            json!({ "FLOW": "y", "flow": "x" }),
        ] {
            let errors = read(twice.clone()).unwrap_err();
            assert!(errors[0].message.starts_with("there is no argument"), "{twice}: {errors:?}");
        }
        let errors = read(json!({ "flow": "x", "status": ["fail"] })).unwrap_err();
        assert_eq!(errors[0].did_you_mean.as_deref(), Some("failed"));
        for wrong in [
            json!({ "flow": [] }),
            json!({ "flow": {} }),
            json!({ "flow": "x", "limit": 1.5 }),
            json!({ "flow": "x", "limit": 1e300 }),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
