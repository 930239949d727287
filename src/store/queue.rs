//! The queue of runs: adding to it, cancelling, and taking runs from workers that went silent.

use chrono::{DateTime, Utc};

use super::customers::{Actor, Target};
use super::run_end::Ending;
use super::{Store, StoreError, Tenancy, TenantTx};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::domain::ids::{FlowId, RunId};
use crate::domain::run::{ReasonCode, RunStatus, Trigger};

statements! {
    ADD = plain "
        insert into runs (customer_id, run_id, flow_id, flow_version, source_connector_id, destination_connector_id,
               status, trigger, triggered_by, trigger_note, retry_of, scheduled_for, queued_at, available_at,
               finished_at, window_at, max_attempts, priority, reason_code, reason_message)
        select $1, $2, f.flow_id, f.current_version, f.source_connector_id, f.destination_connector_id,
               $4::text, $5, $6, $7, $8, $9, $10::timestamptz, $10::timestamptz,
               case when $4 = 'skipped' then $10::timestamptz end, case when $4 = 'skipped' then $10::timestamptz else '9999-12-31T00:00:00Z' end,
               f.max_attempts, $11,
               case when $4 = 'skipped' then 'PREVIOUS_RUN_ACTIVE' end,
               case when $4 = 'skipped' then 'the run before it had not ended' end
          from flows f
         where f.customer_id = $1 and f.flow_id = $3
            on conflict do nothing";
    EVENT = plain "
        insert into run_events (customer_id, run_id, seq, at, kind, message)
        select $1, $2, coalesce(max(e.seq), 0) + 1, $3, $4, $5
          from run_events e
         where e.customer_id = $1 and e.run_id = $2";
    LATER = plain "
        update runs
           set status = 'retrying', available_at = $3, lease_until = null, worker_id = null, attempt_at = null,
               phase = null, max_attempts = max_attempts + $4
         where customer_id = $1 and run_id = $2";
    END_ATTEMPT = plain "
        insert into run_attempts (customer_id, run_id, attempt, worker_id, status, started_at, finished_at,
               records_written, error_class, message)
        select $1, r.run_id, r.attempt, r.worker_id, $3, r.attempt_at, $4,
               r.records_written - (
                   select coalesce(sum(b.records_written), 0)::bigint from run_attempts b
                    where b.customer_id = $1 and b.run_id = $2 and b.attempt < r.attempt),
               $5, $6
          from runs r
         where r.customer_id = $1 and r.run_id = $2 and r.attempt_at is not null
            on conflict do nothing";
    EXPIRED = plain "select * from expired_runs($1, $2)";
    EXPIRED_NOW = plain "
        select status, attempt < max_attempts as attempts_left, flow_id from runs
         where customer_id = $1 and run_id = $2 and attempt = $3
           and status in ('running', 'cancelling') and lease_until <= $4
           for update";
    FOR_CANCEL = plain "
        select status, origin = 'native' as native from runs
         where customer_id = $1 and run_id = $2
           for update";
    CANCEL = plain "
        update runs
           set status = case when status = 'running' then 'cancelling' else status end,
               cancel_requested_at = coalesce(cancel_requested_at, $3),
               cancel_requested_by = coalesce(cancel_requested_by, $4)
         where customer_id = $1 and run_id = $2";
    SEEN = plain "
        insert into workers (worker_id, started_at, seen_at, running) values ($1, $2, $3, $4)
            on conflict (worker_id) do update set seen_at = excluded.seen_at, running = excluded.running";
    GONE = plain "delete from workers where worker_id = $1";
}

/// A run to be queued. Its version, connectors and attempts are those of its flow now.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The flow that runs.
    pub flow: FlowId,
    /// What caused it.
    pub trigger: Trigger,
    /// Who, in words.
    pub triggered_by: Option<String>,
    /// Why, in words.
    pub note: Option<String>,
    /// The run that it runs again.
    pub retry_of: Option<RunId>,
    /// The tick of the schedule that it answers.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Lower is claimed first; 100 is usual.
    pub priority: i32,
}

