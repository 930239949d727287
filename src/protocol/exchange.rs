//! One call under way, as the product sees it: who asks in which revision, and the way to report progress.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::jsonrpc::{self, Id};
use super::model::{ClientCapabilities, LogLevel};
use super::revision::Revision;

/// One call under way.
///
/// What is reported here goes out on the call's own response, which then becomes an event stream; a call that
/// reports nothing is answered with plain JSON.
#[derive(Debug)]
pub struct Exchange {
    /// The id of the HTTP request, as in the log.
    pub request_id: String,
    /// The revision the client speaks; 2025-03-26 if it named none.
    pub revision: Revision,
    /// When the call is ended, done or not, if ever.
    pub deadline: Option<Instant>,
    /// What the client can do; known in the modern era only.
    pub capabilities: Option<ClientCapabilities>,
    pub(super) progress_token: Option<Id>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) notifications: Option<mpsc::Sender<Bytes>>,
    pub(super) last_progress: Mutex<f64>,
}

impl Exchange {
    /// An exchange whose reports nobody hears, as for each message of a batch.
    pub fn unheard(request_id: impl Into<String>, revision: Revision) -> Self {
        Self {
            request_id: request_id.into(),
            revision,
            deadline: None,
            capabilities: None,
            progress_token: None,
            log_level: None,
            notifications: None,
            last_progress: Mutex::new(f64::NEG_INFINITY),
        }
    }

    /// Whether the client asked for progress, so that working it out is worth while.
    pub fn wants_progress(&self) -> bool {
        self.progress_token.is_some() && self.notifications.is_some()
    }

    /// Reports progress, in any unit, out of `total` if that is known. A value that is not above the last one is
    /// dropped: progress must increase (basic/utilities/progress). Waits while the client is slow to read.
    pub async fn progress(&self, progress: f64, total: Option<f64>, message: Option<String>) {
        let (Some(token), Some(notifications)) = (&self.progress_token, &self.notifications) else { return };
        if !self.advances(progress) {
            return;
        }
        let params = Progress {
            progress_token: token,
            progress,
            total: total.filter(|total| total.is_finite()),
            message,
        };
        // Nobody listens any more: the call is about to be dropped.
        let _ = notifications.send(jsonrpc::notification("notifications/progress", &params)).await;
    }

    /// Sends a log line to the client, if it wants lines of that level: in the modern era when the request said so
    /// (`io.modelcontextprotocol/logLevel`), before it from `info` up.
    pub async fn log(&self, level: LogLevel, logger: &str, data: Value) {
        let (Some(threshold), Some(notifications)) = (self.log_level, &self.notifications) else { return };
        if level < threshold {
            return;
        }
        let params = LogLine { level, logger, data };
        // As above.
        let _ = notifications.send(jsonrpc::notification("notifications/message", &params)).await;
    }

    fn advances(&self, progress: f64) -> bool {
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        let advances = progress.is_finite() && progress > *last;
        if advances {
            *last = progress;
        }
        advances
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress<'a> {
    progress_token: &'a Id,
    progress: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct LogLine<'a> {
    level: LogLevel,
    logger: &'a str,
    data: Value,
}
