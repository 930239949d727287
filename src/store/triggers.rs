//! What is looked at, and written, when a run is asked for.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;

use super::{StoreError, TenantTx};
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::flow::FlowState;
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::RunStatus;

statements! {
    FLOW = plain "
        select f.flow_id, f.name, f.state, f.state_by, f.state_reason, f.state_changed_at,
               f.source_connector_id, f.destination_connector_id
          from flows f
         where f.customer_id = $1 and f.flow_id = $2
           for update";
    KEY = plain "
        select request_hash, run_id from idempotency_keys
         where customer_id = $1 and key = $2 and expires_at > $3";
    REMEMBER = plain "
        insert into idempotency_keys (customer_id, key, request_hash, run_id, expires_at) values ($1, $2, $3, $4, $5)
            on conflict (customer_id, key) do update
           set request_hash = excluded.request_hash, run_id = excluded.run_id, expires_at = excluded.expires_at";
    OPEN = plain "
        select run_id, status, started_at, records_written, records_failed, records_skipped, records_estimated
          from runs
         where customer_id = $1 and flow_id = $2 and status in ('queued', 'running', 'retrying', 'cancelling')
         order by (status = 'queued'), queued_at, run_id";
    LOAD = plain "
        select (select count(*) from (select 1 from runs r
                 where r.customer_id = $1 and r.status in ('queued', 'retrying') limit 10001) q) as waiting,
               (select count(*) from audit_log a
                 where a.customer_id = $1 and a.action = 'run.triggered' and a.at > $2) as last_minute,
               (select coalesce(sum(s.runs - s.skipped), 0)::bigint from run_stats s
                 where s.customer_id = $1 and s.flow_id = '' and s.grain = 'hour' and s.status = '' and s.at >= $3)
               + (select count(*) from runs r
                 where r.customer_id = $1 and r.status in ('queued', 'running', 'retrying', 'cancelling')) as today";
    CONNECTORS = plain "
        select connector_id, name, status, auth_status, auth_error, last_check_at, last_check_error,
               next_check_at <= $4 or check_lease_until is not null as is_being_checked
          from connectors
         where customer_id = $1 and connector_id in ($2, $3)";
    CHECK_NOW = plain "
        update connectors set next_check_at = $3
         where customer_id = $1 and connector_id in (
               select c.connector_id from connectors c
                where c.customer_id = $1 and c.connector_id = $2 and c.enabled and c.next_check_at > $3
                  for update skip locked)";
    TURN = plain "select pg_advisory_xact_lock(hashtextextended($1, 1))";
    WORKERS = plain "select count(*) from workers where seen_at > $1";
    RETRIED = plain "select flow_id from runs where customer_id = $1 and run_id = $2";
}

/// A flow that a run is asked for, locked until the transaction ends.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its id.
    pub flow: FlowId,
    /// Its name.
    pub name: String,
    /// Whether it may run.
    pub state: FlowState,
    /// Who decided that.
    pub state_by: Option<String>,
    /// Why.
    pub state_reason: Option<String>,
    /// When.
    pub state_changed_at: DateTime<Utc>,
    /// Where its records come from.
    pub source: ConnectorId,
    /// Where they go.
    pub destination: ConnectorId,
}

#[derive(FromRow)]
struct WantedRow {
    flow_id: String,
    name: String,
    state: String,
    state_by: Option<String>,
    state_reason: Option<String>,
    state_changed_at: DateTime<Utc>,
    source_connector_id: String,
    destination_connector_id: String,
}

/// A run of the flow that has not ended.
#[derive(Clone, Debug)]
pub struct OpenRun {
    /// Its id.
    pub run: RunId,
    /// Where it is.
    pub status: RunStatus,
    /// When it started.
    pub started_at: Option<DateTime<Utc>>,
    /// Records dealt with so far.
    pub processed: i64,
    /// Records the source holds, where it can tell.
    pub estimated: Option<i64>,
}

#[derive(FromRow)]
struct OpenRow {
    run_id: String,
    status: String,
    started_at: Option<DateTime<Utc>>,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    records_estimated: Option<i64>,
}

/// How much of its plan a customer uses.
#[derive(Clone, Debug, FromRow)]
pub struct Load {
    /// Runs waiting.
    pub waiting: i64,
    /// Runs triggered in the last minute.
    pub last_minute: i64,
    /// Runs of this day (UTC), open ones included.
    pub today: i64,
}

/// Whether a connector can serve a run.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Which.
    pub connector: ConnectorId,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: ConnectorStatus,
    /// Its authorization.
    pub auth_status: AuthStatus,
    /// What the other side said of it.
    pub auth_error: Option<String>,
    /// When it was last checked.
    pub last_check_at: Option<DateTime<Utc>>,
    /// What that check said when it failed.
    pub last_check_error: Option<String>,
    /// Whether another is due, or under way.
    pub is_being_checked: bool,
}

impl Readiness {
    /// Whether a run through it cannot succeed.
    pub fn is_broken(&self) -> bool {
        self.auth_status.is_broken()
            || matches!(self.status, ConnectorStatus::Down | ConnectorStatus::Disabled)
    }
}

#[derive(FromRow)]
struct ReadinessRow {
    connector_id: String,
    name: String,
    status: String,
    auth_status: String,
    auth_error: Option<String>,
    last_check_at: Option<DateTime<Utc>>,
    last_check_error: Option<String>,
    is_being_checked: bool,
}

