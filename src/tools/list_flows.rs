//! Answers "which flows are there, and how are they?". Needs the scope `flows:read`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use crate::domain::flow::{FlowState, Health};
use crate::domain::names;
use crate::domain::scope::Scope;
use crate::domain::words;
use crate::store::flows::{FlowAfter, FlowCounts, FlowFilter};
use crate::view::flow::FlowView;
use crate::view::text::{self, Page};

pub(super) struct ListFlows;

words! {
    /// What flows may be narrowed to.
    Wanted {
        /// See `Health`.
        Healthy = "healthy",
        /// See `Health`.
        Degraded = "degraded",
        /// See `Health`.
        Failing = "failing",
        /// See `FlowState`.
        Paused = "paused",
        /// See `Health`.
        Pending = "pending",
        /// See `FlowState`.
        Draft = "draft",
        /// See `FlowState`.
        Archived = "archived",
        /// Not paused.
        Active = "active",
        /// Failing or degraded.
        NeedsAttention = "needs_attention",
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    #[serde(flatten)]
    filters: Filters,
    /// Rows per page (max 200).
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 200))]
    limit: u16,
    /// next_cursor of the previous page. Keep the other arguments unchanged.
    cursor: Option<String>,
}

fn fifty() -> u16 {
    50
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Filters {
    /// Only these statuses. active = not paused; needs_attention = failing or degraded. Default: all but draft and archived.
    status: Option<Vec<Wanted>>,
    /// Words to look for in name, alias, tag or owner, each of them; '→', '->' and 'to' are the same.
    #[schemars(length(max = 200))]
    query: Option<String>,
    /// Only flows that use this connector (name, service such as "snowflake", or id) as source or destination.
    #[schemars(length(max = 200))]
    connector: Option<String>,
    /// Only flows that read this object/table, e.g. "contacts". Schema prefix optional, case-insensitive.
    #[schemars(length(max = 200))]
    source_object: Option<String>,
    /// Only flows that write this object/table, e.g. "customers", "PUBLIC.CUSTOMERS" or "ANALYTICS.PUBLIC.CUSTOMERS".
    #[schemars(length(max = 200))]
    destination_object: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    workspace: WorkspaceView,
    as_of: DateTime<Utc>,
    counts: CountsView,
    flows: Vec<FlowView>,
    total: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct WorkspaceView {
    id: String,
    name: String,
    timezone: String,
}

/// How many flows there are, whatever the filter.
#[derive(Serialize, JsonSchema)]
pub(super) struct CountsView {
    pub(super) failing: i64,
    pub(super) degraded: i64,
    pending: i64,
    healthy: i64,
    pub(super) paused: i64,
    draft: i64,
    archived: i64,
}

impl From<&FlowCounts> for CountsView {
    fn from(counts: &FlowCounts) -> Self {
        Self {
            failing: counts.failing,
            degraded: counts.degraded,
            pending: counts.pending,
            healthy: counts.healthy,
            paused: counts.paused,
            draft: counts.draft,
            archived: counts.archived,
        }
    }
}

impl CountsView {
    /// Flows that are not archived or drafts.
    pub(super) fn in_use(&self) -> i64 {
        self.failing + self.degraded + self.pending + self.healthy + self.paused
    }

    /// `3 failing, 2 degraded, …; besides 2 draft`: the states that occur, those [`CountsView::in_use`] counts first.
    pub(super) fn in_words(&self) -> String {
        let in_use = self.said(&Wanted::IN_USE);
        let besides = self.said(&[Wanted::Draft, Wanted::Archived]);
        match (in_use.is_empty(), besides.is_empty()) {
            (true, true) => "none yet".to_owned(),
            (true, false) => format!("only {besides}"),
            (false, true) => in_use,
            (false, false) => format!("{in_use}; besides {besides}"),
        }
    }

    fn said(&self, states: &[Wanted]) -> String {
        text::tally(states.iter().map(|state| (self.of(*state), state.as_str())))
    }

    /// Flows in one of the states that a flow is shown with; a word for several of them counts nothing.
    fn of(&self, state: Wanted) -> i64 {
        match state {
            Wanted::Failing => self.failing,
            Wanted::Degraded => self.degraded,
            Wanted::Pending => self.pending,
            Wanted::Healthy => self.healthy,
            Wanted::Paused => self.paused,
            Wanted::Draft => self.draft,
            Wanted::Archived => self.archived,
            Wanted::Active | Wanted::NeedsAttention => 0,
        }
    }
}

impl Wanted {
    /// The states of flows that are not archived or drafts, in the order of lists.
    const IN_USE: [Self; 5] = [Self::Failing, Self::Degraded, Self::Pending, Self::Healthy, Self::Paused];
}

impl Tool for ListFlows {
    const NAME: &'static str = "list_flows";
    const TITLE: &'static str = "List flows";
    const DESCRIPTION: &'static str = "List the integration flows of this workspace, one line each: status (healthy, \
        degraded, failing, paused, pending), source → destination objects, schedule, last run and why it needs attention. \
        Start here to find a flow's exact name, to see what is failing or degraded, or to find which flows read or write an \
        object or table. For one flow's details use get_flow; for run history use list_flow_runs or list_runs.";
    const SCOPE: Scope = Scope::FlowsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let (filters, now, zone) = (&input.filters, cx.now(), cx.zone());
        let after =
            cx.open_cursor(Self::NAME, filters, input.cursor.as_deref())?.as_deref().and_then(position);
        let filter = filter(cx, filters).await?;
        let reader = cx.read();
        let counts = reader.flow_counts(&filter).await?;
        let limit = i64::from(input.limit);
        let mut rows = reader.flows(&filter, after.as_ref(), limit + 1).await?;
        let mut more = rows.len() as i64 > limit;
        rows.truncate(input.limit.into());

        let workspace = cx.principal.workspace();
        let total = counts.matching;
        let counts = CountsView::from(&counts);
        let summary = summary(cx, filters, &counts, total);
        let mut page = Page::new(&format!("{summary} As of {}.", text::moment(now, zone)));
        let mut flows = Vec::new();
        for row in &rows {
            let view = FlowView::new(row, now, zone);
            if !page.row(&view.summary, flows.len()) {
                more = true;
                break;
            }
            flows.push(view);
        }
        let next_cursor = match rows.get(flows.len().wrapping_sub(1)).filter(|_| more) {
            Some(last) => {
                let last = FlowAfter::of(last);
                let position = [last.rank.to_string(), last.sort_key, last.flow];
                Some(cx.seal_cursor(Self::NAME, filters, &position)?)
            }
            None => None,
        };
        let mut notices = Vec::new();
        if let Some(cursor) = &next_cursor {
            notices.push(format!("more flows match; pass cursor={cursor}"));
        }
        let next = next(&flows);
        let output = Output {
            summary,
            workspace: WorkspaceView {
                id: cx.principal.tenancy().customer().to_string(),
                name: text::named(&workspace.name),
                timezone: zone.name().to_owned(),
            },
            as_of: now,
            counts,
            flows,
            total,
            next_cursor,
        };
        Ok(Answer { page, output, notices, next })
    }
}

fn position(parts: &[String]) -> Option<FlowAfter> {
    let [rank, sort_key, flow] = parts else { return None };
    Some(FlowAfter { rank: rank.parse().ok()?, sort_key: sort_key.clone(), flow: flow.clone() })
}

async fn filter(cx: &ToolCx<'_>, filters: &Filters) -> Result<FlowFilter, ToolError> {
    let mut filter = FlowFilter {
        words: filters.query.as_deref().map(names::words).unwrap_or_default(),
        reads: filters.source_object.clone(),
        writes: filters.destination_object.clone(),
        ..FlowFilter::default()
    };
    if let Some(text) = &filters.connector {
        filter.connectors = Some(find::connectors(cx, text).await?);
    }
    for wanted in filters.status.iter().flatten() {
        match wanted {
            Wanted::Healthy => filter.healths.push(Health::Healthy),
            Wanted::Degraded => filter.healths.push(Health::Degraded),
            Wanted::Failing => filter.healths.push(Health::Failing),
            Wanted::Pending => filter.healths.push(Health::Pending),
            Wanted::NeedsAttention => filter.healths.extend([Health::Failing, Health::Degraded]),
            Wanted::Paused => filter.states.push(FlowState::Paused),
            Wanted::Draft => filter.states.push(FlowState::Draft),
            Wanted::Archived => filter.states.push(FlowState::Archived),
            Wanted::Active => filter.states.push(FlowState::Active),
        }
    }
    Ok(filter)
}

/// The answer in one sentence: what matches, of how many.
fn summary(cx: &ToolCx<'_>, filters: &Filters, counts: &CountsView, total: i64) -> String {
    let workspace = cx.principal.workspace();
    let all = counts.in_use();
    let place = format!("{} ({})", text::named(&workspace.name), workspace.zone);
    let mut conditions = Vec::new();
    if let Some(connector) = &filters.connector {
        conditions.push(format!("use {}", text::named(connector)));
    }
    if let Some(object) = &filters.source_object {
        conditions.push(format!("read {}", text::named(object)));
    }
    if let Some(object) = &filters.destination_object {
        conditions.push(format!("write to {}", text::named(object)));
    }
    if let Some(words) = &filters.query {
        conditions.push(format!("match \"{}\"", text::named(words)));
    }
    if let Some(status) = &filters.status {
        let words: Vec<&str> = status.iter().map(|wanted| wanted.as_str()).collect();
        conditions.push(format!("are {}", words.join(" or ").replace('_', " ")));
    }
    if conditions.is_empty() {
        return match all {
            0 if counts.draft + counts.archived == 0 => format!("No flows in {place} yet."),
            0 => format!("No flows in use in {place}: {}.", counts.in_words()),
            _ => format!("{} in {place}: {}.", text::counted(all, "flow", "flows"), counts.in_words()),
        };
    }
    // Drafts and archived flows are among those looked at only where they are asked for.
    let mut states = Wanted::IN_USE.to_vec();
    let wanted = filters.status.as_deref().unwrap_or_default();
    states.extend([Wanted::Draft, Wanted::Archived].into_iter().filter(|state| wanted.contains(state)));
    let all: i64 = states.iter().map(|state| counts.of(*state)).sum();
    let said = if all == 0 { String::new() } else { format!(" ({} in all)", counts.said(&states)) };
    format!(
        "{} of {} in {place} {}{said}.",
        text::count(total),
        text::counted(all, "flow", "flows"),
        conditions.join(" and ")
    )
}

/// The concrete calls that come next: into the worst flow first.
fn next(flows: &[FlowView]) -> Vec<String> {
    let failed = flows.iter().filter(|flow| flow.status == "failing" || flow.status == "degraded");
    failed
        .filter_map(|flow| flow.last_run.as_ref())
        .filter(|run| run.records.failed > 0 || run.status == "failed")
        .take(1)
        .map(|run| format!("get_run_errors run_id={}", run.run_id))
        .collect()
}
