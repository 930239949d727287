//! Connectors as they are told.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use super::flow::reasons_in_words;
use super::text;
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::flow::StatusReason;
use crate::store::connectors::{Connector, Quota};

/// Quota use, in percent, from which a connector is near its quota.
pub const NEAR_QUOTA_PERCENT: f64 = 80.0;

/// Names of dependent flows that are told at most; `list_flows` tells them all.
const MAX_NAMES: usize = 10;

/// A connector with its health.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConnectorView {
    /// Connector id.
    pub id: String,
    /// Connector name.
    pub name: String,
    /// What sort of system it is.
    pub r#type: String,
    /// Service behind it.
    pub service: String,
    /// healthy, degraded, down, unknown or disabled.
    pub status: String,
    /// Why it is not healthy.
    pub status_reasons: Vec<StatusReason>,
    /// Its authorization.
    pub auth: AuthView,
    /// What it has used of what it may use.
    pub quotas: Vec<QuotaView>,
    /// Its last check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_poll: Option<PollView>,
    /// When a run last used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_activity_at: Option<DateTime<Utc>>,
    /// The active flows that depend on it.
    pub flows: DependentsView,
    /// Tools of a remote MCP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<ToolsView>,
}

/// An authorization.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuthView {
    /// How we authorise ourselves.
    pub r#type: String,
    /// valid, expiring_soon, expired, revoked, invalid, missing, not_required or unknown.
    pub status: String,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<DateTime<Utc>>,
    /// What the other side said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A quota.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct QuotaView {
    /// Which allowance.
    pub name: String,
    /// What is counted.
    pub unit: String,
    /// Used so far.
    pub used: i64,
    /// Allowed.
    pub limit: i64,
    /// used / limit, in percent with one decimal.
    pub percent: f64,
    /// When counting starts anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<DateTime<Utc>>,
    /// Throttled answers in the last hour.
    pub throttled_last_hour: i32,
    /// When this was observed.
    pub observed_at: DateTime<Utc>,
}

impl From<&Quota> for QuotaView {
    fn from(quota: &Quota) -> Self {
        Self {
            name: text::named(&quota.name),
            unit: text::named(&quota.unit),
            used: quota.used,
            limit: quota.limit,
            percent: (quota.percent() * 10.0).round() / 10.0,
            resets_at: quota.resets_at,
            throttled_last_hour: quota.throttled_1h,
            observed_at: quota.observed_at,
        }
    }
}

/// A check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PollView {
    /// When.
    pub at: DateTime<Utc>,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<i32>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The active flows that depend on a connector.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DependentsView {
    /// How many.
    pub total: usize,
    /// Of these, failing.
    pub failing: usize,
    /// The first ten names.
    pub names: Vec<String>,
}

/// Tools of a remote MCP server.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ToolsView {
    /// How many.
    pub total: usize,
    /// Of these, enabled.
    pub enabled: usize,
}

impl From<&Connector> for ConnectorView {
    fn from(connector: &Connector) -> Self {
        let flows = &connector.flows;
        let tools = &connector.tools;
        Self {
            id: connector.id.to_string(),
            name: text::named(&connector.name),
            r#type: connector.r#type.to_string(),
            service: text::named(&connector.service),
            status: connector.status.to_string(),
            status_reasons: connector.reasons.clone(),
            auth: AuthView {
                r#type: connector.auth_type.to_string(),
                status: connector.auth_status.to_string(),
                expires_at: connector.auth_expires_at,
                checked_at: connector.auth_checked_at,
                error: connector.auth_error.as_deref().map(text::fenced),
            },
            quotas: connector.quotas.iter().map(Into::into).collect(),
            last_poll: connector.last_check_at.map(|at| PollView {
                at,
                ok: connector.last_check_ok.unwrap_or(false),
                latency_ms: connector.last_check_ms,
                error: connector.last_check_error.as_deref().map(text::fenced),
            }),
            last_activity_at: connector.last_activity_at,
            flows: DependentsView {
                total: flows.len(),
                failing: flows.iter().filter(|flow| flow.failing).count(),
                names: flows.iter().take(MAX_NAMES).map(|flow| text::named(&flow.name)).collect(),
            },
            tools: (!tools.is_empty()).then(|| ToolsView {
                total: tools.len(),
                enabled: tools.iter().filter(|tool| tool.enabled).count(),
            }),
        }
    }
}

impl ConnectorView {
    /// The connector as one line.
    pub fn line(&self, now: DateTime<Utc>, zone: Tz) -> String {
        let mut parts = vec![
            format!(
                "{} {} [{}] {}/{}",
                self.status.to_uppercase(),
                self.name,
                self.id,
                self.r#type,
                self.service
            ),
            self.auth_in_words(now, zone),
        ];
        parts.extend(self.quotas.iter().map(|quota| quota.in_words(now, zone)));
        if let Some(poll) = &self.last_poll {
            let how = match (poll.ok, &poll.error) {
                (true, _) => "ok".to_owned(),
                (false, Some(error)) => format!("failed: {error}"),
                (false, None) => "failed".to_owned(),
            };
            let took = poll.latency_ms.map(|ms| format!(" in {ms} ms")).unwrap_or_default();
            parts.push(format!("last poll {} {how}{took}", text::moment_and_age(poll.at, now, zone)));
        }
        parts.push(match (self.flows.total, self.flows.failing) {
            (0, _) => "no active flows".to_owned(),
            (total, 0) => text::counted(total as i64, "flow", "flows"),
            (total, failing) if total == failing => {
                format!("{}, all failing", text::counted(total as i64, "flow", "flows"))
            }
            (total, failing) => {
                format!("{}, {failing} failing", text::counted(total as i64, "flow", "flows"))
            }
        });
        if let Some(tools) = &self.tools {
            let total = text::counted(tools.total as i64, "tool", "tools");
            parts.push(format!("{total}, {} enabled", tools.enabled));
        }
        if !self.status_reasons.is_empty() {
            parts.push(reasons_in_words(&self.status_reasons, now, zone));
        }
        parts.join(" | ")
    }

    fn auth_in_words(&self, now: DateTime<Utc>, zone: Tz) -> String {
        let mut words = format!("auth {}", self.auth.status.replace('_', " "));
        if let Some(error) = &self.auth.error {
            words.push_str(&format!(" ({error})"));
        }
        if let Some(expires) = self.auth.expires_at {
            words.push_str(&format!(", expires {}", text::moment_and_age(expires, now, zone)));
        }
        words
    }
}

impl QuotaView {
    /// `daily_api_requests 87,412 / 100,000 (87.4 %), resets …`.
    pub fn in_words(&self, now: DateTime<Utc>, zone: Tz) -> String {
        let mut words = format!(
            "{} {} / {} ({:.1} %)",
            self.name,
            text::count(self.used),
            text::count(self.limit),
            self.percent
        );
        if let Some(resets) = self.resets_at {
            words.push_str(&format!(", resets {}", text::moment_and_age(resets, now, zone)));
        }
        if self.throttled_last_hour > 0 {
            let times = text::counted(self.throttled_last_hour.into(), "time", "times");
            words.push_str(&format!(", throttled {times} in the last hour"));
        }
        words
    }
}

/// Whether something is wrong with a connector that people should look at.
pub fn needs_attention(connector: &Connector) -> bool {
    matches!(connector.status, ConnectorStatus::Down | ConnectorStatus::Degraded)
        || (connector.status != ConnectorStatus::Disabled
            && connector.auth_status == AuthStatus::ExpiringSoon)
}
