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
use apixx_mcp::store::cluster;
use sha2::{Digest, Sha256};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let keeper = keeper();
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut owner = keeper.owner.connect().await.expect("the test server answers");
        cluster::copy_database(&mut owner, &name, &keeper.template)
            .await
            .expect("the template can be copied");
        Self {
            owner: keeper.owner.clone().database(&name),
            server: keeper.server.clone().database(&name),
            name,
        }
    }
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
    let owner = server.owner_options(embedded::DATABASE);
    let keeper =
        Keeper { owner: owner.clone(), server: server.server_options(embedded::DATABASE), template, unused };
    ready.send(Ok(keeper)).expect("a test waits");
    while let Some(name) = names.recv().await {
        let mut owner = owner.connect().await.expect("the test server answers");
        cluster::drop_database(&mut owner, &name).await.expect("a test's database can be dropped");
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
    let owner = server.owner_options(embedded::DATABASE);
    let mut connection = owner.connect().await?;
    for leftover in cluster::databases(&mut connection, "test_").await? {
        cluster::drop_database(&mut connection, &leftover).await?;
    }
    let template = template_name()?;
    let mut found = false;
    for name in cluster::databases(&mut connection, "template_").await? {
        if name == template {
            found = true;
        } else {
            cluster::drop_database(&mut connection, &name).await?;
        }
    }
    if !found {
        // Named only when whole.
        let unfinished = format!("{template}_new");
        cluster::copy_database(&mut connection, &unfinished, "template1").await?;
        apixx_mcp::store::migrate(&owner.clone().database(&unfinished), embedded::SERVER, None).await?;
        cluster::rename_database(&mut connection, &unfinished, &template).await?;
    }
    Ok((lock, server, template))
}

/// A place per build directory, outside of it: PostgreSQL's own user may not be able to enter that.
fn data_dir() -> anyhow::Result<PathBuf> {
    let build = hex(env!("CARGO_TARGET_TMPDIR").as_bytes());
    let user = nix::unistd::geteuid();
    let parent = std::env::temp_dir().join(format!("apixx-mcp-tests-{user}"));
    fs::create_dir_all(&parent)?;
    Ok(parent.join(build))
}

/// Another name for every state of the migrations.
fn template_name() -> anyhow::Result<String> {
    // The rights of the server's role are part of it.
    let mut all = include_bytes!("../../../src/store/migrate.rs").to_vec();
    for (name, text) in migrations()? {
        all.extend_from_slice(name.as_bytes());
        all.push(0);
        all.extend_from_slice(text.as_bytes());
        all.push(0);
    }
    Ok(format!("template_{}", hex(&all)))
}

/// Names and texts of the migrations, in order.
fn migrations() -> anyhow::Result<Vec<(String, String)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).into_iter().flatten() {
        let entry = entry?;
        let text = fs::read_to_string(entry.path()).with_context(|| entry.path().display().to_string())?;
        found.push((entry.file_name().to_string_lossy().into_owned(), text));
    }
    found.sort();
    Ok(found)
}

/// The first 12 digits of a digest.
fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}
