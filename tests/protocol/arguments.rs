//! Arguments made from what each tool publishes: such as it asks for, such as it does not, and what lies between.

use apixx_mcp::tools::catalog;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::held::arguments::read;
use crate::properties::any_json;

/// The tools' names, each with its members and those of them that it must be given.
fn tools() -> Vec<(&'static str, Map<String, Value>, Vec<String>)> {
    let catalog = catalog();
    let published = catalog.entries().map(|entry| {
        let schema = entry.definition().input_schema;
        let required = serde_json::from_value(schema["required"].clone()).expect("a list of names");
        (entry.name, schema["properties"].as_object().expect("members").clone(), required)
    });
    published.collect()
}

/// Values that a member takes, to their edges.
fn right(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(words) = schema["enum"].as_array() {
        return prop::sample::select(words.clone()).boxed();
    }
    let (low, high) = (&schema["minimum"], &schema["maximum"]);
    match schema["type"].as_str() {
        Some("string") => {
            let most = longest(schema);
            prop_oneof![
                8 => r"[a-z0-9é→][ -~é→\x00]{0,19}".prop_map(Value::from),
                1 => Just(json!("x".repeat(most))),
                1 => Just(json!("é".repeat(most))),
            ]
            .boxed()
        }
        Some("integer") => {
            let (low, high) = (low.as_i64().expect("a bound"), high.as_i64().expect("a bound"));
            prop_oneof![
                (low..=high).prop_map(Value::from),
                Just(json!(low)),
                Just(json!(high)),
                Just(json!(high as f64)),
            ]
            .boxed()
        }
        Some("number") => {
            let (low, high) = (low.as_f64().expect("a bound"), high.as_f64().expect("a bound"));
            prop_oneof![(low..=high).prop_map(Value::from), Just(json!(low)), Just(json!(high))].boxed()
        }
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("array") => prop::collection::vec(right(&schema["items"]), 0..4).prop_map(Value::from).boxed(),
        other => panic!("members of type {other:?} are made here by nobody yet"),
    }
}

fn longest(schema: &Value) -> usize {
    schema["maxLength"].as_u64().unwrap_or(2_000) as usize
}

/// Values that it may not take, or that need a reader of good will.
fn odd(schema: &Value) -> BoxedStrategy<Value> {
    let written = right(schema).prop_map(|value| match value {
        Value::String(text) => json!(text.to_uppercase().replace('_', " ")),
        Value::Array(items) => json!(items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => json!(other.to_string()),
    });
    let beyond = |bound: &Value, by: f64| bound.as_f64().map_or(Value::Null, |bound| json!(bound + by));
    let fixed = vec![
        beyond(&schema["maximum"], 1.0),
        beyond(&schema["minimum"], -1.0),
        beyond(&schema["minimum"], 0.5),
        json!("x".repeat(longest(schema) + 1)),
        json!(""),
        json!(" \0 "),
        json!([[], [null]]),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!({ "a": [{ "b": {} }] }),
    ];
    prop_oneof![any_json(), written, prop::sample::select(fixed)].boxed()
}

/// A tool's name and arguments for it, most of them right; of those it must have each is there more often than not.
fn arguments() -> impl Strategy<Value = (&'static str, Map<String, Value>)> {
    prop::sample::select(tools()).prop_flat_map(|(tool, members, required)| {
        let made = members.iter().map(|(name, schema)| {
            let there = if required.contains(name) { 0.95 } else { 0.4 };
            let value = prop_oneof![9 => right(schema), 1 => odd(schema)];
            prop::option::weighted(there, (Just(name.clone()), value))
        });
        let near = members.keys().flat_map(|name| [name.to_uppercase(), format!("{name}s")]);
        let known = near.chain(["id", "name", "hours", "_meta", "statuses"].map(str::to_owned));
        let name = prop_oneof![prop::sample::select(known.collect::<Vec<_>>()), ".{0,80}"];
        let more = prop::collection::vec((name, any_json()), 1..3);
        let more = prop::option::weighted(0.2, more);
        (Just(tool), made.collect::<Vec<_>>(), more).prop_map(|(tool, made, more)| {
            let more = more.unwrap_or_default();
            (tool, made.into_iter().flatten().chain(more).collect())
        })
    })
}

/// A tool's name, arguments for it that are right but for one, and the name of that one.
fn one_odd() -> impl Strategy<Value = (&'static str, Map<String, Value>, String)> {
    let members = tools().into_iter().flat_map(|(tool, members, required)| {
        let names: Vec<String> = members.keys().cloned().collect();
        names.into_iter().map(move |odd| (tool, members.clone(), required.clone(), odd))
    });
    let members = members.collect::<Vec<_>>();
    prop::sample::select(members).prop_flat_map(|(tool, members, required, wrong)| {
        let made = members.iter().map(|(name, schema)| {
            let value = if *name == wrong { odd(schema) } else { right(schema) };
            let value = (Just(name.clone()), value);
            if *name == wrong || required.contains(name) {
                value.prop_map(Some).boxed()
            } else {
                prop::option::weighted(0.3, value).boxed()
            }
        });
        (Just(tool), made.collect::<Vec<_>>(), Just(wrong))
            .prop_map(|(tool, made, wrong)| (tool, made.into_iter().flatten().collect(), wrong))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arguments_are_read_as_their_schema_says((tool, given) in arguments()) {
        let _ = read(tool, &given);
    }

    #[test]
    fn a_mistake_names_its_member((tool, given, wrong) in one_odd()) {
        if let Err(sentence) = read(tool, &given) {
            for name in given.keys() {
                let blamed = sentence.contains(&format!("`{name}` is"));
                assert_eq!(blamed, *name == wrong, "{tool} {given:?}: {sentence}");
            }
        }
    }
}

/// Arguments that are all refused, or all taken, would try little.
#[test]
fn of_what_is_made_much_is_taken_and_much_refused() {
    let mut runner = TestRunner::deterministic();
    let mut taken = 0;
    for _ in 0..400 {
        let (tool, given) = arguments().new_tree(&mut runner).expect("arguments").current();
        taken += usize::from(read(tool, &given).is_ok());
    }
    assert!((100..=300).contains(&taken), "{taken} of 400 are taken");
}
