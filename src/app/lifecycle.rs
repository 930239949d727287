//! How the process ends, in two stages. First everybody is asked: waits are answered, runs released,
//! connections drained. After a grace, or when asked again, what is left is dropped.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The stages of an end. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stopping: CancellationToken,
    aborting: CancellationToken,
    asked: Arc<OnceLock<Instant>>,
    grace: Duration,
}

impl Lifecycle {
    /// A life that goes on. `grace` is the time between the two stages of its end.
    pub fn new(grace: Duration) -> Self {
        let (stopping, aborting) = (CancellationToken::new(), CancellationToken::new());
        Self { stopping, aborting, asked: Arc::default(), grace }
    }

    /// Ends on SIGINT or SIGTERM, and at once on the second of them. From the return on, these signals do not
    /// end the process any more.
    ///
    /// # Errors
    /// What the system says when a signal cannot be watched.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let lifecycle = self.clone();
        tokio::spawn(async move {
            for stage in [Self::stop, Self::abort] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                stage(&lifecycle);
            }
        });
        Ok(())
    }

    /// Starts the first stage, and the clock towards the second. Needs a Tokio runtime.
    pub fn stop(&self) {
        if self.asked.set(Instant::now()).is_err() {
            return;
        }
        self.stopping.cancel();
        info!("stopping");
        let lifecycle = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(lifecycle.grace) => lifecycle.abort(),
                () = lifecycle.aborting.cancelled() => {}
            }
        });
    }

    /// Starts the second stage.
    pub fn abort(&self) {
        let _asked_before = self.asked.set(Instant::now());
        self.stopping.cancel();
        if !self.aborting.is_cancelled() {
            self.aborting.cancel();
            warn!("dropping what is left");
        }
    }

    /// Cancelled from the first stage on: answer waits, take no new work, hand back what is under way.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Cancelled from the second stage on: drop what is under way.
    pub fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }

    /// What is left of `whole`, counted from the moment the end was asked for.
    pub fn left_of(&self, whole: Duration) -> Duration {
        let passed = self.asked.get().map(Instant::elapsed).unwrap_or_default();
        whole.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_insists() {
        let lifecycle = Lifecycle::new(FOR_EVER);
        lifecycle.stop_on_signals().unwrap();
        assert_eq!(lifecycle.left_of(FOR_EVER), FOR_EVER);
        raise(Signal::SIGTERM).unwrap();
        lifecycle.stopping().cancelled().await;
        assert!(!lifecycle.aborting().is_cancelled());
        assert!(lifecycle.left_of(FOR_EVER) < FOR_EVER);
        raise(Signal::SIGINT).unwrap();
        lifecycle.aborting().cancelled().await;
    }

    #[tokio::test]
    async fn the_grace_ends_by_itself() {
        let lifecycle = Lifecycle::new(Duration::from_millis(1));
        lifecycle.stop();
        assert!(lifecycle.stopping().is_cancelled());
        lifecycle.aborting().cancelled().await;
        lifecycle.stop();
    }

    #[tokio::test]
    async fn who_watches_the_first_stage_sees_the_second() {
        let lifecycle = Lifecycle::new(FOR_EVER);
        lifecycle.clone().abort();
        assert!(lifecycle.stopping().is_cancelled() && lifecycle.aborting().is_cancelled());
        assert!(lifecycle.left_of(FOR_EVER) < FOR_EVER);
    }
}
