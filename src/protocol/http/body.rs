//! Reads a body within its bounds of size and time, or reads past one that nobody wants.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};
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
    let mut body = Limited::new(body, max);
    let read = async {
        // Copied: a body that comes byte by byte would keep a buffer for each.
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(whole.freeze())
    };
    match tokio::time::timeout(time, read).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => {
            let message = "The body broke off; send it again, whole.";
            Err(Problem::new(StatusCode::BAD_REQUEST, "body_broken", message))
        }
        Err(_) => {
            let message =
                format!("The body did not arrive within {} s; send it again, faster.", time.as_secs_f32());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
        }
    }
}

/// Bytes of a refused body that are read past.
const PASSED_OVER: usize = 64 * 1024;

/// What becomes of a body after a refusal that did not wait for it. The next request of an HTTP/1 connection stands
/// behind it, so it is read past, within the `time` of any body; a client that did not look for an answer before it had
/// sent everything would otherwise find its connection broken. Nothing of it is kept.
///
/// Where it is long, or waits for a word that will not come (RFC 9110, section 10.1.1), the connection ends and the
/// answer says so.
pub(super) fn pass_over(body: Body, parts: &Parts, time: Duration, response: &mut Response) {
    if parts.version > Version::HTTP_11 || body.is_end_stream() {
        return;
    }
    let long = usize::try_from(body.size_hint().lower()).map_or(true, |said| said > PASSED_OVER);
    if long || parts.headers.contains_key(EXPECT) {
        return ends_connection(parts, response);
    }
    let mut rest = Limited::new(body, PASSED_OVER);
    tokio::spawn(tokio::time::timeout(time, async move { while let Some(Ok(_)) = rest.frame().await {} }));
}

/// Says that the connection ends with this answer (RFC 9112, section 9.6), as it does when a body is left on it.
pub fn ends_connection(parts: &Parts, response: &mut Response) {
    if parts.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn too_large(max: usize) -> Problem {
    let message = format!("The body is larger than {max} bytes; send less.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
