//! Waking those who wait for runs: in this process at once, in others by a debounced `notify`. Polling stays
//! the net: a wake may be lost, never a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::answered;

/// The channel that processes listen on; a payload says what happened and never whose run it was.
const CHANNEL: &str = "apixx_runs";
const QUEUED: &str = "queued";
const CHANGED: &str = "changed";
/// Shortest time between two notifications of one process: each takes a lock that commits share.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long a relay waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);
/// After so long without a word the listener asks whether anybody is still there: something on the way may have cut it.
const QUIET: Duration = Duration::from_secs(30);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

statements! {
    NOTIFY = plain "select pg_notify($1, $2)";
    ASK = plain "select 1";
}

#[derive(Debug)]
struct Inner {
    queued: Notify,
    changed: watch::Sender<u64>,
    /// What other processes have not been told yet.
    tell_queued: AtomicBool,
    tell_changed: AtomicBool,
    tell: Notify,
}

/// Who waits for runs is woken here. Cheap to clone; clones share their waiters.
#[derive(Clone, Debug)]
pub struct Wakes(Arc<Inner>);

impl Default for Wakes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            queued: Notify::new(),
            changed: watch::Sender::new(0),
            tell_queued: AtomicBool::new(false),
            tell_changed: AtomicBool::new(false),
            tell: Notify::new(),
        }))
    }
}

impl Wakes {
    /// A run was queued (and committed): wakes a worker here at once, and those of other processes soon.
    pub fn run_queued(&self) {
        self.0.queued.notify_one();
        self.0.tell_queued.store(true, Ordering::Relaxed);
        self.run_changed();
    }

    /// A run moved: wakes everyone who waits for one.
    pub fn run_changed(&self) {
        self.0.changed.send_modify(|count| *count += 1);
        self.0.tell_changed.store(true, Ordering::Relaxed);
        self.0.tell.notify_one();
    }

    /// Waits until a run may have been queued.
    pub async fn queued(&self) {
        self.0.queued.notified().await;
    }

    /// A count that moves with every change of any run; who waits for one looks again each time.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Carries wakes to and from other processes until `stop`, on two connections of its own: a listener
    /// must not hold a connection that requests wait for.
    pub async fn relay(&self, options: PgConnectOptions, stop: CancellationToken) {
        let options = options.application_name("apixx-mcp wakes").options([("synchronous_commit", "off")]);
        while !stop.is_cancelled() {
            let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options.clone());
            let broken = tokio::select! {
                () = stop.cancelled() => {
                    drop(timeout(GOODBYE, pool.close()).await);
                    break;
                }
                heard = self.listen(&pool) => heard,
                told = self.notify(&pool) => told,
            };
            tracing::warn!(error = ?broken, "wakes between processes are interrupted; polling goes on");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    /// Hears other processes until the connection fails.
    async fn listen(&self, pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
        let mut listener = answered(PATIENCE, PgListener::connect_with(pool)).await?;
        answered(PATIENCE, listener.listen(CHANNEL)).await?;
        loop {
            let Ok(heard) = timeout(QUIET, listener.recv()).await else {
                answered(PATIENCE, sqlx::query(ASK).execute(&mut listener)).await?;
                continue;
            };
            let heard = heard?;
            if heard.payload() == QUEUED {
                self.0.queued.notify_one();
            }
            self.0.changed.send_modify(|count| *count += 1);
        }
    }

    /// Tells other processes until the connection fails.
    async fn notify(&self, pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
        loop {
            self.0.tell.notified().await;
            tokio::time::sleep(DEBOUNCE).await;
            let changed = self.0.tell_changed.swap(false, Ordering::Relaxed);
            let queued = self.0.tell_queued.swap(false, Ordering::Relaxed);
            if queued || changed {
                let what = if queued { QUEUED } else { CHANGED };
                answered(PATIENCE, sqlx::query(NOTIFY).bind(CHANNEL).bind(what).execute(pool)).await?;
            }
        }
    }
}
