//! The end of a run and all that it entails, in the transaction that ends it.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{StoreError, TenantTx};
use crate::domain::failure::Failure;
use crate::domain::ids::{FlowId, RunId};
use crate::domain::run::{ReasonCode, RunStatus};

statements! {
    // Whatever is counted of a run's errors ends with it.
    END = plain "
        with counts as (
            update run_error_counts
               set window_at = $6
             where customer_id = $1 and run_id = $2
            returning group_id, count)
        update runs r
           set status = case when $3 <> 'completed' then $3
                             when r.records_failed > 0 then 'partial'
                             else 'succeeded' end,
               reason_code = $4,
               reason_message = case when $3 = 'cancelled' then 'cancelled by ' || coalesce(r.cancel_requested_by, 'someone')
                                     else $5 end,
               finished_at = $6, window_at = $6, lease_until = null, phase = null,
               error_groups = coalesce(e.groups, 0), top_error_class = e.top
          from (select (select count(*)::integer from counts) as groups,
                       (select g.error_class from counts c
                          join error_groups g on g.customer_id = $1 and g.group_id = c.group_id
                         group by g.error_class
                         order by sum(c.count) desc, g.error_class
                         limit 1) as top) e
         where r.customer_id = $1 and r.run_id = $2
           and r.status in ('queued', 'running', 'retrying', 'cancelling')
        returning r.flow_id, r.status, r.reason_code, r.reason_message, r.started_at,
                  r.records_read, r.records_written, r.records_failed, r.records_skipped";
    // The rows of all flows are shared with the customer's other runs: they come last, in one order.
    COUNT = plain "
        insert into run_stats as s (customer_id, flow_id, grain, at, status, trigger, source_connector_id,
               destination_connector_id, runs, partial, failed, cancelled, skipped, records_read, records_written,
               records_failed, records_skipped, records_unchanged, bytes_written)
        select r.customer_id, l.flow_id, g.grain, date_trunc(g.grain, r.finished_at, 'UTC'), s.status, r.trigger,
               l.source, l.destination, 1, (r.status = 'partial')::integer, (r.status = 'failed')::integer,
               (r.status = 'cancelled')::integer, (r.status = 'skipped')::integer, r.records_read, r.records_written,
               r.records_failed, r.records_skipped, r.records_unchanged, r.bytes_written
          from runs r
         cross join (values ('hour'), ('day')) g (grain)
         cross join lateral (values (r.flow_id, r.source_connector_id, r.destination_connector_id), ('', '', ''))
               l (flow_id, source, destination)
         cross join lateral (select '' union all select r.status where r.status <> 'succeeded') s (status)
         where r.customer_id = $1 and r.run_id = $2
         order by l.flow_id desc, g.grain, s.status
            on conflict (customer_id, flow_id, grain, status, at, trigger, source_connector_id,
                         destination_connector_id)
            do update
           set runs = s.runs + 1,
               partial = s.partial + excluded.partial,
               failed = s.failed + excluded.failed,
               cancelled = s.cancelled + excluded.cancelled,
               skipped = s.skipped + excluded.skipped,
               records_read = s.records_read + excluded.records_read,
               records_written = s.records_written + excluded.records_written,
               records_failed = s.records_failed + excluded.records_failed,
               records_skipped = s.records_skipped + excluded.records_skipped,
               records_unchanged = s.records_unchanged + excluded.records_unchanged,
               bytes_written = s.bytes_written + excluded.bytes_written";
    COUNT_ERRORS = plain "
        insert into error_stats as s (customer_id, flow_id, grain, level, at, key, errors, runs)
        select $1, r.flow_id, grain.grain, l.level, date_trunc(grain.grain, r.finished_at, 'UTC'), l.key,
               sum(c.count)::bigint, 1
          from runs r
          join run_error_counts c on c.customer_id = $1 and c.run_id = r.run_id
          join error_groups e on e.customer_id = $1 and e.group_id = c.group_id
         cross join (values ('hour'), ('day')) grain (grain)
         cross join lateral (values ('all', ''), ('class', e.error_class), ('code', e.code),
                                    ('field', coalesce(e.field, '(none)')), ('group', e.group_id)) l (level, key)
         where r.customer_id = $1 and r.run_id = $2
         group by r.flow_id, grain.grain, l.level, r.finished_at, l.key
            on conflict (customer_id, flow_id, grain, level, at, key) do update
           set errors = s.errors + excluded.errors, runs = s.runs + 1";
    LAST_RUN = plain "
        update flows
           set last_run_id = $3,
               last_success_run_id = case when $4 = 'succeeded' then $3 else last_success_run_id end,
               last_decided_at = case when $4 in ('succeeded', 'partial', 'failed') then $5 else last_decided_at end
         where customer_id = $1 and flow_id = $2";
    REACHED = plain "
        insert into flow_cursors (customer_id, flow_id, stream, cursor, run_id, updated_at)
        select $1, r.flow_id, c.stream, c.cursor, $2, $3
          from runs r
         cross join jsonb_each(r.checkpoint -> 'reached') c (stream, cursor)
         where r.customer_id = $1 and r.run_id = $2
            on conflict (customer_id, flow_id, stream) do update
           set cursor = excluded.cursor, run_id = excluded.run_id, updated_at = excluded.updated_at";
    USED = plain "
        update connectors c
           set last_activity_at = $3
          from (select u.connector_id from connectors u
                  join runs r on r.customer_id = $1 and r.run_id = $2
                   and u.connector_id in (r.source_connector_id, r.destination_connector_id)
                 where u.customer_id = $1
                   for no key update of u skip locked) used
         where c.customer_id = $1 and c.connector_id = used.connector_id";
}

