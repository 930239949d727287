//! Revision 2026-07-28: what its requests say, and what their headers must repeat.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::protocol::classify::{VERSION_KEY, unsupported};
use crate::protocol::dispatch::Request;
use crate::protocol::header::{self, Header, agrees, decoded, mismatch};
use crate::protocol::jsonrpc::{
    HEADER_MISMATCH, Id, METHOD_NOT_FOUND, MISSING_CAPABILITY, Message, Params, RpcError, UNSUPPORTED_VERSION,
};
use crate::protocol::model::{ClientCapabilities, ClientInfo, LogLevel};
use crate::protocol::revision::{Era, Revision};
use crate::protocol::server::CallTool;
use crate::protocol::tool::{HeaderArgument, ToolList};

use super::{
    Refusal, call_tool, client_info, invalid, list, log_level, nothing, progress_token, unknown_method,
};

/// The `_meta` key under which every result names the server.
pub const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT_KEY: &str = "io.modelcontextprotocol/clientInfo";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";

/// A method of this era: the member of its params that `Mcp-Name` repeats, and how they become a request. One that is
/// not here does not exist; those of resources, prompts, completions, listening and tasks come with their capability.
struct Method {
    name: &'static str,
    mirrored: Option<&'static str>,
    read: fn(Params) -> Result<Request, RpcError>,
}

const METHODS: &[Method] = &[
    Method {
        name: "server/discover",
        mirrored: None,
        read: |params| nothing(&params).map(|()| Request::Discover),
    },
    Method { name: "tools/list", mirrored: None, read: |params| list(&params).map(|()| Request::ListTools) },
    Method {
        name: "tools/call",
        mirrored: Some("name"),
        read: |params| call_tool(params).map(Request::CallTool),
    },
];

/// What a request says of itself in `_meta`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Who the client says it is.
    pub client: Option<ClientInfo>,
    /// What it can do, for this request.
    pub capabilities: ClientCapabilities,
    /// Which log lines it wants, if any.
    pub log_level: Option<LogLevel>,
    /// The token under which it wants progress, if any.
    pub progress_token: Option<Id>,
}

/// As this era has it.
impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self { status: status(&error), error }
    }
}

/// The HTTP status of an error. What the specification leaves open is 200: a client that tries this era first may
/// take 400 with any other code for a legacy server's.
pub fn status(error: &RpcError) -> StatusCode {
    match error.code {
        HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// The request a message is, checked against its headers. The order of the checks is part of the protocol: each
/// error tells the client something about the server.
///
/// # Errors
/// What is wrong first.
pub fn decode(headers: &HeaderMap, message: Message) -> Result<(Meta, Request), Refusal> {
    let Message { method, params, .. } = message;
    let version = Header::of(headers, header::VERSION).required("MCP-Protocol-Version")?;
    let (claimed, meta) =
        meta(&params).map_err(|error| Refusal { status: StatusCode::BAD_REQUEST, error })?;
    if version != claimed {
        return Err(mismatch("MCP-Protocol-Version and `_meta` name different revisions.").into());
    }
    if Revision::named(&claimed).is_none_or(|revision| revision.era() != Era::Modern) {
        return Err(unsupported(&claimed).into());
    }
    if Header::of(headers, header::METHOD).required("Mcp-Method")? != method {
        return Err(mismatch("Mcp-Method is not the body's `method`.").into());
    }
    let known = METHODS.iter().find(|known| known.name == method).ok_or_else(|| unknown_method(&method))?;
    if let Some(mirrored) = known.mirrored {
        let name = decoded("Mcp-Name", Header::of(headers, header::NAME).required("Mcp-Name")?)?;
        if params.get(mirrored).and_then(Value::as_str).is_some_and(|said| said != name) {
            return Err(mismatch(format!("Mcp-Name is not the body's `params.{mirrored}`.")).into());
        }
    }
    Ok((meta, (known.read)(params)?))
}

/// Checks the arguments that the tool wants repeated in `Mcp-Param-…` headers. A tool outside the list has none: the
/// product refuses the call anyway.
///
/// # Errors
/// [`HEADER_MISMATCH`].
pub fn check_arguments(headers: &HeaderMap, call: &CallTool, tools: &ToolList) -> Result<(), RpcError> {
    tools.header_arguments(&call.name).iter().try_for_each(|argument| check_argument(headers, call, argument))
}

fn check_argument(headers: &HeaderMap, call: &CallTool, argument: &HeaderArgument) -> Result<(), RpcError> {
    let name = argument.header.as_str();
    let header = Header::of(headers, name);
    let (root, inner) = match argument.path.split_first() {
        Some((first, inner)) => (call.arguments.get(first), inner),
        None => (None, [].as_slice()),
    };
    let value = inner.iter().fold(root, |value, step| value.and_then(|value| value.get(step)));
    match (value.filter(|value| !value.is_null()), header) {
        (None, Header::Absent) => Ok(()),
        (None, _) => Err(mismatch(format!("{name} is there, but the argument it repeats is not."))),
        // Nothing a header could repeat: the tool's own check of its arguments will say so.
        (Some(Value::Array(_) | Value::Object(_)), Header::Absent) => Ok(()),
        (Some(value), header) => {
            let said = decoded(name, header.required(name)?)?;
            if agrees(&said, value) {
                Ok(())
            } else {
                Err(mismatch(format!("{name} is not the argument `{}`.", argument.path.join("."))))
            }
        }
    }
}

/// `_meta`, and the revision it claims.
fn meta(params: &Params) -> Result<(String, Meta), RpcError> {
    let Some(Value::Object(meta)) = params.get("_meta") else {
        return Err(invalid("Invalid params: every request carries an object `params._meta`."));
    };
    let Some(Value::String(version)) = meta.get(VERSION_KEY) else {
        return Err(invalid(format!("Invalid params: `_meta[\"{VERSION_KEY}\"]` must be a string.")));
    };
    let Some(Value::Object(capabilities)) = meta.get(CAPABILITIES_KEY) else {
        return Err(invalid(format!("Invalid params: `_meta[\"{CAPABILITIES_KEY}\"]` must be an object.")));
    };
    let meta = Meta {
        client: client_info(meta.get(CLIENT_KEY), CLIENT_KEY)?,
        capabilities: ClientCapabilities::of(capabilities),
        log_level: meta.get(LOG_LEVEL_KEY).map(|level| log_level(level, LOG_LEVEL_KEY)).transpose()?,
        progress_token: progress_token(params)?,
    };
    Ok((version.clone(), meta))
}
