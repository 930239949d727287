//! Looks at connectors on their interval, so that their status is what was observed.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connectors::Connectors;
use crate::store::checks::{CheckLease, CheckSeen};
use crate::store::{Store, StoreError};

/// Longest time that a check may take.
const TIME_OUT: Duration = Duration::from_secs(10);
/// Connectors that are checked at once.
const AT_ONCE: usize = 16;

/// Checks connectors, several at once.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    store: Store,
    connectors: Arc<Connectors>,
}

impl Checker {
    pub(super) fn new(store: Store, connectors: Arc<Connectors>) -> Self {
        Self { store, connectors }
    }

    /// Checks the connectors that are due, at most [`AT_ONCE`]; returns how many.
    pub(super) async fn tick(&self) -> Result<usize, StoreError> {
        let leases = self.claim(AT_ONCE).await?;
        let count = leases.len();
        futures_util::future::join_all(leases.into_iter().map(|lease| self.check(lease))).await;
        Ok(count)
    }

    /// Looks for connectors that are due every `poll` until `stop`. One that does not answer holds up no other.
    pub(super) async fn run(&self, poll: Duration, stop: &CancellationToken) {
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            while running.try_join_next().is_some() {}
            match self.claim(AT_ONCE.saturating_sub(running.len())).await {
                Ok(leases) => {
                    for lease in leases {
                        let checker = self.clone();
                        running.spawn(async move { checker.check(lease).await });
                    }
                }
                Err(error) => tracing::warn!(%error, "checks could not be looked after"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    async fn claim(&self, most: usize) -> Result<Vec<CheckLease>, StoreError> {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        // Time enough for the check and for writing what it saw.
        self.store.claim_checks(most, TimeDelta::seconds(30)).await
    }

    async fn check(&self, lease: CheckLease) {
        match self.look(lease).await {
            Ok(()) | Err(StoreError::LeaseLost) => {}
            Err(error) => tracing::warn!(%error, "a check could not be written"),
        }
    }

    async fn look(&self, lease: CheckLease) -> Result<(), StoreError> {
        let store = &self.store;
        let connector = store.checked_connector(&lease).await?;
        let begun = store.now();
        let opened = self.connectors.open(&connector);
        let (error, auth, quotas) = match &opened {
            Err(failure) => (Some(failure.message.clone()), None, Vec::new()),
            Ok(opened) => match tokio::time::timeout(TIME_OUT, opened.check()).await {
                Ok(report) => (report.error, report.auth, report.quotas),
                Err(_) => (Some(format!("no answer within {} s", TIME_OUT.as_secs())), None, Vec::new()),
            },
        };
        let result = if error.is_none() { "ok" } else { "failed" };
        metrics::counter!("apixx_connector_checks_total", "result" => result).increment(1);
        let took_ms = i32::try_from((store.now() - begun).num_milliseconds()).unwrap_or(i32::MAX);
        let seen = CheckSeen { error, auth, quotas, took_ms };
        store.save_check(lease, &seen, store.ids().fraction()).await.map(|_| ())
    }
}
