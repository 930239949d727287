//! What a page is sent arrives soon and is small, before the page looks at it: of who sends a form to sign in nothing is
//! known yet.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::trouble::Trouble;
use crate::protocol::http::ends_connection;

/// Bytes of a form at most.
const MAX_FORM: usize = 16 * 1024;

/// Hands a request on once its body is whole: 408 when that takes longer than `time`, 413 beyond [`MAX_FORM`].
pub(super) async fn whole(State(time): State<Duration>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let mut response = match timeout(time, Limited::new(body, MAX_FORM).collect()).await {
        Ok(Ok(form)) => {
            return next.run(Request::from_parts(parts, Body::from(form.to_bytes()))).await;
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Trouble::TooLarge.into_response(),
        Ok(Err(_)) => Trouble::Unreadable.into_response(),
        Err(_) => Trouble::TooSlow.into_response(),
    };
    // The rest of the body stands before the next request.
    ends_connection(&parts, &mut response);
    response
}
