//! Moments as programs read them.

use std::borrow::Cow;

use chrono::{DateTime, Timelike, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::text::{put_clock, put_date, put_digits};

/// A moment in UTC, as RFC 3339 writes it, with as much of a fraction as it has. (What the library makes of one takes
/// several times as long, and a page of runs has dozens.)
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub DateTime<Utc>);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let naive = self.0.naive_utc();
        let mut text = String::with_capacity(30);
        put_date(&mut text, naive.date());
        put_clock(&mut text, [('T', naive.hour()), (':', naive.minute()), (':', naive.second())]);
        let fraction = match naive.nanosecond() {
            0 => None,
            nanos if nanos % 1_000_000 == 0 => Some((nanos / 1_000_000, 3)),
            nanos if nanos % 1_000 == 0 => Some((nanos / 1_000, 6)),
            nanos => Some((nanos, 9)),
        };
        if let Some((number, width)) = fraction {
            text.push('.');
            put_digits(&mut text, number, width);
        }
        text.push('Z');
        serializer.serialize_str(&text)
    }
}

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        DateTime::<Utc>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        DateTime::<Utc>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_the_library_would() {
        for text in [
            "2026-11-21T08:05:07Z",
            "1970-01-01T00:00:00Z",
            "2026-02-28T23:59:59.120Z",
            "2026-11-21T08:05:07.000450Z",
            "9998-12-31T08:05:07.123456789Z",
        ] {
            let moment: DateTime<Utc> = text.parse().unwrap();
            let ours = serde_json::to_string(&Moment(moment)).unwrap();
            assert_eq!(ours, serde_json::to_string(&moment).unwrap());
            assert_eq!(ours, format!("\"{text}\""));
        }
    }
}
