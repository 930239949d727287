//! The file itself: bytes, then TOML, then connectors and flows, each with where it stands.

use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::section::{Problems, Section};
use crate::domain::connector::{AuthType, ConnectorKind, ConnectorType};
use crate::domain::definition::{
    FieldMapping, FieldType, FileFormat, FlowDefinition, OnFail, Stream, SyncMode, WriteMode,
};
use crate::domain::flow::FlowState;
use crate::domain::health::DEGRADED_ERROR_RATE;
use crate::domain::ids::{ConnectorId, FlowId};
use crate::domain::schedule::Schedule;
use crate::store::connectors::RemoteTool;
use crate::store::definitions::{ConnectorRecord, FlowRecord};

/// Largest file that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Something the file defines, and where.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    /// E.g. `flow[2]`.
    pub path: String,
    /// What stands there.
    pub item: T,
}

/// A connector as the file defines it.
#[derive(Clone, Debug)]
pub(super) struct WantedConnector {
    /// The id it gets when it is made, where the file chooses one.
    pub id: Option<ConnectorId>,
    /// What it is to be.
    pub record: ConnectorRecord,
}

/// A flow as the file defines it.
#[derive(Clone, Debug)]
pub(super) struct WantedFlow {
    /// The id it gets when it is made, where the file chooses one.
    pub id: Option<FlowId>,
    /// What it is to be. Its state counts only where the file names one.
    pub record: FlowRecord,
    /// The state, where the file names one.
    pub state: Option<FlowState>,
}

/// Everything that a file defines.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Its connectors.
    pub connectors: Vec<Placed<WantedConnector>>,
    /// Its flows.
    pub flows: Vec<Placed<WantedFlow>>,
}

/// Reads the text of a file.
pub(super) fn table(bytes: &[u8], problems: &Problems) -> Option<toml::Table> {
    if bytes.len() > MAX_BYTES {
        problems.add("", format!("is larger than {} KiB; split it", MAX_BYTES / 1024));
        return None;
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        problems.add("", "is UTF-16; save it as UTF-8");
        return None;
    }
    // Some editors begin UTF-8 with a byte-order mark; it says nothing.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            problems.add(format!("line {line}"), "is not UTF-8; save the file as UTF-8");
            return None;
        }
    };
    match text.parse() {
        Ok(table) => Some(table),
        Err(error) => {
            let error: toml::de::Error = error;
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = 1 + before.matches('\n').count();
            problems.add(format!("line {line}"), format!("is not TOML: {}", error.message()));
            None
        }
    }
}

/// Reads what a file defines; cron fields are read in `zone` unless a flow says otherwise.
pub(super) fn wanted(table: &toml::Table, zone: Tz, problems: &Problems) -> Wanted {
    let root = Section::root(table, problems);
    let mut wanted = Wanted::default();
    for section in root.sections("connector") {
        let path = section.path().to_owned();
        wanted.connectors.extend(connector(section).map(|item| Placed { path, item }));
    }
    for section in root.sections("flow") {
        let path = section.path().to_owned();
        wanted.flows.extend(flow(section, zone).map(|item| Placed { path, item }));
    }
    root.finish();
    wanted
}

