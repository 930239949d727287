//! From a source record to a destination record: filter, path, transform, default, conversion, validation.
//! Pure; what a stream's texts mean is worked out once.

mod compile;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub use compile::{DefinitionError, compile};

use super::convert::convert;
use super::expression::{Expression, Record};
use super::fence::Reads;
use super::path::{Step, follow};
use super::validate::Validation;
use crate::domain::definition::{FieldType, OnFail};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::domain::redact::{self, Excerpt};

/// What became of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// Its filter does not want it.
    Skipped,
    /// It cannot be written.
    Rejected(Failure),
    /// It can; the failures are counted without rejecting it.
    Record(Map<String, Value>, Vec<Failure>),
}

/// A stream, compiled.
#[derive(Debug)]
pub struct Plan {
    filter: Option<Expression>,
    fields: Vec<Field>,
    key: Vec<String>,
    sensitive: Reads,
}

#[derive(Debug)]
struct Field {
    to: String,
    from: From,
    transform: Option<Expression>,
    filter: Option<Expression>,
    to_type: Option<FieldType>,
    validation: Option<Validation>,
    on_fail: OnFail,
    required: bool,
    default: Option<Value>,
    /// Whether its values, or others of its source, are never kept.
    sensitive: bool,
    /// Whether what its expressions complain of may hold a sensitive value.
    guarded: bool,
}

#[derive(Debug)]
enum From {
    Path(Vec<Step>),
    Constant(Value),
    /// A transform of the whole record.
    Record,
}

impl Plan {
    /// Maps one record. Without fields, every field is copied under its own name.
    pub fn map(&self, source: &Map<String, Value>) -> Mapped {
        self.map_while(source, || true)
    }

    /// The same as long as somebody waits for it, which is asked before each field; what nobody waits for is skipped.
    pub fn map_while(&self, source: &Map<String, Value>, waited_for: impl Fn() -> bool) -> Mapped {
        let record = Record::new(source);
        if let Some(filter) = &self.filter {
            match filter.holds(&record, &Value::Null) {
                Ok(true) => {}
                Ok(false) => return Mapped::Skipped,
                Err(message) => {
                    let failure =
                        Failure::new(ErrorClass::Transform, "FILTER_ERROR", Stage::Filter, &message);
                    return Mapped::Rejected(if self.has_sensitive() { guarded(failure) } else { failure });
                }
            }
        }
        if self.fields.is_empty() {
            return Mapped::Record(source.clone(), Vec::new());
        }
        let mut written = Map::with_capacity(self.fields.len());
        let mut warnings = Vec::new();
        for field in &self.fields {
            if !waited_for() {
                return Mapped::Skipped;
            }
            match field.value(&record, &mut warnings) {
                Ok(Some(value)) => {
                    written.insert(field.to.clone(), value);
                }
                Ok(None) => {}
                Err(failure) => {
                    let failure = failure.at_field(&field.to);
                    let hidden = failure.class == ErrorClass::Transform && (field.sensitive || field.guarded);
                    return Mapped::Rejected(if hidden { guarded(failure) } else { failure });
                }
            }
        }
        Mapped::Record(written, warnings)
    }

