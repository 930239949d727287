//! Answers "is everything all right, and if not, what first?". Needs the scope `health:read`.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::get_flow_error_summary::previous;
use super::list_connectors;
use super::list_flows;
use super::tool::{Access, Answer, Tool};
use super::window::{self, WindowArgs};
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::flow::{FlowStatus, Health};
use crate::domain::run::{Records, RunGrouping};
use crate::domain::scope::Scope;
use crate::domain::window::Window;
use crate::domain::words;
use crate::store::connectors::Connector;
use crate::store::flows::{Flow, FlowFilter};
use crate::store::queue_view::Queue;
use crate::store::run_lists::{RunFilter, RunTotals};
use crate::view::connector::{ConnectorView, NEAR_QUOTA_PERCENT, QuotaView};
use crate::view::flow::{FlowView, reasons_in_words};
use crate::view::run::{TotalsView, records};
use crate::view::text::{self, Page};
use crate::view::window::{WindowView, in_words};

pub(super) struct GetSystemHealth;

/// Failing and degraded flows listed at most, failing ones first; the others are counted. Each costs the caller a
/// kilobyte to read, and `list_flows` shows them all.
const MAX_FLOWS: i64 = 5;

/// Causes told at most; the others are counted.
const MAX_CAUSES: usize = 12;

/// Connectors in trouble, and quotas nearly used up, listed at most; the others are counted.
const MAX_CONNECTORS: usize = 5;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    /// A duration back from now (30m, 24h, 7d, 2w) or today, this_morning, yesterday, this_week, last_week, this_month, last_month. Runs that FINISHED in it, plus active ones.
    #[serde(default = "day")]
    #[schemars(length(max = 40))]
    window: String,
    /// IANA time zone for words such as today and for times shown. Default: the workspace's.
    #[schemars(length(max = 60))]
    timezone: Option<String>,
}

fn day() -> String {
    "24h".to_owned()
}

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

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    as_of: DateTime<Utc>,
    window: WindowView,
    verdict: Verdict,
    headline: String,
    attention: Vec<AttentionView>,
    /// Causes beyond those listed.
    attention_more: usize,
    flows: FlowsView,
    connectors: ConnectorsView,
    queue: QueueView,
    totals: TotalsView,
    runs: RunsView,
    records: RecordsView,
    platform: PlatformView,
    api_quota: ApiQuotaView,
}

/// A cause of trouble (not a symptom), with what to do about it.
#[derive(Serialize, JsonSchema)]
struct AttentionView {
    severity: String,
    kind: String,
    id: String,
    name: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<DateTime<Utc>>,
    next_step: String,
}

#[derive(Serialize, JsonSchema)]
struct FlowsView {
    total: i64,
    #[serde(flatten)]
    counts: list_flows::CountsView,
    failing_list: Vec<FlowView>,
    degraded_list: Vec<FlowView>,
}

#[derive(Serialize, JsonSchema)]
struct ConnectorsView {
    total: usize,
    #[serde(flatten)]
    counts: list_connectors::CountsView,
    attention: Vec<ConnectorView>,
    attention_more: usize,
    near_quota: Vec<NearQuotaView>,
    near_quota_more: usize,
}

#[derive(Serialize, JsonSchema)]
struct NearQuotaView {
    connector_id: String,
    connector: String,
    #[serde(flatten)]
    quota: QuotaView,
}

#[derive(Serialize, JsonSchema)]
struct QueueView {
    queued: i64,
    ready: i64,
    delayed: i64,
    running: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_wait_seconds: Option<i64>,
    capacity: i64,
}

