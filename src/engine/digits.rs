//! Numbers by their digits. A value holds a number in 64 bits, whole or floating, which keep 15 digits for certain; a
//! number that would lose some of more is carried as the text of its digits instead, which databases take for a number.
//! Not so in a JSON document: there a fraction of up to 17 digits is a number of 64 bits floating, as its writer held it,
//! if those are the digits of one.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::json;

/// So many digits are kept for certain.
const CERTAIN: usize = 15;
/// So many digits tell any number of 64 bits floating from the next; who writes no more, and just those of such a
/// number, means it.
const FLOATING: usize = 17;

/// A decimal number, `0.digits` times ten to the power of `exponent`; without digits it is zero.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    exponent: i64,
    digits: String,
}

impl Decimal {
    /// The number that a text spells with digits, maybe a sign, a point and a power of ten.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let power = i64::from(power.parse::<i32>().ok()?);
        let digits = all.trim_start_matches('0');
        let point = whole.len() as i64 - (all.len() - digits.len()) as i64;
        let digits = digits.trim_end_matches('0').to_owned();
        Some(match digits.is_empty() {
            true => Self { negative: false, exponent: 0, digits },
            false => Self { negative: text.starts_with('-'), exponent: point + power, digits },
        })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.negative, number.digits.is_empty()) {
            (_, true) => 0,
            (true, _) => -1,
            (false, _) => 1,
        };
        let size = |number: &Self, other: &Self| {
            number.exponent.cmp(&other.exponent).then_with(|| number.digits.cmp(&other.digits))
        };
        sign(self).cmp(&sign(other)).then_with(|| match self.negative {
            true => size(other, self),
            false => size(self, other),
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The number that a text spells, if it keeps all of its digits.
pub(super) fn number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    let float: f64 = text.parse().ok()?;
    let written = Decimal::parse(&format!("{float:e}"))?;
    if Decimal::parse(text)? == written { Number::from_f64(float) } else { None }
}

/// Whether a text spells a number that would lose digits.
pub(super) fn are_lost(text: &str) -> bool {
    Decimal::parse(text).is_some() && number(text).is_none()
}

/// The nearest number of 64 bits, for a text of a number that would lose digits.
pub(super) fn nearest(value: &Value) -> Option<Value> {
    let text = value.as_str().filter(|text| are_lost(text))?;
    let float: f64 = text.parse().ok()?;
    Number::from_f64(float.clamp(f64::MIN, f64::MAX)).map(Value::Number)
}

/// What a JSON document says; a number in it that would lose digits is the text of its digits, unless it is the nearest
/// one in 64 bits floating that was meant.
///
/// # Errors
/// Those of [`json::read`].
pub(super) fn from_json(text: &str) -> serde_json::Result<Value> {
    read(text, false)
}

/// What a database row as a JSON text says: the numbers of its columns, alone or in lists, keep all digits; what is an
/// object there is a document.
///
/// # Errors
/// Those of [`json::read`].
pub(super) fn from_row(text: &str) -> serde_json::Result<Value> {
    read(text, true)
}

fn read(text: &str, row: bool) -> serde_json::Result<Value> {
    // Only what is right as it stands may be touched.
    let value = json::read(text)?;
    match in_quotes(text, row) {
        None => Ok(value),
        Some(text) => json::read(&text),
    }
}

/// Whether a number is written as one of 64 bits floating is, in so many digits.
fn is_floating(number: &str) -> bool {
    let (Some(decimal), Ok(nearest)) = (Decimal::parse(number), number.parse::<f64>()) else { return false };
    let digits = decimal.digits.len();
    number.contains(['.', 'e', 'E'])
        && (1..=FLOATING).contains(&digits)
        && Decimal::parse(&format!("{nearest:.*e}", digits - 1)) == Some(decimal)
}

/// A JSON text whose numbers that would lose digits are put in quotes, also those of a row's columns that are written as
/// floating ones are; `None` without such numbers.
fn in_quotes(text: &str, row: bool) -> Option<String> {
    let (mut quoted, mut copied, mut at, mut objects) = (String::new(), 0, 0, 0_usize);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at = text_end(text.as_bytes(), at),
            b'-' | b'0'..=b'9' => {
                let begin = at;
                at = number_end(text.as_bytes(), at);
                let number = &text[begin..at];
                let long = number.len() > CERTAIN || number.contains(['e', 'E']);
                let exact = row && objects == 1;
                if long && are_lost(number) && (exact || !is_floating(number)) {
                    quoted.extend([&text[copied..begin], "\"", number, "\""]);
                    copied = at;
                }
            }
            _ => {
                match byte {
                    b'{' => objects += 1,
                    b'}' => objects = objects.saturating_sub(1),
                    _ => {}
                }
                at += 1;
            }
        }
    }
    (copied > 0).then(|| quoted + &text[copied..])
}

