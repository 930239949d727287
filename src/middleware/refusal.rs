//! An answer that says no before any message was read: a JSON-RPC error without an id.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::protocol::jsonrpc::{RpcError, failure};

/// `error` under `status`.
pub fn refusal(status: StatusCode, error: &RpcError) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, failure(None, error)).into_response()
}
