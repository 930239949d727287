//! The health of flows and connectors: pure rules over what was observed.

use chrono::{DateTime, TimeDelta, Utc};

use super::connector::{AuthStatus, ConnectorStatus};
use super::flow::{Health, StatusReason};
use super::run::{ReasonCode, RunStatus};
use super::schedule::Schedule;
use super::untrusted::{fenced, named};

/// Record error rate from which a flow is degraded unless it says otherwise.
pub const DEGRADED_ERROR_RATE: f64 = 0.01;

/// A decided run (succeeded, partial, failed), newest first in [`FlowFacts::decided`].
#[derive(Clone, Debug)]
pub struct Decided {
    /// How it ended.
    pub status: RunStatus,
    /// Why.
    pub reason: Option<ReasonCode>,
    /// The sentence that says why.
    pub message: Option<String>,
    /// When.
    pub finished_at: DateTime<Utc>,
    /// Records that the destination took or had already.
    pub accepted: i64,
    /// Records rejected.
    pub failed: i64,
}

/// What a flow knows of a connector of its.
#[derive(Clone, Debug)]
pub struct ConnectorFacts {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: ConnectorStatus,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Its first reason, in words.
    pub reason: Option<String>,
}

/// What the health of a flow is computed from.
#[derive(Clone, Debug)]
pub struct FlowFacts {
    /// When it runs.
    pub schedule: Schedule,
    /// When it was made (or last resumed, or given its schedule), from which its first run is due.
    pub since: DateTime<Utc>,
    /// When its last decided run ended, which may not be kept any more.
    pub last_decided_at: Option<DateTime<Utc>>,
    /// Up to the last twenty decided runs, newest first.
    pub decided: Vec<Decided>,
    /// Start of the run that is going now.
    pub active_since: Option<DateTime<Utc>>,
    /// Whether a run is queued or going.
    pub has_open_run: bool,
    /// Median duration of the last twenty successful runs, when there are at least five.
    pub median_ms: Option<i64>,
    /// Records that destinations took or had already, and records rejected, in the last 24 hours.
    pub day: (i64, i64),
    /// Source and destination.
    pub connectors: Vec<ConnectorFacts>,
    /// Record error rate from which it is degraded, 0 to 1.
    pub degraded_error_rate: f64,
}

/// The health of a flow at `now`, with its reasons; the first group of rules that holds decides.
pub fn flow_health(facts: &FlowFacts, now: DateTime<Utc>) -> (Health, Vec<StatusReason>) {
    let failing = failing(facts, now);
    if !failing.is_empty() {
        return (Health::Failing, failing);
    }
    let degraded = degraded(facts, now);
    if !degraded.is_empty() {
        return (Health::Degraded, degraded);
    }
    if !facts.decided.is_empty() {
        return (Health::Healthy, Vec::new());
    }
    let reason = match facts.last_decided_at {
        None => StatusReason::new("NEVER_RAN", "it has not run yet", None),
        Some(at) => StatusReason::new("NO_RUN_KEPT", "its last run is older than what is kept", Some(at)),
    };
    (Health::Pending, vec![reason])
}

fn failing(facts: &FlowFacts, now: DateTime<Utc>) -> Vec<StatusReason> {
    let mut reasons = Vec::new();
    if let Some(last) = facts.decided.first().filter(|run| run.status == RunStatus::Failed) {
        let in_a_row = facts.decided.iter().take_while(|run| run.status == RunStatus::Failed).count();
        let since = facts.decided[in_a_row - 1].finished_at;
        let why = match (&last.reason, &last.message) {
            (Some(code), Some(message)) => format!("{code}: {}", fenced(message)),
            (Some(code), None) => code.to_string(),
            (None, Some(message)) => fenced(message),
            (None, None) => "no reason recorded".to_owned(),
        };
        let times = if in_a_row > 1 {
            format!("the last {in_a_row} runs failed")
        } else {
            "the last run failed".into()
        };
        reasons.push(StatusReason::new("LAST_RUN_FAILED", format!("{times} ({why})"), Some(since)));
    }
    for connector in facts.connectors.iter().filter(|c| c.status == ConnectorStatus::Down) {
        let why = connector.reason.as_deref().unwrap_or("it cannot be used");
        let message = format!("{} is down: {why}", named(&connector.name));
        reasons.push(StatusReason::new("CONNECTOR_DOWN", message, Some(connector.since)));
    }
    for connector in facts.connectors.iter().filter(|c| c.status == ConnectorStatus::Disabled) {
        let message = format!("{} is switched off", named(&connector.name));
        reasons.push(StatusReason::new("CONNECTOR_DISABLED", message, Some(connector.since)));
    }
    if let Some((due, _)) = overdue(facts, now).filter(|(due, period)| now > *due + *period * 2) {
        let message = "no run for more than twice its period";
        reasons.push(StatusReason::new("STALLED", message, Some(due)));
    }
    reasons
}

