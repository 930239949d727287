//! The headers of the modern era, and the order in which a request is judged.

use serde_json::{Value, json};

use crate::support::{MODERN, Post, app};

const MISMATCH: (u16, i64) = (400, -32020);
const UNSUPPORTED: (u16, i64) = (400, -32022);
const BAD_META: (u16, i64) = (400, -32602);

fn list() -> Post {
    Post::modern("tools/list", json!({}))
}

fn call(name: &str) -> Post {
    Post::modern("tools/call", json!({"name": name}))
}

#[tokio::test]
async fn header_and_body_name_the_same_revision() {
    let app = app();
    let claiming = |version: Value| {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": version});
        Post::modern("tools/list", json!({ "_meta": meta }))
    };
    let table = [
        (list().without("mcp-protocol-version"), MISMATCH),
        (list().also("mcp-protocol-version", MODERN), MISMATCH),
        (list().header("mcp-protocol-version", "2025-11-25"), MISMATCH),
        (claiming(json!("v999")), MISMATCH),
        (claiming(json!("v999")).header("mcp-protocol-version", "v999"), UNSUPPORTED),
        (claiming(json!("2025-11-25")).header("mcp-protocol-version", "2025-11-25"), UNSUPPORTED),
        (claiming(json!(20_260_728)), BAD_META),
        (claiming(Value::Null), BAD_META),
        // Neither says anything: discovery has no legacy meaning, so a code that modern clients know.
        (Post::legacy(None, "server/discover", json!({})), MISMATCH),
        (Post::legacy(Some(MODERN), "server/discover", json!({})), BAD_META),
        (Post::legacy(Some(MODERN), "tools/list", Value::Null), BAD_META),
        (Post::legacy(Some(MODERN), "tools/list", json!({"_meta": []})), BAD_META),
        (Post::legacy(Some("2024-11-05"), "tools/list", json!({})), UNSUPPORTED),
        (
            Post::legacy(Some("2025-11-25"), "tools/list", json!({}))
                .also("mcp-protocol-version", "2025-11-25"),
            MISMATCH,
        ),
    ];
    for (post, expected) in table {
        let reply = post.clone().send(&app).await;
        assert_eq!(reply.error(), expected, "{post:?}");
        assert_eq!(reply.json()["id"], 1, "{post:?}");
    }
    let reply = claiming(json!("v999")).header("mcp-protocol-version", "v999").send(&app).await;
    assert_eq!(reply.json()["error"]["data"], json!({"supported": [MODERN], "requested": "v999"}));
}

#[tokio::test]
async fn meta_is_checked_before_the_other_headers() {
    let app = app();
    let with = |key: &str, value: Value| {
        let meta = json!({ format!("io.modelcontextprotocol/{key}"): value });
        Post::modern("tools/list", json!({ "_meta": meta })).without("mcp-method")
    };
    let table = [
        with("clientCapabilities", Value::Null),
        with("clientCapabilities", json!([])),
        with("clientInfo", Value::Null),
        with("clientInfo", json!("me")),
        with("clientInfo", json!({"name": "me"})),
        with("clientInfo", json!({"name": "me", "version": 1})),
        with("logLevel", json!("loud")),
        with("logLevel", json!(3)),
    ];
    for post in table {
        assert_eq!(post.clone().send(&app).await.error(), BAD_META, "{post:?}");
    }
    let fine = with("clientInfo", json!({"name": "me", "version": "1", "websiteUrl": "https://example.com"}));
    assert_eq!(fine.clone().send(&app).await.error(), MISMATCH, "now Mcp-Method is missed");
    assert_eq!(fine.header("mcp-method", "tools/list").send(&app).await.error(), (200, 0));
}

#[tokio::test]
async fn the_method_and_the_name_are_repeated_in_headers() {
    let app = app();
    let text = || call("test_simple_text");
    let unknown = |name: &str| call("x").header("mcp-name", name);
    let served = (200, 0);
    let table = [
        (text(), served),
        (text().without("mcp-method"), MISMATCH),
        (text().header("mcp-method", "tools/list"), MISMATCH),
        (text().header("mcp-method", "Tools/Call"), MISMATCH),
        (text().header("mcp-method", " tools/call\t"), served),
        (text().also("mcp-method", "tools/call"), MISMATCH),
        (text().without("mcp-name"), MISMATCH),
        (text().header("mcp-name", "test_image_content"), MISMATCH),
        (text().header("mcp-name", "TEST_SIMPLE_TEXT"), MISMATCH),
        (text().also("mcp-name", "test_simple_text"), MISMATCH),
        (text().header("mcp-name", "  test_simple_text  "), served),
        (text().header("mcp-name", "=?base64?dGVzdF9zaW1wbGVfdGV4dA==?="), served),
        (text().header("mcp-name", "=?base64?dGVzdF9zaW1wbGVfdGV4dA?="), MISMATCH),
        (text().header("mcp-name", "=?BASE64?dGVzdF9zaW1wbGVfdGV4dA==?="), MISMATCH),
        (text().header("mcp-name", "é"), MISMATCH),
        // An unknown tool is told by its name, but only if header and body agree on it.
        (unknown("x"), (200, -32602)),
        (unknown("y"), MISMATCH),
        // The method is judged before its name.
        (Post::modern("ping", json!({})), (404, -32601)),
        (Post::modern("resources/read", json!({"uri": "a:b"})), (404, -32601)),
        // A name where none belongs is nobody's business.
        (list().header("mcp-name", "anything"), served),
        // What the modern era does not know is ignored.
        (list().header("mcp-session-id", "anything").header("last-event-id", "1"), served),
    ];
    for (post, expected) in table {
        let reply = post.clone().send(&app).await;
        assert_eq!(reply.error(), expected, "{post:?}");
        assert!(!reply.headers.contains_key("mcp-session-id"));
    }
}

