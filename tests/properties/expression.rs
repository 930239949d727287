//! An expression, and after a line break the record that it is asked about.

use apixx_mcp::engine::expression::{Expression, Record};
use serde_json::{Map, Value, json};

/// Longest result, in bytes of JSON: the budget of what an evaluation piles up, and what surrounds it.
const MAX_RESULT: usize = 32 << 20;

/// Compiling and evaluating end, and say in one short line what went wrong.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (source, json) = text.split_once('\n').unwrap_or((text, ""));
    let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_else(|_| usual());
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(why) => return one_line(&why),
    };
    let record = Record::new(&fields);
    let value = fields.values().next().cloned().unwrap_or_default();
    match expression.evaluate(&record, &value) {
        Ok(result) => {
            assert!(result.to_string().len() <= MAX_RESULT, "{source}");
            // Nothing is left of one evaluation in the next.
            if let Ok(again) = expression.evaluate(&record, &value) {
                assert_eq!(again, result, "{source}");
            }
        }
        Err(why) => one_line(&why),
    }
    if let Err(why) = expression.holds(&record, &value) {
        one_line(&why);
    }
}

fn one_line(why: &str) {
    assert!(!why.is_empty() && why.len() < 300 << 10, "{why}");
}

fn usual() -> Map<String, Value> {
    let record = json!({"text": "Ana-Maria Ünal", "n": 7, "x": -0.5, "on": true, "none": null,
        "list": ["b", "a", 3, null], "map": {"a": {"b": "c"}}, "day": "2026-11-21", "at": "2026-11-21T08:07:00Z"});
    let Value::Object(record) = record else { unreachable!("it is an object") };
    record
}
