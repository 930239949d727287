//! Looks at connectors on their interval, so that their status is what was observed.

use std::time::Duration;

use chrono::TimeDelta;

use super::connectors::Connectors;
use crate::store::checks::{CheckLease, CheckSeen};
use crate::store::{Store, StoreError};

/// Longest time that a check may take.
const TIME_OUT: Duration = Duration::from_secs(10);
/// Connectors that are checked at once.
const AT_ONCE: i32 = 16;

/// Checks the connectors that are due, at most [`AT_ONCE`]; returns how many.
pub(super) async fn tick(store: &Store, connectors: &Connectors) -> Result<usize, StoreError> {
    // Time enough for the check and for writing what it saw.
    let leases = store.claim_checks(AT_ONCE, TimeDelta::seconds(30)).await?;
    let count = leases.len();
    let mut checks = Vec::with_capacity(count);
    for lease in leases {
        checks.push(check(store, connectors, lease));
    }
    for checked in futures_util::future::join_all(checks).await {
        match checked {
            Ok(()) | Err(StoreError::LeaseLost) => {}
            Err(error) => tracing::warn!(%error, "a check could not be written"),
        }
    }
    Ok(count)
}

async fn check(store: &Store, connectors: &Connectors, lease: CheckLease) -> Result<(), StoreError> {
    let connector = store.checked_connector(&lease).await?;
    let begun = store.now();
    let opened = connectors.open(&connector);
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
