//! What may be kept of a record that was rejected: an excerpt without secrets and personal data.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

/// What stands in the place of something hidden.
pub const HIDDEN: &str = "[redacted]";
/// Longest excerpt, in bytes of JSON.
pub const MAX_BYTES: usize = 1_024;
/// Longest name kept of a field, a code or a record, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Fields kept of one object, before its size is looked at.
const MAX_FIELDS: usize = 50;
const MAX_DEPTH: usize = 4;
const MAX_ITEMS: usize = 3;
const MAX_CHARS: usize = 120;

#[expect(clippy::expect_used, reason = "a constant pattern; the tests compile it")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

static SECRET_KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)pass(word|wd|phrase|code)?$|^pass|secret|token|authorization|api[_-]?key|cookie|\bssn\b|iban|card|cvv|credential|private[_-]?key",
    )
});
static PHONE_KEY: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)phone|tel[eé]?fon|telef|handy|mobil|(\b|_)tel(\b|_)|fax"));
/// What may be a key, or a character of one that was escaped.
static KEY: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\w-]+|\\u00[[:xdigit:]]{0,2}"));
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"([\p{L}\p{N}])[\p{L}\p{M}\p{N}._%+*-]*@([\p{L}\p{M}\p{N}-]+(?:\.[\p{L}\p{M}\p{N}-]+)+)")
});
/// A phone number in its international form.
static PHONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(^|[^\w+])(\+[0-9](?:[ ()./-]{0,3}[0-9]){7,})"));
static BEARER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{6,}|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(\.[A-Za-z0-9_-]*)?|\b(mcp|apx|sk|pk|ghp|gho|xox[abp]|whsec)_[A-Za-z0-9_-]{10,}|\b\w+://[^\s/:@]+:[^\s/]+@",
    )
});
static CARD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\d(?:[ -]?\d){12,18}\b"));

/// An excerpt of a record, safe to store.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt {
    /// What is left of the record.
    pub value: Value,
    /// Whether something was left out for its size.
    pub truncated: bool,
}

/// What may be kept of `record`. Values under secret-looking keys and under the top-level keys
/// `sensitive` are hidden wholly, and of a phone number under a key that says so all but two digits; what [`text`] masks
/// is masked wherever it stands. Of each object the first 50 fields are looked at. `keep` (the failing field)
/// survives when the excerpt must shrink.
pub fn excerpt(record: &Value, sensitive: &[&str], keep: Option<&str>) -> Excerpt {
    let mut truncated = false;
    let mut value = walk(record, None, sensitive, keep, 0, &mut truncated);
    if let Value::Object(fields) = &mut value {
        truncated |= shrink(fields, keep);
    }
    if value.to_string().len() > MAX_BYTES {
        truncated = true;
        value = Value::String("[too large]".to_owned());
    }
    Excerpt { value, truncated }
}

/// What may be kept of the text of a record that cannot be read: what stands before anything that looks like the key of
/// a secret or of a phone number, since nobody can tell where the value of that ends.
pub fn line(text: &str) -> Excerpt {
    let secret = |word: &str| word.starts_with('\\') || hides(word);
    let found = KEY.find_iter(text).find(|word| secret(word.as_str()));
    let line = found.map_or_else(|| text.to_owned(), |word| format!("{}{HIDDEN}", &text[..word.end()]));
    excerpt(&serde_json::json!({ "line": line }), &[], None)
}

/// Whether values under this key are hidden, or starred, whatever they are.
pub fn hides(key: &str) -> bool {
    SECRET_KEY.is_match(key) || PHONE_KEY.is_match(key)
}

/// Drops the largest fields, `keep` last, until the object fits; whether any had to go.
fn shrink(fields: &mut Map<String, Value>, keep: Option<&str>) -> bool {
    let spelt = |key: &str| Value::from(key).to_string().len();
    let mut sizes: Vec<(bool, usize, String)> = fields
        .iter()
        .map(|(key, value)| {
            (Some(key.as_str()) != keep, spelt(key) + value.to_string().len() + 2, key.clone())
        })
        .collect();
    sizes.sort();
    // Each field has a colon and a comma, but the last one no comma; and there are two braces.
    let mut total = 1 + sizes.iter().map(|(_, size, _)| size).sum::<usize>();
    let before = fields.len();
    while total > MAX_BYTES
        && let Some((_, size, key)) = sizes.pop()
    {
        total -= size;
        fields.shift_remove(&key);
    }
    fields.len() < before
}

