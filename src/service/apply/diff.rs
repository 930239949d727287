//! What changes between two definitions, in words.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::definition::{FieldMapping, FlowDefinition, Stream};
use crate::store::definitions::{ConnectorRecord, FlowRecord};

/// Longest value shown in a difference, in characters.
const MAX_SHOWN: usize = 120;

/// One thing that is added, removed or different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What, e.g. `field email: transform`.
    pub what: String,
    /// What it was; `None` when there was none.
    pub before: Option<String>,
    /// What it is; `None` when there is none any more.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: {before} -> {after}", self.what),
            (None, Some(after)) => write!(f, "{} added: {after}", self.what),
            (Some(before), None) => write!(f, "{} removed: {before}", self.what),
            (None, None) => f.write_str(&self.what),
        }
    }
}

/// What changes at a connector.
pub(super) fn connector(old: &ConnectorRecord, new: &ConnectorRecord) -> Vec<Change> {
    let flat = |record: &ConnectorRecord| {
        let mut fields = fields(record);
        if let Some(Value::Object(config)) = fields.shift_remove("config") {
            fields.extend(config);
        }
        fields
    };
    entries("", &flat(old), &flat(new))
}

/// What changes at a flow apart from its definition.
pub(super) fn settings(old: &FlowRecord, new: &FlowRecord) -> Vec<Change> {
    let settings = |record: &FlowRecord| {
        let value = serde_json::json!({
            "name": record.name, "aliases": record.aliases, "description": record.description,
            "state": record.state, "owner": record.owner_email, "tags": record.tags, "source": record.source,
            "destination": record.destination, "schedule": record.schedule.in_words(),
            "max_attempts": record.max_attempts, "timeout_s": record.timeout_s,
            "max_error_rate": record.max_error_rate, "degraded_error_rate": record.degraded_error_rate,
        });
        fields(&value)
    };
    let mut changes = entries("", &settings(old), &settings(new));
    if changes.is_empty() && old.schedule != new.schedule {
        // Two schedules can read alike in words and differ, in their zone for example.
        changes.push(Change {
            what: "schedule".to_owned(),
            before: None,
            after: Some(new.schedule.in_words()),
        });
    }
    changes
}

/// What changes at a definition: streams, then fields, then their keys.
pub(super) fn definition(old: &FlowDefinition, new: &FlowDefinition) -> Vec<Change> {
    if old == new {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for stream in &old.streams {
        if !new.streams.iter().any(|other| other.name() == stream.name()) {
            let what = format!("stream {}", stream.name());
            changes.push(Change { what, before: Some(count(stream)), after: None });
        }
    }
    for stream in &new.streams {
        match old.streams.iter().find(|other| other.name() == stream.name()) {
            None => {
                let what = format!("stream {}", stream.name());
                changes.push(Change { what, before: None, after: Some(count(stream)) });
            }
            Some(before) => {
                let prefix =
                    if new.streams.len() > 1 { format!("stream {}, ", stream.name()) } else { String::new() };
                changes.extend(streams(&prefix, before, stream));
            }
        }
    }
    if changes.is_empty() {
        changes.push(Change {
            what: "order of streams or fields changed".to_owned(),
            before: None,
            after: None,
        });
    }
    changes
}

/// The changes of a version in one line, for people who ask what changed.
pub(super) fn summary(changes: &[Change]) -> String {
    const MAX: usize = 400;
    let whole = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match whole.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

fn streams(prefix: &str, old: &Stream, new: &Stream) -> Vec<Change> {
    let own = |stream: &Stream| {
        let mut fields = fields(stream);
        fields.shift_remove("mappings");
        fields
    };
    let mut changes = entries(prefix, &own(old), &own(new));
    for mapping in &old.mappings {
        if !new.mappings.iter().any(|other| other.destination_field == mapping.destination_field) {
            let what = format!("{prefix}field {}", mapping.destination_field);
            changes.push(Change { what, before: Some(origin(mapping)), after: None });
        }
    }
    for mapping in &new.mappings {
        let what = format!("{prefix}field {}", mapping.destination_field);
        match old.mappings.iter().find(|other| other.destination_field == mapping.destination_field) {
            None => changes.push(Change { what, before: None, after: Some(origin(mapping)) }),
            Some(before) => changes.extend(entries(&format!("{what}: "), &fields(before), &fields(mapping))),
        }
    }
    changes
}

fn count(stream: &Stream) -> String {
    match stream.mappings.len() {
        0 => "every field copied".to_owned(),
        1 => "1 field".to_owned(),
        n => format!("{n} fields"),
    }
}

fn origin(mapping: &FieldMapping) -> String {
    match (&mapping.source_path, &mapping.constant, &mapping.transform) {
        (Some(path), _, None) => path.clone(),
        (Some(path), _, Some(transform)) => format!("{path}, {transform}"),
        (None, Some(constant), _) => format!("constant {constant}"),
        (None, None, transform) => transform.clone().unwrap_or_default(),
    }
}

/// The fields of a record as it is stored; what is null is not there.
fn fields(record: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(mut fields)) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        // Records here are structs with named fields, which always have a JSON object.
        _ => Map::new(),
    }
}

fn entries(prefix: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Change> {
    let gone =
        old.iter().filter(|(key, _)| !new.contains_key(*key)).map(|(key, value)| (key, Some(value), None));
    let here = new.iter().map(|(key, value)| (key, old.get(key), Some(value)));
    gone.chain(here)
        .filter(|(_, before, after)| before != after)
        .map(|(key, before, after)| Change {
            what: format!("{prefix}{key}"),
            before: before.map(shown),
            after: after.map(shown),
        })
        .collect()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
