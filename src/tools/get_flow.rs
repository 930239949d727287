//! Answers "what is this flow, and how does it do?". Needs the scope `flows:read`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use crate::domain::definition::Stream;
use crate::domain::run::Records;
use crate::domain::scope::Scope;
use crate::store::flows::{FlowDetail, FlowStats};
use crate::view::flow::FlowView;
use crate::view::run::RunBriefView;
use crate::view::text::{self, Page};

pub(super) struct GetFlow;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    /// Flow name or id, e.g. "HubSpot → Salesforce contacts" or "flow_01jd…". Case-insensitive; '→', '->' and 'to' are the same; aliases work.
    #[schemars(length(min = 1, max = 200))]
    flow: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    flow: DetailView,
    matched_by: String,
}

#[derive(Serialize, JsonSchema)]
struct DetailView {
    #[serde(flatten)]
    flow: FlowView,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    aliases: Vec<String>,
    streams: Vec<StreamView>,
    policy: PolicyView,
    version: VersionView,
    #[serde(skip_serializing_if = "Option::is_none")]
    active_run: Option<RunBriefView>,
    stats: StatsView,
    /// Its page, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct StreamView {
    source_object: String,
    destination_object: String,
    sync_mode: String,
    write_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor_field: Option<String>,
    primary_key: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_filter: Option<String>,
    mapping_count: usize,
}

impl From<&Stream> for StreamView {
    fn from(stream: &Stream) -> Self {
        Self {
            source_object: text::named(&stream.source_object),
            destination_object: text::named(&stream.destination_object),
            sync_mode: stream.sync_mode.to_string(),
            write_mode: stream.write_mode.to_string(),
            cursor_field: stream.cursor_field.as_deref().map(text::named),
            primary_key: stream.key_fields().into_iter().map(text::named).collect(),
            record_filter: stream.record_filter.as_deref().map(text::named),
            mapping_count: stream.mappings.len(),
        }
    }
}

impl StreamView {
    fn line(&self) -> String {
        let key = if self.primary_key.is_empty() {
            String::new()
        } else {
            format!(" on {}", self.primary_key.join(", "))
        };
        let cursor = self.cursor_field.as_deref().map(|field| format!(" by {field}")).unwrap_or_default();
        let filter = self
            .record_filter
            .as_deref()
            .map(|filter| format!(" | record filter: {filter}"))
            .unwrap_or_default();
        let mappings = match self.mapping_count {
            0 => "all fields copied".to_owned(),
            n => text::counted(n as i64, "mapping", "mappings"),
        };
        format!(
            "Stream {} → {}: {}{cursor}, {}{key} | {mappings}{filter}",
            self.source_object,
            self.destination_object,
            self.sync_mode.replace('_', " "),
            self.write_mode,
        )
    }
}

#[derive(Serialize, JsonSchema)]
struct PolicyView {
    max_attempts: i32,
    timeout_s: i32,
    max_error_rate: f64,
    degraded_error_rate: f64,
}

#[derive(Serialize, JsonSchema)]
struct VersionView {
    number: i32,
    changed_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct StatsView {
    h24: FiguresView,
    d7: FiguresView,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_duration_ms: Option<i64>,
}

#[derive(Default, Serialize, JsonSchema)]
struct FiguresView {
    runs: i64,
    failed: i64,
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<f64>,
}

impl FiguresView {
    fn of(stats: &[FlowStats], hours: i32) -> Self {
        stats.iter().find(|stats| stats.hours == hours).map_or_else(Self::default, |stats| Self {
            runs: stats.runs,
            failed: stats.failed,
            records: stats.records(),
            error_rate: stats.records().error_rate(),
        })
    }

    fn in_words(&self) -> String {
        let rate = self
            .error_rate
            .map(|rate| format!(", record error rate {}", text::percent(rate)))
            .unwrap_or_default();
        format!(
            "{} ({} failed), {} written{rate}",
            text::counted(self.runs, "run", "runs"),
            text::count(self.failed),
            text::counted(self.records.written, "record", "records")
        )
    }
}

impl Tool for GetFlow {
    const NAME: &'static str = "get_flow";
    const TITLE: &'static str = "Get flow";
    const DESCRIPTION: &'static str = "Get one flow by name or id: source and destination (connector, object, health of \
        each), schedule in words with the next run, owner, retry and error policy, current version and what changed last, last \
        run, last successful run, and 24 h / 7 d figures. Field-level details are in get_flow_mappings.";
    const SCOPE: Scope = Scope::FlowsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let found = find::flow(cx, &input.flow).await?;
        // Flows are never deleted, only archived, so what was just found is there.
        let detail = cx.read().flow(&found.id).await?.ok_or_else(|| {
            ToolError::refused("FLOW_NOT_FOUND", "the flow was just removed. list_flows shows all.")
        })?;
        let view = view(cx, &detail);
        let summary = format!(
            "{} reads {} and writes {}; {}, {}.",
            view.flow.name,
            view.flow.source.in_words(),
            view.flow.destination.in_words(),
            view.flow.schedule.text,
            view.flow.status
        );
        let notices = found.notices();
        let (page, next) = written(cx, &summary, &view);
        let output = Output { summary, flow: view, matched_by: found.matched_by.to_string() };
        Ok(Answer { page, output, notices, next: vec![next] })
    }
}

