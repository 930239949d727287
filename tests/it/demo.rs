//! The demo workspaces: what they show at any hour, checked with SQL against the seeded database.

use std::time::{Duration, Instant};

use apixx_mcp::demo::{DemoToken, seed};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::store::Store;
use chrono::{DateTime, Utc};
use sqlx::{ConnectOptions, PgConnection};

use crate::support::database::TestDatabase;

/// The moment that the prompts of the demo are written for: a Saturday morning in Berlin.
const SATURDAY: &str = "2026-11-21T08:07:00Z";

struct Demo {
    _database: TestDatabase,
    owner: PgConnection,
    clock: Clock,
    store: Store,
    tokens: Vec<DemoToken>,
}

impl Demo {
    async fn at(now: &str) -> Self {
        let database = TestDatabase::create().await;
        let clock = Clock::fixed(now.parse().unwrap());
        let store = Store::connect(
            &database.server,
            2,
            Duration::from_secs(5),
            clock.clone(),
            IdSource::random(clock.clone()),
        )
        .await
        .unwrap();
        let begun = Instant::now();
        let tokens = seed(&store, &[]).await.unwrap();
        eprintln!("seeded in {:?}", begun.elapsed());
        let owner = database.owner.connect().await.unwrap();
        Self { _database: database, owner, clock, store, tokens }
    }

    /// Starts the demo again at another time.
    async fn again_at(&mut self, now: DateTime<Utc>) {
        self.clock.set(now);
        self.tokens = seed(&self.store, &self.tokens).await.unwrap();
    }

    /// Lines of text that a query answers with.
    async fn lines(&mut self, query: &str) -> Vec<String> {
        let rows: Vec<(String,)> =
            sqlx::query_as(sqlx::AssertSqlSafe(query.to_owned())).fetch_all(&mut self.owner).await.unwrap();
        rows.into_iter().map(|(line,)| line).collect()
    }

    async fn line(&mut self, query: &str) -> String {
        let lines = self.lines(query).await;
        assert_eq!(lines.len(), 1, "{query}: {lines:?}");
        lines[0].clone()
    }
}

#[tokio::test]
async fn flows_and_connectors_stand_as_the_story_says() {
    let mut demo = Demo::at(SATURDAY).await;
    let flows = "select case when state = 'active' then health else state end || ' ' || name from flows
        where customer_id = 'cus_acme' order by 1";
    assert_eq!(
        demo.lines(flows).await,
        [
            "degraded Shopify orders → NetSuite sales orders",
            "degraded Shopify → Snowflake customers",
            "failing HubSpot companies → NetSuite customers",
            "failing HubSpot → Salesforce contacts",
            "failing HubSpot → Snowflake deals",
            "healthy NetSuite → Postgres inventory",
            "healthy NetSuite → Snowflake invoices",
            "healthy Postgres → Snowflake order lines",
            "healthy Salesforce → Snowflake accounts",
            "healthy Snowflake → Salesforce lead scores",
            "paused MongoDB loyalty → Shopify customer tags",
            "pending Support ticket triage",
        ]
    );
}
