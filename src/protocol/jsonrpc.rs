//! JSON-RPC 2.0: bytes become messages, answers become bytes.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json;

/// The body is no JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The body is JSON but no request that may stand here.
pub const INVALID_REQUEST: i64 = -32600;
/// There is no such method, or it belongs to a capability that is not advertised.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method exists; its parameters do not fit it.
pub const INVALID_PARAMS: i64 = -32602;
/// Our fault.
pub const INTERNAL_ERROR: i64 = -32603;
/// A header is missing, malformed or not what the body says (2026-07-28, basic/transports).
pub const HEADER_MISMATCH: i64 = -32020;
/// The client lacks a capability that this request needs (2026-07-28, basic/index).
pub const MISSING_CAPABILITY: i64 = -32021;
/// The revision is not spoken here (2026-07-28, basic/versioning).
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// Too many requests. Outside the range JSON-RPC keeps for itself, as the specification asks of codes of our own.
pub const TOO_MANY_REQUESTS: i64 = 429;
/// Ours: not now. The HTTP status of the same number, outside the range JSON-RPC keeps for itself.
pub const UNAVAILABLE: i64 = 503;
/// Seconds after which a request that could not be answered may come again.
pub const COME_AGAIN_S: u64 = 1;
/// What is said of it when nothing was done.
pub const COME_AGAIN: &str = "The service cannot answer now, and nothing was changed: come again in 1 s.";

/// Bytes of an id's text. Longer than any client needs; a call keeps its ids until its end.
const MAX_ID: usize = 4096;

/// A request's id: a string of at most 4096 bytes or an integer, echoed in its own JSON type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A number that fits 64 bits with a sign.
    Signed(i64),
    /// A number beyond that which fits 64 bits without one.
    Unsigned(u64),
    /// Text.
    Text(String),
}

impl Id {
    /// The id this JSON value is, if it may be one.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => (text.len() <= MAX_ID).then(|| Self::Text(text.clone())),
            Value::Number(number) => {
                number.as_i64().map(Self::Signed).or_else(|| number.as_u64().map(Self::Unsigned))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The `error` of a response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RpcError {
    /// One of the constants of this module.
    pub code: i64,
    /// What is wrong and what to do next, for people.
    pub message: String,
    /// The same for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<Value>>,
}

impl RpcError {
    /// An error without `data`.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The same with `data`.
    pub fn with(self, data: Value) -> Self {
        Self { data: Some(Box::new(data)), ..self }
    }

    /// We cannot answer now; `message` says what became of the request. Answered with status 503.
    pub fn unavailable(message: impl Into<String>, request_id: &str) -> Self {
        let data = json!({"retry_after_seconds": COME_AGAIN_S, "request_id": request_id});
        Self::new(UNAVAILABLE, message).with(data)
    }

    /// What is wrong, in a word for the operator.
    pub fn cause(&self) -> &'static str {
        match self.code {
            PARSE_ERROR => "parse_error",
            INVALID_REQUEST => "invalid_request",
            METHOD_NOT_FOUND => "method_not_found",
            INVALID_PARAMS => "invalid_params",
            HEADER_MISMATCH => "header_mismatch",
            MISSING_CAPABILITY => "missing_capability",
            UNSUPPORTED_VERSION => "unsupported_version",
            TOO_MANY_REQUESTS => "rate_limit",
            UNAVAILABLE => "unavailable",
            _ => "internal",
        }
    }

    /// Our fault; the cause is in the log under `request_id`.
    pub fn internal(request_id: &str) -> Self {
        Self::new(INTERNAL_ERROR, "Internal error").with(json!({"request_id": request_id}))
    }
}

/// One message: a request if it has an id, else a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What the answer repeats; a notification has none and gets none.
    pub id: Option<Id>,
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Params,
}

/// The parameters of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// None, or `null`.
    Absent,
    /// What MCP knows: an object.
    Object(Map<String, Value>),
    /// Anything else; every method refuses it.
    Other,
}

impl Params {
    /// The member of that name, if there is an object and it has one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(map) => map.get(name),
            Self::Absent | Self::Other => None,
        }
    }
}

/// A message that could not be read, with its id where that much could be.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The id, if it was a proper one.
    pub id: Option<Id>,
    /// What is wrong with the message.
    pub error: RpcError,
    /// Whether it is a response, to which nobody waits for an answer.
    pub is_response: bool,
}

impl From<RpcError> for Unreadable {
    fn from(error: RpcError) -> Self {
        Self { id: None, error, is_response: false }
    }
}

/// What a body holds.
#[derive(Debug)]
pub enum Body<'a> {
    /// One message.
    One(Message),
    /// An array of at least one, each to be read by [`message`] once it is its turn: what is read is many times as
    /// large as its text.
    Batch(Vec<&'a RawValue>),
}

