//! MCP's Streamable HTTP, at `/mcp`.
//!
//! A request is judged in a fixed order, cheapest and least revealing first: method, `Host` and `Origin`, declared
//! size, who is calling (the product's extractor, whose rejection is the answer), media types, and only then the body.

mod body;
mod gate;
mod media;
mod post;
mod sse;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::inflight::Inflight;
use super::jsonrpc::{self, RpcError};
use super::server::Server;

pub use body::ends_connection;

/// Headers of an answer, about.
const HEADERS: usize = 12;

/// Characters of a header that are told in a log.
const MAX_DETAIL: usize = 100;

/// What the HTTP edge allows. The defaults suit a server on loopback.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The hosts this server answers to (`Host`), with a port or for any port; IPv6 in brackets. Any other is 403,
    /// which keeps a page that rebinds its own name to our address out. While any of them is a loopback name, all
    /// loopback names are allowed.
    pub allowed_hosts: Vec<Authority>,
    /// The origins whose pages may call (`Origin`, as `https://app.example.com`). A request without `Origin` comes
    /// from no page and is fine. Loopback origins are allowed as loopback hosts are.
    pub allowed_origins: Vec<Uri>,
    /// The largest body, in bytes; 413 beyond. What is read may take a hundred times as much, so that this, times the
    /// calls under way, is what a flood can cost.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive whole; 408 beyond.
    pub body_timeout: Duration,
    /// How deep a body may nest; at most 100, since the parser's own limit is 128.
    pub max_depth: usize,
    /// How many messages a batch may hold (2025-03-26 only).
    pub max_batch: usize,
    /// How long the calls of one POST may take together, progress or not.
    pub call_timeout: Duration,
    /// How often an event stream carries a comment, so that nobody on the way takes it for dead.
    pub keep_alive: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: vec![Authority::from_static("localhost")],
            allowed_origins: Vec::new(),
            max_body_bytes: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            max_depth: 64,
            max_batch: 50,
            call_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Why a request was refused, among the extensions of its response: for the operator, never for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The cause, in one word of a closed vocabulary.
    pub cause: &'static str,
    /// What exactly, as far as it may stand in a log.
    pub detail: Option<String>,
}

impl Refused {
    /// For this cause, about which there is no more to say.
    pub fn because(cause: &'static str) -> Self {
        Self { cause, detail: None }
    }
}

/// The id of an HTTP request, put among its extensions by the product's middleware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Serves `server` at `/mcp`. How a caller is recognised is the caller type's own business; the extractor runs before
/// the body is read, and its rejection goes out as it is.
pub fn router<P, S>(server: Arc<P>, config: HttpConfig) -> Router<S>
where
    P: Server,
    P::Caller: FromRequestParts<S>,
    S: Clone + Send + Sync + 'static,
{
    let shared = Arc::new(Shared { server, config, inflight: Inflight::default() });
    let handler = move |State(state): State<S>, request: Request| {
        let shared = Arc::clone(&shared);
        async move { handle(shared, state, request).await }
    };
    Router::new().route("/mcp", any(handler))
}

/// What every request to one router shares.
struct Shared<P> {
    server: Arc<P>,
    config: HttpConfig,
    inflight: Inflight,
}

async fn handle<P, S>(shared: Arc<Shared<P>>, state: S, request: Request) -> Response
where
    P: Server,
    P::Caller: FromRequestParts<S>,
    S: Send + Sync,
{
    let (mut parts, body) = request.into_parts();
    let (mut unread, time) = (Some(body), shared.config.body_timeout);
    let mut response = answer(shared, state, &mut parts, &mut unread).await;
    if let Some(body) = unread {
        body::pass_over(body, &parts, time, &mut response);
    }
    response
}

/// The answer; a body that it did not need is left.
async fn answer<P, S>(
    shared: Arc<Shared<P>>,
    state: S,
    parts: &mut Parts,
    body: &mut Option<Body>,
) -> Response
where
    P: Server,
    P::Caller: FromRequestParts<S>,
    S: Send + Sync,
{
    if parts.method == Method::OPTIONS && gate::is_preflight(parts) {
        return gate::preflight(&shared.config, parts).into_response();
    }
    if parts.method != Method::POST {
        let message = "Method not allowed: send POST.";
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", message).with(ALLOW, "POST");
        let mut response = problem.into_response();
        // Clients ask for a stream and do without when they are told 405; in a page they must be able to read it.
        if let Ok(Some(origin)) = gate::pass(&shared.config, parts) {
            gate::share_with(origin, response.headers_mut());
        }
        return response;
    }
    let origin = match gate::pass(&shared.config, parts) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let mut response = match admitted::<P, S>(&shared.config, parts, &state).await {
        Err(refusal) => refusal,
        Ok(caller) => {
            let server = Arc::clone(&shared.server);
            let mut response = post::post(shared, caller.clone(), parts, body).await;
            server.headers(&caller, response.headers_mut());
            response
        }
    };
    if let Some(origin) = origin {
        gate::share_with(origin, response.headers_mut());
    }
    response
}

async fn admitted<P, S>(config: &HttpConfig, parts: &mut Parts, state: &S) -> Result<P::Caller, Response>
where
    P: Server,
    P::Caller: FromRequestParts<S>,
    S: Send + Sync,
{
    body::declared_size(&parts.headers, config.max_body_bytes).map_err(IntoResponse::into_response)?;
    P::Caller::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)
}

/// A refusal by HTTP itself. Its JSON-RPC code is the status: outside the range JSON-RPC keeps for itself.
struct Problem {
    status: StatusCode,
    message: Cow<'static, str>,
    header: Option<(HeaderName, &'static str)>,
    refused: Refused,
}

impl Problem {
    fn new(status: StatusCode, cause: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), header: None, refused: Refused::because(cause) }
    }

    /// The same, with a header that says what would do.
    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The same, with what a header said.
    fn about(mut self, said: Option<&[u8]>) -> Self {
        let said = said.map(|said| String::from_utf8_lossy(said).chars().take(MAX_DETAIL).collect());
        self.refused.detail = said;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, message, header, refused } = self;
        let error = RpcError::new(i64::from(status.as_u16()), message);
        let mut response = refusal(status, &error);
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(refused);
        response
    }
}

/// An answer that says no before any message was read: a JSON-RPC error without an id, under `status`.
pub fn refusal(status: StatusCode, error: &RpcError) -> Response {
    json(status, jsonrpc::failure(None, error))
}

fn json(status: StatusCode, body: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // With what the product adds to each answer: a map that has to grow is made anew.
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, jsonrpc::COME_AGAIN_S.into());
    }
    response
}
