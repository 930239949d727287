//! The headers of MCP: read once each, decoded, compared with what the body says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::Value;

use super::jsonrpc::{HEADER_MISMATCH, RpcError};
use super::revision::{Era, Revision};

/// `MCP-Protocol-Version`.
pub const VERSION: &str = "mcp-protocol-version";
/// `Mcp-Method`: the body's `method`.
pub const METHOD: &str = "mcp-method";
/// `Mcp-Name`: which tool, prompt or resource.
pub const NAME: &str = "mcp-name";

/// A header that may stand at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// It is not there.
    Absent,
    /// Its value, without the white space around it.
    Text(&'a str),
    /// It stands more than once, or holds something other than printable ASCII.
    Unreadable,
}

impl<'a> Header<'a> {
    /// That header of these.
    pub fn of(headers: &'a HeaderMap, name: &str) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => match value.to_str() {
                Ok(text) => Self::Text(text.trim_matches([' ', '\t'])),
                Err(_) => Self::Unreadable,
            },
            (Some(_), Some(_)) => Self::Unreadable,
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// [`HEADER_MISMATCH`] if it is absent or unreadable.
    pub fn required(self, name: &str) -> Result<&'a str, RpcError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Absent => Err(mismatch(format!("The {name} header is missing."))),
            Self::Unreadable => {
                Err(mismatch(format!("The {name} header must stand once and hold printable ASCII only.")))
            }
        }
    }
}

/// The error for a header that is missing, malformed or not what the body says.
pub fn mismatch(message: impl Into<String>) -> RpcError {
    RpcError::new(HEADER_MISMATCH, message)
}

/// Whether the headers can belong to no call: they say `server/discover`, and where a modern request says so its body
/// must agree (2026-07-28, basic/transports). Legacy requests mirror nothing, so that of them no header is believed.
/// (`initialize` and notifications, whose headers nobody compares, ask nothing of the database either.)
pub fn can_only_discover(headers: &HeaderMap) -> bool {
    let modern = match Header::of(headers, VERSION) {
        Header::Text(date) => Revision::named(date).is_none_or(|known| known.era() == Era::Modern),
        Header::Absent | Header::Unreadable => false,
    };
    modern && Header::of(headers, METHOD) == Header::Text("server/discover")
}

/// A mirrored value: `=?base64?…?=` holds UTF-8 in standard, padded Base64; anything else stands for itself
/// (2026-07-28, basic/transports, "Value Encoding").
///
/// # Errors
/// [`HEADER_MISMATCH`] for wrong Base64 or for bytes that are not UTF-8.
pub fn decoded(name: &str, text: &str) -> Result<String, RpcError> {
    let Some(encoded) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(text.to_owned());
    };
    STANDARD
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| mismatch(format!("The {name} header holds no standard, padded Base64 of UTF-8 text.")))
}

/// Whether a decoded header says the same as the argument: text as it is, booleans by name, numbers by value.
pub fn agrees(header: &str, argument: &Value) -> bool {
    match argument {
        Value::String(text) => header == text,
        Value::Bool(flag) => header == if *flag { "true" } else { "false" },
        Value::Number(number) => {
            header == number.to_string()
                || header
                    .parse::<f64>()
                    .is_ok_and(|header| header.is_finite() && Some(header) == number.as_f64())
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_header_stands_once_and_loses_the_space_around_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(Header::of(&headers, NAME), Header::Absent);
        headers.append(NAME, HeaderValue::from_static("  a b\t"));
        assert_eq!(Header::of(&headers, NAME), Header::Text("a b"));
        headers.append(NAME, HeaderValue::from_static("a b"));
        assert_eq!(Header::of(&headers, NAME), Header::Unreadable);
        headers.insert(NAME, HeaderValue::from_bytes("é".as_bytes()).unwrap());
        assert_eq!(Header::of(&headers, NAME), Header::Unreadable);
    }

    #[test]
    fn discovery_is_believed_only_where_the_body_must_agree() {
        let discover = (METHOD, "server/discover");
        let table: &[(&[(&'static str, &'static str)], bool)] = &[
            (&[discover, (VERSION, "2026-07-28")], true),
            (&[discover, (VERSION, "2099-01-01")], true),
            (&[discover], false),
            (&[discover, (VERSION, "2025-06-18")], false),
            (&[discover, (VERSION, "2026-07-28"), (VERSION, "2025-06-18")], false),
            (&[(METHOD, "tools/call"), (VERSION, "2026-07-28")], false),
            (&[(VERSION, "2026-07-28")], false),
        ];
        for (pairs, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(can_only_discover(&headers), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn only_the_whole_sentinel_is_decoded() {
        let cases = [
            ("plain", Some("plain")),
            ("=?base64?SGVsbG8=?=", Some("Hello")),
            ("=?base64?w6k=?=", Some("é")),
            ("=?base64??=", Some("")),
            ("=?base64?SGVsbG8=", Some("=?base64?SGVsbG8=")),
            ("SGVsbG8=?=", Some("SGVsbG8=?=")),
            ("=?BASE64?SGVsbG8=?=", Some("=?BASE64?SGVsbG8=?=")),
            ("=?base64?=", Some("=?base64?=")),
            ("=?base64?SGVsbG8?=", None),
            ("=?base64?SGVs bG8=?=", None),
            ("=?base64?_-__?=", None),
            ("=?base64?/w==?=", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decoded("Mcp-Name", text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_agree_by_value() {
        assert!(agrees("42.0", &json!(42)));
        assert!(agrees("42", &json!(42.0)));
        assert!(agrees("9007199254740993", &json!(9_007_199_254_740_993_i64)));
        assert!(!agrees("41", &json!(42)));
        assert!(!agrees("NaN", &json!(42)));
        assert!(agrees("true", &json!(true)));
        assert!(!agrees("True", &json!(true)));
        assert!(!agrees("null", &Value::Null));
        assert!(!agrees("[]", &json!([])));
    }
}
