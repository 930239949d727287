//! The runs of ninety days with their attempts, events and errors, in the order in which they ended.

use std::collections::HashMap;

use apixx_mcp::domain::error_class::{ErrorClass, Stage};
use apixx_mcp::domain::fingerprint::{GROUPING_VERSION, fingerprint, template};
use apixx_mcp::domain::run::open_window;
use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::PgPool;

use super::copy::Table;
use super::{DAYS, DEEP, INCIDENT, Large, WIDE, customer_id, flow_id, group_id, now};

/// Most samples kept of one group in one run, as the product keeps them.
const MAX_SAMPLES: u64 = 100;
/// Days that payloads are kept.
const PAYLOAD_DAYS: i64 = 30;
/// Kinds of error on the deep customer's first flow.
const KINDS: usize = 40;
/// Of a thousand runs of that flow, those that reject records.
const HOT_PARTIAL: u64 = 200;

/// What flows must know of their runs.
pub(super) struct Past {
    /// By customer and flow.
    pub(super) last: HashMap<(usize, usize), Last>,
}

/// The last runs of a flow.
#[derive(Default)]
pub(super) struct Last {
    pub(super) run: Option<String>,
    pub(super) success: Option<String>,
}

/// A kind of error that flows have.
struct Kind {
    class: ErrorClass,
    code: &'static str,
    stage: Stage,
    field: Option<String>,
    message: String,
}

/// The first is what ends a run, the others are of records.
fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind {
        class: ErrorClass::Unavailable,
        code: "HTTP_503",
        stage: Stage::Extract,
        field: None,
        message: "the service answered 503".to_owned(),
    }];
    let of_records = [
        (ErrorClass::Validation, "REQUIRED", Stage::Validate),
        (ErrorClass::Reference, "FOREIGN_KEY", Stage::Load),
        (ErrorClass::Duplicate, "UNIQUE", Stage::Load),
        (ErrorClass::Transform, "NO_SUCH_KEY", Stage::Transform),
    ];
    for number in 1..KINDS {
        let (class, code, stage) = of_records[number % of_records.len()];
        let field = format!("field_{}", (b'a' + (number % 26) as u8) as char);
        let message = format!("{field} was refused by the rule {code}");
        kinds.push(Kind { class, code, stage, field: Some(field), message });
    }
    kinds
}

/// What a group has seen.
struct Seen {
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    run: String,
}

struct Tables {
    runs: Table,
    attempts: Table,
    events: Table,
    counts: Table,
    samples: Table,
}

/// A flow, and whose.
struct Flow {
    place: usize,
    number: usize,
    customer: String,
    id: String,
    source: String,
    destination: String,
}

impl Flow {
    fn of(large: Large, place: usize, number: usize) -> Self {
        let (source, destination) = large.sides(place, number);
        Self { place, number, customer: customer_id(place), id: flow_id(place, number), source, destination }
    }
}

/// Everything that is copied of one run.
struct Run<'a> {
    flow: &'a Flow,
    id: String,
    status: &'static str,
    trigger: &'static str,
    scheduled: Option<DateTime<Utc>>,
    queued: DateTime<Utc>,
    started: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
    read: u64,
    /// By kind.
    errors: Vec<(usize, u64)>,
}

/// The times at which so many runs end, as far apart as ninety days allow.
struct Times {
    next: DateTime<Utc>,
    step: TimeDelta,
}

impl Times {
    fn of(runs: u64) -> Self {
        let step = TimeDelta::days(DAYS) / runs.max(1) as i32;
        Self { next: now() - TimeDelta::days(DAYS) + step / 2, step }
    }

    fn take(&mut self) -> DateTime<Utc> {
        let taken = self.next;
        self.next += self.step;
        taken
    }
}

