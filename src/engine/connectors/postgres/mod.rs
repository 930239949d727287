//! PostgreSQL databases that the operator named. The statements here speak to other people's databases.
//!
//! The configuration of a connector of kind `postgres` is `{"dsn": "name", "create_tables": false}`. A table or
//! a query is read through a cursor of a read-only transaction; records are written by key, so that writing
//! one twice changes nothing. A flow never reaches our own database, nor any as a superuser.

mod answer;
mod read;
mod write;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::{CheckReport, Connector, ReadRequest, Sink, Source, WriteRequest, configuration, named};
use crate::domain::connector::AuthStatus;
use crate::domain::definition::{Stream, WriteMode};
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;
use crate::store::DatabaseIdentity;
use crate::store::checks::AuthSeen;
use answer::failure;
use read::Rows;
use write::Table;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest identifier, in bytes (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    dsn: String,
    #[serde(default)]
    create_tables: bool,
}

/// A database.
#[derive(Debug)]
pub(super) struct Postgres {
    name: String,
    options: PgConnectOptions,
    create_tables: bool,
    own: DatabaseIdentity,
}

impl Postgres {
    pub(super) fn open(
        config: &Value,
        dsns: &BTreeMap<String, PgConnectOptions>,
        own: &DatabaseIdentity,
    ) -> Result<Self, Failure> {
        let Config { dsn: name, create_tables } = configuration(config)?;
        // What is logged of a statement could hold a cursor's value.
        let options = named("database", &name, dsns)?.clone().disable_statement_logging();
        let options = options.application_name("apixx-mcp flow").options([
            ("statement_timeout", "120s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "3600s"),
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
            ("standard_conforming_strings", "on"),
        ]);
        Ok(Self { name, options, create_tables, own: own.clone() })
    }

    async fn connect(&self, stage: Stage) -> Result<PgConnection, Failure> {
        let late = |_| {
            Failure::new(ErrorClass::Connectivity, "TIMEOUT", stage, "the database did not answer in time")
        };
        let options = match stage {
            // What does not begin with its year is refused, rather than taken for one of two days. (A query that reads
            // may be written in the order that the database has.)
            Stage::Load => self.options.clone().options([("datestyle", "ISO, YMD")]),
            _ => self.options.clone(),
        };
        let mut conn = tokio::time::timeout(CONNECT, options.connect())
            .await
            .map_err(late)?
            .map_err(|error| failure(&error, stage))?;
        self.refuse_ours(&mut conn, stage).await?;
        Ok(conn)
    }

    /// A flow must not be a way into our own tables, nor around anyone's rights.
    async fn refuse_ours(&self, conn: &mut PgConnection, stage: Stage) -> Result<(), Failure> {
        let refused =
            |why: &str| Err(Failure::config(&format!("the database '{}' is refused: {why}", self.name)));
        // Any role that it is a member of is one that a query can take on.
        let (superuser, roles, database, ours, readable): (bool, Vec<String>, String, bool, bool) = sqlx::query_as(
            "select exists (
                        select from pg_roles m
                         where (m.rolsuper or m.rolbypassrls or m.rolreplication
                                or m.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
                           and (pg_has_role(session_user, m.oid, 'member') or pg_has_role(current_user, m.oid, 'member'))
                    ),
                    array(
                        select m.rolname::text from pg_roles m
                         where pg_has_role(session_user, m.oid, 'member') or pg_has_role(current_user, m.oid, 'member')
                    ),
                    current_database()::text,
                    to_regclass('public.run_error_counts') is not null and to_regclass('public.installation') is not null,
                    has_function_privilege('pg_control_system()', 'execute')",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(|error| failure(&error, stage))?;
        if superuser {
            return refused(
                "its role is a superuser, or may become one or touch the server's files; name a role that owns only \
                 what flows may touch",
            );
        }
        if ours {
            return refused("it is a database of this server");
        }
        if readable {
            let system: i64 = sqlx::query_scalar("select system_identifier from pg_control_system()")
                .fetch_one(&mut *conn)
                .await
                .map_err(|error| failure(&error, stage))?;
            if system == self.own.system
                && (database == self.own.database || roles.iter().any(|role| self.own.roles.contains(role)))
            {
                return refused("it is this server's own database, or its role");
            }
        }
        Ok(())
    }
}

impl Connector for Postgres {
    fn check(&self) -> BoxFuture<'_, CheckReport> {
        async move {
            let seen = |status, error| Some(AuthSeen { status, error, expires_at: None });
            match self.connect(Stage::Platform).await {
                Ok(conn) => {
                    close(conn).await;
                    CheckReport { auth: seen(AuthStatus::Valid, None), ..CheckReport::default() }
                }
                Err(failure) if failure.class == ErrorClass::Auth => CheckReport {
                    auth: seen(AuthStatus::Invalid, Some(failure.message)),
                    ..CheckReport::default()
                },
                Err(failure) => CheckReport { error: Some(failure.message), ..CheckReport::default() },
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Source>, Failure>> {
        async move {
            let conn = self.connect(Stage::Extract).await?;
            let source = Rows::open(conn, &request).await?;
            Ok(Box::new(source) as Box<dyn Source>)
        }
        .boxed()
    }

    fn write<'a>(&'a self, request: WriteRequest<'a>) -> BoxFuture<'a, Result<Box<dyn Sink>, Failure>> {
        async move {
            let key = match request.stream.write_mode {
                WriteMode::Append => Vec::new(),
                WriteMode::Upsert if request.key.is_empty() => {
                    return Err(Failure::config(
                        "an upsert needs a key; name the fields that identify a record",
                    ));
                }
                WriteMode::Upsert => request.key.to_vec(),
            };
            let table = Name::parse(&request.stream.destination_object)?;
            let conn = self.connect(Stage::Load).await?;
            let sink = Table::open(conn, table, key, self.create_tables, request.fields).await?;
            Ok(Box::new(sink) as Box<dyn Sink>)
        }
        .boxed()
    }
}

/// Whether a stream can be read from a database, whatever there is.
pub(super) fn readable(stream: &Stream) -> Result<(), Failure> {
    read::relation(stream).map(drop)
}

/// Whether a stream can be written to a database, whatever there is.
pub(super) fn writable(stream: &Stream) -> Result<(), Failure> {
    Name::parse(&stream.destination_object).map(drop)
}

async fn close(conn: PgConnection) {
    if let Err(error) = conn.close().await {
        tracing::debug!(%error, "a connection did not close well");
    }
}

/// A table's name, quoted.
#[derive(Clone, Debug)]
struct Name {
    plain: String,
    quoted: String,
}

impl Name {
    /// `schema.table` or `table`.
    fn parse(object: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = object.split('.').collect();
        let fits = |part: &&str| !part.is_empty() && part.len() <= MAX_NAME && !part.contains('\0');
        if parts.len() > 2 || !parts.iter().all(fits) {
            return Err(Failure::config(&format!("'{object}' names no table; write `schema.table`")));
        }
        Ok(Self {
            plain: object.to_owned(),
            quoted: parts.iter().map(|part| quote(part)).collect::<Vec<_>>().join("."),
        })
    }
}

/// An identifier (PostgreSQL manual, section 4.1.1).
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant (section 4.1.2.1), for values whose type only the database knows.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

async fn run(conn: &mut PgConnection, text: &str) -> Result<u64, Failure> {
    sqlx::query(AssertSqlSafe(text.to_owned()))
        .persistent(false)
        .execute(conn)
        .await
        .map(|done| done.rows_affected())
        .map_err(|error| failure(&error, Stage::Extract))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(Name::parse("public.people").unwrap().quoted, r#""public"."people""#);
        assert_eq!(Name::parse(r#"a"; drop table x; --"#).unwrap().quoted, r#""a""; drop table x; --""#);
        assert_eq!(literal("it's"), "'it''s'");
        for object in ["", "a.b.c", ".a", "a.", &"x".repeat(64), "a\0b"] {
            assert!(Name::parse(object).is_err(), "{object}");
        }
    }
}
