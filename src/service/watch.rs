//! Waiting for a run to end, on behalf of a caller who asked for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout_at};

use super::Serving;
use super::access::Principal;
use crate::domain::ids::RunId;
use crate::store::runs::RunProgress;
use crate::store::{StoreError, Tenancy};

/// The net under the notifications: a run is looked at this often at least.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Between two looks of one wait at least, however many runs change.
const BREATHE: Duration = Duration::from_millis(300);

/// Waits of one customer that one process has at the same time: a quarter of its requests.
const PER_CUSTOMER: usize = 64;

/// Who waits. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Waits {
    customers: Arc<Mutex<HashMap<String, usize>>>,
    all: Gauge,
}

/// A wait, counted until it is dropped.
#[derive(Debug)]
pub struct Waiting {
    waits: Waits,
    customer: String,
}

impl Waits {
    /// Nobody waits yet; `all` tells the operator how many do.
    pub fn new(all: Gauge) -> Self {
        Self { customers: Arc::default(), all }
    }

    /// Counts one more wait of the customer; `None` when there are enough.
    pub fn begin(&self, tenancy: &Tenancy) -> Option<Waiting> {
        let customer = tenancy.customer().to_string();
        let mut waits = self.customers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waits.entry(customer.clone()).or_default();
        if *count >= PER_CUSTOMER {
            return None;
        }
        *count += 1;
        self.all.increment(1.0);
        Some(Waiting { waits: self.clone(), customer })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.all.decrement(1.0);
        let mut waits = self.waits.customers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waits.get_mut(&self.customer) {
            *count -= 1;
            if *count == 0 {
                waits.remove(&self.customer);
            }
        }
    }
}

/// A wait for a run to end. Holds no connection between two looks.
pub struct Watch<'a> {
    serving: &'a Serving,
    principal: &'a Principal,
    run: &'a RunId,
    deadline: Instant,
    changed: Receiver<u64>,
    ended: bool,
    looked: bool,
}

impl<'a> Watch<'a> {
    /// A wait until `deadline` at the latest.
    pub fn new(serving: &'a Serving, principal: &'a Principal, run: &'a RunId, deadline: Instant) -> Self {
        Self {
            deadline,
            changed: serving.wakes.changed(),
            serving,
            principal,
            run,
            ended: false,
            looked: false,
        }
    }

    /// How far the run is, after something may have changed; `None` when there is nothing to wait for any
    /// more: the run has ended (and was told so), there is no such run, the time is up, or the server stops.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&mut self) -> Result<Option<RunProgress>, StoreError> {
        if self.ended
            || (self.looked && Instant::now() >= self.deadline)
            || self.serving.stopping.is_cancelled()
        {
            return Ok(None);
        }
        if self.looked {
            let until = self.deadline.min(Instant::now() + LOOK_AGAIN);
            tokio::select! {
                () = self.serving.stopping.cancelled() => return Ok(None),
                // Any run that changes wakes every wait; a look is one indexed row.
                () = async {
                    tokio::time::sleep_until(until.min(Instant::now() + BREATHE)).await;
                    let _ = timeout_at(until, self.changed.changed()).await;
                } => {}
            }
        }
        self.looked = true;
        let state = self.serving.store.read(self.principal.tenancy()).run_progress(self.run).await?;
        self.ended = state.as_ref().is_none_or(RunProgress::is_final);
        Ok(state)
    }
}
