//! A private PostgreSQL: installed programs, run under a supervisor of ours, so that nobody has to set up a
//! database first. A real server with real durability, reached through a socket that only we can open.
//!
//! Who may log in is decided by the system user at the other end of the socket
//! (<https://www.postgresql.org/docs/current/auth-peer.html>): ours and PostgreSQL's own, each as one of the
//! roles we made. There is no password and no `trust`.

mod account;
mod binaries;
mod error;
mod home;
mod process;
mod server;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::info;

pub use error::EmbeddedError;

use crate::store::cluster::{self, RoleRights};
use account::Account;
use binaries::Binaries;
use home::{Home, PORT};
use server::Setup;

/// The database that every cluster of ours has.
pub const DATABASE: &str = "apixx";

/// The role that owns the schema and migrates it.
pub const OWNER: &str = "apixx_owner";

/// The role that serves: owns nothing, and row-level security holds for it.
pub const SERVER: &str = "apixx_server";

/// The superuser, for the supervisor's own use.
const ADMIN: &str = "postgres";

/// How often a new role is tried before the server must have read its files again, 20 ms apart.
const RELOAD_TRIES: usize = 500;

/// Between two looks at whether another process still keeps the server running.
const LOOK: Duration = Duration::from_secs(1);

/// What the private PostgreSQL needs to know.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where everything is kept. Made if missing; ours alone.
    pub data_dir: PathBuf,
    /// Where PostgreSQL's programs are; searched for without it.
    pub bin_dir: Option<PathBuf>,
}

/// A running private PostgreSQL. End it with [`Embedded::stop`]; dropped, it is told to end as well, but
/// nobody waits for it.
pub struct Embedded {
    addresses: Addresses,
    access: Mutex<Access>,
    stop: oneshot::Sender<Duration>,
    supervisor: JoinHandle<()>,
}

/// How to connect to a private PostgreSQL, ours or that of another process of this user.
#[derive(Clone, Debug)]
pub struct Addresses {
    options: PgConnectOptions,
    data_dir: PathBuf,
    run_dir: PathBuf,
}

/// Who may log in, as files of the cluster.
struct Access {
    cluster: PathBuf,
    account: Account,
    roles: BTreeSet<String>,
}