impl NewRun {
    /// A run of `flow` for `trigger`, of usual priority.
    pub fn new(flow: FlowId, trigger: Trigger) -> Self {
        Self {
            flow,
            trigger,
            triggered_by: None,
            note: None,
            retry_of: None,
            scheduled_for: None,
            priority: 100,
        }
    }
}

impl TenantTx {
    /// Queues a run, to be claimed once this transaction is committed (call [`super::Wakes::run_queued`]
    /// then). `None` when the flow does not exist, has a run waiting already, or (for a schedule) had this
    /// tick before.
    ///
    /// The caller decides beforehand whether the flow may run now: nothing here looks at its state.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_run(&mut self, run: &NewRun) -> Result<Option<RunId>, StoreError> {
        let by = run.triggered_by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let Some(id) = self.insert_run(run, RunStatus::Queued).await? else { return Ok(None) };
        self.add_event(&id, "queued", &format!("queued ({}{by})", run.trigger)).await?;
        Ok(Some(id))
    }

    /// Records a tick of a schedule that was passed over because the run before it had not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_skipped_run(&mut self, run: &NewRun) -> Result<Option<RunId>, StoreError> {
        let Some(id) = self.insert_run(run, RunStatus::Skipped).await? else { return Ok(None) };
        self.add_event(&id, "skipped", "skipped: the run before it had not ended").await?;
        self.count_run(&id).await?;
        Ok(Some(id))
    }

    async fn insert_run(&mut self, run: &NewRun, status: RunStatus) -> Result<Option<RunId>, StoreError> {
        let id = RunId::new(self.ids());
        let now = self.now();
        let done = self
            .query(ADD)
            .bind(id.as_str().to_owned())
            .bind(run.flow.as_str().to_owned())
            .bind(status.as_str())
            .bind(run.trigger.as_str())
            .bind(run.triggered_by.clone())
            .bind(run.note.clone())
            .bind(run.retry_of.as_ref().map(|run| run.as_str().to_owned()))
            .bind(run.scheduled_for)
            .bind(now)
            .bind(run.priority)
            .execute(self.conn())
            .await?;
        Ok((done.rows_affected() == 1).then_some(id))
    }

    /// Adds a line to the timeline of a run. The run's row must have been written in this transaction
    /// before, so that two writers take turns.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn add_event(
        &mut self,
        run: &RunId,
        kind: &'static str,
        message: &str,
    ) -> Result<(), StoreError> {
        let now = self.now();
        self.query(EVENT)
            .bind(run.as_str().to_owned())
            .bind(now)
            .bind(kind)
            .bind(message.to_owned())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Closes the attempt that a run is in.
    pub(super) async fn end_attempt(
        &mut self,
        run: &RunId,
        status: &'static str,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        let now = self.now();
        self.query(END_ATTEMPT)
            .bind(run.as_str().to_owned())
            .bind(status)
            .bind(now)
            .bind(failure.map(|failure| failure.class.as_str()))
            .bind(failure.map(|failure| failure.message.clone()))
            .execute(self.conn())
            .await?;
        match failure {
            Some(failure) => self.check_connectors_of(run, failure).await,
            None => Ok(()),
        }
    }

    /// Back to the queue: the same run goes on from its checkpoint at `at`.
    pub(super) async fn run_later(
        &mut self,
        run: &RunId,
        at: DateTime<Utc>,
        more_attempts: i32,
    ) -> Result<(), StoreError> {
        self.query(LATER)
            .bind(run.as_str().to_owned())
            .bind(at)
            .bind(more_attempts)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Asks a run to stop, in the name of `by`, and keeps that in the audit log: one that waits is cancelled at once, one
    /// that is going stops at its next batch, one that has ended stays as it is. `None` when there is no such
    /// run, or another platform runs it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn request_cancel(&mut self, run: &RunId, by: &Actor) -> Result<Option<RunStatus>, StoreError> {
        let found: Option<(String, bool)> =
            self.query_as(FOR_CANCEL).bind(run.as_str().to_owned()).fetch_optional(self.conn()).await?;
        self.still_live().await?;
        let Some((status, true)) = found else { return Ok(None) };
        let status = RunStatus::parse(&status).ok_or(StoreError::inconsistent("runs", "status"))?;
        if status.is_final() || status == RunStatus::Cancelling {
            return Ok(Some(status));
        }
        let now = self.now();
        self.query(CANCEL)
            .bind(run.as_str().to_owned())
            .bind(now)
            .bind(by.label().to_owned())
            .execute(self.conn())
            .await?;
        self.audit(by, "run.cancel_requested", Target::Run(run), None).await?;
        self.add_event(run, "cancel_requested", &format!("{} asked it to stop", by.label())).await?;
        if status == RunStatus::Running {
            return Ok(Some(RunStatus::Cancelling));
        }
        self.close_run(run, &Ending::Cancelled).await?;
        Ok(Some(RunStatus::Cancelled))
    }
}

