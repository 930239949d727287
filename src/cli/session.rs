//! One command's time with the database.

use anyhow::{Context, anyhow};
use nix::unistd::{User, geteuid};

use crate::app::database::{Database, PATIENCE, Sharing};
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::ids::IdSource;
use crate::store::customers::Actor;
use crate::store::{Store, StoreError, Tenancy};

/// As whom a command connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// The role that serves: row-level security holds.
    Server,
    /// Who owns the schema, for what concerns all customers.
    Owner,
}

/// Opens the database of an installation that is there, lets `work` have it, and leaves things as they were found: a
/// private PostgreSQL that was not running before is ended again.
pub(super) async fn with<T>(
    config: &Config,
    who: As,
    work: impl AsyncFnOnce(&Store) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    Database::must_exist(&config.database)?;
    let database = Database::open(&config.database, Sharing::Welcome).await?;
    let result = async {
        let options = if who == As::Owner { database.owner()? } else { &database.server };
        let clock = Clock::system();
        let ids = IdSource::random(clock.clone());
        let acquire = config.database.acquire_timeout;
        let store =
            Store::connect(options, 1, acquire, clock, ids).await.context("cannot use the database")?;
        // What a command writes is of the same time as what all processes of the installation write.
        store.follow_clock().await.context("cannot use the database")?;
        let done = work(&store).await;
        store.close().await;
        done
    }
    .await;
    database.close(PATIENCE).await;
    result
}

/// The customer of this short name.
pub(super) async fn customer(store: &Store, slug: &str) -> anyhow::Result<Tenancy> {
    let found = store.customer_named(slug).await.context("cannot look for the customer")?;
    found.ok_or_else(|| anyhow!("there is no customer `{slug}`: `apixx-mcp customer list` names all"))
}

/// Who is at the keyboard, for the audit log: the name of the system's user.
pub(super) fn operator() -> Actor {
    let user = User::from_uid(geteuid()).ok().flatten();
    Actor::Operator(user.map_or_else(|| geteuid().to_string(), |user| user.name))
}

/// What the store refuses for a reason is told as it is; the rest is the database's fault.
pub(super) fn told(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Conflict(why) => anyhow!(why),
        other => anyhow::Error::new(other).context("the database failed; -v tells why"),
    }
}
