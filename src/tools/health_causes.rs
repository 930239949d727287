//! How a workspace is as a whole, and the causes of what is wrong with it, worst first.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::flow::FlowStatus;
use crate::domain::run::RunStatus;
use crate::domain::words;
use crate::store::connectors::Connector;
use crate::store::flow_troubles::TroubledFlow;
use crate::store::queue_view::Queue;
use crate::view::connector::{NEAR_QUOTA_PERCENT, QuotaView};
use crate::view::flow::reasons_in_words;
use crate::view::text;

/// A run that may start waits this long at most before the workspace counts as standing still, in seconds.
const MOST_WAIT_S: i64 = 15 * 60;

/// What is due is looked after within seconds; when it waits longer than this, in seconds, nobody looks after it.
const MOST_LAG_S: i64 = 5 * 60;

words! {
    /// How the workspace is as a whole.
    Verdict {
        /// Something stands still.
        Critical = "critical",
        /// Something has trouble.
        Degraded = "degraded",
        /// Nothing to say.
        Healthy = "healthy",
    }
}
/// A cause of trouble (not a symptom), with what to do about it.
#[derive(Serialize, JsonSchema)]
pub(super) struct AttentionView {
    pub(super) severity: String,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) next_step: String,
}
/// What the verdict and the causes are found from.
pub(super) struct Facts<'a> {
    /// Flows in trouble for reasons of their own, worst first, as many as are told at most.
    pub(super) flows: &'a [TroubledFlow],
    pub(super) connectors: &'a [Connector],
    pub(super) queue: &'a Queue,
    /// How long the flow whose schedule is due the longest has waited for its run, in seconds.
    pub(super) overdue_s: Option<i64>,
    /// Flows that are failing.
    pub(super) failing: i64,
    /// Flows that are failing or degraded.
    pub(super) in_trouble: i64,
    /// Flows that are neither paused nor drafts.
    pub(super) active: i64,
}

