//! Who is calling, from the `Authorization` header (RFC 6750 section 2.1), and the answers to those who are
//! not served. Nothing of the request's body is read before.

use axum::extract::{FromRef, FromRequestParts};
use axum::response::Response;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::known::Known;
use super::peer::Peer;
use crate::protocol::header::{self, Header};
use crate::protocol::http as edge;
use crate::protocol::http::{RequestId, refusal};
use crate::protocol::jsonrpc::{COME_AGAIN, COME_AGAIN_S, RpcError, TOO_MANY_REQUESTS};
use crate::service::access::{Access, Bad, Principal, Refused, Wants};
use crate::service::rate_limit::{Drawn, seconds};

impl<S> FromRequestParts<S> for Principal
where
    Access: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let access = Access::from_ref(state);
        let address = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let recognised = access.recognise(bearer(&parts.headers), address, wants(&parts.headers)).await;
        recognised.inspect(|_| Known::note(&parts.extensions)).map_err(|refused| answer(refused, parts))
    }
}

/// The token, if one came. A header that stands twice, or cannot be read, is a token that cannot be valid.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = match Header::of(headers, AUTHORIZATION.as_str()) {
        Header::Absent => return None,
        Header::Unreadable => return Some(""),
        Header::Text(text) => text,
    };
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What the request draws from.
fn wants(headers: &HeaderMap) -> Wants {
    if header::can_only_discover(headers) { Wants::Discovery } else { Wants::Service }
}

fn answer(refused: Refused, parts: &Parts) -> Response {
    let (mut response, because) = match refused {
        Refused::NoToken => (unauthorized("Bearer"), edge::Refused::because("no_token")),
        Refused::BadToken(bad) => (unauthorized("Bearer error=\"invalid_token\""), because(bad)),
        Refused::Limited(wait, drawn) => {
            let advice = "wait, then send it again. The limit is that of the workspace's plan";
            (limited(seconds(wait), advice, drawn), edge::Refused::because("rate_limit"))
        }
        Refused::TooManyAtOnce => {
            let advice = "the workspace has as many requests under way as it may have; let some end first";
            (limited(COME_AGAIN_S, advice, None), edge::Refused::because("too_many_at_once"))
        }
        Refused::TooManyFailures(wait, bad) => {
            let advice = "too many attempts with tokens that are not valid came from this address; \
                          send a valid token";
            (limited(seconds(wait), advice, None), because(bad))
        }
        Refused::Busy => (unavailable(parts), edge::Refused::because("busy")),
        Refused::Failed(error) => {
            let refused = edge::Refused { cause: "database", detail: Some(error.to_string()) };
            (unavailable(parts), refused)
        }
    };
    response.extensions_mut().insert(because);
    response
}

fn because(bad: Bad) -> edge::Refused {
    edge::Refused { cause: bad.cause, detail: bad.which }
}

/// The same words whatever is wrong with the token: nobody learns which tokens exist.
fn unauthorized(challenge: &'static str) -> Response {
    let message = "Unauthorized: send `Authorization: Bearer mcp_…` with a live token. Make one on the \
                   workspace's page \"MCP tokens\" (sign in at this server's address; /w/{workspace}/settings/mcp), or \
                   with `apixx-mcp token create`; `apixx-mcp demo` prints its own.";
    let error = RpcError::new(StatusCode::UNAUTHORIZED.as_u16().into(), message);
    let mut response = refusal(StatusCode::UNAUTHORIZED, &error);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

fn limited(seconds: u64, advice: &str, drawn: Option<Drawn>) -> Response {
    let message = format!("Too many requests, come again in {seconds} s: {advice}.");
    let error = RpcError::new(TOO_MANY_REQUESTS, message).with(json!({ "retry_after_seconds": seconds }));
    let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, &error);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    for (name, text) in drawn.iter().flat_map(Drawn::headers) {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn unavailable(parts: &Parts) -> Response {
    let id = parts.extensions.get::<RequestId>().map(|id| id.0.as_str()).unwrap_or_default();
    refusal(StatusCode::SERVICE_UNAVAILABLE, &RpcError::unavailable(COME_AGAIN, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_what_follows_bearer() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["Bearer mcp_x"], Some("mcp_x")),
            (&["bEaReR  mcp_x "], Some("mcp_x")),
            (&["Bearer"], Some("")),
            (&["Basic mcp_x"], None),
            (&["mcp_x"], None),
            (&["Bearer mcp_x", "Bearer mcp_x"], Some("")),
            (&[""], None),
        ];
        for (lines, token) in table {
            let pairs: Vec<_> = lines.iter().map(|line| ("authorization", *line)).collect();
            assert_eq!(bearer(&headers(&pairs)), *token, "{lines:?}");
        }
    }
}
