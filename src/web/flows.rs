//! Flows: all of them, and one with its runs; pausing and resuming.

use std::collections::HashMap;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::ask::ask;
use super::chart::{Chart, Slot};
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::ids::FlowId;
use crate::domain::person::Role;
use crate::view::text;

/// Runs that the small chart of a listed flow shows.
const LAST: i64 = 20;

/// Runs that the page of a flow shows.
const RUNS: u32 = 25;

#[derive(Template)]
#[template(path = "flows.html", config = "src/web/askama.toml")]
struct FlowsPage {
    here: Frame,
    summary: String,
    query: String,
    /// Each with how its last runs ended.
    flows: Vec<(Flow, Chart)>,
    more: Option<String>,
}

#[derive(Template)]
#[template(path = "flow.html", config = "src/web/askama.toml")]
struct FlowPage {
    here: Frame,
    operates: bool,
    flow: Flow,
    chart: Chart,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    query: String,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Flows {
    summary: String,
    flows: Vec<Flow>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct OneFlow {
    flow: Flow,
}

#[derive(Deserialize)]
struct Flow {
    id: String,
    name: String,
    status: String,
    state: String,
    status_reasons: Vec<Reason>,
    source: Side,
    destination: Side,
    schedule: Schedule,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    next_run_at: Option<DateTime<Utc>>,
    #[serde(default)]
    last_run: Option<LastRun>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

#[derive(Deserialize)]
struct Side {
    connector_id: String,
    connector: String,
    object: String,
}

#[derive(Deserialize)]
struct Schedule {
    text: String,
}

#[derive(Deserialize)]
struct LastRun {
    run_id: String,
    status: String,
    started_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// A run as a list of a flow's shows it.
#[derive(Deserialize)]
struct Run {
    run_id: String,
    status: String,
    trigger: String,
    #[serde(default)]
    started_at: Option<DateTime<Utc>>,
    queued_at: DateTime<Utc>,
    #[serde(default)]
    duration_ms: Option<i64>,
    records: Records,
}

#[derive(Deserialize)]
struct Records {
    written: i64,
    failed: i64,
}

impl Run {
    fn took(&self) -> String {
        self.duration_ms.map(text::duration).unwrap_or_default()
    }

    fn began(&self) -> &DateTime<Utc> {
        self.started_at.as_ref().unwrap_or(&self.queued_at)
    }
}

pub(super) async fn list(
    State(web): State<Web>,
    here: Here,
    Query(asked): Query<Asked>,
) -> Result<Response, Trouble> {
    let query = Some(asked.query.trim()).filter(|query| !query.is_empty());
    let arguments = json!({ "query": query, "cursor": asked.cursor });
    let Flows { summary, flows, next_cursor } = ask(&web, &here, "list_flows", arguments).await?;
    let ids: Vec<String> = flows.iter().map(|flow| flow.id.clone()).collect();
    let ends = web.0.store.read(&here.member.tenancy).last_ends(&ids, LAST).await?;
    let mut ends: HashMap<String, Vec<String>> = ends.into_iter().collect();
    let charts = flows.into_iter().map(|flow| {
        let statuses = ends.remove(&flow.id).unwrap_or_default();
        let slots = statuses.iter().map(|status| Slot::of_one(status));
        (flow, Chart::new(slots.collect()))
    });
    let flows = charts.collect();
    let shown =
        FlowsPage { here: Frame::new(&here, "flows"), summary, query: asked.query, flows, more: next_cursor };
    page(&shown)
}

pub(super) async fn one(
    State(web): State<Web>,
    here: Here,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    // A name that is no id would be looked for.
    let id = FlowId::parse(&id).map_err(|_| Trouble::NotFound)?;
    let OneFlow { flow } = ask(&web, &here, "get_flow", json!({ "flow": id })).await?;
    let asked = json!({ "flow": id, "limit": RUNS });
    let Runs { runs } = ask(&web, &here, "list_flow_runs", asked).await?;
    // A slot a run, the oldest first.
    let slots = runs.iter().rev().map(|run| Slot::of_one(&run.status));
    let chart = Chart::new(slots.collect());
    let operates = here.member.role.operates();
    page(&FlowPage { here: Frame::new(&here, "flows"), operates, flow, chart, runs })
}

/// Characters that are kept of a reason.
const MAX_REASON: usize = 500;

/// What is decided about a flow.
#[derive(Deserialize)]
pub(super) struct Decision {
    state: String,
    #[serde(default)]
    reason: String,
}

pub(super) async fn decide(
    State(web): State<Web>,
    here: Here,
    Path((slug, id)): Path<(String, String)>,
    Form(decision): Form<Decision>,
) -> Result<Response, Trouble> {
    here.must(Role::operates)?;
    let flow = FlowId::parse(&id).map_err(|_| Trouble::NotFound)?;
    let reason: String =
        decision.reason.trim().chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
    let mut tx = web.0.store.begin(&here.member.tenancy).await?;
    // What is so already stays so: two people may have clicked.
    let changed = match decision.state.as_str() {
        "paused" => tx.pause_flow(&flow, &here.actor(), reason).await?.is_some(),
        "active" => tx.resume_flow(&flow, &here.actor(), reason).await?,
        _ => return Err(Trouble::NotFound),
    };
    if changed {
        tx.commit().await?;
    }
    Ok(Redirect::to(&format!("/w/{slug}/flows/{flow}")).into_response())
}
