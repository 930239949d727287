//! How fast runs are handed out: by the product's door, fair between customers and within each plan's limit; and from
//! a plain table of jobs by the usual `for update skip locked`. Eight workers each, a few at a time as workers do.

use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::data::Data;

const WORKERS: u32 = 8;

/// As many as a worker process has room for by default.
const AT_ONCE: i32 = 4;

/// A claim that does not come to an end is not waited for.
const LONGEST: Duration = Duration::from_secs(20);

const QUEUE: &str = "
    insert into runs (customer_id, run_id, flow_id, flow_version, source_connector_id, destination_connector_id, status,
                      trigger, queued_at, available_at)
    select f.customer_id, 'run_bench' || row_number() over (), f.flow_id, f.current_version, f.source_connector_id,
           f.destination_connector_id, 'queued', 'manual', $1, $1
      from flows f
     where f.state = 'active'
       and not exists (select 1 from runs r
                        where r.customer_id = f.customer_id and r.flow_id = f.flow_id
                          and r.status in ('queued', 'running', 'retrying', 'cancelling'))";
const JOBS: &str = "
    insert into bench_jobs (id, run_at)
    select n, $1 from generate_series(1, $2) n";
const CLAIM: &str = "select count(*) from claim_runs('bench', $1, $1 + interval '1 minute', $2)";
const PLAIN_CLAIM: &str = "
    with picked as (
        select id from bench_jobs where state = 'queued' order by run_at, id limit $2 for update skip locked),
    claimed as (
        update bench_jobs j set state = 'running', lease_until = $1 + interval '1 minute'
          from picked p where j.id = p.id returning j.id)
    select count(*) from claimed";

/// Claims a second in each round: the product's, and the plain ones.
pub async fn measure(data: &Data, rounds: usize) -> Vec<(f64, f64)> {
    let pool = |url: &str| {
        let options = url.parse::<sqlx::postgres::PgConnectOptions>().expect("a URL");
        let options = options.options([("plan_cache_mode", "force_generic_plan"), ("jit", "off")]);
        PgPoolOptions::new().min_connections(WORKERS).max_connections(WORKERS).connect_with(options)
    };
    let (server, owner) = (pool(&data.server_url).await, pool(&data.owner_url).await);
    let (server, owner) = (server.expect("the server's role connects"), owner.expect("the owner connects"));
    for text in [
        "drop table if exists bench_jobs",
        "create table bench_jobs (id bigint primary key, state text not null default 'queued', run_at timestamptz not null,
                                  lease_until timestamptz) with (fillfactor = 70)",
        "create index bench_jobs_queued on bench_jobs (run_at, id) where state = 'queued'",
        "update plans set max_concurrent_runs = 100000",
    ] {
        sqlx::query(text).execute(&owner).await.expect("it is prepared");
    }
    let mut found = Vec::new();
    for round in 0..rounds {
        eprintln!("claims, round {} of {rounds}", round + 1);
        let now = Utc::now();
        let queued = sqlx::query(QUEUE).bind(now).execute(&owner).await.expect("runs are queued");
        let queued = i64::try_from(queued.rows_affected()).expect("not that many");
        sqlx::query(JOBS).bind(now).bind(queued).execute(&owner).await.expect("jobs are queued");
        let mut rates = [0.0; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (pool, text) = if which == 0 { (&server, CLAIM) } else { (&owner, PLAIN_CLAIM) };
            rates[which] = claimed(pool, text).await;
        }
        found.push((rates[0], rates[1]));
        for text in ["delete from runs where run_id like 'run\\_bench%'", "truncate bench_jobs"] {
            sqlx::query(text).execute(&owner).await.expect("it is taken away");
        }
    }
    sqlx::query("drop table bench_jobs").execute(&owner).await.expect("it is taken away");
    found
}

/// Claims until nothing is left; how many a second.
async fn claimed(pool: &PgPool, text: &'static str) -> f64 {
    let began = Instant::now();
    let workers = (0..WORKERS).map(|_| async {
        let mut claimed = 0;
        while began.elapsed() < LONGEST {
            let count: i64 = sqlx::query_scalar(text)
                .bind(Utc::now())
                .bind(AT_ONCE)
                .fetch_one(pool)
                .await
                .expect("a claim");
            if count == 0 {
                break;
            }
            claimed += count;
        }
        claimed
    });
    let claimed: i64 = futures_util::future::join_all(workers).await.into_iter().sum();
    claimed as f64 / began.elapsed().as_secs_f64()
}
