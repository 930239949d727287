//! The errors of ordinary days.

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};

use crate::demo::dice::Dice;
use crate::demo::past::{Habit, reject};
use crate::demo::times::Times;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::run::RunStatus;
use crate::store::past::{PastErrors, PastRun, PastSample};

/// Errors that NetSuite answers with: class, code, field.
pub(super) type Kind = (ErrorClass, &'static str, Option<&'static str>);
pub(super) const REFERENCE: Kind = (ErrorClass::Reference, "INVALID_KEY_OR_REF", Some("item"));
pub(super) const RATE_LIMIT: Kind = (ErrorClass::RateLimit, "SSS_REQUEST_LIMIT_EXCEEDED", None);
pub(super) const DUPLICATE: Kind = (ErrorClass::Duplicate, "RCRD_DUP", Some("externalid"));
const DATE: Kind = (ErrorClass::Type, "INVALID_DATE", Some("trandate"));
pub(super) const CURRENCY: Kind = (ErrorClass::Validation, "INVALID_CURRENCY", Some("currency"));

/// The last run of the orders rejected two percent; before, every seventh run or so a few.
pub(super) fn errors_of_orders(times: &Times, habit: &Habit, runs: &mut [PastRun]) {
    let Some((last, earlier)) = runs.split_last_mut() else { return };
    habit.count(last, [1_152, 1_140, 0, 12]);
    for (kind, count) in [(REFERENCE, 16), (RATE_LIMIT, 5), (DUPLICATE, 2)] {
        reject(last, netsuite(last, kind, count));
    }
    let told =
        |run: &PastRun| run.queued_at >= times.at(1, [14, 0, 0]) && run.queued_at <= times.at(1, [15, 15, 0]);
    // Well inside of the last seven days, so that their sum is the same for the hours to come.
    let (week, recent) = (times.now - TimeDelta::hours(8 * 24), times.now - TimeDelta::hours(6 * 24 + 12));
    let mut chosen: Vec<&mut PastRun> =
        earlier.iter_mut().filter(|run| run.queued_at >= recent && !told(run)).collect();
    let all = chosen.len();
    let bearers = 95.min(all);
    for n in 0..bearers {
        let run = &mut *chosen[n * all / bearers];
        // 148 references, 53 limits, 20 duplicates, 9 dates and 4 currencies over 95 runs.
        let counts = [
            (REFERENCE, if n < 54 { 2 } else { i64::from(n < 94) }),
            (RATE_LIMIT, i64::from(n == 94 || (n % 2 == 0 && n < 94) || n % 20 == 1)),
            (DUPLICATE, i64::from(n % 5 == 3) + i64::from(n == 3)),
            (DATE, i64::from(n % 10 == 7)),
            (CURRENCY, i64::from(n % 24 == 15)),
        ];
        for (kind, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            reject(run, netsuite(run, kind, count));
        }
    }
    for run in earlier.iter_mut().filter(|run| run.queued_at < week) {
        let mut dice = Dice::of("errors", run.queued_at);
        if dice.fraction() < 0.16 {
            reject(run, netsuite(run, REFERENCE, dice.between(1, 3)));
            if dice.fraction() < 0.3 {
                reject(run, netsuite(run, RATE_LIMIT, 1));
            }
        }
    }
}

/// Errors as NetSuite answers with them on an ordinary day, halfway through a run.
fn netsuite(run: &PastRun, (class, code, field): Kind, count: i64) -> PastErrors {
    let mut dice = Dice::of(code, run.queued_at);
    let name = format!("#{}", 30_000 + dice.between(0, 17_000));
    let (message, payload) = match class {
        ErrorClass::Reference => {
            let sku = format!("SKU-{}-B", 8_000 + dice.between(0, 1_400));
            let message = format!("Invalid item reference key {sku} for subsidiary 3");
            (message, json!({ "name": name, "line_items": [{ "sku": sku, "quantity": dice.between(1, 4) }] }))
        }
        ErrorClass::Duplicate => {
            let id = 5_512_000_000 + dice.between(0, 900_000);
            (format!("This record already exists: externalid {id}"), json!({ "id": id, "name": name }))
        }
        ErrorClass::Type => {
            ("Invalid date value 31.02.2026".to_owned(), json!({ "name": name, "created_at": "31.02.2026" }))
        }
        ErrorClass::Validation => {
            let message = "Currency CHF is not active for subsidiary 3".to_owned();
            (message, json!({ "name": name, "currency": "CHF", "total_price": "75.40" }))
        }
        _ => ("Concurrent request limit exceeded (15)".to_owned(), json!({ "name": name })),
    };
    let stage = if class == ErrorClass::Type { Stage::Transform } else { Stage::Load };
    halfway(run, PastErrors { stage, ..errors((class, code, field), &message, count, (name, payload)) })
}

fn errors(
    (class, code, field): Kind,
    message: &str,
    count: i64,
    (key, payload): (String, Value),
) -> PastErrors {
    let at = DateTime::UNIX_EPOCH;
    let sample =
        PastSample { at, message: message.to_owned(), record_key: Some(key), payload: Some(payload) };
    PastErrors {
        class,
        code,
        stage: Stage::Validate,
        field,
        message: message.to_owned(),
        count,
        first_at: at,
        last_at: at,
        samples: vec![sample],
    }
}

/// The same errors, halfway through a run.
fn halfway(run: &PastRun, mut errors: PastErrors) -> PastErrors {
    let (started, finished) =
        (run.started_at.unwrap_or(run.queued_at), run.finished_at.unwrap_or(run.queued_at));
    errors.first_at = started + (finished - started) / 2;
    errors.last_at = finished;
    errors.samples.iter_mut().for_each(|sample| sample.at = errors.first_at);
    errors
}

/// Now and then a lead leaves an address that is none.
pub(super) fn errors_of_contacts(runs: &mut [PastRun]) {
    let kind = (ErrorClass::Validation, "INVALID_EMAIL_ADDRESS", Some("Email"));
    for run in runs.iter_mut().filter(|run| run.status == RunStatus::Succeeded && run.records_written > 100) {
        let mut dice = Dice::of("addresses", run.queued_at);
        if dice.fraction() < 0.2 {
            let key = dice.between(10_000, 99_999).to_string();
            let payload =
                json!({ "id": key, "properties": { "email": "no mail please", "lifecyclestage": "lead" } });
            let found = errors(kind, "\"no mail please\" is no e-mail address", 1, (key, payload));
            reject(run, halfway(run, found));
        }
    }
}
