//! Leases: what a worker may do with the run that it claimed, until another one may.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::FromRow;
use sqlx::types::Json;

use super::run_end::Ending;
use super::run_errors::FoundErrors;
use super::{Store, StoreError, Tenancy, TenantTx};
use crate::domain::connector::ConnectorKind;
use crate::domain::definition::FlowDefinition;
use crate::domain::failure::Failure;
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::{Records, RunStatus};

statements! {
    CLAIM = plain "select * from claim_runs($1, $2, $3, $4, $5)";
    LOAD = tenant "
        select f.name as flow_name, v.definition, f.timeout_s, f.max_error_rate, r.started_at, r.cancel_requested_at,
               r.checkpoint, r.records_read, r.records_written, r.records_failed, r.records_skipped,
               jsonb_build_object('id', s.connector_id, 'name', s.name, 'kind', s.kind, 'config', s.config) as source,
               jsonb_build_object('id', d.connector_id, 'name', d.name, 'kind', d.kind, 'config', d.config) as destination,
               coalesce((select jsonb_object_agg(c.stream, c.cursor) from flow_cursors c
                          where c.customer_id = $1 and c.flow_id = r.flow_id), '{}') as cursors
          from runs r
          join flows f on f.customer_id = $1 and f.flow_id = r.flow_id
          join flow_versions v on v.customer_id = $1 and v.flow_id = r.flow_id and v.version = r.flow_version
          join connectors s on s.customer_id = $1 and s.connector_id = r.source_connector_id
          join connectors d on d.customer_id = $1 and d.connector_id = r.destination_connector_id
         where r.customer_id = $1 and r.run_id = $4 and r.attempt = $5 and caller.id = $1
        offset 0";
    HEARTBEAT = plain "
        update runs
           set lease_until = $4
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until > $5
        returning cancel_requested_at is not null as cancel_requested";
    SAVE = plain "
        update runs
           set records_read = records_read + $5, records_written = records_written + $6,
               records_failed = records_failed + $7, records_skipped = records_skipped + $8,
               bytes_read = bytes_read + $9, bytes_written = bytes_written + $10,
               records_estimated = coalesce($11, records_estimated), checkpoint = $12, phase = 'load'
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until > $4
           and coalesce((checkpoint ->> 'batch')::bigint, 0) = $13
        returning cancel_requested_at is not null as cancel_requested, records_read, records_written, records_failed,
                  records_skipped";
    SAVED_BEFORE = plain "
        select cancel_requested_at is not null as cancel_requested, records_read, records_written, records_failed,
               records_skipped
          from runs
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until > $4
           and (checkpoint ->> 'batch')::bigint = $5";
    CURSOR = plain "
        insert into flow_cursors (customer_id, flow_id, stream, cursor, run_id, updated_at)
        values ($1, $2, $3, $4, $5, $6)
            on conflict (customer_id, flow_id, stream) do update
           set cursor = excluded.cursor, run_id = excluded.run_id, updated_at = excluded.updated_at";
    HOLD = plain "
        select cancel_requested_at is not null as cancel_requested from runs
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until > $4
           for update";
}

/// The right to work on one run until its lease runs out. Every write made with it asks the database whether it
/// still holds.
#[derive(Debug)]
#[must_use = "a dropped lease keeps its run from other workers until it expires"]
pub struct Lease {
    tenancy: Tenancy,
    run: RunId,
    flow: FlowId,
    version: i32,
    attempt: i32,
    max_attempts: i32,
    claimed_at: DateTime<Utc>,
    /// When it runs out, in microseconds.
    until: AtomicI64,
}

impl Lease {
    /// Whose run it is.
    pub fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Its flow.
    pub fn flow(&self) -> &FlowId {
        &self.flow
    }

    /// The version of the flow that it runs.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Which attempt this is, from 1. It fences every write.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    /// How much time it has left at `now`.
    pub fn left(&self, now: DateTime<Utc>) -> Duration {
        let micros = self.until.load(Ordering::Relaxed) - now.timestamp_micros();
        Duration::from_micros(micros.try_into().unwrap_or(0))
    }

