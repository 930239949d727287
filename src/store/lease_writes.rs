//! What a worker writes of its run under its lease: batches, and what becomes of the run.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use super::leases::{Checkpoint, Lease};
use super::run_end::Ending;
use super::run_errors::FoundErrors;
use super::{Store, StoreError, TenantTx};
use crate::domain::failure::Failure;
use crate::domain::run::{Records, RunStatus};

statements! {
    SAVE = plain "
        update runs
           set records_read = records_read + $5, records_written = records_written + $6,
               records_failed = records_failed + $7, records_skipped = records_skipped + $8,
               records_unchanged = records_unchanged + $14,
               bytes_read = bytes_read + $9, bytes_written = bytes_written + $10,
               records_estimated = coalesce($11, records_estimated), checkpoint = $12, phase = 'load'
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until > $4
           and coalesce((checkpoint ->> 'batch')::bigint, 0) = $13
        returning cancel_requested_at is not null as cancel_requested, records_read, records_written, records_failed,
                  records_skipped, records_unchanged";
    SAVED_BEFORE = plain "
        select cancel_requested_at is not null as cancel_requested, records_read, records_written, records_failed,
               records_skipped, records_unchanged
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
    // Who takes a run from a silent worker says that the attempt was lost.
    GIVEN_BACK = plain "
        select r.status
          from runs r
          join run_attempts a on a.customer_id = $1 and a.run_id = r.run_id and a.attempt = $3 and a.status <> 'lost'
         where r.customer_id = $1 and r.run_id = $2";
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
    /// What it is kept under ([`super::leases::ClaimedRun::cursor_key`]), and the cursor that the next incremental run
    /// reads on from however this one ends. That of records whose writing may be repeated waits in the checkpoint
    /// ([`Checkpoint::reached`]).
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
    records_unchanged: i64,
}

/// What became of a lease.
enum Held {
    /// A transaction that holds the run's row, and whether the run was asked to stop.
    Now(TenantTx, bool),
    /// Its worker gave the run back before, but did not hear that it was done; where the run is now.
    GivenBack(RunStatus),
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
            )
            .with_unchanged(row.records_unchanged),
        }
    }
}
impl Store {
    /// Saves counts, checkpoint, cursor and errors of a batch that the destination acknowledged, all or none.
    /// Saving the same batch again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn save_batch(&self, lease: &Lease, batch: &Batch<'_>) -> Result<Standing, StoreError> {
        let mut tx = self.begin(lease.tenancy()).await?;
        let now = tx.now();
        let records = &batch.records;
        let saved: Option<StandingRow> = tx
            .query_as(SAVE)
            .bind(lease.run().as_str().to_owned())
            .bind(lease.attempt())
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
            .bind(records.unchanged)
            .fetch_optional(tx.conn())
            .await?;
        let Some(saved) = saved else {
            let before: Option<StandingRow> = tx
                .query_as(SAVED_BEFORE)
                .bind(lease.run().as_str().to_owned())
                .bind(lease.attempt())
                .bind(now)
                .bind(batch.checkpoint.batch)
                .fetch_optional(tx.conn())
                .await?;
            return before.map(Standing::from).ok_or(StoreError::LeaseLost);
        };
        let standing = Standing::from(saved);
        if let Some((stream, cursor)) = batch.cursor {
            tx.query(CURSOR)
                .bind(lease.flow().as_str().to_owned())
                .bind(stream.to_owned())
                .bind(Json(cursor))
                .bind(lease.run().as_str().to_owned())
                .bind(now)
                .execute(tx.conn())
                .await?;
        }
        tx.add_errors(lease.run(), lease.flow(), lease.attempt(), &batch.errors).await?;
        // (warnings are among the errors, but reject nothing)
        let first_to_fail = records.failed > 0 && standing.records.failed == records.failed;
        if let Some(first) = batch.errors.first().filter(|_| first_to_fail) {
            tx.add_event(lease.run(), "first_error", &format!("first error: {first}")).await?;
        }
        if let Some(event) = &batch.event {
            tx.add_event(lease.run(), "checkpoint", event).await?;
        }
        tx.commit().await?;
        Ok(standing)
    }

    /// Ends a run and does everything that its end entails, all or none; returns how it ended. Ending it again changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn finish_run(&self, lease: &Lease, ending: &Ending) -> Result<RunStatus, StoreError> {
        let mut tx = match self.hold(lease).await? {
            Held::Now(tx, _) => tx,
            Held::GivenBack(status) => return Ok(status),
        };
        if let Ending::Failed { failure, .. } = ending {
            tx.add_run_failure(lease.run(), lease.flow(), lease.attempt(), failure).await?;
        }
        let status = tx.close_run(lease.run(), ending).await?;
        tx.commit().await?;
        Ok(status)
    }

    /// Gives a run back after a `failure` that may pass; its next attempt goes on from its checkpoint at `at`.
    /// One that was asked to stop is cancelled instead. Giving it back again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn retry_run(
        &self,
        lease: &Lease,
        at: DateTime<Utc>,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        let Held::Now(mut tx, cancel_requested) = self.hold(lease).await? else { return Ok(()) };
        tx.end_attempt(lease.run(), "failed", Some(failure)).await?;
        if cancel_requested {
            tx.close_run(lease.run(), &Ending::Cancelled).await?;
            return tx.commit().await;
        }
        tx.run_later(lease.run(), at, 0).await?;
        let wait = (at - tx.now()).num_seconds();
        let message = format!(
            "attempt {} of {} failed ({}: {}); the next one starts in {wait} s",
            lease.attempt(),
            lease.max_attempts(),
            failure.class,
            failure.message
        );
        tx.add_event(lease.run(), "retry", &message).await?;
        tx.commit().await
    }

    /// Gives a run back unharmed because this process ends: another worker goes on at once, and no attempt
    /// is used up. A run that was asked to stop is cancelled instead. Giving it back again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another worker has the run, or the lease ran out: nothing was changed.
    pub async fn release_run(&self, lease: &Lease) -> Result<(), StoreError> {
        let Held::Now(mut tx, cancel_requested) = self.hold(lease).await? else { return Ok(()) };
        let now = tx.now();
        tx.end_attempt(lease.run(), "released", None).await?;
        if cancel_requested {
            tx.close_run(lease.run(), &Ending::Cancelled).await?;
            return tx.commit().await;
        }
        // The attempt fences writes and so never goes back; one more is allowed instead.
        tx.run_later(lease.run(), now, 1).await?;
        tx.add_event(lease.run(), "released", "its worker shut down; another one goes on").await?;
        tx.commit().await
    }

    async fn hold(&self, lease: &Lease) -> Result<Held, StoreError> {
        let mut tx = self.begin(lease.tenancy()).await?;
        let now = tx.now();
        let held: Option<(bool,)> = tx
            .query_as(HOLD)
            .bind(lease.run().as_str().to_owned())
            .bind(lease.attempt())
            .bind(now)
            .fetch_optional(tx.conn())
            .await?;
        if let Some((cancel_requested,)) = held {
            return Ok(Held::Now(tx, cancel_requested));
        }
        let given_back: Option<(String,)> = tx
            .query_as(GIVEN_BACK)
            .bind(lease.run().as_str().to_owned())
            .bind(lease.attempt())
            .fetch_optional(tx.conn())
            .await?;
        let (status,) = given_back.ok_or(StoreError::LeaseLost)?;
        RunStatus::parse(&status).map(Held::GivenBack).ok_or(StoreError::inconsistent("runs", "status"))
    }
}
