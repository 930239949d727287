//! What must be true once everything works again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::callers::Callers;
use crate::world::{FLOWS, Row, World};

#[derive(sqlx::FromRow)]
struct Run {
    run_id: String,
    flow: String,
    status: String,
    attempt: i32,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    attempts: i64,
    open_attempts: i64,
    errors: i64,
    finished: i64,
    audited: i64,
    /// Its place among the ends of all runs, whatever clocks said.
    ended: Option<i64>,
}

/// Runs that have not ended, and how many of them.
pub const OPEN: &str =
    "select count(*) from runs where status in ('queued', 'running', 'retrying', 'cancelling')";

/// Everything that is not as it must be.
pub async fn all(
    control: &mut PgConnection,
    tables: &mut PgConnection,
    files: &Path,
    world: &World,
    callers: &Callers,
) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let runs: Vec<Run> = sqlx::query_as(
        "select r.run_id, f.name as flow, r.status, r.attempt, r.records_read, r.records_written, r.records_failed,
                r.records_skipped,
                (select min(w.seq) from witness w where w.run_id = r.run_id
                    and w.status in ('succeeded', 'partial', 'failed', 'cancelled')) as ended,
                (select count(*) from run_attempts a where a.run_id = r.run_id) as attempts,
                (select count(*) from run_attempts a where a.run_id = r.run_id and a.status = 'running') as open_attempts,
                (select coalesce(sum(c.count), 0)::bigint from run_error_counts c
                   join error_groups g on g.group_id = c.group_id
                  where c.run_id = r.run_id and g.stage <> 'platform' and g.error_class <> 'connectivity') as errors,
                (select count(*) from run_events e where e.run_id = r.run_id and e.kind = 'finished') as finished,
                (select count(*) from audit_log a where a.target_id = r.run_id and a.action = 'run.triggered') as audited
           from runs r join flows f on f.flow_id = r.flow_id",
    )
    .fetch_all(&mut *control)
    .await
    .context("runs")?;
    let flow = |name: &str| FLOWS.iter().find(|flow| flow.name == name);
    let mut first_of_flow: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in &runs {
        let earliest = first_of_flow.entry(run.flow.as_str()).or_insert(run);
        if run.ended < earliest.ended {
            *earliest = run;
        }
    }
    for run in &runs {
        let Some(flow) = flow(&run.flow) else { continue };
        let what = format!("{} of {} ({}, attempt {})", run.run_id, run.flow, run.status, run.attempt);
        let first = first_of_flow.get(run.flow.as_str()).is_some_and(|first| first.run_id == run.run_id);
        let whole = !flow.incremental || first;
        if !matches!(run.status.as_str(), "succeeded" | "partial") {
            wrong.push(format!("{what} did not end well"));
            continue;
        }
        if run.records_read != run.records_written + run.records_failed + run.records_skipped {
            wrong.push(format!("{what}: counts do not add up"));
        }
        if whole && (run.records_read, run.records_failed) != (world.read(flow), world.wrong(flow)) {
            let counts = (run.records_read, run.records_failed);
            wrong.push(format!(
                "{what}: read and failed {counts:?}, not {:?}",
                (world.read(flow), world.wrong(flow))
            ));
        }
        // (an attempt that was lost may have written what the next one found there already)
        if first && run.attempt == 1 && run.records_written != world.read(flow) - world.wrong(flow) {
            wrong.push(format!("{what}: {} written, at the first go", run.records_written));
        }
        if flow.incremental && !first && run.records_read > world.at_cursor(flow) {
            wrong.push(format!("{what}: {} read again", run.records_read));
        }
        if run.errors != run.records_failed {
            wrong.push(format!("{what}: {} errors for {} rejected records", run.errors, run.records_failed));
        }
        if run.attempts != i64::from(run.attempt)
            || run.open_attempts != 0
            || run.finished != 1
            || run.audited != 1
        {
            wrong.push(format!(
                "{what}: {} attempts, {} of them open, {} ends, {} audit rows",
                run.attempts, run.open_attempts, run.finished, run.audited
            ));
        }
        let partial = run.records_failed > 0;
        if (run.status == "partial") != partial {
            wrong.push(format!("{what} with {} rejected records", run.records_failed));
        }
        if !first && !flow.incremental && run.records_written != 0 {
            wrong.push(format!("{what} changed {} records that were there", run.records_written));
        }
    }
    promises(control, &runs, callers, &mut wrong).await?;
    witness(control, &mut wrong).await?;
    totals(control, callers, &mut wrong).await?;
    for name in first_of_flow.keys() {
        let Some(flow) = flow(name) else { continue };
        for stream in flow.streams {
            let found = destination(tables, files, stream.to).await.with_context(|| stream.to.to_owned())?;
            let expected = world.valid(stream);
            if found != expected {
                let differs = found.iter().zip(&expected).find(|(a, b)| a != b);
                wrong.push(format!(
                    "{}: {} rows, not {}; {differs:?}",
                    stream.to,
                    found.len(),
                    expected.len()
                ));
            }
        }
    }
    Ok(wrong)
}

