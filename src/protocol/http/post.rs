//! One POST: its body is read and becomes one message or a batch; each message is answered by its era.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::protocol::classify::{Inbound, classify};
use crate::protocol::dispatch::{Request, dispatch};
use crate::protocol::exchange::Exchange;
use crate::protocol::header::{self, Header};
use crate::protocol::inflight::Underway;
use crate::protocol::jsonrpc::{
    self, INTERNAL_ERROR, INVALID_REQUEST, Id, Message, RpcError, TOO_MANY_REQUESTS, UNAVAILABLE, Unreadable,
    failure,
};
use crate::protocol::model::LogLevel;
use crate::protocol::revision::{Era, Revision};
use crate::protocol::server::Server;
use crate::protocol::wire::{Refusal, encode, legacy, modern};

use super::sse::{Call, Outcome, respond};
use super::{Refused, RequestId, Shared, body, json, media};

/// How many notifications a slow client may leave unread before the call waits for it.
const UNREAD: usize = 16;

/// Answers a recognised caller, whose body it takes if it reads it.
pub(super) async fn post<P: Server>(
    shared: Arc<Shared<P>>,
    caller: P::Caller,
    parts: &Parts,
    body: &mut Option<Body>,
) -> Response {
    let config = &shared.config;
    if let Err(refusal) = media::check(&parts.headers) {
        return refusal.into_response();
    }
    let body = body.take().unwrap_or_default();
    let bytes = match body::whole(body, config.max_body_bytes, config.body_timeout).await {
        Ok(read) => read,
        Err(refusal) => {
            let mut response = refusal.into_response();
            body::ends_connection(parts, &mut response);
            return response;
        }
    };
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let deadline = Instant::now() + config.call_timeout;
    let post = Arc::new(Post { shared, caller, request_id, deadline });
    let message = match jsonrpc::read(&bytes, post.shared.config.max_depth, post.shared.config.max_batch) {
        Err(Unreadable { id, error, .. }) => return refuse(StatusCode::BAD_REQUEST, id.as_ref(), &error),
        Ok(jsonrpc::Body::Batch(messages)) => return post.batch(&parts.headers, messages).await,
        Ok(jsonrpc::Body::One(message)) => message,
    };
    // A call may go on for long after its body was read.
    drop(bytes);
    post.one(&parts.headers, message).await
}

/// One POST of a recognised caller.
struct Post<P: Server> {
    shared: Arc<Shared<P>>,
    caller: P::Caller,
    request_id: String,
    /// When its calls end, done or not.
    deadline: Instant,
}