#[derive(Serialize, JsonSchema)]
struct RunsView {
    total: i64,
    succeeded: i64,
    partial: i64,
    failed: i64,
    active: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_failure_rate: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct RecordsView {
    #[serde(flatten)]
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_error_rate: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct PlatformView {
    workers_alive: i64,
    scheduler_lag_seconds: i64,
    poller_lag_seconds: i64,
}

#[derive(Serialize, JsonSchema)]
struct ApiQuotaView {
    requests_today: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    daily_limit: Option<i64>,
    requests_per_minute: i32,
}

impl Tool for GetSystemHealth {
    const NAME: &'static str = "get_system_health";
    const TITLE: &'static str = "System health";
    const DESCRIPTION: &'static str = "One-call health of the workspace: overall verdict, failing and degraded flows with reasons, \
        connectors that need attention or near a limit, queue depth and oldest wait, error rates for the window against the window \
        before, and your own API quota. Use for daily summaries; then drill down with get_run_errors or list_connectors.";
    const ACCESS: Access = Access::Read;
    const SCOPE: Scope = Scope::HealthRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let times = WindowArgs { timezone: input.timezone, ..WindowArgs::default() };
        let asked = window::kept(cx, Some(&input.window), &times)?;
        let filter = FlowFilter { healths: vec![Health::Failing, Health::Degraded], ..FlowFilter::default() };
        let counts = cx.read().flow_counts(&filter).await?;
        let flows = cx.read().flows(&filter, None, MAX_FLOWS).await?;
        let connectors = cx.read().connectors().await?;
        let queue = cx.read().queue().await?;
        let totals = totals(cx, &asked.window, asked.zone).await?;
        let before = self::totals(cx, &previous(&asked.window), asked.zone).await?;
        let failing = counts.failing;
        let overdue_s = counts.overdue_s;
        let unlisted = counts.matching - flows.len() as i64;
        let counts = list_flows::CountsView::from(&counts);

        let facts = Facts {
            failing,
            flows: &flows,
            connectors: &connectors,
            queue: &queue,
            active: counts.in_use() - counts.paused(),
        };
        let (now, zone) = (cx.now(), asked.zone);
        let mut attention = facts.attention(now, zone);
        let verdict = facts.verdict();
        let headline = headline(verdict, &attention, unlisted);
        let attention_more = cut(&mut attention, MAX_CAUSES);
        let in_trouble = connectors.iter().filter(|c| crate::view::connector::needs_attention(c));
        let mut in_trouble: Vec<ConnectorView> = in_trouble.map(Into::into).collect();
        let in_trouble_more = cut(&mut in_trouble, MAX_CONNECTORS);
        let mut near_quota = near_quota(&connectors);
        let near_quota_more = cut(&mut near_quota, MAX_CONNECTORS);
        let place = text::named(&cx.principal.workspace().name);
        let summary = format!("{place} is {verdict}. {headline}");
        let output = Output {
            summary,
            as_of: now,
            window: WindowView::new(&asked.window, zone),
            verdict,
            headline,
            attention,
            attention_more,
            flows: FlowsView {
                total: counts.in_use(),
                counts,
                failing_list: views(&flows, FlowStatus::Failing, now, zone),
                degraded_list: views(&flows, FlowStatus::Degraded, now, zone),
            },
            connectors: ConnectorsView {
                total: connectors.len(),
                counts: list_connectors::CountsView::of(&connectors),
                attention: in_trouble,
                attention_more: in_trouble_more,
                near_quota,
                near_quota_more,
            },
            queue: QueueView {
                queued: queue.queued,
                ready: queue.ready,
                delayed: queue.delayed,
                running: queue.running,
                oldest_wait_seconds: queue.oldest_wait_s.map(|seconds| seconds.max(0)),
                capacity: (i64::from(queue.max_concurrent_runs.unwrap_or(0)) - queue.running).max(0),
            },
            totals: TotalsView::from(&totals),
            runs: RunsView {
                total: totals.runs,
                succeeded: totals.succeeded,
                partial: totals.partial,
                failed: totals.failed,
                active: totals.active,
                failure_rate: totals.failure_rate(),
                previous_failure_rate: before.failure_rate(),
            },
            records: RecordsView {
                records: totals.records(),
                error_rate: totals.records().error_rate(),
                previous_error_rate: before.records().error_rate(),
            },
            platform: PlatformView {
                workers_alive: queue.workers_alive,
                scheduler_lag_seconds: overdue_s.unwrap_or(0).max(0),
                poller_lag_seconds: queue.checker_lag_s.unwrap_or(0).max(0),
            },
            api_quota: ApiQuotaView {
                requests_today: queue.requests_today,
                daily_limit: cx.principal.plan().daily_requests,
                requests_per_minute: cx.principal.plan().requests_per_minute,
            },
        };
        let text = written(&output, &in_words(&asked.window, zone), now, zone, &asked.notices);
        Ok(Answer { text, output })
    }
}

/// Keeps the first `most`; how many went.
fn cut<T>(list: &mut Vec<T>, most: usize) -> usize {
    let more = list.len().saturating_sub(most);
    list.truncate(most);
    more
}

async fn totals(cx: &ToolCx<'_>, window: &Window, zone: Tz) -> Result<RunTotals, ToolError> {
    let filter = RunFilter {
        window: window.clone(),
        flow: None,
        connectors: None,
        status: vec![],
        trigger: vec![],
        zone,
    };
    Ok(cx.read().runs(&filter, RunGrouping::None, 0).await?.totals)
}

fn views(flows: &[Flow], status: FlowStatus, now: DateTime<Utc>, zone: Tz) -> Vec<FlowView> {
    flows.iter().filter(|flow| flow.status == status).map(|flow| FlowView::new(flow, now, zone)).collect()
}

fn near_quota(connectors: &[Connector]) -> Vec<NearQuotaView> {
    let mut near: Vec<NearQuotaView> = connectors
        .iter()
        .flat_map(|connector| connector.quotas.iter().map(move |quota| (connector, quota)))
        .filter(|(_, quota)| quota.percent() >= NEAR_QUOTA_PERCENT)
        .map(|(connector, quota)| NearQuotaView {
            connector_id: connector.id.to_string(),
            connector: text::named(&connector.name),
            quota: quota.into(),
        })
        .collect();
    near.sort_by(|a, b| b.quota.percent.total_cmp(&a.quota.percent));
    near
}

/// What the verdict and the causes are found from.
struct Facts<'a> {
    flows: &'a [Flow],
    connectors: &'a [Connector],
    queue: &'a Queue,
    /// Flows that are failing, listed or not.
    failing: i64,
    /// Flows that are neither paused nor drafts.
    active: i64,
}