/// Each run that somebody was told of is there, and no key made two.
async fn promises(
    control: &mut PgConnection,
    runs: &[Run],
    callers: &Callers,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    let there: BTreeSet<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
    let accepted = callers.accepted.lock().unwrap().clone();
    for told in &accepted {
        if !there.contains(told.run.as_str()) {
            wrong.push(format!("{} of {} (key {:?}) is lost", told.run, told.flow, told.key));
        }
    }
    let keyed: Vec<(String, String)> = sqlx::query_as("select key, run_id from idempotency_keys")
        .fetch_all(control)
        .await
        .context("keys")?;
    let mut known: BTreeSet<&str> = accepted.iter().map(|told| told.run.as_str()).collect();
    known.extend(keyed.iter().map(|(_, run)| run.as_str()));
    let unknown = runs.iter().filter(|run| !known.contains(run.run_id.as_str())).count() as u64;
    let most = callers.unknown.load(std::sync::atomic::Ordering::Relaxed);
    if unknown > most {
        wrong.push(format!("{unknown} runs that nobody asked for; {most} requests had no answer"));
    }
    Ok(())
}

/// The history of each run's row: it never goes back, and nobody touches what has ended.
async fn witness(control: &mut PgConnection, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    type Seen = (String, i32, String, i64, i64, i64, i64, i64);
    let rows: Vec<Seen> = sqlx::query_as(
        "select run_id, attempt, status, batch, records_read, records_written, records_failed, records_skipped
           from witness order by run_id, seq",
    )
    .fetch_all(control)
    .await
    .context("witness")?;
    for pair in rows.windows(2) {
        let [before, now] = pair else { continue };
        if before.0 != now.0 {
            continue;
        }
        let ended = matches!(before.2.as_str(), "succeeded" | "partial" | "failed" | "cancelled");
        let counts = |row: &Seen| (row.4, row.5, row.6, row.7);
        let same = counts(before) == counts(now);
        let fine = !ended
            && now.1 >= before.1
            && now.1 <= before.1 + 1
            && (now.3 == before.3 + 1 || (now.3 == before.3 && same))
            && (now.1 == before.1 || same);
        if !fine {
            wrong.push(format!("the row of {} went from {before:?} to {now:?}", now.0));
        }
    }
    Ok(())
}

