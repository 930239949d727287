//! A database of its own for each test, in one private PostgreSQL per build directory.
//!
//! The first test that asks starts the server, on data that stays between runs; a second process of tests
//! waits until the first has ended. Every database is a copy of a migrated template.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;

use anyhow::Context;
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig, EmbeddedError};
use apixx_mcp::store::migrate;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The cluster's superuser, and a database where it can work.
const ADMIN: &str = "postgres";

/// A role that owns nothing of ours, for the databases that flows read and write.
pub const FLOWS: &str = "test_flows";

/// A migrated database that only this test uses. Dropped with this value.
pub struct TestDatabase {
    /// Connects as who owns and migrates it.
    pub owner: PgConnectOptions,
    /// Connects as the role that serves.
    pub server: PgConnectOptions,
    /// Its name.
    pub name: String,
}

impl TestDatabase {
    /// A fresh copy of the template.
    pub async fn create() -> Self {
        Self::copy_of(&keeper().template).await
    }

    /// A fresh copy of another database, to which nobody is connected.
    pub async fn copy_of(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let keeper = keeper();
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut owner = keeper.owner.connect().await.expect("the test server answers");
        let copy = format!("create database {name} template {template}");
        run(&mut owner, copy).await.expect("the template can be copied");
        Self {
            owner: keeper.owner.clone().database(&name),
            server: keeper.server.clone().database(&name),
            name,
        }
    }
}

/// A database that a flow may use, as a role that owns nothing else; dropped by the next start of the tests.
pub async fn flows_database() -> PgConnectOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}_lab", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let owner = &keeper().owner;
    let mut connection = owner.connect().await.expect("the test server answers");
    // Who makes a database for another role must belong to it; two tests may grant that at once.
    for statement in [
        format!("do $$ begin perform pg_advisory_xact_lock(4711); grant {FLOWS} to current_user; end $$"),
        format!("create database {name} owner {FLOWS}"),
    ] {
        run(&mut connection, statement).await.expect("a database can be made");
    }
    owner.clone().username(FLOWS).database(&name)
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // What is not dropped before the process ends, the next one drops.
        let _told = keeper().unused.send(std::mem::take(&mut self.name));
    }
}

/// The server, as the tests see it; a thread of its own keeps it, because a test's runtime ends with it.
struct Keeper {
    owner: PgConnectOptions,
    server: PgConnectOptions,
    template: String,
    unused: UnboundedSender<String>,
}

fn keeper() -> &'static Keeper {
    static KEEPER: OnceLock<Keeper> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let (ready, started) = mpsc::channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(keep(ready));
        });
        started.recv().expect("the keeper answers").expect("the test server starts")
    })
}

async fn keep(ready: mpsc::Sender<anyhow::Result<Keeper>>) {
    let (unused, mut names) = unbounded_channel();
    let (_lock, server, template) = match start().await {
        Ok(started) => started,
        Err(error) => return ready.send(Err(error)).expect("a test waits"),
    };
    let keeper = Keeper {
        owner: server.addresses().owner_options(embedded::DATABASE),
        server: server.addresses().server_options(embedded::DATABASE),
        template,
        unused,
    };
    ready.send(Ok(keeper)).expect("a test waits");
    let admin = server.addresses().role_options(ADMIN, ADMIN);
    while let Some(name) = names.recv().await {
        let mut admin = admin.connect().await.expect("the test server answers");
        drop_database(&mut admin, &name).await.expect("a test's database can be dropped");
    }
}

async fn start() -> anyhow::Result<(File, Embedded, String)> {
    let data_dir = data_dir()?;
    let lock = File::create(data_dir.with_extension("lock"))?;
    lock.lock()?;
    let config = EmbeddedConfig { data_dir, bin_dir: None };
    let server = match Embedded::start(config.clone()).await {
        // Nothing here is worth keeping when PostgreSQL was upgraded.
        Err(EmbeddedError::WrongVersion { .. }) => {
            fs::remove_dir_all(&config.data_dir)?;
            Embedded::start(config).await?
        }
        started => started?,
    };
    server.ensure_role(FLOWS).await?;
    let mut admin = server.addresses().role_options(ADMIN, ADMIN).connect().await?;
    let template = template_name()?;
    let left: Vec<String> = sqlx::query_scalar(
        r"select datname::text from pg_database
          where datname like 'test\_%' or datname like 'template\_%'",
    )
    .fetch_all(&mut admin)
    .await?;
    for name in left.iter().filter(|name| **name != template) {
        drop_database(&mut admin, name).await?;
    }
    if !left.contains(&template) {
        // Named only when whole.
        let unfinished = format!("{template}_new");
        run(&mut admin, format!("create database {unfinished} owner {}", embedded::OWNER)).await?;
        migrate(&server.addresses().owner_options(&unfinished), embedded::SERVER, None).await?;
        run(&mut admin, format!("alter database {unfinished} rename to {template}")).await?;
    }
    Ok((lock, server, template))
}

/// Drops a database with whoever is connected to it, which only the administrator may.
async fn drop_database(admin: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    run(admin, format!("drop database if exists {name} with (force)")).await
}

/// Runs a statement on databases, whose names are all made here.
async fn run(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

/// A place per build directory, outside of it: PostgreSQL's own user may not be able to enter that.
fn data_dir() -> anyhow::Result<PathBuf> {
    let build = hex(env!("CARGO_TARGET_TMPDIR").as_bytes());
    let user = nix::unistd::geteuid();
    let parent = std::env::temp_dir().join(format!("apixx-mcp-tests-{user}"));
    fs::create_dir_all(&parent)?;
    Ok(parent.join(build))
}

/// Another name for every state of what migrates.
fn template_name() -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("src/store/migrate.rs")];
    for entry in fs::read_dir(root.join("migrations"))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(fs::read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(format!("template_{}", hex(&all)))
}

/// The first 12 digits of a digest.
fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
