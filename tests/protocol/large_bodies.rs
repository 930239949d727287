//! Large bodies: few at once, for as long as something large is left of them.

use std::time::Duration;

use apixx_mcp::protocol::http::HttpConfig;
use http::StatusCode;
use serde_json::{Value, json};

use crate::probe::{Event, Heard, Probe};
use crate::support::{Post, app_of};

/// How many large bodies are taken at the same time.
const AT_ONCE: usize = 8;

/// Blanks that make any message a large one.
fn padded(message: &Value) -> Post {
    Post::bytes(format!("{message}{}", " ".repeat(65 * 1024)))
}

/// A large call that waits for ever.
fn waiting(arguments: Value) -> Post {
    let params = json!({"name": "wait", "arguments": arguments, "_meta": {"progressToken": "t"}});
    padded(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})
}

/// A server that gives a body no time to wait for a place, and what its calls tell.
fn server() -> (axum::Router, Heard) {
    let (probe, heard) = Probe::new();
    let config = HttpConfig { body_timeout: Duration::from_millis(1), ..HttpConfig::default() };
    (app_of(probe, config, &[]), heard)
}

#[tokio::test]
async fn a_large_body_has_its_place_for_as_long_as_its_arguments_are_there() {
    for arguments in [json!({}), json!({"report": true})] {
        let (app, mut heard) = server();
        let mut calls = Vec::new();
        for _ in 0..AT_ONCE {
            let (app, call) = (app.clone(), waiting(arguments.clone()));
            calls.push(tokio::spawn(async move { call.send(&app).await }));
            assert_eq!(heard.next().await, Event::Started);
        }
        let reply = padded(&ping()).send(&app).await;
        assert_eq!(reply.error(), (503, 503), "{arguments}: whether on an event stream or not");
        assert_eq!(Post::json(&ping()).send(&app).await.status, StatusCode::OK, "small ones need no place");
        calls.remove(0).abort();
        assert_eq!(heard.next().await, Event::Dropped);
        assert_eq!(padded(&ping()).send(&app).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn calls_that_wait_with_their_arguments_read_take_no_places() {
    for arguments in [json!({"read": true}), json!({"read": true, "report": true})] {
        let (app, mut heard) = server();
        for _ in 0..2 * AT_ONCE {
            let (app, call) = (app.clone(), waiting(arguments.clone()));
            tokio::spawn(async move { call.send(&app).await });
            assert_eq!(heard.next().await, Event::Started, "{arguments}");
        }
        assert_eq!(padded(&ping()).send(&app).await.status, StatusCode::OK, "{arguments}");
    }
}

#[tokio::test]
async fn in_a_large_batch_nobody_waits() {
    let (app, _) = server();
    let wait = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wait"}});
    let reply = padded(&json!([wait, ping()])).send(&app).await.json();
    assert_eq!(reply[0]["result"]["content"][0]["text"], "not here");
    assert_eq!(reply[1]["id"], 2);
}
