//! A name for every request, by which its answer and the lines of the log find each other.

use axum::extract::Request;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::ids::IdSource;
use crate::protocol::http::RequestId;

const NAME: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that is taken from a caller, in characters.
const MAX_CHARS: usize = 64;

/// Names the request as `X-Request-Id` says, where that can stand in a log, or anew. From here on the `Authorization`
/// header does not show itself when printed.
pub(super) fn name(ids: &IdSource, request: &mut Request) -> String {
    if let Some(secret) = request.headers_mut().get_mut(AUTHORIZATION) {
        secret.set_sensitive(true);
    }
    let given = request.headers().get(NAME).and_then(|name| name.to_str().ok()).filter(|name| is_sane(name));
    let name = given.map_or_else(|| new_name(ids), str::to_owned);
    request.extensions_mut().insert(RequestId(name.clone()));
    name
}

/// The answer carries the name too.
pub(super) fn carry(name: &str, headers: &mut HeaderMap) {
    if let Ok(name) = HeaderValue::from_str(name) {
        headers.insert(NAME, name);
    }
}

fn is_sane(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_CHARS).contains(&name.len()) && name.bytes().all(plain)
}

fn new_name(ids: &IdSource) -> String {
    let mut bytes = [0; 10];
    ids.fill(&mut bytes);
    let mut name = String::with_capacity(24);
    name.push_str("req_");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            name.extend(char::from_digit(digit.into(), 16));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_can_stand_in_a_log_are_taken() {
        for good in ["a", "req_1", "3f-9", &"x".repeat(64)] {
            assert!(is_sane(good), "{good}");
        }
        for bad in ["", "a b", "a\tb", "<x>", "ä", "a;b", &"x".repeat(65)] {
            assert!(!is_sane(bad), "{bad}");
        }
    }

    #[test]
    fn new_names_are_sane_and_differ() {
        let ids = IdSource::random(crate::domain::clock::Clock::system());
        let (one, other) = (new_name(&ids), new_name(&ids));
        assert!(is_sane(&one) && one.len() == 24 && one != other, "{one} {other}");
    }
}
