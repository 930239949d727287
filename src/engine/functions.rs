//! The functions that expressions have besides those of the Common Expression Language.
//!
//! Each may be called as a function or as a method of its first argument: `lower(value)`, `value.lower()`.
//!
//! | function | value |
//! | --- | --- |
//! | `lower(s)`, `upper(s)`, `title(s)` | the text in that case, of any script |
//! | `concat(a, b, …)` | the texts of all arguments that are not null, in a row |
//! | `coalesce(a, b, …)` | the first argument that is neither null nor empty |
//! | `lookup(map, key)`, `lookup(map, key, default)` | the entry of a map; null or the default where it has none |
//! | `to_number(v)`, `to_integer(v)`, `to_boolean(v)` | the value, converted; a number of more digits than 64 bits keep, which comes as a text, to the nearest one |
//! | `to_date(v)`, `to_date(v, "%d.%m.%Y")` | `YYYY-MM-DD`, from ISO 8601 or the given form (strftime) |
//! | `to_utc(v)`, `to_utc(v, "Europe/Berlin")` | the moment as RFC 3339 in UTC, from RFC 3339, from local time in a zone, or from seconds or milliseconds since 1970 |
//! | `round(x)`, `round(x, n)` | rounded to a whole number, or to `n` decimals, half away from zero |
//! | `e164(s, "DE")` | a phone number as ITU-T E.164 writes it, no extension beside it |
//! | `hash_sha256(v)` | 64 hexadecimal digits |

use cel::objects::Key;
use cel::{ExecutionError, Value as Cel};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone, Utc};
use sha2::{Digest, Sha256};

use super::budget::{MAX_COPIED, left};
use super::convert::quoted;
use super::phone;
use crate::domain::ids::hex;

/// Longest text that a function returns, in bytes.
const MAX_TEXT: usize = 256 << 10;

/// Names of our functions that a source may use.
pub(super) const NAMES: &[&str] = &[
    "lower",
    "upper",
    "title",
    "concat",
    "coalesce",
    "lookup",
    "to_number",
    "to_integer",
    "to_boolean",
    "to_date",
    "to_utc",
    "round",
    "e164",
    "hash_sha256",
];

type Function = fn(&[Cel]) -> Result<Cel, String>;
type Boxed = Box<
    dyn for<'context, 'call> Fn(
            &mut cel::FunctionContext<'context, 'call>,
        )
            -> Result<cel::common::value::CowVal<'context, 'call>, ExecutionError>
        + Send
        + Sync,
>;