    /// When this attempt began.
    pub fn claimed_at(&self) -> DateTime<Utc> {
        self.claimed_at
    }

    /// How many attempts the run has.
    pub fn max_attempts(&self) -> i32 {
        self.max_attempts
    }
}

/// One side of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct ConnectorConfig {
    /// The connector.
    pub id: ConnectorId,
    /// Its name.
    pub name: String,
    /// Which code speaks to it.
    pub kind: ConnectorKind,
    /// How it is configured.
    pub config: Value,
}

/// Where an interrupted run reads on from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How many batches of this run were saved.
    pub batch: i64,
    /// The stream that comes next, from 0.
    pub stream: usize,
    /// The place in that stream, in its source's own form; `None` is its beginning.
    pub position: Option<Value>,
    /// How many records so far the destination had already, as they are.
    #[serde(default)]
    pub unchanged: i64,
}

/// What a worker needs to know of the run that it claimed.
#[derive(Clone, Debug)]
pub struct ClaimedRun {
    /// The flow's name.
    pub flow_name: String,
    /// What to do.
    pub definition: FlowDefinition,
    /// Seconds that the whole run may take, from its first start.
    pub timeout_s: i32,
    /// Share of rejected records (0 to 1) above which it fails.
    pub max_error_rate: f64,
    /// When its first attempt began.
    pub started_at: DateTime<Utc>,
    /// Where it reads.
    pub source: ConnectorConfig,
    /// Where it writes.
    pub destination: ConnectorConfig,
    /// Saved cursors by the name of their stream.
    pub cursors: Map<String, Value>,
    /// Where an earlier attempt got to.
    pub checkpoint: Checkpoint,
    /// What earlier attempts did.
    pub records: Records,
}

#[derive(FromRow)]
struct ClaimRow {
    customer_id: String,
    run_id: String,
    flow_id: String,
    flow_version: i32,
    attempt: i32,
    max_attempts: i32,
}

#[derive(FromRow)]
struct LoadRow {
    flow_name: String,
    definition: Json<FlowDefinition>,
    timeout_s: i32,
    max_error_rate: f64,
    started_at: Option<DateTime<Utc>>,
    checkpoint: Option<Json<Checkpoint>>,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    source: Json<ConnectorConfig>,
    destination: Json<ConnectorConfig>,
    cursors: Json<Map<String, Value>>,
}

/// What one batch did, to be saved once its destination acknowledged it.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Where the run stands after it; its `batch` is one more than that of the checkpoint before.
    pub checkpoint: Checkpoint,
    /// What was added to the counts.
    pub records: Records,
    /// Bytes taken from the source.
    pub bytes_read: i64,
    /// Bytes given to the destination.
    pub bytes_written: i64,
    /// How many records the run will read, where the source knows.
    pub estimated: Option<i64>,
    /// The stream and the cursor that its next incremental run reads on from.
    pub cursor: Option<(&'a str, &'a Value)>,
    /// What was rejected.
    pub errors: FoundErrors,
    /// A line for the timeline.
    pub event: Option<String>,
}

/// Where a run stands after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a person asked it to stop.
    pub cancel_requested: bool,
    /// What the whole run did.
    pub records: Records,
}

#[derive(FromRow)]
struct StandingRow {
    cancel_requested: bool,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
}

impl From<StandingRow> for Standing {
    fn from(row: StandingRow) -> Self {
        Self {
            cancel_requested: row.cancel_requested,
            records: Records::new(
                row.records_read,
                row.records_written,
                row.records_failed,
                row.records_skipped,
            ),
        }
    }
}

