//! PostgreSQL: the only place where SQL of ours stands.
//!
//! To touch a customer's row you must hold a [`Tenancy`], which only this module can give, from rows the
//! database returned. Row-level security is the second lock: every statement on a customer's tables sets
//! `app.customer_id` for itself, and checks in the same breath that the caller's token is still live.

#[macro_use]
mod statements;

pub mod checks;
mod claim_turn;
pub mod cluster;
mod columns;
mod connections;
pub mod connectors;
pub mod customers;
pub mod definitions;
mod error;
pub mod error_lists;
mod flow_detail;
mod flow_health;
mod flow_names;
pub mod flow_state;
pub mod flow_troubles;
pub mod flows;
mod history;
mod hours;
pub mod lease_writes;
pub mod leases;
mod migrate;
pub mod operator;
pub mod past;
mod past_errors;
pub mod people;
pub mod platform;
mod put_definitions;
pub mod queue;
pub mod queue_view;
pub mod retention;
mod run_cells;
pub mod run_detail;
mod run_end;
mod run_errors;
pub mod run_lists;
mod run_shapes;
pub mod runs;
pub mod scheduling;
mod tenancy;
pub mod tokens;
pub mod triggers;
pub mod usage;
mod wake;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;

pub use error::StoreError;
pub use migrate::{MigrateError, check_version, migrate};
pub use run_end::Ending;
pub use run_errors::{FoundErrors, MAX_SAMPLES, Sample};
pub use statements::all_statements;
pub use tenancy::{Reader, Tenancy, TenantTx};
pub use wake::Wakes;

use crate::domain::clock::Clock;
use crate::domain::ids::IdSource;
use crate::domain::page::CursorKey;
use claim_turn::ClaimTurn;
use connections::Connections;

/// The database as this process sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Connections,
    reads: Connections,
    clock: Clock,
    ids: IdSource,
    claim_turn: ClaimTurn,
}

/// Which database one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// The system identifier of its cluster.
    pub system: i64,
    /// Its name there.
    pub database: String,
    /// The roles that serve it and own it.
    pub roles: Vec<String>,
}

statements! {
    NOW = plain "select clock_timestamp()";
    CURSOR_KEY = plain "select cursor_key from installation";
    IDENTITY = plain "
        select s.system_identifier, current_database()::text, array[current_user::text, pg_get_userbyid(c.relowner)::text]
          from pg_control_system() s
          join pg_class c on c.oid = 'runs'::regclass";
}

impl Store {
    /// Connects as the server's role: at most `size` times for single reads, and as often for everything else.
    ///
    /// Plans are made once per statement and connection (`force_generic_plan`): otherwise a bound
    /// `limit` makes PostgreSQL plan every call anew.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(
        options: &PgConnectOptions,
        size: u32,
        acquire: Duration,
        clock: Clock,
        ids: IdSource,
    ) -> Result<Self, StoreError> {
        let options = options.clone().application_name("apixx-mcp").options([
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
            ("timezone", "UTC"),
            // A process that the network lost keeps what it had locked so long at most.
            ("idle_in_transaction_session_timeout", "30s"),
        ]);
        // (what nobody waits for any more PostgreSQL ends by itself)
        let readers = options.clone().options([("statement_timeout", "10s")]);
        let pool = Connections::new(options, size, acquire)?;
        pool.lend_well().await?.give_back();
        let reads = Connections::new(readers, size, acquire)?;
        Ok(Self { pool, reads, clock, ids, claim_turn: ClaimTurn::default() })
    }

    /// The clock of this process.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Where new ids come from.
    pub fn ids(&self) -> &IdSource {
        &self.ids
    }

    /// The connections for everything but single reads.
    fn pool(&self) -> &Connections {
        &self.pool
    }

    /// The connections for single statements that only read.
    fn reads(&self) -> &Connections {
        &self.reads
    }

    /// The database's own time, which the clocks of all processes follow.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn database_time(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar(NOW).fetch_one(&self.pool).await?)
    }

    /// Sets the clock to the database's, as far as a round trip can tell them apart.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn follow_clock(&self) -> Result<(), StoreError> {
        let asked = self.clock.now();
        let told = self.database_time().await?;
        let trip = self.clock.now() - asked;
        let behind = told - (asked + trip / 2);
        if behind.abs() > trip {
            self.clock.advance(behind);
        }
        Ok(())
    }

    /// The key that seals cursors, the same for every process of this installation.
    ///
    /// # Errors
    /// When the database fails, or was never migrated.
    pub async fn cursor_key(&self) -> Result<CursorKey, StoreError> {
        let bytes: Vec<u8> = sqlx::query_scalar(CURSOR_KEY).fetch_one(&self.pool).await?;
        let key = bytes.try_into().map_err(|_| StoreError::inconsistent("installation", "cursor_key"))?;
        Ok(CursorKey::new(&key))
    }

    /// Which database this is, so that no flow is pointed at it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn identity(&self) -> Result<DatabaseIdentity, StoreError> {
        let (system, database, roles) = sqlx::query_as(IDENTITY).fetch_one(&self.pool).await?;
        Ok(DatabaseIdentity { system, database, roles })
    }

    /// Closes every connection; statements under way end first.
    pub async fn close(&self) {
        tokio::join!(self.reads.close(), self.pool.close());
    }
}
