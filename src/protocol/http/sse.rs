//! Answers a call with JSON, or with an event stream once there is something to tell before the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::json;

/// What a call ends in: its response and the status that goes with it, or nothing if it was cancelled.
pub(super) type Outcome = Option<(StatusCode, Bytes)>;

/// A call under way. It lives and ends with the response: when the client goes away, the server drops the response and
/// with it the call, wherever it stands.
pub(super) type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs a call and answers with what comes first: its end, as plain JSON with its own status; or a notification, which
/// opens an event stream with status 200.
pub(super) async fn respond(
    mut call: Call,
    mut notifications: mpsc::Receiver<Bytes>,
    keep_alive: Duration,
) -> Response {
    tokio::select! {
        biased;
        Some(first) = notifications.recv() => live(first, call, notifications, keep_alive),
        outcome = &mut call => {
            let told = frames_left(&mut notifications);
            match outcome {
                None => StatusCode::ACCEPTED.into_response(),
                Some((status, body)) if told.is_empty() => json(status, body),
                Some((_, body)) => events(Body::from([told, frame(&body)].concat())),
            }
        }
    }
}

fn live(first: Bytes, call: Call, notifications: mpsc::Receiver<Bytes>, keep_alive: Duration) -> Response {
    let mut ticks = interval_at(Instant::now() + keep_alive, keep_alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // From here on the response moves only as fast as the client reads; the call, and its deadline, must not.
    let call = AbortOnDropHandle::new(tokio::spawn(call.in_current_span()));
    let live = Live { call, notifications, ticks };
    let first = stream::once(async move { Bytes::from(frame(&first)) });
    let rest = stream::unfold(Some(live), |live| async { next(live?).await });
    events(Body::from_stream(first.chain(rest).map(Ok::<_, Infallible>)))
}

struct Live {
    call: AbortOnDropHandle<Outcome>,
    notifications: mpsc::Receiver<Bytes>,
    ticks: Interval,
}

async fn next(mut live: Live) -> Option<(Bytes, Option<Live>)> {
    tokio::select! {
        biased;
        Some(event) = live.notifications.recv() => Some((frame(&event).into(), Some(live))),
        outcome = &mut live.call => {
            let told = frames_left(&mut live.notifications);
            let answer = outcome.ok().flatten().map(|(_, body)| frame(&body)).unwrap_or_default();
            Some(([told, answer].concat().into(), None))
        }
        _ = live.ticks.tick() => Some((Bytes::from_static(b":\n\n"), Some(live))),
    }
}

/// What a call told in its last moment.
fn frames_left(notifications: &mut mpsc::Receiver<Bytes>) -> Vec<u8> {
    let mut frames = Vec::new();
    while let Ok(message) = notifications.try_recv() {
        frames.extend(frame(&message));
    }
    frames
}

/// One event: a JSON-RPC message, which as JSON holds no line break. No `id`: there is nothing to resume.
fn frame(message: &[u8]) -> Vec<u8> {
    [b"event: message\ndata: ", message, b"\n\n"].concat()
}

fn events(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream"),
        (CACHE_CONTROL.as_str(), "no-cache"),
        ("x-accel-buffering", "no"), // nginx would hold events back
    ];
    (StatusCode::OK, headers, body).into_response()
}
