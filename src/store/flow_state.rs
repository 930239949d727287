//! Pausing and resuming flows.

use chrono::{DateTime, Utc};

use super::customers::{Actor, Target};
use super::flow_health::ScheduleColumns;
use super::{StoreError, TenantTx};
use crate::domain::flow::FlowState;
use crate::domain::ids::FlowId;

statements! {
    HOLD = plain "
        select state, next_run_at
          from flows
         where customer_id = $1 and flow_id = $2
           for no key update";
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

impl TenantTx {
    /// The state of a flow and when it runs next, which nobody changes until this transaction ends.
    ///
    /// # Errors
    /// When it is gone, or the database fails.
    pub async fn hold_flow(
        &mut self,
        flow: &FlowId,
    ) -> Result<(FlowState, Option<DateTime<Utc>>), StoreError> {
        let held = self.query_as(HOLD).bind(flow.as_str().to_owned()).fetch_optional(self.conn()).await?;
        let (state, next): (String, _) = held.ok_or(StoreError::Conflict("a flow of the file is gone"))?;
        Ok((FlowState::parse(&state).ok_or(StoreError::inconsistent("flows", "state"))?, next))
    }

    /// Stops a flow until it is resumed: it is neither started by its schedule nor by a trigger. A run that
    /// is going goes on. False when the flow is not active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pause_flow(
        &mut self,
        flow: &FlowId,
        by: &Actor,
        reason: Option<&str>,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let done = self
            .query(PAUSE)
            .bind(flow.as_str().to_owned())
            .bind(now)
            .bind(reason.map(str::to_owned))
            .bind(by.label().to_owned())
            .execute(self.conn())
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.audit(by, "flow.paused", Target::Flow(flow), reason).await?;
        Ok(true)
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
