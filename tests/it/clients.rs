//! A real client, in both eras of the protocol, over a real socket.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::TestApp;

#[tokio::test]
async fn rmcp_lists_and_calls_all_eleven_tools_in_both_eras() {
    let app = TestApp::demo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, app.router.clone()).into_future());
    let eras = [
        (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25),
        (
            ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
            ProtocolVersion::V_2026_07_28,
        ),
    ];
    for (mode, version) in eras {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", app.acme().token())).unwrap();
        let headers = HashMap::from([(HeaderName::from_static("authorization"), bearer)]);
        let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}/mcp"))
            .custom_headers(headers);
        let client =
            ().serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), mode).await.unwrap();
        let info = client.peer_info().unwrap();
        assert_eq!(info.protocol_version, version);
        let tools = client.list_all_tools().await.unwrap();
        assert_eq!(tools.len(), 11);
        for tool in &tools {
            let arguments = match tool.name.as_ref() {
                "get_run" | "get_run_errors" => json!({ "run_id": "run_abc123" }),
                "get_flow" | "get_flow_mappings" | "list_flow_runs" | "get_flow_error_summary" => {
                    json!({ "flow": "Shopify orders" })
                }
                "trigger_sync" => json!({ "flow": "NetSuite invoices", "wait_seconds": 0 }),
                _ => json!({}),
            };
            let Value::Object(arguments) = arguments else { panic!() };
            let call = CallToolRequestParams::new(tool.name.clone()).with_arguments(arguments);
            let result = client.call_tool(call).await.unwrap();
            assert_ne!(result.is_error, Some(true), "{}: {:?}", tool.name, result.content);
            let summary = result.structured_content.as_ref().unwrap()["summary"].as_str().unwrap().to_owned();
            assert!(result.content[0].as_text().unwrap().text.starts_with(&summary), "{}", tool.name);
        }
        for (tool, arguments, code) in [
            (
                "get_flow",
                json!({ "flow": "hubspot contcts" }),
                "FLOW_NOT_FOUND: no flow is called \"hubspot contcts\".",
            ),
            (
                "get_run",
                json!({ "run_id": "run_zzz" }),
                "RUN_NOT_FOUND: there is no run \"run_zzz\" in this workspace",
            ),
            (
                "list_runs",
                json!({ "limit": "many" }),
                "INVALID_ARGUMENTS: Invalid arguments: `limit` is not what it should be",
            ),
        ] {
            let Value::Object(arguments) = arguments else { panic!() };
            let result =
                client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap();
            assert_eq!(result.is_error, Some(true));
            assert!(result.content[0].as_text().unwrap().text.starts_with(code), "{:?}", result.content);
            assert_eq!(result.structured_content, None);
        }
        client.cancel().await.unwrap();
    }
    serving.abort();
}
