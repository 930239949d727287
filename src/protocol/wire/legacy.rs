//! Revisions up to 2025-11-25: what their requests say.

use crate::protocol::dispatch::Request;
use crate::protocol::jsonrpc::{Id, Message, Params, RpcError};
use crate::protocol::revision::{Era, Revision};

use super::{call_tool, client_info, invalid, list, log_level, nothing, progress_token, unknown_method};

/// A method of this era, and how its params become a request. One that is not here does not exist; those of
/// resources, prompts and completions come with their capability.
type Method = (&'static str, fn(Params) -> Result<Request, RpcError>);

const METHODS: &[Method] = &[
    ("initialize", initialize),
    ("ping", |params| nothing(&params).map(|()| Request::Ping)),
    ("logging/setLevel", set_log_level),
    ("tools/list", |params| list(&params).map(|()| Request::ListTools)),
    ("tools/call", |params| call_tool(params).map(Request::CallTool)),
];

/// A request, and how the client wants to hear of its progress.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The request.
    pub request: Request,
    /// The token under which it wants progress, if any.
    pub progress_token: Option<Id>,
}

/// The request a message is.
///
/// # Errors
/// `-32601` or `-32602`; the HTTP status is 200 for both.
pub fn decode(message: Message) -> Result<Decoded, RpcError> {
    let Message { method, params, .. } = message;
    let (_, read) =
        METHODS.iter().find(|(name, _)| *name == method).ok_or_else(|| unknown_method(&method))?;
    let progress_token = progress_token(&params)?;
    Ok(Decoded { request: read(params)?, progress_token })
}

/// The request that a message asks to cancel, if it is `notifications/cancelled` and says which.
pub fn cancelled(message: &Message) -> Option<Id> {
    if message.method != "notifications/cancelled" {
        return None;
    }
    message.params.get("requestId").and_then(Id::from_value)
}

fn initialize(params: Params) -> Result<Request, RpcError> {
    let requested = params.get("protocolVersion").and_then(|version| version.as_str()).ok_or_else(|| {
        invalid("Invalid params: `protocolVersion` must be a string, such as \"2025-11-25\".")
    })?;
    if params.get("capabilities").is_some_and(|capabilities| !capabilities.is_object()) {
        return Err(invalid("Invalid params: `capabilities` must be an object."));
    }
    let revision = Revision::named(requested)
        .filter(|revision| revision.era() == Era::Legacy)
        .unwrap_or(Revision::NEWEST_LEGACY);
    let client = client_info(params.get("clientInfo"), "clientInfo")?;
    Ok(Request::Initialize { revision, client })
}

fn set_log_level(params: Params) -> Result<Request, RpcError> {
    let level = params.get("level").ok_or_else(|| invalid("Invalid params: `level` is missing."))?;
    log_level(level, "level")?;
    Ok(Request::SetLogLevel)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::jsonrpc::{INVALID_PARAMS, METHOD_NOT_FOUND};

    fn decoded(method: &str, params: Value) -> Result<Request, i64> {
        let params = match params {
            Value::Null => Params::Absent,
            Value::Object(map) => Params::Object(map),
            _ => Params::Other,
        };
        let message = Message { id: Some(Id::Signed(1)), method: method.to_owned(), params };
        decode(message).map(|decoded| decoded.request).map_err(|error| error.code)
    }

    #[test]
    fn initialize_answers_with_a_legacy_revision_whatever_is_asked() {
        let cases = [
            ("2025-03-26", Revision::V2025_03_26),
            ("2025-06-18", Revision::V2025_06_18),
            ("2025-11-25", Revision::V2025_11_25),
            ("2026-07-28", Revision::V2025_11_25),
            ("2024-11-05", Revision::V2025_11_25),
            ("", Revision::V2025_11_25),
        ];
        for (requested, revision) in cases {
            let params = json!({"protocolVersion": requested, "capabilities": {}});
            let expected = Ok(Request::Initialize { revision, client: None });
            assert_eq!(decoded("initialize", params), expected, "{requested}");
        }
    }

    #[test]
    fn modern_methods_and_those_of_absent_capabilities_are_unknown() {
        for method in
            ["server/discover", "resources/list", "prompts/list", "completion/complete", "tasks/get", ""]
        {
            assert_eq!(decoded(method, Value::Null), Err(METHOD_NOT_FOUND), "{method}");
        }
    }

    #[test]
    fn wrong_params_are_refused() {
        let cases = [
            ("initialize", Value::Null),
            ("initialize", json!({"protocolVersion": 1})),
            ("initialize", json!({"protocolVersion": "2025-11-25", "capabilities": []})),
            ("initialize", json!({"protocolVersion": "2025-11-25", "clientInfo": {"name": "x"}})),
            ("ping", json!([])),
            ("logging/setLevel", json!({})),
            ("logging/setLevel", json!({"level": "loud"})),
            ("tools/list", json!("x")),
            ("tools/list", json!({"cursor": ""})),
            ("tools/list", json!({"cursor": "abc"})),
            ("tools/list", json!({"cursor": 1})),
            ("tools/call", Value::Null),
            ("tools/call", json!({})),
            ("tools/call", json!({"name": 1})),
            ("tools/call", json!({"name": "x", "arguments": []})),
            ("tools/call", json!({"name": "x", "_meta": {"progressToken": 1.5}})),
        ];
        for (method, params) in cases {
            assert_eq!(decoded(method, params.clone()), Err(INVALID_PARAMS), "{method} {params}");
        }
    }
}
