//! Answers "which field goes where, and how?". Needs the scope `flows:read`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cx::ToolCx;
use super::error::ToolError;
use super::find;
use super::tool::{Answer, Tool};
use crate::domain::definition::{FieldMapping, FlowDefinition, OnFail, Stream};
use crate::domain::scope::Scope;
use crate::domain::words;
use crate::view::text::{self, Page};

pub(super) struct GetFlowMappings;

words! {
    /// Which mappings.
    Only {
        /// Every one.
        All = "all",
        /// With a transform.
        Transformed = "transformed",
        /// With a filter.
        Filtered = "filtered",
        /// With a validation.
        Validated = "validated",
        /// With either.
        FilteredOrValidated = "filtered_or_validated",
        /// That a record must have.
        Required = "required",
        /// That identify a record.
        Keys = "keys",
        /// With the same value for every record.
        Constants = "constants",
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    #[serde(flatten)]
    filters: Filters,
    /// Rows per page (max 500).
    #[serde(default = "two_hundred")]
    #[schemars(range(min = 1, max = 500))]
    limit: u16,
    /// next_cursor of the previous page. Keep the other arguments unchanged.
    cursor: Option<String>,
}

fn two_hundred() -> u16 {
    200
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Filters {
    /// Flow name or id, e.g. "HubSpot → Salesforce contacts" or "flow_01jd…". Case-insensitive; '→', '->' and 'to' are the same; aliases work.
    #[schemars(length(min = 1, max = 200))]
    flow: String,
    /// Which mappings to return.
    #[serde(default = "all")]
    only: Only,
    /// Only mappings whose source path or destination field contains this text.
    #[schemars(length(max = 200))]
    field: Option<String>,
}

fn all() -> Only {
    Only::All
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    flow_id: String,
    flow: String,
    version: i32,
    streams: Vec<StreamView>,
    counts: CountsView,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct StreamView {
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_filter: Option<String>,
    mappings: Vec<MappingView>,
}

#[derive(Serialize, JsonSchema)]
struct MappingView {
    destination_field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constant: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    validations: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_fail: Option<String>,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    is_key: bool,
    sensitive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
}

/// Of the whole flow, whatever the filter.
#[derive(Serialize, JsonSchema)]
struct CountsView {
    total: usize,
    transformed: usize,
    filtered: usize,
    validated: usize,
    required: usize,
}

impl Tool for GetFlowMappings {
    const NAME: &'static str = "get_flow_mappings";
    const TITLE: &'static str = "Get field mappings";
    const DESCRIPTION: &'static str = "List the source → destination field mappings of a flow: source path, destination field \
        and type, transform, filter, validation, required, default. Use only=filtered_or_validated to answer \"which fields have \
        filters or validations\". Also returns the stream's record filter (rows dropped before mapping).";
    const SCOPE: Scope = Scope::FlowsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let filters = &input.filters;
        let found = find::flow(cx, &filters.flow).await?;
        let start = cx.open_cursor(Self::NAME, filters, input.cursor.as_deref())?;
        let (version, definition) = cx.read().definition(&found.id).await?.ok_or_else(|| {
            ToolError::refused("FLOW_NOT_FOUND", "the flow was just removed. list_flows shows all.")
        })?;
        // A cursor of another version would point at other rows.
        let start = match start.as_deref() {
            Some([seen, stream, row]) if *seen == version.to_string() => {
                (stream.parse().unwrap_or(0), row.parse().unwrap_or(0))
            }
            Some(_) => {
                return Err(ToolError::argument(
                    "cursor",
                    "the flow has changed since that page",
                    "no cursor, to begin anew",
                ));
            }
            None => (0, 0),
        };
        let wanted = wanted(&definition, filters);
        let counts = counts(&definition);
        let name = text::named(&found.name);
        let summary = format!(
            "{name} v{version}: {} ({} transformed, {} filtered, {} validated, {} required){}.",
            text::counted(counts.total as i64, "mapping", "mappings"),
            counts.transformed,
            counts.filtered,
            counts.validated,
            counts.required,
            if wanted.len() == counts.total {
                String::new()
            } else {
                format!("; {} of them match", text::count(wanted.len() as i64))
            }
        );
        let mut page = Page::new(&summary);
        let mut streams: Vec<StreamView> = Vec::new();
        let (mut told, mut before) = (0, 0);
        // The stream, and the row of it, that the next page begins with.
        let mut next = None;
        'page: for (place, stream) in definition.streams.iter().enumerate() {
            let rows: Vec<_> = wanted.iter().filter(|(of, _)| *of == place).map(|(_, row)| *row).collect();
            let skip: usize = if place == start.0 { start.1 } else { 0 };
            if place < start.0 {
                before += rows.len();
                continue;
            }
            before += skip.min(rows.len());
            // What a stream leaves out, and that it copies every field, holds whichever mappings are asked for.
            if rows.is_empty() && stream.record_filter.is_none() && !stream.mappings.is_empty() {
                continue;
            }
            if told == usize::from(input.limit) || !page.row(&header(stream), streams.len()) {
                next = Some((place, skip));
                break;
            }
            let first = streams.is_empty();
            streams.push(StreamView {
                source: text::named(&stream.source_object),
                destination: text::named(&stream.destination_object),
                record_filter: stream.record_filter.as_deref().map(text::named),
                mappings: Vec::new(),
            });
            for (row, mapping) in rows.iter().enumerate().skip(skip) {
                let view = MappingView::from(*mapping);
                let rows_before = if first { row - skip } else { 1 };
                if told == usize::from(input.limit) || !page.row(&view.line(), rows_before) {
                    next = Some((place, row));
                    break 'page;
                }
                told += 1;
                if let Some(stream) = streams.last_mut() {
                    stream.mappings.push(view);
                }
            }
        }
        let mut notices = found.notices();
        let next_cursor = match next {
            Some((place, row)) => {
                let position = [version.to_string(), place.to_string(), row.to_string()];
                let cursor = cx.seal_cursor(Self::NAME, filters, &position)?;
                let more = match wanted.len().saturating_sub(before + told) {
                    0 => "more streams".to_owned(),
                    more => text::counted(more as i64, "more mapping", "more mappings"),
                };
                notices.push(format!("{more}; pass cursor={cursor}"));
                Some(cursor)
            }
            None => None,
        };
        let output = Output {
            summary,
            flow_id: found.id.to_string(),
            flow: name,
            version,
            streams,
            counts,
            total: wanted.len(),
            next_cursor,
        };
        Ok(Answer { page, output, notices, next: Vec::new() })
    }
}

/// The mappings that match, each with the place of its stream.
fn wanted<'a>(definition: &'a FlowDefinition, filters: &Filters) -> Vec<(usize, &'a FieldMapping)> {
    let part = filters.field.as_ref().map(|field| field.to_lowercase());
    let named = |mapping: &FieldMapping| {
        part.as_ref().is_none_or(|part| {
            mapping.destination_field.to_lowercase().contains(part)
                || mapping.source_path.as_ref().is_some_and(|path| path.to_lowercase().contains(part))
        })
    };
    let kind = |mapping: &FieldMapping| match filters.only {
        Only::All => true,
        Only::Transformed => mapping.transform.is_some(),
        Only::Filtered => mapping.filter.is_some(),
        Only::Validated => validated(mapping),
        Only::FilteredOrValidated => mapping.filter.is_some() || validated(mapping),
        Only::Required => mapping.required,
        Only::Keys => mapping.is_key,
        Only::Constants => mapping.constant.is_some(),
    };
    let streams = definition.streams.iter().enumerate();
    streams
        .flat_map(|(place, stream)| stream.mappings.iter().map(move |mapping| (place, mapping)))
        .filter(|(_, mapping)| named(mapping) && kind(mapping))
        .collect()
}

