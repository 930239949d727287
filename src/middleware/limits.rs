//! What is left of a request limit, as headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::service::rate_limit::Drawn;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11): so many requests a
/// minute in the long run, so many left now, and in how many seconds there will be another.
pub fn rate_limit_headers(drawn: Drawn, headers: &mut HeaderMap) {
    let policy = format!("\"plan\";q={};w=60", drawn.limit);
    let left = format!("\"plan\";r={};t={}", drawn.left, drawn.next_in_s);
    for (name, text) in [(POLICY, policy), (LEFT, left)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_are_structured_lists() {
        let mut headers = HeaderMap::new();
        rate_limit_headers(Drawn { limit: 120, left: 0, next_in_s: 7 }, &mut headers);
        assert_eq!(headers[POLICY], "\"plan\";q=120;w=60");
        assert_eq!(headers[LEFT], "\"plan\";r=0;t=7");
    }
}