fn degraded(facts: &FlowFacts, now: DateTime<Utc>) -> Vec<StatusReason> {
    let mut reasons = Vec::new();
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let limit = facts.degraded_error_rate;
    if let Some(last) = facts.decided.first().filter(|run| run.status == RunStatus::Partial) {
        let rate = share(last.accepted, last.failed);
        if rate >= limit {
            let message = format!(
                "the last run rejected {} of {} records ({} >= {})",
                last.failed,
                last.accepted + last.failed,
                percent(rate),
                percent(limit)
            );
            reasons.push(StatusReason::new("LAST_RUN_PARTIAL", message, Some(last.finished_at)));
        }
    }
    let week = now - TimeDelta::days(7);
    let recent: Vec<&Decided> = facts.decided.iter().take(10).filter(|run| run.finished_at >= week).collect();
    let failed = recent.iter().filter(|run| run.status == RunStatus::Failed).count();
    let failed_lately =
        facts.decided.iter().take(3).any(|run| run.status == RunStatus::Failed && run.finished_at >= week);
    if failed >= 2 || failed_lately {
        let first =
            recent.iter().rev().find(|run| run.status == RunStatus::Failed).map(|run| run.finished_at);
        let message = format!("{failed} of the last {} runs failed", recent.len());
        reasons.push(StatusReason::new("RECENT_FAILURES", message, first));
    }
    if let Some((due, period)) = overdue(facts, now) {
        let grace = (period / 4).max(TimeDelta::minutes(5));
        if now > due + grace {
            reasons.push(StatusReason::new("LATE", "its scheduled run has not finished", Some(due)));
        }
    }
    if let (Some(started), Some(median)) = (facts.active_since, facts.median_ms) {
        let running = now - started;
        if running > TimeDelta::minutes(5) && running.num_milliseconds() > median.saturating_mul(3) {
            let message = "the current run takes more than three times as long as usual";
            reasons.push(StatusReason::new("SLOW", message, Some(started)));
        }
    }
    let (accepted, rejected) = facts.day;
    if accepted + rejected >= 100 && share(accepted, rejected) >= limit && reasons.is_empty() {
        let message =
            format!("{} of the records of the last 24 h were rejected", percent(share(accepted, rejected)));
        reasons.push(StatusReason::new("ERROR_RATE", message, None));
    }
    for connector in facts.connectors.iter().filter(|c| c.status == ConnectorStatus::Degraded) {
        let why = connector.reason.as_deref().unwrap_or("it has trouble");
        let message = format!("{} is degraded: {why}", named(&connector.name));
        reasons.push(StatusReason::new("CONNECTOR_DEGRADED", message, Some(connector.since)));
    }
    reasons
}

/// The nominal time of the first run after the last decided one, and the period, where it has passed
/// without an open run.
fn overdue(facts: &FlowFacts, now: DateTime<Utc>) -> Option<(DateTime<Utc>, TimeDelta)> {
    if facts.has_open_run {
        return None;
    }
    let decided_at = facts.decided.first().map(|run| run.finished_at).or(facts.last_decided_at);
    let after = decided_at.map_or(facts.since, |at| at.max(facts.since));
    let due = facts.schedule.next_after(after)?;
    (now > due).then_some((due, facts.schedule.period(after)?))
}

fn share(accepted: i64, failed: i64) -> f64 {
    if accepted + failed == 0 { 0.0 } else { failed as f64 / (accepted + failed) as f64 }
}

