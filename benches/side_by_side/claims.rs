//! How fast runs are handed out: by the product to eight worker processes, customers in turn and none above its plan's
//! limit; and from a plain table of jobs by the usual `for update skip locked`. One at a time, as a worker asks that had
//! a run end, and as many as one asks for that has nothing to do.
//!
//! Both hand out as many: the runs that the plans allow, and as many jobs. What the plain one does not do is the product's
//! own cost: a run is a row that every list shows, in an index for each, and a job is in one.

use std::time::{Duration, Instant};

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::store::Store;
use chrono::{TimeDelta, Utc};
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::data::Data;

const WORKERS: u32 = 8;

/// How many a worker asks for: one, and as many as it has room for by default.
const AT_ONCE: [i32; 2] = [1, 4];

/// A claim that does not come to an end is not waited for.
const LONGEST: Duration = Duration::from_secs(20);

/// What was found in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Claims {
    /// How many a worker asked for.
    pub at_once: i32,
    /// Runs claimed a second.
    pub product: f64,
    /// Plain jobs claimed a second.
    pub plain: f64,
}

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
const ALLOWED: &str = "
    select coalesce(sum(greatest(0, least(q.queued, p.max_concurrent_runs - q.running))), 0)::bigint
      from (select customer_id, count(*) filter (where status = 'queued') as queued,
                   count(*) filter (where status in ('running', 'cancelling')) as running
              from runs
             where status in ('queued', 'running', 'cancelling') and origin = 'native'
             group by customer_id) q
      join customers c on c.customer_id = q.customer_id
      join plans p on p.plan_code = c.plan_code";
const JOBS: &str = "
    insert into bench_jobs (id, run_at)
    select n, $1 from generate_series(1, $2) n";
const PLAIN_CLAIM: &str = "
    with picked as (
        select id from bench_jobs where state = 'queued' order by run_at, id limit $2 for update skip locked),
    claimed as (
        update bench_jobs j set state = 'running', lease_until = $1 + interval '1 minute'
          from picked p where j.id = p.id returning j.id)
    select count(*) from claimed";

/// Runs and jobs claimed a second in each round. A first round, in which every connection plans its statements, does
/// not count.
pub async fn measure(data: &Data, rounds: usize) -> Vec<Claims> {
    let options: PgConnectOptions = data.server_url.parse().expect("a URL");
    let ids = IdSource::random(Clock::system());
    let patience = Duration::from_secs(5);
    let stores = (0..WORKERS).map(|_| Store::connect(&options, 1, patience, Clock::system(), ids.clone()));
    let stores = try_join_all(stores).await.expect("the server's role connects");
    let options: PgConnectOptions = data.owner_url.parse().expect("a URL");
    let options = options.options([("plan_cache_mode", "force_generic_plan"), ("jit", "off")]);
    let owner = PgPoolOptions::new().min_connections(WORKERS).max_connections(WORKERS).connect_with(options);
    let owner = owner.await.expect("the owner connects");
    for text in [
        "drop table if exists bench_jobs",
        "create table bench_jobs (id bigint primary key, state text not null default 'queued', run_at timestamptz not null,
                                  lease_until timestamptz) with (fillfactor = 70)",
        "create index bench_jobs_queued on bench_jobs (run_at, id) where state = 'queued'",
    ] {
        sqlx::query(text).execute(&owner).await.expect("it is prepared");
    }
    let mut found = Vec::new();
    for round in 0..=rounds {
        eprintln!("claims, round {round} of {rounds}");
        for at_once in AT_ONCE {
            let now = Utc::now();
            sqlx::query(QUEUE).bind(now).execute(&owner).await.expect("runs are queued");
            let allowed: i64 = sqlx::query_scalar(ALLOWED).fetch_one(&owner).await.expect("they are counted");
            sqlx::query(JOBS).bind(now).bind(allowed).execute(&owner).await.expect("jobs are queued");
            let (product, plain);
            if round % 2 == 0 {
                product = of_product(&stores, at_once).await;
                plain = of_plain(&owner, at_once).await;
            } else {
                plain = of_plain(&owner, at_once).await;
                product = of_product(&stores, at_once).await;
            }
            if round > 0 {
                found.push(Claims { at_once, product, plain });
            }
            for text in ["delete from runs where run_id like 'run\\_bench%'", "truncate bench_jobs"] {
                sqlx::query(text).execute(&owner).await.expect("it is taken away");
            }
        }
    }
    sqlx::query("drop table bench_jobs").execute(&owner).await.expect("it is taken away");
    join_all(stores.iter().map(Store::close)).await;
    found
}

/// The product's workers claim until nothing is left; how many a second.
async fn of_product(stores: &[Store], at_once: i32) -> f64 {
    let began = Instant::now();
    let workers = stores.iter().map(|store| async move {
        let mut claimed = 0;
        while began.elapsed() < LONGEST {
            let leases = store.claim_runs("bench", at_once, TimeDelta::minutes(1)).await.expect("a claim");
            if leases.is_empty() {
                break;
            }
            claimed += leases.len();
        }
        claimed
    });
    let claimed: usize = join_all(workers).await.into_iter().sum();
    claimed as f64 / began.elapsed().as_secs_f64()
}

/// The same of the plain table.
async fn of_plain(pool: &PgPool, at_once: i32) -> f64 {
    let began = Instant::now();
    let workers = (0..WORKERS).map(|_| async move {
        let mut claimed = 0;
        while began.elapsed() < LONGEST {
            let claim = sqlx::query_scalar(PLAIN_CLAIM).bind(Utc::now()).bind(at_once);
            let count: i64 = claim.fetch_one(pool).await.expect("a claim");
            if count == 0 {
                break;
            }
            claimed += count;
        }
        claimed
    });
    let claimed: i64 = join_all(workers).await.into_iter().sum();
    claimed as f64 / began.elapsed().as_secs_f64()
}
