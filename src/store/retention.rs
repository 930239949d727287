//! What has outlived its time goes, in batches small enough not to be felt.

use std::time::Duration;

use super::{Store, StoreError};

/// How long a batch may take: nobody waits for it, and a disk may be slow.
const PATIENCE: Duration = Duration::from_secs(300);

statements! {
    PURGE = plain "select * from purge($1, $2, $3, $4, $5)";
    PEOPLE = plain "select purge_people($1, $2)";
}

/// How long things are kept that no plan speaks of, in days. (Runs and payloads: each customer's plan.)
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The audit log.
    pub audit_days: i32,
    /// Usage by token, tool and hour.
    pub usage_days: i32,
    /// Rollups of runs and errors.
    pub stats_days: i32,
}

/// What a batch took.
#[derive(Clone, Debug)]
pub struct Purged {
    /// Rows by kind.
    pub rows: Vec<(String, i64)>,
    most: i64,
}

impl Purged {
    /// Whether there may be more.
    pub fn more(&self) -> bool {
        self.rows.iter().any(|(_, rows)| *rows >= self.most)
    }
}

impl Store {
    /// Deletes up to `most` rows of each kind that have outlived their time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge(&self, keep: &Retention, most: i32) -> Result<Purged, StoreError> {
        let purge = sqlx::query_as(PURGE)
            .bind(self.now())
            .bind(most)
            .bind(keep.audit_days)
            .bind(keep.usage_days)
            .bind(keep.stats_days);
        let lent = self.pool().lend().await?;
        let mut rows: Vec<(String, i64)> =
            lent.within(PATIENCE, async |connection| purge.fetch_all(connection).await).await?;
        let ended: i64 =
            sqlx::query_scalar(PEOPLE).bind(self.now()).bind(most).fetch_one(self.pool()).await?;
        rows.push(("people".to_owned(), ended));
        for (kind, rows) in rows.iter().filter(|(_, rows)| *rows > 0) {
            tracing::debug!(kind, rows, "outlived their time");
        }
        Ok(Purged { rows, most: i64::from(most) })
    }
}
