//! Whatever arrives, the server neither panics nor takes the blame, and what it says is well-formed.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::held::message::{agree, mirrored, well_formed};
use crate::support::{MODERN, Post, Reply, app, sent};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
static APP: LazyLock<Router> = LazyLock::new(app);

pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn any_method() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "initialize", "ping", "logging/setLevel", "tools/list", "tools/call", "server/discover",
            "subscriptions/listen", "notifications/cancelled", "notifications/initialized", "resources/list",
        ]).prop_map(Value::from),
        1 => any_json(),
    ]
}

fn any_params() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "test_simple_text",
            "test_header_arguments",
            "strict",
            "structured",
            "chatty"
        ])
        .prop_map(Value::from),
        any_json(),
    ];
    let version = prop_oneof![Just(json!(MODERN)), Just(json!("2025-11-25")), any_json()];
    let meta = (version, any_json(), any_json(), any_json()).prop_map(|(version, capabilities, client, token)| {
        json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": if capabilities.is_object() { capabilities } else { json!({}) },
            "io.modelcontextprotocol/clientInfo": client,
            "progressToken": token,
        })
    });
    let members =
        (name, any_json(), prop::option::of(prop_oneof![meta, any_json()]), prop::option::of(any_json()));
    prop_oneof![
        members.prop_map(|(name, arguments, meta, cursor)| {
            let mut params = json!({"name": name, "arguments": arguments});
            if let Some(meta) = meta {
                params["_meta"] = meta;
            }
            if let Some(cursor) = cursor {
                params["cursor"] = cursor;
            }
            params
        }),
        any_json(),
    ]
}

fn any_message() -> impl Strategy<Value = Value> {
    let id = prop::option::of(prop_oneof![any::<i64>().prop_map(Value::from), any_json()]);
    (id, any_method(), any_params()).prop_map(|(id, method, params)| {
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if let Some(id) = id {
            message["id"] = id;
        }
        message
    })
}

/// Sends a request whose body is `message`, and holds the answer to what must hold of every one.
fn held(request: Request<Body>, message: &Value) -> (HeaderMap, Reply) {
    let headers = request.headers().clone();
    let reply = RUNTIME.block_on(sent(&APP, request));
    well_formed(&reply);
    mirrored(&headers, message, &reply);
    (headers, reply)
}

/// A text that a header may have to say: of any letters, posing as encoded, with space about it, or nothing.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[ -~]{0,12}", r"=\?base64\?[A-Za-z0-9+/]{0,8}={0,2}\?=", "[ \t][a-z]{0,3}[ \t]"]
}

/// Arguments that headers repeat, most of them of the type that the schema says.
fn repeated_arguments() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from)];
    let members = (
        prop::option::of(prop_oneof![6 => any_text().prop_map(Value::from), 1 => any_json()]),
        prop::option::of(prop_oneof![6 => number, 1 => any_json()]),
        prop::option::of(prop_oneof![6 => any::<bool>().prop_map(Value::from), 1 => any_json()]),
        prop::option::of(
            prop_oneof![6 => any_text().prop_map(|zone| json!({ "zone": zone })), 1 => any_json()],
        ),
    );
    members.prop_map(|(region, limit, dry, place)| {
        let all = [("region", region), ("limit", limit), ("dry", dry), ("where", place)];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

/// A value as a header says it, plainly where it can be.
fn said(value: &Value, plainly: bool) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let can_be_plain = text.trim() == text
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !text.starts_with("=?base64?");
    let encode = |text| base64::engine::general_purpose::STANDARD.encode(text);
    Some(if plainly && can_be_plain { text } else { format!("=?base64?{}?=", encode(text)) })
}

/// A call of 2026-07-28 that repeats its arguments in headers, as it should.
fn modern_call(arguments: &Value, plainly: bool) -> (Post, Value) {
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "_meta": { version: MODERN, capabilities: {} }, "name": "test_header_arguments", "arguments": arguments } });
    let mut post = Post::modern_message(message.clone());
    for (header, value) in [
        ("mcp-param-region", &arguments["region"]),
        ("mcp-param-limit", &arguments["limit"]),
        ("mcp-param-zone", &arguments["where"]["zone"]),
        ("mcp-param-dry", &arguments["dry"]),
    ] {
        if let Some(said) = said(value, plainly) {
            post = post.header(header, &said);
        }
    }
    (post, message)
}

/// Headers that repeat what the body says.
const REPEATING: &[&str] = &[
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-region",
    "mcp-param-limit",
    "mcp-param-zone",
    "mcp-param-dry",
];

