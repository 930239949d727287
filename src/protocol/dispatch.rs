//! A request and the product become an answer, in no era's words.

use std::sync::Arc;

use serde_json::json;

use super::content::ToolAnswer;
use super::exchange::Exchange;
use super::jsonrpc::{INVALID_PARAMS, MISSING_CAPABILITY, RpcError};
use super::model::ClientInfo;
use super::revision::{Era, Revision};
use super::server::{CallError, CallTool, Server};
use super::tool::ToolList;
use super::wire::asked;

/// What a client asks, once its era has read it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The legacy handshake.
    Initialize {
        /// The revision both will speak.
        revision: Revision,
        /// Who the client says it is.
        client: Option<ClientInfo>,
    },
    /// The modern description of the server.
    Discover,
    /// Are you there?
    Ping,
    /// Which log lines to send; taken and forgotten, since nothing is kept between requests.
    SetLogLevel,
    /// The tools.
    ListTools,
    /// A call.
    CallTool(CallTool),
}

/// What the server answers.
#[derive(Debug)]
pub enum Answer {
    /// To the legacy handshake: the revision both will speak.
    Initialized(Revision),
    /// To `server/discover`.
    Discovered,
    /// Yes, and nothing more.
    Empty,
    /// The tools of this caller.
    Tools(Arc<ToolList>),
    /// What the tool said.
    Tool(ToolAnswer),
}

/// Answers a request.
///
/// # Errors
/// Only a call has any: [`CallError`] in the words of JSON-RPC.
pub async fn dispatch<P: Server>(
    server: &P,
    caller: &P::Caller,
    request: Request,
    exchange: &Exchange,
) -> Result<Answer, RpcError> {
    count(&request);
    match request {
        Request::Initialize { revision, client } => {
            if let Some(client) = client {
                server.met(caller, &client, revision);
            }
            Ok(Answer::Initialized(revision))
        }
        Request::Discover => Ok(Answer::Discovered),
        Request::Ping | Request::SetLogLevel => Ok(Answer::Empty),
        Request::ListTools => Ok(Answer::Tools(server.tools(caller))),
        Request::CallTool(call) => {
            let name = call.name.clone();
            match server.call_tool(caller, call, exchange).await {
                Ok(answer) => Ok(Answer::Tool(answer)),
                Err(error) => refused(error, &name, exchange.revision),
            }
        }
    }
}

/// Counts a request, by its method.
fn count(request: &Request) {
    match request {
        Request::Initialize { .. } => metrics::counter!("mcp_requests_total", "method" => "initialize"),
        Request::Discover => metrics::counter!("mcp_requests_total", "method" => "server/discover"),
        Request::Ping => metrics::counter!("mcp_requests_total", "method" => "ping"),
        Request::SetLogLevel => metrics::counter!("mcp_requests_total", "method" => "logging/setLevel"),
        Request::ListTools => metrics::counter!("mcp_requests_total", "method" => "tools/list"),
        Request::CallTool(_) => metrics::counter!("mcp_requests_total", "method" => "tools/call"),
    }
    .increment(1);
}

fn refused(error: CallError, name: &str, revision: Revision) -> Result<Answer, RpcError> {
    match error {
        CallError::UnknownTool => {
            let asked = asked(name);
            let message = format!("Unknown tool: {asked}. `tools/list` names the tools there are.");
            Err(RpcError::new(INVALID_PARAMS, message))
        }
        CallError::InvalidArguments { answer, .. } if revision >= Revision::V2025_11_25 => {
            Ok(Answer::Tool(answer))
        }
        CallError::InvalidArguments { message, data, .. } => {
            Err(RpcError::new(INVALID_PARAMS, message).with(data))
        }
        CallError::MissingCapability(required) => {
            let message = "This tool needs a client capability that was not declared.";
            match revision.era() {
                Era::Modern => Err(RpcError::new(MISSING_CAPABILITY, message)
                    .with(json!({ "requiredCapabilities": required }))),
                Era::Legacy => Ok(Answer::Tool(ToolAnswer::error(format!("{message} It needs: {required}")))),
            }
        }
        CallError::Unavailable { message, request_id } => Err(RpcError::unavailable(message, &request_id)),
        CallError::Internal { request_id } => Err(RpcError::internal(&request_id)),
    }
}
