//! Yesterday's incident: `run_abc123`.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::errors::{CURRENCY, DUPLICATE, Kind, RATE_LIMIT, REFERENCE};
use crate::demo::past::{Habit, end, fail};
use crate::demo::times::Times;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::run::ReasonCode;
use crate::store::past::{PastErrors, PastEvent, PastRun, PastSample};

/// Yesterday at a quarter past two: a mapping without its default meets a flash sale.
pub(super) fn incident(times: &Times, habit: &Habit, runs: &mut Vec<PastRun>) {
    let at = |hour, minute| times.at(1, [hour, minute, 0]);
    runs.retain(|run| run.queued_at < at(14, 30) || run.queued_at >= at(15, 15));
    for run in runs.iter_mut() {
        run.flow_version = match run.queued_at {
            queued if queued < at(14, 3) => 6,
            queued if queued < at(15, 5) => 7,
            _ => 8,
        };
        match run.queued_at {
            queued if queued == at(14, 0) => habit.count(run, [431, 431, 0, 0]),
            queued if queued == at(14, 15) => {
                run.run_id = "run_abc123".to_owned();
                run.started_at = Some(times.at(1, [14, 15, 3]));
                habit.count(run, [4_812, 3_561, 1_203, 48]);
                run.bytes_read = 12_896_160;
                run.bytes_written = 9_541_222;
                let why = "25.3 % of the records were rejected, more than the 10 % that the flow allows";
                fail(run, ReasonCode::ErrorThreshold, why, times.at(1, [14, 22, 47]));
                run.errors = rejected(times);
                run.events = timeline(times);
            }
            queued if queued == at(15, 15) => {
                habit.count(run, [6_911, 6_911, 0, 0]);
                end(run, times.at(1, [15, 24, 6]));
            }
            _ => {}
        }
    }
}

fn timeline(times: &Times) -> Vec<PastEvent> {
    let event =
        |time, kind, message: &str| PastEvent { at: times.at(1, time), kind, message: message.to_owned() };
    vec![
        event([14, 15, 0], "queued", "queued (schedule)"),
        event([14, 15, 3], "claimed", "a worker took it (attempt 1)"),
        event([14, 16, 10], "first_error", "first error: Please enter value(s) for: Tax Code"),
        event([14, 18, 31], "checkpoint", "1,800 of about 7,400 orders read, 389 rejected"),
        event(
            [14, 22, 47],
            "threshold",
            "1,203 of 4,764 records rejected (25.3 %): more than the 10 % allowed, stopped",
        ),
        event(
            [14, 22, 47],
            "finished",
            "failed (ERROR_THRESHOLD: 25.3 % of the records were rejected, more than the 10 % that the flow allows); \
             4812 read, 3561 written, 1203 rejected, 48 skipped",
        ),
    ]
}

/// The 1,203 records that the incident rejected.
fn rejected(times: &Times) -> Vec<PastErrors> {
    let order = |name: &str, more: Value| {
        let mut record = json!({ "name": name });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        (name.to_owned(), record)
    };
    let taxed = |name, email, total| {
        order(name, json!({ "email": email, "currency": "EUR", "tax_lines": [], "total_price": total }))
    };
    let lines =
        |name, sku, quantity| order(name, json!({ "line_items": [{ "sku": sku, "quantity": quantity }] }));
    let swiss = |name, total| order(name, json!({ "currency": "CHF", "total_price": total }));
    let twice = |name: &str, id: u64| (name.to_owned(), json!({ "id": id, "name": name }));
    let required = (ErrorClass::RequiredField, "REQUIRED_FIELD_MISSING", Some("taxcode"));
    type Samples = Vec<(String, (String, Value))>;
    let same = |message: &str, records: Vec<(String, Value)>| -> Samples {
        records.into_iter().map(|record| (message.to_owned(), record)).collect()
    };
    let kinds: [(Kind, i64, [u32; 3], Samples); 5] = [
        (
            required,
            742,
            [14, 16, 10],
            same(
                "Please enter value(s) for: Tax Code",
                vec![
                    taxed("#48211", "l***@example.com", "64.90"),
                    taxed("#48219", "m***@example.com", "18.00"),
                    taxed("#48230", "j***@example.org", "240.50"),
                    taxed("#48266", "a***@example.net", "31.20"),
                ],
            ),
        ),
        (
            REFERENCE,
            311,
            [14, 16, 12],
            vec![
                (
                    "Invalid item reference key SKU-8841-B for subsidiary 3".to_owned(),
                    lines("#48377", "SKU-8841-B", 2),
                ),
                (
                    "Invalid item reference key SKU-8841-B for subsidiary 3".to_owned(),
                    lines("#48391", "SKU-8841-B", 1),
                ),
                (
                    "Invalid item reference key SKU-9020-C for subsidiary 3".to_owned(),
                    lines("#48402", "SKU-9020-C", 1),
                ),
            ],
        ),
        (
            RATE_LIMIT,
            96,
            [14, 19, 2],
            same(
                "Concurrent request limit exceeded (15)",
                vec![order("#49002", json!({})), order("#49007", json!({}))],
            ),
        ),
        (
            DUPLICATE,
            41,
            [14, 17, 40],
            vec![
                (
                    "This record already exists: externalid 5512903377".to_owned(),
                    twice("#47990", 5_512_903_377),
                ),
                (
                    "This record already exists: externalid 5512903412".to_owned(),
                    twice("#47998", 5_512_903_412),
                ),
            ],
        ),
        (
            CURRENCY,
            13,
            [14, 18, 9],
            same(
                "Currency CHF is not active for subsidiary 3",
                vec![swiss("#48650", "118.00"), swiss("#48671", "42.10")],
            ),
        ),
    ];
    let errors = |((class, code, field), count, first, samples): (Kind, i64, [u32; 3], Samples)| {
        let first_at = times.at(1, first);
        let sample = |(n, (message, (key, payload))): (usize, (String, (String, Value)))| PastSample {
            at: first_at + TimeDelta::seconds(9) * i32::try_from(n).unwrap_or(0),
            message,
            record_key: Some(key),
            payload: Some(payload),
        };
        PastErrors {
            class,
            code,
            stage: Stage::Load,
            field,
            message: samples.first().map(|(message, _)| message.clone()).unwrap_or_default(),
            count,
            first_at,
            last_at: times.at(1, [14, 22, 46]),
            samples: samples.into_iter().enumerate().map(sample).collect(),
        }
    };
    kinds.into_iter().map(errors).collect()
}
