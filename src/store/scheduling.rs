//! Schedules that fall due: each tick once, however many processes look.

use chrono::{DateTime, Utc};

use super::flow_health::ScheduleColumns;
use super::queue::NewRun;
use super::{Store, StoreError, Tenancy};
use crate::domain::ids::{FlowId, RunId};
use crate::domain::run::Trigger;

statements! {
    DUE = plain "select * from due_flows($1, $2)";
    TAKE = plain "
        select schedule_kind, schedule_cron, schedule_interval_s, schedule_timezone
          from flows
         where customer_id = $1 and flow_id = $2 and next_run_at = $3 and state = 'active'
           for no key update";
    OPEN = plain "
        select exists (select 1 from runs
                        where customer_id = $1 and flow_id = $2 and origin = 'native'
                          and status in ('queued', 'running', 'retrying', 'cancelling'))";
    ADVANCE = plain "update flows set next_run_at = $3 where customer_id = $1 and flow_id = $2";
}

/// A flow whose schedule has fallen due.
#[derive(Clone, Debug)]
pub struct DueFlow {
    tenancy: Tenancy,
    flow: FlowId,
    due: DateTime<Utc>,
}

/// What became of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// A run waits.
    Queued(RunId),
    /// The run before it had not ended; a skipped run says so.
    Skipped(RunId),
    /// Another process was faster, or the flow changed meanwhile.
    Elsewhere,
}

impl Store {
    /// Up to `most` flows whose schedule has fallen due. One that cannot be read is logged and left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_flows(&self, most: i32) -> Result<Vec<DueFlow>, StoreError> {
        let rows: Vec<(String, String, DateTime<Utc>)> =
            sqlx::query_as(DUE).bind(self.now()).bind(most).fetch_all(self.pool()).await?;
        let read = |(customer, flow, due): (String, String, DateTime<Utc>)| {
            let flow = FlowId::parse(&flow).map_err(|_| StoreError::inconsistent("flows", "flow_id"))?;
            Ok(DueFlow { tenancy: Tenancy::of_row(&customer)?, flow, due })
        };
        let logged = |error: &StoreError| tracing::error!(%error, "a schedule cannot be followed");
        Ok(rows.into_iter().filter_map(|row| read(row).inspect_err(logged).ok()).collect())
    }

    /// Queues the run of a due schedule, or records that it was skipped, and moves the schedule on past now:
    /// after a pause one run catches up, however many ticks were missed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fire(&self, due: &DueFlow) -> Result<Fired, StoreError> {
        let mut tx = self.begin(&due.tenancy).await?;
        let flow = due.flow.as_str();
        let row: Option<ScheduleColumns> =
            tx.query_as(TAKE).bind(flow.to_owned()).bind(due.due).fetch_optional(tx.conn()).await?;
        let Some(row) = row else { return Ok(Fired::Elsewhere) };
        let next = row.schedule()?.next_after(tx.now());
        let run = NewRun { scheduled_for: Some(due.due), ..NewRun::new(due.flow.clone(), Trigger::Schedule) };
        let (open,): (bool,) = tx.query_as(OPEN).bind(flow.to_owned()).fetch_one(tx.conn()).await?;
        let queued = if open { None } else { tx.add_run(&run).await? };
        let fired = match queued {
            Some(run) => Fired::Queued(run),
            None => tx.add_skipped_run(&run).await?.map_or(Fired::Elsewhere, Fired::Skipped),
        };
        tx.query(ADVANCE).bind(flow.to_owned()).bind(next).execute(tx.conn()).await?;
        tx.commit().await?;
        Ok(fired)
    }
}
