//! What the answers of a database mean.

use std::borrow::Cow;

use sqlx::postgres::PgDatabaseError;

use super::Name;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;

/// The table to write does not exist.
pub(super) fn undefined_table(name: &Name) -> Failure {
    let message = format!("the table '{}' does not exist", name.plain);
    Failure::new(ErrorClass::Schema, "UNDEFINED_TABLE", Stage::Load, &message)
}

/// The table to write lacks a column.
pub(super) fn undefined_column(name: &Name, column: &str) -> Failure {
    let message = format!("the table '{}' has no column '{column}'", name.plain);
    Failure::new(ErrorClass::Schema, "UNDEFINED_COLUMN", Stage::Load, &message).at_field(column)
}

/// What an answer of a database means (PostgreSQL manual, appendix A).
pub(super) fn failure(error: &sqlx::Error, stage: Stage) -> Failure {
    let Some(database) =
        error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        tracing::info!(%error, "a flow's database cannot be reached");
        let (class, code, message) = match error {
            sqlx::Error::Tls(_) => {
                (ErrorClass::Connectivity, "TLS_FAILED", "the database's certificate was not accepted")
            }
            sqlx::Error::Io(_) => {
                (ErrorClass::Connectivity, "CONNECTION_FAILED", "the database cannot be reached")
            }
            sqlx::Error::Configuration(_) => {
                (ErrorClass::Config, "CONFIG_INVALID", "the database's address is wrong")
            }
            _ => (ErrorClass::Unavailable, "DATABASE_ERROR", "the database broke off"),
        };
        return Failure::new(class, code, stage, message);
    };
    let state = database.code();
    let (class, code) = classify(state);
    let code: Cow<'static, str> = code.map_or_else(|| Cow::Owned(state.to_owned()), Cow::Borrowed);
    let problem = Failure::new(class, code, stage, database.message()).in_foreign_words();
    match database.column().or(database.constraint()) {
        Some(field) => problem.at_field(field),
        None => problem,
    }
}

/// The class of an SQLSTATE, and the name of its condition where we know it.
fn classify(state: &str) -> (ErrorClass, Option<&'static str>) {
    match state {
        "23502" => (ErrorClass::RequiredField, Some("NOT_NULL_VIOLATION")),
        "23503" => (ErrorClass::Reference, Some("FOREIGN_KEY_VIOLATION")),
        "23505" => (ErrorClass::Duplicate, Some("UNIQUE_VIOLATION")),
        "23514" => (ErrorClass::Validation, Some("CHECK_VIOLATION")),
        "23P01" => (ErrorClass::Validation, Some("EXCLUSION_VIOLATION")),
        // What a trigger or a view says of a row, in words of its own.
        "P0001" => (ErrorClass::Validation, Some("RAISE_EXCEPTION")),
        "44000" => (ErrorClass::Validation, Some("WITH_CHECK_OPTION_VIOLATION")),
        // Two spellings of one key in a batch: written one by one, the last one counts.
        "21000" => (ErrorClass::Duplicate, Some("DUPLICATE_KEY")),
        "22001" => (ErrorClass::Size, Some("STRING_TOO_LONG")),
        "22003" => (ErrorClass::Type, Some("NUMBER_OUT_OF_RANGE")),
        "22007" | "22008" => (ErrorClass::Type, Some("INVALID_DATE")),
        "22P02" => (ErrorClass::Type, Some("INVALID_VALUE")),
        "22P05" | "22021" => (ErrorClass::Type, Some("INVALID_CHARACTER")),
        "42P01" => (ErrorClass::Schema, Some("UNDEFINED_TABLE")),
        "42703" => (ErrorClass::Schema, Some("UNDEFINED_COLUMN")),
        "3F000" => (ErrorClass::Schema, Some("UNDEFINED_SCHEMA")),
        "42P10" => (ErrorClass::Config, Some("NO_UNIQUE_KEY")),
        "42501" => (ErrorClass::Permission, Some("INSUFFICIENT_PRIVILEGE")),
        "25006" => (ErrorClass::Config, Some("QUERY_WRITES")),
        "3D000" => (ErrorClass::Config, Some("UNDEFINED_DATABASE")),
        "40001" | "40P01" => (ErrorClass::Conflict, Some("DEADLOCK_OR_RACE")),
        "55P03" => (ErrorClass::Conflict, Some("LOCK_TIMEOUT")),
        "57014" => (ErrorClass::Unavailable, Some("STATEMENT_TIMEOUT")),
        _ => match state.get(..2) {
            Some("22") => (ErrorClass::Type, None),
            Some("23") => (ErrorClass::Validation, None),
            Some("08") => (ErrorClass::Connectivity, None),
            Some("28") => (ErrorClass::Auth, Some("AUTH_FAILED")),
            Some("42" | "0A") => (ErrorClass::Config, None),
            Some("54") => (ErrorClass::Size, None),
            _ => (ErrorClass::Unavailable, None),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_says_whose_fault_it_is() {
        for (state, class) in [
            ("23502", ErrorClass::RequiredField),
            ("22012", ErrorClass::Type),
            ("P0001", ErrorClass::Validation),
            ("44000", ErrorClass::Validation),
            ("08006", ErrorClass::Connectivity),
            ("28P01", ErrorClass::Auth),
            ("57P01", ErrorClass::Unavailable),
            ("42601", ErrorClass::Config),
            ("XX000", ErrorClass::Unavailable),
        ] {
            assert_eq!(classify(state).0, class, "{state}");
        }
    }
}