impl Store {
    /// Takes runs from workers that went silent: the next attempt starts at once, or the run fails when none
    /// is left. Returns how many. One that cannot be taken is logged and does not hold up the others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reap_runs(&self, most: i32) -> Result<usize, StoreError> {
        let expired: Vec<(String, String, i32)> =
            sqlx::query_as(EXPIRED).bind(self.now()).bind(most).fetch_all(self.pool()).await?;
        let mut reaped = 0;
        for (customer, run, attempt) in expired {
            match self.reap_run(&customer, &run, attempt).await {
                Ok(taken) => reaped += usize::from(taken),
                Err(error) => tracing::error!(%run, %error, "a run could not be taken from a silent worker"),
            }
        }
        Ok(reaped)
    }

    async fn reap_run(&self, customer: &str, run: &str, attempt: i32) -> Result<bool, StoreError> {
        let run = &RunId::parse(run).map_err(|_| StoreError::inconsistent("runs", "run_id"))?;
        let mut tx = self.begin(&Tenancy::of_row(customer)?).await?;
        let now = tx.now();
        let found: Option<(String, bool, String)> = tx
            .query_as(EXPIRED_NOW)
            .bind(run.as_str().to_owned())
            .bind(attempt)
            .bind(now)
            .fetch_optional(tx.conn())
            .await?;
        let Some((status, attempts_left, flow)) = found else { return Ok(false) };
        tx.end_attempt(run, "lost", None).await?;
        if status == RunStatus::Cancelling.as_str() {
            tx.close_run(run, &Ending::Cancelled).await?;
        } else if attempts_left {
            tx.run_later(run, now, 0).await?;
            tx.add_event(
                run,
                "lost",
                &format!("the worker of attempt {attempt} went silent; another one goes on"),
            )
            .await?;
        } else {
            let flow = FlowId::parse(&flow).map_err(|_| StoreError::inconsistent("runs", "flow_id"))?;
            let message = "its worker went silent, and no attempt was left";
            let failure = Failure::new(ErrorClass::Internal, "HEARTBEAT_LOST", Stage::Platform, message);
            tx.add_run_failure(run, &flow, attempt, &failure).await?;
            tx.close_run(run, &Ending::Failed { reason: ReasonCode::HeartbeatLost, failure }).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Says that a worker process lives, and how many runs it has.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn worker_seen(
        &self,
        worker: &str,
        started_at: DateTime<Utc>,
        running: i32,
    ) -> Result<(), StoreError> {
        sqlx::query(SEEN)
            .bind(worker)
            .bind(started_at)
            .bind(self.now())
            .bind(running)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Says that a worker process has ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn worker_gone(&self, worker: &str) -> Result<(), StoreError> {
        sqlx::query(GONE).bind(worker).execute(self.pool()).await?;
        Ok(())
    }
}