fn connector(section: Section<'_>) -> Option<WantedConnector> {
    let id = id(&section, ConnectorId::parse, "con_…");
    let name = section.name("name");
    let description = section.text("description");
    let service = section.text("service");
    let enabled = section.flag("enabled").unwrap_or(true);
    let check_interval_s = section.integer("check_interval_s", 5..=86_400).unwrap_or(300);
    if !section.has("kind") {
        section.problem("kind", "is missing: files, postgres or sim");
    }
    let kind = section.word("kind", ConnectorKind::ALL, ConnectorKind::as_str);
    let mut auth_type = AuthType::NoAuth;
    let (connector_type, usual_service, config) = match kind {
        Some(ConnectorKind::Files) => {
            let config = section.name("root").map(|root| json!({ "root": root }));
            (ConnectorType::File, "files", config)
        }
        Some(ConnectorKind::Postgres) => {
            auth_type = AuthType::Basic;
            let create = section.flag("create_tables").unwrap_or(false);
            let config = section.name("dsn").map(|dsn| json!({ "dsn": dsn, "create_tables": create }));
            (ConnectorType::SqlDb, "postgres", config)
        }
        Some(ConnectorKind::Sim) => {
            let word = section.word("type", ConnectorType::ALL, ConnectorType::as_str);
            auth_type = section.word("auth_type", AuthType::ALL, AuthType::as_str).unwrap_or(auth_type);
            let mut config =
                Map::from_iter([("sim".to_owned(), section.object("sim").unwrap_or_default().into())]);
            config.extend(tools(&section).map(|tools| ("tools".to_owned(), tools)));
            (word.unwrap_or(ConnectorType::Custom), "sim", Some(Value::Object(config)))
        }
        // The keys of a kind cannot be judged without the kind.
        None => return None,
    };
    section.finish();
    let record = ConnectorRecord {
        name: name?,
        connector_type,
        service: service.unwrap_or_else(|| usual_service.to_owned()),
        kind: kind?,
        description,
        config: config?,
        auth_type,
        enabled,
        check_interval_s,
    };
    Some(WantedConnector { id, record })
}

/// The tools of a remote MCP server, in the form that lists of connectors read.
fn tools(section: &Section<'_>) -> Option<Value> {
    let tools = section.json("tools")?;
    if Vec::<RemoteTool>::deserialize(&tools).is_err() {
        section.problem("tools", "must be a list such as [{ name = \"get_customer\", enabled = true }]");
        return None;
    }
    Some(tools)
}

/// The id that the file chooses, if it does.
fn id<I, E>(section: &Section<'_>, parse: impl Fn(&str) -> Result<I, E>, form: &str) -> Option<I> {
    let text = section.text("id")?;
    let id = parse(&text).ok();
    if id.is_none() {
        section.problem("id", format!("`{text}` is not of the form {form}, of letters, digits, `_` and `-`"));
    }
    id
}

fn flow(section: Section<'_>, zone: Tz) -> Option<WantedFlow> {
    let id = id(&section, FlowId::parse, "flow_…");
    let name = section.name("name");
    let source = section.name("source");
    let destination = section.name("destination");
    let description = section.text("description");
    let mut aliases = section.texts("aliases");
    aliases.sort();
    let tags = section.texts("tags");
    let owner_email = section.text("owner").map(|owner| owner.trim().to_lowercase());
    let state = section.word("state", FlowState::ALL, FlowState::as_str);
    // A schedule that is wrong is noted; the rest can be judged without it.
    let schedule = schedule(&section, zone).unwrap_or(Schedule::Manual);
    let max_attempts = section.integer("max_attempts", 1..=10).unwrap_or(3);
    let timeout_s = section.integer("timeout_s", 1..=604_800).unwrap_or(21_600);
    let max_error_rate = section.share("max_error_rate").unwrap_or(0.1);
    let degraded_error_rate = section.share("degraded_error_rate").unwrap_or(DEGRADED_ERROR_RATE);
    let sections = section.sections("stream");
    let expected = sections.len();
    if expected == 0 {
        section.problem("stream", "is missing: say with [[flow.stream]] what goes where");
    }
    let streams: Vec<Stream> = sections.into_iter().filter_map(stream).collect();
    section.finish();
    let record = FlowRecord {
        name: name?,
        aliases,
        description,
        state: state.unwrap_or(FlowState::Active),
        owner_email,
        tags,
        source: source?,
        destination: destination?,
        schedule,
        max_attempts,
        timeout_s,
        max_error_rate,
        degraded_error_rate,
        definition: FlowDefinition { streams },
    };
    (expected > 0 && record.definition.streams.len() == expected).then_some(WantedFlow { id, record, state })
}

fn schedule(section: &Section<'_>, zone: Tz) -> Option<Schedule> {
    let zone = match section.text("timezone") {
        None => zone,
        Some(text) => match text.parse() {
            Ok(zone) => zone,
            Err(_) => {
                section.problem("timezone", format!("`{text}` is no IANA time zone such as `Europe/Berlin`"));
                return None;
            }
        },
    };
    let Some(text) = section.text("schedule") else {
        return (!section.has("schedule")).then_some(Schedule::Manual);
    };
    Schedule::parse(&text, zone).map_err(|error| section.problem("schedule", error.to_string())).ok()
}

