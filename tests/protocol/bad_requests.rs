//! Requests that are wrong: in HTTP, in JSON, in JSON-RPC. Each is told so, and none harms the server.

use std::convert::Infallible;
use std::time::Duration;

use apixx_mcp::protocol::http::HttpConfig;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::probe::Probe;
use crate::support::{Post, app, app_of, sent};

const PARSE_ERROR: (u16, i64) = (400, -32700);
const INVALID_REQUEST: (u16, i64) = (400, -32600);
/// With the status of its era.
const INVALID_PARAMS: i64 = -32602;

#[tokio::test]
async fn what_is_no_json_is_a_parse_error_without_id() {
    let app = app();
    let bodies: [&[u8]; 17] = [
        b"",
        b" \n",
        b"{",
        b"}",
        b"[1,",
        b"[{]",
        b"nul",
        b"{'jsonrpc':'2.0'}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}x",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\\ud800\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1e999,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"",
        b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
        b"event: message\ndata: {}\n\n",
    ];
    for body in bodies {
        let reply = Post::bytes(body).send(&app).await;
        assert_eq!(reply.error(), PARSE_ERROR, "{:?}: {:?}", String::from_utf8_lossy(body), reply);
        assert_eq!(reply.json().get("id"), None);
    }
}

#[tokio::test]
async fn what_is_no_message_is_an_invalid_request() {
    let app = app();
    let ping = |more: Value| {
        let mut message = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"});
        for (name, value) in more.as_object().expect("an object") {
            message[name] = value.clone();
        }
        message
    };
    let with_id = [
        ping(json!({"jsonrpc": "1.0"})),
        ping(json!({"jsonrpc": 2.0})),
        ping(json!({"jsonrpc": null})),
        json!({"id": 7, "method": "ping"}),
        json!({"jsonrpc": "2.0", "id": 7}),
        ping(json!({"method": null})),
        ping(json!({"method": 1})),
        ping(json!({"method": ["ping"]})),
        ping(json!({"method": {"a": 1}})),
    ];
    for body in with_id {
        let reply = Post::json(&body).send(&app).await;
        assert_eq!(reply.error(), INVALID_REQUEST, "{body}");
        assert_eq!(reply.json()["id"], 7, "{body}");
    }
    let without_id = [
        Value::Null,
        json!(1),
        json!("x"),
        json!(true),
        json!([]),
        json!({}),
        ping(json!({"id": null})),
        ping(json!({"id": 1.5})),
        ping(json!({"id": true})),
        ping(json!({"id": [1]})),
        ping(json!({"id": {"a": 1}})),
        ping(json!({"id": "x".repeat(4_097)})),
        json!({"jsonrpc": "2.0", "id": 7, "result": {}}),
        json!({"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "x"}}),
    ];
    for body in without_id {
        let reply = Post::json(&body).send(&app).await;
        assert_eq!(reply.error(), INVALID_REQUEST, "{body}");
        assert_eq!(reply.json().get("id"), None, "{body}");
    }
    let raw = [
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#,
    ];
    for body in raw {
        let reply = Post::bytes(body).send(&app).await;
        assert_eq!(reply.error(), INVALID_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn params_that_are_no_object_are_invalid_params() {
    let app = app();
    for params in [json!([]), json!("x"), json!(1), json!(true)] {
        for method in ["initialize", "ping", "logging/setLevel", "tools/list", "tools/call"] {
            let legacy = Post::legacy(None, method, params.clone()).send(&app).await;
            assert_eq!(legacy.error(), (200, INVALID_PARAMS), "{method} {params}");
        }
        let modern =
            Post::legacy(Some("2026-07-28"), "tools/list", params.clone()).header("mcp-method", "tools/list");
        assert_eq!(modern.send(&app).await.error(), (400, INVALID_PARAMS), "{params}");
    }
    let reply = Post::legacy(None, "ping", Value::Null).send(&app).await;
    assert_eq!(reply.json(), json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
}

#[tokio::test]
async fn an_id_comes_back_exactly_as_it_was() {
    let app = app();
    let long = "x".repeat(4_096);
    for id in
        [json!(0), json!(-1), json!(i64::MIN), json!(u64::MAX), json!(""), json!("é\u{0}\""), json!(long)]
    {
        let reply = Post::json(&json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).send(&app).await;
        assert_eq!(reply.json()["id"], id);
        let reply = Post::json(&json!({"jsonrpc": "2.0", "id": id, "method": "nothing"})).send(&app).await;
        assert_eq!(reply.json()["id"], id);
    }
}

#[tokio::test]
async fn depth_is_bounded_outside_strings_only() {
    let app = app();
    let call = |value: &str| {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"test_simple_text","arguments":{"a":"#;
        Post::bytes(format!("{call}{value}}}}}}}"))
    };
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(call(&nested(61)).send(&app).await.status, StatusCode::OK);
    assert_eq!(call(&nested(62)).send(&app).await.error(), INVALID_REQUEST);
    let text = format!("\"\\\\\\\"{}\"", "[{".repeat(10_000));
    assert_eq!(call(&text).send(&app).await.status, StatusCode::OK);
    let after_text = format!("[\"\\\\\",{}]", nested(61));
    assert_eq!(call(&after_text).send(&app).await.error(), INVALID_REQUEST);
    for bomb in ["[".repeat(60_000), "{\"a\":".repeat(10_000), nested(30_000)] {
        assert_eq!(Post::bytes(bomb).send(&app).await.error(), INVALID_REQUEST);
    }
}

/// The name under which the parser hands over raw texts means nothing to us: no member becomes by it what its text is
/// not, and none is read once more, with the bound on depth begun anew.
#[tokio::test]
async fn no_name_of_a_member_means_anything_to_the_parser() {
    let app = app();
    let raw = |text: &str| json!({ "$serde_json::private::RawValue": text });
    let ping = |id: Value, method: Value, params: Value| {
        Post::json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    };
    assert_eq!(ping(raw("7"), json!("ping"), json!({})).send(&app).await.error(), INVALID_REQUEST);
    assert_eq!(ping(json!(1), raw("\"ping\""), json!({})).send(&app).await.error(), INVALID_REQUEST);
    assert_eq!(ping(json!(1), json!("ping"), raw("no JSON")).send(&app).await.status, StatusCode::OK);
    // As many layers as a body holds, each as deep as the parser goes, would be 9,000 levels of its stack.
    let mut pile = "[".repeat(126);
    for _ in 0..71 {
        let text = pile.replace('\\', "\\u005c").replace('"', "\\u0022");
        pile = format!("{}{{\"$serde_json::private::RawValue\":\"{text}\"", "[".repeat(40));
    }
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"#;
    let body = format!("{call}{pile}}}{}}}}}", "]".repeat(40));
    assert!(body.len() < 64 * 1024, "{}", body.len());
    assert_eq!(Post::bytes(body).send(&app).await.status, StatusCode::OK);
}

#[tokio::test]
async fn only_post_is_served_and_nothing_is_asked_before() {
    let app = app_of(Probe::new().0, HttpConfig::default(), &["secret"]);
    let methods = [Method::GET, Method::DELETE, Method::PUT, Method::PATCH, Method::OPTIONS, Method::TRACE];
    for method in methods {
        let reply =
            Post::bytes("x").method(method.clone()).header("host", "evil.example.com").send(&app).await;
        assert_eq!(reply.error(), (405, 405), "{method}");
        assert_eq!(reply.headers["allow"], "POST");
    }
    let reply = Post::bytes("x").method(Method::HEAD).send(&app).await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_page_may_read_that_only_post_is_served() {
    let app = app_of(Probe::new().0, HttpConfig::default(), &["secret"]);
    let get = Post::bytes("").method(Method::GET).header("accept", "text/event-stream");
    let page = get.clone().header("origin", "http://localhost:3000").send(&app).await;
    assert_eq!(page.error(), (405, 405));
    assert_eq!(page.headers["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(page.headers["vary"], "Origin");
    let evil = get.clone().header("origin", "https://evil.example.com");
    let elsewhere = get.header("origin", "http://localhost:3000").header("host", "evil.example.com");
    for post in [evil, elsewhere] {
        let reply = post.send(&app).await;
        assert_eq!(reply.error(), (405, 405));
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_target_that_names_a_host_names_that_of_the_request() {
    let app = app();
    let ping = |target: &str, host: &str| {
        let mut request = Post::legacy(None, "ping", json!({})).header("host", host).whole();
        *request.uri_mut() = target.parse().expect("a target");
        request
    };
    for (target, host, status) in [
        ("http://localhost:8080/mcp", "localhost:8080", 200),
        ("http://evil.example.com/mcp", "localhost", 400),
        ("http://evil.example.com/mcp", "evil.example.com", 403),
    ] {
        assert_eq!(sent(&app, ping(target, host)).await.status.as_u16(), status, "{target} {host}");
    }
    let post = || Post::legacy(None, "ping", json!({}));
    for wrong in [post().without("host"), post().also("host", "localhost"), post().header("host", "a b")] {
        assert_eq!(wrong.clone().send(&app).await.error(), (400, 400), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_coding_that_is_not_taken_is_told_with_the_one_that_is() {
    let app = app();
    let coded = |coding: &str| Post::legacy(None, "ping", json!({})).header("content-encoding", coding);
    assert_eq!(coded("Identity").send(&app).await.status, StatusCode::OK);
    let reply = coded("gzip").send(&app).await;
    assert_eq!(reply.error(), (415, 415));
    assert_eq!(reply.headers["accept-encoding"], "identity");
    let reply = Post::bytes("").header("content-type", "text/plain").send(&app).await;
    assert_eq!(reply.error(), (415, 415));
    assert!(!reply.headers.contains_key("accept-encoding"), "{reply:?}");
}

#[tokio::test]
async fn each_check_of_http_comes_before_the_next() {
    let config = HttpConfig { max_body_bytes: 100, ..HttpConfig::default() };
    let app = app_of(Probe::new().0, config, &["secret"]);
    let post = Post::bytes("x".repeat(101))
        .header("host", "evil.example.com")
        .header("content-length", "101")
        .header("content-type", "text/plain")
        .header("accept", "text/html");
    assert_eq!(post.clone().send(&app).await.error(), (403, 403));
    let post = post.header("host", "localhost:8080").header("origin", "https://evil.example.com");
    assert_eq!(post.clone().send(&app).await.error(), (403, 403));
    let post = post.without("origin");
    assert_eq!(post.clone().send(&app).await.error(), (413, 413));
    let post = post.without("content-length");
    let reply = post.clone().send(&app).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(reply.headers["www-authenticate"], "Bearer", "the extractor's answer goes out as it is");
    assert!(!reply.headers.contains_key("x-probe"));
    let post = post.header("authorization", "Bearer secret");
    let reply = post.clone().send(&app).await;
    assert_eq!(reply.error(), (415, 415));
    assert_eq!(
        reply.headers["x-probe"], "secret",
        "the product's headers go on every answer to a known caller"
    );
    let post = post.header("content-type", "application/json");
    assert_eq!(post.clone().send(&app).await.error(), (406, 406));
    let post = post.header("accept", "*/*");
    assert_eq!(
        post.clone().send(&app).await.error(),
        (413, 413),
        "a body that does not say its size is counted"
    );
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let app = app_of(Probe::new().0, HttpConfig::default(), &["secret"]);
    let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let reply = sent(&app, Post::bytes("").request(endless)).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = HttpConfig { body_timeout: Duration::from_millis(1), ..HttpConfig::default() };
    let app = app_of(Probe::new().0, config, &[]);
    let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    assert_eq!(sent(&app, Post::bytes("").request(endless)).await.error(), (408, 408));
    let broken = Body::from_stream(stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("reset"))]));
    assert_eq!(sent(&app, Post::bytes("").request(broken)).await.error(), (400, 400));
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_read() {
    let config = HttpConfig {
        allowed_hosts: vec!["mcp.example.com".parse().unwrap()],
        allowed_origins: vec!["https://app.example.com".parse().unwrap()],
        ..HttpConfig::default()
    };
    let app = app_of(Probe::new().0, config, &["secret"]);
    let post = Post::legacy(None, "ping", json!({}))
        .header("host", "mcp.example.com")
        .header("origin", "https://app.example.com");
    let preflight = post
        .clone()
        .method(Method::OPTIONS)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, Mcp-Param-Region,x-other");
    let reply = preflight.clone().send(&app).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert_eq!(reply.headers["access-control-allow-origin"], "https://app.example.com");
    assert_eq!(reply.headers["access-control-allow-methods"], "POST");
    let allowed = reply.headers["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization") && allowed.contains("mcp-protocol-version"), "{allowed}");
    assert!(allowed.contains("mcp-param-region") && !allowed.contains("x-other"), "{allowed}");
    let refused = preflight.header("origin", "https://evil.example.com").send(&app).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(!refused.headers.contains_key("access-control-allow-origin"));

    let shares = |headers: &HeaderMap| headers.get("access-control-allow-origin").is_some();
    let unauthorised = post.clone().send(&app).await;
    assert_eq!(unauthorised.status, StatusCode::UNAUTHORIZED);
    assert!(shares(&unauthorised.headers), "a page must be able to read why");
    let reply = post.header("authorization", "Bearer secret").send(&app).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["vary"], "Origin");
    assert!(shares(&reply.headers));
}
