//! One process of an installation: it serves, works, or both, until it is told to end.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::engine::engine;
use super::lifecycle::Lifecycle;
use super::listen;
use super::operator;
use super::room::{OPERATORS, room};
use super::router::router;
use super::state::AppState;
use crate::config::{Config, ServerConfig};
use crate::domain::clock::Clock;
use crate::domain::ids::IdSource;
use crate::domain::page::CursorKey;
use crate::engine::Engine;
use crate::middleware::Teller;
use crate::observe::Refusals;
use crate::service::Serving;
use crate::service::access::Access;
use crate::service::watch::Waits;
use crate::store::{Store, StoreError, Wakes};
use crate::tools::ToolServer;
use crate::web::Web;

/// How much longer than the calls under way their statements may take to end.
const STATEMENTS: Duration = Duration::from_millis(500);

/// Between two writes of what callers used.
const FLUSH: Duration = Duration::from_secs(1);

/// Between two looks at the database's clock.
const CLOCK: Duration = Duration::from_secs(10);

/// Between two times that measures are summed up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Where the operator is answered, and with which measures.
pub struct Operator {
    /// The address.
    pub listener: TcpListener,
    /// What this process counts.
    pub measures: PrometheusHandle,
}

/// Why a process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Row-level security would not hold.
    #[error(
        "database.url connects as a role that row-level security does not hold for (a superuser, one that \
         bypasses it, or the owner of the tables): connect as the role that `apixx-mcp migrate` makes"
    )]
    MayBypass,
    /// A database that flows may use, and that is none.
    #[error(
        "engine.postgres_dsns.{name}.url is no URL of a PostgreSQL database: write \
         postgres://user:password@host/database"
    )]
    Dsn {
        /// What the operator calls it.
        name: String,
    },
    /// The database failed.
    #[error("cannot use the database: {0}")]
    Store(#[from] StoreError),
}

/// Whose time a process lives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOf {
    /// The database's, as all processes of an installation do.
    Database,
    /// Its own, as somebody set it.
    Own,
}

/// One process of an installation.
pub struct Process {
    /// What all calls share.
    pub serving: Serving,
    access: Access,
    config: Config,
    /// How to connect, for the connections that are not from the pool.
    options: PgConnectOptions,
    time: TimeOf,
}

