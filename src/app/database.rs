//! Which PostgreSQL: the one the operator named, or a private one of ours.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, sleep};

use crate::config::DatabaseConfig;
use crate::embedded::{self, Addresses, Embedded, EmbeddedConfig, EmbeddedError};
use crate::store::{MigrateError, check_version, migrate};

/// Why there is no database to work with, in one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A setting that is no URL of PostgreSQL. Its text is not shown: it may hold a password.
    #[error("{key} is no URL of a PostgreSQL database: write postgres://user:password@host/database")]
    Url {
        /// Which setting.
        key: &'static str,
    },
    /// Who owns the schema must be known for this.
    #[error("this needs the owner of the schema: set database.owner_url")]
    NoOwner,
    /// `database.owner_url` alone.
    #[error(
        "database.owner_url is set and database.url is not: name there the role that serves, which \
         `apixx-mcp migrate` makes"
    )]
    NoServer,
    /// A private PostgreSQL that nobody started yet.
    #[error(
        "there is no installation in {0}: set database.url or --data-dir, or start `apixx-mcp serve` once, which makes one"
    )]
    Nowhere(PathBuf),
    /// The private PostgreSQL did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The schema cannot be used, or the database not be reached.
    #[error(transparent)]
    Schema(#[from] MigrateError),
}

/// A database with this program's schema.
#[derive(Debug)]
pub struct Database {
    /// Connects as the role that serves.
    pub server: PgConnectOptions,
    owner: Option<PgConnectOptions>,
    private: Option<Private>,
}

/// A PostgreSQL that no operator set up.
#[derive(Debug)]
struct Private {
    addresses: Addresses,
    /// What ends it with this process; another process of ours keeps it running otherwise.
    ours: Option<Embedded>,
}

/// What is done when another process has the private PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It is used along with it.
    Welcome,
    /// That is an error.
    Refused,
}

impl Database {
    /// Nothing, if there is one: of a directory that somebody mistyped no command may make an empty installation.
    ///
    /// # Errors
    /// [`DatabaseError::Nowhere`].
    pub fn must_exist(config: &DatabaseConfig) -> Result<(), DatabaseError> {
        let private = config.url.is_none() && config.owner_url.is_none();
        if private && !Embedded::exists(&config.data_dir) {
            return Err(DatabaseError::Nowhere(config.data_dir.clone()));
        }
        Ok(())
    }

    /// Reaches for the database that is configured, or else starts the private one, or joins the process that has
    /// started it; whether its schema fits is not looked at.
    ///
    /// # Errors
    /// In one line for the operator.
    pub async fn reach(config: &DatabaseConfig, sharing: Sharing) -> Result<Self, DatabaseError> {
        if let Some(url) = &config.url {
            let server = options("database.url", url)?;
            let owner =
                config.owner_url.as_ref().map(|url| options("database.owner_url", url)).transpose()?;
            return Ok(Self { server, owner, private: None });
        }
        if config.owner_url.is_some() {
            return Err(DatabaseError::NoServer);
        }
        let place = EmbeddedConfig { data_dir: config.data_dir.clone(), bin_dir: config.pg_bin_dir.clone() };
        let private = Private::ready(place, sharing).await?;
        let addresses = &private.addresses;
        Ok(Self {
            server: addresses.server_options(embedded::DATABASE),
            owner: Some(addresses.owner_options(embedded::DATABASE)),
            private: Some(private),
        })
    }

    /// A database whose schema is this program's. A private one is migrated, since nobody else can; one that
    /// somebody set up is only looked at.
    ///
    /// # Errors
    /// In one line for the operator.
    pub async fn open(config: &DatabaseConfig, sharing: Sharing) -> Result<Self, DatabaseError> {
        let database = Self::reach(config, sharing).await?;
        let checked = match (check_version(&database.server).await, &database.private, &database.owner) {
            // (one that fits, too: the start before may have been cut off between the schema and the rights to it)
            (Err(MigrateError::Older { .. }), Some(_), Some(owner))
            | (Ok(()), Some(Private { ours: Some(_), .. }), Some(owner)) => {
                migrate(owner, embedded::SERVER, None).await
            }
            (checked, ..) => checked,
        };
        if let Err(error) = checked {
            database.close(PATIENCE).await;
            return Err(error.into());
        }
        Ok(database)
    }