/// What the status of a connector is computed from.
#[derive(Clone, Debug)]
pub struct ConnectorCheck {
    /// Its authorization.
    pub auth_status: AuthStatus,
    /// What the other side said about the authorization.
    pub auth_error: Option<String>,
    /// Failed checks in a row.
    pub consecutive_failures: i32,
    /// What the last check said when it failed.
    pub last_error: Option<String>,
    /// Quotas: name, used, limit.
    pub quotas: Vec<(String, i64, i64)>,
    /// Throttled answers in the last hour.
    pub throttled_1h: i32,
}

/// Quota use, in percent, from which a connector is degraded; from 80 it is listed as near its quota.
pub const QUOTA_DEGRADED_PERCENT: f64 = 90.0;

/// The status of a connector that was just checked, with its reasons in words (their `since` is the caller's to keep).
pub fn connector_status(check: &ConnectorCheck) -> (ConnectorStatus, Vec<StatusReason>) {
    let reason = |code: &str, message: String| StatusReason::new(code, message, None);
    if check.auth_status.is_broken() {
        let detail =
            check.auth_error.as_deref().map(|error| format!(" ({})", fenced(error))).unwrap_or_default();
        let code = format!("AUTH_{}", check.auth_status.as_str().to_uppercase());
        return (
            ConnectorStatus::Down,
            vec![reason(&code, format!("authorization {}{detail}", check.auth_status))],
        );
    }
    let error = check.last_error.as_deref().map_or_else(|| "no answer".to_owned(), fenced);
    if check.consecutive_failures >= 3 {
        let message = format!("{} checks in a row failed: {error}", check.consecutive_failures);
        return (ConnectorStatus::Down, vec![reason("UNREACHABLE", message)]);
    }
    let mut reasons = Vec::new();
    if check.consecutive_failures > 0 {
        reasons.push(reason("POLL_FAILED", format!("the last check failed: {error}")));
    }
    if check.auth_status == AuthStatus::ExpiringSoon {
        reasons.push(reason("AUTH_EXPIRING", "the authorization expires within 72 hours".to_owned()));
    }
    for (name, used, limit) in &check.quotas {
        let percent = *used as f64 * 100.0 / (*limit).max(1) as f64;
        if percent >= QUOTA_DEGRADED_PERCENT {
            reasons.push(reason("QUOTA_HIGH", format!("{} at {percent:.1} %", named(name))));
        }
    }
    if check.throttled_1h >= 5 {
        reasons.push(reason("THROTTLED", format!("throttled {} times in the last hour", check.throttled_1h)));
    }
    if reasons.is_empty() {
        (ConnectorStatus::Healthy, reasons)
    } else {
        (ConnectorStatus::Degraded, reasons)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-21T08:07:00Z".parse().unwrap()
    }

    fn run(status: RunStatus, minutes_ago: i64, accepted: i64, failed: i64) -> Decided {
        Decided {
            status,
            reason: (status == RunStatus::Failed).then_some(ReasonCode::AuthExpired),
            message: None,
            finished_at: now() - TimeDelta::minutes(minutes_ago),
            accepted,
            failed,
        }
    }

    fn facts(decided: Vec<Decided>) -> FlowFacts {
        FlowFacts {
            schedule: Schedule::Interval { seconds: 3600 },
            since: now() - TimeDelta::days(30),
            last_decided_at: None,
            decided,
            active_since: None,
            has_open_run: false,
            median_ms: Some(60_000),
            day: (0, 0),
            connectors: vec![],
            degraded_error_rate: DEGRADED_ERROR_RATE,
        }
    }

    fn codes(facts: &FlowFacts) -> (Health, Vec<String>) {
        let (health, reasons) = flow_health(facts, now());
        (health, reasons.into_iter().map(|reason| reason.code).collect())
    }

    fn said(health: Health, codes: &[&str]) -> (Health, Vec<String>) {
        (health, codes.iter().map(|code| (*code).to_owned()).collect())
    }

    #[test]
    fn the_last_run_decides_first() {
        use RunStatus::{Failed, Partial, Succeeded};
        assert_eq!(codes(&facts(vec![run(Succeeded, 7, 10, 0)])), said(Health::Healthy, &[]));
        assert_eq!(
            codes(&facts(vec![run(Failed, 7, 0, 0), run(Succeeded, 67, 10, 0)])),
            said(Health::Failing, &["LAST_RUN_FAILED"])
        );
        assert_eq!(
            codes(&facts(vec![run(Partial, 7, 97, 3)])),
            said(Health::Degraded, &["LAST_RUN_PARTIAL"])
        );
        assert_eq!(codes(&facts(vec![run(Partial, 7, 9999, 1)])), said(Health::Healthy, &[]));
        assert_eq!(
            codes(&facts(vec![run(Succeeded, 7, 1, 0), run(Failed, 67, 0, 0)])),
            said(Health::Degraded, &["RECENT_FAILURES"])
        );
    }

    #[test]
    fn a_flow_that_does_not_run_is_late_then_stalled() {
        use RunStatus::Succeeded;
        let mut late = facts(vec![run(Succeeded, 85, 10, 0)]);
        late.since = now() - TimeDelta::days(1);
        // Finished at 06:42, due at 07:00, now 08:07: late by 67 minutes of a 60-minute period.
        assert_eq!(codes(&late), said(Health::Degraded, &["LATE"]));
        assert_eq!(codes(&facts(vec![run(Succeeded, 240, 10, 0)])), said(Health::Failing, &["STALLED"]));
        let mut open = facts(vec![run(Succeeded, 240, 10, 0)]);
        open.has_open_run = true;
        assert_eq!(codes(&open), said(Health::Healthy, &[]));
        let mut manual = facts(vec![run(Succeeded, 240, 10, 0)]);
        manual.schedule = Schedule::Manual;
        assert_eq!(codes(&manual), said(Health::Healthy, &[]));
        manual.decided.clear();
        assert_eq!(codes(&manual), said(Health::Pending, &["NEVER_RAN"]));
        // A run that is not kept any more was a run.
        let mut seldom = facts(vec![]);
        seldom.schedule = Schedule::Interval { seconds: 400 * 86_400 };
        (seldom.since, seldom.last_decided_at) =
            (now() - TimeDelta::days(200), Some(now() - TimeDelta::days(35)));
        assert_eq!(codes(&seldom), said(Health::Pending, &["NO_RUN_KEPT"]));
    }

    #[test]
    fn connectors_pull_their_flows_down() {
        let mut flow = facts(vec![run(RunStatus::Succeeded, 7, 10, 0)]);
        flow.connectors = vec![ConnectorFacts {
            name: "Shop".into(),
            status: ConnectorStatus::Degraded,
            since: now(),
            reason: None,
        }];
        assert_eq!(codes(&flow), said(Health::Degraded, &["CONNECTOR_DEGRADED"]));
        flow.connectors[0].status = ConnectorStatus::Down;
        assert_eq!(codes(&flow), said(Health::Failing, &["CONNECTOR_DOWN"]));
        flow.connectors[0].status = ConnectorStatus::Disabled;
        assert_eq!(codes(&flow), said(Health::Failing, &["CONNECTOR_DISABLED"]));
    }

    #[test]
    fn connectors_are_judged_by_their_checks() {
        let check = ConnectorCheck {
            auth_status: AuthStatus::Valid,
            auth_error: None,
            consecutive_failures: 0,
            last_error: None,
            quotas: vec![("daily".into(), 87, 100)],
            throttled_1h: 0,
        };
        let status = |check: &ConnectorCheck| connector_status(check).0;
        assert_eq!(status(&check), ConnectorStatus::Healthy);
        assert_eq!(
            status(&ConnectorCheck { quotas: vec![("daily".into(), 90, 100)], ..check.clone() }),
            ConnectorStatus::Degraded
        );
        assert_eq!(
            status(&ConnectorCheck { consecutive_failures: 1, ..check.clone() }),
            ConnectorStatus::Degraded
        );
        assert_eq!(
            status(&ConnectorCheck { consecutive_failures: 3, ..check.clone() }),
            ConnectorStatus::Down
        );
        assert_eq!(
            status(&ConnectorCheck { auth_status: AuthStatus::Revoked, ..check }),
            ConnectorStatus::Down
        );
    }
}
