//! A large installation: many customers, runs by the million, the same at every call. What tools read from roll-ups
//! is rolled up from what was copied, so that a recount agrees.
//!
//! Three kinds of customer answer three questions. The *wide* one (2,000 flows, 200 connectors) has the same runs
//! whatever the size of the rest: what do other people's runs cost? The *deep* one (20 flows, one with two million
//! errors) has its share of all runs: what do one's own cost? The others are the rest.

mod copy;
mod runs;
mod workspaces;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::domain::token::PlainToken;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

#[allow(unused_imports, reason = "each of the programs that share this file uses a part of it")]
pub use workspaces::flow_name;

/// Days of history before [`now`].
pub const DAYS: i64 = 90;

/// How large.
#[derive(Clone, Copy, Debug)]
pub struct Large {
    /// Runs of all customers.
    pub runs: u64,
    /// Customers.
    pub customers: usize,
    /// Flows of the wide customer.
    pub flows: usize,
    /// Connectors of the wide customer.
    pub connectors: usize,
    /// Runs of the wide customer, whatever `runs` is.
    pub wide_runs: u64,
    /// Errors on the deep customer's first flow.
    pub errors: u64,
}

impl Large {
    /// The installation with so many runs.
    pub fn of(runs: u64) -> Self {
        let wide_runs = 300_000.min(runs / 3);
        Self { runs, customers: 500, flows: 2_000, connectors: 200, wide_runs, errors: 2_000_000 }
    }

    /// The flows of the customer at `place`.
    fn flows_of(&self, place: usize) -> usize {
        match place {
            WIDE => self.flows,
            DEEP => 20,
            _ => 8,
        }
    }

    /// The connectors of the customer at `place`.
    fn connectors_of(&self, place: usize) -> usize {
        match place {
            WIDE => self.connectors,
            DEEP => 10,
            _ => 6,
        }
    }

    /// The connectors that a flow reads and writes.
    fn sides(&self, place: usize, flow: usize) -> (String, String) {
        let count = self.connectors_of(place);
        let source = flow % count;
        let destination = (source + 1 + flow / count % (count - 1)) % count;
        (connector_id(place, source), connector_id(place, destination))
    }
}

/// The place of the customer with many flows.
pub const WIDE: usize = 0;
/// The place of the customer with many runs and errors.
pub const DEEP: usize = 1;

/// The flow of the wide and of the deep customer whose newest run has an incident of one size.
#[allow(dead_code, reason = "each of the programs that share this file uses a part of it")]
pub const INCIDENT: usize = 7;

/// The moment at which all of it is seen: 2026-11-21T08:07:37Z.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_248_457, 0).unwrap()
}

/// The token of the customer at `place`.
pub fn token(place: usize) -> PlainToken {
    PlainToken::new(&IdSource::seeded(Clock::fixed(now()), 1_000 + place as u64))
}

/// The id of the customer at `place`.
pub fn customer_id(place: usize) -> String {
    id("cus", place)
}

/// The id of a flow.
pub fn flow_id(customer: usize, flow: usize) -> String {
    id("flow", customer * 10_000 + flow)
}

/// The id of a connector.
pub fn connector_id(customer: usize, connector: usize) -> String {
    id("con", customer * 10_000 + connector)
}

fn group_id(customer: usize, flow: usize, kind: usize) -> String {
    id("eg", (customer * 10_000 + flow) * 100 + kind)
}

/// As long as the ids that the product makes.
fn id(prefix: &str, number: usize) -> String {
    format!("{prefix}_01k8{number:022}")
}

/// Fills an empty, migrated database. `admin` connects to it as a superuser: foreign keys rest while rows are
/// copied, and secondary indexes are made afterwards, which is several times faster.
pub async fn seed(admin: &PgConnectOptions, large: &Large) {
    let options = admin.clone().options([
        ("session_replication_role", "replica"),
        ("synchronous_commit", "off"),
        ("maintenance_work_mem", "1GB"),
        ("work_mem", "256MB"),
        ("timezone", "UTC"),
    ]);
    let pool = PgPool::connect_with(options.clone()).await.unwrap();
    let mut conn = options.connect().await.unwrap();
    let indexes = drop_indexes(&mut conn).await;
    let past = runs::put(*large, &pool).await;
    workspaces::put(&mut conn, large, &past).await;
    for text in ROLL_UPS.into_iter().chain(indexes.iter().map(String::as_str)) {
        let began = std::time::Instant::now();
        run(&mut conn, text).await;
        eprintln!(
            "{:>6.1} s  {}",
            began.elapsed().as_secs_f64(),
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(90).collect::<String>()
        );
    }
    run(&mut conn, "vacuum (freeze, analyze)").await;
    conn.close().await.unwrap();
    pool.close().await;
}

