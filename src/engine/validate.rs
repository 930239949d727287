//! Validations of a field: JSON Schema keywords (2020-12), compiled once.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use super::convert::shown;
use super::digits;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;

/// The keywords that a validation may use: assertions about one value, without references.
const KEYWORDS: &[&str] = &[
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "format",
    "maxItems",
    "minItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "items",
    "prefixItems",
    "maxProperties",
    "minProperties",
    "required",
    "properties",
    "additionalProperties",
    "propertyNames",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];
/// Keywords whose value is one schema, several, or several by name.
const ONE: &[&str] = &["contains", "items", "additionalProperties", "propertyNames", "not"];
const SEVERAL: &[&str] = &["prefixItems", "allOf", "anyOf", "oneOf"];
const FORMATS: &[&str] = &[
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
];
/// Longest text of the keywords of one field, in bytes of JSON.
const MAX_BYTES: usize = 16 << 10;
/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// Compiled validations of one field.
#[derive(Clone, Debug)]
pub struct Validation(Validator);

impl Validation {
    /// Compiles keywords.
    ///
    /// # Errors
    /// One sentence, when a keyword is unknown or does not fit its value.
    pub fn compile(keywords: &Map<String, Value>) -> Result<Self, String> {
        let schema = Value::Object(keywords.clone());
        if schema.to_string().len() > MAX_BYTES {
            return Err(format!("it is longer than {} KiB", MAX_BYTES >> 10));
        }
        check(&schema)?;
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN))
            .build(&schema)
            .map(Self)
            .map_err(|error| error.to_string().chars().take(200).collect())
    }

    /// What the value does not satisfy.
    ///
    /// # Errors
    /// [`ErrorClass::Validation`], with a code per keyword such as `INVALID_EMAIL` or `MAX_LENGTH`;
    /// the message shows a value that is not `sensitive`.
    pub fn check(&self, value: &Value, sensitive: bool) -> Result<(), Failure> {
        // Bounds hold for a number whose digits came as a text, too.
        let nearest = digits::nearest(value);
        let beyond =
            nearest.as_ref().and_then(|nearest| self.0.validate(nearest).err()).filter(is_of_a_bound);
        let Some(error) = self.0.validate(value).err().or(beyond) else { return Ok(()) };
        let at = error.schema_path().to_string();
        let keyword = at.rsplit('/').find(|part| KEYWORDS.contains(part)).unwrap_or("schema").to_owned();
        let format = match error.kind() {
            jsonschema::error::ValidationErrorKind::Format { format } => Some(format.clone()),
            _ => None,
        };
        let shown = shown(value, sensitive);
        let (code, message) = match format {
            Some(format) => (format!("INVALID_{}", shout(&format)), format!("{shown} is no {format}")),
            None => (shout(&keyword), format!("{shown} does not satisfy '{keyword}'{}", limit(&error))),
        };
        Err(Failure::new(ErrorClass::Validation, code, Stage::Validate, &message))
    }
}

fn is_of_a_bound(error: &jsonschema::ValidationError<'_>) -> bool {
    use jsonschema::error::ValidationErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::Maximum { .. }
            | Kind::Minimum { .. }
            | Kind::ExclusiveMaximum { .. }
            | Kind::ExclusiveMinimum { .. }
    )
}

/// What a simple keyword asked for.
fn limit(error: &jsonschema::ValidationError<'_>) -> String {
    use jsonschema::error::ValidationErrorKind as Kind;
    match error.kind() {
        Kind::MaxLength { limit }
        | Kind::MinLength { limit }
        | Kind::MaxItems { limit }
        | Kind::MinItems { limit } => {
            format!(" {limit}")
        }
        Kind::Maximum { limit }
        | Kind::Minimum { limit }
        | Kind::ExclusiveMaximum { limit }
        | Kind::ExclusiveMinimum { limit } => format!(" {limit}"),
        Kind::Enum { options } => format!(" {}", options.to_string().chars().take(160).collect::<String>()),
        Kind::Pattern { pattern } => format!(" {}", pattern.chars().take(160).collect::<String>()),
        _ => String::new(),
    }
}

/// `maxLength` as `MAX_LENGTH`, `date-time` as `DATE_TIME`.
fn shout(word: &str) -> String {
    let mut shouted = String::with_capacity(word.len() + 4);
    for character in word.chars() {
        match character {
            '-' => shouted.push('_'),
            c if c.is_ascii_uppercase() => {
                shouted.push('_');
                shouted.push(c);
            }
            c => shouted.push(c.to_ascii_uppercase()),
        }
    }
    shouted
}

