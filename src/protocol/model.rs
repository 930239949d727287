//! Small words both eras share: who serves, who asks, how loud a log line is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The server as it introduces itself (`serverInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Implementation {
    /// The name programs know it by.
    pub name: String,
    /// The name people read; left out for 2025-03-26, which has no titles.
    pub title: String,
    /// Its version.
    pub version: String,
}

/// The client as it introduces itself (`clientInfo`). Its own word: for display and logs, never for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClientInfo {
    /// The name programs know it by.
    pub name: String,
    /// The name people read, if it gave one.
    #[serde(default)]
    pub title: Option<String>,
    /// Its version.
    pub version: String,
}

/// The members of `ClientCapabilities` (2026-07-28, schema).
const CAPABILITIES: [&str; 5] = ["elicitation", "experimental", "extensions", "roots", "sampling"];

/// What a client says it can do: the names of the capabilities that the revision knows, and nothing of what stands
/// below them, since it is the client's to choose how much that is and a call keeps this until its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities(Vec<&'static str>);

impl ClientCapabilities {
    /// Those that are known among the members of an object.
    pub fn of(declared: &Map<String, Value>) -> Self {
        Self(CAPABILITIES.into_iter().filter(|name| declared.contains_key(*name)).collect())
    }

    /// Whether the client declared the capability of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// How much a log line matters (RFC 5424 severities); less matters less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For finding faults.
    Debug,
    /// Ordinary.
    Info,
    /// Ordinary but worth a look.
    Notice,
    /// Something may go wrong.
    Warning,
    /// Something went wrong.
    Error,
    /// A part does not work.
    Critical,
    /// Someone must act now.
    Alert,
    /// Nothing works.
    Emergency,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_capabilities_nothing_is_kept_but_known_names() {
        let declared =
            json!({"sampling": {"tools": {}}, "extensions": {"x": [{"": 0}]}, "x": [{"": 0}], "Roots": {}});
        let capabilities = ClientCapabilities::of(declared.as_object().unwrap());
        assert_eq!(capabilities, ClientCapabilities(vec!["extensions", "sampling"]));
        assert!(capabilities.has("sampling") && !capabilities.has("x") && !capabilities.has("roots"));
    }
}