impl Facts<'_> {
    pub(super) fn verdict(&self) -> Verdict {
        let down = down(self.connectors).any(|connector| !connector.flows.is_empty());
        let many = self.active > 0 && self.failing * 5 >= self.active;
        let still = self.no_worker() || self.stuck_for().is_some() || lag(self.overdue_s).is_some();
        if down || many || still {
            return Verdict::Critical;
        }
        let troubled = [ConnectorStatus::Down, ConnectorStatus::Degraded];
        let degraded = self.connectors.iter().any(|connector| troubled.contains(&connector.status));
        let unchecked = lag(self.queue.checker_lag_s).is_some();
        if self.in_trouble > 0 || degraded || unchecked { Verdict::Degraded } else { Verdict::Healthy }
    }

    /// Whether nothing happens by itself any more. Workers follow the schedules, so that nothing need wait for one.
    fn no_worker(&self) -> bool {
        self.queue.workers_alive == 0
    }

    /// For how many seconds the queue has stood still: a run that may start was not taken.
    fn stuck_for(&self) -> Option<i64> {
        self.queue.oldest_wait_s.filter(|seconds| *seconds > MOST_WAIT_S)
    }

    /// Causes, worst first: three flows that fail because of one connector are one cause.
    pub(super) fn attention(&self, now: DateTime<Utc>, zone: Tz) -> Vec<AttentionView> {
        let mut causes = Vec::new();
        causes.extend(down(self.connectors).map(|connector| self.connector_down(connector, now, zone)));
        if self.no_worker() {
            let message = "no worker has reported in the last 2 minutes; no run starts, no schedule is followed, no \
                           connector is checked";
            let next_step = "start a worker (apixx-mcp worker)";
            causes.push(platform("critical", "workers", message.to_owned(), None, next_step));
        } else {
            causes.extend(self.stuck_for().map(|seconds| self.queue_stuck(seconds, now)));
            causes.extend(lag(self.overdue_s).map(|seconds| {
                let message = format!(
                    "a schedule is {} late: runs do not start on time",
                    text::duration(seconds * 1000)
                );
                platform("critical", "scheduler", message, Some(now - TimeDelta::seconds(seconds)), LOOK)
            }));
        }
        let flows = |status, severity| {
            let flows = self.flows.iter().filter(move |flow| flow.status == status);
            flows.map(move |flow| flow_cause(flow, severity, now, zone))
        };
        causes.extend(flows(FlowStatus::Failing, "critical"));
        let connectors = self.connectors.iter().filter(|c| c.status == ConnectorStatus::Degraded);
        for connector in connectors {
            causes.push(AttentionView {
                severity: "warning".to_owned(),
                kind: "connector".to_owned(),
                id: connector.id.to_string(),
                name: text::named(&connector.name),
                message: format!(
                    "{} is degraded: {}",
                    text::named(&connector.name),
                    reasons_in_words(&connector.reasons, now, zone)
                ),
                since: Some(connector.since),
                next_step: format!("list_connectors query={}", connector.id),
            });
        }
        causes.extend(lag(self.queue.checker_lag_s).filter(|_| !self.no_worker()).map(|seconds| {
            let message = format!("a connector's check is {} late", text::duration(seconds * 1000));
            platform("warning", "checks", message, Some(now - TimeDelta::seconds(seconds)), LOOK)
        }));
        causes.extend(flows(FlowStatus::Degraded, "warning"));
        for connector in self.connectors.iter().filter(|c| c.status == ConnectorStatus::Healthy) {
            causes.extend(quiet_cause(connector, now, zone));
        }
        causes
    }

    fn queue_stuck(&self, seconds: i64, now: DateTime<Utc>) -> AttentionView {
        let full = self.queue.max_concurrent_runs.is_some_and(|most| self.queue.running >= i64::from(most));
        let (why, next_step) = if full {
            ("; as many run as the plan lets run at once", "list_runs status=running")
        } else {
            ("", "start another worker (apixx-mcp worker)")
        };
        let message = format!(
            "{} ready to start, the oldest for {}{why}",
            text::counted(self.queue.ready, "run is", "runs are"),
            text::duration(seconds * 1000)
        );
        platform("critical", "queue", message, Some(now - TimeDelta::seconds(seconds)), next_step)
    }

    fn connector_down(&self, connector: &Connector, now: DateTime<Utc>, zone: Tz) -> AttentionView {
        let name = text::named(&connector.name);
        let hit = connector.flows.iter().filter(|flow| flow.failing).count() as i64;
        let flows = if hit > 0 {
            format!("; {} failing", text::counted(hit, "flow", "flows"))
        } else {
            String::new()
        };
        let off = connector.status == ConnectorStatus::Disabled;
        let how = match off {
            true => "switched off".to_owned(),
            false => format!("down: {}", reasons_in_words(&connector.reasons, now, zone)),
        };
        AttentionView {
            severity: if connector.flows.is_empty() { "warning" } else { "critical" }.to_owned(),
            kind: "connector".to_owned(),
            id: connector.id.to_string(),
            message: format!("{name} is {how}{flows}"),
            name,
            since: Some(connector.since),
            next_step: if off {
                "switch it on, or pause its flows".to_owned()
            } else if connector.auth_status.is_broken() {
                "reconnect it, then trigger_sync the failing flows".to_owned()
            } else {
                format!("list_connectors query={}", connector.id)
            },
        }
    }
}

/// What to do about a part of the workers that does not do its work.
const LOOK: &str = "read the workers' log for what holds them up, or start another one (apixx-mcp worker)";

/// A cause that is the platform's own: the part of it that stands still.
fn platform(
    severity: &str,
    part: &str,
    message: String,
    since: Option<DateTime<Utc>>,
    next_step: &str,
) -> AttentionView {
    AttentionView {
        severity: severity.to_owned(),
        kind: "platform".to_owned(),
        id: part.to_owned(),
        name: part.to_owned(),
        message,
        since,
        next_step: next_step.to_owned(),
    }
}

/// For how many seconds what is due has waited, where that is too long.
fn lag(seconds: Option<i64>) -> Option<i64> {
    seconds.filter(|seconds| *seconds > MOST_LAG_S)
}

/// The connectors that are down, or switched off though active flows need them: each a cause of what fails of its flows.
pub(super) fn down(connectors: &[Connector]) -> impl Iterator<Item = &Connector> {
    connectors.iter().filter(|connector| match connector.status {
        ConnectorStatus::Down => true,
        ConnectorStatus::Disabled => !connector.flows.is_empty(),
        _ => false,
    })
}