impl<P: Server> Post<P> {
    /// Answers a message.
    async fn one(self: Arc<Self>, headers: &HeaderMap, message: Message) -> Response {
        let inbound = match classify(Header::of(headers, header::VERSION), &message) {
            Ok(inbound) => inbound,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, message.id.as_ref(), &error),
        };
        let Some(id) = message.id.clone() else {
            self.notified(inbound, &message);
            return StatusCode::ACCEPTED.into_response();
        };
        match self.read(headers, inbound, message) {
            Err(Refusal { status, error }) => refuse(status, Some(&id), &error),
            Ok((request @ Request::CallTool(_), mut exchange)) => {
                let (sender, notifications) = mpsc::channel(UNREAD);
                exchange.notifications = Some(sender);
                let keep_alive = self.shared.config.keep_alive;
                let call: Call = Box::pin(self.serve(id, request, exchange));
                respond(call, notifications, keep_alive).await
            }
            Ok((request, exchange)) => match self.serve(id, request, exchange).await {
                Some((status, body)) => json(status, body),
                None => StatusCode::ACCEPTED.into_response(),
            },
        }
    }

    /// Answers the messages of a batch one after the other (2025-03-26, basic/transports). Progress is not reported:
    /// a batch is answered by one array.
    async fn batch(self: Arc<Self>, headers: &HeaderMap, messages: Vec<&RawValue>) -> Response {
        let version = Header::of(headers, header::VERSION);
        if !matches!(version, Header::Absent) && version != Header::Text(Revision::V2025_03_26.date()) {
            let error = RpcError::new(
                INVALID_REQUEST,
                "Invalid request: only revision 2025-03-26 has batches; send one message in each POST.",
            );
            return refuse(StatusCode::BAD_REQUEST, None, &error);
        }
        let mut answers = Vec::new();
        let mut refused = None;
        let mut responses = Vec::new();
        for (position, message) in messages.into_iter().enumerate() {
            let admitted = if position == 0 { Ok(()) } else { self.shared.server.admit(&self.caller).await };
            let (id, error) = match (jsonrpc::message(message.get()), admitted) {
                (Ok(Message { id: None, .. }), Err(_)) => continue,
                (Ok(message), Err(wait)) => {
                    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    let text = format!("Too many requests: wait {seconds} s, then send this message again.");
                    let error = RpcError::new(TOO_MANY_REQUESTS, text)
                        .with(json!({ "retry_after_seconds": seconds }));
                    (message.id, error)
                }
                (Err(Unreadable { id, error, is_response }), _) => {
                    refused.get_or_insert_with(|| Refused::because(error.cause()));
                    if is_response {
                        responses.push(error.clone());
                    }
                    (id, error)
                }
                (Ok(message), Ok(())) => {
                    let post = Arc::clone(&self);
                    answers.extend(post.batched(message, &mut refused).await);
                    continue;
                }
            };
            answers.push(failure(id.as_ref(), &error));
        }
        if answers.is_empty() {
            return StatusCode::ACCEPTED.into_response();
        }
        // Nobody waits for an answer to a response: where nothing else is answered, HTTP says no (2025-03-26,
        // basic/transports, "Sending Messages to the Server").
        if let Some(error) = responses.first().filter(|_| responses.len() == answers.len()) {
            return refuse(StatusCode::BAD_REQUEST, None, error);
        }
        let mut response =
            json(StatusCode::OK, [b"[", answers.join(&b","[..]).as_slice(), b"]"].concat().into());
        // One request has one line in the log.
        if let Some(refused) = refused {
            response.extensions_mut().insert(refused);
        }
        response
    }

    async fn batched(self: Arc<Self>, message: Message, refused: &mut Option<Refused>) -> Option<Bytes> {
        let inbound = Inbound::Legacy(Revision::V2025_03_26);
        let Some(id) = message.id.clone() else {
            self.notified(inbound, &message);
            return None;
        };
        let why_not = match classify(Header::Absent, &message) {
            Ok(Inbound::Legacy(_)) if message.method == "initialize" => Some("`initialize` must stand alone"),
            Ok(Inbound::Modern) => Some("revision 2026-07-28 has no batches; send this message alone"),
            _ => None,
        };
        if let Some(why_not) = why_not {
            let error = RpcError::new(INVALID_REQUEST, format!("Invalid request: {why_not}."));
            refused.get_or_insert_with(|| Refused::because(error.cause()));
            return Some(failure(Some(&id), &error));
        }
        match self.read(&HeaderMap::new(), inbound, message) {
            Err(Refusal { error, .. }) => {
                refused.get_or_insert_with(|| Refused::because(error.cause()));
                Some(failure(Some(&id), &error))
            }
            Ok((request, exchange)) => self.serve(id, request, exchange).await.map(|(_, body)| body),
        }
    }

    fn notified(&self, inbound: Inbound, message: &Message) {
        if let (Inbound::Legacy(_), Some(id)) = (inbound, legacy::cancelled(message)) {
            self.shared.inflight.cancel(self.shared.server.caller_key(&self.caller), id);
        }
    }

    /// What the message asks, in the words of its era, and what the product may know of the exchange.
    fn read(
        &self,
        headers: &HeaderMap,
        inbound: Inbound,
        message: Message,
    ) -> Result<(Request, Exchange), Refusal> {
        let server = &self.shared.server;
        match inbound {
            Inbound::Legacy(revision) => {
                let mut exchange = Exchange::unheard(self.request_id.clone(), revision);
                let legacy::Decoded { request, progress_token } =
                    legacy::decode(message).map_err(|error| Refusal { status: StatusCode::OK, error })?;
                exchange.deadline = Some(self.deadline);
                exchange.progress_token = progress_token;
                // Nobody remembers what `logging/setLevel` said; the server decides (2025-11-25, server/utilities/logging).
                exchange.log_level = Some(LogLevel::Info);
                Ok((request, exchange))
            }
            Inbound::Modern => {
                let mut exchange = Exchange::unheard(self.request_id.clone(), Revision::MODERN);
                let (meta, request) = modern::decode(headers, message)?;
                if let Request::CallTool(call) = &request {
                    modern::check_arguments(headers, call, &server.tools(&self.caller))?;
                }
                if let Some(client) = &meta.client {
                    server.met(&self.caller, client, Revision::MODERN);
                }
                exchange.deadline = Some(self.deadline);
                exchange.capabilities = Some(meta.capabilities);
                exchange.log_level = meta.log_level;
                exchange.progress_token = meta.progress_token;
                Ok((request, exchange))
            }
        }
    }

    /// Serves a request to its end: an answer, the deadline, a panic, or a cancellation.
    async fn serve(self: Arc<Self>, id: Id, request: Request, exchange: Exchange) -> Outcome {
        let server = self.shared.server.as_ref();
        let revision = exchange.revision;
        let underway = match (&request, revision.era()) {
            (Request::CallTool(_), Era::Legacy) => {
                Some(self.shared.inflight.begin(server.caller_key(&self.caller), id.clone()))
            }
            _ => None,
        };
        let work = AssertUnwindSafe(dispatch(server, &self.caller, request, &exchange)).catch_unwind();
        let ended = tokio::select! {
            biased;
            () = cancelled(underway.as_ref()) => return None,
            ended = tokio::time::timeout_at(self.deadline, work) => ended,
        };
        let answer = match ended {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                tracing::error!(request_id = self.request_id, "a request panicked");
                Err(RpcError::internal(&self.request_id))
            }
            Err(_) => Err(self.timed_out()),
        };
        Some(match answer {
            Ok(answer) => (
                StatusCode::OK,
                encode(revision, &id, &answer, server.implementation(), server.instructions()),
            ),
            Err(error) => {
                let status = match revision.era() {
                    _ if error.code == UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
                    Era::Legacy => StatusCode::OK,
                    Era::Modern => modern::status(&error),
                };
                (status, failure(Some(&id), &error))
            }
        })
    }

    fn timed_out(&self) -> RpcError {
        let seconds = self.shared.config.call_timeout.as_secs_f32();
        tracing::warn!("a call took longer than {seconds} s and was ended");
        let message = format!("The call took longer than {seconds} s and was ended; ask for less at a time.");
        RpcError::new(INTERNAL_ERROR, message).with(json!({ "request_id": self.request_id }))
    }
}

/// An error as the whole answer, which knows its cause.
fn refuse(status: StatusCode, id: Option<&Id>, error: &RpcError) -> Response {
    let mut response = json(status, failure(id, error));
    response.extensions_mut().insert(Refused::because(error.cause()));
    response
}

/// Ends when a call that can be cancelled is.
async fn cancelled(underway: Option<&Underway>) {
    match underway {
        Some(underway) => underway.cancelled().await,
        None => std::future::pending().await,
    }
}
