//! A request: header lines, a blank line, a body; sent to the fixture product with what every client sends beside.

use std::sync::LazyLock;

use axum::Router;
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::support::{MODERN, Post, Reply, app, sent};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
static APP: LazyLock<Router> = LazyLock::new(app);

/// Whatever arrives, the server neither fails nor takes the blame, and what it says is well-formed; and what a modern
/// request repeats in its headers is what its body says, or it is refused.
pub fn hold(input: &[u8]) {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((&b""[..], input), |end| (&input[..end], &input[end + 2..]));
    let message = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let all = message.as_array().map_or(std::slice::from_ref(&message), Vec::as_slice);
    // These wait for ever, break as they are told to, or fail as asked.
    let meant =
        |message: &Value| ["wait", "panic", "fail"].iter().any(|tool| message["params"]["name"] == **tool);
    if all.iter().any(meant) {
        return;
    }
    let mut request = Post::bytes(body.to_vec()).whole();
    for line in head.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            // A name that comes twice stands twice.
            if head.split(|byte| *byte == b'\n').filter(|other| other.starts_with(&line[..=colon])).count()
                > 1
            {
                request.headers_mut().append(name, value);
            } else {
                request.headers_mut().insert(name, value);
            }
        }
    }
    let headers = request.headers().clone();
    let reply = RUNTIME.block_on(sent(&APP, request));
    well_formed(&reply);
    mirrored(&headers, &message, &reply);
}

/// A status that blames nobody but the caller, and JSON-RPC or nothing in the body.
pub fn well_formed(reply: &Reply) {
    assert!(reply.status.as_u16() < 500, "{reply:?}");
    let messages = match reply.headers.get("content-type").map(HeaderValue::as_bytes) {
        None => {
            assert!(reply.body.is_empty(), "{reply:?}");
            vec![]
        }
        Some(b"application/json") => match reply.json() {
            Value::Array(messages) => messages,
            message => vec![message],
        },
        _ => reply.events(),
    };
    for message in messages {
        assert_eq!(message["jsonrpc"], "2.0");
        assert!(message.get("id").is_none_or(|id| id.is_string() || id.is_i64() || id.is_u64()), "{message}");
        assert_ne!(message["error"]["code"], -32603, "{message}");
        assert!(
            message.get("result").is_some() != message.get("error").is_some()
                || message.get("method").is_some()
        );
    }
}

/// A modern request that is served says the same in its headers as in its body.
pub fn mirrored(headers: &HeaderMap, message: &Value, reply: &Reply) {
    let modern = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN;
    let answered = reply.status == 200 && !reply.body.windows(7).any(|part| part == b"\"error\"");
    assert!(
        !(modern && answered && message.is_object()) || agree(headers, message),
        "{headers:?} of {message}"
    );
}

/// Whether the headers of a modern request say the same as its body, judged independently of the product.
pub fn agree(headers: &HeaderMap, message: &Value) -> bool {
    let plain = |name: &str| alone(headers, name);
    let params = &message["params"];
    if plain("mcp-protocol-version").as_deref() != Some(MODERN)
        || plain("mcp-method").as_deref() != message["method"].as_str()
    {
        return false;
    }
    if message["method"] != "tools/call" {
        return true;
    }
    if spelt(headers, "mcp-name").as_deref() != params["name"].as_str() {
        return false;
    }
    let arguments = &params["arguments"];
    params["name"] != "test_header_arguments"
        || [
            ("mcp-param-region", &arguments["region"]),
            ("mcp-param-limit", &arguments["limit"]),
            ("mcp-param-zone", &arguments["where"]["zone"]),
            ("mcp-param-dry", &arguments["dry"]),
        ]
        .iter()
        .all(|(header, argument)| match argument {
            Value::String(text) => spelt(headers, header).as_ref() == Some(text),
            Value::Bool(flag) => spelt(headers, header) == Some(flag.to_string()),
            Value::Number(number) => spelt(headers, header).is_some_and(|said| {
                said == number.to_string()
                    || said.parse::<f64>().is_ok_and(|said| Some(said) == number.as_f64())
            }),
            // Nothing that a header could say.
            Value::Null | Value::Array(_) | Value::Object(_) => !headers.contains_key(*header),
        })
}

/// A header that stands once.
fn alone(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.to_str().ok()?.trim_matches([' ', '\t']).to_owned())
}

/// A header's meaning, read independently of the product.
fn spelt(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = alone(headers, name)?;
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(text),
        Some(encoded) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok()
        }
    }
}
