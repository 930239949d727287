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

/// What a client says it can do, unopened: the keys are those of `ClientCapabilities`.
pub type ClientCapabilities = Map<String, Value>;

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
