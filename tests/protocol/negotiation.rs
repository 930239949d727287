//! Each revision gets what it knows; an independent client gets along with both eras.

use std::sync::Arc;

use apixx_mcp::protocol::http::HttpConfig;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};

use crate::probe::Probe;
use crate::support::{MODERN, Post, app, app_of, serving};

#[tokio::test]
async fn tools_are_listed_in_the_words_of_the_revision() {
    let app = app();
    let mut later = Vec::new();
    for revision in [None, Some("2025-03-26"), Some("2025-06-18"), Some("2025-11-25"), Some(MODERN)] {
        let post = match revision {
            Some(MODERN) => Post::modern("tools/list", json!({})),
            revision => Post::legacy(revision, "tools/list", json!({})),
        };
        let reply = post.send(&app).await;
        assert_eq!(reply.headers["cache-control"], "no-store");
        let result = &reply.json()["result"];
        let mut members: Vec<&str> =
            result.as_object().expect("an object").keys().map(String::as_str).collect();
        members.sort_unstable();
        let tool = &result["tools"][0];
        assert_eq!(tool["name"], "test_simple_text");
        assert_eq!(tool["annotations"].as_object().map(serde_json::Map::len), Some(4), "{tool}");
        match revision {
            Some(MODERN) => {
                assert_eq!(members, ["_meta", "cacheScope", "resultType", "tools", "ttlMs"]);
                assert_eq!(result["ttlMs"], 60_000);
                assert_eq!(result["cacheScope"], "private");
                assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "fixture");
            }
            _ => assert_eq!(members, ["tools"], "{revision:?}"),
        }
        match revision {
            None | Some("2025-03-26") => assert_eq!(tool.get("title"), None),
            _ => later.push(result["tools"].clone()),
        }
    }
    assert_eq!(later.len(), 3);
    assert!(later.iter().all(|tools| *tools == later[0]));
}

#[tokio::test]
async fn a_list_has_one_page_so_no_cursor_is_ours() {
    let app = app();
    for cursor in [json!(""), json!("abc"), json!(0), json!({})] {
        for post in [
            Post::legacy(None, "tools/list", json!({"cursor": cursor})),
            Post::legacy(Some("2025-11-25"), "tools/list", json!({"cursor": cursor})),
            Post::modern("tools/list", json!({"cursor": cursor})),
        ] {
            assert_eq!(post.send(&app).await.error(), (200, -32602), "{cursor}");
        }
    }
}

#[tokio::test]
async fn the_product_hears_who_the_client_says_it_is() {
    let (probe, _) = Probe::new();
    let app = app_of(Arc::clone(&probe), HttpConfig::default(), &[]);
    let client = json!({"name": "client", "title": "A client", "version": "1.2"});
    let handshake = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    Post::legacy(None, "initialize", handshake).send(&app).await.json();
    let meta = json!({"io.modelcontextprotocol/clientInfo": client});
    Post::modern("server/discover", json!({ "_meta": meta })).send(&app).await.json();
    Post::modern("server/discover", json!({})).send(&app).await.json();
    let met = probe.met.lock().unwrap();
    assert_eq!(met.len(), 2);
    assert_eq!(met[0], met[1]);
    assert_eq!((met[0].name.as_str(), met[0].version.as_str()), ("client", "1.2"));
}

#[tokio::test]
async fn a_malformed_handshake_is_refused() {
    let app = app();
    let client = json!({"name": "x"});
    for params in [
        json!({}),
        json!({"protocolVersion": 20_251_125}),
        json!({"protocolVersion": "2025-11-25", "capabilities": 1}),
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}),
    ] {
        let reply = Post::legacy(None, "initialize", params.clone()).send(&app).await;
        assert_eq!(reply.error(), (200, -32602), "{params}");
    }
}

#[tokio::test]
async fn an_independent_client_gets_along_in_both_eras() {
    let address = serving(app()).await;
    let modern = || vec![ProtocolVersion::V_2026_07_28];
    let modes = [
        (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25),
        (ClientLifecycleMode::Discover { preferred_versions: modern() }, ProtocolVersion::V_2026_07_28),
        (
            ClientLifecycleMode::Auto { preferred_versions: modern(), legacy_version: None },
            ProtocolVersion::V_2026_07_28,
        ),
    ];
    for (mode, agreed) in modes {
        let transport = StreamableHttpClientTransport::from_uri(format!("http://{address}/mcp"));
        let client = ().serve_with_lifecycle(transport, mode).await.expect("the two agree");
        let info = client.peer_info().expect("the server introduced itself");
        assert_eq!(info.protocol_version, agreed);
        let tools = client.list_all_tools().await.expect("the tools are listed");
        assert!(tools.iter().any(|tool| tool.name == "test_header_arguments"));
        let arguments = json!({"region": "ü", "limit": 7, "dry": true, "where": {"zone": " z "}});
        let Value::Object(arguments) = arguments else { panic!("an object") };
        let call = CallToolRequestParams::new("test_header_arguments").with_arguments(arguments.clone());
        let result = client.call_tool(call).await.expect("the arguments and their headers agree");
        let text = &result.content[0].as_text().expect("text").text;
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), Value::Object(arguments));
        let call = CallToolRequestParams::new("test_tool_with_progress");
        let result = client.call_tool(call).await.expect("an event stream is read to its end");
        assert!(!result.is_error.unwrap_or_default());
        client.cancel().await.expect("the client ends");
    }
}
