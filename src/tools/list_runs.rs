//! Answers "what ran, across all flows?". Needs the scope `runs:read`.

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use super::window::{self, WindowArgs};
use crate::domain::ids::RunId;
use crate::domain::run::{RunGrouping, RunStatus, Trigger};
use crate::domain::scope::Scope;
use crate::store::run_lists::{After, OTHER, RunFilter, RunList};
use crate::store::runs::Run;
use crate::view::run::{self, GroupView, RunView, SharedView, TotalsView, records};
use crate::view::text::{self, Page};
use crate::view::window::{WindowView, in_words};

pub(super) struct ListRuns;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    #[serde(flatten)]
    filters: Filters,
    /// Rows per page (max 100).
    #[serde(default = "twenty_five")]
    #[schemars(range(min = 0, max = 100))]
    limit: u16,
    /// next_cursor of the previous page. Keep the other arguments unchanged.
    cursor: Option<String>,
}

fn twenty_five() -> u16 {
    25
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Filters {
    /// Only these statuses (case-insensitive).
    status: Option<Vec<RunStatus>>,
    /// Only this flow (name or id).
    #[schemars(length(max = 200))]
    flow: Option<String>,
    /// Only runs that read from or wrote to this connector.
    #[schemars(length(max = 200))]
    connector: Option<String>,
    /// Only runs started this way.
    trigger: Option<Vec<Trigger>>,
    /// A duration back from now (30m, 24h, 7d, 2w) or today, this_morning, yesterday, this_week, last_week, this_month, last_month. Runs that FINISHED in it, plus active ones.
    #[serde(default = "day")]
    #[schemars(length(max = 40))]
    window: String,
    #[serde(flatten)]
    times: WindowArgs,
    /// Adds groups over the whole window.
    #[serde(default = "none")]
    group_by: RunGrouping,
}

fn day() -> String {
    "24h".to_owned()
}

fn none() -> RunGrouping {
    RunGrouping::None
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    window: WindowView,
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<TotalsView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shared_connectors: Vec<SharedView>,
    runs: Vec<RunView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Tool for ListRuns {
    const NAME: &'static str = "list_runs";
    const TITLE: &'static str = "List runs across flows";
    const DESCRIPTION: &'static str = "Run history across ALL flows for a window (default 24h), newest first, with totals over \
        the whole window on its first page. Use group_by=flow for \"what ran and how much\", group_by=destination for volume by \
        destination, group_by=connector to find the connector that failed runs share.";
    const SCOPE: Scope = Scope::RunsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let filters = &input.filters;
        let asked = window::kept(cx, Some(&filters.window), &filters.times)?;
        let after = PageOfRuns::after(cx, Self::NAME, filters, input.cursor.as_deref())?;
        let mut notices = asked.notices;
        let flow = match &filters.flow {
            Some(text) => {
                let found = find::flow(cx, text).await?;
                notices.extend(found.notices());
                Some(found.id)
            }
            None => None,
        };
        let connectors = match &filters.connector {
            Some(text) => Some(find::connectors(cx, text).await?),
            None => None,
        };
        let filter = RunFilter {
            window: asked.window.clone(),
            flow,
            connectors,
            status: filters.status.clone().unwrap_or_default(),
            trigger: filters.trigger.clone().unwrap_or_default(),
            zone: asked.zone,
        };
        let limit = i64::from(input.limit) + 1;
        let (runs, figures) = match &after {
            None => {
                let list = cx.read().runs(&filter, filters.group_by, limit).await?;
                let figures = Figures::from(&list);
                (list.runs, Some(figures))
            }
            Some(after) => (cx.read().runs_after(&filter, after, limit).await?, None),
        };

        let window = in_words(&asked.window, asked.zone);
        let summary = match &figures {
            Some(figures) => summary(filters, &figures.totals, &figures.shared, &window),
            None => format!("{FURTHER}, {window}."),
        };
        let mut page = Page::new(&summary);
        if let Some(figures) = &figures {
            figures.write(&mut page, filters);
        }
        let shown = PageOfRuns::write(cx, &mut page, runs, input.limit.into(), asked.zone, true);
        let next_cursor = if input.limit == 0 { None } else { shown.cursor(cx, Self::NAME, filters)? };
        if let Some(cursor) = &next_cursor {
            notices.push(format!("more runs match; pass cursor={cursor}"));
        }
        let next = newest_failed(&shown.runs);
        let (totals, groups, shared_connectors) = match figures {
            Some(Figures { totals, groups, shared }) => (Some(totals), groups, shared),
            None => (None, vec![], vec![]),
        };
        let output = Output {
            summary,
            window: WindowView::new(&asked.window, asked.zone),
            total: totals.as_ref().map(|totals| totals.runs),
            totals,
            groups,
            shared_connectors,
            runs: shown.runs,
            next_cursor,
        };
        Ok(Answer { page, output, notices, next })
    }
}

/// How a page that follows another one begins.
pub(super) const FURTHER: &str = "More runs (totals are on the first page)";

/// What the first page tells of all runs that match.
struct Figures {
    totals: TotalsView,
    groups: Vec<GroupView>,
    shared: Vec<SharedView>,
}

impl From<&RunList> for Figures {
    fn from(list: &RunList) -> Self {
        Self {
            totals: TotalsView::from(&list.totals),
            groups: list.groups.iter().map(|group| GroupView::new(group, list.totals.runs)).collect(),
            shared: list.shared.iter().map(Into::into).collect(),
        }
    }
}

impl Figures {
    fn write(&self, page: &mut Page, filters: &Filters) {
        page.line(figures(&self.totals));
        for connector in &self.shared {
            let why = connector.reason.as_deref().map(|why| format!(" | {why}")).unwrap_or_default();
            page.line(format!(
                "Shared by every matching run: {} [{}] | status {} | auth {}{why}",
                connector.connector, connector.connector_id, connector.status, connector.auth_status
            ));
        }
        if self.groups.is_empty() {
            return;
        }
        page.line(format!("By {}:", filters.group_by));
        let (other, groups): (Vec<_>, Vec<_>) = self.groups.iter().partition(|group| group.key == OTHER);
        let told =
            groups.iter().enumerate().take_while(|(place, group)| page.row(&group.line(), *place)).count();
        // Only the text leaves groups out, so it alone says so.
        if told < groups.len() {
            let more = text::counted((groups.len() - told) as i64, "further group", "further groups");
            page.line(format!("… {more}; narrow the window or filter"));
        }
        for other in other {
            page.line(other.line());
        }
    }
}

fn summary(filters: &Filters, totals: &TotalsView, shared: &[SharedView], window: &str) -> String {
    let states = filters
        .status
        .as_ref()
        .map(|states| states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" or ") + " ");
    let kind = states.unwrap_or_default();
    if totals.runs == 0 {
        return format!("No {kind}runs, {window}.");
    }
    let share = match shared {
        [] => String::new(),
        [one] => format!("; all use {}", one.connector),
        several => {
            let names: Vec<&str> = several.iter().map(|shared| shared.connector.as_str()).collect();
            format!("; all use {}", names.join(" and "))
        }
    };
    let split =
        if filters.status.is_some() { String::new() } else { format!(": {}", totals.states_in_words()) };
    format!(
        "{} {kind}{}, {window}{split}{share}.",
        text::count(totals.runs),
        if totals.runs == 1 { "run" } else { "runs" }
    )
}

