//! Runs as they are told.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use super::moment::Moment;
use super::text;
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::{Records, RunStatus};
use crate::store::flows::RunBrief;
use crate::store::run_lists::{RunGroup, RunTotals, SharedConnector};
use crate::store::runs::{Run, Side};

/// Objects of one end that are told at most.
const MAX_OBJECTS: usize = 10;

/// One end of a flow or run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SideView {
    /// Connector id.
    #[schemars(with = "String")]
    pub connector_id: ConnectorId,
    /// Connector name.
    pub connector: String,
    /// Service behind it.
    pub service: String,
    /// First object read or written.
    pub object: String,
    /// The first ten, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Objects beyond these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects_more: Option<usize>,
    /// Connector status now.
    pub status: &'static str,
}

impl From<Side> for SideView {
    fn from(side: Side) -> Self {
        let objects_more = side.objects.len().checked_sub(MAX_OBJECTS).filter(|more| *more > 0);
        let mut objects: Vec<String> = side.objects.into_iter().take(MAX_OBJECTS).map(text::named).collect();
        let object = match objects.len() {
            0 | 1 => objects.pop().unwrap_or_default(),
            _ => objects[0].clone(),
        };
        Self {
            connector_id: side.connector,
            connector: text::named(side.name),
            service: text::named(side.service),
            object,
            objects,
            objects_more,
            status: side.status.as_str(),
        }
    }
}

impl SideView {
    /// `HubSpot (Marketing)/contacts`, with a count of further objects.
    pub fn in_words(&self) -> String {
        let more = match self.objects.len() + self.objects_more.unwrap_or(0) {
            0 | 1 => String::new(),
            n => format!(" (+{} more)", n - 1),
        };
        format!("{}/{}{more}", self.connector, self.object)
    }
}

/// A run as lists show it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunView {
    /// Run id.
    #[schemars(with = "String")]
    pub run_id: RunId,
    /// Flow id.
    #[schemars(with = "String")]
    pub flow_id: FlowId,
    /// Flow name.
    pub flow: String,
    /// Where the run is.
    pub status: &'static str,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<&'static str>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What caused it.
    pub trigger: &'static str,
    /// Where records came from.
    pub source: SideView,
    /// Where they went.
    pub destination: SideView,
    /// Queued at.
    pub queued_at: Moment,
    /// Started at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// Finished at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Moment>,
    /// Duration in milliseconds, so far if it is still going.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Record counts.
    pub records: Records,
    /// Bytes written.
    pub bytes_written: i64,
    /// Kinds of error.
    pub error_groups: i32,
    /// Class of most errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_error_class: Option<&'static str>,
    /// Attempt, from 1.
    pub attempt: i32,
    /// The run it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
}

impl RunView {
    /// `run` as seen at `now`.
    pub fn new(run: Run, now: DateTime<Utc>) -> Self {
        let duration_ms = run.duration_ms(now);
        Self {
            run_id: run.id,
            flow_id: run.flow,
            flow: text::named(run.flow_name),
            status: run.status.as_str(),
            reason_code: run.reason_code.map(|code| code.as_str()),
            reason: run.reason.as_deref().map(text::fenced),
            trigger: run.trigger.as_str(),
            source: run.source.into(),
            destination: run.destination.into(),
            queued_at: Moment(run.queued_at),
            started_at: run.started_at.map(Moment),
            finished_at: run.finished_at.map(Moment),
            duration_ms,
            records: run.records,
            bytes_written: run.bytes_written,
            error_groups: run.error_groups,
            top_error_class: run.top_error_class.map(|class| class.as_str()),
            attempt: run.attempt,
            retry_of: run.retry_of,
        }
    }
}