/// Every function with its name.
pub(super) fn all() -> Vec<(&'static str, Boxed)> {
    let table: &[(&'static str, Function)] = &[
        ("lower", |args| Ok(text(args)?.to_lowercase().into())),
        ("upper", |args| Ok(text(args)?.to_uppercase().into())),
        ("title", |args| Ok(title(&text(args)?).into())),
        ("concat", concat),
        ("coalesce", coalesce),
        ("lookup", lookup),
        ("to_number", to_number),
        ("to_integer", to_integer),
        ("to_boolean", to_boolean),
        ("to_date", to_date),
        ("to_utc", to_utc),
        ("@round", round),
        ("e164", e164),
        ("hash_sha256", |args| Ok(hex(&Sha256::digest(text(args)?.as_bytes())).into())),
        ("@replace", replace),
        ("@join", join),
    ];
    table.iter().map(|(name, function)| (*name, boxed(name, *function))).collect()
}

/// A function of the evaluator that passes its target, if any, as the first argument.
fn boxed(name: &'static str, function: Function) -> Boxed {
    Box::new(move |call| {
        let mut args: Vec<Cel> = Vec::with_capacity(call.args.len() + 1);
        let mut room = MAX_COPIED;
        for arg in call.this.iter().chain(&call.args) {
            let too_large = || ExecutionError::function_error(name, "its arguments are too large");
            room = left(arg.as_ref(), room).ok_or_else(too_large)?;
            args.push(arg.as_ref().try_into()?);
        }
        let result = function(&args).map_err(|message| ExecutionError::function_error(name, message))?;
        Ok(cel::common::value::CowVal::Owned(result.try_into()?))
    })
}

/// The one argument of a function of a text.
fn text(args: &[Cel]) -> Result<String, String> {
    match args {
        [one] => spelt(one),
        _ => Err("it takes one argument".to_owned()),
    }
}

/// A single value as text.
fn spelt(value: &Cel) -> Result<String, String> {
    match value {
        Cel::String(text) => Ok(text.to_string()),
        Cel::Int(number) => Ok(number.to_string()),
        Cel::UInt(number) => Ok(number.to_string()),
        Cel::Float(number) => Ok(number.to_string()),
        Cel::Bool(flag) => Ok(flag.to_string()),
        Cel::Null => Err("the value is null".to_owned()),
        _ => Err("it takes a single value, not a list or map".to_owned()),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        if start {
            titled.extend(character.to_uppercase());
        } else {
            titled.extend(character.to_lowercase());
        }
        start = !character.is_alphanumeric() && character != '\'';
    }
    titled
}

fn concat(args: &[Cel]) -> Result<Cel, String> {
    let mut joined = String::new();
    for arg in args.iter().filter(|arg| !matches!(arg, Cel::Null)) {
        joined.push_str(&spelt(arg)?);
        bounded(joined.len())?;
    }
    Ok(joined.into())
}

fn coalesce(args: &[Cel]) -> Result<Cel, String> {
    let empty = |arg: &&Cel| match arg {
        Cel::Null => true,
        Cel::String(text) => text.is_empty(),
        _ => false,
    };
    Ok(args.iter().find(|arg| !empty(arg)).cloned().unwrap_or(Cel::Null))
}

fn lookup(args: &[Cel]) -> Result<Cel, String> {
    let (Cel::Map(map), key, default) = (match args {
        [map, key] => (map, key, Cel::Null),
        [map, key, default] => (map, key, default.clone()),
        _ => return Err("it takes a map, a key and maybe a default".to_owned()),
    }) else {
        return Err("its first argument must be a map".to_owned());
    };
    let key = match key {
        Cel::String(text) => Key::String(text.clone()),
        Cel::Int(number) => Key::Int(*number),
        Cel::UInt(number) => Key::Uint(*number),
        Cel::Bool(flag) => Key::Bool(*flag),
        _ => return Ok(default),
    };
    Ok(map.map.get(&key).cloned().unwrap_or(default))
}

fn to_number(args: &[Cel]) -> Result<Cel, String> {
    match args {
        [Cel::Float(number)] => Ok(Cel::Float(*number)),
        [Cel::Int(number)] => Ok(Cel::Float(*number as f64)),
        _ => {
            let text = text(args)?;
            let number: Option<f64> = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Cel::Float).ok_or_else(|| format!("{} is no number", quoted(&text)))
        }
    }
}

fn to_integer(args: &[Cel]) -> Result<Cel, String> {
    match args {
        [whole @ (Cel::Int(_) | Cel::UInt(_))] => Ok(whole.clone()),
        [Cel::Float(number)] if number.fract() == 0.0 && number.abs() < 9e15 => Ok(Cel::Int(*number as i64)),
        _ => {
            let text = text(args)?;
            text.trim().parse().map(Cel::Int).map_err(|_| format!("{} is no whole number", quoted(&text)))
        }
    }
}

fn to_boolean(args: &[Cel]) -> Result<Cel, String> {
    if let [Cel::Bool(flag)] = args {
        return Ok(Cel::Bool(*flag));
    }
    let text = text(args)?;
    super::convert::boolean(&text)
        .map(Cel::Bool)
        .ok_or_else(|| format!("{} is neither true nor false", quoted(&text)))
}

fn to_date(args: &[Cel]) -> Result<Cel, String> {
    let date = match args {
        [value] => {
            let text = spelt(value)?;
            super::convert::date(&text).ok_or_else(|| format!("{} is no ISO 8601 date", quoted(&text)))?
        }
        [value, Cel::String(form)] => {
            let text = spelt(value)?;
            parse_date(text.trim(), form)
                .ok_or_else(|| format!("{} is no date of the form {}", quoted(&text), quoted(form)))?
        }
        _ => return Err("it takes a value and maybe a form such as '%d.%m.%Y'".to_owned()),
    };
    Ok(date.format("%Y-%m-%d").to_string().into())
}

