//! The database that all servers are measured on, and what is asked of it.

use std::path::{Path, PathBuf};

use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::queries::ROWS;
use super::seed;

/// Customers that ask: the one with many flows, the one with many runs, and ordinary ones.
const CUSTOMERS: usize = 64;

/// Runs that each asks for, one after the other.
const RUNS: usize = 8;

/// A running database that holds the seeded past.
pub struct Data {
    pub postgres: Embedded,
    pub server_url: String,
    pub owner_url: String,
    pub postmaster: u32,
    /// The directory of its socket.
    pub socket: PathBuf,
    pub customers: Vec<Customer>,
}

/// One who asks.
pub struct Customer {
    pub id: String,
    pub token: String,
    /// Newest first.
    pub runs: Vec<(String, DateTime<Utc>)>,
    /// The last run of the first page.
    pub page_end: (String, DateTime<Utc>),
    pub flow: String,
    /// A window that holds these runs and more.
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

impl Data {
    /// Seeds about `runs` runs in `directory`, unless it holds a database already.
    pub async fn ready(directory: &Path, runs: u64) -> Self {
        let data_dir = directory.join("data");
        let seeded = directory.join("seeded");
        let postgres = Embedded::start(EmbeddedConfig { data_dir: data_dir.clone(), bin_dir: None }).await;
        let postgres = postgres.expect("PostgreSQL starts");
        let addresses = postgres.addresses();
        let owner = addresses.owner_options(embedded::DATABASE);
        let socket = owner.get_socket().expect("a private PostgreSQL has a socket").clone();
        if !seeded.exists() {
            migrate(&owner, embedded::SERVER, None).await.expect("the schema");
            let admin = addresses.role_options("postgres", embedded::DATABASE);
            seed::seed(&admin, &seed::Large::of(runs)).await;
            std::fs::write(&seeded, "").expect("a mark");
        }
        let pool = PgPool::connect_with(owner).await.expect("the owner connects");
        let customers = customers(&pool).await;
        for statement in [
            // The limits are drawn on as ever, with the burst of the largest plan; they are not what is measured.
            "update plans set requests_per_minute = 100000000, burst = 3000, daily_requests = null",
            "vacuum (analyze)",
            "checkpoint",
        ] {
            // What only an administrator may do is no loss.
            let _best_effort = sqlx::query(statement).execute(&pool).await;
        }
        pool.close().await;
        let url = |role| addresses.url(role, embedded::DATABASE);
        Self {
            server_url: url(embedded::SERVER),
            owner_url: url(embedded::OWNER),
            postmaster: postmaster(&data_dir),
            socket,
            customers,
            postgres,
        }
    }
}

fn postmaster(data_dir: &Path) -> u32 {
    let text = std::fs::read_to_string(data_dir.join("cluster/postmaster.pid")).expect("the database runs");
    text.lines().next().and_then(|line| line.parse().ok()).expect("its process")
}

async fn customers(pool: &PgPool) -> Vec<Customer> {
    let until = seed::now();
    let since = until - TimeDelta::days(30);
    let mut customers = Vec::new();
    for place in 0..CUSTOMERS {
        let id = seed::customer_id(place);
        let mut runs: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
            "select run_id, window_at from runs
              where customer_id = $1 and window_at >= $2 and window_at < $3
              order by window_at desc, run_id desc limit $4",
        )
        .bind(&id)
        .bind(since)
        .bind(until)
        .bind(ROWS - 1)
        .fetch_all(pool)
        .await
        .expect("runs");
        let page_end = runs.last().expect("a run").clone();
        runs.truncate(RUNS);
        let token = seed::token(place).reveal().to_owned();
        let flow = seed::flow_id(place, 0);
        customers.push(Customer { id, token, runs, page_end, flow, since, until });
    }
    customers
}
