//! What is worth saying to the database again, for as long as a lease lasts.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::store::leases::Lease;
use crate::store::{Store, StoreError};

/// The first pause; each one after is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(2);

/// Makes a `call` about a leased run until the database answers, so that one that is away for a moment costs no
/// attempt. What is called must be safe to repeat.
///
/// # Errors
/// What the call gives; [`StoreError::LeaseLost`] once the lease has run out, whoever has the run then.
pub(super) async fn insist<T, F>(store: &Store, lease: &Lease, call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE;
    loop {
        let left = lease.left(store.now());
        match timeout(left, call()).await {
            Ok(Err(error)) if error.is_transient() => {
                tracing::warn!(run = %lease.run(), %error, "the database is away; the run waits for it");
            }
            Ok(done) => return done,
            Err(_) => return Err(StoreError::LeaseLost),
        }
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST);
    }
}
