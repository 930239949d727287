//! What a product must answer so that this layer can serve it over MCP.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::content::ToolAnswer;
use super::exchange::Exchange;
use super::model::{ClientInfo, Implementation};
use super::revision::Revision;
use super::tool::ToolList;

/// What a product answers so that this layer can serve it over MCP.
pub trait Server: Send + Sync + 'static {
    /// Who is calling. Carried from the HTTP edge to the product; never opened here.
    type Caller: Clone + Send + Sync + 'static;

    /// How the server introduces itself.
    fn implementation(&self) -> &Implementation;

    /// What a model should know before it calls anything.
    fn instructions(&self) -> &str;

    /// The tools this caller may see, in an order that does not change.
    fn tools(&self, caller: &Self::Caller) -> Arc<ToolList>;

    /// A client introduced itself: at `initialize`, or with a modern request, in the words of the revision agreed on. For
    /// display and logs only.
    fn met(&self, _caller: &Self::Caller, _client: &ClientInfo, _revision: Revision) {}

    /// Whether the second and each further message of a batch may be served; the first was admitted before the
    /// body was read.
    ///
    /// # Errors
    /// How long to wait; that message is answered with error 429 and `data.retry_after_seconds`.
    fn admit(&self, _caller: &Self::Caller) -> impl Future<Output = Result<(), Duration>> + Send {
        std::future::ready(Ok(()))
    }

    /// Headers that go on every answer to this caller, such as what is left of a rate limit.
    fn headers(&self, _caller: &Self::Caller, _headers: &mut HeaderMap) {}

    /// Who is calling, as a key: `notifications/cancelled` ends only calls of the same key.
    fn caller_key(&self, caller: &Self::Caller) -> String;

    /// Serves one call. The future is dropped when the client goes away, cancels, or the time is up, so what it
    /// does must be whole or not at all.
    ///
    /// # Errors
    /// See [`CallError`]; a failure the model can act on is an [`ToolAnswer`] with `is_error`.
    fn call_tool(
        &self,
        caller: &Self::Caller,
        call: CallTool,
        exchange: &Exchange,
    ) -> impl Future<Output = Result<ToolAnswer, CallError>> + Send;
}

/// A well-formed `tools/call`.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTool {
    /// The tool's name, as the client wrote it.
    pub name: String,
    /// The arguments; absent and `null` are empty.
    pub arguments: Map<String, Value>,
}

/// Why a call has no answer of its own.
#[derive(Clone, Debug)]
pub enum CallError {
    /// There is no such tool: `-32602` in every revision (server/tools, "Error Handling").
    UnknownTool,
    /// The arguments do not fit the tool's input schema. A protocol error up to 2025-06-18, and for a client that
    /// names no revision; the tool's own answer from 2025-11-25 on, so that the model can correct itself
    /// (2025-11-25 changelog, SEP-1303).
    InvalidArguments {
        /// One plain sentence.
        message: String,
        /// `data` of the protocol error.
        data: Value,
        /// The answer from 2025-11-25 on, with `is_error`.
        answer: ToolAnswer,
    },
    /// The client lacks these capabilities, written as a `ClientCapabilities` object, such as `{"sampling":{}}`.
    MissingCapability(Value),
    /// Not now, for a reason that passes: 503 with `Retry-After`, or an error where the status is out already.
    Unavailable {
        /// What became of the request and what to do next, for people.
        message: String,
        /// The id the caller can give to whoever reads the log.
        request_id: String,
    },
    /// Our fault. The cause is in the log under this id, and nowhere else.
    Internal {
        /// The id the caller can give to whoever reads the log.
        request_id: String,
    },
}
