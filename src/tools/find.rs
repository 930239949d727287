//! Finding flows and connectors by the words that people use for them.

use super::cx::ToolCx;
use super::error::ToolError;
use crate::domain::ids::{ConnectorId, FlowId};
use crate::domain::names::{self, Match, MatchedBy, Named};
use crate::domain::untrusted;
use crate::store::connectors::Connector;

/// A flow that was found.
pub(super) struct Found {
    pub(super) id: FlowId,
    pub(super) name: String,
    pub(super) matched_by: MatchedBy,
    /// What to tell when it was not named exactly.
    pub(super) notice: Option<String>,
}

impl Found {
    pub(super) fn notices(&self) -> Vec<String> {
        self.notice.iter().cloned().collect()
    }
}

/// The flow that `text` names, for a read: words that fit only one flow are enough.
pub(super) async fn flow(cx: &ToolCx<'_>, text: &str) -> Result<Found, ToolError> {
    find_flow(cx, text, true).await
}

/// The flow that `text` names exactly, for a write: nothing is guessed.
pub(super) async fn flow_exactly(cx: &ToolCx<'_>, text: &str) -> Result<Found, ToolError> {
    find_flow(cx, text, false).await
}

async fn find_flow(cx: &ToolCx<'_>, text: &str, guess: bool) -> Result<Found, ToolError> {
    let id = FlowId::parse(text).ok();
    let by = if id.is_some() { MatchedBy::Id } else { MatchedBy::Name };
    if let Some(named) = cx.read().flow_named(id.as_ref(), &names::exact_key(text)).await? {
        return Ok(Found { id: named.id, name: named.name, matched_by: by, notice: None });
    }
    let all = cx.read().flow_names().await?;
    let asked = untrusted::named(text);
    // What has an id's form was meant as an id: before a write its words are only a suggestion, unless some flow is called
    // just that.
    let only_an_id = !guess && id.is_some();
    let called = |named: &Named<FlowId>| named.label.to_lowercase() == text.trim().to_lowercase();
    let found = match names::resolve(text, &all, true) {
        Match::One(named, _) if only_an_id && !called(&named) => Match::None(vec![named]),
        Match::Several { named, .. } if only_an_id => Match::None(named),
        found => found,
    };
    match found {
        Match::One(named, MatchedBy::Words) if !guess => Err(ToolError::refused(
            "FLOW_NAME_NOT_EXACT",
            format!(
                "trigger_sync needs the exact name. \"{asked}\" probably means \"{}\"; call again with flow set to that.",
                untrusted::named(&named.name)
            ),
        )),
        Match::One(named, matched_by) => Ok(Found {
            notice: Some(format!("Matched \"{asked}\" to \"{}\".", untrusted::named(&named.name))),
            id: named.id,
            name: named.name,
            matched_by,
        }),
        Match::Several { named, of } => {
            let more =
                if of > named.len() { format!(" and {} more", of - named.len()) } else { String::new() };
            Err(ToolError::refused(
                "FLOW_AMBIGUOUS",
                format!(
                    "\"{asked}\" fits {of} flows: {}{more}. Repeat with one of these names.",
                    list(&named)
                ),
            ))
        }
        Match::None(near) => Err(ToolError::refused("FLOW_NOT_FOUND", not_found(&asked, &near, &all))),
    }
}

fn not_found(asked: &str, near: &[Named<FlowId>], all: &[Named<FlowId>]) -> String {
    let mut ids: Vec<&FlowId> = all.iter().map(|named| &named.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let meant = if near.is_empty() {
        String::new()
    } else {
        let near: Vec<String> = near
            .iter()
            .map(|named| format!("\"{}\" ({})", untrusted::named(&named.name), named.id))
            .collect();
        format!(" Did you mean: {}?", near.join(", "))
    };
    let all = if ids.is_empty() {
        "There are none yet.".to_owned()
    } else {
        format!("list_flows shows all {}.", ids.len())
    };
    format!("no flow is called \"{asked}\".{meant} {all}")
}

fn list<I>(named: &[Named<I>]) -> String {
    let names: Vec<String> =
        named.iter().map(|named| format!("\"{}\"", untrusted::named(&named.name))).collect();
    names.join(", ")
}

/// The connectors that `text` means: one by id or name, or all of a service.
pub(super) async fn connectors(cx: &ToolCx<'_>, text: &str) -> Result<Vec<ConnectorId>, ToolError> {
    let all = cx.read().connectors().await?;
    let found = matching(&all, text);
    if found.is_empty() {
        let named: Vec<Named<ConnectorId>> = all
            .iter()
            .map(|connector| Named {
                id: connector.id.clone(),
                label: connector.name.clone(),
                name: connector.name.clone(),
            })
            .collect();
        let near = match names::resolve(text, &named, false) {
            Match::One(one, _) => vec![one],
            Match::Several { named: near, .. } | Match::None(near) => near,
        };
        let near = if near.is_empty() { String::new() } else { format!(" Did you mean: {}?", list(&near)) };
        return Err(ToolError::refused(
            "CONNECTOR_NOT_FOUND",
            format!(
                "no connector is called \"{}\".{near} {}",
                untrusted::named(text),
                match all.len() {
                    0 => "There are none yet.".to_owned(),
                    all => format!("list_connectors shows all {all}."),
                }
            ),
        ));
    }
    Ok(found.into_iter().map(|connector| connector.id.clone()).collect())
}

/// The connectors that `text` means, most literal reading first: id, name, service, words of the name.
pub(super) fn matching<'a>(all: &'a [Connector], text: &str) -> Vec<&'a Connector> {
    if let Ok(id) = ConnectorId::parse(text) {
        return all.iter().filter(|connector| connector.id == id).collect();
    }
    let key = names::exact_key(text);
    let by = |fits: &dyn Fn(&Connector) -> bool| {
        all.iter().filter(|connector| fits(connector)).collect::<Vec<_>>()
    };
    let exact = by(&|connector| names::exact_key(&connector.name) == key);
    if !exact.is_empty() {
        return exact;
    }
    let service = by(&|connector| names::exact_key(&connector.service) == key);
    if !service.is_empty() {
        return service;
    }
    let words: Vec<&str> = key.split(' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Vec::new();
    }
    by(&|connector| {
        let name = format!("{} {}", names::exact_key(&connector.name), names::exact_key(&connector.service));
        words.iter().all(|word| name.split(' ').any(|part| part == *word))
    })
}