fn stream(section: Section<'_>) -> Option<Stream> {
    let query = section.text("query");
    let from = if query.is_some() {
        section.text("from").or(Some("query".to_owned()))
    } else {
        section.name("from")
    };
    let to = section.name("to");
    let source_format = section.word("format", FileFormat::ALL, FileFormat::as_str);
    let sync = section.word("sync", SyncMode::ALL, SyncMode::as_str).unwrap_or(SyncMode::FullRefresh);
    let write = section.word("write", WriteMode::ALL, WriteMode::as_str).unwrap_or(WriteMode::Upsert);
    let cursor_field = section.text("cursor");
    let key = section.texts("key");
    let record_filter = section.text("filter");
    match (sync, &cursor_field) {
        (SyncMode::Incremental, None) if !section.has("cursor") => {
            section.problem("cursor", "is missing: an incremental stream reads on from a field that grows");
        }
        (SyncMode::FullRefresh, Some(_)) => {
            section.problem("cursor", "is used only with sync = \"incremental\"");
        }
        _ => {}
    }
    let sections = section.sections("field");
    let expected = sections.len();
    let mappings: Vec<FieldMapping> = sections.into_iter().filter_map(field).collect();
    section.finish();
    let stream = Stream {
        source_object: from?,
        source_query: query,
        source_format,
        destination_object: to?,
        sync_mode: sync,
        write_mode: write,
        cursor_field,
        record_filter,
        mappings,
        key,
    };
    (stream.mappings.len() == expected).then_some(stream)
}

fn field(section: Section<'_>) -> Option<FieldMapping> {
    let to = section.name("to");
    let from = section.text("from");
    let constant = section.json("constant");
    let transform = section.text("transform");
    let destination_type = section.word("type", FieldType::ALL, FieldType::as_str);
    let filter = section.text("filter");
    let validate: Map<String, Value> = section.object("validate").unwrap_or_default();
    let on_fail = section.word("on_fail", OnFail::ALL, OnFail::as_str);
    let default = section.json("default");
    let (required, is_key, sensitive) =
        (section.flag("required"), section.flag("key"), section.flag("sensitive"));
    let notes = section.text("notes");
    if constant.is_some() && (from.is_some() || transform.is_some()) {
        section.problem("constant", "stands alone: a field has either a constant, or `from` and `transform`");
    }
    if on_fail.is_some() && validate.is_empty() {
        section.problem("on_fail", "says what follows a failed validation, but there is no `validate`");
    }
    section.finish();
    let to = to?;
    // A field that says only where it goes is copied from the source field of that name; a transform without
    // a source makes its value of the whole record.
    let from = from.or_else(|| (constant.is_none() && transform.is_none()).then(|| to.clone()));
    Some(FieldMapping {
        source_path: from.as_deref().map(source_path),
        destination_field: to,
        constant,
        destination_type,
        transform,
        filter,
        validate,
        on_fail: on_fail.unwrap_or(OnFail::Reject),
        required: required.unwrap_or(false),
        default,
        is_key: is_key.unwrap_or(false),
        sensitive: sensitive.unwrap_or(false),
        notes,
    })
}

/// A source path as written, or that of the source field called so (a JSONPath name selector, RFC 9535,
/// section 2.3.1).
fn source_path(text: &str) -> String {
    if text.starts_with('$') {
        return text.to_owned();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.chars().all(plain) && !text.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("$.{text}");
    }
    format!("$['{}']", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_column_becomes_a_path() {
        assert_eq!(source_path("email"), "$.email");
        assert_eq!(source_path("US Gross"), "$['US Gross']");
        assert_eq!(source_path("it's"), "$['it\\'s']");
        assert_eq!(source_path("$.a.b[0]"), "$.a.b[0]");
        assert_eq!(source_path("2024"), "$['2024']");
    }
}
