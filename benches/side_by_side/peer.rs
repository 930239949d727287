//! The peer: a server on the official Rust SDK, stateless, answering JSON, with the same statements and the same
//! list of tools. No token, no limit, no row-level security.

use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::queries::{Asked, Queries};

#[derive(Clone)]
struct Peer {
    queries: Queries,
    tools: Arc<Vec<Tool>>,
}

pub async fn serve(listener: TcpListener, database: &str, listing: &[u8]) {
    let listing: Value = serde_json::from_slice(listing).expect("an answer to tools/list");
    let tools = serde_json::from_value(listing["result"]["tools"].clone()).expect("tools");
    let peer = Peer { queries: Queries::connect(database).await, tools: Arc::new(tools) };
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_sse_keep_alive(None);
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(peer.clone()), sessions, config);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await.expect("it serves");
}

impl ServerHandler for Peer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let wrong = |error: serde_json::Error| ErrorData::invalid_params(error.to_string(), None);
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let asked: Asked = serde_json::from_value(arguments).map_err(wrong)?;
        let answer = match &*request.name {
            "get_run" => serde_json::to_value(self.queries.run(&asked).await),
            _ => serde_json::to_value(self.queries.runs(&asked).await).map(|runs| json!({ "runs": runs })),
        };
        Ok(CallToolResult::structured(answer.map_err(wrong)?).into())
    }
}
