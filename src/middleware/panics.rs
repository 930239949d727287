//! A panic ends its request, not the server.

use std::panic::AssertUnwindSafe;

use axum::response::Response;
use futures_util::FutureExt;
use http::StatusCode;

use crate::protocol::http::refusal;
use crate::protocol::jsonrpc::RpcError;

/// Answers 500 with the request's name when what serves it panics. (The layer of the HTTP libraries answers too,
/// but knows nothing of the request.)
pub(super) async fn caught(served: impl Future<Output = Response>, name: &str) -> Response {
    match AssertUnwindSafe(served).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("a request panicked");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, &RpcError::internal(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    async fn broken() -> Response {
        panic!("as a mistake of ours would")
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_its_request() {
        let response = caught(broken(), "req_1").await;
        assert_eq!(response.status(), 500);
        let body = to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["error"],
            json!({"code": -32603, "message": "Internal error", "data": {"request_id": "req_1"}})
        );
    }
}
