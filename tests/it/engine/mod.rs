//! Runs that run, against a real database.

mod checks;
mod files;
mod postgres;
mod queue;
mod runs;
mod schedules;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::connector::{AuthType, ConnectorKind, ConnectorType};
use apixx_mcp::domain::flow::FlowState;
use apixx_mcp::domain::ids::{ConnectorId, FlowId, IdSource, RunId};
use apixx_mcp::domain::run::Trigger;
use apixx_mcp::domain::schedule::Schedule;
use apixx_mcp::engine::connectors::{Connectors, Pacer};
use apixx_mcp::engine::{Engine, EngineSettings};
use apixx_mcp::store::customers::Actor;
use apixx_mcp::store::customers::NewCustomer;
use apixx_mcp::store::definitions::{ConnectorRecord, FlowRecord, PutFlow, Version};
use apixx_mcp::store::leases::Lease;
use apixx_mcp::store::queue::NewRun;
use apixx_mcp::store::retention::Retention;
use apixx_mcp::store::{Store, Tenancy, Wakes};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio_util::sync::CancellationToken;

use crate::support::add_customer;
use crate::support::database::TestDatabase;

pub const LEASE: TimeDelta = TimeDelta::seconds(60);

/// A workspace with an engine, on a clock that stands still.
pub struct Lab {
    pub database: TestDatabase,
    pub store: Store,
    pub clock: Clock,
    pub wakes: Wakes,
    pub tenancy: Tenancy,
    pub engine: Engine,
    pub files: tempfile::TempDir,
    pub dsns: BTreeMap<String, PgConnectOptions>,
}

/// What a test says about a flow beyond its streams.
pub struct Policy {
    pub schedule: Schedule,
    pub max_attempts: i32,
    pub timeout_s: i32,
    pub max_error_rate: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { schedule: Schedule::Manual, max_attempts: 3, timeout_s: 3_600, max_error_rate: 0.1 }
    }
}

pub fn start() -> DateTime<Utc> {
    "2026-11-21T08:07:00Z".parse().unwrap()
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_with(BTreeMap::new()).await
    }

    pub async fn start_with(dsns: BTreeMap<String, PgConnectOptions>) -> Self {
        let database = TestDatabase::create().await;
        let clock = Clock::fixed(start());
        let ids = IdSource::seeded(clock.clone(), 1);
        let store =
            Store::connect(&database.server, 4, Duration::from_secs(10), clock.clone(), ids).await.unwrap();
        let tenancy = customer(&store, "lab", "business").await;
        let files = tempfile::tempdir().unwrap();
        let wakes = Wakes::default();
        let engine = engine(&store, &wakes, files.path(), &dsns, "worker-1").await;
        Self { database, store, clock, wakes, tenancy, engine, files, dsns }
    }

    /// An engine whose scripted systems take their time, and whose heart beats fast.
    pub async fn slow_engine(&self) -> Engine {
        let settings = EngineSettings {
            heartbeat: Duration::from_millis(2),
            no_progress: TimeDelta::seconds(30),
            ..settings()
        };
        let connectors = connectors(&self.store, self.files.path(), &self.dsns, Pacer::Real).await;
        Engine::new(self.store.clone(), self.wakes.clone(), settings, connectors, "slow")
    }

    /// A second engine on the same database.
    pub async fn other_engine(&self, name: &str) -> Engine {
        engine(&self.store, &self.wakes, self.files.path(), &self.dsns, name).await
    }

    pub async fn connector(&self, kind: ConnectorKind, config: Value) -> (ConnectorId, ConnectorRecord) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let record = ConnectorRecord {
            name: format!("{kind} {}", NEXT.fetch_add(1, Ordering::Relaxed)),
            connector_type: ConnectorType::Custom,
            service: kind.to_string(),
            kind,
            description: None,
            config,
            auth_type: AuthType::ApiKey,
            enabled: true,
            check_interval_s: 300,
        };
        let id = ConnectorId::new(self.store.ids());
        let mut tx = self.store.begin(&self.tenancy).await.unwrap();
        tx.put_connector(&id, &record).await.unwrap();
        tx.commit().await.unwrap();
        (id, record)
    }

    pub async fn flow(
        &self,
        source: &(ConnectorId, ConnectorRecord),
        destination: &(ConnectorId, ConnectorRecord),
        streams: Value,
        policy: Policy,
    ) -> FlowId {
        flow_of(&self.store, &self.tenancy, source, destination, streams, policy).await
    }

    /// A flow between two scripted systems.
    pub async fn sim_flow(&self, source: Value, destination: Value, policy: Policy) -> FlowId {
        let source = self.connector(ConnectorKind::Sim, json!({ "sim": source })).await;
        let destination = self.connector(ConnectorKind::Sim, json!({ "sim": destination })).await;
        self.flow(&source, &destination, streams("invoice", "invoices", json!({})), policy).await
    }

    pub async fn queue(&self, flow: &FlowId) -> RunId {
        queue(&self.store, &self.tenancy, flow).await.expect("no run waits yet")
    }

    pub async fn work(&self) -> usize {
        self.engine.worker().tick(&CancellationToken::new()).await.unwrap()
    }

    pub async fn claim(&self) -> Lease {
        self.claim_all(1).await.pop().expect("a run is claimed")
    }

    pub async fn claim_all(&self, most: i32) -> Vec<Lease> {
        self.store.claim_runs("test", most, LEASE).await.unwrap()
    }

    pub async fn cancel(&self, run: &RunId) -> Option<String> {
        let mut tx = self.store.begin(&self.tenancy).await.unwrap();
        let status = tx.request_cancel(run, &Actor::Operator("Ana".to_owned())).await.unwrap();
        tx.commit().await.unwrap();
        status.map(|status| status.to_string())
    }

    /// The one value of a query, as the owner of the tables sees it.
    pub async fn ask<T>(&self, text: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut owner = self.owner().await;
        sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(&mut owner).await.unwrap()
    }

    pub async fn owner(&self) -> PgConnection {
        self.database.owner.connect().await.unwrap()
    }

    /// Status, reason and counts of a run: `failed TIMEOUT 5 read, …`.
    pub async fn outcome(&self, run: &RunId) -> String {
        self.ask(&format!(
            "select concat_ws(' ', status, reason_code) || ': ' || concat_ws(' ', records_read, records_written,
                    records_failed, records_skipped)
               from runs where run_id = '{run}'"
        ))
        .await
    }

    /// The kinds of the lines of a run's timeline.
    pub async fn timeline(&self, run: &RunId) -> Vec<String> {
        self.ask(&format!("select array_agg(kind order by seq) from run_events where run_id = '{run}'")).await
    }

    /// How its attempts ended, and `running` for one that is going.
    pub async fn attempts(&self, run: &RunId) -> Vec<String> {
        self.ask(&format!(
            "select array_agg(status order by attempt)
               from (select attempt, status from run_attempts where run_id = '{run}'
                     union all
                     select attempt, 'running' from runs
                      where run_id = '{run}' and attempt_at is not null and finished_at is null) a"
        ))
        .await
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.files.path().join(name), content).unwrap();
    }
}

