//! MCP tokens: the workspace's tokens, what each is used for, and the end of them.

use std::collections::HashMap;

use askama::Template;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::chart::{Chart, Slot};
use super::guard::{FoundAt, Here};
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::ids::TokenId;
use crate::domain::person::Role;
use crate::domain::scope::Scope;
use crate::domain::untrusted::line;
use crate::store::customers::Target;
use crate::store::tokens::TokenRow;
use crate::view::text;

/// Days that the small charts show.
const DAYS: i64 = 30;

/// A token that ends within this time is told of.
const SOON: TimeDelta = TimeDelta::days(14);

#[derive(Template)]
#[template(path = "tokens.html", config = "src/web/askama.toml")]
struct TokensPage {
    here: Frame,
    manages: bool,
    url: String,
    live: Vec<TokenView>,
    soon: Vec<TokenView>,
    dead: Vec<TokenView>,
}

/// A token as the page shows it.
#[derive(Clone)]
struct TokenView {
    id: String,
    name: String,
    last_four: String,
    reach: &'static str,
    scopes: Vec<String>,
    made: String,
    by: String,
    ends: String,
    used: String,
    calls: String,
    chart: Chart,
}

#[derive(Template)]
#[template(path = "token_revoke.html", config = "src/web/askama.toml")]
struct RevokePage {
    here: Frame,
    id: String,
    name: String,
    last_four: String,
    used: String,
    client: Option<String>,
}

pub(super) async fn list(State(web): State<Web>, here: Here, found_at: FoundAt) -> Result<Response, Trouble> {
    let reader = web.0.store.read(&here.member.tenancy);
    let (now, zone) = (reader.now(), here.member.workspace.zone);
    let tokens = reader.tokens().await?;
    let begin = (now - TimeDelta::days(DAYS - 1)).duration_trunc(TimeDelta::days(1)).unwrap_or(now);
    let mut calls: HashMap<String, Vec<(DateTime<Utc>, i64)>> = HashMap::new();
    for (token, day, count) in reader.calls_by_day(begin).await? {
        calls.entry(token).or_default().push((day, count));
    }
    let (mut live, mut soon, mut dead) = (Vec::new(), Vec::new(), Vec::new());
    // The newest first.
    for token in tokens.into_iter().rev() {
        let days = calls.remove(&token.token_id).unwrap_or_default();
        let ends_soon = token.expires_at.is_some_and(|at| at - now <= SOON);
        let view = TokenView::new(&token, &days, now, zone);
        if !token.is_live(now) {
            dead.push(view);
            continue;
        }
        if ends_soon {
            soon.push(view.clone());
        }
        live.push(view);
    }
    let manages = here.member.role.manages_tokens();
    page(&TokensPage {
        here: Frame::new(&here, "tokens"),
        manages,
        url: web.mcp_url(&found_at),
        live,
        soon,
        dead,
    })
}

impl TokenView {
    fn new(token: &TokenRow, days: &[(DateTime<Utc>, i64)], now: DateTime<Utc>, zone: Tz) -> Self {
        let read_only = !token.scopes.iter().any(|scope| scope == Scope::SyncTrigger.as_str());
        let reach = match (token.scopes.len() == Scope::ALL.len(), read_only) {
            (true, _) => "everything",
            (false, true) => "only reads",
            (false, false) => "chosen rights",
        };
        let ends = match (token.revoked_at, token.expires_at) {
            (Some(at), _) => format!("revoked {}", text::moment_and_age(at, now, zone)),
            (None, Some(at)) if at <= now => format!("expired {}", text::moment_and_age(at, now, zone)),
            (None, Some(at)) => text::moment_and_age(at, now, zone),
            (None, None) => "never".to_owned(),
        };
        let sum: i64 = days.iter().map(|(_, calls)| calls).sum();
        Self {
            id: token.token_id.clone(),
            name: line(&token.name),
            last_four: token.last_four.clone(),
            reach,
            scopes: token.scopes.clone(),
            made: text::day(token.created_at, zone),
            by: token.email.clone(),
            ends,
            used: used(token, now, zone),
            calls: text::count(sum),
            chart: chart(days, now),
        }
    }
}

/// When, by which client and from where a token was last used.
fn used(token: &TokenRow, now: DateTime<Utc>, zone: Tz) -> String {
    let Some(at) = token.last_used_at else { return "never".to_owned() };
    let client = token.last_used_client.as_deref().map(|client| format!(" by {}", line(client)));
    let address = token.last_used_ip.as_deref().map(|address| format!(" from {address}"));
    let (client, address) = (client.unwrap_or_default(), address.unwrap_or_default());
    format!("{}{client}{address}", text::moment_and_age(at, now, zone))
}

/// Calls of each day (UTC), the oldest first.
fn chart(days: &[(DateTime<Utc>, i64)], now: DateTime<Utc>) -> Chart {
    let today = now.date_naive();
    let calls = |ago: i64| {
        let of_that_day = days.iter().filter(|(day, _)| (today - day.date_naive()).num_days() == ago);
        of_that_day.map(|(_, calls)| calls).sum()
    };
    let slot = |ago| Slot { label: String::new(), succeeded: calls(ago), partial: 0, failed: 0 };
    Chart::new((0..DAYS).rev().map(slot).collect())
}

/// One of the workspace's tokens, by the id in the address.
async fn token_of(web: &Web, here: &Here, id: &str) -> Result<TokenRow, Trouble> {
    let tokens = web.0.store.read(&here.member.tenancy).tokens().await?;
    tokens.into_iter().find(|token| token.token_id == id).ok_or(Trouble::NotFound)
}

pub(super) async fn confirm(
    State(web): State<Web>,
    here: Here,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    here.must(Role::manages_tokens)?;
    let token = token_of(&web, &here, &id).await?;
    page(&RevokePage {
        here: Frame::new(&here, "tokens"),
        used: used(&token, web.0.store.now(), here.member.workspace.zone),
        client: token.last_used_client.as_deref().map(line),
        id,
        name: line(&token.name),
        last_four: token.last_four,
    })
}

pub(super) async fn revoke(
    State(web): State<Web>,
    here: Here,
    Path((slug, id)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    here.must(Role::manages_tokens)?;
    let id = TokenId::parse(&id).map_err(|_| Trouble::NotFound)?;
    let mut tx = web.0.store.begin(&here.member.tenancy).await?;
    // One that has ended already is as wanted.
    if tx.revoke_token(&id).await? {
        tx.audit(&here.actor(), "token.revoked", Target::Token(&id), None).await?;
        tx.commit().await?;
    } else {
        drop(tx);
        token_of(&web, &here, id.as_str()).await?;
    }
    Ok(Redirect::to(&format!("/w/{slug}/settings/mcp")).into_response())
}

/// Whether a token was used, for the page that waits for its first call.
pub(super) async fn seen(
    State(web): State<Web>,
    here: Here,
    Path((_, id)): Path<(String, String)>,
) -> Result<Json<Value>, Trouble> {
    let token = token_of(&web, &here, &id).await?;
    let client = token.last_used_client.as_deref().map(line);
    Ok(Json(json!({ "seen": token.last_used_at.is_some(), "client": client })))
}
