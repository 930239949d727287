//! The past of a workspace as a value: what [`TenantTx::put_history`](super::TenantTx::put_history) puts in place.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::checks::QuotaSeen;
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::definition::FlowDefinition;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::flow::{FlowState, StatusReason};
use crate::domain::ids::FlowId;
use crate::domain::run::{ReasonCode, RunStatus, Trigger};

/// The worker that runs of a made-up past name.
pub const WORKER: &str = "demo";

/// A run that was, with all that is kept of it.
#[derive(Clone, Debug, Serialize)]
pub struct PastRun {
    /// Its id.
    pub run_id: String,
    /// The flow that ran.
    pub flow_id: &'static str,
    /// In which version.
    pub flow_version: i32,
    /// The connector it read.
    pub source_connector_id: &'static str,
    /// The connector it wrote.
    pub destination_connector_id: &'static str,
    /// `native`, or `ingested` for one that another platform reports.
    pub origin: &'static str,
    /// How it ended, or where it is.
    pub status: RunStatus,
    /// Why it ended so.
    pub reason_code: Option<ReasonCode>,
    /// The same in words.
    pub reason_message: Option<String>,
    /// What caused it.
    pub trigger: Trigger,
    /// Who.
    pub triggered_by: Option<&'static str>,
    /// Why.
    pub trigger_note: Option<&'static str>,
    /// Its nominal time.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// From when on it could be claimed.
    pub available_at: DateTime<Utc>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The same, or the end of time.
    pub window_at: DateTime<Utc>,
    /// What it is doing.
    pub phase: Option<&'static str>,
    /// Its attempt.
    pub attempt: i32,
    /// How many it may have.
    pub max_attempts: i32,
    /// Lower is claimed first.
    pub priority: i32,
    /// Always [`WORKER`].
    pub worker_id: &'static str,
    /// Records taken from the source.
    pub records_read: i64,
    /// Records accepted by the destination.
    pub records_written: i64,
    /// Records rejected.
    pub records_failed: i64,
    /// Records filtered out or unchanged.
    pub records_skipped: i64,
    /// Of these, unchanged.
    pub records_unchanged: i64,
    /// How many there will be.
    pub records_estimated: Option<i64>,
    /// Bytes taken from the source.
    pub bytes_read: i64,
    /// Bytes written.
    pub bytes_written: i64,
    /// Computed when it is written.
    pub error_groups: i32,
    /// Its timeline.
    #[serde(skip)]
    pub events: Vec<PastEvent>,
    /// Its errors.
    #[serde(skip)]
    pub errors: Vec<PastErrors>,
}

/// One line of a timeline.
#[derive(Clone, Debug)]
pub struct PastEvent {
    /// When.
    pub at: DateTime<Utc>,
    /// What sort of line.
    pub kind: &'static str,
    /// One sentence.
    pub message: String,
}

/// Errors of one kind in one run.
#[derive(Clone, Debug)]
pub struct PastErrors {
    /// Their class.
    pub class: ErrorClass,
    /// The other system's code.
    pub code: &'static str,
    /// At which step.
    pub stage: Stage,
    /// The field.
    pub field: Option<&'static str>,
    /// What was said of the first of them.
    pub message: String,
    /// How many.
    pub count: i64,
    /// When the first came.
    pub first_at: DateTime<Utc>,
    /// When the last came.
    pub last_at: DateTime<Utc>,
    /// Some of the records.
    pub samples: Vec<PastSample>,
}

/// A rejected record, as kept.
#[derive(Clone, Debug)]
pub struct PastSample {
    /// When.
    pub at: DateTime<Utc>,
    /// What was said.
    pub message: String,
    /// The record's own key.
    pub record_key: Option<String>,
    /// What is kept of it, redacted.
    pub payload: Option<Value>,
}

/// A version of a flow.
#[derive(Clone, Debug)]
pub struct PastVersion {
    /// Its number.
    pub number: i32,
    /// When it was published.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: &'static str,
    /// What changed.
    pub summary: &'static str,
    /// What it says.
    pub definition: FlowDefinition,
}

/// What became of a flow.
#[derive(Clone, Debug)]
pub struct PastFlow {
    /// Which.
    pub flow: FlowId,
    /// Its versions.
    pub versions: Vec<PastVersion>,
    /// The state it has had since.
    pub state: FlowState,
    /// Since when.
    pub state_since: DateTime<Utc>,
    /// Who said so.
    pub state_by: Option<&'static str>,
    /// Why.
    pub state_reason: Option<&'static str>,
    /// When it runs next.
    pub next_run_at: Option<DateTime<Utc>>,
}

/// Something that the audit log keeps.
#[derive(Clone, Debug)]
pub struct PastDeed {
    /// When.
    pub at: DateTime<Utc>,
    /// Who; `None` is this program.
    pub by: Option<&'static str>,
    /// What.
    pub action: &'static str,
    /// To what sort of thing.
    pub target_kind: &'static str,
    /// To which.
    pub target: &'static str,
    /// In words.
    pub message: Option<&'static str>,
}

/// How a connector was found when it was last checked.
#[derive(Clone, Debug)]
pub struct PastCheck {
    /// Which.
    pub connector: &'static str,
    /// Its authorization.
    pub auth_status: AuthStatus,
    /// What was said of it.
    pub auth_error: Option<&'static str>,
    /// When it ends.
    pub auth_expires_at: Option<DateTime<Utc>>,
    /// When it was checked.
    pub at: DateTime<Utc>,
    /// How long that took, in milliseconds.
    pub took_ms: i32,
    /// When it is checked next.
    pub next_at: DateTime<Utc>,
    /// Its status after it.
    pub status: ConnectorStatus,
    /// Why.
    pub reasons: Vec<StatusReason>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Its allowances.
    pub quotas: Vec<QuotaSeen>,
}

/// What a workspace lived through.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Its runs, oldest first.
    pub runs: Vec<PastRun>,
    /// Its flows.
    pub flows: Vec<PastFlow>,
    /// Its connectors.
    pub checks: Vec<PastCheck>,
    /// Its audit log.
    pub deeds: Vec<PastDeed>,
    /// Where no scheduled runs may be but those given here: the flow, from when, until when.
    pub cleared: Vec<(FlowId, DateTime<Utc>, DateTime<Utc>)>,
}
