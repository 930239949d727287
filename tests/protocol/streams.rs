//! Event streams, and the ends a call may come to: answered, timed out, cancelled, left alone.

use std::sync::Arc;
use std::time::Duration;

use apixx_mcp::protocol::http::HttpConfig;
use http::{StatusCode, Version};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::probe::{Event, Probe};
use crate::support::{Post, app, app_of, read_until, sent, serving};

/// A call in both eras that waits for ever; with `report`, on an event stream.
fn waiting(report: bool) -> [Post; 2] {
    let arguments = if report { json!({"report": true}) } else { json!({}) };
    let params = json!({"name": "wait", "arguments": arguments, "_meta": {"progressToken": "t"}});
    [Post::legacy(Some("2025-11-25"), "tools/call", params.clone()), Post::modern("tools/call", params)]
}

#[tokio::test]
async fn a_stream_is_framed_as_one_event_a_message() {
    let app = app();
    let params = json!({"name": "test_tool_with_progress", "_meta": {"progressToken": "t"}});
    for post in [Post::legacy(None, "tools/call", params.clone()), Post::modern("tools/call", params)] {
        let reply = post.send(&app).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.headers["cache-control"], "no-cache");
        assert_eq!(reply.headers["x-accel-buffering"], "no");
        assert_eq!(reply.headers["x-probe"], "anyone");
        let text = std::str::from_utf8(&reply.body).unwrap();
        assert_eq!(text.matches("event: message\ndata: {").count(), 4);
        assert!(text.ends_with("}\n\n"));
        assert!(!text.contains("id:") && !text.contains("retry:"), "there is nothing to resume: {text}");
        let events = reply.events();
        assert_eq!(events[1]["params"]["progress"], 50.0);
        assert_eq!(events[3]["id"], 1);
    }
}