#[tokio::test]
async fn a_name_beyond_ascii_travels_in_base64() {
    let app = app();
    let post = call("wetter_für_heute").header("mcp-name", "=?base64?d2V0dGVyX2bDvHJfaGV1dGU=?=");
    let reply = post.send(&app).await;
    assert_eq!(reply.error(), (200, -32602), "the header agrees; the tool is unknown");
}

#[tokio::test]
async fn arguments_that_a_tool_marks_are_repeated_in_headers() {
    let app = app();
    let with = |arguments: Value| {
        Post::modern("tools/call", json!({"name": "test_header_arguments", "arguments": arguments}))
    };
    let region = || with(json!({"region": "eu"}));
    let served = (200, 0);
    let table = [
        (with(json!({})), served),
        (with(json!({"region": null})), served),
        (region(), MISMATCH),
        (region().header("mcp-param-region", "eu"), served),
        (region().header("mcp-param-region", "us"), MISMATCH),
        (region().header("mcp-param-region", "EU"), MISMATCH),
        (region().header("mcp-param-region", "eu").also("mcp-param-region", "eu"), MISMATCH),
        (region().header("mcp-param-region", "=?base64?ZXU=?="), served),
        (region().header("mcp-param-region", "=?base64?ZXU?="), MISMATCH),
        (region().header("mcp-param-region", "=?base64?Z!U=?="), MISMATCH),
        (with(json!({"region": "=?base64?ZXU="})).header("mcp-param-region", "=?base64?ZXU="), served),
        (with(json!({"region": "ZXU=?="})).header("mcp-param-region", "ZXU=?="), served),
        (with(json!({})).header("mcp-param-region", "eu"), MISMATCH),
        (with(json!({"region": null})).header("mcp-param-region", "null"), MISMATCH),
        (with(json!({})).header("mcp-param-other", "anything"), served),
        (with(json!({"limit": 42})), MISMATCH),
        (with(json!({"limit": 42})).header("mcp-param-limit", "42"), served),
        (with(json!({"limit": 42})).header("mcp-param-limit", "42.0"), served),
        (with(json!({"limit": 42})).header("mcp-param-limit", "43"), MISMATCH),
        (with(json!({"limit": 42})).header("mcp-param-limit", "many"), MISMATCH),
        (with(json!({"dry": false})).header("mcp-param-dry", "false"), served),
        (with(json!({"dry": false})).header("mcp-param-dry", "False"), MISMATCH),
        (with(json!({"where": {"zone": "a"}})), MISMATCH),
        (with(json!({"where": {"zone": "a"}})).header("mcp-param-zone", "a"), served),
        (with(json!({"where": "elsewhere"})), served),
        (with(json!({"region": ["eu"]})), served),
        (with(json!({"region": ["eu"]})).header("mcp-param-region", "eu"), MISMATCH),
    ];
    for (post, expected) in table {
        assert_eq!(post.clone().send(&app).await.error(), expected, "{post:?}");
    }
}

#[tokio::test]
async fn legacy_requests_repeat_nothing() {
    let app = app();
    for revision in [None, Some("2025-03-26"), Some("2025-06-18"), Some("2025-11-25")] {
        let arguments = json!({"name": "test_header_arguments", "arguments": {"region": "eu"}});
        let post = Post::legacy(revision, "tools/call", arguments)
            .header("mcp-method", "something/else")
            .header("mcp-name", "something else")
            .header("mcp-param-region", "us")
            .header("mcp-session-id", "none of ours");
        let reply = post.send(&app).await;
        assert_eq!(reply.error(), (200, 0), "{revision:?}");
        assert!(!reply.headers.contains_key("mcp-session-id"));
    }
}

#[tokio::test]
async fn notifications_are_taken_in_any_era_whatever_they_lack() {
    let app = app();
    let notification =
        |params: Value| json!({"jsonrpc": "2.0", "method": "notifications/anything", "params": params});
    let claim = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}});
    let table = [
        (Post::json(&notification(json!({}))), 202),
        (Post::json(&notification(Value::Null)), 202),
        (Post::json(&notification(json!([]))), 202),
        (Post::json(&notification(claim)), 202),
        (Post::json(&notification(json!({}))).header("mcp-protocol-version", MODERN), 202),
        (Post::json(&notification(json!({}))).header("mcp-protocol-version", "2025-06-18"), 202),
        (Post::json(&json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "panic"}})), 202),
        (Post::json(&notification(json!({}))).header("mcp-protocol-version", "v999"), 400),
    ];
    for (post, status) in table {
        let reply = post.clone().send(&app).await;
        assert_eq!(reply.status.as_u16(), status, "{post:?}");
        assert!(status == 400 || reply.body.is_empty(), "{post:?}");
    }
}
