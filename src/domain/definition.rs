//! What a flow does: its streams and field mappings, as one version of it says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json;

words! {
    /// How much of the source a run reads.
    SyncMode {
        /// Everything, every time.
        FullRefresh = "full_refresh",
        /// What lies after the saved cursor.
        Incremental = "incremental",
    }
}

words! {
    /// What a run does with a record at the destination.
    WriteMode {
        /// Insert, or update the record with the same key.
        Upsert = "upsert",
        /// Insert only.
        Append = "append",
    }
}

words! {
    /// The form of a file.
    FileFormat {
        /// Comma-separated values with a header row.
        Csv = "csv",
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// One JSON array of objects.
        Json = "json",
    }
}

words! {
    /// The type a value is converted to before it is checked and written.
    FieldType {
        /// Text.
        String = "string",
        /// A whole number of 64 bits.
        Integer = "integer",
        /// A number.
        Number = "number",
        /// True or false.
        Boolean = "boolean",
        /// A calendar day.
        Date = "date",
        /// A moment.
        Datetime = "datetime",
        /// A JSON object.
        Object = "object",
        /// A JSON array.
        Array = "array",
    }
}

words! {
    /// What happens to a value that a validation rejects.
    OnFail {
        /// The record is rejected.
        Reject = "reject",
        /// The field is written as null.
        Null = "null",
        /// The field is written as its default.
        Default = "default",
        /// The value is written, and the error is counted.
        Warn = "warn",
    }
}

/// Everything that one version of a flow says about records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowDefinition {
    /// Source object to destination object, run one after the other.
    pub streams: Vec<Stream>,
}

/// One source object and where its records go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The table, file or collection that is read.
    pub source_object: String,
    /// A query to read instead of the whole object (PostgreSQL sources only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_query: Option<String>,
    /// The form of the source file, where its name does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_format: Option<FileFormat>,
    /// The table, file or collection that is written.
    pub destination_object: String,
    /// How much is read.
    pub sync_mode: SyncMode,
    /// How it is written.
    pub write_mode: WriteMode,
    /// The source field that an incremental run reads on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_field: Option<String>,
    /// A CEL expression over `record`; records for which it is false are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_filter: Option<String>,
    /// Field by field; empty copies every field under its own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<FieldMapping>,
    /// The destination fields that identify a record, where no mapping says so (`is_key`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

impl Stream {
    /// What it is called.
    pub fn name(&self) -> String {
        format!("{} → {}", self.source_object, self.destination_object)
    }

    /// The destination fields that identify a record.
    pub fn key_fields(&self) -> Vec<&str> {
        let mapped = self.mappings.iter().filter(|m| m.is_key).map(|m| m.destination_field.as_str());
        let mut fields: Vec<&str> = mapped.collect();
        fields.extend(
            self.key.iter().map(String::as_str).filter(|field| !fields.contains(field)).collect::<Vec<_>>(),
        );
        fields
    }
}

/// How one destination field comes about. The text shown to people and models is the text that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMapping {
    /// The field that is written.
    pub destination_field: String,
    /// Where the value comes from: a singular JSONPath query (RFC 9535, section 2.3.5.1) such as
    /// `$.properties.email`; absent for a constant or a transform of the whole record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
    /// The value itself, for every record.
    #[serde(default, deserialize_with = "json::optional", skip_serializing_if = "Option::is_none")]
    pub constant: Option<Value>,
    /// What the value is converted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_type: Option<FieldType>,
    /// A CEL expression over `value` and `record` that gives the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// A CEL expression over `value` and `record`; the field is written only where it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// JSON Schema keywords that the value must satisfy, e.g. `{"format": "email", "maxLength": 80}`.
    #[serde(default, deserialize_with = "json::members", skip_serializing_if = "Map::is_empty")]
    pub validate: Map<String, Value>,
    /// What happens to a value that does not.
    #[serde(default = "reject", skip_serializing_if = "is_reject")]
    pub on_fail: OnFail,
    /// Whether a missing or null value rejects the record (after the default had its chance).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The value written where there is none.
    #[serde(default, deserialize_with = "json::optional", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Whether the field is part of what identifies a record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_key: bool,
    /// Whether the value is hidden wholly in payload excerpts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// A note of its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

fn reject() -> OnFail {
    OnFail::Reject
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_reject(on_fail: &OnFail) -> bool {
    *on_fail == OnFail::Reject
}

impl FieldMapping {
    /// A mapping that copies `source_path` to `destination_field`.
    pub fn copy(source_path: &str, destination_field: &str) -> Self {
        Self {
            destination_field: destination_field.to_owned(),
            source_path: Some(source_path.to_owned()),
            constant: None,
            destination_type: None,
            transform: None,
            filter: None,
            validate: Map::new(),
            on_fail: OnFail::Reject,
            required: false,
            default: None,
            is_key: false,
            sensitive: false,
            notes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_stored_without_its_defaults() {
        let definition = FlowDefinition {
            streams: vec![Stream {
                source_object: "people.csv".into(),
                source_query: None,
                source_format: None,
                destination_object: "public.people".into(),
                sync_mode: SyncMode::FullRefresh,
                write_mode: WriteMode::Upsert,
                cursor_field: None,
                record_filter: None,
                mappings: vec![FieldMapping { is_key: true, ..FieldMapping::copy("$.email", "email") }],
                key: vec![],
            }],
        };
        let text = serde_json::to_value(&definition).unwrap();
        assert_eq!(
            text["streams"][0]["mappings"][0],
            serde_json::json!({ "destination_field": "email", "source_path": "$.email", "is_key": true })
        );
        assert_eq!(serde_json::from_value::<FlowDefinition>(text).unwrap(), definition);
        assert_eq!(definition.streams[0].key_fields(), ["email"]);
    }
}
