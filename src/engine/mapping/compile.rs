//! What a stream's texts mean, worked out once; everything that is wrong with them, told at once.

use super::{Field, From, Plan};
use crate::domain::definition::{FieldMapping, FlowDefinition, OnFail, Stream};
use crate::engine::expression::Expression;
use crate::engine::fence::Reads;
use crate::engine::path::{Step, parse_path};
use crate::engine::validate::Validation;

/// Most fields of one stream.
const MAX_FIELDS: usize = 1_000;
/// What is wrong with a definition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DefinitionError {
    /// The place, e.g. `stream[0].field[3].transform`.
    pub path: String,
    /// One sentence.
    pub message: String,
}
/// Compiles every stream of a definition.
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile(definition: &FlowDefinition) -> Result<Vec<Plan>, Vec<DefinitionError>> {
    let mut plans = Vec::new();
    let mut errors = Vec::new();
    if definition.streams.is_empty() {
        errors.push(DefinitionError {
            path: "stream".to_owned(),
            message: "a flow has at least one stream".to_owned(),
        });
    }
    for (place, stream) in definition.streams.iter().enumerate() {
        match Plan::compile(stream) {
            Ok(plan) => plans.push(plan),
            Err(found) => errors.extend(found.into_iter().map(|error| DefinitionError {
                path: format!("stream[{place}].{}", error.path),
                message: error.message,
            })),
        }
    }
    if errors.is_empty() { Ok(plans) } else { Err(errors) }
}
impl Plan {
    /// Compiles one stream.
    ///
    /// # Errors
    /// Everything that is wrong with it; paths are relative to the stream, e.g. `field[3].transform`.
    pub fn compile(stream: &Stream) -> Result<Self, Vec<DefinitionError>> {
        let mut errors = Errors(Vec::new());
        let filter = errors.expression("filter", stream.record_filter.as_deref());
        let mut fields: Vec<Field> = Vec::new();
        if stream.mappings.len() > MAX_FIELDS {
            errors.add("field", format!("there are more than {MAX_FIELDS} fields"));
        }
        for (place, mapping) in stream.mappings.iter().take(MAX_FIELDS).enumerate() {
            let at = format!("field[{place}]");
            if mapping.destination_field.trim().is_empty() {
                errors.add(&format!("{at}.to"), "it is empty".to_owned());
            } else if fields.iter().any(|field| field.to == mapping.destination_field) {
                errors.add(&format!("{at}.to"), format!("`{}` is mapped twice", mapping.destination_field));
            }
            fields.push(errors.field(&at, mapping));
        }
        let key: Vec<String> = stream.key_fields().into_iter().map(str::to_owned).collect();
        if let Some(lost) =
            key.iter().find(|key| !fields.is_empty() && fields.iter().all(|field| field.to != **key))
        {
            errors.add("key", format!("`{lost}` is no field of this stream"));
        }
        let any = fields.iter().any(|field| field.sensitive);
        let sensitive = fields.iter().filter(|field| field.sensitive);
        let sensitive = sensitive.map(Field::reads).fold(Reads::NOTHING, Reads::and);
        for field in &mut fields {
            field.guarded &= any;
            field.sensitive |= field.reads().meets(&sensitive);
        }
        if errors.0.is_empty() { Ok(Self { filter, fields, key, sensitive }) } else { Err(errors.0) }
    }
}

/// Collects what is wrong instead of stopping at the first.
struct Errors(Vec<DefinitionError>);

impl Errors {
    fn add(&mut self, path: &str, message: String) {
        self.0.push(DefinitionError { path: path.to_owned(), message });
    }

    fn expression(&mut self, path: &str, source: Option<&str>) -> Option<Expression> {
        match Expression::compile(source?) {
            Ok(expression) => Some(expression),
            Err(message) => {
                self.add(path, message);
                None
            }
        }
    }

    fn field(&mut self, at: &str, mapping: &FieldMapping) -> Field {
        let from = match (source_steps(mapping), &mapping.constant) {
            (Ok(Some(_)), Some(_)) => {
                self.add(at, "it has a source and a constant; it can have one".to_owned());
                From::Record
            }
            (Ok(Some(steps)), None) => From::Path(steps),
            (Ok(None), Some(constant)) => From::Constant(constant.clone()),
            (Ok(None), None) => {
                if mapping.transform.is_none() && mapping.default.is_none() {
                    self.add(at, "it has neither a source, a constant nor a transform".to_owned());
                }
                From::Record
            }
            (Err(message), _) => {
                self.add(&format!("{at}.from"), message);
                From::Record
            }
        };
        let validation = if mapping.validate.is_empty() {
            None
        } else {
            Validation::compile(&mapping.validate)
                .map_err(|message| self.add(&format!("{at}.validate"), message))
                .ok()
        };
        if mapping.on_fail == OnFail::Default && mapping.default.is_none() {
            self.add(&format!("{at}.on_fail"), "there is no default to write".to_owned());
        }
        let transform = self.expression(&format!("{at}.transform"), mapping.transform.as_deref());
        let filter = self.expression(&format!("{at}.filter"), mapping.filter.as_deref());
        let sees_record = |expression: &Option<Expression>| {
            expression.as_ref().is_some_and(|expression| *expression.reads() != Reads::NOTHING)
        };
        Field {
            to: mapping.destination_field.clone(),
            from,
            guarded: sees_record(&transform) || sees_record(&filter),
            transform,
            filter,
            to_type: mapping.destination_type,
            validation,
            on_fail: mapping.on_fail,
            required: mapping.required,
            default: mapping.default.clone(),
            sensitive: mapping.sensitive,
        }
    }
}

fn source_steps(mapping: &FieldMapping) -> Result<Option<Vec<Step>>, String> {
    mapping.source_path.as_deref().map(parse_path).transpose()
}
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::mapping::tests::stream;

    #[test]
    fn every_mistake_is_found_at_its_place() {
        let definition = json!({"record_filter": "record.", "key": ["lost"], "mappings": [
            {"destination_field": "a", "source_path": "$..a"},
            {"destination_field": "a", "source_path": "$.a", "transform": "value.trm()"},
            {"destination_field": "b", "source_path": "$.b", "validate": {"$ref": "#"}, "on_fail": "default"},
            {"destination_field": "c", "source_path": "$.c", "constant": 1},
            {"destination_field": ""}
        ]});
        let errors = Plan::compile(&stream(definition)).unwrap_err();
        let places: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            places,
            [
                "filter",
                "field[0].from",
                "field[1].to",
                "field[1].transform",
                "field[2].validate",
                "field[2].on_fail",
                "field[3]",
                "field[4].to",
                "field[4]",
                "key"
            ]
        );
    }
}
