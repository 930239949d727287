//! Connectors: how each is, what it has used of what it may, and who depends on it.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::ask::ask;
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};

#[derive(Template)]
#[template(path = "connectors.html", config = "src/web/askama.toml")]
struct ConnectorsPage {
    here: Frame,
    summary: String,
    connectors: Vec<Connector>,
    /// Whether those are not all.
    one: bool,
    more: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    query: Option<String>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Connectors {
    summary: String,
    connectors: Vec<Connector>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Connector {
    id: String,
    name: String,
    service: String,
    status: String,
    status_reasons: Vec<Reason>,
    auth: Auth,
    quotas: Vec<Quota>,
    #[serde(default)]
    last_activity_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

#[derive(Deserialize)]
struct Auth {
    status: String,
}

#[derive(Deserialize)]
struct Quota {
    name: String,
    unit: String,
    used: i64,
    limit: i64,
    percent: f64,
}

impl Quota {
    /// How much of a bar of a hundred is full.
    fn width(&self) -> i64 {
        (self.percent.round() as i64).clamp(0, 100)
    }
}

pub(super) async fn list(
    State(web): State<Web>,
    here: Here,
    Query(asked): Query<Asked>,
) -> Result<Response, Trouble> {
    let one = asked.query.is_some();
    let arguments = json!({ "query": asked.query, "cursor": asked.cursor });
    let Connectors { summary, connectors, next_cursor } =
        ask(&web, &here, "list_connectors", arguments).await?;
    page(&ConnectorsPage {
        here: Frame::new(&here, "connectors"),
        summary,
        connectors,
        one,
        more: next_cursor,
    })
}
