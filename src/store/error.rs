//! What can go wrong with the database.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What can go wrong with the database. Its text is for the log, never for a caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL, or the way to it, failed.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// The connection broke while a change was being committed: whether it was is not known.
    #[error("database, while committing: {0}")]
    Unknown(sqlx::Error),
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
    /// PostgreSQL does not know the time zone that was asked for.
    #[error("the database does not know the time zone")]
    UnknownZone,
    /// The row to be made exists already.
    #[error("{0}")]
    Conflict(&'static str),
}

/// What `live_session` fails with when the token is not live (`migrations/0004_doors.sql`).
const NOT_LIVE: &str = "NL001";

/// What `at time zone` fails with for a zone that PostgreSQL does not know (PostgreSQL manual, appendix A).
const INVALID_PARAMETER_VALUE: &str = "22023";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(|refused| refused.code());
        if state.as_deref() == Some(NOT_LIVE) { Self::NotLive } else { Self::Database(error) }
    }
}

impl StoreError {
    /// A row holds something this build does not know.
    pub(super) fn inconsistent(table: &'static str, column: &'static str) -> Self {
        Self::Inconsistent { table, column }
    }

    /// What a statement failed of that cuts time in a zone: PostgreSQL may know fewer zones than we do.
    pub(super) fn of_zone(error: sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(|refused| refused.code());
        if state.as_deref() == Some(INVALID_PARAMETER_VALUE) { Self::UnknownZone } else { error.into() }
    }

    /// The name of the constraint or unique index that refused a write, if one did.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }

    /// A commit failed: with an answer nothing happened, without one nobody knows.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        let refused = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        match refused {
            Some(refused) if matches!(refused.severity(), PgSeverity::Error) => Self::Database(error),
            _ => Self::Unknown(error),
        }
    }

    /// The same failure, met while finding out whether an earlier commit took place.
    pub fn unknown(self) -> Self {
        match self {
            Self::Database(error) => Self::Unknown(error),
            other => other,
        }
    }

    /// Whether the same may succeed a moment later: the database is away, starts, restarts or has no room, or no
    /// connection came free in time.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| passes(&code)),
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
            ),
            Self::Inconsistent { .. }
            | Self::LeaseLost
            | Self::NotLive
            | Self::UnknownZone
            | Self::Conflict(_) => false,
        }
    }
}

/// Whether what this SQLSTATE says passes (PostgreSQL manual, appendix A): connections, conflicts of transactions,
/// resources (a full disk), interventions (restarts), the system's own errors, a standby that is not promoted yet,
/// a lock that was not had in time, a transaction that idled too long.
fn passes(state: &str) -> bool {
    matches!(state.get(..2), Some("08" | "40" | "53" | "57" | "58"))
        || matches!(state, "25006" | "25P03" | "55P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for state in
            ["08006", "40001", "53100", "53300", "57P01", "57P03", "58030", "25006", "25P03", "55P03"]
        {
            assert!(passes(state), "{state}");
        }
        for state in ["23505", "42601", "42501", "22P02", "XX000", ""] {
            assert!(!passes(state), "{state}");
        }
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_transient());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).is_transient());
        assert!(!StoreError::LeaseLost.is_transient());
    }
}