/// Copies all runs; the groups of their errors too.
pub(super) async fn put(large: Large, pool: &PgPool) -> Past {
    let flows: Vec<Vec<Flow>> = (0..large.customers)
        .map(|place| (0..large.flows_of(place)).map(|number| Flow::of(large, place, number)).collect())
        .collect();
    let kinds = kinds();
    let mut tables = Tables::open(pool);
    let mut seen: HashMap<(usize, usize, usize), Seen> = HashMap::new();
    let mut last: HashMap<(usize, usize), Last> = HashMap::new();
    for (place, flows) in flows.iter().enumerate() {
        last.extend((0..flows.len()).map(|flow| ((place, flow), Last::default())));
    }
    let deep = 12 * large.runs / 100;
    // A little more than it takes on average, so that chance leaves no fewer than are wanted.
    let hot_errors = (large.errors * 102 / 100 * 10_000).div_ceil((deep * 3 * HOT_PARTIAL).max(1));
    // The wide customer has times and dice of its own: its runs are the same whatever the others are.
    let (mut wide, mut others) = (Times::of(large.wide_runs), Times::of(large.runs - large.wide_runs));
    let (mut wide_dice, mut other_dice) = (StdRng::seed_from_u64(19), StdRng::seed_from_u64(20));
    for _ in 0..large.runs {
        let of_wide = wide.next <= others.next;
        let (ends, dice) =
            if of_wide { (wide.take(), &mut wide_dice) } else { (others.take(), &mut other_dice) };
        let drawn = dice.random_range(0..large.runs - large.wide_runs);
        let place = match drawn {
            _ if of_wide => WIDE,
            n if n < deep => DEEP,
            n => 2 + (n % (large.customers as u64 - 2)) as usize,
        };
        let hot = place == DEEP && dice.random_range(0..10) < 3;
        let number = if hot { 0 } else { dice.random_range(0..flows[place].len()) };
        let started = ends - TimeDelta::milliseconds(dice.random_range(4_000..300_000));
        let trigger = match dice.random_range(0..100) {
            0..88 => "schedule",
            88..96 => "mcp",
            96..99 => "api",
            _ => "retry",
        };
        let mut run = Run {
            flow: &flows[place][number],
            id: run_id(ends, dice.random()),
            status: "succeeded",
            trigger,
            // No two runs end at the same time, and no flow is due twice at one.
            scheduled: (trigger == "schedule").then_some(ends - TimeDelta::minutes(6)),
            queued: started - TimeDelta::milliseconds(1_500),
            started: Some(started),
            finished: Some(ends),
            read: dice.random_range(50..5_000),
            errors: Vec::new(),
        };
        match dice.random_range(0..1_000_u64) {
            0..10 => {
                (run.status, run.read) = ("skipped", 0);
                (run.queued, run.started) = (ends, None);
            }
            10..15 => run.status = "cancelled",
            15..30 => {
                run.status = "failed";
                run.errors.push((0, 1));
            }
            30..50 if !hot => {
                run.status = "partial";
                run.errors.push((1 + number % 2, dice.random_range(1..4)));
            }
            n if hot && n < 30 + HOT_PARTIAL => {
                run.status = "partial";
                let first = 1 + dice.random_range(0..KINDS - 2);
                run.errors.push((first, hot_errors.div_ceil(2)));
                run.errors.push((first + 1, (hot_errors / 2).max(1)));
                run.read += hot_errors;
            }
            _ => {}
        }
        for (kind, _) in &run.errors {
            let seen = seen.entry((place, number, *kind)).or_insert_with(|| Seen {
                first: ends,
                last: ends,
                run: String::new(),
            });
            seen.last = ends;
            seen.run.clone_from(&run.id);
        }
        let last = last.get_mut(&(place, number)).unwrap();
        if run.status != "skipped" {
            last.run = Some(run.id.clone());
        }
        if run.status == "succeeded" {
            last.success = Some(run.id.clone());
        }
        tables.add(&run, &kinds, number % 10 == 0, dice).await;
    }
    let mut dice = StdRng::seed_from_u64(21);
    // The newest runs of two flows reject the same records whatever the size of the installation.
    for flow in [WIDE, DEEP].map(|place| &flows[place][INCIDENT]) {
        let ends = now() - TimeDelta::seconds(1);
        let run = Run {
            flow,
            id: run_id(ends, dice.random()),
            status: "partial",
            trigger: "api",
            scheduled: None,
            queued: ends - TimeDelta::seconds(60),
            started: Some(ends - TimeDelta::seconds(59)),
            finished: Some(ends),
            read: 5_000,
            errors: vec![(1, 150), (2, 50)],
        };
        for (kind, _) in &run.errors {
            let fresh = Seen { first: ends, last: ends, run: String::new() };
            let seen = seen.entry((flow.place, flow.number, *kind)).or_insert(fresh);
            (seen.last, seen.run) = (ends, run.id.clone());
        }
        last.entry((flow.place, flow.number)).or_default().run = Some(run.id.clone());
        tables.add(&run, &kinds, true, &mut dice).await;
    }
    // What is open: twenty runs that go and a hundred that wait in the wide workspace, a few in others.
    for (place, flows) in flows.iter().enumerate().take(60) {
        let (going, waiting) = if place == WIDE { (20, 100) } else { (1, 1) };
        for flow in flows.iter().take(going + waiting) {
            let queued = now() - TimeDelta::seconds(60 + flow.number as i64);
            let goes = flow.number < going;
            let run = Run {
                flow,
                id: run_id(queued, dice.random()),
                status: if goes { "running" } else { "queued" },
                trigger: "mcp",
                scheduled: None,
                queued,
                started: goes.then_some(queued + TimeDelta::seconds(1)),
                finished: None,
                read: 0,
                errors: Vec::new(),
            };
            tables.add(&run, &kinds, false, &mut dice).await;
        }
    }
    tables.end().await;
    put_groups(pool, &flows, &kinds, seen).await;
    Past { last }
}

