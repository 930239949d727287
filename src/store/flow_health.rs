//! The health of a flow, computed from what is stored by the rules of `domain::health`, and written.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::{Store, StoreError, Tenancy, TenantTx};
use crate::domain::connector::ConnectorStatus;
use crate::domain::flow::StatusReason;
use crate::domain::health::{ConnectorFacts, Decided, FlowFacts, flow_health};
use crate::domain::ids::{ConnectorId, FlowId};
use crate::domain::run::{ReasonCode, RunStatus};
use crate::domain::schedule::{Schedule, ScheduleKind};

statements! {
    // The row is waited for before anything is read: what a statement reads is as old as its beginning.
    LOCK = plain "select flow_id from flows where customer_id = $1 and flow_id = $2 for no key update";
    FLOW = plain "
        select f.schedule_kind, f.schedule_cron, f.schedule_interval_s, f.schedule_timezone,
               greatest(f.created_at, f.state_changed_at, f.schedule_changed_at) as since, f.last_decided_at,
               f.degraded_error_rate,
               (select jsonb_agg(jsonb_build_object('name', c.name, 'status', c.status, 'since', c.status_since,
                        'reason', c.status_reasons -> 0 ->> 'message')) from connectors c
                 where c.customer_id = $1
                   and c.connector_id in (f.source_connector_id, f.destination_connector_id)) as connectors
          from flows f
         where f.customer_id = $1 and f.flow_id = $2 and f.state = 'active'";
    DECIDED = plain "
        select status, reason_code, reason_message, finished_at, records_written + records_unchanged as accepted, records_failed
          from runs
         where customer_id = $1 and flow_id = $2 and status in ('succeeded', 'partial', 'failed')
         order by window_at desc, run_id desc
         limit 20";
    NUMBERS = plain "
        select (select min(r.started_at) from runs r
                 where r.customer_id = $1 and r.flow_id = $2 and r.status in ('running', 'cancelling')) as active_since,
               exists (select 1 from runs r
                        where r.customer_id = $1 and r.flow_id = $2
                          and r.status in ('queued', 'running', 'retrying', 'cancelling')) as has_open_run,
               (select case when count(*) >= 5
                            then percentile_cont(0.5) within group (order by extract(epoch from d.took)) end
                  from (select r.finished_at - r.started_at as took from runs r
                         where r.customer_id = $1 and r.flow_id = $2 and r.status = 'succeeded' and r.started_at is not null
                         order by r.window_at desc, r.run_id desc limit 20) d) as median_s,
               coalesce(sum(d.records_written + d.records_unchanged), 0)::bigint as day_accepted,
               coalesce(sum(d.records_failed), 0)::bigint as day_failed
          from (select h.records_written, h.records_unchanged, h.records_failed from run_stats h
                 where h.customer_id = $1 and h.flow_id = $2 and h.grain = 'hour' and h.status = ''
                   and h.at > $3
                 union all
                select r.records_written, r.records_unchanged, r.records_failed from runs r
                 where r.customer_id = $1 and r.flow_id = $2 and r.window_at > $3
                   and r.window_at < date_trunc('hour', $3, 'UTC') + interval '1 hour') d";
    WRITE = plain "
        update flows
           set health = $3, health_reasons = $4, health_checked_at = $5,
               health_since = case when health = $3 then health_since else $5 end
         where customer_id = $1 and flow_id = $2";
    OF_CONNECTOR = plain "
        select flow_id from flows
         where customer_id = $1 and state = 'active'
           and (source_connector_id = $2 or destination_connector_id = $2)
         order by flow_id";
    UNWATCHED = plain "select * from claim_unwatched_flows($1, $2, $3)";
}

#[derive(FromRow)]
struct FlowRow {
    #[sqlx(flatten)]
    schedule: ScheduleColumns,
    since: DateTime<Utc>,
    last_decided_at: Option<DateTime<Utc>>,
    degraded_error_rate: f64,
    connectors: Json<Vec<ConnectorJson>>,
}

/// The columns of `flows` that say when it runs.
#[derive(FromRow)]
pub(super) struct ScheduleColumns {
    schedule_kind: String,
    schedule_cron: Option<String>,
    schedule_interval_s: Option<i32>,
    schedule_timezone: String,
}

impl ScheduleColumns {
    /// The schedule that they say.
    pub(super) fn schedule(self) -> Result<Schedule, StoreError> {
        let wrong = |column| StoreError::inconsistent("flows", column);
        match ScheduleKind::parse(&self.schedule_kind).ok_or(wrong("schedule_kind"))? {
            ScheduleKind::Manual => Ok(Schedule::Manual),
            ScheduleKind::Interval => {
                let seconds = self.schedule_interval_s.ok_or(wrong("schedule_interval_s"))?;
                Ok(Schedule::Interval { seconds })
            }
            ScheduleKind::Cron => Ok(Schedule::Cron {
                expression: self.schedule_cron.ok_or(wrong("schedule_cron"))?,
                zone: self.schedule_timezone.parse().map_err(|_| wrong("schedule_timezone"))?,
            }),
        }
    }
}