    /// The destination fields that identify a record.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The destination fields with the type that they are converted to; empty when every field is copied.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<FieldType>)> {
        self.fields.iter().map(|field| (field.to.as_str(), field.to_type))
    }

    /// What may be kept of a source record that was rejected; `failing` is the destination field that failed.
    /// Nothing, where a sensitive value is made of the whole record.
    pub fn excerpt(&self, source: &Map<String, Value>, failing: Option<&str>) -> Option<Excerpt> {
        let Reads::Fields(sensitive) = &self.sensitive else { return None };
        let keep = failing.and_then(|field| self.source_of(field).or(Some(field)));
        let sensitive: Vec<&str> = sensitive.iter().map(String::as_str).collect();
        Some(redact::excerpt(&Value::Object(source.clone()), &sensitive, keep))
    }

    /// The source field that feeds a destination field.
    fn source_of(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|known| known.to == field)?.source()
    }

    /// A failure that another system may have worded, in our words where it may repeat a sensitive field: whatever
    /// it says, no part of it can be told from a value.
    pub fn discreet(&self, mut failure: Failure) -> Failure {
        if !self.has_sensitive() {
            return failure;
        }
        failure.field = failure.field.filter(|name| self.fields.iter().any(|field| field.to == *name));
        failure.in_our_words()
    }

    /// Whether there are values that are never kept.
    pub fn has_sensitive(&self) -> bool {
        self.fields.iter().any(|field| field.sensitive)
    }

    /// What identifies a source record, redacted: its key fields, as they are read, sensitive ones hidden.
    pub fn record_key(&self, source: &Map<String, Value>) -> Option<String> {
        let spelt = self.key.iter().map(|key| {
            let field = self.fields.iter().find(|field| field.to == *key);
            let value = match field.map(|field| &field.from) {
                Some(From::Path(steps)) => follow(source, steps)?,
                Some(_) => return None,
                None => source.get(key)?,
            };
            match value {
                Value::Null => None,
                _ if field.is_some_and(|field| field.sensitive) => Some(redact::HIDDEN.to_owned()),
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            }
        });
        let joined = spelt.collect::<Option<Vec<_>>>()?.join(", ");
        (!joined.is_empty()).then(|| redact::name(&redact::text(&joined)))
    }
}

impl Field {
    /// The field of the record that it reads.
    fn source(&self) -> Option<&str> {
        match &self.from {
            From::Path(steps) => match steps.first() {
                Some(Step::Name(name)) => Some(name),
                _ => None,
            },
            From::Constant(_) | From::Record => None,
        }
    }

    /// What its value is made of.
    fn reads(&self) -> Reads {
        let read = match &self.from {
            From::Path(steps) => match steps.first() {
                Some(Step::Name(name)) => Reads::field(name),
                _ => Reads::Everything,
            },
            From::Constant(_) | From::Record => Reads::NOTHING,
        };
        self.transform.iter().fold(read, |read, transform| read.and(transform.reads().clone()))
    }

    /// The value to write, `None` to leave the field out.
    fn value(&self, record: &Record<'_>, warnings: &mut Vec<Failure>) -> Result<Option<Value>, Failure> {
        let read: Cow<'_, Value> = match &self.from {
            From::Path(steps) => {
                follow(record.fields(), steps).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
            }
            From::Constant(value) => Cow::Borrowed(value),
            From::Record => Cow::Owned(Value::Null),
        };
        let mut value = read.into_owned();
        // A transform of nothing is nothing, unless it is one of the whole record.
        if let Some(transform) =
            self.transform.as_ref().filter(|_| !value.is_null() || matches!(self.from, From::Record))
        {
            value = transform
                .evaluate(record, &value)
                .map_err(|message| transform_error("TRANSFORM_ERROR", &message))?;
        }
        if value.is_null() {
            value = self.default.clone().unwrap_or(Value::Null);
        }
        if let Some(filter) = &self.filter {
            match filter.holds(record, &value) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(message) => return Err(transform_error("FILTER_ERROR", &message)),
            }
        }
        let checked = self.typed(value).and_then(|value| match self.invalid(&value) {
            None => Ok(value),
            Some(failure) if self.on_fail == OnFail::Warn => {
                warnings.push(failure.at_field(&self.to));
                Ok(value)
            }
            Some(failure) => Err(failure),
        });
        match checked {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.on_fail == OnFail::Null && !self.required => Ok(Some(Value::Null)),
            Err(_) if self.on_fail == OnFail::Default && self.default.is_some() => Ok(self.default.clone()),
            Err(failure) => Err(failure),
        }
    }

    /// The value, converted, and there if it must be.
    fn typed(&self, value: Value) -> Result<Value, Failure> {
        let value = match self.to_type {
            Some(to) if !value.is_null() => match convert(value, to, self.sensitive)? {
                Some(value) => value,
                None => self.default.clone().unwrap_or(Value::Null),
            },
            _ => value,
        };
        let missing = value.is_null() || value.as_str() == Some("");
        if self.required && missing {
            let message = format!("a value for {} is required", self.to);
            return Err(Failure::new(
                ErrorClass::RequiredField,
                "REQUIRED_FIELD_MISSING",
                Stage::Validate,
                &message,
            ));
        }
        Ok(value)
    }

    /// What a validation says against the value; nothing is valid.
    fn invalid(&self, value: &Value) -> Option<Failure> {
        self.validation.as_ref().filter(|_| !value.is_null())?.check(value, self.sensitive).err()
    }
}

