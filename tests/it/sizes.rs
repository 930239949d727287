//! What an answer costs a model to read: the demo's default answers, in characters, bytes and tokens.

use serde_json::json;

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
    }
}
