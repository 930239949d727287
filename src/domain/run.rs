//! Runs: one execution of a flow, its states and its counts.

use chrono::{DateTime, Utc};
use serde::Serialize;

words! {
    /// Where a run is.
    RunStatus {
        /// Waiting for a worker.
        Queued = "queued",
        /// A worker has it.
        Running = "running",
        /// Failed in a way that may pass; waiting for its next attempt.
        Retrying = "retrying",
        /// Asked to stop; the worker has not stopped yet.
        Cancelling = "cancelling",
        /// Finished, every record accepted.
        Succeeded = "succeeded",
        /// Finished, some records rejected.
        Partial = "partial",
        /// Did not finish, or too many records were rejected.
        Failed = "failed",
        /// Stopped by a person.
        Cancelled = "cancelled",
        /// Never started: the run before it was still going.
        Skipped = "skipped",
    }
}

impl RunStatus {
    /// Whether nothing can change this run any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Retrying | Self::Cancelling => false,
            Self::Succeeded | Self::Partial | Self::Failed | Self::Cancelled | Self::Skipped => true,
        }
    }
}

words! {
    /// What caused a run.
    Trigger {
        /// A schedule fell due.
        Schedule = "schedule",
        /// A person, from a page.
        Manual = "manual",
        /// `trigger_sync` over MCP.
        Mcp = "mcp",
        /// The REST API.
        Api = "api",
        /// A webhook.
        Webhook = "webhook",
        /// A person or model re-ran an earlier run.
        Retry = "retry",
        /// A back-fill of old data.
        Backfill = "backfill",
    }
}

words! {
    /// Why a run ended as it did, where it did not simply succeed.
    ReasonCode {
        /// The authorization of a connector expired or was revoked.
        AuthExpired = "AUTH_EXPIRED",
        /// More records were rejected than the flow allows.
        ErrorThreshold = "ERROR_THRESHOLD",
        /// The run took longer than the flow allows.
        Timeout = "TIMEOUT",
        /// The worker vanished and no attempt was left.
        HeartbeatLost = "HEARTBEAT_LOST",
        /// A connector could not be reached.
        ConnectorDown = "CONNECTOR_DOWN",
        /// The flow or a connector is configured wrongly.
        ConfigInvalid = "CONFIG_INVALID",
        /// The source failed.
        SourceError = "SOURCE_ERROR",
        /// The destination failed.
        DestinationError = "DESTINATION_ERROR",
        /// An allowance at the other system is used up.
        QuotaExhausted = "QUOTA_EXHAUSTED",
        /// A person cancelled it.
        CancelledByUser = "CANCELLED_BY_USER",
        /// The run before it was still going.
        PreviousRunActive = "PREVIOUS_RUN_ACTIVE",
        /// A fault of this server.
        Internal = "INTERNAL",
    }
}

words! {
    /// What runs are grouped by.
    RunGrouping {
        /// Not at all.
        None = "none",
        /// The flow.
        Flow = "flow",
        /// The connector read from.
        Source = "source",
        /// The connector written to.
        Destination = "destination",
        /// Either connector.
        Connector = "connector",
        /// How the run ended.
        Status = "status",
        /// What caused it.
        Trigger = "trigger",
        /// The hour of its end.
        Hour = "hour",
        /// The day of its end.
        Day = "day",
    }
}

/// `window_at` of a run that has not ended: later than every window, and still a time that
/// every type here can hold (PostgreSQL's `infinity` is not).
pub fn open_window() -> DateTime<Utc> {
    const OPEN: DateTime<Utc> = match DateTime::from_timestamp(253_402_214_400, 0) {
        Some(moment) => moment,
        None => DateTime::UNIX_EPOCH,
    };
    OPEN
}

/// What happened to the records of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Records {
    /// Taken from the source.
    pub read: i64,
    /// Accepted by the destination.
    pub written: i64,
    /// Rejected by mapping, validation or the destination.
    pub failed: i64,
    /// Filtered out, or unchanged at the destination.
    pub skipped: i64,
    /// Of the skipped ones, those that the destination had already as they are.
    #[serde(skip_serializing_if = "is_zero")]
    pub unchanged: i64,
    /// written + failed + skipped.
    pub processed: i64,
}

impl Records {
    /// The four counts, and their sum; no record was unchanged.
    pub fn new(read: i64, written: i64, failed: i64, skipped: i64) -> Self {
        Self { read, written, failed, skipped, unchanged: 0, processed: written + failed + skipped }
    }

    /// The same, where the destination had `unchanged` of the skipped records already.
    #[must_use]
    pub fn with_unchanged(self, unchanged: i64) -> Self {
        Self { unchanged, ..self }
    }

    /// Records that were to be at the destination: a record that it has already is as good as one that it takes, and one
    /// that was filtered out was not attempted.
    pub fn attempted(&self) -> i64 {
        self.written + self.unchanged + self.failed
    }

    /// Rejected records as a share of those attempted, 0 to 1; `None` when nothing was attempted.
    pub fn error_rate(&self) -> Option<f64> {
        let attempted = self.attempted();
        (attempted > 0).then(|| self.failed as f64 / attempted as f64)
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_runs_lie_at_the_end_of_time() {
        assert_eq!(open_window().to_rfc3339(), "9999-12-31T00:00:00+00:00");
    }

    #[test]
    fn words_round_trip() {
        for status in RunStatus::ALL {
            assert_eq!(RunStatus::parse(status.as_str()), Some(*status));
        }
        assert_eq!(RunStatus::parse("FAILED"), None);
    }

    #[test]
    fn an_error_rate_needs_an_attempt() {
        assert_eq!(Records::new(5, 0, 0, 5).error_rate(), None);
        assert_eq!(Records::new(4812, 3561, 1203, 48).error_rate(), Some(1203.0 / 4764.0));
        assert_eq!(Records::new(1000, 0, 2, 998).with_unchanged(990).error_rate(), Some(2.0 / 992.0));
    }
}
