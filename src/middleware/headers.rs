//! The headers that every answer carries, so that a browser which meets one does nothing with it unless the answer
//! itself says what it may do.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Two years, as the browsers' preload lists ask for at least one.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Adds them; where clients come over TLS only, with the word that they must.
pub(super) fn secure(headers: &mut HeaderMap, only_tls: bool) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if only_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
}