impl Process {
    /// Connects as the role that serves, and makes sure that this is what it is.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        options: &PgConnectOptions,
        config: Config,
        clock: Clock,
        time: TimeOf,
        stopping: CancellationToken,
    ) -> Result<Self, StartError> {
        let database = &config.database;
        let ids = IdSource::random(clock.clone());
        let size = database.pool_size.get();
        let store = Store::connect(options, size, database.acquire_timeout, clock, ids).await?;
        if store.role().await?.may_bypass() {
            return Err(StartError::MayBypass);
        }
        let cursors = match &config.auth.sealing_key {
            Some(key) => CursorKey::new(&Sha256::digest(key.expose_secret().as_bytes()).into()),
            None => store.cursor_key().await?,
        };
        if time == TimeOf::Database {
            store.follow_clock().await?;
        }
        let access = Access::new(store.clone(), config.auth.failed_attempts_per_minute);
        let refusals = Refusals::new(store.clock().clone());
        let (wakes, waits) = (Wakes::default(), Waits::new(gauge!("apixx_waits")));
        let public_base = config.server.public_base();
        let version = config.app_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        let serving = Serving { store, cursors, wakes, waits, refusals, stopping, public_base, version };
        Ok(Self { serving, access, config, options: options.clone(), time })
    }

    /// What it serves over HTTP.
    pub fn router(&self) -> Router {
        let Serving { store, refusals, .. } = &self.serving;
        let state = AppState { access: self.access.clone(), teller: Arc::new(Teller::new(refusals.clone())) };
        let calls = self.config.server.max_concurrent_calls.get();
        let server = Arc::new(ToolServer::new(self.serving.clone(), self.access.clone(), calls));
        let web = Web::new(&self.serving, self.access.clone(), Arc::clone(&server), &self.config.server);
        router(state, server, web, &self.config.server, store.ids().clone())
    }

    /// Recognises its callers, and knows what they used since it was last written down.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What it tells its operator over HTTP; `measures` has what this process counts.
    pub fn operator_router(&self, measures: PrometheusHandle) -> Router {
        operator::router(self.serving.store.clone(), measures)
    }

    /// What works on runs, as the operator configured it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn engine(&self) -> Result<Engine, StartError> {
        engine(&self.serving, &self.config).await
    }

    /// Serves at `listener`, works with `engine`, and answers the operator, each if given, until the lifecycle's
    /// end. What callers used is written down last of all.
    pub async fn run(
        self,
        listener: Option<TcpListener>,
        operator: Option<Operator>,
        engine: Option<Engine>,
        lifecycle: &Lifecycle,
    ) {
        let Serving { store, wakes, .. } = &self.serving;
        let served_all = CancellationToken::new();
        let serve = async {
            match listener {
                Some(listener) => {
                    let config = self.with_room_for(room(self.config.server.max_connections));
                    listen::serve(listener, self.router(), &config, lifecycle).await;
                }
                None => lifecycle.stopping().cancelled().await,
            }
            served_all.cancel();
        };
        let tell = async {
            let Some(Operator { listener, measures }) = operator else { return };
            let router = self.operator_router(measures.clone());
            let config = self.with_room_for(OPERATORS);
            tokio::select! {
                () = listen::serve(listener, router, &config, lifecycle) => {}
                () = keep_up(&measures) => {}
            }
        };
        let work = async {
            let Some(engine) = engine else { return };
            tokio::select! {
                () = engine.run(lifecycle.stopping().clone()) => {}
                () = lifecycle.aborting().cancelled() => warn!("runs under way go on once their leases ran out"),
            }
        };
        let last_moment = async {
            lifecycle.aborting().cancelled().await;
            sleep(lifecycle.left_of(self.config.server.shutdown + STATEMENTS)).await;
        };
        let until_stopped = lifecycle.stopping().clone();
        let beside = async {
            tokio::join!(
                wakes.relay(self.options.clone(), until_stopped.clone()),
                self.settle(&served_all),
                self.follow_clock(&until_stopped),
            )
        };
        let beside = async {
            tokio::select! {
                _ended = beside => {}
                () = last_moment => warn!("what callers used last is not written down: the database does not answer"),
            }
        };
        tokio::join!(serve, tell, work, beside);
        if timeout(lifecycle.left_of(self.config.server.shutdown + STATEMENTS), store.close()).await.is_err()
        {
            warn!("gave up on statements that do not end");
        }
    }

    /// How it serves, with room for so many connections.
    fn with_room_for(&self, max_connections: NonZeroUsize) -> ServerConfig {
        ServerConfig { max_connections, ..self.config.server.clone() }
    }

    async fn settle(&self, end: &CancellationToken) {
        let mut ticks = interval(FLUSH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = false;
        // (the last time begins after the end: what was used during the one before is written down too)
        while !ends {
            ends = tokio::select! {
                biased;
                () = end.cancelled() => true,
                _ = ticks.tick() => false,
            };
            if let Err(error) = self.access.settle(ends).await {
                warn!("what callers used is not written down yet: {error}");
            }
            self.serving.refusals.catch_up();
        }
    }

    async fn follow_clock(&self, end: &CancellationToken) {
        if self.time == TimeOf::Own {
            return;
        }
        let mut ticks = interval(CLOCK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = end.cancelled() => return,
            }
            let followed = tokio::select! {
                () = end.cancelled() => return,
                followed = self.serving.store.follow_clock() => followed,
            };
            if let Err(error) = followed {
                warn!("cannot compare clocks with the database: {error}");
            }
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

/// Sums up, now and then, what nobody fetches.
async fn keep_up(measures: &PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        measures.run_upkeep();
    }
}
