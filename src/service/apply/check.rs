//! Whether what a file defines fits: with itself, with the workspace, with what the operator allows and with
//! what the engine understands.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Rules;
use super::file::{Placed, Wanted, WantedFlow};
use super::section::Problems;
use crate::domain::connector::ConnectorKind;
use crate::domain::definition::WriteMode;
use crate::domain::flow::FlowState;
use crate::domain::ids::{ConnectorId, FlowId};
use crate::domain::names::{exact_key, nearest_word};
use crate::domain::schedule::Schedule;
use crate::engine::connectors::{readable, writable};
use crate::engine::mapping::Plan;
use crate::store::definitions::{ConnectorRecord, Definitions};

/// Notes everything in `wanted` that cannot be.
pub(super) fn check(
    wanted: &Wanted,
    stored: &Definitions,
    rules: &Rules<'_>,
    now: DateTime<Utc>,
    problems: &Problems,
) {
    let (mut named, mut chosen) = (BTreeMap::new(), BTreeMap::new());
    for Placed { path, item } in &wanted.connectors {
        let name = &item.record.name;
        if let Some(earlier) = named.insert(exact_key(name), path) {
            problems.add(format!("{path}.name"), format!("`{name}` is the name of {earlier} already"));
        }
        let stored = stored.connectors.iter().map(|one| (one.id.as_str(), one.record.name.as_str()));
        own_id(path, item.id.as_ref().map(ConnectorId::as_str), name, stored, &mut chosen, problems);
        permitted(path, &item.record, rules, problems);
    }
    flow_names(wanted, stored, problems);
    let kinds = kinds(wanted, stored);
    for flow in &wanted.flows {
        let record = &flow.item.record;
        let stored_ids = stored.flows.iter().map(|one| (one.id.as_str(), one.record.name.as_str()));
        let id = flow.item.id.as_ref().map(FlowId::as_str);
        own_id(&flow.path, id, &record.name, stored_ids, &mut chosen, problems);
        let kind = |key: &str, name: &str| {
            let kind = kinds.get(&exact_key(name)).copied();
            if kind.is_none() {
                let known = kinds_known(wanted, stored);
                let near =
                    nearest_word(name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
                let reason = format!("there is no connector called `{name}`{}", near.unwrap_or_default());
                problems.add(format!("{}.{key}", flow.path), reason);
            }
            kind
        };
        let source = kind("source", &record.source);
        let destination = kind("destination", &record.destination);
        let active = is_active(&flow.item, stored);
        if let Schedule::Cron { expression, .. } = &record.schedule
            && active
            && record.schedule.next_after(now).is_none()
        {
            problems.add(
                format!("{}.schedule", flow.path),
                format!("`{expression}` names no day that ever comes; say `manual` for never"),
            );
        }
        if let Some(owner) = record.owner_email.as_ref().filter(|owner| !stored.users.contains_key(*owner)) {
            problems.add(
                format!("{}.owner", flow.path),
                format!("nobody in this workspace has the address {owner}"),
            );
        }
        streams(flow, source, destination, active, problems);
    }
}

/// Whether the id that the file chooses for what is called `name` is its own; `chosen` is what it chose before, and where.
fn own_id<'a>(
    path: &'a str,
    id: Option<&'a str>,
    name: &str,
    stored: impl Iterator<Item = (&'a str, &'a str)>,
    chosen: &mut BTreeMap<&'a str, &'a str>,
    problems: &Problems,
) {
    let Some(new) = id else { return };
    if let Some(earlier) = chosen.insert(new, path) {
        problems.add(format!("{path}.id"), format!("{new} is the id of {earlier} already"));
    }
    for (id, of) in stored {
        if (exact_key(of) == exact_key(name)) != (id == new) {
            problems.add(format!("{path}.id"), format!("`{of}` has the id {id}, and ids do not change"));
        }
    }
}

/// Whether the operator named what a connector leads to.
fn permitted(path: &str, record: &ConnectorRecord, rules: &Rules<'_>, problems: &Problems) {
    let (key, allowed, what) = match record.kind {
        ConnectorKind::Files => ("root", rules.files_roots, "directory"),
        ConnectorKind::Postgres => ("dsn", rules.postgres_dsns, "database"),
        ConnectorKind::Sim => return,
    };
    let name = record.config[key].as_str().unwrap_or_default();
    if !allowed.iter().any(|allowed| allowed == name) {
        let known = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        problems.add(
            format!("{path}.{key}"),
            format!("the operator of this server named no {what} `{name}` (there is: {known})"),
        );
    }
}