impl TenantTx {
    /// Waits until no other request for a run of this customer is being decided.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_turn(&mut self) -> Result<(), StoreError> {
        self.query(TURN).execute(self.conn()).await?;
        Ok(())
    }

    /// The flow, locked until this transaction ends; `None` when the customer has none with that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wanted_flow(&mut self, flow: &FlowId) -> Result<Option<Wanted>, StoreError> {
        let row: Option<WantedRow> =
            self.query_as(FLOW).bind(flow.as_str().to_owned()).fetch_optional(self.conn()).await?;
        let wrong = |column| StoreError::inconsistent("flows", column);
        row.map(|row| {
            Ok(Wanted {
                flow: FlowId::parse(&row.flow_id).map_err(|_| wrong("flow_id"))?,
                name: row.name,
                state: FlowState::parse(&row.state).ok_or(wrong("state"))?,
                state_by: row.state_by,
                state_reason: row.state_reason,
                state_changed_at: row.state_changed_at,
                source: ConnectorId::parse(&row.source_connector_id)
                    .map_err(|_| wrong("source_connector_id"))?,
                destination: ConnectorId::parse(&row.destination_connector_id)
                    .map_err(|_| wrong("destination_connector_id"))?,
            })
        })
        .transpose()
    }

    /// The run that this key already made, with the hash of the request that made it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remembered_request(&mut self, key: &str) -> Result<Option<(Vec<u8>, RunId)>, StoreError> {
        let now = self.now();
        let row: Option<(Vec<u8>, String)> =
            self.query_as(KEY).bind(key.to_owned()).bind(now).fetch_optional(self.conn()).await?;
        row.map(|(hash, run)| {
            let run =
                RunId::parse(&run).map_err(|_| StoreError::inconsistent("idempotency_keys", "run_id"))?;
            Ok((hash, run))
        })
        .transpose()
    }

    /// Remembers for `keep` that this key made this run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remember_request(
        &mut self,
        key: &str,
        hash: &[u8],
        run: &RunId,
        keep: TimeDelta,
    ) -> Result<(), StoreError> {
        let until = self.now() + keep;
        self.query(REMEMBER)
            .bind(key.to_owned())
            .bind(hash.to_vec())
            .bind(run.as_str().to_owned())
            .bind(until)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// The runs of the flow that have not ended; one that is going comes before one that waits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_runs(&mut self, flow: &FlowId) -> Result<Vec<OpenRun>, StoreError> {
        let rows: Vec<OpenRow> =
            self.query_as(OPEN).bind(flow.as_str().to_owned()).fetch_all(self.conn()).await?;
        rows.into_iter()
            .map(|row| {
                Ok(OpenRun {
                    run: RunId::parse(&row.run_id).map_err(|_| StoreError::inconsistent("runs", "run_id"))?,
                    status: RunStatus::parse(&row.status)
                        .ok_or(StoreError::inconsistent("runs", "status"))?,
                    started_at: row.started_at,
                    processed: row.records_written + row.records_failed + row.records_skipped,
                    estimated: row.records_estimated,
                })
            })
            .collect()
    }

    /// How much of its plan the customer uses now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn load(&mut self) -> Result<Load, StoreError> {
        let now = self.now();
        let midnight = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        Ok(self
            .query_as(LOAD)
            .bind(now - TimeDelta::minutes(1))
            .bind(midnight)
            .fetch_one(self.conn())
            .await?)
    }

    /// Whether the two connectors of a flow can serve a run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn readiness(
        &mut self,
        source: &ConnectorId,
        destination: &ConnectorId,
    ) -> Result<Vec<Readiness>, StoreError> {
        let now = self.now();
        let rows: Vec<ReadinessRow> = self
            .query_as(CONNECTORS)
            .bind(source.as_str().to_owned())
            .bind(destination.as_str().to_owned())
            .bind(now)
            .fetch_all(self.conn())
            .await?;
        let wrong = |column| StoreError::inconsistent("connectors", column);
        rows.into_iter()
            .map(|row| {
                Ok(Readiness {
                    connector: ConnectorId::parse(&row.connector_id).map_err(|_| wrong("connector_id"))?,
                    name: row.name,
                    status: ConnectorStatus::parse(&row.status).ok_or(wrong("status"))?,
                    auth_status: AuthStatus::parse(&row.auth_status).ok_or(wrong("auth_status"))?,
                    auth_error: row.auth_error,
                    last_check_at: row.last_check_at,
                    last_check_error: row.last_check_error,
                    is_being_checked: row.is_being_checked,
                })
            })
            .collect()
    }

    /// Asks for a check of a connector at once. False when no worker is there to do it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_for_check(&mut self, connector: &ConnectorId) -> Result<bool, StoreError> {
        let now = self.now();
        let workers: i64 =
            sqlx::query_scalar(WORKERS).bind(now - TimeDelta::seconds(30)).fetch_one(self.conn()).await?;
        if workers == 0 {
            return Ok(false);
        }
        self.query(CHECK_NOW).bind(connector.as_str().to_owned()).bind(now).execute(self.conn()).await?;
        Ok(true)
    }

    /// The flow that a run belongs to; `None` when the customer has no run with that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn flow_of_run(&mut self, run: &RunId) -> Result<Option<FlowId>, StoreError> {
        let row: Option<(String,)> =
            self.query_as(RETRIED).bind(run.as_str().to_owned()).fetch_optional(self.conn()).await?;
        row.map(|(flow,)| FlowId::parse(&flow).map_err(|_| StoreError::inconsistent("runs", "flow_id")))
            .transpose()
    }
}