fn figures(totals: &TotalsView) -> String {
    let rate = |name: &str, rate: Option<f64>| {
        rate.map(|rate| format!(" | {name} {}", text::percent(rate))).unwrap_or_default()
    };
    format!(
        "Totals: {} read | {} | {} written{}{}",
        text::count(totals.records.read),
        records(&totals.records),
        text::bytes(totals.bytes_written),
        rate("run failure rate", totals.run_failure_rate),
        rate("record error rate", totals.record_error_rate)
    )
}

/// Where to look first: at the errors of the newest run that had some.
pub(super) fn newest_failed(runs: &[RunView]) -> Vec<String> {
    runs.iter()
        .find(|run| run.status == "failed" || run.records.failed > 0)
        .map(|run| format!("get_run_errors run_id={}", run.run_id))
        .into_iter()
        .collect()
}

/// The runs of a page, as far as they were told.
pub(super) struct PageOfRuns {
    pub(super) runs: Vec<RunView>,
    last: Option<After>,
    more: bool,
}

impl PageOfRuns {
    /// Where a page begins, from the cursor of the page before.
    pub(super) fn after(
        cx: &ToolCx<'_>,
        tool: &str,
        filters: &impl Serialize,
        cursor: Option<&str>,
    ) -> Result<Option<After>, ToolError> {
        let Some(position) = cx.open_cursor(tool, filters, cursor)? else { return Ok(None) };
        let [window_at, run] = position.as_slice() else { return Ok(None) };
        Ok(window_at
            .parse()
            .ok()
            .zip(RunId::parse(run).ok())
            .map(|(window_at, run)| After { window_at, run }))
    }

    /// Writes as many of `runs` (one more than `limit` when there are more) as fit.
    pub(super) fn write(
        cx: &ToolCx<'_>,
        page: &mut Page,
        runs: Vec<Run>,
        limit: usize,
        zone: Tz,
        across: bool,
    ) -> Self {
        let now = cx.now();
        let mut shown = Self { runs: Vec::new(), last: None, more: runs.len() > limit };
        for run in runs.into_iter().take(limit) {
            let last = After { window_at: run.window_at, run: run.id.clone() };
            let view = RunView::new(run, now);
            if !page.row(&run::line(&view, now, zone, across), shown.runs.len()) {
                shown.more = true;
                break;
            }
            shown.runs.push(view);
            shown.last = Some(last);
        }
        shown
    }

    /// The cursor of the next page, when there is one.
    pub(super) fn cursor(
        &self,
        cx: &ToolCx<'_>,
        tool: &str,
        filters: &impl Serialize,
    ) -> Result<Option<String>, ToolError> {
        let Some(last) = self.last.as_ref().filter(|_| self.more) else { return Ok(None) };
        cx.seal_cursor(tool, filters, &[last.window_at.to_rfc3339(), last.run.to_string()]).map(Some)
    }
}