impl Facts<'_> {
    fn verdict(&self) -> Verdict {
        let down = self.connectors.iter().any(|c| c.status == ConnectorStatus::Down && !c.flows.is_empty());
        let stuck = self.queue.oldest_wait_s.is_some_and(|seconds| seconds > 15 * 60);
        if down || (self.active > 0 && self.failing * 5 >= self.active) || stuck || self.no_worker() {
            return Verdict::Critical;
        }
        let degraded = self.connectors.iter().any(|c| c.status == ConnectorStatus::Degraded);
        if !self.flows.is_empty() || degraded { Verdict::Degraded } else { Verdict::Healthy }
    }

    fn no_worker(&self) -> bool {
        self.queue.workers_alive == 0 && self.queue.ready > 0
    }

    /// Causes, worst first: three flows that fail because of one connector are one cause.
    fn attention(&self, now: DateTime<Utc>, zone: Tz) -> Vec<AttentionView> {
        let mut causes = Vec::new();
        let down: Vec<&Connector> =
            self.connectors.iter().filter(|c| c.status == ConnectorStatus::Down).collect();
        causes.extend(down.iter().map(|connector| self.connector_down(connector, now, zone)));
        if self.no_worker() {
            causes.push(AttentionView {
                severity: "critical".to_owned(),
                kind: "platform".to_owned(),
                id: "workers".to_owned(),
                name: "workers".to_owned(),
                message: "no worker has reported in the last 2 minutes; queued runs wait".to_owned(),
                since: None,
                next_step: "start a worker (apixx-mcp worker)".to_owned(),
            });
        }
        let by_itself = |flow: &&Flow| {
            !down.iter().any(|c| c.id == flow.source.connector || c.id == flow.destination.connector)
        };
        for flow in self.flows.iter().filter(|flow| flow.status == FlowStatus::Failing).filter(by_itself) {
            causes.push(flow_cause(flow, "critical", now, zone));
        }
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
        // A flow that is degraded only because of a connector named above is that connector's symptom.
        let own = |flow: &&Flow| flow.reasons.iter().any(|reason| reason.code != "CONNECTOR_DEGRADED");
        for flow in self.flows.iter().filter(|flow| flow.status == FlowStatus::Degraded).filter(own) {
            causes.push(flow_cause(flow, "warning", now, zone));
        }
        for connector in self.connectors.iter().filter(|c| c.status == ConnectorStatus::Healthy) {
            causes.extend(quiet_cause(connector, now, zone));
        }
        causes
    }

    fn connector_down(&self, connector: &Connector, now: DateTime<Utc>, zone: Tz) -> AttentionView {
        let name = text::named(&connector.name);
        let hit = connector.flows.iter().filter(|flow| flow.failing).count() as i64;
        let flows = if hit > 0 {
            format!("; {} failing", text::counted(hit, "flow", "flows"))
        } else {
            String::new()
        };
        AttentionView {
            severity: if connector.flows.is_empty() { "warning" } else { "critical" }.to_owned(),
            kind: "connector".to_owned(),
            id: connector.id.to_string(),
            message: format!("{name} is down: {}{flows}", reasons_in_words(&connector.reasons, now, zone)),
            name,
            since: Some(connector.since),
            next_step: if connector.auth_status.is_broken() {
                "reconnect it, then trigger_sync the failing flows".to_owned()
            } else {
                format!("list_connectors query={}", connector.id)
            },
        }
    }
}

