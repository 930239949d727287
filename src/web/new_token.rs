//! MCP tokens: a new token, what it may do, and what a model pays for it.

use std::collections::HashMap;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use http::StatusCode;

use super::connect::{self, Made};
use super::guard::{FoundAt, Here};
use super::trouble::Trouble;
use super::{Frame, Web, with_status};
use crate::domain::person::Role;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::{self, LIFETIMES, PlainToken};
use crate::domain::untrusted::line;
use crate::store::customers::Target;
use crate::tools::{Catalog, Entry};

/// What a token is offered to be allowed: the word of the form, and what people read.
const REACHES: [(&str, &str); 3] =
    [("all", "Everything: read, and start runs"), ("read", "Only read"), ("chosen", "What I choose below")];

#[derive(Template)]
#[template(path = "token_new.html", config = "src/web/askama.toml")]
struct NewPage<'a> {
    here: Frame,
    problem: Option<&'a str>,
    name: &'a str,
    lifetimes: Vec<(String, String)>,
    lifetime: &'a str,
    reaches: [(&'static str, &'static str); 3],
    reach: &'a str,
    scopes: Vec<ScopeView>,
    tools: &'a [ToolCost],
    cost: usize,
}

struct ScopeView {
    name: &'static str,
    text: &'static str,
    read: bool,
    on: bool,
}

/// What a model pays for knowing a tool.
pub(super) struct ToolCost {
    pub(super) name: &'static str,
    scope: &'static str,
    cost: usize,
}

/// Every tool with what it costs: four bytes of what is listed are about one token.
pub(super) fn costs(catalog: &Catalog) -> Vec<ToolCost> {
    let cost = |entry: &Entry| {
        let definition = entry.definition();
        let bytes =
            definition.description.len() + definition.input_schema.to_string().len() + entry.name.len();
        ToolCost { name: entry.name, scope: entry.scope.as_str(), cost: bytes.div_ceil(4) }
    };
    catalog.entries().map(cost).collect()
}

pub(super) async fn form(State(web): State<Web>, here: Here) -> Result<Response, Trouble> {
    here.must(Role::manages_tokens)?;
    asked_again(&web, &here, &HashMap::new(), None)
}

/// The form, as it was filled in.
fn asked_again(
    web: &Web,
    here: &Here,
    said: &HashMap<String, String>,
    problem: Option<&str>,
) -> Result<Response, Trouble> {
    let word = |key: &str, default| said.get(key).map_or(default, String::as_str);
    let reach = word("reach", "all");
    let lifetimes = LIFETIMES.iter().map(|days| match days {
        Some(days) => (days.to_string(), format!("{days} days")),
        None => ("never".to_owned(), "never".to_owned()),
    });
    let scopes = Scope::ALL.iter().map(|scope| ScopeView {
        name: scope.as_str(),
        text: meaning(*scope),
        read: *scope != Scope::SyncTrigger,
        on: reach != "chosen" || said.contains_key(scope.as_str()),
    });
    let tools = &web.0.costs;
    let shown = NewPage {
        here: Frame::new(here, "tokens"),
        problem,
        name: word("name", ""),
        lifetimes: lifetimes.collect(),
        lifetime: word("lifetime", "90"),
        reaches: REACHES,
        reach,
        scopes: scopes.collect(),
        tools,
        cost: tools.iter().map(|tool| tool.cost).sum(),
    };
    with_status(if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }, &shown)
}

fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::FlowsRead => "flows and their mappings",
        Scope::RunsRead => "runs and their errors",
        Scope::PayloadsRead => "redacted excerpts of the records that failed",
        Scope::ConnectorsRead => "connectors with their health",
        Scope::HealthRead => "the health of the workspace",
        Scope::SyncTrigger => "start a run",
    }
}

pub(super) async fn create(
    State(web): State<Web>,
    here: Here,
    found_at: FoundAt,
    Form(said): Form<HashMap<String, String>>,
) -> Result<Response, Trouble> {
    here.must(Role::manages_tokens)?;
    let word = |key: &str| said.get(key).map_or("", |value| value.trim());
    let Some(name) = token::name(word("name")) else {
        return asked_again(&web, &here, &said, Some("A name has 1 to 200 characters."));
    };
    let lifetime = LIFETIMES.into_iter().find(|days| match days {
        Some(days) => word("lifetime") == days.to_string(),
        None => word("lifetime") == "never",
    });
    let Some(lifetime) = lifetime else {
        return asked_again(&web, &here, &said, Some("Choose when it ends."));
    };
    let scopes: Scopes = match word("reach") {
        "all" => Scopes::all(),
        "read" => Scopes::all().without(&[Scope::SyncTrigger]),
        _ => Scope::ALL.iter().copied().filter(|scope| said.contains_key(scope.as_str())).collect(),
    };
    if scopes == Scopes::default() {
        return asked_again(&web, &here, &said, Some("Choose at least one right."));
    }
    let token = PlainToken::new(web.0.store.ids());
    let mut tx = web.0.store.begin(&here.member.tenancy).await?;
    let ends = lifetime.map(|days| tx.now() + TimeDelta::days(days));
    let id = tx.add_token(&here.member.user, name, &token, scopes, ends).await?;
    tx.audit(&here.actor(), "token.created", Target::Token(&id), Some(name)).await?;
    tx.commit().await?;
    let made = Made { id: id.to_string(), name: line(name) };
    connect::show(&web, &here, &found_at, Some((made, &token)))
}
