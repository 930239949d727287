//! The words of each era: messages become requests, answers become bytes.

mod encode;
pub mod legacy;
pub mod modern;

use http::StatusCode;
use serde_json::{Map, Value};

pub use encode::encode;

use super::jsonrpc::{INVALID_PARAMS, Id, METHOD_NOT_FOUND, Params, RpcError};
use super::model::{ClientInfo, LogLevel};
use super::server::CallTool;

/// A request that is not served, with its HTTP status.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The error.
    pub error: RpcError,
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(INVALID_PARAMS, message)
}

fn unknown_method(method: &str) -> RpcError {
    RpcError::new(METHOD_NOT_FOUND, format!("Method not found: {}", asked(method)))
}

/// What somebody asked for that is not there, short enough to be told: it may be long, and may be anything.
pub(super) fn asked(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// The params of `tools/call`.
fn call_tool(params: Params) -> Result<CallTool, RpcError> {
    let Params::Object(mut params) = params else {
        return Err(invalid("Invalid params: `tools/call` needs an object with `name`."));
    };
    let Some(Value::String(name)) = params.remove("name") else {
        return Err(invalid("Invalid params: `name` must be a string, the name of a tool."));
    };
    let arguments = match params.remove("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(invalid("Invalid params: `arguments` must be an object.")),
    };
    Ok(CallTool { name, arguments })
}

/// The params of a list. Each list has one page, so no cursor is one of ours.
fn list(params: &Params) -> Result<(), RpcError> {
    match params {
        Params::Other => Err(not_an_object()),
        params if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) => {
            Err(invalid("Invalid params: this server did not issue that `cursor`; leave it out."))
        }
        _ => Ok(()),
    }
}

/// The params of a method that has none.
fn nothing(params: &Params) -> Result<(), RpcError> {
    if *params == Params::Other { Err(not_an_object()) } else { Ok(()) }
}

fn not_an_object() -> RpcError {
    invalid("Invalid params: `params` must be an object.")
}

/// `_meta.progressToken`.
fn progress_token(params: &Params) -> Result<Option<Id>, RpcError> {
    match params.get("_meta").and_then(|meta| meta.get("progressToken")) {
        None | Some(Value::Null) => Ok(None),
        Some(token) => Id::from_value(token).map(Some).ok_or_else(|| {
            invalid("Invalid params: `progressToken` must be a string of at most 4096 bytes or an integer.")
        }),
    }
}

fn client_info(value: Option<&Value>, name: &str) -> Result<Option<ClientInfo>, RpcError> {
    value.map(serde::Deserialize::deserialize).transpose().map_err(|_| {
        invalid(format!("Invalid params: `{name}` must be an object with `name` and `version`."))
    })
}

fn log_level(value: &Value, name: &str) -> Result<LogLevel, RpcError> {
    serde::Deserialize::deserialize(value).map_err(|_| {
        invalid(format!(
            "Invalid params: `{name}` must be debug, info, notice, warning, error, critical, alert or emergency."
        ))
    })
}
