//! Where the demo keeps its files, and what its flows may reach. Every command that works on a data directory in
//! which the demo was started once knows them, so that `apply` and `worker` find what `demo` promised.

use std::path::{Path, PathBuf};

use crate::app::database::Database;
use crate::config::{Config, DsnConfig};
use crate::demo::lab;
use crate::embedded::{Addresses, EmbeddedError};

/// What the operator's own files are called in a file connector: `root = "mine"`.
pub(super) const MINE: &str = "mine";

/// Lab's database and the role that owns it.
const LAB_DATABASE: &str = "apixx_lab";

/// The demo's files below a data directory.
#[derive(Clone, Debug)]
pub(super) struct Places {
    data_dir: PathBuf,
}

impl Places {
    pub(super) fn of(config: &Config) -> Self {
        Self { data_dir: config.database.data_dir.clone() }
    }

    /// The demo's own directory; where it is, the demo was started.
    pub(super) fn own(&self) -> PathBuf {
        self.data_dir.join("demo")
    }

    /// The tokens of the workspaces.
    pub(super) fn tokens(&self) -> PathBuf {
        self.own().join("tokens.json")
    }

    /// The files that Lab reads.
    pub(super) fn lab(&self) -> PathBuf {
        self.own().join("lab")
    }

    /// The reader's own files.
    pub(super) fn mine(&self) -> PathBuf {
        self.data_dir.join("files")
    }

    /// Makes the directories and Lab's files.
    pub(super) fn make(&self) -> Result<(), EmbeddedError> {
        let make = || {
            std::fs::create_dir_all(self.mine())?;
            lab::write_files(&self.lab())
        };
        make().map_err(|source| EmbeddedError::Directory { dir: self.data_dir.clone(), source })
    }
}

/// Lets flows reach what the demo promises, unless the operator gave the same names to something else.
pub(super) fn allow(config: &mut Config) -> Result<(), EmbeddedError> {
    let places = Places::of(config);
    if !places.own().is_dir() {
        return Ok(());
    }
    let engine = &mut config.engine;
    engine.files_roots.entry(lab::NAME.to_owned()).or_insert_with(|| places.lab());
    engine.files_roots.entry(MINE.to_owned()).or_insert_with(|| places.mine());
    if config.database.url.is_none() && !engine.postgres_dsns.contains_key(lab::NAME) {
        let url = Addresses::of_running(Path::new(&places.data_dir))?.url(LAB_DATABASE, LAB_DATABASE);
        engine.postgres_dsns.insert(lab::NAME.to_owned(), DsnConfig::at(url.into()));
    }
    Ok(())
}

/// Makes Lab's database, where the private PostgreSQL is ours and the demo was started.
pub(super) async fn ensure_lab(config: &Config, database: &Database) -> Result<(), EmbeddedError> {
    match database.embedded() {
        Some(embedded) if Places::of(config).own().is_dir() => {
            embedded.ensure_role(LAB_DATABASE).await?;
            embedded.ensure_database(LAB_DATABASE, LAB_DATABASE).await
        }
        _ => Ok(()),
    }
}
