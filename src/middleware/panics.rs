//! A panic ends its request, not the server.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt;
use http::StatusCode;

use super::refusal::refusal;
use crate::protocol::http::RequestId;
use crate::protocol::jsonrpc::RpcError;

/// Answers 500 with the request's id when what is inside panics. (The layer of the HTTP libraries answers too,
/// but knows nothing of the request.)
pub async fn catch_panics(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("a request panicked");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, &RpcError::internal(&id))
        }
    }
}
