//! What can go wrong with the database.

/// What can go wrong with the database. Its text is for the log, never for a caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL, or the way to it, failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row holds something this build does not know.
    #[error("column `{column}` of `{table}` holds a value this build does not know")]
    Inconsistent {
        /// Where.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// The worker's lease ran out and another one has the run: nothing was changed.
    #[error("the lease on the run was lost")]
    LeaseLost,
    /// The caller's token was revoked or expired since it was recognised: nothing was read or changed.
    #[error("the token is no longer live")]
    NotLive,
    /// The row to be made exists already.
    #[error("{0}")]
    Conflict(&'static str),
}

impl StoreError {
    /// A row holds something this build does not know.
    pub(super) fn inconsistent(table: &'static str, column: &'static str) -> Self {
        Self::Inconsistent { table, column }
    }

    /// The name of the constraint or unique index that refused a write, if one did.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }

    /// Whether no connection came free in time: the process has more to do than it can.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::PoolTimedOut))
    }
}
