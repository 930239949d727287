//! Schemas in the profile that every client takes: no `$ref`, no unions, no nulls, nothing nested in what a
//! model must fill in.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The schema of a tool's arguments: what is published and what is enforced.
pub(super) fn input<T: JsonSchema>() -> Value {
    let read = SchemaSettings::draft2020_12();
    let Value::Object(mut root) = generated::<T>(read) else { return json!({ "type": "object" }) };
    clean(&mut root);
    let required = root.remove("required").unwrap_or_else(|| json!([]));
    json!({
        "type": "object",
        "properties": root.remove("properties").unwrap_or_else(|| json!({})),
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of a tool's answer: the root and the rows of its lists are typed, what lies deeper is open.
pub(super) fn output<T: JsonSchema>() -> Value {
    // As it is written: what is left out when there is none of it is not required.
    let written = SchemaSettings::draft2020_12().for_serialize();
    let Value::Object(mut root) = generated::<T>(written) else { return json!({ "type": "object" }) };
    clean(&mut root);
    prune(&mut root, 0);
    Value::Object(root)
}

fn generated<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Takes out what some client refuses: titles, formats, null as a type or value.
fn clean(schema: &mut Map<String, Value>) {
    for word in ["$schema", "title", "format", "$defs"] {
        schema.remove(word);
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get("type") {
        let one = types.iter().find(|kind| *kind != "null").cloned();
        if let Some(one) = one {
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    // `Option` of a whole schema comes as a union with null.
    if let Some(Value::Array(variants)) = schema.remove("anyOf") {
        let real = variants.into_iter().find(|variant| variant.get("type") != Some(&json!("null")));
        if let Some(Value::Object(real)) = real {
            for (word, value) in real {
                schema.entry(word).or_insert(value);
            }
            return clean(schema);
        }
    }
    for (word, value) in schema.iter_mut() {
        match (word.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (_, property) in properties.iter_mut() {
                    if let Value::Object(property) = property {
                        clean(property);
                    }
                }
            }
            ("items", Value::Object(items)) => clean(items),
            _ => {}
        }
    }
}

/// Leaves types only: the root's properties (0), the rows of its lists (1); deeper objects are open.
fn prune(schema: &mut Map<String, Value>, depth: usize) {
    for word in ["description", "minimum", "additionalProperties", "default", "enum"] {
        schema.remove(word);
    }
    if depth > 0 {
        schema.remove("required");
    }
    if depth > 1 && schema.get("type") == Some(&json!("object")) {
        schema.remove("properties");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (_, property) in properties.iter_mut() {
            match property {
                Value::Object(property) => prune(property, depth + if depth == 0 { 1 } else { 2 }),
                // `true`: any value.
                other => *other = json!({}),
            }
        }
    }
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        prune(items, depth);
    }
}
