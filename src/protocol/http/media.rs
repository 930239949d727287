//! Media types: what the body is, and what the client takes.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::Problem;

/// Checks `Content-Type`, `Content-Encoding` and `Accept`.
///
/// # Errors
/// 415 for a body that is not plain JSON in UTF-8; 406 for a client that does not take both JSON and an event stream,
/// as every client must (basic/transports, "Sending Messages to the Server").
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    if !is_json(headers) {
        let message = "Unsupported media type: send `Content-Type: application/json`.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
    }
    if !is_plain(headers) {
        let message = "Unsupported content coding: send the body as it is, without `Content-Encoding`.";
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message);
        return Err(problem.with(ACCEPT_ENCODING, "identity"));
    }
    if !(admits(headers, "application", "json") && admits(headers, "text", "event-stream")) {
        let message = "Not acceptable: send `Accept: application/json, text/event-stream`.";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "accept", message));
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let mut pieces = value.split(';').map(str::trim);
    let json = pieces.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let utf8 = pieces.filter_map(|piece| piece.split_once('=')).all(|(name, value)| {
        !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    json && utf8
}

fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether `Accept` admits a type: its most specific range that fits counts, and `q=0` refuses
/// (RFC 9110, section 12.5.1).
fn admits(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let ranges =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let fitting = ranges.filter_map(|range| {
        let mut pieces = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = pieces.next()?.split_once('/')?;
        let specificity = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 1,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        let refused = pieces
            .filter_map(|piece| piece.split_once('='))
            .any(|(name, value)| name.eq_ignore_ascii_case("q") && value.parse() == Ok(0.0));
        Some((specificity, !refused))
    });
    fitting.max().is_some_and(|(_, admitted)| admitted)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn accept_must_admit_both_json_and_an_event_stream() {
        let table = [
            (&["application/json, text/event-stream"][..], true),
            (&["text/event-stream;q=0.5,application/json;q=0.9"], true),
            (&["application/json", "text/event-stream"], true),
            (&["*/*"], true),
            (&["application/*, text/*"], true),
            (&["Application/JSON, TEXT/event-stream"], true),
            (&["*/*;q=0.1"], true),
            (&[], false),
            (&[""], false),
            (&["application/json"], false),
            (&["text/event-stream"], false),
            (&["text/html"], false),
            (&["json"], false),
            (&["*/*;q=0"], false),
            (&["*/*, text/event-stream;q=0"], false),
            (&["*/*, application/json; q=0.0"], false),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            let status = check(&headers).map_err(|problem| problem.status);
            assert_eq!(status, if expected { Ok(()) } else { Err(StatusCode::NOT_ACCEPTABLE) }, "{values:?}");
        }
    }

    #[test]
    fn the_body_must_be_plain_json_in_utf_8() {
        let table = [
            (&["application/json"][..], None, true),
            (&["Application/Json; charset=UTF-8"], None, true),
            (&["application/json; charset=\"utf-8\""], Some("identity"), true),
            (&["application/json; charset=latin1"], None, false),
            (&["application/json"], Some("Identity"), true),
            (&["application/json"], Some("gzip"), false),
            (&["application/json", "application/json"], None, false),
            (&["text/plain"], None, false),
            (&["application/json-patch"], None, false),
            (&[], None, false),
        ];
        for (types, encoding, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
            for value in types {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            if let Some(encoding) = encoding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            let status = check(&headers).map_err(|problem| problem.status);
            let wanted = if expected { Ok(()) } else { Err(StatusCode::UNSUPPORTED_MEDIA_TYPE) };
            assert_eq!(status, wanted, "{types:?} {encoding:?}");
        }
    }
}
