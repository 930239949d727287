//! Leases: what a worker may do with the run that it claimed, until another one may.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::FromRow;
use sqlx::types::Json;

use super::{Store, StoreError, Tenancy};
use crate::domain::connector::ConnectorKind;
use crate::domain::definition::{FlowDefinition, Stream};
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::Records;
use crate::json::{self, Plain};

/// How long a claim may take: one that is given up may still be made, for nobody.
const PATIENCE: Duration = Duration::from_secs(25);

statements! {
    CLAIM = plain "select * from claim_runs($1, $2, $3, $4, $5)";
    LOAD = tenant "
        select v.definition, f.timeout_s, f.max_error_rate, r.started_at,
               r.checkpoint, r.records_read, r.records_written, r.records_failed, r.records_skipped, r.records_unchanged,
               jsonb_build_object('id', s.connector_id, 'name', s.name, 'kind', s.kind, 'config', s.config) as source,
               jsonb_build_object('id', d.connector_id, 'name', d.name, 'kind', d.kind, 'config', d.config) as destination,
               case when not s.enabled then s.name when not d.enabled then d.name end as switched_off,
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
}

/// The right to work on one run until its lease runs out. Every write made with it asks the database whether it
/// still holds.
#[derive(Debug)]
#[must_use = "a dropped lease keeps its run from other workers until it expires"]
pub struct Lease {
    tenancy: Tenancy,
    run: RunId,
    flow: FlowId,
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
    #[serde(deserialize_with = "json::value")]
    pub config: Value,
}

/// Where an interrupted run reads on from, which is in one place and of no use elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How many batches of this run were saved.
    pub batch: i64,
    /// The stream that comes next, from 0.
    pub stream: usize,
    /// The place in that stream, in its source's own form; `None` is its beginning.
    #[serde(default, deserialize_with = "json::optional")]
    pub position: Option<Value>,
    /// What its source and its destination led to; `None` where nothing was saved yet.
    #[serde(default)]
    pub places: Option<[String; 2]>,
    /// Cursors that its upserts reached, by [`ClaimedRun::cursor_key`]. The run that follows reads on from them, unless
    /// this one ends because it rejected too much: then that comes again.
    #[serde(default, deserialize_with = "json::members")]
    pub reached: Map<String, Value>,
}

impl ConnectorConfig {
    /// What it leads to, in words.
    fn place(&self) -> String {
        let name = ["root", "dsn"].iter().find_map(|key| self.config[key].as_str()).unwrap_or_default();
        format!("{} {name}", self.id)
    }
}

/// What a worker needs to know of the run that it claimed.
#[derive(Clone, Debug)]
pub struct ClaimedRun {
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
    /// The name of one of them that may not be used: a person switched it off.
    pub switched_off: Option<String>,
    /// Saved cursors by [`ClaimedRun::cursor_key`].
    pub cursors: Map<String, Value>,
    /// Where an earlier attempt got to.
    pub checkpoint: Checkpoint,
    /// What earlier attempts did.
    pub records: Records,
}

impl ClaimedRun {
    /// What its source and its destination lead to now.
    pub fn places(&self) -> [String; 2] {
        [self.source.place(), self.destination.place()]
    }

    /// What the saved cursor of a stream is kept under. It is one by this field, from this place to that: once one of them
    /// is another, everything is read, since what lies before the cursor was never copied.
    pub fn cursor_key(&self, stream: &Stream) -> String {
        format!(
            "{} of {} by {} → {} of {}",
            stream.source_object,
            self.source.place(),
            stream.cursor_field.as_deref().unwrap_or("-"),
            stream.destination_object,
            self.destination.place()
        )
    }
}

#[derive(FromRow)]
struct ClaimRow {
    customer_id: String,
    run_id: String,
    flow_id: String,
    attempt: i32,
    max_attempts: i32,
}

#[derive(FromRow)]
struct LoadRow {
    definition: Json<FlowDefinition>,
    timeout_s: i32,
    max_error_rate: f64,
    started_at: Option<DateTime<Utc>>,
    checkpoint: Option<Json<Checkpoint>>,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    records_unchanged: i64,
    source: Json<ConnectorConfig>,
    destination: Json<ConnectorConfig>,
    switched_off: Option<String>,
    cursors: Json<HashMap<String, Plain>>,
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
        let claim = sqlx::query_as(CLAIM).bind(worker).bind(now).bind(now + lease).bind(most);
        let claim = claim.bind(self.claim_turn.after());
        let lent = self.pool().lend().await?;
        let rows: Vec<ClaimRow> =
            lent.within(PATIENCE, async |connection| claim.fetch_all(connection).await).await?;
        self.claim_turn.went_to(rows.iter().map(|row| row.customer_id.as_str()));
        rows.into_iter()
            .map(|row| {
                Ok(Lease {
                    tenancy: Tenancy::of_row(&row.customer_id)?,
                    run: RunId::parse(&row.run_id).map_err(|_| StoreError::inconsistent("runs", "run_id"))?,
                    flow: FlowId::parse(&row.flow_id)
                        .map_err(|_| StoreError::inconsistent("runs", "flow_id"))?,
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
            definition: row.definition.0,
            timeout_s: row.timeout_s,
            max_error_rate: row.max_error_rate,
            started_at: row.started_at.ok_or(StoreError::inconsistent("runs", "started_at"))?,
            source: row.source.0,
            destination: row.destination.0,
            switched_off: row.switched_off,
            cursors: row.cursors.0.into_iter().map(|(key, Plain(cursor))| (key, cursor)).collect(),
            checkpoint: row.checkpoint.map(|json| json.0).unwrap_or_default(),
            records: Records::new(
                row.records_read,
                row.records_written,
                row.records_failed,
                row.records_skipped,
            )
            .with_unchanged(row.records_unchanged),
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
}