/// The same arithmetic as that of a run that ends.
const ROLL_UPS: [&str; 3] = [
    "insert into run_stats (customer_id, flow_id, grain, at, status, trigger, source_connector_id,
            destination_connector_id, runs, partial, failed, cancelled, skipped, records_read, records_written,
            records_failed, records_skipped, records_unchanged, bytes_written)
     select customer_id, flow_id, grain, date_trunc(grain, finished_at, 'UTC'), s.status, trigger, source_connector_id,
            destination_connector_id, count(*), count(*) filter (where r.status = 'partial'),
            count(*) filter (where r.status = 'failed'), count(*) filter (where r.status = 'cancelled'),
            count(*) filter (where r.status = 'skipped'), sum(records_read), sum(records_written), sum(records_failed),
            sum(records_skipped), sum(records_unchanged), sum(bytes_written)
       from runs r
      cross join (values ('hour'), ('day')) g (grain)
      cross join lateral (select '' union all select r.status where r.status <> 'succeeded') s (status)
      where finished_at is not null
      group by 1, 2, 3, 4, 5, 6, 7, 8
      order by 4",
    "insert into run_stats (customer_id, flow_id, grain, at, status, trigger, source_connector_id,
            destination_connector_id, runs, partial, failed, cancelled, skipped, records_read, records_written,
            records_failed, records_skipped, records_unchanged, bytes_written)
     select customer_id, '', grain, at, status, trigger, '', '', sum(runs), sum(partial), sum(failed), sum(cancelled),
            sum(skipped), sum(records_read), sum(records_written),
            sum(records_failed), sum(records_skipped), sum(records_unchanged), sum(bytes_written)
       from run_stats
      group by 1, 3, 4, 5, 6
      order by 4",
    "insert into error_stats (customer_id, flow_id, grain, level, at, key, errors, runs)
     select r.customer_id, r.flow_id, grain.grain, l.level, date_trunc(grain.grain, r.finished_at, 'UTC'), l.key,
            sum(c.count)::bigint, count(distinct r.run_id)
       from runs r
       join run_error_counts c on c.customer_id = r.customer_id and c.run_id = r.run_id
       join error_groups g on g.customer_id = c.customer_id and g.group_id = c.group_id
      cross join (values ('hour'), ('day')) grain (grain)
      cross join lateral (values ('all', ''), ('class', g.error_class), ('code', g.code),
                                 ('field', coalesce(g.field, '(none)')), ('group', g.group_id)) l (level, key)
      where r.finished_at is not null
      group by 1, 2, 3, 4, 5, 6
      order by 5",
];

/// Drops the indexes that no constraint needs from the tables that grow; returns what makes them again.
async fn drop_indexes(conn: &mut PgConnection) -> Vec<String> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "select i.indexname::text, i.indexdef
           from pg_indexes i
          where i.schemaname = 'public'
            and i.tablename in ('runs', 'run_errors', 'run_error_counts', 'run_stats', 'error_stats')
            and not exists (select 1 from pg_constraint c where c.conname = i.indexname)
          order by 1",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let mut again = Vec::new();
    for (name, text) in found {
        run(conn, &format!("drop index {name}")).await;
        again.push(text);
    }
    // Nothing refers to the roll-ups by their keys.
    for table in ["run_stats", "error_stats"] {
        let key: String =
            sqlx::query_scalar("select pg_get_constraintdef(oid) from pg_constraint where conname = $1")
                .bind(format!("{table}_pkey"))
                .fetch_one(&mut *conn)
                .await
                .unwrap();
        run(conn, &format!("alter table {table} drop constraint {table}_pkey")).await;
        again.push(format!("alter table {table} add constraint {table}_pkey {key}"));
    }
    again
}

async fn run(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(conn).await.unwrap();
}
