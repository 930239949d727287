//! How a call fails, and how that is told.

use serde::Serialize;
use serde_json::{Map, json};

use crate::protocol::jsonrpc::COME_AGAIN;
use crate::protocol::{CallError, ToolAnswer};
use crate::service::turns::Busy;
use crate::store::StoreError;

/// Where the code of a failed call stands in the answer's `_meta`.
const META_KEY: &str = "io.apixx/error";

/// How a call fails.
#[derive(Debug)]
pub(super) enum ToolError {
    /// The arguments are not what the schema, or the tool, asks for.
    Arguments(Vec<ArgumentError>),
    /// A well-formed call that cannot be answered; the caller can do something about it.
    Refused {
        /// Stable code.
        code: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// No place came free in time.
    Busy,
    /// Our database failed, and nothing was changed.
    Store(StoreError),
    /// Our database failed after this was done: a whole clause, such as `run_… was started`.
    After(String, StoreError),
    /// Our answer has no JSON form.
    Unserialisable(serde_json::Error),
}

/// What is wrong with one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ArgumentError {
    /// Where, as a JSON Pointer into the arguments.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right.
    pub(super) expected: String,
    /// What may have been meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) did_you_mean: Option<String>,
}

impl From<StoreError> for ToolError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownZone => Self::argument(
                "timezone",
                "the database does not know that time zone",
                "a current IANA name such as America/New_York, not an old one such as US/Eastern",
            ),
            error => Self::Store(error),
        }
    }
}

impl From<Busy> for ToolError {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

impl ToolError {
    /// The same failure, after something was done: a whole clause, such as `run_… was started`.
    pub(super) fn after(self, done: impl FnOnce() -> String) -> Self {
        match self {
            Self::Store(error) => Self::After(done(), error),
            other => other,
        }
    }

    /// A well-formed call that cannot be answered.
    pub(super) fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into() }
    }

    /// One argument is wrong.
    pub(super) fn argument(name: &str, message: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Arguments(vec![ArgumentError {
            path: format!("/{name}"),
            message: message.into(),
            expected: expected.into(),
            did_you_mean: None,
        }])
    }

    /// Why the caller gets no answer, in a word for the operator; `None` for a fault of ours, which has a line of
    /// its own.
    pub(super) fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Arguments(_) => Some("INVALID_ARGUMENTS"),
            Self::Refused { code, .. } => Some(code),
            Self::Busy => Some("busy"),
            Self::Store(StoreError::NotLive) | Self::After(_, StoreError::NotLive) => Some("TOKEN_REVOKED"),
            Self::Store(_) | Self::After(..) | Self::Unserialisable(_) => None,
        }
    }

    /// The failure as the protocol layer tells it. The cause of a fault of ours goes to the log, here and only
    /// here, under `request_id`.
    #[expect(clippy::result_large_err, reason = "what the protocol layer asks for")]
    pub(super) fn told(self, tool: &str, request_id: &str) -> Result<ToolAnswer, CallError> {
        match self {
            Self::Refused { code, message } => Ok(answer(code, &message)),
            Self::Arguments(errors) => {
                let message = sentence(&errors);
                let data = json!({ "tool": tool, "errors": errors });
                let answer = answer("INVALID_ARGUMENTS", &message);
                Err(CallError::InvalidArguments { message, data, answer })
            }
            Self::Busy => Err(CallError::Unavailable {
                message: COME_AGAIN.to_owned(),
                request_id: request_id.to_owned(),
            }),
            Self::Store(StoreError::NotLive) => Ok(answer(
                "TOKEN_REVOKED",
                "this token was revoked or has expired. Ask the workspace's owner for a new one.",
            )),
            Self::After(done, StoreError::NotLive) => Ok(answer(
                "TOKEN_REVOKED",
                &format!(
                    "{done}, but this token was revoked or has expired since. Ask the workspace's owner for a new one."
                ),
            )),
            Self::Store(error) if error.is_transient() => {
                let message = match &error {
                    StoreError::Unknown(_) => {
                        "The connection to the database broke while a run was being started: whether it was is not \
                         known. Look at list_flow_runs, or repeat the call with the same idempotency_key."
                    }
                    _ => COME_AGAIN,
                };
                Err(unavailable(message.to_owned(), tool, request_id, &error))
            }
            Self::After(done, error) if error.is_transient() => {
                let message = format!("{done}, but the service can tell no more now: come again in 1 s.");
                Err(unavailable(message, tool, request_id, &error))
            }
            Self::Store(error) | Self::After(_, error) => Err(internal(tool, request_id, &error)),
            Self::Unserialisable(error) => Err(internal(tool, request_id, &error)),
        }
    }
}

fn unavailable(message: String, tool: &str, request_id: &str, cause: &StoreError) -> CallError {
    tracing::warn!(request.id = request_id, tool.name = tool, error = %cause, "a call must come again");
    CallError::Unavailable { message, request_id: request_id.to_owned() }
}

fn internal(tool: &str, request_id: &str, cause: &(dyn std::error::Error + 'static)) -> CallError {
    tracing::error!(request.id = request_id, tool.name = tool, error = cause, "a call failed");
    CallError::Internal { request_id: request_id.to_owned() }
}

fn answer(code: &'static str, message: &str) -> ToolAnswer {
    let mut meta = Map::new();
    meta.insert(META_KEY.to_owned(), json!({ "code": code }));
    ToolAnswer { meta: Some(meta), ..ToolAnswer::error(format!("{code}: {message}")) }
}

/// All that is wrong, in one plain sentence.
pub(super) fn sentence(errors: &[ArgumentError]) -> String {
    let said: Vec<String> = errors
        .iter()
        .map(|error| {
            let expected = if error.expected.is_empty() {
                String::new()
            } else {
                format!(" (expected {})", error.expected)
            };
            let meant = error
                .did_you_mean
                .as_ref()
                .map(|word| format!("; did you mean `{word}`?"))
                .unwrap_or_default();
            format!("{}{expected}{meant}", error.message)
        })
        .collect();
    let said = said.join("; ");
    format!("Invalid arguments: {said}{}", if said.ends_with('?') { "" } else { "." })
}

/// What every tool says of an id it does not know; the same for another customer's and for one that never was.
pub(super) fn run_not_found(id: &str, retention_days: i32) -> ToolError {
    ToolError::refused(
        "RUN_NOT_FOUND",
        format!(
            "there is no run \"{}\" in this workspace (runs are kept {retention_days} days). list_runs shows recent ids.",
            crate::domain::untrusted::named(id)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ends_after_something_was_done_is_no_fault_of_ours() {
        let error = ToolError::from(StoreError::NotLive).after(|| "run_1 was started".to_owned());
        assert_eq!(error.cause(), Some("TOKEN_REVOKED"));
        let answer = error.told("trigger_sync", "req_1").unwrap();
        assert_eq!(answer.meta.as_ref().unwrap()[META_KEY]["code"], "TOKEN_REVOKED");
        let text = format!("{:?}", answer.content);
        assert!(text.contains("run_1 was started, but this token was revoked"), "{text}");
    }
}
