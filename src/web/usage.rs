//! Usage and limits: calls of each tool, and what the plan allows.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::json;

use super::ask::ask;
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::store::tokens::Plan;
use crate::store::usage::ToolUse;
use crate::view::text;

/// Days that are shown.
const DAYS: i64 = 30;

#[derive(Template)]
#[template(path = "usage.html", config = "src/web/askama.toml")]
struct UsagePage {
    here: Frame,
    tools: Vec<ToolUse>,
    /// Requests in these days that the plan's limits refused.
    throttled: i64,
    plan: Plan,
    quota: Quota,
}

#[derive(Deserialize)]
struct Health {
    api_quota: Quota,
}

#[derive(Deserialize)]
struct Quota {
    requests_today: i64,
}

impl UsagePage {
    /// How long a call took in the mean.
    fn mean(&self, tool: &ToolUse) -> String {
        if tool.calls == 0 { String::new() } else { text::duration(tool.duration_ms / tool.calls) }
    }
}

pub(super) async fn page_of(State(web): State<Web>, here: Here) -> Result<Response, Trouble> {
    let used = web.0.store.read(&here.member.tenancy).use_by_tool(here.now - TimeDelta::days(DAYS)).await?;
    let (others, tools): (Vec<_>, Vec<_>) = used.into_iter().partition(|used| used.tool == "-");
    let throttled = others.iter().map(|used| used.errors).sum();
    let Health { api_quota } = ask(&web, &here, "get_system_health", json!({})).await?;
    page(&UsagePage {
        here: Frame::new(&here, "usage"),
        tools,
        throttled,
        plan: here.member.plan.clone(),
        quota: api_quota,
    })
}