fn flow_cause(flow: &TroubledFlow, severity: &str, now: DateTime<Utc>, zone: Tz) -> AttentionView {
    let name = text::named(&flow.name);
    let failed =
        flow.last_run.as_ref().filter(|run| run.records().failed > 0 || run.status == RunStatus::Failed);
    AttentionView {
        severity: severity.to_owned(),
        kind: "flow".to_owned(),
        id: flow.id.to_string(),
        message: format!("{name} is {}: {}", flow.status, reasons_in_words(&flow.reasons, now, zone)),
        since: flow.reasons.first().and_then(|reason| reason.since),
        next_step: match failed {
            Some(run) => format!("get_run_errors run_id={}", run.run_id),
            None => format!("list_flow_runs flow={}", flow.id),
        },
        name,
    }
}

/// What is worth a word of a healthy connector: a quota nearly used up, an authorization about to end.
fn quiet_cause(connector: &Connector, now: DateTime<Utc>, zone: Tz) -> Option<AttentionView> {
    let name = text::named(&connector.name);
    let near = connector.quotas_at(now).filter(|quota| quota.percent() >= NEAR_QUOTA_PERCENT);
    let near: Vec<String> = near.map(|quota| QuotaView::from(quota).in_words(now, zone)).collect();
    let soon = TimeDelta::days(7);
    let expires = connector
        .auth_expires_at
        .filter(|at| *at - now < soon && connector.auth_status != AuthStatus::NotRequired);
    let message = match (near.is_empty(), expires) {
        (true, None) => return None,
        (false, None) => format!("{name} is near its quota: {}", near.join(", ")),
        (true, Some(at)) => format!("{name} authorization expires {}", text::moment_and_age(at, now, zone)),
        (false, Some(at)) => {
            format!(
                "{name} is near its quota: {}; its authorization expires {}",
                near.join(", "),
                text::moment_and_age(at, now, zone)
            )
        }
    };
    Some(AttentionView {
        severity: "info".to_owned(),
        kind: "connector".to_owned(),
        id: connector.id.to_string(),
        name,
        message,
        since: None,
        next_step: format!("list_connectors query={}", connector.id),
    })
}

/// The worst of all in a sentence, with how much more there is: causes, of which `more` are not in `attention`, and flows
/// in trouble that no list shows.
pub(super) fn headline(verdict: Verdict, attention: &[AttentionView], more: i64, unlisted: i64) -> String {
    let mut serious = attention.iter().filter(|cause| cause.severity != "info");
    let Some(first) = serious.next() else {
        return match verdict {
            Verdict::Healthy => "Nothing needs attention.".to_owned(),
            _ => "See the flows and the queue below.".to_owned(),
        };
    };
    let more = match serious.count() as i64 + more {
        0 => String::new(),
        more => format!("; {} attention", text::counted(more, "thing more needs", "things more need")),
    };
    let unlisted = match unlisted {
        ..1 => String::new(),
        _ => {
            format!(
                ", and {} not listed",
                text::counted(unlisted, "flow in trouble is", "flows in trouble are")
            )
        }
    };
    format!("{}{more}{unlisted}.", first.message.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_looks_for_errors_is_sent_where_some_are() {
        let next = |status: &str, failed: i64| {
            let run = json!({
                "run_id": "run_1", "status": status, "started_at": null, "finished_at": null, "reason_code": "WHY",
                "records_read": failed, "records_written": 0, "records_failed": failed, "records_skipped": 0,
                "records_unchanged": 0
            });
            let flow = json!({ "id": "flow_1", "name": "Orders", "status": "failing", "reasons": [], "last_run": run });
            let flow: TroubledFlow = serde_json::from_value(flow).unwrap();
            flow_cause(&flow, "critical", DateTime::UNIX_EPOCH, Tz::UTC).next_step
        };
        assert_eq!(next("failed", 0), "get_run_errors run_id=run_1");
        assert_eq!(next("partial", 3), "get_run_errors run_id=run_1");
        assert_eq!(next("cancelled", 2), "get_run_errors run_id=run_1");
        assert_eq!(next("cancelled", 0), "list_flow_runs flow=flow_1");
        assert_eq!(next("skipped", 0), "list_flow_runs flow=flow_1");
    }
}
