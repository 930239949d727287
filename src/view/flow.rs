//! Flows as they are told.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use super::run::{RunBriefView, SideView};
use super::text;
use crate::domain::flow::{FlowStatus, StatusReason};
use crate::domain::schedule::Schedule;
use crate::store::flows::Flow;

/// When a flow runs by itself.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ScheduleView {
    /// manual, cron or interval.
    pub kind: String,
    /// Five cron fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The zone they are read in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The schedule in words.
    pub text: String,
}

impl From<&Schedule> for ScheduleView {
    fn from(schedule: &Schedule) -> Self {
        let (cron, timezone) = match schedule {
            Schedule::Cron { expression, zone } => (Some(expression.clone()), Some(zone.name().to_owned())),
            Schedule::Manual | Schedule::Interval { .. } => (None, None),
        };
        Self { kind: schedule.kind().to_string(), cron, timezone, text: schedule.in_words() }
    }
}

/// A flow as lists show it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FlowView {
    /// Flow id.
    pub id: String,
    /// Flow name.
    pub name: String,
    /// healthy, degraded, failing, pending, paused, draft or archived.
    pub status: String,
    /// What people decided: draft, active, paused or archived.
    pub state: String,
    /// Why it is not healthy.
    pub status_reasons: Vec<StatusReason>,
    /// Where records come from.
    pub source: SideView,
    /// Where they go.
    pub destination: SideView,
    /// When it runs.
    pub schedule: ScheduleView,
    /// When it runs next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<DateTime<Utc>>,
    /// Last run that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunBriefView>,
    /// Last run that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<RunBriefView>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The flow in one line.
    pub summary: String,
}

impl FlowView {
    /// `flow` as seen at `now` in `zone`.
    pub fn new(flow: &Flow, now: DateTime<Utc>, zone: Tz) -> Self {
        let mut view = Self {
            id: flow.id.to_string(),
            name: text::named(&flow.name),
            status: flow.status.to_string(),
            state: flow.state.to_string(),
            status_reasons: reasons(flow, zone),
            source: flow.source.clone().into(),
            destination: flow.destination.clone().into(),
            schedule: (&flow.schedule).into(),
            next_run_at: flow.next_run_at,
            last_run: flow.last_run.as_ref().map(Into::into),
            last_success: flow.last_success.as_ref().map(Into::into),
            owner: flow.owner.as_deref().map(text::named),
            tags: flow.tags.iter().map(text::named).collect(),
            summary: String::new(),
        };
        view.summary = view.line(flow.last_decided_at, now, zone);
        view
    }

    /// The flow as one line; `last_decided_at` tells of a last run that is not kept any more.
    fn line(&self, last_decided_at: Option<DateTime<Utc>>, now: DateTime<Utc>, zone: Tz) -> String {
        let last = match (&self.last_run, last_decided_at) {
            (Some(run), _) => format!("last run {}", run.in_words(now, zone)),
            (None, Some(at)) => format!("last run {}, no longer kept", text::moment_and_age(at, now, zone)),
            (None, None) => "no run yet".to_owned(),
        };
        let mut line = format!(
            "{} {} [{}] | {} → {} | {} | {last}",
            self.status.to_uppercase(),
            self.name,
            self.id,
            self.source.in_words(),
            self.destination.in_words(),
            self.schedule.text,
        );
        if !self.status_reasons.is_empty() {
            line.push_str(" | ");
            line.push_str(&reasons_in_words(&self.status_reasons, now, zone));
        }
        line
    }
}

/// Why a flow is not healthy, and why a paused one is paused.
fn reasons(flow: &Flow, zone: Tz) -> Vec<StatusReason> {
    if flow.status == FlowStatus::Paused {
        let by = flow.state_by.as_deref().map(|by| format!(" by {}", text::named(by))).unwrap_or_default();
        let day = flow.state_changed_at.with_timezone(&zone).format("%Y-%m-%d");
        let why =
            flow.state_reason.as_deref().map(|why| format!(" ({})", text::fenced(why))).unwrap_or_default();
        return vec![StatusReason::new(
            "PAUSED",
            format!("paused{by} on {day}{why}"),
            Some(flow.state_changed_at),
        )];
    }
    flow.reasons.clone()
}

/// Reasons as one sentence, with since when.
pub fn reasons_in_words(reasons: &[StatusReason], now: DateTime<Utc>, zone: Tz) -> String {
    let said: Vec<String> = reasons
        .iter()
        .map(|reason| match reason.since {
            Some(since) if reason.code != "PAUSED" => {
                format!("{} since {}", reason.message, text::moment_and_age(since, now, zone))
            }
            _ => reason.message.clone(),
        })
        .collect();
    said.join("; ")
}
