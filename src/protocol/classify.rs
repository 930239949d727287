//! Which era answers a message: decided once, from the message and one header. Pure.

use serde_json::json;

use super::header::{Header, mismatch};
use super::jsonrpc::{Message, RpcError, UNSUPPORTED_VERSION};
use super::revision::{Era, Revision};

/// The `_meta` key in which a modern request names its revision.
pub const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// Who answers a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// The modern era, which still has to check what the message claims.
    Modern,
    /// The legacy era, in that revision.
    Legacy(Revision),
}

/// Decides who answers (2026-07-28, basic/versioning). The body comes first: a message that names a revision in
/// `_meta` is modern whatever its method, `initialize` without that is legacy whatever the header, and the header
/// decides the rest.
///
/// # Errors
/// [`UNSUPPORTED_VERSION`] or [`super::jsonrpc::HEADER_MISMATCH`], each HTTP 400.
pub fn classify(header: Header<'_>, message: &Message) -> Result<Inbound, RpcError> {
    if message.params.get("_meta").is_some_and(|meta| meta.get(VERSION_KEY).is_some()) {
        return Ok(Inbound::Modern);
    }
    match message.method.as_str() {
        "initialize" => return Ok(Inbound::Legacy(Revision::ASSUMED)),
        // They have no legacy meaning: a client that sends them wants to hear what a modern request lacks.
        "server/discover" | "subscriptions/listen" => return Ok(Inbound::Modern),
        _ => {}
    }
    match header {
        Header::Absent => Ok(Inbound::Legacy(Revision::ASSUMED)),
        Header::Text(date) => match Revision::named(date) {
            Some(revision) if revision.era() == Era::Modern => Ok(Inbound::Modern),
            Some(revision) => Ok(Inbound::Legacy(revision)),
            None => Err(unsupported(date)),
        },
        Header::Unreadable => {
            Err(mismatch("The MCP-Protocol-Version header must stand once and name one revision."))
        }
    }
}

/// The error for a revision we do not speak. `supported` lists what a request may name in `_meta`; the legacy
/// revisions are reached through `initialize`, so they stand in the message only.
pub fn unsupported(requested: &str) -> RpcError {
    RpcError::new(
        UNSUPPORTED_VERSION,
        "Unsupported protocol version: send 2026-07-28 in `_meta` and MCP-Protocol-Version, \
         or `initialize` with 2025-11-25, 2025-06-18 or 2025-03-26.",
    )
    .with(json!({"supported": [Revision::MODERN.date()], "requested": requested}))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::protocol::jsonrpc::{Body, HEADER_MISMATCH, read};

    fn message(method: &str, meta: Option<Value>) -> Message {
        let mut body = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if let Some(meta) = meta {
            body["params"] = json!({ "_meta": meta });
        }
        match read(body.to_string().as_bytes(), 64, 50) {
            Ok(Body::One(message)) => message,
            other => panic!("not one message: {other:?}"),
        }
    }

    #[test]
    fn the_body_decides_before_the_header() {
        use Revision::{V2025_03_26, V2025_06_18, V2025_11_25};
        let claim = |version: Value| Some(json!({ VERSION_KEY: version }));
        let (modern, legacy) = (Inbound::Modern, Inbound::Legacy);
        let text = Header::Text;
        let table = [
            // 1: a claim of any type makes it modern, even for methods that the modern era lacks
            ("tools/list", claim(json!("2026-07-28")), Header::Absent, modern),
            ("tools/list", claim(json!(7)), text("2025-11-25"), modern),
            ("tools/list", claim(Value::Null), Header::Absent, modern),
            ("initialize", claim(json!("2026-07-28")), text("2026-07-28"), modern),
            ("ping", claim(json!("v999")), text("v999"), modern),
            // 2: initialize is legacy whatever the header says
            ("initialize", None, Header::Absent, legacy(V2025_03_26)),
            ("initialize", None, text("2026-07-28"), legacy(V2025_03_26)),
            ("initialize", None, text("v999"), legacy(V2025_03_26)),
            ("initialize", None, Header::Unreadable, legacy(V2025_03_26)),
            ("initialize", Some(json!({"progressToken": 1})), Header::Absent, legacy(V2025_03_26)),
            // 3: modern methods without a claim are modern, and malformed
            ("server/discover", None, Header::Absent, modern),
            ("server/discover", None, text("2025-06-18"), modern),
            ("subscriptions/listen", None, Header::Absent, modern),
            // 4: a modern header without a claim
            ("tools/list", None, text("2026-07-28"), modern),
            ("tools/list", Some(json!({})), text("2026-07-28"), modern),
            // 5: a legacy header
            ("tools/list", None, text("2025-11-25"), legacy(V2025_11_25)),
            ("tools/list", None, text("2025-06-18"), legacy(V2025_06_18)),
            ("ping", None, text("2025-03-26"), legacy(V2025_03_26)),
            // 7: neither
            ("tools/list", None, Header::Absent, legacy(V2025_03_26)),
            ("tools/list", Some(json!("no object")), Header::Absent, legacy(V2025_03_26)),
            ("notifications/initialized", None, Header::Absent, legacy(V2025_03_26)),
        ];
        for (method, meta, header, expected) in table {
            assert_eq!(
                classify(header, &message(method, meta.clone())),
                Ok(expected),
                "{method} {meta:?} {header:?}"
            );
        }
    }

    #[test]
    fn a_header_in_neither_list_is_refused() {
        let error = classify(Header::Text("2024-11-05"), &message("tools/list", None)).unwrap_err();
        assert_eq!(error.code, UNSUPPORTED_VERSION);
        assert_eq!(
            error.data.as_deref(),
            Some(&json!({"supported": ["2026-07-28"], "requested": "2024-11-05"}))
        );
        let error = classify(Header::Unreadable, &message("tools/list", None)).unwrap_err();
        assert_eq!(error.code, HEADER_MISMATCH);
    }
}