    /// Connects as who owns the schema and sees all customers.
    ///
    /// # Errors
    /// When nobody said how.
    pub fn owner(&self) -> Result<&PgConnectOptions, DatabaseError> {
        self.owner.as_ref().ok_or(DatabaseError::NoOwner)
    }

    /// The private PostgreSQL that this process keeps running.
    pub fn embedded(&self) -> Option<&Embedded> {
        self.private.as_ref()?.ours.as_ref()
    }

    /// How to connect to the private PostgreSQL, whoever keeps it running.
    pub fn addresses(&self) -> Option<&Addresses> {
        self.private.as_ref().map(|private| &private.addresses)
    }

    /// Waits until the process that keeps the private PostgreSQL of this one running has ended; for ever where it is ours
    /// or the operator's.
    pub async fn until_left(&self) {
        match &self.private {
            Some(Private { ours: None, addresses }) => addresses.until_left().await,
            _ => std::future::pending().await,
        }
    }

    /// Ends the private PostgreSQL if it is ours; it has `patience` to write down what it knows.
    pub async fn close(self, patience: Duration) {
        if let Some(embedded) = self.private.and_then(|private| private.ours) {
            embedded.stop_within(patience).await;
        }
    }
}

impl Private {
    /// Starts it, or joins the process that has; one that is only starting is waited for.
    async fn ready(place: EmbeddedConfig, sharing: Sharing) -> Result<Self, EmbeddedError> {
        let begun = Instant::now();
        loop {
            let in_use = match Embedded::start(place.clone()).await {
                Ok(embedded) => {
                    return Ok(Self { addresses: embedded.addresses().clone(), ours: Some(embedded) });
                }
                Err(error @ EmbeddedError::InUse { .. }) if sharing == Sharing::Welcome => error,
                Err(error) => return Err(error),
            };
            if let Ok(addresses) = Addresses::of_running(&place.data_dir)
                && let Ok(there) = addresses.server_options(embedded::DATABASE).connect().await
            {
                let _closed = there.close().await;
                tracing::info!("using the private PostgreSQL of another process, and only while that runs");
                return Ok(Self { addresses, ours: None });
            }
            if begun.elapsed() > STARTING {
                return Err(in_use);
            }
            sleep(LOOK).await;
        }
    }
}

/// Brings the database to this program's schema, as its owner, and makes the role that serves, with the
/// password that `database.url` gives it.
///
/// # Errors
/// In one line for the operator.
pub async fn bring_up(config: &DatabaseConfig) -> Result<(), DatabaseError> {
    let (Some(url), Some(owner_url)) = (&config.url, &config.owner_url) else {
        if config.url.is_some() {
            return Err(DatabaseError::NoOwner);
        }
        let database = Database::open(config, Sharing::Welcome).await?;
        database.close(PATIENCE).await;
        return Ok(());
    };
    let server = options("database.url", url)?;
    let owner = options("database.owner_url", owner_url)?;
    migrate(&owner, server.get_username(), password(url.expose_secret()).as_deref()).await?;
    Ok(())
}

/// How long another process may take to make and start a private PostgreSQL.
const STARTING: Duration = Duration::from_secs(20);

/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// How long a private PostgreSQL that served one command may take to end.
pub const PATIENCE: Duration = Duration::from_secs(4);

fn options(key: &'static str, url: &SecretString) -> Result<PgConnectOptions, DatabaseError> {
    let url = url.expose_secret();
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let options = known.then(|| url.parse().ok()).flatten();
    options.ok_or(DatabaseError::Url { key })
}

/// The password in a URL (RFC 3986 section 3.2.1).
fn password(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    percent_encoding::percent_decode_str(password).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_url_is_decoded() {
        let table = [
            ("postgres://apixx_server:secret@db/apixx", Some("secret")),
            ("postgres://apixx_server:s%40c%2Fr%3Aet@db:5432/apixx?sslmode=require", Some("s@c/r:et")),
            ("postgres://apixx_server@db/apixx", None),
            ("postgresql:///apixx?host=/run/pg&user=x", None),
        ];
        for (url, expected) in table {
            assert_eq!(password(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_named_and_not_shown() {
        for wrong in
            ["mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d", "hunter2", "postgres://[hunter2"]
        {
            let message = options("database.url", &wrong.into()).unwrap_err().to_string();
            assert!(message.starts_with("database.url ") && !message.contains("hunter2"), "{message}");
        }
    }
}
