//! Bringing a database to this build's schema, and making the server's role.

use postgres_protocol::password::scram_sha_256;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr};

/// Why a database cannot be brought to this build's schema, or used with it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database holds a newer schema.
    #[error(
        "the database has schema version {found}, newer than the {known} of this program; start a newer program"
    )]
    Newer {
        /// What the database has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// The database holds an older schema, or none.
    #[error("the database has schema version {found}, this program needs {known}; run `apixx-mcp migrate`")]
    Older {
        /// What the database has (0: nothing).
        found: i64,
        /// What this program needs.
        known: i64,
    },
    /// An applied migration is not the one that this program knows.
    #[error(
        "migration {0} of the database is not the one of this program: use the program that applied it, or an empty database or \
         data directory"
    )]
    Changed(i64),
    /// PostgreSQL is too old.
    #[error("PostgreSQL {0} is too old; 14 or newer is needed")]
    PostgresTooOld(String),
    /// The role's name cannot be used.
    #[error("`{0}` cannot be the name of the server's role: use letters, digits and underscores")]
    BadRole(String),
    /// The role that is to serve owns the schema, or may become who does.
    #[error(
        "the role `{0}` owns the schema or is a member of the role that does, and cannot serve: name another one in database.url, \
         which `apixx-mcp migrate` makes"
    )]
    OwnerServes(String),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The migration machinery failed.
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "customers", include_str!("../../migrations/0001_customers.sql")),
    (2, "flows", include_str!("../../migrations/0002_flows.sql")),
    (3, "runs", include_str!("../../migrations/0003_runs.sql")),
    (4, "doors", include_str!("../../migrations/0004_doors.sql")),
    (5, "people", include_str!("../../migrations/0005_people.sql")),
];

fn migrator() -> Migrator {
    let migration = |(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

fn known_version() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

/// Brings the database to this build's schema and makes the server's role, as the owner. Safe to call
/// from several processes at once (an advisory lock makes them take turns) and on a database that is up
/// to date.
///
/// # Errors
/// When the database holds a newer schema, or fails.
pub async fn migrate(
    owner: &PgConnectOptions,
    server_role: &str,
    password: Option<&str>,
) -> Result<(), MigrateError> {
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if server_role.is_empty() || !server_role.chars().all(safe) {
        return Err(MigrateError::BadRole(server_role.to_owned()));
    }
    let mut conn = owner.connect().await?;
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::integer")
        .fetch_one(&mut conn)
        .await?;
    if version < 140_000 {
        return Err(MigrateError::PostgresTooOld((version / 10_000).to_string()));
    }
    if is_owner(&mut conn, server_role).await? {
        return Err(MigrateError::OwnerServes(server_role.to_owned()));
    }
    let found = applied_version(&mut conn).await?;
    if found > known_version() {
        return Err(MigrateError::Newer { found, known: known_version() });
    }
    match migrator().run(&mut conn).await {
        Err(sqlx::migrate::MigrateError::VersionMismatch(version)) => {
            return Err(MigrateError::Changed(version));
        }
        other => other?,
    }
    let mut tx = conn.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtext('apixx.migrate'))").execute(&mut *tx).await?;
    let key: [u8; 32] = rand::random();
    sqlx::query("insert into installation (cursor_key) values ($1) on conflict do nothing")
        .bind(&key[..])
        .execute(&mut *tx)
        .await?;
    make_role(&mut tx, server_role, password).await?;
    tx.commit().await?;
    conn.close().await?;
    Ok(())
}

/// Whether the role `server` is, or can become, the one that migrates: no row would be hidden from it, and what is taken
/// from it below would be taken from the owner.
async fn is_owner(conn: &mut PgConnection, server: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select 1 from pg_roles r where r.rolname = $1 and pg_has_role(r.oid, current_user, 'member'))",
    )
    .bind(server)
    .fetch_one(conn)
    .await
}

/// The version of the newest migration that was applied; 0 for an empty database.
async fn applied_version(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *conn)
        .await?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations where success")
        .fetch_one(conn)
        .await
}

/// Whether the database that `options` lead to has exactly this build's schema.
///
/// # Errors
/// When it has another one, or cannot be reached.
pub async fn check_version(options: &PgConnectOptions) -> Result<(), MigrateError> {
    let mut conn = options.connect().await?;
    let found = match applied_version(&mut conn).await {
        // The rights of the server's role come last: without them `migrate` did not come to its end.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => 0,
        found => found?,
    };
    let known = known_version();
    conn.close().await?;
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(MigrateError::Newer { found, known }),
        std::cmp::Ordering::Less => Err(MigrateError::Older { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Makes the role that the server logs in as, with the rights it needs and no more.
async fn make_role(conn: &mut PgConnection, role: &str, password: Option<&str>) -> Result<(), sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select exists (select 1 from pg_roles where rolname = $1)")
        .bind(role)
        .fetch_one(&mut *conn)
        .await?;
    if !exists {
        run(conn, format!("create role {role} login nosuperuser nobypassrls nocreatedb nocreaterole"))
            .await?;
    }
    if let Some(password) = password {
        // What PostgreSQL keeps of it (RFC 5803), as `\password` of psql sends it: statements stand in logs and statistics.
        let verifier = scram_sha_256(password.as_bytes());
        run(conn, format!("alter role {role} password '{verifier}'")).await?;
    }
    run(
        conn,
        format!(
            "revoke create on schema public from public; -- as it is from PostgreSQL 15 on
             grant usage on schema public to {role};
             grant select, insert, update, delete on all tables in schema public to {role};
             revoke insert, update, delete on plans, installation, _sqlx_migrations from {role};
             revoke all on people, links, sessions from {role};
             revoke update, delete on audit_log from {role};
             revoke update on flow_versions from {role};
             revoke delete on customers, users, tokens from {role};
             do $$ declare door regprocedure; begin
                 -- (an extension's are not ours to give)
                 for door in select p.oid from pg_proc p
                              where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole
                                and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e') loop
                     execute format('grant execute on function %s to {role}', door);
                 end loop;
             end $$;"
        ),
    )
    .await
}

async fn run(conn: &mut PgConnection, text: String) -> Result<(), sqlx::Error> {
    // The role's name was checked, and a verifier has no quote; neither can be bound here.
    conn.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(|_| ())
}