impl Store {
    /// Claims up to `most` runs for `worker` until `lease` from now: customers in turn, of the next few those with
    /// few running runs first, none above its plan's limit.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_runs(
        &self,
        worker: &str,
        most: i32,
        lease: TimeDelta,
    ) -> Result<Vec<Lease>, StoreError> {
        let now = self.now();
        let rows: Vec<ClaimRow> = sqlx::query_as(CLAIM)
            .bind(worker)
            .bind(now)
            .bind(now + lease)
            .bind(most)
            .bind(self.claim_turn.after())
            .fetch_all(self.pool())
            .await?;
        self.claim_turn.went_to(rows.iter().map(|row| row.customer_id.as_str()));
        rows.into_iter()
            .map(|row| {
                Ok(Lease {
                    tenancy: Tenancy::of_row(&row.customer_id)?,
                    run: RunId::parse(&row.run_id).map_err(|_| StoreError::inconsistent("runs", "run_id"))?,
                    flow: FlowId::parse(&row.flow_id)
                        .map_err(|_| StoreError::inconsistent("runs", "flow_id"))?,
                    version: row.flow_version,
                    attempt: row.attempt,
                    max_attempts: row.max_attempts,
                    claimed_at: now,
                    until: (now + lease).timestamp_micros().into(),
                })
            })
            .collect()
    }

    /// What a worker needs to know of the run that it claimed.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has it; otherwise when the database fails.
    pub async fn load_run(&self, lease: &Lease) -> Result<ClaimedRun, StoreError> {
        let row: Option<LoadRow> = self
            .read(&lease.tenancy)
            .query_as(LOAD)
            .bind(lease.run.as_str().to_owned())
            .bind(lease.attempt)
            .fetch_optional(self.pool())
            .await?;
        let row = row.ok_or(StoreError::LeaseLost)?;
        Ok(ClaimedRun {
            flow_name: row.flow_name,
            definition: row.definition.0,
            timeout_s: row.timeout_s,
            max_error_rate: row.max_error_rate,
            started_at: row.started_at.ok_or(StoreError::inconsistent("runs", "started_at"))?,
            source: row.source.0,
            destination: row.destination.0,
            cursors: row.cursors.0,
            checkpoint: row.checkpoint.map(|json| json.0).unwrap_or_default(),
            records: Records::new(
                row.records_read,
                row.records_written,
                row.records_failed,
                row.records_skipped,
            ),
        })
    }

    /// Keeps a run for another `lease`; says whether a person asked it to stop.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has it, or the lease ran out.
    pub async fn heartbeat(&self, lease: &Lease, length: TimeDelta) -> Result<bool, StoreError> {
        let mut tx = self.begin(&lease.tenancy).await?;
        let now = tx.now();
        let found: Option<(bool,)> = tx
            .query_as(HEARTBEAT)
            .bind(lease.run.as_str().to_owned())
            .bind(lease.attempt)
            .bind(now + length)
            .bind(now)
            .fetch_optional(tx.conn())
            .await?;
        let (cancel_requested,) = found.ok_or(StoreError::LeaseLost)?;
        tx.commit().await?;
        lease.until.store((now + length).timestamp_micros(), Ordering::Relaxed);
        Ok(cancel_requested)
    }

    /// Saves counts, checkpoint, cursor and errors of a batch that the destination acknowledged, all or none.
    /// Saving the same batch again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn save_batch(&self, lease: &Lease, batch: &Batch<'_>) -> Result<Standing, StoreError> {
        let mut tx = self.begin(&lease.tenancy).await?;
        let now = tx.now();
        let records = &batch.records;
        let saved: Option<StandingRow> = tx
            .query_as(SAVE)
            .bind(lease.run.as_str().to_owned())
            .bind(lease.attempt)
            .bind(now)
            .bind(records.read)
            .bind(records.written)
            .bind(records.failed)
            .bind(records.skipped)
            .bind(batch.bytes_read)
            .bind(batch.bytes_written)
            .bind(batch.estimated)
            .bind(Json(&batch.checkpoint))
            .bind(batch.checkpoint.batch - 1)
            .fetch_optional(tx.conn())
            .await?;
        let Some(saved) = saved else {
            let before: Option<StandingRow> = tx
                .query_as(SAVED_BEFORE)
                .bind(lease.run.as_str().to_owned())
                .bind(lease.attempt)
                .bind(now)
                .bind(batch.checkpoint.batch)
                .fetch_optional(tx.conn())
                .await?;
            return before.map(Standing::from).ok_or(StoreError::LeaseLost);
        };
        let standing = Standing::from(saved);
        if let Some((stream, cursor)) = batch.cursor {
            tx.query(CURSOR)
                .bind(lease.flow.as_str().to_owned())
                .bind(stream.to_owned())
                .bind(Json(cursor))
                .bind(lease.run.as_str().to_owned())
                .bind(now)
                .execute(tx.conn())
                .await?;
        }
        tx.add_errors(&lease.run, &lease.flow, lease.attempt, &batch.errors).await?;
        // (warnings are among the errors, but reject nothing)
        let first_to_fail = records.failed > 0 && standing.records.failed == records.failed;
        if let Some(first) = batch.errors.first().filter(|_| first_to_fail) {
            tx.add_event(&lease.run, "first_error", &format!("first error: {}", first.message)).await?;
        }
        if let Some(event) = &batch.event {
            tx.add_event(&lease.run, "checkpoint", event).await?;
        }
        tx.commit().await?;
        Ok(standing)
    }

    /// Ends a run and does everything that its end entails, all or none; returns how it ended.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn finish_run(&self, lease: &Lease, ending: &Ending) -> Result<RunStatus, StoreError> {
        let (mut tx, _) = self.hold(lease).await?;
        if let Ending::Failed { failure, .. } = ending {
            tx.add_run_failure(&lease.run, &lease.flow, lease.attempt, failure).await?;
        }
        let status = tx.close_run(&lease.run, ending).await?;
        tx.commit().await?;
        Ok(status)
    }

    /// Gives a run back after a `failure` that may pass; its next attempt goes on from its checkpoint at `at`.
    /// One that was asked to stop is cancelled instead.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn retry_run(
        &self,
        lease: &Lease,
        at: DateTime<Utc>,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        let (mut tx, cancel_requested) = self.hold(lease).await?;
        tx.end_attempt(&lease.run, "failed", Some(failure)).await?;
        if cancel_requested {
            tx.close_run(&lease.run, &Ending::Cancelled).await?;
            return tx.commit().await;
        }
        tx.run_later(&lease.run, at, 0).await?;
        let wait = (at - tx.now()).num_seconds();
        let message = format!(
            "attempt {} of {} failed ({}: {}); the next one starts in {wait} s",
            lease.attempt, lease.max_attempts, failure.class, failure.message
        );
        tx.add_event(&lease.run, "retry", &message).await?;
        tx.commit().await
    }

    /// Gives a run back unharmed because this process ends: another worker goes on at once, and no attempt
    /// is used up. A run that was asked to stop is cancelled instead.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn release_run(&self, lease: &Lease) -> Result<(), StoreError> {
        let (mut tx, cancel_requested) = self.hold(lease).await?;
        let now = tx.now();
        tx.end_attempt(&lease.run, "released", None).await?;
        if cancel_requested {
            tx.close_run(&lease.run, &Ending::Cancelled).await?;
            return tx.commit().await;
        }
        // The attempt fences writes and so never goes back; one more is allowed instead.
        tx.run_later(&lease.run, now, 1).await?;
        tx.add_event(&lease.run, "released", "its worker shut down; another one goes on").await?;
        tx.commit().await
    }

    /// A transaction that holds the leased run's row, and whether the run was asked to stop.
    async fn hold(&self, lease: &Lease) -> Result<(TenantTx, bool), StoreError> {
        let mut tx = self.begin(&lease.tenancy).await?;
        let now = tx.now();
        let held: Option<(bool,)> = tx
            .query_as(HOLD)
            .bind(lease.run.as_str().to_owned())
            .bind(lease.attempt)
            .bind(now)
            .fetch_optional(tx.conn())
            .await?;
        held.map(|(cancel_requested,)| (tx, cancel_requested)).ok_or(StoreError::LeaseLost)
    }
}
