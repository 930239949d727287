//! The contract of the eleven tools: what is published, snapshot by snapshot, and that every client takes it.

use apixx_mcp::domain::scope::{Scope, Scopes};
use apixx_mcp::tools::catalog;
use serde_json::{Value, json};

fn definitions() -> Vec<Value> {
    let list = catalog().visible_to(Scopes::all());
    list.into_iter()
        .map(|tool| {
            json!({
                "name": tool.name, "title": tool.title, "description": tool.description,
                "inputSchema": tool.input_schema, "outputSchema": tool.output_schema, "annotations": tool.annotations,
            })
        })
        .collect()
}

#[test]
fn every_tool_is_as_published() {
    for tool in definitions() {
        let name = tool["name"].as_str().unwrap().to_owned();
        insta::assert_json_snapshot!(format!("tool__{name}"), tool);
    }
}

#[test]
fn the_tools_are_eleven_in_their_order() {
    let names: Vec<String> =
        definitions().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        [
            "list_flows",
            "get_flow",
            "get_flow_mappings",
            "list_flow_runs",
            "get_flow_error_summary",
            "list_runs",
            "get_run",
            "get_run_errors",
            "list_connectors",
            "get_system_health",
            "trigger_sync"
        ]
    );
}

/// Each forbidden word is one that some client refuses, or drops the whole list for.
#[test]
fn schemas_suit_every_client() {
    for tool in definitions() {
        let name = tool["name"].as_str().unwrap();
        let schema = &tool["inputSchema"];
        assert_eq!(schema["type"], "object", "{name}");
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert!(schema["required"].is_array(), "{name}");
        for (field, about) in schema["properties"].as_object().unwrap() {
            assert!(
                about["description"].as_str().is_some_and(|text| text.len() > 5),
                "{name}.{field} is not described"
            );
            let kind = about["type"].as_str().unwrap_or_else(|| panic!("{name}.{field} has no single type"));
            assert!(
                ["string", "integer", "number", "boolean", "array"].contains(&kind),
                "{name}.{field}: {kind}"
            );
            if kind == "array" {
                assert!(about["items"]["enum"].is_array(), "{name}.{field}: lists are of closed words");
            }
        }
        for text in [schema.to_string(), tool["outputSchema"].to_string()] {
            for word in [
                "$ref", "$defs", "$schema", "anyOf", "oneOf", "allOf", "\"not\"", "format", "pattern",
                "const", "null", "title",
            ] {
                let key = if word.starts_with('"') { word.to_owned() } else { format!("\"{word}\":") };
                assert!(!text.contains(&key), "{name}: {word}");
            }
            assert!(!text.contains("\"null\""), "{name}: null type");
        }
        let output = &tool["outputSchema"];
        assert_eq!(output["type"], "object", "{name}");
        assert_eq!(
            output["properties"]["summary"]["type"], "string",
            "{name}: an answer begins with its summary"
        );
        assert!(!output.to_string().contains("additionalProperties"), "{name}: answers stay open");
        for hint in ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"] {
            assert!(tool["annotations"][hint].is_boolean(), "{name}: {hint}");
        }
    }
}

#[test]
fn only_trigger_sync_changes_anything() {
    for tool in definitions() {
        assert_eq!(tool["annotations"]["readOnlyHint"], tool["name"] != "trigger_sync", "{}", tool["name"]);
        assert_eq!(tool["annotations"]["destructiveHint"], false);
    }
}

/// What a model pays for the tools being there, in tokens of cl100k.
#[test]
fn the_tools_cost_a_model_little() {
    let counter = tiktoken_rs::cl100k_base().unwrap();
    let mut total = 0;
    for tool in definitions() {
        let told = format!(
            "{}\n{}\n{}",
            tool["name"].as_str().unwrap(),
            tool["description"].as_str().unwrap(),
            tool["inputSchema"]
        );
        let tokens = counter.encode_ordinary(&told).len();
        assert!(tokens <= 480, "{}: {tokens} tokens", tool["name"]);
        total += tokens;
    }
    assert!(total <= 4_000, "{total} tokens");
    let bytes = Value::Array(definitions()).to_string().len();
    assert!(bytes <= 32 * 1024, "{bytes} bytes");
}

#[test]
fn a_token_sees_the_tools_of_its_scopes() {
    let names = |scopes: &[Scope]| -> Vec<String> {
        catalog().visible_to(scopes.iter().copied().collect()).into_iter().map(|tool| tool.name).collect()
    };
    assert_eq!(names(&[Scope::HealthRead]), ["get_system_health"]);
    assert_eq!(
        names(&[Scope::FlowsRead, Scope::SyncTrigger]),
        ["list_flows", "get_flow", "get_flow_mappings", "trigger_sync"]
    );
    assert_eq!(names(&[Scope::PayloadsRead]), Vec::<String>::new());
}