async fn put_groups(
    pool: &PgPool,
    flows: &[Vec<Flow>],
    kinds: &[Kind],
    seen: HashMap<(usize, usize, usize), Seen>,
) {
    let mut groups = Table::open(
        pool,
        "error_groups",
        "customer_id, group_id, flow_id, fingerprint, grouping_version, error_class, code, stage, origin, field, message,
         first_seen_at, last_seen_at, last_seen_run_id",
    );
    let mut all: Vec<_> = seen.into_iter().collect();
    all.sort_by_key(|(key, _)| *key);
    for ((place, number, kind), seen) in all {
        let (flow, what) = (&flows[place][number], &kinds[kind]);
        let words = template(&what.message);
        let print = fingerprint(what.class, what.code, what.stage, what.field.as_deref(), &words);
        groups
            .row()
            .await
            .text(&flow.customer)
            .text(&group_id(place, number, kind))
            .text(&flow.id)
            .bytes(&print)
            .bytes(&GROUPING_VERSION.to_be_bytes())
            .text(what.class.as_str())
            .text(what.code)
            .text(what.stage.as_str())
            .text(what.stage.origin().as_str())
            .maybe(what.field.as_deref())
            .text(&words)
            .time(seen.first)
            .time(seen.last)
            .text(&seen.run);
    }
    groups.end().await;
}

impl Tables {
    fn open(pool: &PgPool) -> Self {
        Self {
            runs: Table::open(
                pool,
                "runs",
                "customer_id, run_id, flow_id, flow_version, source_connector_id, destination_connector_id, status,
                 reason_code, reason_message, trigger, scheduled_for, queued_at, available_at, started_at, finished_at,
                 window_at, attempt, worker_id, lease_until, records_read, records_written, records_failed,
                 records_skipped, bytes_read, bytes_written, error_groups, top_error_class",
            ),
            attempts: Table::open(
                pool,
                "run_attempts",
                "customer_id, run_id, attempt, worker_id, status, started_at, finished_at, records_written",
            ),
            events: Table::open(pool, "run_events", "customer_id, run_id, seq, at, kind, message"),
            counts: Table::open(pool, "run_error_counts",
                "customer_id, run_id, group_id, flow_id, window_at, count, first_at, last_at",
            ),
            samples: Table::open(
                pool,
                "run_errors",
                "customer_id, run_id, group_id, error_id, occurred_at, stream, attempt, message, record_key, record_index,
                 payload",
            ),
        }
    }