impl Embedded {
    /// Starts the server on the data directory, making both the directory and the cluster when missing, and
    /// returns once it answers and has our roles and our database.
    ///
    /// # Errors
    /// Each in one line for the operator; what PostgreSQL said goes to the log.
    pub async fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let account = Account::choose(&config.data_dir)?;
        let home = Home::open(&config.data_dir, &account)?;
        let cluster_major = home.cluster_major();
        let binaries = Binaries::find(config.bin_dir.as_deref(), cluster_major)?;
        if let Some(cluster) = cluster_major.filter(|major| *major != binaries.major) {
            let installed = binaries.major;
            return Err(EmbeddedError::WrongVersion { dir: config.data_dir, cluster, installed });
        }
        let addresses = Addresses::at(home.root(), home.run());
        let access = Access {
            cluster: home.cluster(),
            account: account.clone(),
            roles: [ADMIN, OWNER, SERVER].map(str::to_owned).into(),
        };
        let admin = addresses.role_options(ADMIN, ADMIN);
        let setup = Setup { home, account, binaries, admin };
        if cluster_major.is_none() {
            setup.make_cluster().await?;
        }
        access.write().map_err(|source| EmbeddedError::Directory { dir: config.data_dir, source })?;
        let major = setup.binaries.major;
        let (server, mut admin) = setup.start().await?;
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(server.supervise(stopped));
        let embedded = Self { addresses, access: Mutex::new(access), stop, supervisor };
        if let Err(error) = embedded.furnish(&mut admin).await {
            embedded.stop().await;
            return Err(error);
        }
        info!("PostgreSQL {major} runs");
        Ok(embedded)
    }

    /// Whether there is a cluster in the data directory, or a process of ours that may be making one; what cannot be looked
    /// at may be.
    pub fn exists(data_dir: &Path) -> bool {
        home::has_cluster(data_dir) || home::is_in_use(data_dir)
    }

    /// How to connect to it.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Makes the plain login role `name` unless there is one, and lets us log in as it until the server
    /// stops.
    ///
    /// # Errors
    /// A name we do not give, or what the server refused.
    pub async fn ensure_role(&self, name: &str) -> Result<(), EmbeddedError> {
        check_name(name)?;
        let mut admin = self.admin().await?;
        cluster::ensure_role(&mut admin, name, RoleRights::Plain).await?;
        let mut access = self.access.lock().await;
        if !access.roles.insert(name.to_owned()) {
            return Ok(());
        }
        access.write().map_err(|source| EmbeddedError::Directory { dir: access.cluster.clone(), source })?;
        cluster::reload(&mut admin).await?;
        for _ in 1..RELOAD_TRIES {
            match self.addresses.role_options(name, ADMIN).connect().await {
                Ok(_) => return Ok(()),
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("28000") => {}
                Err(error) => return Err(error.into()),
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(self.addresses.role_options(name, ADMIN).connect().await.map(drop)?)
    }

    /// Makes the database `name`, owned by `owner_role`, unless there is one. Only its owner may connect.
    ///
    /// # Errors
    /// A name we do not give, or what the server refused.
    pub async fn ensure_database(&self, name: &str, owner_role: &str) -> Result<(), EmbeddedError> {
        check_name(name)?;
        Ok(cluster::ensure_database(&mut self.admin().await?, name, owner_role).await?)
    }

    /// Stops the server: at once for its clients, after writing down what it knows; after 4 seconds without
    /// that, in which case the next start recovers.
    pub async fn stop(self) {
        self.stop_within(server::PATIENCE).await;
    }

    /// As [`Embedded::stop`], with another time to write down.
    pub async fn stop_within(self, patience: Duration) {
        // A supervisor that is gone has nothing left to stop.
        let _told = self.stop.send(patience);
        let _ended = self.supervisor.await;
    }

    /// Our roles and our database.
    async fn furnish(&self, admin: &mut PgConnection) -> Result<(), EmbeddedError> {
        cluster::ensure_role(admin, OWNER, RoleRights::Owner).await?;
        // The owner makes the server's role, here as in a database that someone else runs, so that it may
        // change it later.
        let mut owner = self.addresses.owner_options(ADMIN).connect().await?;
        cluster::ensure_role(&mut owner, SERVER, RoleRights::Plain).await?;
        cluster::ensure_database(admin, DATABASE, OWNER).await?;
        cluster::allow_connect(admin, DATABASE, SERVER).await?;
        Ok(())
    }

    async fn admin(&self) -> sqlx::Result<PgConnection> {
        self.addresses.role_options(ADMIN, ADMIN).connect().await
    }
}

impl Addresses {
    /// Those of the server that another process keeps running on the data directory.
    ///
    /// # Errors
    /// What the file system says about the directory. Whether the server answers shows when connecting.
    pub fn of_running(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let failed = |source| EmbeddedError::Directory { dir: data_dir.to_owned(), source };
        let root = std::fs::canonicalize(data_dir).map_err(failed)?;
        let run_dir = home::run_dir(&root);
        home::check_run_dir(&run_dir, &Account::choose(&root)?).map_err(failed)?;
        Ok(Self::at(&root, &run_dir))
    }

    /// Waits until the process that keeps the server running has ended.
    pub async fn until_left(&self) {
        while home::is_in_use(&self.data_dir) {
            sleep(LOOK).await;
        }
    }

    fn at(data_dir: &Path, run_dir: &Path) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(run_dir)
            .port(PORT)
            .ssl_mode(PgSslMode::Disable)
            .application_name("apixx-mcp");
        Self { options, data_dir: data_dir.to_owned(), run_dir: run_dir.to_owned() }
    }

    /// Connects to `database` as its owner, who migrates.
    pub fn owner_options(&self, database: &str) -> PgConnectOptions {
        self.role_options(OWNER, database)
    }

    /// Connects to `database` as the role that serves.
    pub fn server_options(&self, database: &str) -> PgConnectOptions {
        self.role_options(SERVER, database)
    }

    /// Connects to `database` as `role`, which must be one of ours or made by [`Embedded::ensure_role`].
    pub fn role_options(&self, role: &str, database: &str) -> PgConnectOptions {
        self.options.clone().username(role).database(database)
    }

    /// The same as a URL, which `psql` and other clients take.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql:///{database}?host={}&port={PORT}&user={role}", encoded(&self.run_dir))
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("run_dir", &self.addresses.run_dir).finish_non_exhaustive()
    }
}

impl Access {
    /// Writes which system users may log in as which roles, over the socket, and take a base backup as one that may;
    /// everybody else is refused.
    fn write(&self) -> std::io::Result<()> {
        let hba = "# Written at every start.\nlocal all all peer map=apixx\n\
             local replication all peer map=apixx\nhost all all all reject\n";
        let mut ident = "# Written at every start.\n".to_owned();
        for user in self.account.names() {
            for role in &self.roles {
                ident += &format!("apixx \"{user}\" \"{role}\"\n");
            }
        }
        home::write(&self.cluster.join("pg_hba.conf"), hba, &self.account)?;
        home::write(&self.cluster.join("pg_ident.conf"), &ident, &self.account)
    }
}

/// Names that need no quotes anywhere.
fn check_name(name: &str) -> Result<(), EmbeddedError> {
    let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
    if plain && starts && name.len() <= 63 && !name.starts_with("pg_") {
        Ok(())
    } else {
        Err(EmbeddedError::Name { name: name.to_owned() })
    }
}

/// A path as part of a URL's query.
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte))
            }
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_no_quotes_are_given() {
        for good in ["apixx_lab", "lab2", "a"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "Lab", "2lab", "la b", "la\"b", "pg_lab", "läb", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_survives_the_url() {
        let url = format!("postgresql:///x?host={}", encoded("/data/a b&c=d/rün".as_ref()));
        let options: PgConnectOptions = url.parse().unwrap();
        assert_eq!(options.get_socket().unwrap(), std::path::Path::new("/data/a b&c=d/rün"));
    }
}