fn parse_date(text: &str, form: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, form)
        .ok()
        .or_else(|| NaiveDateTime::parse_from_str(text, form).ok().map(|moment| moment.date()))
        // `%Y` takes two digits for a year of antiquity; who has two says `%y`.
        .filter(|date| date.year() >= 1000 || text.contains(&format!("{:04}", date.year())))
}

fn to_utc(args: &[Cel]) -> Result<Cel, String> {
    let moment = match args {
        [Cel::Int(number)] => {
            // Later than the year 5000 in seconds is taken for milliseconds.
            let millis =
                if number.abs() > 100_000_000_000 { Some(*number) } else { number.checked_mul(1_000) };
            millis
                .and_then(DateTime::from_timestamp_millis)
                .ok_or_else(|| format!("'{number}' is no moment"))?
        }
        [value] => {
            let text = spelt(value)?;
            super::convert::moment(&text).ok_or_else(|| format!("{} is no RFC 3339 moment", quoted(&text)))?
        }
        [value, Cel::String(zone)] => {
            let text = spelt(value)?;
            let zone: chrono_tz::Tz =
                zone.parse().map_err(|_| format!("{} is no time zone", quoted(zone)))?;
            in_zone(&text, zone).ok_or_else(|| format!("{} is no moment in {zone}", quoted(&text)))?
        }
        _ => return Err("it takes a value and maybe a time zone".to_owned()),
    };
    Ok(super::convert::spell(moment).into())
}

fn in_zone(text: &str, zone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
    let local = super::convert::local(text)?;
    zone.from_local_datetime(&local).earliest().map(|moment| moment.to_utc())
}

fn round(args: &[Cel]) -> Result<Cel, String> {
    let number = |value: &Cel| match value {
        Cel::Int(number) => Ok(*number as f64),
        Cel::UInt(number) => Ok(*number as f64),
        Cel::Float(number) => Ok(*number),
        _ => Err("it takes a number".to_owned()),
    };
    match args {
        [whole @ (Cel::Int(_) | Cel::UInt(_))] => Ok(whole.clone()),
        [value] => {
            let rounded = half_up(number(value)?, 0);
            if rounded.abs() < 9e15 {
                Ok(Cel::Int(rounded as i64))
            } else {
                Err("the number is too large".to_owned())
            }
        }
        [value, Cel::Int(decimals)] if (0..=15).contains(decimals) => {
            Ok(Cel::Float(half_up(number(value)?, usize::try_from(*decimals).unwrap_or(0))))
        }
        _ => Err("it takes a number and maybe 0 to 15 decimals".to_owned()),
    }
}

/// A number rounded by the digits that it is written with, half away from zero.
fn half_up(number: f64, decimals: usize) -> f64 {
    // (as many as tell it from others, and never a power of ten)
    let text = number.abs().to_string();
    let Some((whole, fraction)) = text.split_once('.') else { return number };
    let Some((kept, rest)) = fraction.split_at_checked(decimals) else { return number };
    let digits: Option<u128> = format!("{whole}{kept}").parse().ok();
    let rounded = digits
        .and_then(|digits| format!("{}e-{decimals}", digits + u128::from(rest >= "5")).parse::<f64>().ok());
    rounded.unwrap_or(number).copysign(number)
}

fn e164(args: &[Cel]) -> Result<Cel, String> {
    match args {
        [value, Cel::String(country)] => Ok(phone::e164(&spelt(value)?, country)?.into()),
        _ => Err("it takes a number and a country such as 'DE'".to_owned()),
    }
}

fn replace(args: &[Cel]) -> Result<Cel, String> {
    let (Cel::String(text), Cel::String(old), Cel::String(new), times) = (match args {
        [text, old, new] => (text, old, new, usize::MAX),
        [text, old, new, Cel::Int(times)] => (text, old, new, usize::try_from(*times).unwrap_or(usize::MAX)),
        _ => return Err("it takes what to replace and by what".to_owned()),
    }) else {
        return Err("it takes texts".to_owned());
    };
    let found = text.matches(old.as_str()).take(times).count();
    bounded(text.len() + found.saturating_mul(new.len()))?;
    Ok(text.replacen(old.as_str(), new, found).into())
}

