//! Acme Retail's story: a revoked authorization this morning, a bad mapping yesterday, a month of ordinary
//! days before.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::dice::Dice;
use super::past::{DAYS, Habit, checked, end, fail, judge, reject, tell, ticks};
use super::times::Times;
use crate::domain::connector::AuthStatus;
use crate::domain::definition::{FlowDefinition, OnFail};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::flow::FlowState;
use crate::domain::run::{ReasonCode, RunStatus, Trigger, open_window};
use crate::domain::schedule::Schedule;
use crate::store::definitions::StoredFlow;
use crate::store::history::{
    History, PastCheck, PastDeed, PastErrors, PastEvent, PastFlow, PastQuota, PastRun, PastSample, PastVersion,
};

const ANA: &str = "Ana Ruiz";
const JONAS: &str = "Jonas Weber";
const PRIYA: &str = "Priya Nair";

const CONTACTS: &str = "flow_hubspot_contacts";
const DEALS: &str = "flow_hubspot_deals";
const COMPANIES: &str = "flow_hubspot_companies";
const ORDERS: &str = "flow_shopify_orders";
const ACCOUNTS: &str = "flow_salesforce_accounts";
const INVOICES: &str = "flow_netsuite_invoices";
const CUSTOMERS: &str = "flow_shopify_customers";
const ORDER_LINES: &str = "flow_order_lines";
const INVENTORY: &str = "flow_inventory";
const LEAD_SCORES: &str = "flow_lead_scores";
const LOYALTY: &str = "flow_loyalty_tags";

const REVOKED: &str = "invalid_grant: refresh token is invalid or revoked";

/// How Acme's flows usually go.
const HABITS: [Habit; 11] = [
    habit(CONTACTS, ["con_hubspot", "con_salesforce"], 12, [420.0, 0.12, 0.5, 0.06], 45.0, 640),
    habit(DEALS, ["con_hubspot", "con_snowflake"], 3, [310.0, 0.15, 0.4, 0.04], 38.0, 420),
    habit(COMPANIES, ["con_hubspot", "con_netsuite"], 2, [95.0, 0.18, 0.4, 0.10], 21.0, 510),
    habit(ORDERS, ["con_shopify", "con_netsuite"], 8, [430.0, 0.10, 1.15, 0.011], 70.0, 2_680),
    habit(ACCOUNTS, ["con_salesforce", "con_snowflake"], 4, [1_240.0, 0.05, 0.8, 0.02], 130.0, 380),
    habit(INVOICES, ["con_netsuite", "con_snowflake"], 5, [8_350.0, 0.06, 0.45, 0.0], 388.0, 540),
    habit(CUSTOMERS, ["con_shopify", "con_snowflake"], 3, [52_300.0, 0.01, 1.0, 0.03], 1_330.0, 460),
    habit(ORDER_LINES, ["con_ordersdb", "con_snowflake"], 2, [12_500.0, 0.14, 1.1, 0.0], 215.0, 210),
    habit(INVENTORY, ["con_netsuite", "con_ordersdb"], 6, [900.0, 0.06, 0.9, 0.22], 250.0, 180),
    habit(LEAD_SCORES, ["con_snowflake", "con_salesforce"], 2, [2_600.0, 0.07, 0.9, 0.30], 165.0, 150),
    habit(LOYALTY, ["con_loyalty", "con_shopify"], 1, [7_100.0, 0.04, 1.0, 0.15], 540.0, 120),
];

