//! Pages ask what tools answer: the same figures, in the same words, for whoever is signed in.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Web;
use super::guard::Here;
use super::trouble::Trouble;
use crate::domain::scope::Scopes;
use crate::protocol::{CallError, CallTool, Content, Exchange, Revision, Server, ToolAnswer};
use crate::service::access::Principal;

/// What a tool answers this person, as far as `T` wants to know.
pub(super) async fn ask<T: DeserializeOwned>(
    web: &Web,
    here: &Here,
    tool: &str,
    arguments: Value,
) -> Result<T, Trouble> {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let answer = answer(web, here, &here.caller(Scopes::all()), tool, arguments).await;
    let answer = answer.map_err(|error| match error {
        CallError::Unavailable { .. } => Trouble::Later,
        CallError::InvalidArguments { .. } => Trouble::NotFound,
        _ => Trouble::Ours,
    })?;
    // What there is not, and what another customer has, are one to a tool and so to a page.
    let Some(structured) = answer.structured.as_ref().filter(|_| !answer.is_error) else {
        let text =
            |content: &Content| matches!(content, Content::Text(text) if text.starts_with("TOKEN_REVOKED"));
        let ended = answer.content.iter().any(text);
        return Err(if ended { Trouble::SignIn(String::new()) } else { Trouble::NotFound });
    };
    serde_json::from_str(&words(structured.get())).map_err(|error| {
        tracing::error!(%error, tool, "a page does not understand the tool");
        Trouble::Ours
    })
}

/// What a tool answers this person, who calls as `caller`.
pub(super) async fn answer(
    web: &Web,
    here: &Here,
    caller: &Principal,
    tool: &str,
    arguments: Map<String, Value>,
) -> Result<ToolAnswer, CallError> {
    let exchange = Exchange::unheard(here.request.clone(), Revision::MODERN);
    web.0.tools.call_tool(caller, CallTool { name: tool.to_owned(), arguments }, &exchange).await
}

/// Words of another system without the marks that tell a model what they are; a page shows them as words anyway.
fn words(text: &str) -> String {
    text.replace("<<data ", "").replace(" data>>", "")
}