#[derive(Deserialize)]
struct ConnectorJson {
    name: String,
    status: ConnectorStatus,
    since: DateTime<Utc>,
    reason: Option<String>,
}

#[derive(FromRow)]
struct DecidedRow {
    status: String,
    reason_code: Option<String>,
    reason_message: Option<String>,
    finished_at: DateTime<Utc>,
    accepted: i64,
    records_failed: i64,
}

#[derive(FromRow)]
struct NumbersRow {
    active_since: Option<DateTime<Utc>>,
    has_open_run: bool,
    median_s: Option<f64>,
    day_accepted: i64,
    day_failed: i64,
}

impl TenantTx {
    /// Computes and writes the health of a flow; does nothing unless it is active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_flow_health(&mut self, flow: &FlowId) -> Result<(), StoreError> {
        let now = self.now();
        let id = flow.as_str();
        self.query(LOCK).bind(id.to_owned()).execute(self.conn()).await?;
        let row: Option<FlowRow> =
            self.query_as(FLOW).bind(id.to_owned()).fetch_optional(self.conn()).await?;
        let Some(row) = row else { return Ok(()) };
        let decided: Vec<DecidedRow> =
            self.query_as(DECIDED).bind(id.to_owned()).fetch_all(self.conn()).await?;
        let numbers: NumbersRow = self
            .query_as(NUMBERS)
            .bind(id.to_owned())
            .bind(now - TimeDelta::hours(24))
            .fetch_one(self.conn())
            .await?;
        let facts = FlowFacts {
            schedule: row.schedule.schedule()?,
            since: row.since,
            last_decided_at: row.last_decided_at,
            decided: decided.into_iter().map(decided_run).collect::<Result<_, _>>()?,
            active_since: numbers.active_since,
            has_open_run: numbers.has_open_run,
            median_ms: numbers.median_s.map(|seconds| (seconds * 1_000.0) as i64),
            day: (numbers.day_accepted, numbers.day_failed),
            connectors: row.connectors.0.into_iter().map(connector_facts).collect(),
            degraded_error_rate: row.degraded_error_rate,
        };
        let (health, reasons): (_, Vec<StatusReason>) = flow_health(&facts, now);
        self.query(WRITE)
            .bind(id.to_owned())
            .bind(health.as_str())
            .bind(Json(reasons))
            .bind(now)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Computes and writes the health of every flow that uses a connector.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_flows_of(&mut self, connector: &ConnectorId) -> Result<(), StoreError> {
        let flows: Vec<(String,)> =
            self.query_as(OF_CONNECTOR).bind(connector.as_str().to_owned()).fetch_all(self.conn()).await?;
        for (flow,) in flows {
            let flow = FlowId::parse(&flow).map_err(|_| StoreError::inconsistent("flows", "flow_id"))?;
            self.refresh_flow_health(&flow).await?;
        }
        Ok(())
    }
}

fn decided_run(row: DecidedRow) -> Result<Decided, StoreError> {
    Ok(Decided {
        status: RunStatus::parse(&row.status).ok_or(StoreError::inconsistent("runs", "status"))?,
        reason: row.reason_code.as_deref().and_then(ReasonCode::parse),
        message: row.reason_message,
        finished_at: row.finished_at,
        accepted: row.accepted,
        failed: row.records_failed,
    })
}

fn connector_facts(json: ConnectorJson) -> ConnectorFacts {
    ConnectorFacts { name: json.name, status: json.status, since: json.since, reason: json.reason }
}

impl Store {
    /// Looks at up to `most` flows whose health was not looked at for `every`: a run that does not come tells
    /// nobody. Returns how many. One that fails is logged and does not hold up the others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn watch_flows(&self, every: TimeDelta, most: i32) -> Result<usize, StoreError> {
        let now = self.now();
        let due: Vec<(String, String)> =
            sqlx::query_as(UNWATCHED).bind(now).bind(now - every).bind(most).fetch_all(self.pool()).await?;
        for (customer, flow) in &due {
            if let Err(error) = self.watch_flow(customer, flow).await {
                tracing::error!(%flow, %error, "the health of a flow could not be looked at");
            }
        }
        Ok(due.len())
    }

    async fn watch_flow(&self, customer: &str, flow: &str) -> Result<(), StoreError> {
        let flow = FlowId::parse(flow).map_err(|_| StoreError::inconsistent("flows", "flow_id"))?;
        let mut tx = self.begin(&Tenancy::of_row(customer)?).await?;
        tx.refresh_flow_health(&flow).await?;
        tx.commit().await
    }
}
