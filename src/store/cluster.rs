//! What the administrator of a cluster does once: roles and databases. For [`crate::embedded`]; a database
//! that someone else runs is set up by its own administrator.

use sqlx::{AssertSqlSafe, PgConnection};

/// What a role may do beyond logging in. Never a superuser, never exempt from row-level security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleRights {
    /// Nothing more.
    Plain,
    /// May make databases and roles: who migrates.
    Owner,
}

/// Makes the login role `name` unless there is one.
///
/// # Errors
/// What the database answers.
pub async fn ensure_role(admin: &mut PgConnection, name: &str, rights: RoleRights) -> sqlx::Result<()> {
    let exists: bool = sqlx::query_scalar(
        "select exists (select from pg_roles \
         where rolname = $1)",
    )
    .bind(name)
    .fetch_one(&mut *admin)
    .await?;
    if exists {
        return Ok(());
    }
    let template = match rights {
        RoleRights::Plain => "select format('create role %I login', $1)",
        RoleRights::Owner => "select format('create role %I login createdb createrole', $1)",
    };
    run(admin, template, &[name]).await
}

/// Makes the database `name`, owned by `owner`, unless there is one. Only its owner may connect to it.
///
/// # Errors
/// What the database answers.
pub async fn ensure_database(admin: &mut PgConnection, name: &str, owner: &str) -> sqlx::Result<()> {
    let exists: bool = sqlx::query_scalar(
        "select exists (select from pg_database \
         where datname = $1)",
    )
    .bind(name)
    .fetch_one(&mut *admin)
    .await?;
    if !exists {
        run(admin, "select format('create database %I owner %I', $1, $2)", &[name, owner]).await?;
    }
    run(admin, "select format('revoke all on database %I from public', $1)", &[name]).await
}

/// Lets `role` connect to the database `name`.
///
/// # Errors
/// What the database answers.
pub async fn allow_connect(admin: &mut PgConnection, name: &str, role: &str) -> sqlx::Result<()> {
    run(admin, "select format('grant connect on database %I to %I', $1, $2)", &[name, role]).await
}

/// Makes the server read its configuration files again.
///
/// # Errors
/// What the database answers.
pub async fn reload(admin: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select pg_reload_conf()").execute(admin).await.map(drop)
}

/// Runs a statement that takes no parameters. The server itself quotes the names into it.
async fn run(connection: &mut PgConnection, template: &'static str, names: &[&str]) -> sqlx::Result<()> {
    let mut query = sqlx::query_scalar::<_, String>(template);
    for name in names {
        query = query.bind(*name);
    }
    let statement = query.fetch_one(&mut *connection).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}
