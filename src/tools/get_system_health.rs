//! Answers "is everything all right, and if not, what first?". Needs the scope `health:read`.

use chrono::{DateTime, Days, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::health_causes::{AttentionView, Facts, Verdict, down, headline};
use super::list_connectors;
use super::list_flows;
use super::tool::{Answer, Tool};
use super::window::{self, Asked, WindowArgs};
use crate::domain::flow::{FlowStatus, Health};
use crate::domain::ids::ConnectorId;
use crate::domain::run::Records;
use crate::domain::scope::Scope;
use crate::domain::window::midnight;
use crate::store::connectors::Connector;
use crate::store::flows::{Flow, FlowFilter};
use crate::view::connector::{ConnectorView, NEAR_QUOTA_PERCENT, QuotaView};
use crate::view::flow::FlowView;
use crate::view::run::{TotalsView, records};
use crate::view::text::{self, Page};
use crate::view::window::{WindowView, before_in_words, in_words};

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
    /// When the count of the day starts anew, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<DateTime<Utc>>,
    requests_per_minute: i32,
}

impl Tool for GetSystemHealth {
    const NAME: &'static str = "get_system_health";
    const TITLE: &'static str = "System health";
    const DESCRIPTION: &'static str = "One-call health of the workspace: overall verdict, failing and degraded flows with reasons, \
        connectors that need attention or near a limit, queue depth and oldest wait, error rates for the window against the window \
        before, and your own API quota. Use for daily summaries; then drill down with get_run_errors or list_connectors.";
    const SCOPE: Scope = Scope::HealthRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let times = WindowArgs { timezone: input.timezone, ..WindowArgs::default() };
        let asked = window::kept(cx, Some(&input.window), &times)?;
        let filter = FlowFilter { healths: vec![Health::Failing, Health::Degraded], ..FlowFilter::default() };
        let flows = cx.read().flows(&filter, None, MAX_FLOWS).await?;
        let connectors = cx.read().connectors().await?;
        let down: Vec<&ConnectorId> = down(&connectors).map(|connector| &connector.id).collect();
        let troubles = cx.read().flow_troubles(&down, MAX_CAUSES as i64).await?;
        let queue = cx.read().queue().await?;
        let totals = cx.totals(None, &asked.window, asked.zone).await?;
        let before = cx.totals(None, &asked.window.before(asked.zone), asked.zone).await?;
        let overdue_s = troubles.counts.overdue_s;
        let unlisted = troubles.counts.matching - flows.len() as i64;
        let untold = troubles.own - troubles.worst.len() as i64;
        let counts = list_flows::CountsView::from(&troubles.counts);

        let facts = Facts {
            flows: &troubles.worst,
            connectors: &connectors,
            queue: &queue,
            overdue_s,
            failing: troubles.counts.failing,
            in_trouble: troubles.counts.matching,
            active: counts.in_use() - counts.paused,
        };
        let (now, zone) = (cx.now(), asked.zone);
        let tomorrow = now.date_naive() + Days::new(1);
        let mut attention = facts.attention(now, zone);
        let verdict = facts.verdict();
        let headline = headline(verdict, &attention, untold, unlisted);
        let attention_more = cut(&mut attention, MAX_CAUSES) + usize::try_from(untold).unwrap_or(0);
        let in_trouble = connectors.iter().filter(|c| crate::view::connector::needs_attention(c));
        let mut in_trouble: Vec<ConnectorView> = in_trouble.map(Into::into).collect();
        let in_trouble_more = cut(&mut in_trouble, MAX_CONNECTORS);
        let mut near_quota = near_quota(&connectors, now);
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
                resets_at: cx.principal.plan().daily_requests.map(|_| midnight(tomorrow, Tz::UTC)),
                requests_per_minute: cx.principal.plan().requests_per_minute,
            },
        };
        let page = written(&output, &asked, now);
        let next = output.attention.iter().map(|cause| cause.next_step.clone()).collect();
        Ok(Answer { page, output, notices: asked.notices, next })
    }
}

/// Keeps the first `most`; how many went.
fn cut<T>(list: &mut Vec<T>, most: usize) -> usize {
    let more = list.len().saturating_sub(most);
    list.truncate(most);
    more
}

fn views(flows: &[Flow], status: FlowStatus, now: DateTime<Utc>, zone: Tz) -> Vec<FlowView> {
    flows.iter().filter(|flow| flow.status == status).map(|flow| FlowView::new(flow, now, zone)).collect()
}

fn near_quota(connectors: &[Connector], now: DateTime<Utc>) -> Vec<NearQuotaView> {
    let mut near: Vec<NearQuotaView> = connectors
        .iter()
        .flat_map(|connector| connector.quotas_at(now).map(move |quota| (connector, quota)))
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

fn written(output: &Output, asked: &Asked, now: DateTime<Utc>) -> Page {
    let zone = asked.zone;
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
        ("Failing", FlowStatus::Failing, &flows.failing_list, flows.counts.failing),
        ("Degraded", FlowStatus::Degraded, &flows.degraded_list, flows.counts.degraded),
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
        format!("{now} ({}: {before})", before_in_words(&asked.window))
    };
    let window = in_words(&asked.window, zone);
    let states = match runs.total {
        0 => "none".to_owned(),
        all => format!("{} ({})", text::count(all), output.totals.states_in_words()),
    };
    page.line(format!(
        "Runs, {window}: {states} | run failure rate {} = {} failed of {} decided",
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
        text::count(counted.attempted())
    ));
    let quota = &output.api_quota;
    let resets = quota.resets_at.map(|at| format!(", resets {}", text::moment_and_age(at, now, zone)));
    let limit = quota.daily_limit.map_or_else(
        || "no daily limit".to_owned(),
        |limit| format!("of {} a day{}", text::count(limit), resets.unwrap_or_default()),
    );
    page.line(format!(
        "Your API quota: {} today ({limit}), {} a minute",
        text::counted(quota.requests_today, "request", "requests"),
        quota.requests_per_minute
    ));
    page
}
