//! A past that is put in place whole: what the demo workspaces lived through before they were started.
//!
//! Everything written here is marked (runs by the worker `demo`, audit rows by their ids), so that a later
//! start can replace it and leave alone what really happened since.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::to_raw_value;
use sha2::{Digest, Sha256};
use sqlx::types::Json;

use super::past::{History, PastCheck, PastDeed, PastFlow, PastRun, PastVersion, WORKER};
use super::{StoreError, TenantTx};
use crate::domain::error_class::ErrorClass;
use crate::domain::ids::hex;
use crate::domain::run::RunStatus;

/// Rows that one statement writes at most.
const CHUNK: usize = 2_000;

/// A statement that writes the rows `$2` (a JSON array of objects named as the columns are) of the customer.
macro_rules! add {
    ($table:literal) => {
        concat!(
            "insert into ",
            $table,
            "
             select p.*
               from jsonb_populate_recordset(
                        jsonb_populate_record(null::",
            $table,
            ", jsonb_build_object('customer_id', $1::text)), $2) as p"
        )
    };
}

pub(super) use add;

statements! {
    FORGET = plain "
        delete from runs
         where customer_id = $1 and worker_id = 'demo'";
    MAKE_ROOM = plain "
        delete from runs
         where customer_id = $1 and flow_id = $2 and trigger = 'schedule' and finished_at is not null
           and scheduled_for >= $3 and scheduled_for < $4";
    TICKS = plain "
        select flow_id, scheduled_for
          from runs
         where customer_id = $1 and origin = 'native' and trigger = 'schedule'";
    QUEUED = plain "
        select flow_id
          from runs
         where customer_id = $1 and origin = 'native' and status = 'queued'";
    ADD_RUNS = plain add!("runs");
    ADD_ATTEMPTS = plain add!("run_attempts");
    ADD_EVENTS = plain add!("run_events");
    ADD_AUDIT = plain add!("audit_log"), " on conflict do nothing";
    FORGET_STATS = plain "
        delete from run_stats
         where customer_id = $1";
    STATS = plain "
        insert into run_stats (customer_id, flow_id, grain, at, status, trigger, source_connector_id,
               destination_connector_id, runs, partial, failed, cancelled, skipped, records_read, records_written,
               records_failed, records_skipped, records_unchanged, bytes_written)
        select $1, l.flow_id, g.grain, date_trunc(g.grain, r.finished_at, 'UTC'), s.status, r.trigger, l.source,
               l.destination, count(*), count(*) filter (where r.status = 'partial'),
               count(*) filter (where r.status = 'failed'), count(*) filter (where r.status = 'cancelled'),
               count(*) filter (where r.status = 'skipped'), sum(r.records_read), sum(r.records_written), sum(r.records_failed),
               sum(r.records_skipped), sum(r.records_unchanged), sum(r.bytes_written)
          from runs r
         cross join (values ('hour'), ('day')) g (grain)
         cross join lateral (values (r.flow_id, r.source_connector_id, r.destination_connector_id), ('', '', ''))
               l (flow_id, source, destination)
         cross join lateral (select '' union all select r.status where r.status <> 'succeeded') s (status)
         where r.customer_id = $1 and r.finished_at is not null
         group by 2, 3, 4, 5, 6, 7, 8";
    FORGET_ERROR_STATS = plain "
        delete from error_stats
         where customer_id = $1";
    ERROR_STATS = plain "
        insert into error_stats (customer_id, flow_id, grain, level, at, key, errors, runs)
        select $1, r.flow_id, grain.grain, l.level, date_trunc(grain.grain, r.finished_at, 'UTC'), l.key,
               sum(c.count)::bigint, count(distinct r.run_id)
          from runs r
          join run_error_counts c on c.customer_id = $1 and c.run_id = r.run_id
          join error_groups g on g.customer_id = $1 and g.group_id = c.group_id
         cross join (values ('hour'), ('day')) grain (grain)
         cross join lateral (values ('all', ''), ('class', g.error_class), ('code', g.code),
                                    ('field', coalesce(g.field, '(none)')), ('group', g.group_id)) l (level, key)
         where r.customer_id = $1 and r.finished_at is not null
         group by 2, 3, 4, 5, 6";
    FORGET_VERSIONS = plain "
        delete from flow_versions
         where customer_id = $1 and flow_id = $2 and version <= $3";
    CURRENT_VERSION = plain "
        update flows f
           set current_version = (select max(v.version) from flow_versions v
                                   where v.customer_id = $1 and v.flow_id = f.flow_id)
         where f.customer_id = $1 and f.flow_id = $2";
    FLOW_STATE = plain "
        update flows
           set state_changed_at = $4, state_by = $5, state_reason = $6, next_run_at = $7
         where customer_id = $1 and flow_id = $2 and state = $3";
    LAST_RUNS = plain "
        update flows f
           set last_run_id = (select r.run_id from runs r
                               where r.customer_id = $1 and r.flow_id = f.flow_id
                                 and r.status in ('succeeded', 'partial', 'failed', 'cancelled')
                               order by r.window_at desc, r.run_id desc limit 1),
               last_success_run_id = (select r.run_id from runs r
                                       where r.customer_id = $1 and r.flow_id = f.flow_id
                                         and r.status = 'succeeded'
                                       order by r.window_at desc, r.run_id desc limit 1),
               last_decided_at = (select r.finished_at from runs r
                                   where r.customer_id = $1 and r.flow_id = f.flow_id
                                     and r.status in ('succeeded', 'partial', 'failed')
                                   order by r.window_at desc, r.run_id desc limit 1)
         where f.customer_id = $1";
    HEALTH_SINCE = plain "
        update flows f
           set health_since = coalesce(
                   (select min((reason ->> 'since')::timestamptz) from jsonb_array_elements(f.health_reasons) reason),
                   greatest(f.created_at, f.state_changed_at))
         where f.customer_id = $1 and f.flow_id = $2";
    CHECKED = plain "
        update connectors
           set auth_status = $3, auth_error = $4, auth_expires_at = $5, auth_checked_at = $6, last_check_at = $6,
               last_check_ok = $7, last_check_ms = $8, last_check_error = $4, consecutive_failures = 0,
               next_check_at = $9, check_lease_until = null, status = $10, status_reasons = $11, status_since = $12
         where customer_id = $1 and connector_id = $2";
    USED = plain "
        update connectors c
           set last_activity_at = (select max(r.finished_at) from runs r
                                    where r.customer_id = $1 and r.started_at is not null
                                      and c.connector_id in (r.source_connector_id, r.destination_connector_id))
         where c.customer_id = $1";
}

#[derive(Serialize)]
struct AttemptRow<'a> {
    run_id: &'a str,
    attempt: i32,
    worker_id: &'static str,
    status: &'static str,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    records_written: i64,
    error_class: Option<ErrorClass>,
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct EventRow<'a> {
    run_id: &'a str,
    seq: usize,
    at: DateTime<Utc>,
    kind: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct DeedRow<'a> {
    audit_id: String,
    at: DateTime<Utc>,
    actor_kind: &'static str,
    actor_label: &'static str,
    action: &'static str,
    target_kind: &'static str,
    target_id: &'a str,
    message: Option<&'static str>,
}

impl TenantTx {
    /// Gives the customer the past `history` in place of the one it was given before. Runs that really
    /// happened stay, and a tick of a schedule that one of them answered is not answered twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_history(&mut self, history: &History) -> Result<(), StoreError> {
        self.query(FORGET).execute(self.conn()).await?;
        for (flow, from, until) in &history.cleared {
            self.query(MAKE_ROOM)
                .bind(flow.as_str().to_owned())
                .bind(*from)
                .bind(*until)
                .execute(self.conn())
                .await?;
        }
        for flow in &history.flows {
            self.put_past_flow(flow).await?;
        }
        let ticks: Vec<(String, DateTime<Utc>)> = self.query_as(TICKS).fetch_all(self.conn()).await?;
        let ticks: BTreeSet<(String, DateTime<Utc>)> = ticks.into_iter().collect();
        let queued: Vec<(String,)> = self.query_as(QUEUED).fetch_all(self.conn()).await?;
        let free = |run: &&PastRun| {
            let answered =
                run.scheduled_for.is_some_and(|tick| ticks.contains(&(run.flow_id.to_owned(), tick)));
            let waiting = run.status == RunStatus::Queued && queued.iter().any(|(flow,)| flow == run.flow_id);
            !answered && !waiting
        };
        let runs: Vec<&PastRun> = history.runs.iter().filter(free).collect();
        self.add_rows(ADD_RUNS, &runs).await?;
        self.add_rows(ADD_ATTEMPTS, &runs.iter().filter_map(|run| attempt(run)).collect::<Vec<_>>()).await?;
        self.add_rows(ADD_EVENTS, &runs.iter().flat_map(|run| events(run)).collect::<Vec<_>>()).await?;
        self.add_past_errors(&runs).await?;
        self.add_rows(ADD_AUDIT, &history.deeds.iter().map(deed).collect::<Vec<_>>()).await?;
        for text in [FORGET_STATS, STATS, FORGET_ERROR_STATS, ERROR_STATS, LAST_RUNS, USED] {
            self.query(text).execute(self.conn()).await?;
        }
        for check in &history.checks {
            self.put_past_check(check).await?;
        }
        for flow in &history.flows {
            self.refresh_flow_health(&flow.flow).await?;
            self.query(HEALTH_SINCE).bind(flow.flow.as_str().to_owned()).execute(self.conn()).await?;
        }
        Ok(())
    }

    pub(super) async fn add_rows<T: Serialize>(
        &mut self,
        text: &'static str,
        rows: &[T],
    ) -> Result<(), StoreError> {
        for chunk in rows.chunks(CHUNK) {
            let rows = to_raw_value(chunk).map_err(|error| sqlx::Error::Encode(error.into()))?;
            self.query(text).bind(Json(rows)).execute(self.conn()).await?;
        }
        Ok(())
    }

    async fn put_past_flow(&mut self, flow: &PastFlow) -> Result<(), StoreError> {
        let id = flow.flow.as_str();
        let last = flow.versions.iter().map(|version| version.number).max().unwrap_or(0);
        self.query(FORGET_VERSIONS).bind(id.to_owned()).bind(last).execute(self.conn()).await?;
        for version in &flow.versions {
            let PastVersion { number, at, by, summary, definition } = version;
            self.add_version(&flow.flow, *number, definition, summary, by, *at).await?;
        }
        self.query(CURRENT_VERSION).bind(id.to_owned()).execute(self.conn()).await?;
        self.query(FLOW_STATE)
            .bind(id.to_owned())
            .bind(flow.state.as_str())
            .bind(flow.state_since)
            .bind(flow.state_by)
            .bind(flow.state_reason)
            .bind(flow.next_run_at)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    async fn put_past_check(&mut self, check: &PastCheck) -> Result<(), StoreError> {
        self.query(CHECKED)
            .bind(check.connector)
            .bind(check.auth_status.as_str())
            .bind(check.auth_error)
            .bind(check.auth_expires_at)
            .bind(check.at)
            .bind(check.auth_error.is_none())
            .bind(check.took_ms)
            .bind(check.next_at)
            .bind(check.status.as_str())
            .bind(Json(check.reasons.clone()))
            .bind(check.since)
            .execute(self.conn())
            .await?;
        for quota in &check.quotas {
            self.put_quota(check.connector, quota, check.at).await?;
        }
        Ok(())
    }
}

fn attempt(run: &PastRun) -> Option<AttemptRow<'_>> {
    Some(AttemptRow {
        run_id: &run.run_id,
        attempt: run.attempt,
        worker_id: WORKER,
        status: if run.finished_at.is_some() { run.status.as_str() } else { "running" },
        started_at: run.started_at?,
        finished_at: run.finished_at,
        records_written: run.records_written,
        error_class: run
            .errors
            .first()
            .filter(|_| run.status == RunStatus::Failed)
            .map(|errors| errors.class),
        message: run.reason_message.as_deref(),
    })
}

fn events(run: &PastRun) -> impl Iterator<Item = EventRow<'_>> {
    run.events.iter().enumerate().map(|(n, event)| EventRow {
        run_id: &run.run_id,
        seq: n + 1,
        at: event.at,
        kind: event.kind,
        message: &event.message,
    })
}

fn deed(deed: &PastDeed) -> DeedRow<'_> {
    DeedRow {
        // One deed has one id, so that a past that is given twice is kept once.
        audit_id: format!("aud_{}", short(&[deed.action, deed.target, &deed.at.to_rfc3339()], "")),
        at: deed.at,
        actor_kind: if deed.by.is_some() { "user" } else { "system" },
        actor_label: deed.by.unwrap_or("apixx-mcp"),
        action: deed.action,
        target_kind: deed.target_kind,
        target_id: deed.target,
        message: deed.message,
    }
}

/// 24 hexadecimal digits that stand for `parts`, after `lead`, by which they sort.
pub(super) fn short(parts: &[&str], lead: &str) -> String {
    let digest = Sha256::digest(parts.join("\u{1f}").as_bytes());
    format!("{lead}{}", hex(&digest[..12]))
}