/// The place after the text that begins at `begin` with its quote.
fn text_end(json: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// The place after the number that begins at `begin`.
fn number_end(json: &[u8], begin: usize) -> usize {
    let of_a_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    json[begin..].iter().position(|byte| !of_a_number(byte)).map_or(json.len(), |length| begin + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_is_one_that_keeps_its_digits() {
        for (text, expected) in [
            ("0", json!(0)),
            ("-12", json!(-12)),
            ("18446744073709551615", json!(u64::MAX)),
            ("2.50", json!(2.5)),
            ("-0.00", json!(-0.0)),
            (".5", json!(0.5)),
            ("1e300", json!(1e300)),
            ("1234567890.12345", json!(1_234_567_890.123_45)),
            ("9007199254740993", json!(9_007_199_254_740_993_i64)),
            ("0.30000000000000004", json!(0.1 + 0.2)),
            ("5e-324", json!(5e-324)),
        ] {
            assert_eq!(number(text).map(Value::Number), Some(expected), "{text}");
            assert!(!are_lost(text), "{text}");
        }
        for text in [
            "1234567890123456.78",
            "-12345678901234567.89",
            "0.12345678901234567",
            "0.10000000000000001",
            "18446744073709551616",
            "3.3333333333333333",
            "1e400",
            "1e-400",
            &"7".repeat(1_000),
        ] {
            assert!(number(text).is_none() && are_lost(text), "{text}");
        }
        for text in ["", "-", ".", "e5", "1e", "1e5.0", "1,5", "0x10", "NaN", "inf", "1_000", "--1", "٣"] {
            assert!(number(text).is_none() && !are_lost(text), "{text}");
        }
    }

    #[test]
    fn json_keeps_all_digits() {
        for (text, expected) in [
            (
                r#"{"a": 12345678901234567.89, "b": [1.5, -0.123456789012345678]}"#,
                json!({"a": "12345678901234567.89", "b": [1.5, "-0.123456789012345678"]}),
            ),
            (
                r#"{"3.3333333333333333": "\"3.3333333333333333", "n":0.1}"#,
                json!({"3.3333333333333333": "\"3.3333333333333333", "n": 0.1}),
            ),
            (
                r#"[31.245270191439438,9007199254740993]"#,
                json!([31.245_270_191_439_438, 9_007_199_254_740_993_i64]),
            ),
            ("[1e-400,18446744073709551617]", json!(["1e-400", "18446744073709551617"])),
            (
                r#"{"amount": 12345678901234.567, "more": [1234567890123456.7, 0.12345678901234568]}"#,
                json!({"amount": "12345678901234.567", "more": ["1234567890123456.7", 0.123_456_789_012_345_68]}),
            ),
            // More digits than the nearest number needs, and all of them its own.
            (
                r#"{"lat": 52.520006600000002, "all": [-1.2345678901234568e-5, 0.10000000000000001]}"#,
                json!({"lat": 52.520_006_6, "all": [-1.234_567_890_123_456_8e-5, 0.1]}),
            ),
        ] {
            assert_eq!(from_json(text).unwrap(), expected, "{text}");
        }
        for text in ["{12345678901234567.89: 1}", "012345678901234567.89", "12345678901234567.8.9", "{\"a"] {
            assert!(from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_columns_of_a_row_keep_all_digits_and_its_documents_hold_numbers() {
        let text = r#"{"n": 0.10000000000000001, "l": [0.10000000000000001], "d": {"n": [0.10000000000000001]}, "m": 0.10000000000000001}"#;
        let n = "0.10000000000000001";
        assert_eq!(from_row(text).unwrap(), json!({"n": n, "l": [n], "d": {"n": [0.1]}, "m": n}));
    }

    #[test]
    fn decimals_are_ordered_by_size() {
        let ordered = [
            "-1e20",
            "-12.5",
            "-12.49",
            "-0.001",
            "0",
            "5e-9",
            "0.05",
            "9",
            "10",
            "10.01",
            "1e3",
            "9007199254740992",
            "9007199254740993",
        ];
        let numbers: Vec<Decimal> = ordered.iter().map(|text| Decimal::parse(text).unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(Decimal::parse("+010.00e-1"), Decimal::parse("1"));
        assert_eq!(Decimal::parse("-0.0"), Decimal::parse("0"));
    }
}
