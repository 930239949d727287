//! Pausing and resuming flows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::customers::{Actor, Target};
use super::flow_health::ScheduleColumns;
use super::{StoreError, TenantTx};
use crate::domain::flow::FlowState;
use crate::domain::ids::{FlowId, RunId};

statements! {
    HOLD = plain "
        select flow_id, state, next_run_at
          from flows
         where customer_id = $1 and flow_id = any($2)
         order by flow_id
           for no key update";
    // A claim locks more runs than it takes, so it is waited for. Nobody waits in a circle: a claim waits for nothing but
    // such locks, and while this one is held no claim has a row of the customer.
    CLAIMS = plain "select pg_advisory_xact_lock(hashtextextended($1, 2))";
    // Who has one of them now cancels it: it is not waited for, since they may want the flow that is held.
    WAITING = plain "
        select run_id
          from runs
         where customer_id = $1 and flow_id = $2 and origin = 'native' and status in ('queued', 'retrying')
         order by run_id
           for update skip locked";
    SCHEDULE = plain "
        select schedule_kind, schedule_cron, schedule_interval_s, schedule_timezone
          from flows
         where customer_id = $1 and flow_id = $2 and state = 'paused'
           for update";
    PAUSE = plain "
        update flows
           set state = 'paused', state_reason = $4, state_by = $5, state_changed_at = $3, next_run_at = null
         where customer_id = $1 and flow_id = $2 and state = 'active'";
    RESUME = plain "
        update flows
           set state = 'active', state_reason = null, state_by = $5, state_changed_at = $3, next_run_at = $4,
               health_checked_at = 'epoch'
         where customer_id = $1 and flow_id = $2 and state = 'paused'";
}

/// The states of flows, and when they run next.
pub type HeldFlows = BTreeMap<FlowId, (FlowState, Option<DateTime<Utc>>)>;

impl TenantTx {
    /// The states of flows and when they run next, which nobody changes until this transaction ends. They are locked
    /// in the order of their ids, as by whoever else needs several: nobody waits in a circle.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_flows<'a>(
        &mut self,
        flows: impl IntoIterator<Item = &'a FlowId>,
    ) -> Result<HeldFlows, StoreError> {
        let ids: Vec<String> = flows.into_iter().map(|flow| flow.as_str().to_owned()).collect();
        let held: Vec<(String, String, Option<DateTime<Utc>>)> =
            self.query_as(HOLD).bind(ids).fetch_all(self.conn()).await?;
        let read = |(flow, state, next): (String, String, _)| {
            let wrong = |column| StoreError::inconsistent("flows", column);
            let flow = FlowId::parse(&flow).map_err(|_| wrong("flow_id"))?;
            Ok((flow, (FlowState::parse(&state).ok_or(wrong("state"))?, next)))
        };
        held.into_iter().map(read).collect()
    }

    /// Stops a flow until it is resumed: it is neither started by its schedule nor by a trigger, and its runs that wait
    /// are cancelled; returns how many. A run that is going goes on. `None` when the flow is not active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pause_flow(
        &mut self,
        flow: &FlowId,
        by: &Actor,
        reason: Option<&str>,
    ) -> Result<Option<usize>, StoreError> {
        // Who counts several runs in one transaction does so alone, as who applies a file: nobody waits in a circle.
        self.lock_customer().await?;
        let now = self.now();
        let done = self
            .query(PAUSE)
            .bind(flow.as_str().to_owned())
            .bind(now)
            .bind(reason.map(str::to_owned))
            .bind(by.label().to_owned())
            .execute(self.conn())
            .await?;
        // Customer and flow were waited for.
        self.still_live().await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        self.audit(by, "flow.paused", Target::Flow(flow), reason).await?;
        self.cancel_waiting(flow, by).await.map(Some)
    }

    /// Cancels the runs of a flow that wait for a worker or for their next attempt; returns how many. The caller locked
    /// the customer and holds the flow, which is not active any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel_waiting(&mut self, flow: &FlowId, by: &Actor) -> Result<usize, StoreError> {
        self.query(CLAIMS).execute(self.conn()).await?;
        let waiting: Vec<(String,)> =
            self.query_as(WAITING).bind(flow.as_str().to_owned()).fetch_all(self.conn()).await?;
        for (run,) in &waiting {
            let run = RunId::parse(run).map_err(|_| StoreError::inconsistent("runs", "run_id"))?;
            self.request_cancel(&run, by).await?;
        }
        Ok(waiting.len())
    }

    /// Lets a paused flow run again, from the next time of its schedule on. False when it is not paused.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume_flow(
        &mut self,
        flow: &FlowId,
        by: &Actor,
        reason: Option<&str>,
    ) -> Result<bool, StoreError> {
        let row: Option<ScheduleColumns> =
            self.query_as(SCHEDULE).bind(flow.as_str().to_owned()).fetch_optional(self.conn()).await?;
        self.still_live().await?;
        let Some(row) = row else { return Ok(false) };
        let now = self.now();
        let next = row.schedule()?.next_after(now);
        self.query(RESUME)
            .bind(flow.as_str().to_owned())
            .bind(now)
            .bind(next)
            .bind(by.label().to_owned())
            .execute(self.conn())
            .await?;
        self.audit(by, "flow.resumed", Target::Flow(flow), reason).await?;
        Ok(true)
    }
}