fn view(cx: &ToolCx<'_>, detail: &FlowDetail) -> DetailView {
    DetailView {
        flow: FlowView::new(&detail.flow, cx.now(), cx.zone()),
        description: detail.flow.description.as_deref().map(text::fenced),
        aliases: detail.aliases.iter().map(text::named).collect(),
        streams: detail.definition.streams.iter().map(Into::into).collect(),
        policy: PolicyView {
            max_attempts: detail.max_attempts,
            timeout_s: detail.timeout_s,
            max_error_rate: detail.max_error_rate,
            degraded_error_rate: detail.degraded_error_rate,
        },
        version: VersionView {
            number: detail.version.version,
            changed_at: detail.version.at,
            changed_by: detail.version.by.as_deref().map(text::named),
            summary: detail.version.summary.as_deref().map(text::fenced),
        },
        active_run: detail.open_run.as_ref().map(Into::into),
        stats: StatsView {
            h24: FiguresView::of(&detail.stats, 24),
            d7: FiguresView::of(&detail.stats, 168),
            p50_duration_ms: detail.median_ms,
        },
        url: cx.page_url(&format!("flows/{}", detail.flow.id)),
    }
}

/// The flow as it is written, and the call that comes next.
fn written(cx: &ToolCx<'_>, summary: &str, view: &DetailView) -> (Page, String) {
    let (now, zone, flow) = (cx.now(), cx.zone(), &view.flow);
    let mut page = Page::new(summary);
    page.line(&flow.summary);
    if let Some(description) = &view.description {
        page.line(format!("About: {description}"));
    }
    if !view.aliases.is_empty() {
        page.line(format!("Also called: {}", view.aliases.join(", ")));
    }
    for (side, word) in [(&flow.source, "Source"), (&flow.destination, "Destination")] {
        page.line(format!(
            "{word}: {} [{}] ({}), status {}, {}",
            side.connector,
            side.connector_id,
            side.service,
            side.status,
            if side.objects.is_empty() { &side.object } else { "see streams" }
        ));
    }
    for (place, stream) in view.streams.iter().enumerate() {
        if !page.row(&stream.line(), place) {
            let more = (view.streams.len() - place) as i64;
            page.line(format!("… {}", text::counted(more, "more stream", "more streams")));
            break;
        }
    }
    let next = flow
        .next_run_at
        .map(|at| format!(", next {}", text::moment_and_age(at, now, zone)))
        .unwrap_or_default();
    page.line(format!("Schedule: {}{next}", flow.schedule.text));
    let owner = flow.owner.as_deref().unwrap_or("nobody");
    let tags = if flow.tags.is_empty() { String::new() } else { format!(" | tags {}", flow.tags.join(", ")) };
    page.line(format!("Owner: {owner}{tags}"));
    page.line(format!(
        "Policy: {}, time-out {}, fails above {} rejected records, degraded from {}",
        text::counted(view.policy.max_attempts.into(), "attempt", "attempts"),
        text::duration(i64::from(view.policy.timeout_s) * 1_000),
        text::percent(view.policy.max_error_rate),
        text::percent(view.policy.degraded_error_rate)
    ));
    let by = view.version.changed_by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    let what = view.version.summary.as_deref().map(|what| format!(": {what}")).unwrap_or_default();
    page.line(format!(
        "Version {} since {}{by}{what}",
        view.version.number,
        text::moment_and_age(view.version.changed_at, now, zone)
    ));
    if let Some(run) = &view.active_run {
        page.line(format!("Active run: {}", run.in_words(now, zone)));
    }
    if let Some(run) = &flow.last_success {
        page.line(format!("Last success: {}", run.in_words(now, zone)));
    }
    let median = view
        .stats
        .p50_duration_ms
        .map(|ms| format!(" | median run {}", text::duration(ms)))
        .unwrap_or_default();
    page.line(format!("24 h: {} | 7 d: {}{median}", view.stats.h24.in_words(), view.stats.d7.in_words()));
    if let Some(url) = &view.url {
        page.line(format!("Page: {url}"));
    }
    let next = match &flow.last_run {
        Some(run) if run.records.failed > 0 || run.status == "failed" => {
            format!("get_run_errors run_id={}", run.run_id)
        }
        _ => format!("get_flow_mappings flow={}", flow.id),
    };
    (page, next)
}
