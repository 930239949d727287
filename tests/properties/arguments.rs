//! The arguments of a tool: the tool's name, a line break, JSON.

use std::sync::LazyLock;

use apixx_mcp::tools::{Catalog, catalog};
use serde_json::Value;

static CATALOG: LazyLock<Catalog> = LazyLock::new(catalog);

/// Longest sentence that a mistake may cost, in bytes.
const MAX_SENTENCE: usize = 4_000;

/// What is admitted fits the published schema and reads the same again; what is not is told in one short line.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (name, json) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(Value::Object(given)) = serde_json::from_str(json) else { return };
    // A tool that is none stands for all of them.
    for entry in
        CATALOG.entries().filter(|entry| CATALOG.find(name).is_none_or(|found| found.name == entry.name))
    {
        match entry.read(given.clone()) {
            Ok(read) => {
                let schema = entry.definition().input_schema;
                let valid = jsonschema::validator_for(&schema).expect("a schema of ours").is_valid(&read);
                assert!(valid, "{} admits {read}", entry.name);
                let Value::Object(again) = read.clone() else { panic!("{read}") };
                assert_eq!(entry.read(again), Ok(read), "{}", entry.name);
            }
            Err(sentence) => {
                assert!(!sentence.is_empty() && sentence.len() <= MAX_SENTENCE, "{sentence}");
                assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
            }
        }
    }
}