/// A name that somebody else made up (of a field, a code, a record) as it may be kept: in one line and cut.
pub fn name(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

/// `text` with mail addresses, phone numbers in their international form, card numbers and bearer secrets masked, control
/// characters removed.
pub fn text(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let masked = BEARER.replace_all(&plain, HIDDEN);
    let masked = PHONE.replace_all(&masked, |found: &regex::Captures<'_>| {
        let (digits, last) = found[2].split_at(found[2].len() - 2);
        format!("{}{}{last}", &found[1], digits.replace(|c: char| c.is_ascii_digit(), "*"))
    });
    let masked = EMAIL.replace_all(&masked, "$1***@$2");
    CARD.replace_all(&masked, |found: &regex::Captures<'_>| {
        let digits: String = found[0].chars().filter(char::is_ascii_digit).collect();
        if luhn(&digits) { HIDDEN.to_owned() } else { found[0].to_owned() }
    })
    .into_owned()
}

/// `sensitive` and `keep` speak of the fields of the record itself, which is at depth 0.
fn walk(
    value: &Value,
    key: Option<&str>,
    sensitive: &[&str],
    keep: Option<&str>,
    depth: usize,
    truncated: &mut bool,
) -> Value {
    if key.is_some_and(|key| SECRET_KEY.is_match(key)) && !value.is_null() {
        return Value::String(HIDDEN.to_owned());
    }
    match value {
        Value::Object(_) | Value::Array(_) if depth >= MAX_DEPTH => {
            *truncated = true;
            Value::String("[…]".to_owned())
        }
        Value::Object(fields) => {
            *truncated |= fields.len() > MAX_FIELDS;
            let some = fields.iter().enumerate().filter(|(place, (name, _))| {
                *place < MAX_FIELDS || (depth == 0 && Some(name.as_str()) == keep)
            });
            let kept = some.map(|(_, (name, value))| {
                let value = if depth == 0 && sensitive.contains(&name.as_str()) && !value.is_null() {
                    Value::String(HIDDEN.to_owned())
                } else {
                    walk(value, Some(name), sensitive, keep, depth + 1, truncated)
                };
                (short(&text(name), truncated), value)
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            *truncated |= items.len() > MAX_ITEMS;
            Value::Array(
                items
                    .iter()
                    .take(MAX_ITEMS)
                    .map(|item| walk(item, key, sensitive, keep, depth + 1, truncated))
                    .collect(),
            )
        }
        Value::String(string) if key.is_some_and(|key| PHONE_KEY.is_match(key)) => {
            Value::String(phone(string))
        }
        Value::String(string) => Value::String(short(&text(string), truncated)),
        Value::Number(number) => {
            let digits = number.to_string();
            if key.is_some_and(|key| PHONE_KEY.is_match(key)) {
                Value::String(phone(&digits))
            } else if (13..=19).contains(&digits.len()) && luhn(&digits) {
                Value::String(HIDDEN.to_owned())
            } else {
                value.clone()
            }
        }
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

fn short(text: &str, truncated: &mut bool) -> String {
    if text.chars().count() <= MAX_CHARS {
        return text.to_owned();
    }
    *truncated = true;
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

/// All but the last two digits starred.
fn phone(text: &str) -> String {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    let tail: String = digits.iter().skip(digits.len().saturating_sub(2)).collect();
    format!("***{tail}")
}

/// The check that payment card numbers satisfy (ISO/IEC 7812-1, annex B).
fn luhn(digits: &str) -> bool {
    if !(13..=19).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_and_people_are_hidden() {
        let record = json!({
            "name": "#48211", "email": "lena@example.com", "phone": "+49 30 1234567", "Password": "hunter2",
            "api_key": "abc", "note": "card 4111 1111 1111 1111, Bearer abcdef123456, mail x.y@z.example",
            "card_number": 4111111111111111_u64, "plain": 4111111111111111_u64, "order": 5512903377_u64,
            "dsn": "postgres://user:pw@host/db", "vat": "DE123", "nested": { "token": "t", "ok": 1 }
        });
        let kept = excerpt(&record, &["vat"], None);
        assert_eq!(
            kept.value,
            json!({
                "name": "#48211", "email": "l***@example.com", "phone": "***67", "Password": "[redacted]",
                "api_key": "[redacted]", "note": "card [redacted], [redacted], mail x***@z.example",
                "card_number": "[redacted]", "plain": "[redacted]", "order": 5512903377_u64,
                "dsn": "[redacted]host/db", "vat": "[redacted]", "nested": { "token": "[redacted]", "ok": 1 }
            })
        );
        assert!(!kept.truncated);
    }

    #[test]
    fn an_excerpt_is_small_and_keeps_the_failing_field() {
        let mut record = serde_json::Map::new();
        for n in 0..60 {
            record.insert(format!("field{n:02}"), json!("x".repeat(300)));
        }
        record.insert("culprit".into(), json!("y".repeat(100)));
        let kept = excerpt(&Value::Object(record), &[], Some("culprit"));
        assert!(kept.truncated && kept.value.to_string().len() <= MAX_BYTES);
        assert!(kept.value.get("culprit").is_some());
        let deep = json!({"a": {"b": {"c": {"d": {"e": 1}}}}, "list": [1, 2, 3, 4]});
        assert_eq!(
            excerpt(&deep, &[], None).value,
            json!({"a": {"b": {"c": {"d": "[…]"}}}, "list": [1, 2, 3]})
        );
        assert_eq!(excerpt(&json!("z".repeat(5000)), &[], None).value.as_str().unwrap().chars().count(), 120);
    }

    #[test]
    fn a_record_of_very_many_fields_is_cut_before_it_is_measured() {
        let mut record: serde_json::Map<_, _> = (0..80_000).map(|n| (format!("f{n}"), json!(n))).collect();
        record.insert("culprit".into(), json!("y"));
        let nested = json!({ "all": record.clone() });
        let kept = excerpt(&Value::Object(record), &[], Some("culprit"));
        assert!(kept.truncated && kept.value.to_string().len() <= MAX_BYTES);
        assert_eq!((&kept.value["f0"], &kept.value["culprit"]), (&json!(0), &json!("y")));
        assert_eq!(kept.value.as_object().map(Map::len), Some(MAX_FIELDS + 1));
        assert_eq!(excerpt(&nested, &[], None).value["all"].as_object().map(Map::len), Some(MAX_FIELDS));
    }

    #[test]
    fn of_a_broken_line_nothing_is_kept_behind_the_key_of_a_secret() {
        for (text, kept) in [
            (r#"{"id":2,"password":"geheim99","note":}"#, r#"{"id":2,"password[redacted]"#),
            (r#"{"id":2,"passwort":1,api_key:k-123,"x""#, r#"{"id":2,"passwort[redacted]"#),
            (r#"{'id':2,'home-tel':'030 123','x"#, r#"{'id':2,'home-tel[redacted]"#),
            (r#"{"a":1,"toke\u006e":"t1"}}"#, r#"{"a":1,"toke\u006e[redacted]"#),
            (r#"{"a":1,"api\u002dkey":"t1"}}"#, r#"{"a":1,"api\u002d[redacted]"#),
            (r#"{"name":"\u0142","to":"ana@example.com",}"#, r#"{"name":"\u0142","to":"a***@example.com",}"#),
        ] {
            assert_eq!(line(text).value, json!({ "line": kept }), "{text}");
        }
    }

    #[test]
    fn addresses_of_any_script_and_phone_numbers_of_any_name_are_masked() {
        for (said, kept) in [
            ("jürgen@example.com", "j***@example.com"),
            ("an ana@müller.de, иван@пример.рф", "an a***@müller.de, и***@пример.рф"),
            ("call +49 (0)30 1234567 or +14165550123!", "call +** (*)** *****67 or +*********23!"),
            (
                "+1 2, 1e+12345678, 2026-10-25 02:55:00+0200 2026",
                "+1 2, 1e+12345678, 2026-10-25 02:55:00+0200 2026",
            ),
        ] {
            assert_eq!(text(said), kept);
            assert_eq!(text(kept), kept);
        }
        for key in
            ["telefon", "Telefonnummer", "teléfono", "Handy", "Mobilnummer", "tel_privat", "Tel.", "telefax"]
        {
            assert_eq!(excerpt(&json!({ key: "030 7654321" }), &[], None).value[key], "***21", "{key}");
        }
        for key in ["hotel", "title", "intel"] {
            assert_eq!(excerpt(&json!({ key: "030 7654321" }), &[], None).value[key], "030 7654321", "{key}");
        }
    }

    #[test]
    fn control_characters_go() {
        assert_eq!(text("a\u{1b}[31mred\u{0}"), "a[31mred");
        assert_eq!(text("1234567890123"), "1234567890123");
    }
}
