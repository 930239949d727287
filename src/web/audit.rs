//! The audit log: who did what, newest first.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use chrono::SecondsFormat;
use chrono_tz::Tz;
use serde::Deserialize;

use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::ids::AuditId;
use crate::domain::untrusted::line;
use crate::domain::window::parse_moment;
use crate::store::customers::AuditRow;

/// Rows of a page.
const ROWS: i64 = 50;

#[derive(Template)]
#[template(path = "audit.html", config = "src/web/askama.toml")]
struct AuditPage {
    here: Frame,
    rows: Vec<AuditRow>,
    /// Where the page after this begins.
    next: Option<(String, String)>,
}

/// After which row the page begins.
#[derive(Deserialize)]
pub(super) struct After {
    at: Option<String>,
    id: Option<String>,
}

pub(super) async fn list(
    State(web): State<Web>,
    here: Here,
    Query(after): Query<After>,
) -> Result<Response, Trouble> {
    // What is no place of ours is the beginning; `b` sorts after every id that begins with `aud_`.
    let at = after.at.and_then(|at| parse_moment(&at, Tz::UTC)).unwrap_or(here.now);
    let id = after.id.and_then(|id| AuditId::parse(&id).ok());
    let id = id.as_ref().map_or("b", AuditId::as_str);
    let mut rows = web.0.store.read(&here.member.tenancy).audited((at, id), ROWS + 1).await?;
    let more = rows.len() > ROWS as usize;
    rows.truncate(ROWS as usize);
    for row in &mut rows {
        row.actor = line(&row.actor);
        row.message = row.message.take().map(|message| line(&message));
    }
    let next = rows.last().filter(|_| more);
    let next = next.map(|row| (row.at.to_rfc3339_opts(SecondsFormat::Micros, true), row.audit_id.clone()));
    page(&AuditPage { here: Frame::new(&here, "audit"), rows, next })
}