const fn habit(
    flow: &'static str,
    [source, destination]: [&'static str; 2],
    version: i32,
    [records, sigma, weekend, skipped]: [f64; 4],
    seconds: f64,
    bytes: i64,
) -> Habit {
    Habit { flow, source, destination, version, records, sigma, weekend, skipped, seconds, bytes }
}

/// Errors that NetSuite answers with: class, code, field.
type Kind = (ErrorClass, &'static str, Option<&'static str>);
const REFERENCE: Kind = (ErrorClass::Reference, "INVALID_KEY_OR_REF", Some("item"));
const RATE_LIMIT: Kind = (ErrorClass::RateLimit, "SSS_REQUEST_LIMIT_EXCEEDED", None);
const DUPLICATE: Kind = (ErrorClass::Duplicate, "RCRD_DUP", Some("externalid"));
const DATE: Kind = (ErrorClass::Type, "INVALID_DATE", Some("trandate"));
const CURRENCY: Kind = (ErrorClass::Validation, "INVALID_CURRENCY", Some("currency"));

/// What Acme lived through before now, with its flows as they are defined.
pub(super) fn history(times: &Times, flows: &[StoredFlow]) -> History {
    let mut history = History { deeds: deeds(times), checks: checks(times), ..History::default() };
    for stored in flows {
        let habit = HABITS.iter().find(|habit| habit.flow == stored.id.as_str());
        let (runs, next) = habit.map_or_else(Default::default, |habit| past(times, habit, &stored.record.schedule));
        history.runs.extend(runs);
        history.flows.extend(flow(times, stored, next));
        if stored.id.as_str() == ORDERS {
            history.cleared.push((stored.id.clone(), times.at(1, [14, 0, 0]), times.at(1, [15, 16, 0])));
        }
    }
    history.runs.extend(waiting(times));
    history.runs.iter_mut().for_each(tell);
    history.runs.sort_by(|a, b| (a.queued_at, &a.run_id).cmp(&(b.queued_at, &b.run_id)));
    history
}

/// The runs of one flow, and when it runs next.
fn past(times: &Times, habit: &Habit, schedule: &Schedule) -> (Vec<PastRun>, Option<DateTime<Utc>>) {
    let until = if habit.flow == LOYALTY { paused(times) } else { times.now };
    let ticks = ticks(schedule, times.now - TimeDelta::days(DAYS), until);
    let mut runs: Vec<PastRun> = ticks.iter().map(|tick| habit.run(*tick, times.zone)).collect();
    match habit.flow {
        CONTACTS | DEALS | COMPANIES => revoke(times, habit, &mut runs),
        ORDERS => incident(times, habit, &mut runs),
        _ => {}
    }
    mishaps(times, habit, &mut runs);
    // A run that would still be going has not begun yet: the schedule is about to start it.
    runs.retain(|run| run.finished_at.is_some_and(|finished| finished < times.now));
    if habit.flow == INVENTORY {
        go(times, habit, &mut runs);
    }
    match habit.flow {
        ORDERS => errors_of_orders(times, habit, &mut runs),
        CONTACTS => errors_of_contacts(&mut runs),
        INVOICES => last_night(habit, runs.last_mut()),
        _ => {}
    }
    let last = runs.iter().filter_map(|run| run.scheduled_for).max();
    let next = last.and_then(|last| schedule.next_after(last)).or_else(|| schedule.next_after(times.now));
    (runs, next.filter(|_| habit.flow != LOYALTY))
}

fn paused(times: &Times) -> DateTime<Utc> {
    times.at(9, [16, 40, 0])
}

/// Since its authorization was revoked, every run that reads HubSpot fails before the first record.
fn revoke(times: &Times, habit: &Habit, runs: &mut [PastRun]) {
    for run in runs.iter_mut().filter(|run| run.queued_at >= times.revoked()) {
        // Always the same few seconds, so that any hour has exactly one of them.
        let (started, finished) = (run.queued_at + TimeDelta::seconds(1), run.queued_at + TimeDelta::seconds(4));
        run.started_at = Some(started);
        habit.count(run, [0; 4]);
        fail(run, ReasonCode::AuthExpired, REVOKED, finished);
        run.errors.push(PastErrors {
            class: ErrorClass::Auth,
            code: "AUTH_EXPIRED",
            stage: Stage::Extract,
            field: None,
            message: REVOKED.to_owned(),
            count: 1,
            first_at: finished,
            last_at: finished,
            samples: vec![PastSample { at: finished, message: REVOKED.to_owned(), record_key: None, payload: None }],
        });
    }
}

/// Yesterday at a quarter past two: a mapping without its default meets a flash sale.
fn incident(times: &Times, habit: &Habit, runs: &mut Vec<PastRun>) {
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
    let event = |time, kind, message: &str| PastEvent { at: times.at(1, time), kind, message: message.to_owned() };
    vec![
        event([14, 15, 0], "queued", "queued (schedule)"),
        event([14, 15, 3], "claimed", "a worker took it (attempt 1)"),
        event([14, 16, 10], "first_error", "first error: Please enter value(s) for: Tax Code"),
        event([14, 18, 31], "checkpoint", "1,800 of about 7,400 orders read, 389 rejected"),
        event([14, 22, 47], "threshold", "1,203 of 4,764 records rejected (25.3 %): more than the 10 % allowed, stopped"),
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
    let lines = |name, sku, quantity| order(name, json!({ "line_items": [{ "sku": sku, "quantity": quantity }] }));
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
                ("Invalid item reference key SKU-8841-B for subsidiary 3".to_owned(), lines("#48377", "SKU-8841-B", 2)),
                ("Invalid item reference key SKU-8841-B for subsidiary 3".to_owned(), lines("#48391", "SKU-8841-B", 1)),
                ("Invalid item reference key SKU-9020-C for subsidiary 3".to_owned(), lines("#48402", "SKU-9020-C", 1)),
            ],
        ),
        (
            RATE_LIMIT,
            96,
            [14, 19, 2],
            same("Concurrent request limit exceeded (15)", vec![order("#49002", json!({})), order("#49007", json!({}))]),
        ),
        (
            DUPLICATE,
            41,
            [14, 17, 40],
            vec![
                ("This record already exists: externalid 5512903377".to_owned(), twice("#47990", 5_512_903_377)),
                ("This record already exists: externalid 5512903412".to_owned(), twice("#47998", 5_512_903_412)),
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

/// The last run of the orders rejected two percent; before, every seventh run or so a few.
fn errors_of_orders(times: &Times, habit: &Habit, runs: &mut [PastRun]) {
    let Some((last, earlier)) = runs.split_last_mut() else { return };
    habit.count(last, [1_152, 1_140, 0, 12]);
    for (kind, count) in [(REFERENCE, 16), (RATE_LIMIT, 5), (DUPLICATE, 2)] {
        reject(last, netsuite(last, kind, count));
    }
    let told = |run: &PastRun| run.queued_at >= times.at(1, [14, 0, 0]) && run.queued_at <= times.at(1, [15, 15, 0]);
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
    let sample = PastSample { at, message: message.to_owned(), record_key: Some(key), payload: Some(payload) };
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
    let (started, finished) = (run.started_at.unwrap_or(run.queued_at), run.finished_at.unwrap_or(run.queued_at));
    errors.first_at = started + (finished - started) / 2;
    errors.last_at = finished;
    errors.samples.iter_mut().for_each(|sample| sample.at = errors.first_at);
    errors
}

/// Now and then a lead leaves an address that is none.
fn errors_of_contacts(runs: &mut [PastRun]) {
    let kind = (ErrorClass::Validation, "INVALID_EMAIL_ADDRESS", Some("Email"));
    for run in runs.iter_mut().filter(|run| run.status == RunStatus::Succeeded && run.records_written > 100) {
        let mut dice = Dice::of("addresses", run.queued_at);
        if dice.fraction() < 0.2 {
            let key = dice.between(10_000, 99_999).to_string();
            let payload = json!({ "id": key, "properties": { "email": "no mail please", "lifecyclestage": "lead" } });
            let found = errors(kind, "\"no mail please\" is no e-mail address", 1, (key, payload));
            reject(run, halfway(run, found));
        }
    }
}

/// The invoices of last night, which people ask for.
fn last_night(habit: &Habit, run: Option<&mut PastRun>) {
    if let Some(run) = run {
        habit.count(run, [8_412, 8_412, 0, 0]);
        if let Some(started) = run.started_at {
            end(run, started + TimeDelta::seconds(391));
        }
    }
}

/// What went wrong on single days long ago.
fn mishaps(times: &Times, habit: &Habit, runs: &mut Vec<PastRun>) {
    let on_day = |runs: &[PastRun], days: i64| {
        let from = times.now - TimeDelta::days(days) - TimeDelta::hours(6);
        runs.iter().position(|run| run.queued_at >= from)
    };
    let days = |table: &'static [(&str, i64)]| {
        table.iter().filter(|(flow, _)| *flow == habit.flow).map(|(_, days)| *days).collect::<Vec<_>>()
    };
    let mut timed_out = |days: i64, seconds: i64, share: i64| {
        let Some(run) = on_day(runs, days).and_then(|n| runs.get_mut(n)) else { return };
        let read = run.records_read * share / 100;
        habit.count(run, [read, read, 0, 0]);
        let started = run.started_at.unwrap_or(run.queued_at);
        let message = format!("it took longer than the {} min that the flow allows", seconds / 60);
        fail(run, ReasonCode::Timeout, &message, started + TimeDelta::seconds(seconds));
    };
    for day in days(&[(ORDER_LINES, 8), (ORDER_LINES, 28)]) {
        timed_out(day, 1_500, 64);
    }
    for day in days(&[(ACCOUNTS, 11), (LEAD_SCORES, 15), (LEAD_SCORES, 24)]) {
        timed_out(day, 3_600, 30);
    }
    for day in days(&[(CUSTOMERS, 19)]) {
        timed_out(day, 7_200, 88);
    }
    for day in days(&[(ORDER_LINES, 5), (ACCOUNTS, 12)]) {
        let Some(run) = on_day(runs, day).and_then(|n| runs.get_mut(n)) else { continue };
        let read = run.records_read / 3;
        habit.count(run, [read, read, 0, 0]);
        run.status = RunStatus::Cancelled;
        run.reason_code = Some(ReasonCode::CancelledByUser);
        let by = if habit.flow == ORDER_LINES { PRIYA } else { JONAS };
        run.reason_message = Some(format!("{by} asked it to stop"));
        end(run, run.started_at.unwrap_or(run.queued_at) + TimeDelta::seconds(80));
    }
    for day in days(&[(INVENTORY, 3), (INVENTORY, 9), (INVENTORY, 16)]) {
        let Some(n) = on_day(runs, day).filter(|n| n + 1 < runs.len()) else { continue };
        let started = runs[n].started_at.unwrap_or(runs[n].queued_at);
        end(&mut runs[n], started + TimeDelta::seconds(683));
        runs[n + 1] = habit.skipped(runs[n + 1].queued_at, times.zone);
    }
}

/// The run that is going now: the ERP's own scheduler reports it, two fifths done.
fn go(times: &Times, habit: &Habit, runs: &mut Vec<PastRun>) {
    let begun = times.now - TimeDelta::seconds(60);
    let tick = ticks(&Schedule::Interval { seconds: 600 }, begun - TimeDelta::seconds(601), begun).into_iter().max();
    let Some(tick) = tick else { return };
    runs.retain(|run| run.scheduled_for != Some(tick));
    let mut run = habit.run(tick, times.zone);
    habit.count(&mut run, [380, 291, 0, 71]);
    run.origin = "ingested";
    run.status = RunStatus::Running;
    run.phase = Some("load");
    run.records_estimated = Some(904);
    run.finished_at = None;
    run.window_at = open_window();
    runs.push(run);
}

/// Two runs that people asked for and no worker has taken yet.
fn waiting(times: &Times) -> Vec<PastRun> {
    let asked = [
        (ORDER_LINES, 18, Trigger::Manual, PRIYA, "after the schema change"),
        (LEAD_SCORES, 7, Trigger::Api, "Airflow", "scores were recomputed"),
    ];
    let run = |(flow, seconds, trigger, by, note)| {
        let habit = HABITS.iter().find(|habit| habit.flow == flow)?;
        let queued = times.now - TimeDelta::seconds(seconds);
        let mut run = habit.run(queued, times.zone);
        habit.count(&mut run, [0; 4]);
        run.status = RunStatus::Queued;
        run.trigger = trigger;
        run.triggered_by = Some(by);
        run.trigger_note = Some(note);
        run.scheduled_for = None;
        run.attempt = 0;
        run.started_at = None;
        run.finished_at = None;
        run.window_at = open_window();
        Some(run)
    };
    asked.into_iter().filter_map(run).collect()
}

/// What became of a flow: its versions and its state.
fn flow(times: &Times, stored: &StoredFlow, next_run_at: Option<DateTime<Utc>>) -> Option<PastFlow> {
    let before = times.at(DAYS + 11, [10, 20, 0]);
    let definition = stored.record.definition.clone();
    let habit = HABITS.iter().find(|habit| habit.flow == stored.id.as_str());
    let version = |number, at, by, summary, definition| PastVersion { number, at, by, summary, definition };
    let (mut state_since, mut state_by, mut state_reason) = (before, None, None);
    let mut versions = vec![version(habit.map_or(1, |habit| habit.version), before, JONAS, "created", definition.clone())];
    match stored.id.as_str() {
        ORDERS => {
            versions = vec![
                version(6, before, PRIYA, "shipdate: written only for fulfilled orders", definition.clone()),
                version(
                    7,
                    times.at(1, [14, 3, 0]),
                    JONAS,
                    "taxcode: mapped from tax_lines[0].title, default VAT-STD removed",
                    without_default(&definition),
                ),
                version(8, times.at(1, [15, 5, 0]), JONAS, "taxcode: default VAT-STD restored", definition),
            ];
            (state_since, state_by) = (times.at(1, [15, 6, 0]), Some(JONAS));
        }
        CONTACTS => versions[0].summary = "LastName: (unknown) where there is none",
        LOYALTY => {
            (state_since, state_by, state_reason) = (paused(times), Some(ANA), Some("loyalty migration"));
        }
        _ => {}
    }
    let state = if stored.id.as_str() == LOYALTY { FlowState::Paused } else { FlowState::Active };
    Some(PastFlow { flow: stored.id.clone(), versions, state, state_since, state_by, state_reason, next_run_at })
}

/// The definition that caused the incident: the tax code as the shop calls it, and nothing where it is silent.
fn without_default(definition: &FlowDefinition) -> FlowDefinition {
    let mut changed = definition.clone();
    let mappings = changed.streams.iter_mut().flat_map(|stream| &mut stream.mappings);
    for mapping in mappings.filter(|mapping| mapping.destination_field == "taxcode") {
        mapping.transform = None;
        mapping.default = None;
        mapping.on_fail = OnFail::Reject;
        mapping.validate.clear();
    }
    changed
}

fn deeds(times: &Times) -> Vec<PastDeed> {
    let orders = |time, action, message| PastDeed {
        at: times.at(1, time),
        by: Some(JONAS),
        action,
        target_kind: "flow",
        target: ORDERS,
        message: Some(message),
    };
    vec![
        PastDeed {
            at: paused(times),
            by: Some(ANA),
            action: "flow.paused",
            target_kind: "flow",
            target: LOYALTY,
            message: Some("loyalty migration"),
        },
        orders([14, 3, 0], "flow.changed", "version 7: taxcode: mapped from tax_lines[0].title, default VAT-STD removed"),
        orders([14, 24, 0], "flow.paused", "a quarter of the orders was rejected"),
        orders([15, 5, 0], "flow.changed", "version 8: taxcode: default VAT-STD restored"),
        orders([15, 6, 0], "flow.resumed", "version 8 tried on ten orders"),
        PastDeed {
            at: times.revoked(),
            by: None,
            action: "connector.auth_changed",
            target_kind: "connector",
            target: "con_hubspot",
            message: Some("authorization revoked (invalid_grant: refresh token is invalid or revoked)"),
        },
    ]
}

/// How the connectors were found within the last minutes.
fn checks(times: &Times) -> Vec<PastCheck> {
    let quota = |name, unit, used, limit| PastQuota { name, unit, used, limit, resets_at: None, throttled_1h: 0 };
    let daily = |used, limit| PastQuota {
        resets_at: Some(times.utc_midnight()),
        ..quota("daily_api_requests", "requests", used, limit)
    };
    let found = [
        ("con_salesforce", 150, 212, vec![daily(87_412, 100_000)]),
        ("con_snowflake", 35, 340, vec![]),
        ("con_hubspot", 120, 180, vec![daily(61_204, 500_000)]),
        ("con_shopify", 95, 260, vec![PastQuota { throttled_1h: 14, ..quota("graphql_cost", "points", 1_840, 2_000) }]),
        ("con_netsuite", 70, 610, vec![quota("concurrency", "requests", 11, 15)]),
        ("con_ordersdb", 20, 9, vec![]),
        ("con_loyalty", 185, 31, vec![]),
        ("con_crm_mcp", 210, 145, vec![]),
    ];
    let check = |(connector, seconds_ago, took_ms, quotas)| {
        let mut check = checked(times, connector, seconds_ago, took_ms, quotas);
        match connector {
            "con_hubspot" => {
                check.auth_status = AuthStatus::Revoked;
                check.auth_error = Some(REVOKED);
                check.since = times.revoked();
            }
            "con_shopify" => check.since = times.now - TimeDelta::minutes(47),
            "con_netsuite" => check.auth_expires_at = Some(times.now + TimeDelta::days(6)),
            _ => {}
        }
        judge(&mut check, times.now);
        check
    };
    found.into_iter().map(check).collect()
}
