//! Answers "how did the runs of this flow go?". Needs the scope `runs:read`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::list_runs::{FURTHER, PageOfRuns, newest_failed};
use super::tool::{Answer, Tool};
use super::window::{self, WindowArgs};
use crate::domain::run::{RunGrouping, RunStatus, Trigger};
use crate::domain::scope::Scope;
use crate::store::run_lists::RunFilter;
use crate::view::run::{RunView, TotalsView, records};
use crate::view::text::{self, Page};
use crate::view::window::{WindowView, in_words};

pub(super) struct ListFlowRuns;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    #[serde(flatten)]
    filters: Filters,
    /// Rows per page (max 100).
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    limit: u16,
    /// next_cursor of the previous page. Keep the other arguments unchanged.
    cursor: Option<String>,
}

fn ten() -> u16 {
    10
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Filters {
    /// Flow name or id, e.g. "HubSpot → Salesforce contacts" or "flow_01jd…". Case-insensitive; '→', '->' and 'to' are the same; aliases work.
    #[schemars(length(min = 1, max = 200))]
    flow: String,
    /// Only these statuses (case-insensitive). partial = finished with some record errors.
    status: Option<Vec<RunStatus>>,
    /// Only runs started this way.
    trigger: Option<Vec<Trigger>>,
    /// A duration back from now (30m, 24h, 7d, 2w) or today, this_morning, yesterday, this_week, last_week, this_month, last_month. Runs that FINISHED in it, plus active ones.
    #[schemars(length(max = 40))]
    window: Option<String>,
    #[serde(flatten)]
    times: WindowArgs,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    flow_id: String,
    flow: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowView>,
    runs: Vec<RunView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<TotalsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Tool for ListFlowRuns {
    const NAME: &'static str = "list_flow_runs";
    const TITLE: &'static str = "List runs of one flow";
    const DESCRIPTION: &'static str = "Recent runs of ONE flow, newest first: status, trigger, start, duration, records \
        processed and failed, top error. No window by default, so status=[\"succeeded\"] limit=1 gives the last successful run \
        that is kept. To compare flows or filter by time across flows use list_runs.";
    const SCOPE: Scope = Scope::RunsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let filters = &input.filters;
        let asked = window::kept(cx, filters.window.as_deref(), &filters.times)?;
        let windowed =
            filters.window.is_some() || filters.times.since.is_some() || filters.times.until.is_some();
        let found = find::flow(cx, &filters.flow).await?;
        let after = PageOfRuns::after(cx, Self::NAME, filters, input.cursor.as_deref())?;
        let filter = RunFilter {
            window: asked.window.clone(),
            flow: Some(found.id.clone()),
            connectors: None,
            status: filters.status.clone().unwrap_or_default(),
            trigger: filters.trigger.clone().unwrap_or_default(),
            zone: asked.zone,
        };
        let limit = i64::from(input.limit) + 1;
        let (runs, totals) = match &after {
            None => {
                let list = cx.read().runs(&filter, RunGrouping::None, limit).await?;
                (list.runs, Some(TotalsView::from(&list.totals)))
            }
            Some(after) => (cx.read().runs_after(&filter, after, limit).await?, None),
        };
        let name = text::named(&found.name);
        let span =
            if windowed { format!(", {}", in_words(&asked.window, asked.zone)) } else { String::new() };
        let summary = match &totals {
            None => format!("{FURTHER}, {name}{span}."),
            Some(totals) if totals.runs == 0 => format!("No matching runs of {name}{span}."),
            Some(totals) => format!(
                "{} of {name}{span}: {}; {}.",
                text::counted(totals.runs, "run", "runs"),
                totals.states_in_words(),
                records(&totals.records)
            ),
        };
        let mut page = Page::new(&summary);
        let shown = PageOfRuns::write(cx, &mut page, runs, input.limit.into(), asked.zone, false);
        let next_cursor = shown.cursor(cx, Self::NAME, filters)?;
        let mut notices = found.notices();
        notices.extend(asked.notices);
        if !windowed && totals.as_ref().is_some_and(|totals| totals.runs == 0) {
            let days = cx.principal.plan().run_retention_days;
            notices.push(format!("Runs are kept {days} days; older ones are not listed."));
        }
        if let Some(cursor) = &next_cursor {
            notices.push(format!("more runs match; pass cursor={cursor}"));
        }
        let next = newest_failed(&shown.runs);
        let output = Output {
            summary,
            flow_id: found.id.to_string(),
            flow: name,
            window: windowed.then(|| WindowView::new(&asked.window, asked.zone)),
            runs: shown.runs,
            total: totals.as_ref().map(|totals| totals.runs),
            totals,
            next_cursor,
        };
        Ok(Answer { page, output, notices, next })
    }
}
