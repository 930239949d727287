//! Lab: carelessly exported files go into tables of Lab's own database, and from table to table, for real.

use std::collections::BTreeMap;
use std::time::Duration;

use apixx_mcp::demo::{self, lab};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::engine::connectors::{Connectors, Pacer};
use apixx_mcp::engine::{Engine, EngineSettings};
use apixx_mcp::store::retention::Retention;
use apixx_mcp::store::{Store, Wakes, migrate};
use chrono::{DateTime, TimeDelta};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio_util::sync::CancellationToken;

const ROLE: &str = "apixx_lab";

struct Lab {
    postgres: Embedded,
    files: tempfile::TempDir,
    _data: tempfile::TempDir,
    clock: Clock,
    store: Store,
    engine: Engine,
    /// Sees what the server wrote of its runs.
    owner: PgConnection,
    /// Sees Lab's own tables.
    tables: PgConnection,
}

impl Lab {
    async fn start() -> Self {
        let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = EmbeddedConfig { data_dir: data.path().join("postgres"), bin_dir: None };
        let postgres = Embedded::start(config).await.unwrap();
        postgres.ensure_role(ROLE).await.unwrap();
        postgres.ensure_database(ROLE, ROLE).await.unwrap();
        let addresses = postgres.addresses();
        let (owner, tables) =
            (addresses.owner_options(embedded::DATABASE), addresses.role_options(ROLE, ROLE));
        migrate(&owner, embedded::SERVER, None).await.unwrap();

        let clock = Clock::fixed("2026-11-21T08:07:00Z".parse().unwrap());
        let ids = IdSource::seeded(clock.clone(), 1);
        let server = addresses.server_options(embedded::DATABASE);
        let store = Store::connect(&server, 4, Duration::from_secs(10), clock.clone(), ids).await.unwrap();
        lab::write_files(files.path()).unwrap();
        demo::seed(&store, &[]).await.unwrap();
        let connectors = Connectors {
            files_roots: BTreeMap::from([(lab::NAME.to_owned(), files.path().to_owned())]),
            postgres_dsns: BTreeMap::from([(lab::NAME.to_owned(), tables.clone())]),
            own: store.identity().await.unwrap(),
            pacer: Pacer::Instant,
            clock: clock.clone(),
        };
        let settings = EngineSettings {
            workers: 2,
            lease: TimeDelta::seconds(60),
            heartbeat: Duration::from_secs(15),
            poll: Duration::from_millis(20),
            seen_every: TimeDelta::seconds(5),
            page_records: 500,
            no_progress: TimeDelta::minutes(30),
            retention: Retention { audit_days: 400, usage_days: 400, stats_days: 400 },
        };
        let engine = Engine::new(store.clone(), Wakes::default(), settings, connectors, "worker-1");
        let (owner, tables) = (owner.connect().await.unwrap(), tables.connect().await.unwrap());
        Self { postgres, files, _data: data, clock, store, engine, owner, tables }
    }

    /// Fires what is due and works until nothing is left.
    async fn work(&self) {
        self.engine.schedule_tick().await.unwrap();
        while self.engine.worker().tick(&CancellationToken::new()).await.unwrap() > 0 {}
    }

    /// How the last run of a flow ended: `partial 611 560 43 8`.
    async fn last_run(&mut self, alias: &str) -> String {
        let query = format!(
            "select concat_ws(' ', r.status, r.reason_code, r.records_read, r.records_written, r.records_failed, r.records_skipped)
               from flow_names n join runs r using (customer_id, flow_id)
              where n.label = '{alias}' order by r.queued_at desc, r.run_id desc limit 1"
        );
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.owner).await.unwrap()
    }

    /// The errors of the last run of a flow: `{"VALIDATION email": 14, …}`.
    async fn errors(&mut self, alias: &str) -> BTreeMap<String, i64> {
        let query = format!(
            "select concat_ws(' ', g.error_class, g.field), sum(c.count)::bigint
               from run_error_counts c join error_groups g using (customer_id, group_id)
              where c.run_id = (select r.run_id from flow_names n join runs r using (customer_id, flow_id)
                                 where n.label = '{alias}' order by r.queued_at desc, r.run_id desc limit 1)
              group by 1"
        );
        let rows: Vec<(String, i64)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut self.owner).await.unwrap();
        rows.into_iter().collect()
    }

    async fn table<T>(&mut self, query: &'static str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        sqlx::query_as(query).fetch_all(&mut self.tables).await.unwrap()
    }

    async fn end(self) {
        self.store.close().await;
        drop((self.owner, self.tables));
        self.postgres.stop().await;
    }
}