/// Reads a body: UTF-8, JSON no deeper than `max_depth`, then the envelope of the one message, or the texts of at most
/// `max_batch`.
///
/// # Errors
/// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
pub fn read(body: &[u8], max_depth: usize, max_batch: usize) -> Result<Body<'_>, Unreadable> {
    let text = std::str::from_utf8(body)
        .map_err(|_| RpcError::new(PARSE_ERROR, "Parse error: the body is not UTF-8; send JSON in UTF-8."))?;
    if depth(text) > max_depth {
        let message = format!("Invalid request: the body is nested deeper than {max_depth} levels.");
        return Err(RpcError::new(INVALID_REQUEST, message).into());
    }
    if !text.trim_start_matches(JSON_SPACE).starts_with('[') {
        return message(text).map(Body::One);
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| parse_error(&error))?;
    if items.is_empty() {
        return Err(RpcError::new(INVALID_REQUEST, "Invalid request: the batch is empty.").into());
    }
    if items.len() > max_batch {
        let message = format!("Invalid request: a batch may hold at most {max_batch} messages.");
        return Err(RpcError::new(INVALID_REQUEST, message).into());
    }
    Ok(Body::Batch(items))
}

const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The members of an envelope, of any type. A member that stands twice is an error of serde's.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default, deserialize_with = "json::value")]
    jsonrpc: Value,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "json::optional")]
    method: Option<Value>,
    #[serde(default, deserialize_with = "json::value")]
    params: Value,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Value>,
}

/// Tells `null` from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    json::value(deserializer).map(Some)
}

/// Reads the envelope of a message.
///
/// # Errors
/// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
pub fn message(text: &str) -> Result<Message, Unreadable> {
    if !text.trim_start_matches(JSON_SPACE).starts_with('{') {
        json::read(text).map_err(|error| parse_error(&error))?;
        return Err(invalid(None, "a message is a JSON object"));
    }
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| {
        // The envelope may be wrong before the text is; only a wrong text is a parse error.
        match json::read(text) {
            Err(error) => Unreadable::from(parse_error(&error)),
            Ok(_) => invalid(None, &error.to_string()),
        }
    })?;
    let Envelope { jsonrpc, id, method, params, result, error } = envelope;
    let id = match id.as_ref().map(Id::from_value) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => {
            return Err(invalid(
                None,
                "`id` is a string of at most 4096 bytes or an integer of at most 64 bits",
            ));
        }
    };
    if jsonrpc != "2.0" {
        return Err(invalid(id, "`jsonrpc` must be \"2.0\""));
    }
    let method = match method {
        Some(Value::String(method)) => method,
        Some(_) => return Err(invalid(id, "`method` must be a string")),
        None if result.is_some() || error.is_some() => {
            let refused = invalid(None, "this server asks nothing, so it takes no responses");
            return Err(Unreadable { is_response: true, ..refused });
        }
        None => return Err(invalid(id, "`method` is missing")),
    };
    let params = match params {
        Value::Null => Params::Absent,
        Value::Object(map) => Params::Object(map),
        _ => Params::Other,
    };
    Ok(Message { id, method, params })
}

fn parse_error(error: &serde_json::Error) -> RpcError {
    RpcError::new(PARSE_ERROR, format!("Parse error: the body is not JSON: {error}"))
}

fn invalid(id: Option<Id>, why: &str) -> Unreadable {
    let error = RpcError::new(INVALID_REQUEST, format!("Invalid request: {why}."));
    Unreadable { id, error, is_response: false }
}

/// How deep brackets nest outside strings. Right for JSON; of anything else it says something, and the parser the rest.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => {
                        bytes.next();
                    }
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    deepest
}

#[derive(Serialize)]
struct Success<'a, R> {
    jsonrpc: &'static str,
    id: &'a Id,
    result: R,
}

#[derive(Serialize)]
struct Failure<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    error: &'a RpcError,
}

#[derive(Serialize)]
struct Notification<'a, P> {
    jsonrpc: &'static str,
    method: &'a str,
    params: P,
}

/// A response with a result that takes about so many bytes.
pub fn success(id: &Id, result: impl Serialize, about: usize) -> Bytes {
    written(&Success { jsonrpc: "2.0", id, result }, about)
}

/// A response with an error. Without an id the member is left out: strict clients refuse `null`.
pub fn failure(id: Option<&Id>, error: &RpcError) -> Bytes {
    written(&Failure { jsonrpc: "2.0", id, error }, SHORT)
}

/// A notification.
pub fn notification(method: &str, params: impl Serialize) -> Bytes {
    written(&Notification { jsonrpc: "2.0", method, params }, SHORT)
}

/// Bytes that any message may take.
const SHORT: usize = 512;

#[expect(clippy::expect_used, reason = "our own types serialise: string keys, no failing implementation")]
fn written(message: &impl Serialize, about: usize) -> Bytes {
    let mut buffer = Vec::with_capacity(SHORT + about);
    serde_json::to_writer(&mut buffer, message).expect("a message serialises into memory");
    Bytes::from(buffer)
}
