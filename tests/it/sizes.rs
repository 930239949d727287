//! What an answer costs a model to read: the demo's default answers, in characters, bytes and tokens.

use apixx_mcp::tools::catalog;
use serde_json::{Value, json};

use crate::canaries::calls;
use crate::support::app::TestApp;

/// Characters of a page (`view::text::MAX_CHARS`), and what notices and the next calls may add.
const CHARS: usize = 8_000 + 700;
/// Tokens of a text that fills its page.
const TOKENS: usize = 4_500;
/// Bytes of a whole answer: the text, and the same rows typed.
const BYTES: usize = 96 * 1024;

#[tokio::test]
async fn every_answer_is_of_a_size_that_can_be_read() {
    let app = TestApp::demo().await;
    let counter = tiktoken_rs::cl100k_base().unwrap();
    let flow = "HubSpot → Salesforce contacts";
    let mut sizes = String::new();
    for (tool, arguments) in [
        ("list_flows", json!({})),
        ("get_flow", json!({ "flow": flow })),
        ("get_flow_mappings", json!({ "flow": flow })),
        ("list_flow_runs", json!({ "flow": flow })),
        ("list_flow_runs", json!({ "flow": flow, "limit": 100 })),
        ("list_runs", json!({})),
        ("list_runs", json!({ "window": "30d", "group_by": "flow", "limit": 100 })),
        ("list_runs", json!({ "window": "30d", "group_by": "hour", "limit": 0 })),
        ("get_run", json!({ "run_id": "run_abc123" })),
        ("get_run_errors", json!({ "run_id": "run_abc123", "samples_per_group": 5, "limit": 100 })),
        (
            "get_flow_error_summary",
            json!({ "flow": flow, "window": "30d", "group_by": "group", "limit": 50 }),
        ),
        ("list_connectors", json!({})),
        ("get_system_health", json!({})),
        ("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })),
    ] {
        let told = app.acme().call(tool, arguments.clone()).await;
        assert!(!told.is_error, "{tool} {arguments}: {}", told.text);
        let chars = told.text.chars().count();
        let tokens = counter.encode_ordinary(&told.text).len();
        let bytes = told.text.len() + told.structured.to_string().len();
        assert!(chars <= CHARS, "{tool} {arguments}: {chars} characters");
        assert!(tokens <= TOKENS, "{tool} {arguments}: {tokens} tokens");
        assert!(bytes <= BYTES, "{tool} {arguments}: {bytes} bytes");
        let (text, typed) = (settled(&told.text), settled(&told.structured.to_string()));
        let size = |text: &str| {
            let tokens = counter.encode_ordinary(text).len();
            format!("{:>6} characters {:>6} bytes {tokens:>6} tokens", text.chars().count(), text.len())
        };
        sizes += &format!("{tool} {arguments}\n  text  {}\n  typed {}\n", size(&text), size(&typed));
    }
    // What an answer costs its reader changes only where somebody sees that it does.
    insta::assert_snapshot!("sizes_of_answers", sizes);
}

/// Every tool in every way, of every workspace, refusals included; and again with the largest limits.
#[tokio::test]
async fn every_answer_to_every_workspace_is_within_the_same_bounds() {
    let app = TestApp::demo().await;
    let counter = tiktoken_rs::cl100k_base().unwrap();
    for (customer, agent) in [("cus_acme", app.acme()), ("cus_globex", app.globex()), ("cus_lab", app.lab())]
    {
        let mut asked = calls(&app, customer).await;
        asked.extend(
            asked.clone().into_iter().filter_map(|(tool, arguments)| Some((tool, at_most(tool, arguments)?))),
        );
        let mut refused = 0;
        for (tool, arguments) in asked {
            let params = json!({ "name": tool, "arguments": arguments });
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
            let reply = agent.post(&message).await;
            let result = &reply.body["result"];
            refused += usize::from(result["structuredContent"].is_null());
            let text = &result["content"][0]["text"];
            let text = text.as_str().or(reply.body["error"]["message"].as_str()).unwrap();
            assert!(text.chars().count() <= CHARS, "{customer}: {tool} {arguments}: {text}");
            // A token is a byte or more.
            let tokens = || counter.encode_ordinary(text).len();
            assert!(text.len() <= TOKENS || tokens() <= TOKENS, "{customer}: {tool} {arguments}: {text}");
            let bytes = reply.bytes.len();
            assert!(bytes <= BYTES, "{customer}: {tool} {arguments}: {bytes} bytes");
        }
        assert!(refused >= 4, "{customer}: {refused}");
    }
}

/// The arguments with the largest limits that the tool's schema has; `None` where it has none.
fn at_most(tool: &str, mut arguments: Value) -> Option<Value> {
    let schema = catalog().find(tool)?.definition().input_schema;
    let mut has_some = false;
    for limit in ["limit", "samples_per_group"] {
        if let most @ Value::Number(_) = &schema["properties"][limit]["maximum"] {
            arguments[limit] = most.clone();
            has_some = true;
        }
    }
    has_some.then_some(arguments)
}

/// A text without chance: what is drawn anew for each answer (a cursor's seal, the id of a run) is always the same.
fn settled(text: &str) -> String {
    const DRAWN: &str = "Zk3vQx81mTbY7rNc_4LhWd0aGpJs9-eUfOiK2yRtVqX6MzBnCw5jDl";
    let drawn = regex::Regex::new("cursor[=\":]+([A-Za-z0-9_-]+)|run_01([0-9a-z]{24})").unwrap();
    let mut settled = text.to_owned();
    for found in drawn.captures_iter(text) {
        let chance = found.get(1).or(found.get(2)).unwrap().as_str();
        let same: String = DRAWN.chars().cycle().take(chance.len()).collect();
        settled = settled.replace(chance, &same);
    }
    settled
}

/// A flow that was changed again and again before it worked, and a connector that all flows use.
#[tokio::test]
async fn an_answer_has_a_bound_whatever_there_is_to_tell() {
    let app = TestApp::demo().await;
    app.rows::<(String,)>(
        "insert into flow_versions (customer_id, flow_id, version, definition, summary, created_by, created_at)
         select v.customer_id, v.flow_id, n, v.definition, repeat('changed ', 50), 'Ana Ruiz',
                '2026-11-20T16:00:00+01:00'
           from runs r
           join flow_versions v using (customer_id, flow_id)
          cross join generate_series(v.version + 1, 40) n
          where r.run_id = 'run_abc123' and v.version = 8 and $1::timestamptz is not null
          returning flow_id",
    )
    .await;
    let told = app.acme().call("get_run", json!({ "run_id": "run_abc123" })).await;
    assert!(told.text.chars().count() <= CHARS, "{}", told.text);
    assert!(told.text.contains("Change: flow version 39 → 40 at ") && !told.text.contains("27 → 28"));
    assert!(told.text.contains("… 22 more changes\n"), "{}", told.text);
    assert_eq!(told.structured["run"]["older_versions"], 22);

    app.rows::<(String,)>(
        "insert into flows (customer_id, flow_id, name, sort_key, state_changed_at, source_connector_id,
             destination_connector_id, source_objects, destination_objects, object_keys_read, object_keys_written,
             health_since, health_checked_at, created_at)
         select f.customer_id, 'flow_more_' || n, 'More ' || n, 'more ' || n, $1, f.source_connector_id,
                f.destination_connector_id, '{}', '{}', '{}', '{}', $1, $1, $1
           from flows f cross join generate_series(1, 300) n
          where f.customer_id = 'cus_acme' and f.name = 'HubSpot → Salesforce contacts'
          returning flow_id",
    )
    .await;
    for (tool, list) in [("list_connectors", "/connectors"), ("get_system_health", "/connectors/attention")] {
        let told = app.acme().call(tool, json!({})).await;
        let listed = told.structured.pointer(list).unwrap().as_array().unwrap();
        let hubspot = listed.iter().find(|connector| connector["name"] == "HubSpot (Marketing)").unwrap();
        assert_eq!(hubspot["flows"]["total"], 303, "{tool}");
        assert_eq!(hubspot["flows"]["names"].as_array().unwrap().len(), 10, "{tool}");
    }
}
