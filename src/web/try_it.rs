//! Try it: any tool, as one of the workspace's tokens would have it answered.

use std::collections::HashMap;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::ask::answer;
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::untrusted::line;
use crate::json;
use crate::protocol::{CallError, Content, ToolAnswer};
use crate::service::rate_limit::seconds;

#[derive(Template)]
#[template(path = "try_it.html", config = "src/web/askama.toml")]
struct TryPage {
    here: Frame,
    tokens: Vec<Choice>,
    tools: Vec<Choice>,
    arguments: String,
    problem: Option<&'static str>,
    outcome: Option<Outcome>,
}

/// Something to be chosen from a list.
struct Choice {
    value: String,
    text: String,
    chosen: bool,
}

/// What came of a call.
struct Outcome {
    request: String,
    text: String,
    structured: Option<String>,
    failed: bool,
    /// About how many tokens a model reads.
    cost: usize,
}

pub(super) async fn form(State(web): State<Web>, here: Here) -> Result<Response, Trouble> {
    show(&web, &here, &HashMap::new(), None, None).await
}

pub(super) async fn call(
    State(web): State<Web>,
    here: Here,
    Form(said): Form<HashMap<String, String>>,
) -> Result<Response, Trouble> {
    let word = |key: &str| said.get(key).map_or("", |value| value.trim());
    let tool = word("tool");
    let given = Some(word("arguments")).filter(|text| !text.is_empty()).unwrap_or("{}");
    let Ok(Value::Object(arguments)) = json::read(given) else {
        return show(
            &web,
            &here,
            &said,
            Some("The arguments are one JSON object, such as {\"window\": \"7d\"}."),
            None,
        )
        .await;
    };
    let scopes = match word("token") {
        "" => Scopes::all(),
        id => scopes_of(&web, &here, id).await?,
    };
    let caller = here.caller(scopes);
    web.0.access.draw_again(&caller).await.map_err(|wait| Trouble::Busy(seconds(wait)))?;
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments } });
    let answered = match answer(&web, &here, &caller, tool, arguments).await {
        Ok(answered) | Err(CallError::InvalidArguments { answer: answered, .. }) => answered,
        Err(CallError::UnknownTool) => return Err(Trouble::NotFound),
        Err(CallError::Unavailable { .. }) => return Err(Trouble::Later),
        Err(_) => return Err(Trouble::Ours),
    };
    show(&web, &here, &said, None, Some(Outcome::new(&request, &answered))).await
}

impl Outcome {
    fn new(request: &Value, answered: &ToolAnswer) -> Self {
        let text = |content: &Content| match content {
            Content::Text(text) => Some(text.clone()),
            _ => None,
        };
        let text: String = answered.content.iter().filter_map(text).collect();
        let structured = answered.structured.as_ref().map(|raw| {
            json::read(raw.get()).map_or_else(|_| raw.get().to_owned(), |value| format!("{value:#}"))
        });
        Self {
            request: format!("{request:#}"),
            cost: text.len().div_ceil(4),
            text,
            structured,
            failed: answered.is_error,
        }
    }
}

/// What one of the workspace's live tokens may do.
async fn scopes_of(web: &Web, here: &Here, id: &str) -> Result<Scopes, Trouble> {
    let now = web.0.store.now();
    let tokens = web.0.store.read(&here.member.tenancy).tokens().await?;
    let token = tokens.into_iter().find(|token| token.token_id == id && token.is_live(now));
    let token = token.ok_or(Trouble::NotFound)?;
    Ok(token.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect())
}

async fn show(
    web: &Web,
    here: &Here,
    said: &HashMap<String, String>,
    problem: Option<&'static str>,
    outcome: Option<Outcome>,
) -> Result<Response, Trouble> {
    let word = |key: &str| said.get(key).map_or("", |value| value.trim());
    let now = web.0.store.now();
    let tokens = web.0.store.read(&here.member.tenancy).tokens().await?;
    let live = tokens.iter().filter(|token| token.is_live(now));
    let mine = Choice { value: String::new(), text: "yourself".to_owned(), chosen: word("token").is_empty() };
    let tokens = live.map(|token| Choice {
        value: token.token_id.clone(),
        text: format!("{} (…{})", line(&token.name), token.last_four),
        chosen: word("token") == token.token_id,
    });
    let tools = web.0.costs.iter().map(|tool| Choice {
        value: tool.name.to_owned(),
        text: tool.name.to_owned(),
        chosen: word("tool") == tool.name,
    });
    page(&TryPage {
        here: Frame::new(here, "try"),
        tokens: std::iter::once(mine).chain(tokens).collect(),
        tools: tools.collect(),
        arguments: said.get("arguments").cloned().unwrap_or_default(),
        problem,
        outcome,
    })
}