/// Names and aliases stand for one flow each, in the file and in the workspace.
fn flow_names(wanted: &Wanted, stored: &Definitions, problems: &Problems) {
    let ours: Vec<String> = wanted.flows.iter().map(|flow| exact_key(&flow.item.record.name)).collect();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for flow in stored.flows.iter().filter(|flow| !ours.contains(&exact_key(&flow.record.name))) {
        for label in [&flow.record.name].into_iter().chain(&flow.record.aliases) {
            taken.insert(exact_key(label), format!("the flow `{}`", flow.record.name));
        }
    }
    for Placed { path, item: WantedFlow { record, .. } } in &wanted.flows {
        let alias = |n: usize| format!("{path}.aliases[{n}]");
        let labels = record.aliases.iter().enumerate().map(|(n, label)| (alias(n), label));
        for (place, label) in [(format!("{path}.name"), &record.name)].into_iter().chain(labels) {
            let key = exact_key(label);
            if key.is_empty() {
                problems.add(place, "needs a letter or a digit");
            } else if let Some(other) = taken.get(&key) {
                problems.add(place, format!("`{label}` already stands for {other}"));
            } else {
                taken.insert(key, path.clone());
            }
        }
    }
}

/// The kind of each connector that a flow may name, by the key of its name.
fn kinds(wanted: &Wanted, stored: &Definitions) -> BTreeMap<String, ConnectorKind> {
    let stored = stored.connectors.iter().map(|connector| &connector.record);
    let all = stored.chain(wanted.connectors.iter().map(|connector| &connector.item.record));
    all.map(|record| (exact_key(&record.name), record.kind)).collect()
}

fn kinds_known<'a>(wanted: &'a Wanted, stored: &'a Definitions) -> Vec<&'a str> {
    let stored = stored.connectors.iter().map(|connector| connector.record.name.as_str());
    stored.chain(wanted.connectors.iter().map(|connector| connector.item.record.name.as_str())).collect()
}

/// Whether a flow is to run. What no run could do may stand in one that nobody runs.
fn is_active(flow: &WantedFlow, stored: &Definitions) -> bool {
    let key = exact_key(&flow.record.name);
    let old = stored.flows.iter().find(|old| exact_key(&old.record.name) == key);
    let state = flow.state.or(old.map(|old| old.record.state));
    state.is_none_or(|state| state == FlowState::Active)
}

fn streams(
    flow: &Placed<WantedFlow>,
    source: Option<ConnectorKind>,
    destination: Option<ConnectorKind>,
    active: bool,
    problems: &Problems,
) {
    let streams = &flow.item.record.definition.streams;
    for (n, stream) in streams.iter().enumerate() {
        let path = format!("{}.stream[{n}]", flow.path);
        if streams[..n].iter().any(|earlier| earlier.name() == stream.name()) {
            problems.add(&path, format!("{} stands here twice", stream.name()));
        }
        let from = if stream.source_query.is_some() { "query" } else { "from" };
        if stream.source_query.is_some() && source.is_some_and(|kind| kind != ConnectorKind::Postgres) {
            problems.add(format!("{path}.query"), "only a postgres source can be asked a query");
        } else if let Some(Err(failure)) = source.filter(|_| active).map(|kind| readable(kind, stream)) {
            problems.add(format!("{path}.{from}"), failure.message);
        }
        if let Some(Err(failure)) = destination.filter(|_| active).map(|kind| writable(kind, stream)) {
            problems.add(format!("{path}.to"), failure.message);
        }
        if stream.source_format.is_some() && source.is_some_and(|kind| kind != ConnectorKind::Files) {
            problems.add(format!("{path}.format"), "only files have a format");
        }
        if stream.write_mode == WriteMode::Upsert && stream.key_fields().is_empty() {
            let reason = "is missing: name the fields that identify a record, or say write = \"append\"";
            problems.add(format!("{path}.key"), reason);
        }
        for error in Plan::compile(stream).err().into_iter().flatten() {
            problems.add(format!("{path}.{}", error.path), error.message);
        }
    }
}