fn transform_error(code: &'static str, message: &str) -> Failure {
    Failure::new(ErrorClass::Transform, code, Stage::Transform, message)
}

/// The failure of an expression that sees sensitive values, which its message may dump in any form.
fn guarded(failure: Failure) -> Failure {
    let message = "the expression cannot be worked out for this record (it sees a sensitive field)";
    Failure { message: message.to_owned(), foreign: false, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::definition::Stream;
    use serde_json::json;

    pub(super) fn stream(value: Value) -> Stream {
        let mut whole = json!({
            "source_object": "a", "destination_object": "b", "sync_mode": "full_refresh", "write_mode": "upsert"
        });
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn map(definition: Value, record: Value) -> Mapped {
        Plan::compile(&stream(definition)).unwrap().map(record.as_object().unwrap())
    }

    fn written(definition: Value, record: Value) -> Value {
        match map(definition, record) {
            Mapped::Record(fields, warnings) if warnings.is_empty() => Value::Object(fields),
            other => panic!("{other:?}"),
        }
    }

    fn rejected(definition: Value, record: Value) -> Failure {
        match map(definition, record) {
            Mapped::Rejected(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_fields_everything_is_copied() {
        let record = json!({"z": 1, "a": {"b": [1, null]}});
        assert_eq!(written(json!({}), record.clone()), record);
    }

    #[test]
    fn a_record_filter_skips() {
        let definition = json!({"record_filter": "record.status != 'archived'"});
        assert_eq!(map(definition.clone(), json!({"status": "archived"})), Mapped::Skipped);
        assert_eq!(written(definition.clone(), json!({"status": null})), json!({"status": null}));
        let failure = rejected(definition, json!({}));
        assert_eq!(
            (failure.class, failure.stage, failure.code.as_ref()),
            (ErrorClass::Transform, Stage::Filter, "FILTER_ERROR")
        );
    }

    #[test]
    fn paths_lead_to_one_value() {
        let record = json!({"a": {"b": [{"US Gross": 7}, {"x": 8}]}, "plain name": 9, "it's": 10});
        for (path, expected) in [
            ("$.a.b[0]['US Gross']", json!(7)),
            ("$['a'][\"b\"][-1].x", json!(8)),
            ("plain name", json!(9)),
            ("$['it\\'s']", json!(10)),
            ("$.a.c", Value::Null),
            ("$.a.b[7]", Value::Null),
        ] {
            let definition = json!({"mappings": [{"destination_field": "v", "source_path": path}]});
            assert_eq!(written(definition, record.clone()), json!({"v": expected}), "{path}");
        }
    }

    #[test]
    fn the_steps_come_in_their_order() {
        let definition = json!({"mappings": [
            {"destination_field": "email", "source_path": "$.email", "transform": "value.trim().lowerAscii()", "validate": {"format": "email"}},
            {"destination_field": "amount", "source_path": "$.amount", "destination_type": "number"},
            {"destination_field": "ship", "source_path": "$.ship", "filter": "value != null && value != 'x'"},
            {"destination_field": "country", "source_path": "$.country", "default": "DE", "destination_type": "string"},
            {"destination_field": "age", "source_path": "$.age", "destination_type": "integer", "default": 0},
            {"destination_field": "source", "constant": "HubSpot"},
            {"destination_field": "label", "transform": "record.first + ' ' + record.last"}
        ]});
        let record = json!({"email": " Ana@Example.com", "amount": "12.5", "ship": null, "age": "", "first": "A", "last": "R"});
        assert_eq!(
            written(definition, record),
            json!({"email": "ana@example.com", "amount": 12.5, "country": "DE", "age": 0, "source": "HubSpot", "label": "A R"})
        );
    }

    #[test]
    fn what_is_missing_or_wrong_rejects() {
        let required =
            json!({"mappings": [{"destination_field": "id", "source_path": "$.id", "required": true}]});
        for record in [json!({}), json!({"id": null}), json!({"id": ""})] {
            let failure = rejected(required.clone(), record);
            assert_eq!(
                (failure.code.as_ref(), failure.field.as_deref()),
                ("REQUIRED_FIELD_MISSING", Some("id"))
            );
        }
        let typed = json!({"mappings": [{"destination_field": "n", "source_path": "$.n", "destination_type": "integer"}]});
        assert_eq!(rejected(typed, json!({"n": "7k"})).class, ErrorClass::Type);
        let transform = json!({"mappings": [{"destination_field": "n", "source_path": "$.n", "transform": "value.trim()"}]});
        assert_eq!(rejected(transform, json!({"n": 7})).code, "TRANSFORM_ERROR");
    }

    #[test]
    fn a_failed_validation_does_what_on_fail_says() {
        let field = |on_fail: &str| {
            json!({"mappings": [{"destination_field": "email", "source_path": "$.email", "default": "none@example.com",
                                 "validate": {"format": "email"}, "on_fail": on_fail}]})
        };
        let bad = json!({"email": "nonsense"});
        assert_eq!(rejected(field("reject"), bad.clone()).code, "INVALID_EMAIL");
        assert_eq!(written(field("null"), bad.clone()), json!({"email": null}));
        assert_eq!(written(field("default"), bad.clone()), json!({"email": "none@example.com"}));
        let Mapped::Record(fields, warnings) = map(field("warn"), bad) else { panic!("it is written") };
        assert_eq!(fields["email"], "nonsense");
        assert_eq!((warnings.len(), warnings[0].field.as_deref()), (1, Some("email")));
    }

    #[test]
    fn a_record_is_mapped_no_further_than_somebody_waits_for_it() {
        let fields: Vec<Value> =
            (0..9).map(|n| json!({"destination_field": format!("f{n}"), "source_path": "$.a"})).collect();
        let plan = Plan::compile(&stream(json!({ "mappings": fields }))).unwrap();
        let asked = std::cell::Cell::new(0);
        let twice = || asked.replace(asked.get() + 1) < 2;
        assert_eq!(plan.map_while(json!({"a": 1}).as_object().unwrap(), twice), Mapped::Skipped);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn a_rejected_record_is_named_by_its_key() {
        let definition = json!({"mappings": [
            {"destination_field": "id", "source_path": "$.order.id", "is_key": true},
            {"destination_field": "mail", "source_path": "$.mail", "is_key": true, "sensitive": true}
        ]});
        let plan = Plan::compile(&stream(definition)).unwrap();
        let record = json!({"order": {"id": 7}, "mail": "ana@example.com"});
        assert_eq!(plan.record_key(record.as_object().unwrap()).as_deref(), Some("7, [redacted]"));
        assert_eq!(plan.record_key(json!({"mail": "x"}).as_object().unwrap()), None);
        assert_eq!(plan.sensitive, Reads::field("mail"));
        assert_eq!(plan.source_of("id"), Some("order"));
    }

    #[test]
    fn what_a_sensitive_value_is_made_of_is_not_kept() {
        let record = json!({"tax_no": "DE-77", "name": "Ana", "age": "x"});
        let kept = |transform: &str, from: Option<&str>| {
            let sensitive = json!({
                "destination_field": "tax_id", "source_path": from, "transform": transform, "sensitive": true
            });
            let age =
                json!({"destination_field": "age", "source_path": "$.age", "destination_type": "integer"});
            let plan = Plan::compile(&stream(json!({ "mappings": [sensitive, age] }))).unwrap();
            plan.excerpt(record.as_object().unwrap(), Some("age")).map(|excerpt| excerpt.value)
        };
        let hidden = json!({"tax_no": "[redacted]", "name": "Ana", "age": "x"});
        assert_eq!(kept("record.tax_no.trim()", None), Some(hidden.clone()));
        assert_eq!(kept("record['tax_no']", None), Some(hidden));
        let both = json!({"tax_no": "[redacted]", "name": "[redacted]", "age": "x"});
        assert_eq!(kept("value + record.tax_no", Some("$.name")), Some(both));
        for whole in
            ["record.map(name, record[name]).join(',')", "[record].map(r, r.tax_no)[0]", "string(record)"]
        {
            assert_eq!(kept(whole, None), None, "{whole}");
        }
    }

    #[test]
    fn a_field_made_of_a_sensitive_one_is_not_quoted() {
        let definition = json!({"mappings": [
            {"destination_field": "tax_id", "transform": "record.tax_no", "sensitive": true},
            {"destination_field": "number", "source_path": "$.tax_no", "destination_type": "integer"}
        ]});
        let failure = rejected(definition, json!({"tax_no": "DE-77"}));
        assert_eq!(failure.message, "the value is not a whole number");
    }

    #[test]
    fn nothing_is_said_of_sensitive_values() {
        let told = |field: Value, record: Value| {
            let mut mappings = vec![
                json!({"destination_field": "tax_id", "source_path": "$.tax", "sensitive": true, "destination_type": "integer"}),
            ];
            mappings.push(field);
            rejected(json!({ "mappings": mappings }), record).message
        };
        let copy = |more: Value| {
            let mut field = json!({"destination_field": "copy", "source_path": "$.tax"});
            field.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            field
        };
        let plain = json!({"destination_field": "n", "source_path": "$.n", "destination_type": "integer"});
        assert_eq!(told(plain.clone(), json!({"tax": "DE-77"})), "the value is not a whole number");
        assert_eq!(told(plain, json!({"tax": 77, "n": "7k"})), "'7k' is not a whole number");
        let valid = copy(json!({"validate": {"maximum": 10}}));
        assert_eq!(told(valid, json!({"tax": 77})), "the value does not satisfy 'maximum' 10");
        let transform = copy(json!({"transform": "to_date(value)"}));
        let message = told(transform, json!({"tax": 77}));
        assert!(!message.contains("77"), "{message}");
        let other = json!({"destination_field": "o", "transform": "to_date(record.tax)"});
        let message = told(other, json!({"tax": "77"}));
        assert!(message.ends_with("(it sees a sensitive field)"), "{message}");
        let own = json!({"destination_field": "o", "source_path": "$.day", "transform": "to_date(value)"});
        let message = told(own, json!({"tax": 77, "day": "soon"}));
        assert!(message.contains("'soon'"), "{message}");
        let refused = |field: &str| {
            let failure = Failure::new(ErrorClass::Type, "INVALID_VALUE", Stage::Load, "no integer: 77");
            let stream = stream(json!({"mappings": [
                {"destination_field": "tax_id", "source_path": "$.tax", "sensitive": true},
                {"destination_field": "n", "source_path": "$.n"}
            ]}));
            Plan::compile(&stream).unwrap().discreet(failure.in_foreign_words().at_field(field))
        };
        for (named, field) in [("n", Some("n")), ("tax_id", Some("tax_id")), ("77", None)] {
            let told = refused(named);
            assert!(!told.message.contains("77") && told.field.as_deref() == field, "{told:?}");
        }
    }
}