/// A run as one line; with the flow and connectors when the list is of several flows.
pub fn line(run: &RunView, now: DateTime<Utc>, zone: Tz, across_flows: bool) -> String {
    let mut line = String::with_capacity(320);
    line.push_str(run.run_id.as_str());
    let mut part = |words: &[&str]| {
        line.push_str(" | ");
        words.iter().for_each(|word| line.push_str(word));
    };
    if across_flows {
        part(&[&run.flow]);
    }
    match run.reason_code {
        Some(code) => part(&[run.status, " (", code, ")"]),
        None => part(&[run.status]),
    }
    part(&[run.trigger]);
    let (word, at) = when(run);
    part(&[word, " ", &text::moment_and_age(at, now, zone)]);
    if let Some(duration) = run.duration_ms {
        part(&[&text::duration(duration)]);
    }
    part(&[&records(&run.records)]);
    if across_flows {
        part(&[&run.source.connector, " → ", &run.destination.connector]);
    }
    if let Some(class) = run.top_error_class {
        part(&["top error ", class]);
    }
    line
}

fn when(run: &RunView) -> (&'static str, DateTime<Utc>) {
    match (run.started_at, run.finished_at) {
        (_, Some(finished)) if run.status == RunStatus::Skipped.as_str() => ("skipped", finished.0),
        (Some(started), _) => ("started", started.0),
        (None, _) => ("queued", run.queued_at.0),
    }
}

/// `4,812 processed (3,561 written, 1,203 failed, 48 skipped)`.
pub fn records(records: &Records) -> String {
    let mut text = String::with_capacity(80);
    let parts = [
        (records.processed, " processed ("),
        (records.written, " written, "),
        (records.failed, " failed, "),
        (records.skipped, " skipped)"),
    ];
    for (number, word) in parts {
        text::put_count(&mut text, number);
        text.push_str(word);
    }
    text
}

/// A run in a few words.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunBriefView {
    /// Run id.
    pub run_id: String,
    /// Where it is.
    pub status: String,
    /// Started at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// Finished at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Moment>,
    /// Duration in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Record counts.
    pub records: Records,
    /// Why it ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// The flow version that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_version: Option<i32>,
}

fn span(started: Option<DateTime<Utc>>, finished: Option<DateTime<Utc>>) -> Option<i64> {
    Some((finished? - started?).num_milliseconds())
}

impl From<&RunBrief> for RunBriefView {
    fn from(run: &RunBrief) -> Self {
        Self {
            run_id: run.run_id.clone(),
            status: run.status.to_string(),
            started_at: run.started_at.map(Moment),
            finished_at: run.finished_at.map(Moment),
            duration_ms: span(run.started_at, run.finished_at),
            records: run.records(),
            reason_code: run.reason_code.clone(),
            flow_version: run.flow_version,
        }
    }
}

impl RunBriefView {
    /// `2026-11-21 08:05 +01:00 failed AUTH_EXPIRED (run_…)`.
    pub fn in_words(&self, now: DateTime<Utc>, zone: Tz) -> String {
        let at = self.started_at.or(self.finished_at);
        let at = at.map(|at| format!("{} ", text::moment_and_age(at.0, now, zone))).unwrap_or_default();
        let why = self.reason_code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
        let failed = match self.records.failed {
            0 => String::new(),
            n => format!(", {} of {} failed", text::count(n), text::count(self.records.attempted())),
        };
        format!("{at}{}{why}{failed} ({})", self.status, self.run_id)
    }
}

/// Figures of all runs that match.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TotalsView {
    /// How many runs.
    pub runs: i64,
    /// Succeeded.
    pub succeeded: i64,
    /// Finished with rejected records.
    pub partial: i64,
    /// Failed.
    pub failed: i64,
    /// Cancelled.
    pub cancelled: i64,
    /// Never started.
    pub skipped: i64,
    /// Still open.
    pub active: i64,
    /// Record counts.
    pub records: Records,
    /// Bytes written.
    pub bytes_written: i64,
    /// failed / (succeeded + partial + failed); absent when that is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_failure_rate: Option<f64>,
    /// records failed / (written + unchanged + failed); absent when that is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_error_rate: Option<f64>,
}

