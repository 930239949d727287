//! Batches beyond what the transcript says: bounds, admission, other revisions.

use std::sync::atomic::Ordering;

use apixx_mcp::protocol::http::HttpConfig;
use http::StatusCode;
use serde_json::{Value, json};

use crate::probe::Probe;
use crate::support::{Post, app, app_of};

fn pings(count: usize) -> Value {
    (0..count).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).collect()
}

#[tokio::test]
async fn a_batch_is_bounded_and_never_empty() {
    let app = app();
    let reply = Post::json(&pings(50)).send(&app).await;
    assert_eq!(reply.json().as_array().map(Vec::len), Some(50));
    assert_eq!(Post::json(&pings(51)).send(&app).await.error(), (400, -32600));
    assert_eq!(Post::json(&json!([])).send(&app).await.error(), (400, -32600));
    assert_eq!(Post::bytes(" \r\n\t[ ] ").send(&app).await.error(), (400, -32600));
}

#[tokio::test]
async fn only_the_first_revision_has_batches() {
    let app = app();
    for revision in ["2025-06-18", "2025-11-25", "2026-07-28", "v999"] {
        let reply = Post::json(&pings(2)).header("mcp-protocol-version", revision).send(&app).await;
        assert_eq!(reply.error(), (400, -32600), "{revision}");
        assert_eq!(reply.json().get("id"), None);
    }
    let reply = Post::json(&pings(2)).header("mcp-protocol-version", "2025-03-26").send(&app).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn every_further_message_is_admitted_by_itself() {
    let (probe, _) = Probe::new();
    probe.admits.store(1, Ordering::Relaxed);
    let app = app_of(probe, HttpConfig::default(), &[]);
    let mut batch = pings(3);
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    batch.as_array_mut().expect("an array").push(notification);
    let reply = Post::json(&batch).send(&app).await.json();
    let too_many = json!({
        "jsonrpc": "2.0",
        "id": 2,
        "error": {
            "code": 429,
            "message": "Too many requests: wait 2 s, then send this message again.",
            "data": {"retry_after_seconds": 2},
        },
    });
    assert_eq!(reply[0], json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
    assert_eq!(reply[1], json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert_eq!(reply[2], too_many);
    assert_eq!(reply.as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn responses_alone_are_refused_by_http() {
    let app = app();
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    let failed = json!({"jsonrpc": "2.0", "id": 2, "error": {"code": 1, "message": "x"}});
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let alone = Post::json(&response).send(&app).await;
    for batch in [json!([response]), json!([response, failed]), json!([notification, response])] {
        let reply = Post::json(&batch).send(&app).await;
        assert_eq!(reply.error(), (400, -32600), "{batch}");
        assert_eq!(reply.json(), alone.json(), "{batch}");
    }
    let batch = json!([response, {"jsonrpc": "2.0", "id": 3, "method": "ping"}]);
    let reply = Post::json(&batch).send(&app).await;
    assert_eq!((reply.status, &reply.json()[1]["id"]), (StatusCode::OK, &json!(3)));
}

#[tokio::test]
async fn one_bad_message_spoils_no_other() {
    let app = app();
    let body = r#"[1, {"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}, "x", {"jsonrpc":"2.0","id":3,"method":"\ud800"},
        {"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"panic"}}, [],
        {"jsonrpc":"2.0","id":5,"result":{}}, {"jsonrpc":"2.0","id":6,"method":"ping"}]"#;
    let reply = Post::bytes(body).send(&app).await.json();
    let codes: Vec<i64> = reply
        .as_array()
        .expect("an array")
        .iter()
        .map(|answer| answer["error"]["code"].as_i64().unwrap_or_default())
        .collect();
    assert_eq!(codes, [-32600, -32600, -32600, -32700, -32603, -32600, -32600, 0]);
    assert_eq!(reply[7]["id"], 6);
}
