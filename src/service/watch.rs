//! Waiting for a run to end, on behalf of a caller who asked for it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Serving;
use super::access::Principal;
use crate::domain::ids::RunId;
use crate::protocol::Exchange;
use crate::store::StoreError;

/// The net under the notifications: a run is looked at this often at least.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Returns when the run has ended, `seconds` are over, or the server stops; at once when there is no such
/// run. Holds no connection while it waits, and reports progress at most once a look where the caller asked
/// for it.
///
/// # Errors
/// When the database fails.
pub async fn until_done(
    serving: &Serving,
    principal: &Principal,
    exchange: &Exchange,
    run: &RunId,
    seconds: u8,
) -> Result<(), StoreError> {
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let mut changed = serving.wakes.changed();
    loop {
        let Some(state) = serving.store.read(principal.tenancy()).run_progress(run).await? else { return Ok(()) };
        if exchange.wants_progress() {
            let records = state.records();
            let total = state.records_estimated.filter(|total| *total >= records.processed);
            let message = format!("{} records processed", records.processed);
            exchange.progress(records.processed as f64, total.map(|total| total as f64), Some(message)).await;
        }
        if state.is_final() || serving.stopping.is_cancelled() || Instant::now() >= deadline {
            return Ok(());
        }
        let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
        tokio::select! {
            () = serving.stopping.cancelled() => {}
            // Any run that changes wakes every wait; a look is one indexed row.
            _ = timeout_at(look_again, changed.changed()) => {}
        }
    }
}