fn join(args: &[Cel]) -> Result<Cel, String> {
    let (Cel::List(items), between) = (match args {
        [items] => (items, ""),
        [items, Cel::String(between)] => (items, between.as_str()),
        _ => return Err("it takes a list of texts and maybe what stands between them".to_owned()),
    }) else {
        return Err("it takes a list of texts".to_owned());
    };
    let mut joined = String::new();
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            joined.push_str(between);
        }
        joined.push_str(&spelt(item)?);
        bounded(joined.len())?;
    }
    Ok(joined.into())
}

fn bounded(length: usize) -> Result<(), String> {
    if length <= MAX_TEXT { Ok(()) } else { Err("the text becomes too long".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use crate::domain::error_class::{ErrorClass, Stage};
    use crate::domain::failure::Failure;
    use crate::domain::fingerprint::template;
    use crate::engine::expression::{Expression, Record};
    use crate::engine::fence::TAME;

    fn run(source: &str, value: Value) -> Result<Value, String> {
        Expression::compile(source)?.evaluate(&Record::new(&Map::new()), &value)
    }

    #[test]
    fn they_do_what_the_table_says() {
        for (source, value, expected) in [
            ("value.lower()", json!("ÄB"), json!("äb")),
            ("upper(value)", json!("straße"), json!("STRASSE")),
            ("value.title()", json!("maría-josé o'neill"), json!("María-José O'neill")),
            ("concat('SHOP-', value, null, 1.5)", json!(7), json!("SHOP-71.5")),
            ("coalesce(value, '', 'x')", Value::Null, json!("x")),
            ("coalesce(null)", Value::Null, Value::Null),
            ("lookup({'lead': 'Lead'}, value)", json!("lead"), json!("Lead")),
            ("lookup({'lead': 'Lead'}, value)", json!("x"), Value::Null),
            ("lookup({'lead': 'Lead'}, value, 'Other')", Value::Null, json!("Other")),
            ("to_number(value)", json!(" 2.50 "), json!(2.5)),
            ("to_integer(value)", json!("42"), json!(42)),
            ("to_integer(value)", json!(42.0), json!(42)),
            ("to_boolean(value)", json!("Yes"), json!(true)),
            ("to_date(value)", json!("2026-11-20T23:15:00+01:00"), json!("2026-11-20")),
            ("value.to_date('%d.%m.%Y')", json!("20.11.2026"), json!("2026-11-20")),
            ("to_date(value, '%d.%m.%y')", json!("20.11.26"), json!("2026-11-20")),
            ("to_date(value, '%b %d %Y')", json!("Jun 12 1998"), json!("1998-06-12")),
            ("to_utc(value)", json!("2026-11-20T14:15:00+01:00"), json!("2026-11-20T13:15:00Z")),
            ("to_utc(value, 'Europe/Berlin')", json!("2026-07-01 12:00"), json!("2026-07-01T10:00:00Z")),
            ("to_utc(value)", json!(1_700_000_000), json!("2023-11-14T22:13:20Z")),
            ("to_utc(value)", json!(1_700_000_000_000_i64), json!("2023-11-14T22:13:20Z")),
            ("round(value)", json!(2.5), json!(3)),
            ("round(value)", json!(-2.5), json!(-3)),
            ("round(value)", json!(0.499_999_999_999_999_94), json!(0)),
            ("round(value, 0)", json!(2.5), json!(3.0)),
            ("round(value, 2)", json!(2.345), json!(2.35)),
            ("round(value, 2)", json!(0.125), json!(0.13)),
            ("round(value, 2)", json!(1.005), json!(1.01)),
            ("round(value, 2)", json!(-1.005), json!(-1.01)),
            ("round(value, 2)", json!(9.999), json!(10.0)),
            ("round(value, 2)", json!(0.0449), json!(0.04)),
            ("round(value, 3)", json!(2.5), json!(2.5)),
            ("round(value, 15)", json!(1e300), json!(1e300)),
            ("round(value, 15)", json!(1e-300), json!(0.0)),
            ("round(value, 15)", json!(4_503_599_627_370_495.5), json!(4_503_599_627_370_495.5)),
            ("e164(value, 'DE')", json!("030 / 123 45-67"), json!("+49301234567")),
            ("e164(value, 'de')", json!("+44 20 7946 0958"), json!("+442079460958")),
            ("e164(value, 'DE')", json!("0043 1 5880555"), json!("+4315880555")),
            (
                "hash_sha256(value)",
                json!("abc"),
                json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ),
            ("value.replace('a', 'b', 1)", json!("aa"), json!("ba")),
        ] {
            assert_eq!(run(source, value), Ok(expected), "{source}");
        }
    }

    #[test]
    fn the_example_file_tells_of_each() {
        let example = include_str!("../../config/flows.example.toml");
        let table = example.split_once("Ours come on top").unwrap().1;
        for name in super::NAMES {
            assert!(table.contains(&format!(" {name}(")), "{name}");
        }
    }

    #[test]
    fn they_say_what_they_cannot_do() {
        for (source, value, expected) in [
            ("to_number(value)", json!("12,x"), "to_number: '12,x' is no number"),
            ("to_number(value)", json!("inf"), "to_number: 'inf' is no number"),
            ("to_date(value)", json!("20.11.2026"), "to_date: '20.11.2026' is no ISO 8601 date"),
            ("to_date(value)", json!("20-11-26"), "to_date: '20-11-26' is no ISO 8601 date"),
            (
                "to_date(value, '%d.%m.%Y')",
                json!("20.11.26"),
                "to_date: '20.11.26' is no date of the form '%d.%m.%Y'",
            ),
            ("to_utc(value)", json!("20-11-26 12:00"), "to_utc: '20-11-26 12:00' is no RFC 3339 moment"),
            ("to_utc(value, 'Mars')", json!("2026-11-20 12:00"), "to_utc: 'Mars' is no time zone"),
            ("e164(value, 'DE')", json!("12"), "e164: '12' is no phone number"),
            ("e164(value, 'XX')", json!("12"), "e164: 'XX' is no country whose calling code is known"),
            ("lower(value)", Value::Null, "lower: the value is null"),
            ("round(value)", json!("a"), "round: it takes a number"),
        ] {
            assert_eq!(run(source, value), Err(expected.to_owned()), "{source}");
        }
    }

    /// More people see what is kept of a group of errors than see records.
    #[test]
    fn what_is_kept_of_a_complaint_holds_no_value() {
        let calls = [
            "$(value)",
            "$(value, value)",
            "$(value, value, value)",
            "$(value, '%d.%m.%Y')",
            "$(value, 'DE')",
            "$(value, 'Europe/Berlin')",
            "$('2026-11-20T14:15:00Z', value)",
            "value.$()",
            "value.$(value)",
            "[value].$()",
            "[value].$(value)",
            "timestamp('2026-11-20T14:15:00Z').$(value)",
        ];
        let operators = [
            "record.missing",
            "record[value]",
            "value[0]",
            "value[value]",
            "[value][value]",
            "{'a': value}['b']",
            "{value: 1, value: 2}",
            "{[value]: 1}",
            "value / 2",
            "value + 1",
            "value < 1",
            "value < [value]",
            "value in 1",
            "value in value",
            "-value",
            "!value",
            "value && true",
            "value ? 1 : 2",
            "[value].map(v, v / 2)",
            "value.all(v, true)",
        ];
        let names: Vec<&&str> = super::NAMES.iter().chain(TAME).collect();
        let sources: Vec<String> = calls
            .iter()
            .flat_map(|call| names.iter().map(|name| call.replace('$', name)))
            .chain(operators.map(str::to_owned))
            .collect();
        let values = ["[it's a \"zebra\"", &"[zebra ".repeat(50)];
        let (mut complaints, mut leaks) = (0, Vec::new());
        for source in &sources {
            let Ok(expression) = Expression::compile(source) else { continue };
            for value in values {
                let Err(message) = expression.evaluate(&Record::new(&Map::new()), &json!(value)) else {
                    continue;
                };
                let failure =
                    Failure::new(ErrorClass::Transform, "TRANSFORM_ERROR", Stage::Transform, &message);
                complaints += 1;
                let kept = template(&failure.message);
                if kept.contains("zebra") {
                    leaks.push(format!("{source}: {kept}"));
                }
            }
        }
        assert!(complaints > 500, "{complaints}");
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }
}