/// Whether some rule can reject the value: a keyword, or that it must be there.
fn validated(mapping: &FieldMapping) -> bool {
    !mapping.validate.is_empty() || mapping.required
}

fn counts(definition: &FlowDefinition) -> CountsView {
    let all: Vec<&FieldMapping> = definition.streams.iter().flat_map(|stream| &stream.mappings).collect();
    let count = |of: fn(&FieldMapping) -> bool| all.iter().filter(|mapping| of(mapping)).count();
    CountsView {
        total: all.len(),
        transformed: count(|mapping| mapping.transform.is_some()),
        filtered: count(|mapping| mapping.filter.is_some()),
        validated: count(validated),
        required: count(|mapping| mapping.required),
    }
}

fn header(stream: &Stream) -> String {
    let key = stream.key_fields();
    let key = if key.is_empty() {
        String::new()
    } else {
        format!(" on {}", key.into_iter().map(text::named).collect::<Vec<_>>().join(", "))
    };
    let filter = match &stream.record_filter {
        Some(filter) => format!(" Record filter: {}", text::named(filter)),
        None => String::new(),
    };
    let copied = if stream.mappings.is_empty() { " Every field is copied under its own name." } else { "" };
    format!(
        "Stream {} → {}, {}{key}.{filter}{copied}",
        text::named(&stream.source_object),
        text::named(&stream.destination_object),
        stream.write_mode
    )
}

