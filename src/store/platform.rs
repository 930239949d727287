//! How the installation does as a whole, for who operates it. Nothing of any one customer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tokio::time::Instant;

use super::{NOW, Store, StoreError};

/// Runs that are counted at most.
const MOST: i32 = 10_000;

/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

statements! {
    DEPTH = plain "select queued, running, oldest_s from queue_depth($1, $2)";
}

/// How long the way to the database is.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// How long a free connection took.
    pub acquire: Duration,
    /// How long a statement then took.
    pub round_trip: Duration,
}

/// The open runs of all customers, of 10,000 at most.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct QueueDepth {
    /// Those that may start now, which no other run of their flow holds back.
    pub queued: i64,
    /// Those that are going.
    pub running: i64,
    /// How long the oldest has been ready to start, in seconds.
    pub oldest_s: Option<f64>,
}

impl Store {
    /// Goes to the database and back.
    ///
    /// # Errors
    /// When it does not answer, or no connection comes free in time.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let begun = Instant::now();
        let lent = self.pool().lend().await?;
        let acquired = Instant::now();
        let asked =
            lent.within(PATIENCE, async |connection| sqlx::query_scalar(NOW).fetch_one(connection).await);
        let _now: DateTime<Utc> = asked.await?;
        Ok(Probe { acquire: acquired - begun, round_trip: acquired.elapsed() })
    }

    /// How long the queue of all customers is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_depth(&self) -> Result<QueueDepth, StoreError> {
        let depth = sqlx::query_as(DEPTH).bind(self.now()).bind(MOST);
        let lent = self.pool().lend().await?;
        Ok(lent.within(PATIENCE, async |connection| depth.fetch_one(connection).await).await?)
    }

    /// The connections of this process that are idle, and those in use.
    pub fn connections(&self) -> (u32, u32) {
        let ((idle, used), (reads_idle, reads_used)) = (self.pool().counted(), self.reads().counted());
        (idle + reads_idle, used + reads_used)
    }
}