    /// Adds a run, `told` with its attempt and timeline.
    async fn add(&mut self, run: &Run<'_>, kinds: &[Kind], told: bool, dice: &mut StdRng) {
        let failed: u64 =
            if run.status == "partial" { run.errors.iter().map(|(_, count)| count).sum() } else { 0 };
        let (skipped, failure) = (run.read / 10, run.status == "failed");
        let written = run.read - skipped - failed.min(run.read - skipped);
        let skipped = run.read - written - failed;
        let (reason, message) = if failure {
            (Some("SOURCE_ERROR"), Some("the service answered 503"))
        } else if run.status == "skipped" {
            (Some("PREVIOUS_RUN_ACTIVE"), Some("the run before it had not ended"))
        } else {
            (None, None)
        };
        let top =
            run.errors.iter().max_by_key(|(_, count)| *count).map(|(kind, _)| kinds[*kind].class.as_str());
        let row = self.runs.row().await;
        row.text(&run.flow.customer)
            .text(&run.id)
            .text(&run.flow.id)
            .int(1)
            .text(&run.flow.source)
            .text(&run.flow.destination)
            .text(run.status)
            .maybe(reason)
            .maybe(message)
            .text(run.trigger)
            .time_or_null(run.scheduled)
            .time(run.queued)
            .time(run.queued)
            .time_or_null(run.started)
            .time_or_null(run.finished)
            .time(run.finished.unwrap_or_else(open_window))
            .int(i32::from(run.started.is_some()))
            .maybe(run.started.map(|_| "seed"))
            .time_or_null((run.status == "running").then(|| now() + TimeDelta::seconds(60)))
            .big(run.read)
            .big(written)
            .big(failed)
            .big(skipped)
            .big(run.read * 180)
            .big(written * 150)
            .int(run.errors.len() as i32)
            .maybe(top);
        if let (Some(started), Some(finished), true) = (run.started, run.finished, told) {
            let row = self.attempts.row().await;
            row.text(&run.flow.customer)
                .text(&run.id)
                .int(1)
                .text("seed")
                .text(run.status)
                .time(started)
                .time(finished)
                .big(written);
            let told = [
                (run.queued, "queued", "queued"),
                (started, "claimed", "a worker took it (attempt 1)"),
                (finished, "finished", "finished"),
            ];
            for (seq, (at, kind, message)) in told.into_iter().enumerate() {
                let row = self.events.row().await;
                row.text(&run.flow.customer)
                    .text(&run.id)
                    .int(seq as i32 + 1)
                    .time(at)
                    .text(kind)
                    .text(message);
            }
        }
        let Some(at) = run.finished else { return };
        for (kind, count) in &run.errors {
            let (what, group) = (&kinds[*kind], group_id(run.flow.place, run.flow.number, *kind));
            let row = self.counts.row().await;
            row.text(&run.flow.customer)
                .text(&run.id)
                .text(&group)
                .text(&run.flow.id)
                .time(at)
                .big(*count)
                .time(at)
                .time(at);
            let samples = if failure { 0 } else { (*count).min(MAX_SAMPLES) };
            for index in 0..samples {
                let key = format!("id={}", dice.random_range(0..10_000_000_u32));
                let row = self.samples.row().await;
                row.text(&run.flow.customer)
                    .text(&run.id)
                    .text(&group)
                    .text(&format!("err_{}", base32(stamp(at, dice.random()))))
                    .time(at)
                    .text("contacts → analytics.public.contacts")
                    .int(1)
                    .text(&what.message)
                    .text(&key)
                    .big(index);
                if at > now() - TimeDelta::days(PAYLOAD_DAYS) {
                    row.json(r#"{"id": "[redacted]", "country": "DE", "company": "Example"}"#);
                } else {
                    row.null();
                }
            }
        }
    }

    async fn end(self) {
        for table in [self.runs, self.attempts, self.events, self.counts, self.samples] {
            table.end().await;
        }
    }
}

fn run_id(at: DateTime<Utc>, chance: u128) -> String {
    format!("run_{}", base32(stamp(at, chance)))
}

/// A UUIDv7 (RFC 9562 section 5.7), as the product's ids are.
fn stamp(at: DateTime<Utc>, chance: u128) -> u128 {
    ((at.timestamp_millis() as u128) << 80)
        | (0x7 << 76)
        | (chance & 0x0fff_3fff_ffff_ffff_ffff)
        | (0x2 << 62)
}

fn base32(number: u128) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..26).rev().map(|place| char::from(DIGITS[(number >> (5 * place)) as usize & 31])).collect()
}