/// A value that the flow's author wrote: texts as names are told, lists and maps as fenced JSON.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => text::named(text).into(),
        Value::Array(_) | Value::Object(_) => text::fenced(&value.to_string()).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A value without the quotation marks of JSON.
fn spelt(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl From<&FieldMapping> for MappingView {
    fn from(mapping: &FieldMapping) -> Self {
        Self {
            destination_field: text::named(&mapping.destination_field),
            source_path: mapping.source_path.as_deref().map(text::named),
            constant: mapping.constant.as_ref().map(shown),
            destination_type: mapping.destination_type.map(|kind| kind.to_string()),
            transform: mapping.transform.as_deref().map(text::named),
            filter: mapping.filter.as_deref().map(text::named),
            validations: mapping
                .validate
                .iter()
                .map(|(word, value)| format!("{word} {}", text::named(spelt(value))))
                .collect(),
            on_fail: (!mapping.validate.is_empty() || mapping.on_fail != OnFail::Reject)
                .then(|| mapping.on_fail.to_string()),
            required: mapping.required,
            default: mapping.default.as_ref().map(shown),
            is_key: mapping.is_key,
            sensitive: mapping.sensitive,
            notes: mapping.notes.as_deref().map(text::fenced),
        }
    }
}

impl MappingView {
    /// `$.properties.email → Email (string, key, required) | transform … | validate … → reject`.
    fn line(&self) -> String {
        let from = match (&self.source_path, &self.constant) {
            (_, Some(constant)) => format!("constant {}", spelt(constant)),
            (Some(path), None) => path.clone(),
            (None, None) => "(record)".to_owned(),
        };
        let mut about: Vec<&str> = self.destination_type.as_deref().into_iter().collect();
        about.extend(
            [(self.is_key, "key"), (self.required, "required"), (self.sensitive, "sensitive")]
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, word)| *word),
        );
        let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
        let mut line = format!("{from} → {}{about}", self.destination_field);
        if let Some(transform) = &self.transform {
            line.push_str(&format!(" | transform {transform}"));
        }
        if let Some(filter) = &self.filter {
            line.push_str(&format!(" | filter: write only if {filter}"));
        }
        if !self.validations.is_empty() {
            let on_fail = self.on_fail.as_deref().unwrap_or("reject");
            line.push_str(&format!(" | validate {} → {on_fail}", self.validations.join(", ")));
        }
        if let Some(default) = &self.default {
            line.push_str(&format!(" | default {}", spelt(default)));
        }
        if let Some(notes) = &self.notes {
            line.push_str(&format!(" | {notes}"));
        }
        line
    }
}