/// What an order of the file comes to, worked out without the product: its id, customer, status and total.
fn good_order(line: &str) -> Option<(String, i64, String, f64)> {
    let order: Value = serde_json::from_str(line).ok()?;
    let currency = order.get("currency")?.as_str()?.to_uppercase();
    let status = order.get("status")?.as_str()?.to_lowercase();
    let at = DateTime::parse_from_rfc3339(order.get("ordered_at")?.as_str()?);
    let total = match order.get("total")? {
        Value::String(text) => text.parse().ok()?,
        number => number.as_f64()?,
    };
    let good = ["EUR", "CHF", "SEK"].contains(&currency.as_str())
        && ["paid", "shipped", "refunded", "cancelled"].contains(&status.as_str())
        && at.is_ok()
        && total >= 0.0;
    let id = order.get("order_id")?.as_str()?.to_owned();
    let customer = order.get("customer_id")?.as_i64()?;
    good.then_some((id, customer, status, total))
}

#[tokio::test]
async fn lab_moves_its_files_into_tables_and_says_what_it_rejected() {
    let mut lab = Lab::start().await;
    lab.work().await;

    // Customers: 613 lines, three of them broken, twelve of test accounts.
    assert_eq!(lab.last_run("Lab customers").await, "partial 613 546 55 12");
    let expected = [
        ("DUPLICATE customer_id", 10),
        ("REQUIRED_FIELD customer_id", 3),
        ("REQUIRED_FIELD email", 9),
        ("SCHEMA", 3),
        ("TRANSFORM phone", 3),
        ("TRANSFORM signed_up_on", 6),
        ("TYPE customer_id", 2),
        ("TYPE lifetime_value", 5),
        ("VALIDATION email", 14),
        ("VALIDATION lifetime_value", 4),
    ];
    let errors = lab.errors("Lab customers").await;
    assert_eq!(errors, expected.into_iter().map(|(key, count)| (key.to_owned(), count)).collect());
    // The negative values only warn; everything else rejects a line.
    assert_eq!(errors.values().sum::<i64>() - 4, 55);
    let countries: Vec<(i64, i64)> = lab
        .table("select count(*), count(*) filter (where country !~ '^[A-Z]{2}$' or email <> lower(email)) from public.customers")
        .await;
    assert_eq!(countries, [(546, 0)]);

    // Orders, against an account of the file that knows nothing of the product.
    let text = std::fs::read_to_string(lab.files.path().join("orders.jsonl")).unwrap();
    let orders: BTreeMap<String, (i64, String, f64)> = text
        .lines()
        .filter_map(good_order)
        .map(|(id, customer, status, total)| (id, (customer, status, total)))
        .collect();
    let written: Vec<(String, i64, String, f64)> =
        lab.table("select order_id, customer_id::bigint, status, total::float8 from public.orders").await;
    let written: BTreeMap<String, (i64, String, f64)> =
        written.into_iter().map(|(id, customer, status, total)| (id, (customer, status, total))).collect();
    assert_eq!(written, orders);
    let lines = text.lines().count();
    let run = lab.last_run("Lab orders").await;
    let counts: Vec<usize> = run.split(' ').skip(1).map(|count| count.parse().unwrap()).collect();
    assert!(run.starts_with("partial ") && counts[0] == lines && counts[1] == orders.len(), "{run}");
    assert_eq!(counts[1] + counts[2] + counts[3], lines);
    assert_eq!(lab.last_run("Lab products").await, "partial 180 165 6 9");

    // From table to table, a minute later.
    lab.clock.advance(TimeDelta::seconds(61));
    lab.work().await;
    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (customer, status, total) in orders.values() {
        if status == "paid" || status == "shipped" {
            let entry = totals.entry(*customer).or_default();
            *entry = (entry.0 + 1, entry.1 + (total * 100.0).round() as i64);
        }
    }
    let written: Vec<(i64, i64, i64)> = lab
        .table(
            "select customer_id::bigint, orders::bigint, round(spent * 100)::bigint from public.order_totals",
        )
        .await;
    assert_eq!(
        written
            .into_iter()
            .map(|(customer, orders, cents)| (customer, (orders, cents)))
            .collect::<BTreeMap<_, _>>(),
        totals
    );
    let given_back =
        orders.values().filter(|(_, status, _)| status == "refunded" || status == "cancelled").count();
    let ledger = lab.last_run("Lab ledger").await;
    assert_eq!(ledger, format!("succeeded {} {given_back} 0 {}", orders.len(), orders.len() - given_back));

    // Nothing changed, so nothing changes; the ledger reads on from where it was.
    lab.clock.advance(TimeDelta::minutes(11));
    lab.work().await;
    assert_eq!(lab.last_run("Lab products").await, "partial 180 0 6 174");
    // Nine are filtered out, and what the destination has already is as good as what it takes.
    let why = "select health_reasons -> 0 ->> 'message' from flows where name = 'Products to Lab database'";
    let why: String = sqlx::query_scalar(why).fetch_one(&mut lab.owner).await.unwrap();
    assert_eq!(why, "the last run rejected 6 of 171 records (3.5 % >= 1.0 %)");
    assert_eq!(lab.last_run("Lab totals").await, format!("succeeded {0} 0 0 {0}", totals.len()));
    let ledger = lab.last_run("Lab ledger").await;
    let read: usize = ledger.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(ledger.starts_with("succeeded ") && read < 5 && ledger.contains(" 0 0 "), "{ledger}");

    // Meanwhile Acme's scripted systems ran and were checked, and stand as its story says.
    while lab.engine.check_tick().await.unwrap() > 0 {}
    let connectors: Vec<String> = sqlx::query_scalar(
        "select c.name || ' ' || c.status || coalesce(' resets ' || (q.resets_at at time zone 'UTC')::text, '')
           from connectors c left join connector_quotas q using (customer_id, connector_id)
          where c.customer_id = 'cus_acme' and (c.status <> 'healthy' or q.resets_at is not null) order by 1",
    )
    .fetch_all(&mut lab.owner)
    .await
    .unwrap();
    assert_eq!(
        connectors,
        [
            "HubSpot (Marketing) down resets 2026-11-22 00:00:00",
            "Payment API disabled",
            "Salesforce (Production) healthy resets 2026-11-22 00:00:00",
            "Shopify (EU Store) degraded",
        ]
    );
    let flows: Vec<String> = sqlx::query_scalar(
        "select r.flow_id || ' ' || r.status || ' ' || f.health from runs r join flows f using (customer_id, flow_id)
          where r.customer_id = 'cus_acme' and r.worker_id like 'worker-1%' order by 1",
    )
    .fetch_all(&mut lab.owner)
    .await
    .unwrap();
    let ran = |flow: &str| flows.iter().any(|line| line == flow);
    assert!(
        ran("flow_shopify_orders partial degraded") && ran("flow_order_lines succeeded healthy"),
        "{flows:?}"
    );
    assert!(
        ran("flow_hubspot_deals failed failing") && ran("flow_lead_scores succeeded healthy"),
        "{flows:?}"
    );

    // A later start leaves Lab's files and runs alone.
    std::fs::write(lab.files.path().join("products.json"), "[]").unwrap();
    lab::write_files(lab.files.path()).unwrap();
    assert_eq!(std::fs::read_to_string(lab.files.path().join("products.json")).unwrap(), "[]");
    lab.end().await;
}
