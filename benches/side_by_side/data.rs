//! The database that all servers are measured on, and what is asked of it.

use std::path::Path;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::{IdSource, TokenId};
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::{Store, migrate};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

/// Customers that ask, those with most runs.
const CUSTOMERS: i64 = 20;

/// Runs that each asks for, one after the other.
const RUNS: i64 = 16;

/// A running database that holds the seeded past.
pub struct Data {
    pub postgres: Embedded,
    pub server_url: String,
    pub owner_url: String,
    pub postmaster: u32,
    pub customers: Vec<Customer>,
}

/// One who asks.
pub struct Customer {
    pub id: String,
    pub token: String,
    /// Newest first.
    pub runs: Vec<(String, DateTime<Utc>)>,
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
        if !seeded.exists() {
            migrate(&owner, embedded::SERVER, None).await.expect("the schema");
            let clock = Clock::system();
            let ids = IdSource::random(clock.clone());
            let server = addresses.server_options(embedded::DATABASE);
            let store = Store::connect(&server, 1, std::time::Duration::from_secs(5), clock, ids);
            apixx_mcp::demo::seed(&store.await.expect("a store"), &[]).await.expect("a past");
            let _ = runs;
            std::fs::write(&seeded, "").expect("a mark");
        }
        let pool = PgPool::connect_with(owner).await.expect("the owner connects");
        let customers = customers(&pool).await;
        for statement in [
            // The limits are drawn on as ever; they are not what is measured.
            "update plans set requests_per_minute = 100000000, burst = 100000000, daily_requests = null",
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
    let largest: Vec<(String, String, DateTime<Utc>)> = sqlx::query_as(
        "select s.customer_id, u.user_id, max(s.hour)
           from run_stats s
           join lateral (select u.user_id from users u where u.customer_id = s.customer_id limit 1) u on true
          group by 1, 2 order by sum(s.runs) desc, 1 limit $1",
    )
    .bind(CUSTOMERS)
    .fetch_all(pool)
    .await
    .expect("customers");
    let ids = IdSource::random(Clock::system());
    let mut customers = Vec::new();
    for (id, user, newest) in largest {
        let token = PlainToken::new(&ids);
        sqlx::query(
            "insert into tokens (customer_id, token_id, user_id, name, digest, last_four, scopes, created_at)
             values ($1, $7, $2, 'Benchmark', $3, $4, $5, $6)",
        )
        .bind(&id)
        .bind(&user)
        .bind(token.digest().as_bytes())
        .bind(token.last_four())
        .bind(["flows:read", "runs:read", "connectors:read", "health:read", "sync:trigger", "payloads:read"])
        .bind(newest)
        .bind(TokenId::new(&ids).as_str())
        .execute(pool)
        .await
        .expect("a token");
        let until = newest + TimeDelta::hours(1);
        let since = until - TimeDelta::days(25);
        let runs = sqlx::query_as(
            "select run_id, window_at from runs
              where customer_id = $1 and window_at >= $2 and window_at < $3
              order by window_at desc, run_id desc limit $4",
        )
        .bind(&id)
        .bind(since)
        .bind(until)
        .bind(RUNS)
        .fetch_all(pool)
        .await
        .expect("runs");
        let flow = sqlx::query_scalar(
            "select flow_id from error_stats where customer_id = $1 group by 1 order by sum(errors) desc limit 1",
        )
        .bind(&id)
        .fetch_optional(pool)
        .await
        .expect("a flow");
        if let Some(flow) = flow {
            customers.push(Customer { id, token: token.reveal().to_owned(), runs, flow, since, until });
        }
    }
    customers
}
