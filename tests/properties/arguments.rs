//! The arguments of a tool: the tool's name, a line break, JSON.

use std::sync::LazyLock;

use apixx_mcp::domain::untrusted::word;
use apixx_mcp::tools::{Catalog, Entry, catalog};
use jsonschema::Validator;
use serde_json::{Map, Value};

/// All tools, each with its published schema.
static TOOLS: LazyLock<Vec<(&str, Value, Validator)>> = LazyLock::new(|| {
    let published = |entry: &Entry| {
        let schema = entry.definition().input_schema;
        let validator = jsonschema::validator_for(&schema).expect("a schema of ours");
        (entry.name, schema, validator)
    };
    CATALOG.entries().map(published).collect()
});

static CATALOG: LazyLock<Catalog> = LazyLock::new(catalog);

/// Longest sentence that a mistake may cost, in bytes.
const MAX_SENTENCE: usize = 4_000;

/// The same of any text with a tool's name before it; a tool that is none stands for all of them.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (name, json) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(Value::Object(given)) = serde_json::from_str(json) else { return };
    for (tool, ..) in TOOLS.iter().filter(|(tool, ..)| CATALOG.find(name).is_none() || *tool == name) {
        let _ = read(tool, &given);
    }
}

/// What the tool makes of arguments. What is admitted fits the published schema and reads the same again; what fits it
/// is admitted; what is not is told in one short line that names what is wrong.
pub fn read(tool: &str, given: &Map<String, Value>) -> Result<Value, String> {
    let (_, schema, validator) = TOOLS.iter().find(|(name, ..)| *name == tool).expect("a tool");
    let entry = CATALOG.find(tool).expect("a tool");
    let answer = entry.read(given.clone());
    match &answer {
        Ok(read) => {
            assert!(validator.is_valid(read), "{tool} admits {read}");
            let Value::Object(again) = read.clone() else { panic!("{read}") };
            assert_eq!(entry.read(again), Ok(read.clone()), "{tool}");
        }
        Err(sentence) => {
            assert!(
                sentence.starts_with("Invalid arguments: ") && sentence.len() <= MAX_SENTENCE,
                "{sentence}"
            );
            assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
            let known = schema["properties"].as_object().expect("properties").keys().cloned();
            // (of a name that is none of them 64 characters are told)
            let told = |name: &String| word(&name.chars().take(64).collect::<String>());
            let mut names = known.chain(given.keys().map(told));
            assert!(
                names.any(|name| sentence.contains(&format!("`{name}` is"))
                    || sentence.contains(&format!("there is no argument `{name}`"))),
                "{tool} {given:?}: {sentence}"
            );
            let required = schema["required"].as_array().expect("a list");
            let missing = required.iter().filter_map(Value::as_str).any(|name| is_blank(given.get(name)));
            let fits = validator.is_valid(&Value::Object(given.clone()));
            assert!(missing || !fits, "{tool} refuses {given:?}: {sentence}");
        }
    }
    answer
}

/// What models send for "not given", though its schema would take it.
fn is_blank(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_none_or(|text| text.replace('\0', "").trim().is_empty())
}
