//! Whatever arrives, the server neither panics nor takes the blame, and what it says is well-formed.

use std::sync::LazyLock;

use axum::Router;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::held::message::well_formed;
use crate::support::{MODERN, Post, app, sent};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
static APP: LazyLock<Router> = LazyLock::new(app);

fn any_json() -> impl Strategy<Value = Value> {
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
        well_formed(&RUNTIME.block_on(post.send(&APP)));
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
        let arguments = json!({"region": "eu", "limit": 1});
        let post = Post::modern("tools/call", json!({"name": "test_header_arguments", "arguments": arguments}))
            .header("mcp-param-region", "eu")
            .header("mcp-param-limit", "1");
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut request = post.whole();
            request.headers_mut().insert(HeaderName::from_static(name), value);
            well_formed(&RUNTIME.block_on(sent(&APP, request)));
        }
    }
}