#[tokio::test]
async fn a_call_may_tell_more_than_is_kept_unread() {
    let params = json!({"name": "chatty", "_meta": {"progressToken": 1}});
    let events = Post::modern("tools/call", params).send(&app()).await.events();
    assert_eq!(events.len(), 101);
    assert!((0..100_u32).all(|step| events[step as usize]["params"]["progress"] == f64::from(step)));
    assert_eq!(events[100]["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn log_lines_go_to_who_asked_for_them() {
    let app = app();
    let modern = |level: Option<&str>| {
        let mut params = json!({"name": "levels"});
        if let Some(level) = level {
            params["_meta"] = json!({"io.modelcontextprotocol/logLevel": level});
        }
        Post::modern("tools/call", params)
    };
    assert_eq!(modern(None).send(&app).await.json()["result"]["resultType"], "complete");
    for (level, lines) in [("debug", 8), ("warning", 5), ("emergency", 1)] {
        let events = modern(Some(level)).send(&app).await.events();
        assert_eq!(events.len(), lines + 1, "{level}");
        assert_eq!(events[0]["params"], json!({"level": level, "logger": "probe", "data": null}));
    }
    let events = Post::legacy(None, "tools/call", json!({"name": "levels"})).send(&app).await.events();
    assert_eq!(events.len(), 8);
    assert_eq!(events[0]["params"]["level"], "info");
}

#[tokio::test]
async fn a_silent_stream_carries_comments() {
    let config = HttpConfig { keep_alive: Duration::from_millis(1), ..HttpConfig::default() };
    let address = serving(app_of(Probe::new().0, config, &[])).await;
    for post in waiting(true) {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(&post.on_the_wire()).await.unwrap();
        let read = read_until(&mut connection, |text| text.matches(":\n\n").count() >= 3).await;
        assert!(read.contains("content-type: text/event-stream"), "{read}");
        assert!(read.find("notifications/progress") < read.find(":\n\n"), "{read}");
    }
}

#[tokio::test]
async fn a_call_has_its_time() {
    let config = HttpConfig { call_timeout: Duration::from_millis(1), ..HttpConfig::default() };
    let (probe, mut heard) = Probe::new();
    let app = app_of(probe, config, &[]);
    for report in [false, true] {
        for post in waiting(report) {
            let reply = post.send(&app).await;
            assert_eq!(reply.status, StatusCode::OK);
            let answer = if report { reply.events().pop().unwrap() } else { reply.json() };
            assert_eq!(answer["error"]["code"], -32603);
            assert_eq!(answer["error"]["data"], json!({"request_id": "req_1"}));
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("took longer than 0.001 s"), "{message}");
            assert_eq!(heard.next().await, Event::Started);
            assert_eq!(heard.next().await, Event::Dropped);
        }
    }
}

/// A call that cannot be answered now is told so by the status, unless that is out already.
#[tokio::test]
async fn a_call_that_must_come_again_is_told_when() {
    let app = app();
    for report in [false, true] {
        let arguments = if report { json!({"report": true}) } else { json!({}) };
        let params = json!({"name": "away", "arguments": arguments, "_meta": {"progressToken": "t"}});
        for post in [
            Post::legacy(Some("2025-11-25"), "tools/call", params.clone()),
            Post::modern("tools/call", params.clone()),
        ] {
            let reply = post.send(&app).await;
            let answer = if report { reply.events().pop().unwrap() } else { reply.json() };
            assert_eq!(answer["error"]["code"], 503);
            assert_eq!(answer["error"]["data"], json!({"retry_after_seconds": 1, "request_id": "req_1"}));
            if !report {
                assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(reply.headers["retry-after"], "1");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_stop_the_clock() {
    let config = HttpConfig { call_timeout: Duration::from_millis(1), ..HttpConfig::default() };
    let (probe, mut heard) = Probe::new();
    let app = app_of(probe, config, &[]);
    for post in waiting(true) {
        let response = app.clone().oneshot(post.whole()).await.unwrap();
        assert_eq!(heard.next().await, Event::Started);
        assert_eq!(heard.next().await, Event::Dropped);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_call() {
    let (probe, mut heard) = Probe::new();
    let address = serving(app_of(probe, HttpConfig::default(), &[])).await;
    for report in [false, true] {
        for post in waiting(report) {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(&post.on_the_wire()).await.unwrap();
            assert_eq!(heard.next().await, Event::Started);
            if report {
                read_until(&mut connection, |text| text.contains("notifications/progress")).await;
            }
            drop(connection);
            assert_eq!(heard.next().await, Event::Dropped);
        }
    }
}

#[tokio::test]
async fn a_legacy_call_is_cancelled_by_its_caller_only() {
    let (probe, mut heard) = Probe::new();
    let app = app_of(probe, HttpConfig::default(), &["a", "b"]);
    let cancel = |token: &str, id: Value| {
        let params = json!({"requestId": id, "reason": "enough"});
        let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        Post::json(&message).header("authorization", &format!("Bearer {token}"))
    };
    for report in [false, true] {
        let [call, _] = waiting(report);
        let call = call.header("authorization", "Bearer a");
        let under_way = {
            let app = app.clone();
            tokio::spawn(async move { call.send(&app).await })
        };
        assert_eq!(heard.next().await, Event::Started);
        for strange in
            [cancel("b", json!(1)), cancel("a", json!("1")), cancel("a", json!(2)), cancel("a", json!(null))]
        {
            assert_eq!(strange.send(&app).await.status, StatusCode::ACCEPTED);
        }
        assert!(heard.is_empty(), "nobody else's business");
        assert_eq!(cancel("a", json!(1)).send(&app).await.status, StatusCode::ACCEPTED);
        assert_eq!(heard.next().await, Event::Dropped);
        let reply = under_way.await.expect("the call ends");
        if report {
            assert_eq!(reply.events().len(), 1, "a cancelled call is not answered");
        } else {
            assert_eq!(reply.status, StatusCode::ACCEPTED);
            assert!(reply.body.is_empty());
        }
    }
}

#[tokio::test]
async fn a_modern_call_is_not_cancelled_by_a_notification() {
    let (probe, mut heard) = Probe::new();
    let app = app_of(Arc::clone(&probe), HttpConfig::default(), &[]);
    let [_, call] = waiting(false);
    let under_way = {
        let app = app.clone();
        tokio::spawn(async move { call.send(&app).await })
    };
    assert_eq!(heard.next().await, Event::Started);
    let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(Post::json(&message).send(&app).await.status, StatusCode::ACCEPTED);
    assert!(heard.is_empty());
    under_way.abort();
    assert_eq!(heard.next().await, Event::Dropped);
}

#[tokio::test]
async fn a_panic_ends_one_request_only() {
    let app = app();
    let panicking = Post::legacy(None, "tools/call", json!({"name": "panic"}));
    assert_eq!(panicking.send(&app).await.error(), (200, -32603));
    assert_eq!(Post::legacy(None, "ping", json!({})).send(&app).await.json()["result"], json!({}));
}

#[tokio::test]
async fn what_is_no_http_harms_nobody() {
    let address = serving(app()).await;
    let ping = Post::legacy(None, "ping", json!({}));
    let long = format!("POST /mcp HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(1_000_000));
    let requests: [&[u8]; 6] = [
        b"\0\0\0\0\r\n\r\n",
        b"POST /mcp\r\n\r\n",
        b"POST /mcp HTTP/9.9\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        long.as_bytes(),
    ];
    for request in requests {
        let mut connection = TcpStream::connect(address).await.unwrap();
        // The server may hang up while we still write.
        let _ = connection.write_all(request).await;
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(&ping.on_the_wire()).await.unwrap();
    let answer = read_until(&mut connection, |text| text.ends_with('}')).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_host_may_stand_in_the_uri_of_http_2() {
    let mut request = Post::legacy(None, "ping", json!({})).without("host").request("".into());
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "http://localhost:8080/mcp".parse().unwrap();
    *request.body_mut() = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string().into();
    assert_eq!(sent(&app(), request).await.status, StatusCode::OK);
}
