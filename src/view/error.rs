//! Record errors as they are told. Record data and other systems' messages stand inside the data fence.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::text;
use crate::store::error_lists::{ErrorGroup, ErrorRow, Sample};

/// How much of a single record its reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: the token may not read payloads.
    Nothing,
    /// Its key and what was said of it.
    Messages,
    /// Its payload excerpt too.
    Payloads,
}

/// Errors that have something in common.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorGroupView {
    /// What they have in common: a class, a code, a field, a group's id.
    pub key: String,
    /// Class of most of them.
    pub error_class: String,
    /// The system's own code.
    pub code: String,
    /// Field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Step they failed at.
    pub stage: String,
    /// Whose side they come from.
    pub origin: String,
    /// Message without its particulars, fenced: data from another system.
    pub message: String,
    /// How many, exactly.
    pub count: i64,
    /// Share of all, 0 to 1.
    pub share: f64,
    /// In how many runs.
    pub runs: i64,
    /// Whether trying again can help.
    pub retryable: bool,
    /// Whether it was first seen in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_new: Option<bool>,
    /// First seen.
    pub first_seen_at: DateTime<Utc>,
    /// Last seen.
    pub last_seen_at: DateTime<Utc>,
    /// In which run.
    pub last_run_id: String,
    /// What to do next.
    pub hint: String,
    /// Sample records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampleView>,
}

impl ErrorGroupView {
    /// A group of `all` errors; new when first seen at or after `new_since`; of its samples what is `seen`.
    pub fn new(group: &ErrorGroup, all: i64, new_since: Option<DateTime<Utc>>, seen: Seen) -> Self {
        Self {
            key: text::word(&group.key),
            error_class: group.error_class.to_string(),
            code: text::word(&group.code),
            field: group.field.as_deref().map(text::word),
            stage: group.stage.to_string(),
            origin: group.origin.to_string(),
            message: text::fenced(&group.message),
            count: group.count,
            share: if all == 0 { 0.0 } else { group.count as f64 / all as f64 },
            runs: group.runs,
            retryable: group.error_class.retryable(),
            is_new: new_since.map(|since| group.first_seen_at >= since),
            first_seen_at: group.first_seen_at,
            last_seen_at: group.last_seen_at,
            last_run_id: group.last_run_id.clone(),
            hint: group.error_class.hint().to_owned(),
            samples: match seen {
                Seen::Nothing => Vec::new(),
                Seen::Messages | Seen::Payloads => {
                    group.samples.iter().map(|sample| SampleView::new(sample, seen)).collect()
                }
            },
        }
    }

    /// The group as lines: its figures, then its samples.
    pub fn lines(&self, place: usize) -> String {
        let code = if self.code == self.error_class { String::new() } else { format!("/{}", self.code) };
        let field = self.field.as_deref().map(|field| format!(" | field {field}")).unwrap_or_default();
        let new = if self.is_new == Some(true) { " | NEW in this window" } else { "" };
        let retry = if self.retryable { "a retry can help" } else { "a retry does not help" };
        let runs = if self.runs > 1 { format!(" | {} runs", text::count(self.runs)) } else { String::new() };
        let mut lines = format!(
            "{place} {} {} ({}){field} | {}{code} at {} | {}{runs}, last {}{new} | {retry}. {}",
            self.key,
            text::count(self.count),
            text::percent(self.share),
            self.error_class,
            self.stage,
            self.message,
            self.last_run_id,
            self.hint,
        );
        for sample in &self.samples {
            lines.push_str("\n   sample ");
            lines.push_str(&sample.line());
        }
        lines
    }
}

/// One rejected record.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SampleView {
    /// Error id.
    pub error_id: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// The record's own key, fenced: data from another system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_key: Option<String>,
    /// What was said, fenced: data from another system.
    pub message: String,
    /// Redacted excerpt as JSON text, fenced: data from another system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_excerpt: Option<String>,
    /// Whether something was left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub payload_truncated: bool,
}

impl SampleView {
    fn new(sample: &Sample, seen: Seen) -> Self {
        let payloads = seen == Seen::Payloads;
        Self {
            error_id: sample.error_id.clone(),
            occurred_at: sample.occurred_at,
            record_key: sample.record_key.as_deref().filter(|_| seen != Seen::Nothing).map(text::fenced),
            message: match seen {
                Seen::Nothing => "(hidden: needs scope payloads:read)".to_owned(),
                Seen::Messages | Seen::Payloads => text::fenced(&sample.message),
            },
            payload_excerpt: sample
                .payload
                .as_ref()
                .filter(|_| payloads)
                .map(|payload| text::fenced(&payload.to_string())),
            payload_truncated: sample.truncated && payloads,
        }
    }

    fn line(&self) -> String {
        let key = self.record_key.as_deref().map(|key| format!("{key} ")).unwrap_or_default();
        let payload =
            self.payload_excerpt.as_ref().map(|payload| format!(" payload {payload}")).unwrap_or_default();
        format!("{key}{}{payload}", self.message)
    }
}

/// One rejected record with what went wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorRowView {
    /// Class.
    pub error_class: String,
    /// Code.
    pub code: String,
    /// Step it failed at.
    pub stage: String,
    /// Field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The record.
    #[serde(flatten)]
    pub sample: SampleView,
}

impl ErrorRowView {
    /// `row`, of whose record what is `seen`.
    pub fn new(row: &ErrorRow, seen: Seen) -> Self {
        let sample = Sample {
            error_id: row.error_id.clone(),
            occurred_at: row.occurred_at,
            record_key: row.record_key.clone(),
            message: row.message.clone(),
            payload: row.payload.clone().map(|payload| payload.0.0),
            truncated: row.payload_truncated,
        };
        Self {
            error_class: row.error_class.clone(),
            code: text::word(&row.code),
            stage: row.stage.clone(),
            field: row.field.as_deref().map(text::word),
            sample: SampleView::new(&sample, seen),
        }
    }

    /// The record as one line.
    pub fn line(&self) -> String {
        let field = self.field.as_deref().map(|field| format!(" field {field}")).unwrap_or_default();
        format!(
            "{} | {}/{} at {}{field} | {}",
            self.sample.error_id,
            self.error_class,
            self.code,
            self.stage,
            self.sample.line()
        )
    }
}