/// What a header may be altered to.
fn any_header_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        prop::sample::select(vec![
            MODERN,
            "2025-11-25",
            "tools/call",
            "tools/list",
            "test_header_arguments",
            "true",
            "false",
            "eu",
            "1",
            "1.0",
            "1e0",
            "+1",
            "01",
            "NaN",
            "=?base64?ZXU=?=",
            "=?base64?ZXU?=",
            "=?base64?_-__?=",
            "",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_modern_call_that_repeats_its_arguments_is_served(arguments in repeated_arguments(), plainly in any::<bool>()) {
        let (post, message) = modern_call(&arguments, plainly);
        let (headers, reply) = held(post.whole(), &message);
        assert!(agree(&headers, &message), "{headers:?} {message}");
        assert_eq!(reply.error(), (200, 0), "{headers:?} {message}");
    }

    #[test]
    fn one_header_that_says_something_else_is_enough_to_be_refused(
        arguments in prop_oneof![repeated_arguments(), Just(json!({"region": "eu", "limit": 1, "dry": true}))],
        name in prop::sample::select(REPEATING),
        value in prop::option::weighted(0.9, any_header_text()),
        beside in prop::bool::weighted(0.1),
    ) {
        let (mut post, message) = modern_call(&arguments, true);
        post = match value {
            Some(value) if beside => post.also(name, &value),
            Some(value) => post.header(name, &value),
            None => post.without(name),
        };
        let (headers, reply) = held(post.whole(), &message);
        let expected = if agree(&headers, &message) { (200, 0) } else { (400, -32020) };
        assert_eq!(reply.error(), expected, "{headers:?} {message}");
    }

    #[test]
    fn any_message_in_modern_dress(message in any_message(), without in prop::option::weighted(0.2, prop::sample::select(REPEATING))) {
        let mut message = message;
        if !message["params"].is_object() {
            message["params"] = json!({});
        }
        let meta = &mut message["params"]["_meta"];
        if !meta.is_object() {
            *meta = json!({});
        }
        meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let mut post = Post::json(&message).header("mcp-protocol-version", MODERN);
        for (header, value) in [("mcp-method", &message["method"]), ("mcp-name", &message["params"]["name"])] {
            if let Some(said) = said(value, true) {
                post = post.header(header, &said);
            }
        }
        if let Some(without) = without {
            post = post.without(without);
        }
        held(post.whole(), &message);
    }

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..300)) {
        well_formed(&RUNTIME.block_on(Post::bytes(body).send(&APP)));
    }

    #[test]
    fn any_text_that_looks_like_json(body in r#"[\[\]{}",:\\ a-z0-9.eE+-]{0,200}"#) {
        well_formed(&RUNTIME.block_on(Post::bytes(body).send(&APP)));
    }

    #[test]
    fn any_message_in_any_era(
        message in prop_oneof![
            3 => any_message(),
            1 => prop::collection::vec(any_message(), 0..5).prop_map(Value::from),
        ],
        version in prop::option::of(prop_oneof![Just(MODERN), Just("2025-11-25"), Just("2025-03-26"), Just("x")]),
        repeated in any::<bool>(),
    ) {
        let mut post = Post::json(&message);
        if let Some(version) = version {
            post = post.header("mcp-protocol-version", version);
        }
        if repeated {
            for (header, value) in [("mcp-method", &message["method"]), ("mcp-name", &message["params"]["name"])] {
                if let Some(value) = value.as_str().filter(|value| value.chars().all(|c| c == ' ' || c.is_ascii_graphic())) {
                    post = post.header(header, value);
                }
            }
        }
        held(post.whole(), &message);
    }

    #[test]
    fn any_header(
        name in prop::sample::select(vec![
            "host", "origin", "content-type", "content-length", "content-encoding", "accept",
            "mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region", "mcp-param-limit",
        ]),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            r"(=\?base64\?)?[A-Za-z0-9+/=*;,. q-]{0,30}(\?=)?".prop_map(String::into_bytes),
        ],
    ) {
        let (post, message) = modern_call(&json!({"region": "eu", "limit": 1}), true);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut request = post.whole();
            request.headers_mut().insert(HeaderName::from_static(name), value);
            let (headers, reply) = held(request, &message);
            if REPEATING.contains(&name) {
                let expected = if agree(&headers, &message) { (200, 0) } else { (400, -32020) };
                assert_eq!(reply.error(), expected, "{headers:?}");
            }
        }
    }
}