pub async fn customer(store: &Store, slug: &str, plan: &str) -> Tenancy {
    let new = NewCustomer {
        id: None,
        slug: slug.to_owned(),
        name: slug.to_owned(),
        timezone: chrono_tz::Europe::Berlin,
        plan: plan.to_owned(),
        owner_email: format!("{slug}@example.com"),
        owner_name: "Ana".to_owned(),
    };
    add_customer(store, &new).await.unwrap()
}

pub async fn engine(
    store: &Store,
    wakes: &Wakes,
    files: &Path,
    dsns: &BTreeMap<String, PgConnectOptions>,
    name: &str,
) -> Engine {
    let connectors = connectors(store, files, dsns, Pacer::Instant).await;
    Engine::new(store.clone(), wakes.clone(), settings(), connectors, name)
}

async fn connectors(
    store: &Store,
    files: &Path,
    dsns: &BTreeMap<String, PgConnectOptions>,
    pacer: Pacer,
) -> Connectors {
    Connectors {
        files_roots: BTreeMap::from([("mine".to_owned(), files.to_owned())]),
        postgres_dsns: dsns.clone(),
        own: store.identity().await.unwrap(),
        pacer,
        clock: store.clock().clone(),
    }
}

fn settings() -> EngineSettings {
    EngineSettings {
        workers: 4,
        lease: LEASE,
        heartbeat: Duration::from_secs(15),
        poll: Duration::from_millis(20),
        seen_every: TimeDelta::seconds(5),
        page_records: 100,
        no_progress: TimeDelta::minutes(30),
        retention: Retention { audit_days: 400, usage_days: 400, stats_days: 400 },
    }
}

pub async fn flow_of(
    store: &Store,
    tenancy: &Tenancy,
    source: &(ConnectorId, ConnectorRecord),
    destination: &(ConnectorId, ConnectorRecord),
    streams: Value,
    policy: Policy,
) -> FlowId {
    let id = FlowId::new(store.ids());
    let record = FlowRecord {
        name: format!("flow {id}"),
        aliases: vec![],
        description: None,
        state: FlowState::Active,
        owner_email: None,
        tags: vec![],
        source: source.1.name.clone(),
        destination: destination.1.name.clone(),
        schedule: policy.schedule,
        max_attempts: policy.max_attempts,
        timeout_s: policy.timeout_s,
        max_error_rate: policy.max_error_rate,
        degraded_error_rate: 0.01,
        definition: serde_json::from_value(json!({ "streams": streams })).unwrap(),
    };
    let mut tx = store.begin(tenancy).await.unwrap();
    let by = tx.owner().await.unwrap();
    let put = PutFlow {
        id: &id,
        record: &record,
        source: &source.0,
        destination: &destination.0,
        owner: None,
        next_run_at: record.schedule.next_after(store.now()),
        version: Version::New("made"),
        by: &by,
    };
    tx.put_flow(&put).await.unwrap();
    tx.commit().await.unwrap();
    id
}

pub async fn queue(store: &Store, tenancy: &Tenancy, flow: &FlowId) -> Option<RunId> {
    let mut tx = store.begin(tenancy).await.unwrap();
    let run = tx.add_run(&NewRun::new(flow.clone(), Trigger::Manual)).await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// One stream, keyed by `id`, with `more` keys.
pub fn streams(source: &str, destination: &str, more: Value) -> Value {
    let mut stream = json!({
        "source_object": source, "destination_object": destination, "sync_mode": "full_refresh",
        "write_mode": "upsert", "key": ["id"]
    });
    stream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([stream])
}
