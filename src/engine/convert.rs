//! Values of one type from values of another, as files spell them.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use serde_json::Value;

use super::digits;
use crate::domain::definition::FieldType;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;

/// `value` as `to`, `None` where it is an empty text (which no number, date, … is).
///
/// # Errors
/// [`ErrorClass::Type`], when it cannot be one; the message shows a value that is not `sensitive`.
pub(super) fn convert(value: Value, to: FieldType, sensitive: bool) -> Result<Option<Value>, Failure> {
    if to != FieldType::String && value.as_str().is_some_and(|text| text.trim().is_empty()) {
        return Ok(None);
    }
    let converted = match to {
        FieldType::String => string(&value),
        FieldType::Integer => integer(&value),
        FieldType::Number => number(&value),
        FieldType::Boolean => match &value {
            Value::Bool(_) => Some(value.clone()),
            Value::String(text) => boolean(text).map(Value::Bool),
            Value::Number(number) => match number.as_i64() {
                Some(0) => Some(Value::Bool(false)),
                Some(1) => Some(Value::Bool(true)),
                _ => None,
            },
            _ => None,
        },
        FieldType::Date => {
            value.as_str().and_then(date).map(|date| date.format("%Y-%m-%d").to_string().into())
        }
        FieldType::Datetime => value.as_str().and_then(moment).map(|moment| spell(moment).into()),
        FieldType::Object => value.is_object().then(|| value.clone()),
        FieldType::Array => value.is_array().then(|| value.clone()),
    };
    converted.map(Some).ok_or_else(|| {
        let (code, what) = match to {
            FieldType::String => ("INVALID_STRING", "a text"),
            FieldType::Integer => ("INVALID_INTEGER", "a whole number"),
            FieldType::Number => ("INVALID_NUMBER", "a number"),
            FieldType::Boolean => ("INVALID_BOOLEAN", "true or false"),
            FieldType::Date => ("INVALID_DATE", "a date"),
            FieldType::Datetime => ("INVALID_DATETIME", "a moment"),
            FieldType::Object => ("INVALID_OBJECT", "an object"),
            FieldType::Array => ("INVALID_ARRAY", "a list"),
        };
        let message = match value.as_str() {
            Some(text) if to == FieldType::Number && digits::are_lost(text.trim()) => {
                format!("{} would lose digits as a number; make it a string", shown(&value, sensitive))
            }
            _ => format!("{} is not {what}", shown(&value, sensitive)),
        };
        Failure::new(ErrorClass::Type, code, Stage::Transform, &message)
    })
}

fn string(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn integer(value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) if number.is_i64() => Some(value.clone()),
        // A whole number that was written with a fraction or an exponent.
        Value::Number(number) => {
            number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| (n as i64).into())
        }
        Value::String(text) => text.trim().parse::<i64>().ok().map(Value::from),
        _ => None,
    }
}

fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => digits::number(text.trim()).map(Value::Number),
        _ => None,
    }
}

/// `true` and `false` as files spell them.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// The day of an ISO 8601 date or moment (its own day, not that of UTC).
pub(super) fn date(text: &str) -> Option<NaiveDate> {
    let text = text.trim();
    day(text)
        .or_else(|| with_offset(text).map(|moment| moment.date_naive()))
        .or_else(|| local(text).map(|moment| moment.date()))
}

/// The moment that a text says; one without an offset is read in UTC.
pub(super) fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    with_offset(text).map(|moment| moment.to_utc()).or_else(|| local(text).map(|local| local.and_utc()))
}

/// A date and time with an offset, as RFC 3339 spells it or others do: +01, +0100, UTC; or without seconds.
fn with_offset(text: &str) -> Option<DateTime<FixedOffset>> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment);
    }
    let zulu = text.strip_suffix(" UTC").map(|text| format!("{text}Z"));
    let text = zulu.as_deref().unwrap_or(text);
    let forms =
        ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];
    forms
        .iter()
        .find_map(|form| DateTime::parse_from_str(text, form).ok())
        .filter(|moment| begins_with_year(text, moment.date_naive()))
}

/// Whether a text begins with a date of another order than that of ISO 8601 (31.12.2025, 12/31/2025): as texts such dates
/// are in no order of time.
pub(super) fn is_date_out_of_order(text: &str) -> bool {
    let (text, digit) = (text.trim(), |c: char| c.is_ascii_digit());
    let forms = ["%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y"];
    forms.iter().any(|form| {
        NaiveDate::parse_and_remainder(text, form).is_ok_and(|(day, rest)| {
            let year = text.strip_suffix(rest).unwrap_or_default().chars().rev().take_while(|c| digit(*c));
            let ends =
                rest.is_empty() || rest.starts_with(|c: char| c.is_whitespace() || matches!(c, 'T' | ','));
            day.year() >= 1_000 && matches!(year.count(), 2 | 4) && ends
        })
    })
}

/// A date and time without an offset; a date alone is its beginning.
pub(super) fn local(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    forms
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .filter(|moment| begins_with_year(text, moment.date()))
        .or_else(|| day(text).map(|day| day.and_time(NaiveTime::MIN)))
}

fn day(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|day| begins_with_year(text, *day))
}

/// Whether a text begins with the year of its date in four digits (ISO 8601): fewer were read as a year of antiquity.
fn begins_with_year(text: &str, date: NaiveDate) -> bool {
    text.starts_with(&format!("{:04}", date.year()))
}

