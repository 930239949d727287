//! Runs that run: worker, scheduler, connector checks, connectors.
//!
//! Each part has a function that does one thing once (`…tick`), for tests; [`Engine::run`] does all of them until it is
//! stopped. Any number of processes may run an engine on one database.

mod budget;
mod checker;
pub mod connectors;
mod convert;
mod digits;
mod executor;
pub mod expression;
mod fence;
mod functions;
mod insist;
pub mod mapping;
mod pages;
mod path;
mod phone;
mod resume;
mod validate;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::store::retention::Retention;
use crate::store::scheduling::Fired;
use crate::store::{Store, StoreError, Wakes};
use checker::Checker;
use connectors::Connectors;
use executor::Executor;
use worker::Worker;

/// Rows that one tick handles at most; the next one goes on. Many, so that some that can never be handled, which
/// come first every time, do not keep the rest waiting.
const AT_ONCE: i32 = 10_000;
/// How long a flow's health may go unlooked at.
const WATCH_EVERY: TimeDelta = TimeDelta::seconds(60);
/// Rows of a kind that retention deletes at once.
const PURGED_AT_ONCE: i32 = 1_000;

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Runs that this process has at the same time.
    pub workers: usize,
    /// How long a run stays with a worker that does not say that it lives.
    pub lease: TimeDelta,
    /// How often a worker says so; less than half of the lease.
    pub heartbeat: Duration,
    /// How often the queue and the schedules are looked at when nothing wakes.
    pub poll: Duration,
    /// How often the worker's row says that it lives.
    pub seen_every: TimeDelta,
    /// Most records of a page, which is what is written and saved at once.
    pub page_records: usize,
    /// How long a run may go without moving a record.
    pub no_progress: TimeDelta,
    /// How long things are kept that no plan speaks of.
    pub retention: Retention,
}

/// Everything that happens by itself.
#[derive(Clone, Debug)]
pub struct Engine {
    store: Store,
    wakes: Wakes,
    settings: EngineSettings,
    checker: Checker,
    worker: Worker,
}

impl Engine {
    /// An engine; `name` tells this process from others in the timeline of runs. Nothing happens yet.
    pub fn new(
        store: Store,
        wakes: Wakes,
        settings: EngineSettings,
        connectors: Connectors,
        name: &str,
    ) -> Self {
        let connectors = Arc::new(connectors);
        let executor = Executor {
            store: store.clone(),
            wakes: wakes.clone(),
            connectors: Arc::clone(&connectors),
            settings: settings.clone(),
        };
        let worker = Worker::new(executor, name.to_owned());
        let checker = Checker::new(store.clone(), connectors);
        Self { store, wakes, settings, checker, worker }
    }

    /// What claims and executes runs.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Everything, until `stop`; returns once runs under way were given back.
    pub async fn run(&self, stop: CancellationToken) {
        let schedule =
            self.every(self.settings.poll, &stop, "schedules", |engine| engine.schedule_tick().boxed());
        let often = self.settings.heartbeat.min(Duration::from_secs(5));
        let reap = self.every(often, &stop, "leases", |engine| engine.reap_tick().boxed());
        let watch =
            self.every(Duration::from_secs(10), &stop, "health", |engine| engine.watch_tick().boxed());
        let purge =
            self.every(Duration::from_secs(3_600), &stop, "retention", |engine| engine.purge_tick().boxed());
        let check = self.checker.run(self.settings.poll, &stop);
        tokio::join!(self.worker.run(stop.clone()), schedule, check, reap, watch, purge);
    }

    /// Queues the runs of schedules that fell due; returns how many schedules did. One that
    /// fails is logged and does not hold up the others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schedule_tick(&self) -> Result<usize, StoreError> {
        let due = self.store.due_flows(AT_ONCE).await?;
        for flow in &due {
            match self.store.fire(flow).await {
                Ok(Fired::Queued(_)) => {
                    counter!("apixx_schedules_fired_total").increment(1);
                    self.wakes.run_queued();
                }
                Ok(Fired::Skipped(_)) => self.wakes.run_changed(),
                Ok(Fired::Elsewhere) => {}
                Err(error) => tracing::error!(?flow, %error, "a schedule could not be followed"),
            }
        }
        Ok(due.len())
    }

    /// Checks the connectors that are due; returns how many were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn check_tick(&self) -> Result<usize, StoreError> {
        self.checker.tick().await
    }

    /// Takes runs from workers that went silent; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reap_tick(&self) -> Result<usize, StoreError> {
        let reaped = self.store.reap_runs(AT_ONCE).await?;
        if reaped > 0 {
            counter!("apixx_leases_reaped_total").increment(reaped as u64);
            self.wakes.run_queued();
        }
        Ok(reaped)
    }

    /// Looks at flows that nothing happened to lately: late ones, stalled ones; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn watch_tick(&self) -> Result<usize, StoreError> {
        self.store.watch_flows(WATCH_EVERY, AT_ONCE).await
    }

    /// Deletes what has outlived its time, batch by batch; returns how many batches it took.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_tick(&self) -> Result<usize, StoreError> {
        let mut batches = 1;
        while self.store.purge(&self.settings.retention, PURGED_AT_ONCE).await?.more() {
            batches += 1;
        }
        counter!("apixx_retention_batches_total").increment(batches as u64);
        Ok(batches)
    }

    /// Calls `tick` until `stop`, resting for `pause` after each time.
    async fn every(&self, pause: Duration, stop: &CancellationToken, what: &str, tick: Tick) {
        while !stop.is_cancelled() {
            tokio::select! {
                done = tick(self) => {
                    if let Err(error) = done {
                        tracing::warn!(%error, "{what} could not be looked after");
                    }
                }
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Something that is done again and again.
type Tick = for<'a> fn(&'a Engine) -> BoxFuture<'a, Result<usize, StoreError>>;