/// Totals are what a recount gives, and nobody is charged for what was not sent.
async fn totals(
    control: &mut PgConnection,
    callers: &Callers,
    wrong: &mut Vec<String>,
) -> anyhow::Result<()> {
    for (what, difference) in [
        (
            "run_stats",
            "with of_flows as (
                select r.customer_id, r.flow_id, g.grain, s.status, date_trunc(g.grain, r.finished_at, 'UTC') as at, r.trigger,
                       r.source_connector_id, r.destination_connector_id, count(*) as runs,
                       count(*) filter (where r.status = 'partial') as p, count(*) filter (where r.status = 'failed') as x,
                       count(*) filter (where r.status = 'cancelled') as c, count(*) filter (where r.status = 'skipped') as k,
                       sum(records_read) as r, sum(records_written) as w, sum(records_failed) as f, sum(records_skipped) as s,
                       sum(records_unchanged) as u, sum(bytes_written) as b
                  from runs r
                 cross join (values ('hour'), ('day')) g (grain)
                 cross join lateral (select '' union all select r.status where r.status <> 'succeeded') s (status)
                 group by 1, 2, 3, 4, 5, 6, 7, 8),
             counted as (
                table of_flows
                 union all
                select customer_id, '', grain, status, at, trigger, '', '', sum(runs), sum(p), sum(x), sum(c), sum(k), sum(r),
                       sum(w), sum(f), sum(s), sum(u), sum(b)
                  from of_flows group by customer_id, grain, status, at, trigger),
             kept as (
                select customer_id, flow_id, grain, status, at, trigger, source_connector_id, destination_connector_id, runs,
                       partial, failed, cancelled, skipped, records_read, records_written, records_failed, records_skipped,
                       records_unchanged, bytes_written
                  from run_stats)
             select count(*) from ((table counted except table kept) union all (table kept except table counted)) d",
        ),
        (
            "error_stats",
            "with counted as (
                select r.customer_id, r.flow_id, g.grain, l.level, date_trunc(g.grain, r.finished_at, 'UTC') as at, l.key,
                       sum(c.count) as errors, count(distinct r.run_id) as runs
                  from runs r
                  join run_error_counts c using (customer_id, run_id)
                  join error_groups e using (customer_id, group_id)
                 cross join (values ('hour'), ('day')) g (grain)
                 cross join lateral (values ('all', ''), ('class', e.error_class), ('code', e.code),
                                            ('field', coalesce(e.field, '(none)')), ('group', e.group_id)) l (level, key)
                 group by 1, 2, 3, 4, 5, 6),
             kept as (select customer_id, flow_id, grain, level, at, key, errors, runs from error_stats)
             select count(*) from ((table counted except table kept) union all (table kept except table counted)) d",
        ),
        (
            "flows.last_run_id",
            "select count(*) from flows f
              where f.last_run_id is distinct from (
                    select r.run_id from runs r where r.flow_id = f.flow_id order by r.finished_at desc limit 1)
                and f.last_run_id is distinct from (
                    select r.run_id from witness w join runs r using (run_id, status)
                     where r.flow_id = f.flow_id and r.finished_at is not null order by w.seq desc limit 1)",
        ),
    ] {
        let differs: i64 = sqlx::query_scalar(AssertSqlSafe(difference)).fetch_one(&mut *control).await.context(what)?;
        if differs != 0 {
            wrong.push(format!("{what} is not what a recount gives: {differs} rows differ"));
        }
    }
    let used: i64 = sqlx::query_scalar("select coalesce(sum(calls), 0)::bigint from usage_hourly")
        .fetch_one(control)
        .await?;
    let sent: u64 = callers.sent.lock().unwrap().values().sum();
    if used > sent.cast_signed() {
        wrong.push(format!("{used} calls are charged, {sent} were sent"));
    }
    Ok(())
}

/// What a destination holds, by key.
async fn destination(tables: &mut PgConnection, files: &Path, name: &str) -> anyhow::Result<Vec<Row>> {
    if name.ends_with(".jsonl") {
        let text = std::fs::read_to_string(files.join(name))?;
        let mut rows: Vec<Row> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| row.id);
        return Ok(rows);
    }
    Ok(sqlx::query_as(AssertSqlSafe(format!("select id, name, amount from {name} order by id")))
        .fetch_all(tables)
        .await?)
}