impl From<&RunTotals> for TotalsView {
    fn from(totals: &RunTotals) -> Self {
        Self {
            runs: totals.runs,
            succeeded: totals.succeeded,
            partial: totals.partial,
            failed: totals.failed,
            cancelled: totals.cancelled,
            skipped: totals.skipped,
            active: totals.active,
            records: totals.records(),
            bytes_written: totals.total_bytes,
            run_failure_rate: totals.failure_rate(),
            record_error_rate: totals.records().error_rate(),
        }
    }
}

impl TotalsView {
    /// `3 failed, 2 succeeded`: the states that occur, most telling first.
    pub fn states_in_words(&self) -> String {
        text::tally([
            (self.failed, "failed"),
            (self.partial, "partial"),
            (self.succeeded, "succeeded"),
            (self.active, "active"),
            (self.cancelled, "cancelled"),
            (self.skipped, "skipped"),
        ])
    }
}

/// Runs that have something in common.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupView {
    /// What they have in common: an id, a state, an hour.
    pub key: String,
    /// What people call it.
    pub label: String,
    /// How many runs.
    pub runs: i64,
    /// Succeeded.
    pub succeeded: i64,
    /// Finished with rejected records.
    pub partial: i64,
    /// Failed.
    pub failed: i64,
    /// Still open.
    pub active: i64,
    /// Cancelled, where some were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<i64>,
    /// Never started, where some did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<i64>,
    /// Record counts.
    pub records: Records,
    /// Bytes written.
    pub bytes_written: i64,
    /// Newest run of the flow, whether it matches or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_run_id: Option<String>,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_status: Option<String>,
    /// Whether every matching run is in this group.
    pub in_every_run: bool,
}

impl GroupView {
    /// A group of `all` matching runs.
    pub fn new(group: &RunGroup, all: i64) -> Self {
        Self {
            key: group.key.clone(),
            label: text::named(&group.label),
            runs: group.runs,
            succeeded: group.succeeded,
            partial: group.partial,
            failed: group.failed,
            active: group.active,
            cancelled: Some(group.cancelled).filter(|number| *number > 0),
            skipped: Some(group.skipped_runs).filter(|number| *number > 0),
            records: Records::new(group.read, group.written, group.rejected, group.skipped)
                .with_unchanged(group.unchanged),
            bytes_written: group.bytes,
            latest_run_id: group.latest_run_id.clone(),
            latest_status: group.latest_status.clone(),
            in_every_run: group.runs == all,
        }
    }

    /// The group as one line.
    pub fn line(&self) -> String {
        let states = text::tally([
            (self.succeeded, "succeeded"),
            (self.partial, "partial"),
            (self.failed, "failed"),
            (self.active, "active"),
            (self.cancelled.unwrap_or(0), "cancelled"),
            (self.skipped.unwrap_or(0), "skipped"),
        ]);
        let id = if self.key == self.label { String::new() } else { format!(" [{}]", self.key) };
        let latest = match (&self.latest_run_id, &self.latest_status) {
            (Some(run), Some(status)) => format!(" | latest {run} {status}"),
            _ => String::new(),
        };
        format!(
            "{}{id} | {} ({}) | {} read, {} | {} written{latest}",
            self.label,
            text::counted(self.runs, "run", "runs"),
            states,
            text::count(self.records.read),
            records(&self.records),
            text::bytes(self.bytes_written),
        )
    }
}

/// A connector that every matching run used.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SharedView {
    /// Connector id.
    pub connector_id: String,
    /// Connector name.
    pub connector: String,
    /// Its status now.
    pub status: String,
    /// Its authorization now.
    pub auth_status: String,
    /// Why it is not healthy: a sentence of ours, in which what others said is fenced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&SharedConnector> for SharedView {
    fn from(shared: &SharedConnector) -> Self {
        Self {
            connector_id: shared.connector_id.clone(),
            connector: text::named(&shared.name),
            status: shared.status.clone(),
            auth_status: shared.auth_status.clone(),
            reason: shared.reason.clone(),
        }
    }
}