fn flow_cause(flow: &Flow, severity: &str, now: DateTime<Utc>, zone: Tz) -> AttentionView {
    let name = text::named(&flow.name);
    let failed = flow.last_run.as_ref().filter(|run| run.records().failed > 0 || run.reason_code.is_some());
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
    let near = connector.quotas.iter().filter(|quota| quota.percent() >= NEAR_QUOTA_PERCENT);
    let near: Vec<String> = near.map(|quota| QuotaView::from(quota).in_words(now, zone)).collect();
    let soon = chrono::TimeDelta::days(7);
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

fn headline(verdict: Verdict, attention: &[AttentionView], unlisted: i64) -> String {
    let serious: Vec<&AttentionView> = attention.iter().filter(|cause| cause.severity != "info").collect();
    match (verdict, serious.as_slice()) {
        (Verdict::Healthy, []) => "Nothing needs attention.".to_owned(),
        (_, []) => "See the flows and the queue below.".to_owned(),
        (_, [one]) => format!("{}.", one.message.trim_end_matches('.')),
        (_, [first, rest @ ..]) => {
            let more = text::counted(rest.len() as i64, "thing more needs", "things more need");
            let unlisted = match unlisted {
                ..1 => String::new(),
                _ => format!(
                    ", and {} not listed",
                    text::counted(unlisted, "flow in trouble is", "flows in trouble are")
                ),
            };
            format!("{}; {more} attention{unlisted}.", first.message.trim_end_matches('.'))
        }
    }
}

fn written(output: &Output, window: &str, now: DateTime<Utc>, zone: Tz, notices: &[String]) -> String {
    let mut page = Page::new(&format!("{} As of {}.", output.summary, text::moment(now, zone)));
    if !output.attention.is_empty() {
        page.line("Attention:");
        for (place, cause) in output.attention.iter().enumerate() {
            let row =
                format!("{} | {} | next: {}", cause.severity.to_uppercase(), cause.message, cause.next_step);
            if !page.row(&row, place) {
                page.line(format!("… {} more", output.attention.len() - place + output.attention_more));
                break;
            }
            if place + 1 == output.attention.len() && output.attention_more > 0 {
                page.line(format!("… {} more", output.attention_more));
            }
        }
    }
    page.line(format!("Flows: {} ({})", output.flows.total, output.flows.counts.in_words()));
    let flows = &output.flows;
    for (word, status, list, all) in [
        ("Failing", FlowStatus::Failing, &flows.failing_list, flows.counts.failing()),
        ("Degraded", FlowStatus::Degraded, &flows.degraded_list, flows.counts.degraded()),
    ] {
        if all > 0 {
            let shown = list.iter().map(|flow| format!("{} [{}]", flow.name, flow.id));
            let more = all - list.len() as i64;
            let more = (more > 0).then(|| format!("{more} more (list_flows status={status})"));
            let names: Vec<String> = shown.chain(more).collect();
            page.line(format!("{word}: {}", names.join("; ")));
        }
    }
    page.line(format!("Connectors: {} ({})", output.connectors.total, output.connectors.counts.in_words()));
    if !output.connectors.near_quota.is_empty() {
        let more = output.connectors.near_quota_more;
        let near: Vec<String> = output
            .connectors
            .near_quota
            .iter()
            .map(|near| format!("{} {}", near.connector, near.quota.in_words(now, zone)))
            .chain((more > 0).then(|| format!("{more} more (list_connectors)")))
            .collect();
        page.line(format!("Near quota: {}", near.join("; ")));
    }
    let wait = output
        .queue
        .oldest_wait_seconds
        .map(|s| format!(", oldest waits {}", text::duration(s * 1000)))
        .unwrap_or_default();
    page.line(format!(
        "Queue: {} ready{wait}, {} delayed, {} running, room for {} more; {} alive",
        output.queue.ready,
        output.queue.delayed,
        output.queue.running,
        output.queue.capacity,
        text::counted(output.platform.workers_alive, "worker", "workers")
    ));
    let runs = &output.runs;
    let against = |now: Option<f64>, before: Option<f64>| {
        let now = now.map_or_else(|| "none decided".to_owned(), text::percent);
        let before = before.map_or_else(|| "none decided".to_owned(), text::percent);
        format!("{now} (span before: {before})")
    };
    page.line(format!(
        "Runs, {window}: {} ({}) | run failure rate {} = {} failed of {} decided",
        text::count(runs.total),
        output.totals.states_in_words(),
        against(runs.failure_rate, runs.previous_failure_rate),
        text::count(runs.failed),
        text::count(runs.succeeded + runs.partial + runs.failed)
    ));
    let counted = &output.records.records;
    page.line(format!(
        "Records: {} read | {} | record error rate {} = {} failed of {} attempted",
        text::count(counted.read),
        records(counted),
        against(output.records.error_rate, output.records.previous_error_rate),
        text::count(counted.failed),
        text::count(counted.written + counted.failed)
    ));
    let quota = &output.api_quota;
    let limit = quota
        .daily_limit
        .map_or_else(|| "no daily limit".to_owned(), |limit| format!("of {} a day", text::count(limit)));
    page.line(format!(
        "Your API quota: {} requests today ({limit}), {} a minute",
        text::count(quota.requests_today),
        quota.requests_per_minute
    ));
    let next: Vec<String> = output
        .attention
        .iter()
        .map(|cause| cause.next_step.clone())
        .filter(|step| step.starts_with("get_") || step.starts_with("list_"))
        .collect();
    page.end(notices, &next)
}
