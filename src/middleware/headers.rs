//! The headers that every answer carries, so that a browser which meets one does nothing with it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Two years, as the browsers' preload lists ask for at least one.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Which of them depend on the installation.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Whether clients come over TLS: then browsers are told to never come otherwise.
    pub only_tls: bool,
}

/// Adds them.
pub async fn security_headers(State(which): State<Headers>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if which.only_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}