fn check(schema: &Value) -> Result<(), String> {
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(_) => return Ok(()),
        _ => return Err("a schema is an object of keywords".to_owned()),
    };
    for (keyword, value) in keywords {
        if !KEYWORDS.contains(&keyword.as_str()) {
            return Err(format!("`{keyword}` is no keyword here; there are {}", KEYWORDS.join(", ")));
        }
        if keyword == "format" && !value.as_str().is_some_and(|format| FORMATS.contains(&format)) {
            return Err(format!("{value} is no format here; there are {}", FORMATS.join(", ")));
        }
        if ONE.contains(&keyword.as_str()) {
            check(value)?;
        }
        if SEVERAL.contains(&keyword.as_str()) {
            value.as_array().into_iter().flatten().try_for_each(check)?;
        }
        if keyword == "properties" {
            value.as_object().into_iter().flat_map(|map| map.values()).try_for_each(check)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile(keywords: Value) -> Result<Validation, String> {
        Validation::compile(keywords.as_object().unwrap())
    }

    #[test]
    fn a_value_satisfies_its_keywords_or_says_which_not() {
        for (keywords, value, code) in [
            (json!({"format": "email", "maxLength": 80}), json!("ana@example.com"), None),
            (json!({"format": "email"}), json!("ana@"), Some("INVALID_EMAIL")),
            (json!({"format": "date-time"}), json!("yesterday"), Some("INVALID_DATE_TIME")),
            (json!({"format": "uri"}), json!("https://x.example/"), None),
            (json!({"maxLength": 3}), json!("abcd"), Some("MAX_LENGTH")),
            (json!({"enum": ["EUR", "GBP"]}), json!("CHF"), Some("ENUM")),
            (json!({"minimum": 0, "maximum": 10}), json!(11), Some("MAXIMUM")),
            (json!({"maximum": 10}), json!("12345678901234567.89"), Some("MAXIMUM")),
            (json!({"maximum": 10}), json!("-12345678901234567.89"), None),
            (json!({"type": "string", "maxLength": 30}), json!("12345678901234567890123"), None),
            (json!({"pattern": "^[A-Z]{3}$"}), json!("EUR"), None),
            (json!({"pattern": "^[A-Z]{3}$"}), json!("eur"), Some("PATTERN")),
            (json!({"type": "string"}), json!(1), Some("TYPE")),
            (json!({"anyOf": [{"minimum": 3}, {"const": 0}]}), json!(1), Some("ANY_OF")),
            (json!({"items": {"enum": ["a"]}}), json!(["a", "b"]), Some("ENUM")),
        ] {
            let found = compile(keywords.clone())
                .unwrap()
                .check(&value, false)
                .err()
                .map(|failure| failure.code.into_owned());
            assert_eq!(found.as_deref(), code, "{keywords} {value}");
        }
        let failure =
            compile(json!({"enum": ["EUR", "GBP"]})).unwrap().check(&json!("CHF"), false).unwrap_err();
        assert_eq!(failure.message, r#"'CHF' does not satisfy 'enum' ["EUR","GBP"]"#);
    }

    #[test]
    fn what_is_no_validation_is_refused() {
        for (keywords, expected) in [
            (json!({"$ref": "https://example.com/schema"}), "`$ref` is no keyword"),
            (json!({"anyOf": [{"$ref": "#"}]}), "`$ref` is no keyword"),
            (json!({"properties": {"a": {"maxlength": 3}}}), "`maxlength` is no keyword"),
            (json!({"format": "phone"}), "is no format"),
            (json!({"maxLength": "3"}), ""),
            (json!({"pattern": "(?=a)b"}), ""),
            (json!({"pattern": "(((a{1,1000}){1,1000}){1,1000})"}), ""),
            (json!({"enum": vec!["x".repeat(100); 300]}), "longer than"),
        ] {
            let error = compile(keywords.clone()).unwrap_err();
            assert!(error.contains(expected), "{keywords}: {error}");
        }
    }

    #[test]
    fn a_pattern_takes_linear_time() {
        let validation = compile(json!({"pattern": "^(a+)+$"})).unwrap();
        let text = "a".repeat(100_000) + "b";
        assert_eq!(validation.check(&json!(text), false).unwrap_err().code, "PATTERN");
    }
}
