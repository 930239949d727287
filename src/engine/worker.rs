//! Claims runs and executes them, several at once.

use std::panic::AssertUnwindSafe;

use chrono::TimeDelta;
use futures_util::FutureExt;
use metrics::counter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Outcome};
use super::insist::insist;
use crate::domain::failure::Failure;
use crate::domain::run::RunStatus;
use crate::store::leases::Lease;
use crate::store::{Ending, StoreError};

/// Seconds before the second attempt; each one after waits twice as long.
const BACK_OFF_S: i64 = 30;
/// Longest wait between two attempts, in seconds.
const MAX_BACK_OFF_S: i64 = 3_600;

/// Claims runs and executes them.
#[derive(Clone, Debug)]
pub struct Worker {
    executor: Executor,
    name: String,
}

impl Worker {
    pub(super) fn new(executor: Executor, name: String) -> Self {
        Self { executor, name }
    }

    /// Claims as many runs as this process may have at once and executes them to their end (or until `stop`).
    /// Returns how many it claimed.
    ///
    /// # Errors
    /// When nothing could be claimed because the database fails.
    pub async fn tick(&self, stop: &CancellationToken) -> Result<usize, StoreError> {
        let leases = self.claim(self.executor.settings.workers).await?;
        let count = leases.len();
        let mut runs = Vec::with_capacity(count);
        for lease in leases {
            runs.push(self.execute(lease, stop));
        }
        futures_util::future::join_all(runs).await;
        Ok(count)
    }

    /// Works until `stop`, then gives back what it has.
    pub async fn run(&self, stop: CancellationToken) {
        let store = &self.executor.store;
        let settings = &self.executor.settings;
        let started_at = store.now();
        let mut running = JoinSet::new();
        let mut seen_at = None;
        while !stop.is_cancelled() {
            let now = store.now();
            if seen_at.is_none_or(|at| now - at >= settings.seen_every) {
                seen_at = Some(now);
                let runs = i32::try_from(running.len()).unwrap_or(i32::MAX);
                if let Err(error) = store.worker_seen(&self.name, started_at, runs).await {
                    tracing::warn!(%error, "the worker could not say that it lives");
                }
            }
            let free = settings.workers.saturating_sub(running.len());
            let claimed = if free == 0 { Ok(Vec::new()) } else { self.claim(free).await };
            match claimed {
                Ok(leases) => {
                    for lease in leases {
                        let (worker, stop) = (self.clone(), stop.clone());
                        running.spawn(async move { worker.execute(lease, &stop).await });
                    }
                }
                Err(error) => tracing::warn!(%error, "no run could be claimed"),
            }
            let full = running.len() >= settings.workers;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.executor.wakes.queued(), if !full => {}
                Some(_) = running.join_next(), if !running.is_empty() => {}
                () = tokio::time::sleep(settings.poll) => {}
            }
        }
        while running.join_next().await.is_some() {}
        if let Err(error) = store.worker_gone(&self.name).await {
            tracing::debug!(%error, "the worker could not say that it went");
        }
    }

    async fn claim(&self, most: usize) -> Result<Vec<Lease>, StoreError> {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let leases = self.executor.store.claim_runs(&self.name, most, self.executor.settings.lease).await?;
        if !leases.is_empty() {
            counter!("apixx_runs_claimed_total").increment(leases.len() as u64);
            self.executor.wakes.run_changed();
        }
        Ok(leases)
    }

    /// Executes a claimed run and gives it back, however long the database takes to hear of it.
    async fn execute(&self, lease: Lease, stop: &CancellationToken) {
        let run = lease.run().clone();
        let outcome = AssertUnwindSafe(self.executor.execute(&lease, stop)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| {
            tracing::error!(%run, "the execution of a run panicked");
            Outcome::Fail(Failure::internal())
        });
        let (store, lease) = (&self.executor.store, &lease);
        let done = match outcome {
            Outcome::End(ending) => self.finish(lease, &ending).await,
            Outcome::Fail(failure) if failure.class.retryable() && lease.attempt() < lease.max_attempts() => {
                let at = store.now() + back_off(lease.attempt(), store.ids().fraction());
                counter!("apixx_runs_retried_total").increment(1);
                insist(store, lease, || store.retry_run(lease, at, &failure)).await
            }
            Outcome::Fail(failure) => {
                let reason = failure.reason();
                self.finish(lease, &Ending::Failed { reason, failure }).await
            }
            Outcome::Release => insist(store, lease, || store.release_run(lease)).await,
            Outcome::Leave => Ok(()),
        };
        match done {
            Ok(()) => {}
            Err(StoreError::LeaseLost) => {
                counter!("apixx_leases_lost_total").increment(1);
                tracing::warn!(%run, "the run is no longer this worker's");
            }
            Err(error) => {
                tracing::error!(%run, %error, "a run could not be given back; it goes on once its lease ran out")
            }
        }
        self.executor.wakes.run_changed();
    }

    async fn finish(&self, lease: &Lease, ending: &Ending) -> Result<(), StoreError> {
        let store = &self.executor.store;
        insist(store, lease, || store.finish_run(lease, ending)).await.map(ended)
    }
}

/// Counts a run that ended.
fn ended(status: RunStatus) {
    counter!("apixx_runs_ended_total", "status" => status.as_str()).increment(1);
}

/// The time between attempt `attempt` and the next: 30 s, twice that, …, ± 20 %; `jitter` is 0 to 1.
fn back_off(attempt: i32, jitter: f64) -> TimeDelta {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(10);
    let seconds = (BACK_OFF_S << doublings).min(MAX_BACK_OFF_S);
    TimeDelta::milliseconds((seconds as f64 * 1_000.0 * (0.8 + 0.4 * jitter)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_waits_twice_as_long() {
        let seconds = |attempt| back_off(attempt, 0.5).num_seconds();
        assert_eq!([1, 2, 3, 9, 100].map(seconds), [30, 60, 120, 3_600, 3_600]);
        assert_eq!(back_off(1, 0.0).num_seconds(), 24);
        assert_eq!(back_off(1, 1.0).num_seconds(), 36);
    }
}