/// A moment as RFC 3339 in UTC.
pub(super) fn spell(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A text in an error message, short and in quotes that it cannot end, so that grouping leaves it out.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.chars().take(60).map(|c| if c == '\'' { '’' } else { c }).collect::<String>())
}

/// A value in an error message, [`quoted`]; a `sensitive` one is not shown.
pub(super) fn shown(value: &Value, sensitive: bool) -> String {
    match value {
        _ if sensitive => "the value".to_owned(),
        Value::String(text) => quoted(text),
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("'{value}'"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_become_what_they_say() {
        use FieldType::{Boolean, Date, Datetime, Integer, Number, String};
        for (value, to, expected) in [
            (json!(" 42 "), Integer, json!(42)),
            (json!(42.0), Integer, json!(42)),
            (json!("2.5"), Number, json!(2.5)),
            (json!("7"), Number, json!(7)),
            (json!("18446744073709551615"), Number, json!(u64::MAX)),
            (json!("123456.123456789"), Number, json!(123_456.123_456_789)),
            (json!("no"), Boolean, json!(false)),
            (json!(1), Boolean, json!(true)),
            (json!(1776), String, json!("1776")),
            (json!("2026-11-20"), Date, json!("2026-11-20")),
            (json!("0020-11-26"), Date, json!("0020-11-26")),
            (json!("2026-11-20T23:59:00+05:00"), Date, json!("2026-11-20")),
            (json!("2026-11-20 14:15"), Datetime, json!("2026-11-20T14:15:00Z")),
            (json!("2026-11-20T14:15:00.250+01:00"), Datetime, json!("2026-11-20T13:15:00.250Z")),
            (json!("2026-10-25 02:30:00+01"), Datetime, json!("2026-10-25T01:30:00Z")),
            (json!("2026-11-20T14:15:00.250+0100"), Datetime, json!("2026-11-20T13:15:00.250Z")),
            (json!("2026-11-20T14:15:00-0330"), Datetime, json!("2026-11-20T17:45:00Z")),
            (json!("2026-11-20T14:15Z"), Datetime, json!("2026-11-20T14:15:00Z")),
            (json!("2026-11-20 14:15+01:00"), Datetime, json!("2026-11-20T13:15:00Z")),
            (json!("2026-11-20 14:15:00 UTC"), Datetime, json!("2026-11-20T14:15:00Z")),
            (json!("2026-11-20 00:15:00+02"), Date, json!("2026-11-20")),
        ] {
            assert_eq!(convert(value.clone(), to, false), Ok(Some(expected)), "{value}");
        }
        assert_eq!(convert(json!(" "), Integer, false), Ok(None));
        assert_eq!(convert(json!(""), String, false), Ok(Some(json!(""))));
    }

    #[test]
    fn dates_out_of_order_are_told() {
        for text in [
            "31.12.2025",
            "1.1.2026 10:00",
            "12/31/2025, 11:59 PM",
            "31-12-2025T10:00",
            " 31.12.25",
            "12/31/25",
        ] {
            assert!(is_date_out_of_order(text), "{text}");
        }
        for text in [
            "2025-12-31",
            "2025.12.31",
            "20-11-26",
            "1.10.0",
            "12-34-5678",
            "ORD-9",
            "12.5",
            "7/8",
            "",
            "100.12.2025",
            "01/10/2025/0007",
            "10.12.20.7",
            "10.12.20-7",
            "31.12.2025x",
        ] {
            assert!(!is_date_out_of_order(text), "{text}");
        }
    }

    #[test]
    fn what_they_do_not_say_is_an_error() {
        use FieldType::{Array, Boolean, Date, Datetime, Integer, Number, Object, String};
        for (value, to, code) in [
            (json!("12,x"), Number, "INVALID_NUMBER"),
            (json!("NaN"), Number, "INVALID_NUMBER"),
            (json!("1.5"), Integer, "INVALID_INTEGER"),
            (json!(1e30), Integer, "INVALID_INTEGER"),
            (json!("maybe"), Boolean, "INVALID_BOOLEAN"),
            (json!("2026-02-30"), Date, "INVALID_DATE"),
            (json!("20-11-26"), Date, "INVALID_DATE"),
            (json!("202-11-26 10:00"), Date, "INVALID_DATE"),
            (json!("20-11-26"), Datetime, "INVALID_DATETIME"),
            (json!("26-11-20 14:15:00"), Datetime, "INVALID_DATETIME"),
            (json!("26-11-20T14:15:00Z"), Datetime, "INVALID_DATETIME"),
            (json!("26-11-20 14:15:00+02"), Datetime, "INVALID_DATETIME"),
            (json!("2026-11-20 +01"), Datetime, "INVALID_DATETIME"),
            (json!("2026-11-20 14:15:00 CET"), Datetime, "INVALID_DATETIME"),
            (json!("31.12.2025"), Date, "INVALID_DATE"),
            (json!({}), String, "INVALID_STRING"),
            (json!("a"), Object, "INVALID_OBJECT"),
            (json!("a"), Array, "INVALID_ARRAY"),
        ] {
            assert_eq!(convert(value.clone(), to, false).unwrap_err().code, code, "{value}");
        }
        for text in ["1234567890123456.78", " -0.12345678901234567891", "1e400"] {
            let failure = convert(json!(text), Number, false).unwrap_err();
            assert_eq!(failure.code, "INVALID_NUMBER");
            assert!(
                failure.message.contains(text) && failure.message.contains("would lose digits"),
                "{failure:?}"
            );
        }
        assert_eq!(convert(json!("it's"), Number, false).unwrap_err().message, "'it’s' is not a number");
    }
}
