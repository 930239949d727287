//! Reads a body within its bounds of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Problem;

/// Refuses a body that says it is too large, before anything is known of the caller.
///
/// # Errors
/// 413.
pub(super) fn declared_size(headers: &HeaderMap, max: usize) -> Result<(), Problem> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match declared.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if usize::try_from(length).map_or(true, |length| length > max) => Err(too_large(max)),
        _ => Ok(()),
    }
}

/// The whole body.
///
/// # Errors
/// 413 beyond `max` bytes, 408 when it is not whole within `time`, 400 when the client breaks off.
pub(super) async fn whole(body: Body, max: usize, time: Duration) -> Result<Bytes, Problem> {
    match tokio::time::timeout(time, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "The body broke off; send it again, whole.")),
        Err(_) => {
            let message =
                format!("The body did not arrive within {} s; send it again, faster.", time.as_secs_f32());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {max} bytes; send less."))
}
