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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn broken() -> Response {
        panic!("as a mistake of ours would")
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_its_request() {
        let router = Router::new().route("/", get(broken)).layer(from_fn(catch_panics));
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(RequestId("req_1".into()));
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        let body = to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["error"],
            json!({"code": -32603, "message": "Internal error", "data": {"request_id": "req_1"}})
        );
    }
}