/// How a run ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// It read everything: succeeded, or partial where records were rejected. The sentence says what changed.
    Completed {
        /// One sentence for the timeline.
        message: String,
    },
    /// It failed for good.
    Failed {
        /// Why, in a word.
        reason: ReasonCode,
        /// Why, in a sentence, and whose side it was.
        failure: Failure,
    },
    /// It failed because too many records were rejected; their errors say why.
    TooManyRejected {
        /// How many, in a sentence.
        message: String,
    },
    /// A person stopped it.
    Cancelled,
}

#[derive(FromRow)]
struct EndedRow {
    flow_id: String,
    status: String,
    reason_code: Option<String>,
    reason_message: Option<String>,
    started_at: Option<DateTime<Utc>>,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
}

impl TenantTx {
    /// Ends an open run: its row and attempt, its timeline, where the next one reads on from, both rollups, its flow's
    /// last run and health.
    /// The caller holds the run's row.
    pub(super) async fn close_run(&mut self, run: &RunId, ending: &Ending) -> Result<RunStatus, StoreError> {
        let now = self.now();
        let (status, reason, message) = match ending {
            Ending::Completed { .. } => ("completed", None, None),
            Ending::Failed { reason, failure } => ("failed", Some(*reason), Some(failure.message.clone())),
            Ending::TooManyRejected { message } => {
                ("failed", Some(ReasonCode::ErrorThreshold), Some(message.clone()))
            }
            Ending::Cancelled => ("cancelled", Some(ReasonCode::CancelledByUser), None),
        };
        let ended: Option<EndedRow> = self
            .query_as(END)
            .bind(run.as_str().to_owned())
            .bind(status)
            .bind(reason.map(ReasonCode::as_str))
            .bind(message)
            .bind(now)
            .fetch_optional(self.conn())
            .await?;
        let ended = ended.ok_or(StoreError::LeaseLost)?;
        let status = RunStatus::parse(&ended.status).ok_or(StoreError::inconsistent("runs", "status"))?;
        let flow = FlowId::parse(&ended.flow_id).map_err(|_| StoreError::inconsistent("runs", "flow_id"))?;
        let failure = match ending {
            Ending::Failed { failure, .. } => Some(failure),
            _ => None,
        };
        self.end_attempt(run, status.as_str(), failure).await?;
        self.add_event(run, "finished", &sentence(&ended, ending)).await?;
        // What was rejected too often comes again once somebody saw to it. Appended records would come twice and so do
        // not: their cursors were saved with them.
        if !matches!(ending, Ending::TooManyRejected { .. }) {
            self.query(REACHED).bind(run.as_str().to_owned()).bind(now).execute(self.conn()).await?;
        }
        // Whoever holds a connector's row does not wait for this: a moment later another run says the same.
        if ended.started_at.is_some() {
            self.query(USED).bind(run.as_str().to_owned()).bind(now).execute(self.conn()).await?;
        }
        self.query(LAST_RUN)
            .bind(flow.as_str().to_owned())
            .bind(run.as_str().to_owned())
            .bind(status.as_str())
            .bind(now)
            .execute(self.conn())
            .await?;
        // With the flow's row held: whoever counts holds one, so that nobody waits in a circle.
        self.count_run(run).await?;
        self.refresh_flow_health(&flow).await?;
        Ok(status)
    }

    /// Adds a run that has ended to the rollups. The caller holds the row of its flow.
    pub(super) async fn count_run(&mut self, run: &RunId) -> Result<(), StoreError> {
        self.query(COUNT).bind(run.as_str().to_owned()).execute(self.conn()).await?;
        self.query(COUNT_ERRORS).bind(run.as_str().to_owned()).execute(self.conn()).await?;
        Ok(())
    }
}

/// The last line of a run's timeline.
fn sentence(ended: &EndedRow, ending: &Ending) -> String {
    let counts = format!(
        "{} read, {} written, {} rejected, {} skipped",
        ended.records_read, ended.records_written, ended.records_failed, ended.records_skipped
    );
    let why = match (&ended.reason_code, &ended.reason_message, ending) {
        (_, _, Ending::Completed { message }) => format!(": {message}"),
        (Some(code), Some(message), _) => format!(" ({code}: {message})"),
        _ => String::new(),
    };
    format!("{}{why}; {counts}", ended.status)
}
