//! Two customers whose things have the same names and the same ids, as far as both have them. Whatever becomes of the
//! one's things, that they are there, change or never were, no byte of what the other is answered differs, and no
//! statement that is run for it.

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::store::customers::Actor;
use apixx_mcp::tools::catalog;
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::app::{TestApp, demo_now};
use crate::support::proxy::Executed;

/// Histories that are tried.
const SEEDS: u64 = 2;

/// What a customer's things are made of, but for what must differ.
const NOT_COPIED: &[&str] = &["tokens", "usage_hourly", "allowances"];

/// Acme, and a twin that has a part of what Acme has.
struct Twins {
    app: TestApp,
    executed: Executed,
    chance: IdSource,
    token: PlainToken,
}

impl Twins {
    async fn new(seed: u64) -> Self {
        let TestApp { mut database, .. } = TestApp::demo().await;
        let executed = Executed::on(&mut database);
        let clock = Clock::fixed(demo_now());
        let app = TestApp::on(database, clock.clone(), &[]).await;
        let chance = IdSource::seeded(clock, seed);
        copy_acme(&mut app.owner().await).await;
        let token = PlainToken::new(&chance);
        let twins = Self { app, executed, chance, token };
        twins.add_token().await;
        twins.forget_some("cus_twin").await;
        twins
    }

    async fn add_token(&self) {
        let tenancy = self.app.store.customer_named("twin").await.unwrap().unwrap();
        let mut tx = self.app.store.begin(&tenancy).await.unwrap();
        let Actor::User { id, .. } = tx.owner().await.unwrap() else { panic!("an owner is a person") };
        tx.add_token(&id, "Twin", &self.token, Scopes::all(), None).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A part of a list, by chance.
    fn some(&self, mut all: Vec<String>, share: f64) -> Vec<String> {
        all.retain(|_| self.chance.fraction() < share);
        all
    }

    async fn of(&self, customer: &str, column: &str, table: &str) -> Vec<String> {
        let sql = format!("select {column} from {table} where customer_id = '{customer}' order by 1");
        self.app.column(&sql).await
    }

    /// Takes a part of a customer's flows with their runs, of its other runs and of its errors.
    async fn forget_some(&self, customer: &str) {
        let flows = self.some(self.of(customer, "flow_id", "flows").await, 0.4);
        let runs = self.some(self.of(customer, "run_id", "runs").await, 0.3);
        let errors = self.some(self.of(customer, "error_id", "run_errors").await, 0.5);
        let groups = self.some(self.of(customer, "group_id", "error_groups").await, 0.3);
        for (sql, ids) in [
            ("delete from runs where customer_id = $1 and flow_id = any($2)", &flows),
            ("delete from run_stats where customer_id = $1 and flow_id = any($2)", &flows),
            ("delete from flows where customer_id = $1 and flow_id = any($2)", &flows),
            ("delete from runs where customer_id = $1 and run_id = any($2)", &runs),
            ("delete from run_errors where customer_id = $1 and error_id = any($2)", &errors),
            ("delete from error_groups where customer_id = $1 and group_id = any($2)", &groups),
        ] {
            let done = sqlx::query(sql).bind(customer).bind(ids).execute(&mut self.app.owner().await).await;
            done.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        }
        let unused = "delete from connectors c where customer_id = $1 and not exists (select from flows f
                       where f.customer_id = c.customer_id and c.connector_id in (f.source_connector_id, f.destination_connector_id))";
        sqlx::query(unused).bind(customer).execute(&mut self.app.owner().await).await.unwrap();
    }

    /// Things happen to Acme.
    async fn live(&self) {
        let flows = self.some(self.of("cus_acme", "flow_id", "flows").await, 0.5);
        for flow in &flows {
            self.app
                .acme()
                .call("trigger_sync", json!({ "flow": flow, "idempotency_key": format!("key {flow}") }))
                .await;
        }
        self.forget_some("cus_acme").await;
        for sql in [
            "update flows set name = name || ' (old)', state = 'paused' where customer_id = 'cus_acme' and flow_id = any($1)",
            "update flow_names set name_key = 'quite another', label = 'Quite another' where (customer_id, flow_id) in (select 'cus_acme', $1[1])
               and kind = 'name'",
            "update connectors set status = 'down', auth_status = 'revoked', auth_error = 'acme' where customer_id = 'cus_acme'
               and cardinality($1) >= 0",
            "update runs set records_read = records_read * 7, reason_message = 'acme' where customer_id = 'cus_acme' and flow_id = any($1)",
            "update customers set name = 'Twin', timezone = 'UTC' where customer_id = 'cus_acme' and cardinality($1) >= 0",
        ] {
            let done = sqlx::query(sql).bind(&flows).execute(&mut self.app.owner().await).await;
            done.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        }
    }

    /// Whether the twin gets a run of some flow of its own for this key, which it never used.
    async fn started(&self, key: &str) -> bool {
        let twin = self.app.holder_of(self.token.reveal());
        for flow in self.of("cus_twin", "flow_id", "flows").await {
            let told = twin.call("trigger_sync", json!({ "flow": flow, "idempotency_key": key })).await;
            assert!(told.code != "IDEMPOTENCY_KEY_REUSED" && !told.text.contains(key), "{}", told.text);
            if !told.is_error {
                return told.structured["outcome"] != "deduplicated";
            }
        }
        false
    }

    /// Nothing of Acme is left, as if it had never been.
    async fn wipe(&self) {
        let mut owner = self.app.owner().await;
        let mut left = tables(&mut owner).await;
        while !left.is_empty() {
            let before = left.len();
            let mut kept = Vec::new();
            for table in left {
                let sql = format!("delete from {table} where customer_id = 'cus_acme'");
                if !tried(&mut owner, &sql).await {
                    kept.push(table);
                }
            }
            left = kept;
            assert!(left.len() < before, "{left:?} cannot be emptied");
        }
    }

    /// What the twin is answered, with the statements that were run for it. What it has used itself is left out: that
    /// grows by its asking.
    async fn answers(&self, questions: &[(&'static str, Value)]) -> Vec<(String, Vec<String>)> {
        let twin = self.app.holder_of(self.token.reveal());
        let own = regex::Regex::new(r#"API quota: [\d,]+ requests|"requests_today":\d+"#).unwrap();
        let mut answers = Vec::new();
        for (tool, arguments) in questions {
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
            self.executed.take();
            let reply = twin.post(&message).await;
            let mut statements = self.executed.take();
            // Permits are leased now and then; what is taken back belongs to the call before.
            statements.retain(|sql| !sql.contains("lease_permits") && sql != "ROLLBACK");
            let body = String::from_utf8(reply.bytes).unwrap();
            let body = own.replace_all(&body, "…");
            answers.push((format!("{} {body}", reply.status), statements));
        }
        answers
    }
}

/// Every table that has rows of customers.
async fn tables(owner: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'customer_id'
          where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(owner)
    .await
    .unwrap()
}

/// Runs a statement, or leaves everything as it was.
async fn tried(owner: &mut PgConnection, sql: &str) -> bool {
    let mut tx = owner.begin().await.unwrap();
    let done = tx.execute(AssertSqlSafe(sql.to_owned())).await.is_ok();
    if done {
        tx.commit().await.unwrap();
    }
    done
}

/// Makes the twin: all that Acme has, under the same ids.
async fn copy_acme(owner: &mut PgConnection) {
    let mut left = tables(owner).await;
    left.retain(|table| !NOT_COPIED.contains(&table.as_str()));
    while !left.is_empty() {
        let before = left.len();
        let mut waiting = Vec::new();
        for table in left {
            let columns: Vec<String> = sqlx::query_scalar(
                "select quote_ident(attname) from pg_attribute where attrelid = $1::regclass and attnum > 0
                    and not attisdropped and attgenerated = '' order by attnum",
            )
            .bind(&table)
            .fetch_all(&mut *owner)
            .await
            .unwrap();
            let values: Vec<String> = columns
                .iter()
                .map(|column| match (table.as_str(), column.as_str()) {
                    (_, "customer_id") => "'cus_twin'".to_owned(),
                    ("customers", "slug") => "'twin'".to_owned(),
                    _ => column.clone(),
                })
                .collect();
            let (columns, values) = (columns.join(", "), values.join(", "));
            let sql = format!(
                "insert into {table} ({columns}) select {values} from {table} where customer_id = 'cus_acme'"
            );
            if !tried(owner, &sql).await {
                waiting.push(table);
            }
        }
        left = waiting;
        assert!(left.len() < before, "{left:?} cannot be copied");
    }
}

/// Every tool with every argument that names a thing: things of both, of Acme alone, and of nobody.
async fn questions(twins: &Twins) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let flows = twins.of("cus_acme", "flow_id", "flows").await;
    let names = twins.of("cus_acme", "name", "flows").await;
    for flow in
        flows.iter().chain(&names).map(String::as_str).chain(["flow_nothing_there", "Nothing of the kind"])
    {
        for tool in ["get_flow", "get_flow_mappings", "list_flow_runs", "get_flow_error_summary"] {
            all.push((tool, json!({ "flow": flow })));
        }
        all.push(("list_runs", json!({ "flow": flow, "window": "30d" })));
    }
    let foreign: Vec<String> = {
        let own = twins.of("cus_twin", "flow_id", "flows").await;
        flows.into_iter().filter(|flow| !own.contains(flow)).collect()
    };
    for flow in &foreign {
        all.push(("trigger_sync", json!({ "flow": flow, "idempotency_key": "one of its own" })));
    }
    let own_flow = twins.of("cus_twin", "flow_id", "flows").await.remove(0);
    let own_runs = twins.of("cus_twin", "run_id", "runs").await;
    let runs = twins.of("cus_acme", "run_id", "runs").await;
    let foreign_runs: Vec<String> = runs.into_iter().filter(|run| !own_runs.contains(run)).collect();
    assert!(foreign.len() > 1 && foreign_runs.len() > 10, "the twin has all that Acme has");
    let sample = foreign_runs.iter().step_by(foreign_runs.len() / 5).map(String::as_str);
    for run in sample.chain(["run_xyz789", own_runs[0].as_str(), own_runs[own_runs.len() / 2].as_str()]) {
        all.push(("get_run", json!({ "run_id": run })));
        all.push(("get_run_errors", json!({ "run_id": run, "limit": 5 })));
        if !own_runs.iter().any(|own| own == run) {
            all.push(("get_run", json!({ "run_id": run, "wait_seconds": 1 })));
            all.push(("trigger_sync", json!({ "flow": own_flow, "retry_of": run })));
        }
    }
    let own_groups = twins.of("cus_twin", "group_id", "error_groups").await;
    let groups = twins.of("cus_acme", "group_id", "error_groups").await;
    for group in groups.iter().take(4).chain(own_groups.first()) {
        all.push((
            "get_run_errors",
            json!({ "run_id": own_runs[0], "error_class": group, "group_by": "group" }),
        ));
    }
    let mut connectors = twins.of("cus_acme", "connector_id", "connectors").await;
    connectors.extend(twins.of("cus_acme", "name", "connectors").await);
    connectors.push("con_nothing".to_owned());
    for connector in &connectors {
        all.push(("list_flows", json!({ "connector": connector })));
        all.push(("list_runs", json!({ "connector": connector, "window": "30d" })));
        all.push(("list_connectors", json!({ "query": connector })));
    }
    for grouping in ["none", "flow", "connector", "destination", "day"] {
        all.push(("list_runs", json!({ "window": "30d", "group_by": grouping })));
    }
    all.push(("list_flows", json!({ "limit": 200 })));
    all.push(("list_flows", json!({ "query": "hubspot" })));
    all.push(("list_connectors", json!({})));
    all.push(("get_system_health", json!({ "window": "30d" })));
    // Cursors that Acme was given, for the very same questions.
    let pages = [
        ("list_runs", json!({ "window": "30d", "limit": 2 })),
        ("list_flow_runs", json!({ "flow": "flow_shopify_orders", "window": "30d", "limit": 2 })),
        ("get_run_errors", json!({ "run_id": "run_abc123", "limit": 2 })),
        ("list_flows", json!({ "limit": 2 })),
        ("get_flow_mappings", json!({ "flow": "flow_shopify_orders", "limit": 2 })),
        ("list_connectors", json!({ "limit": 1 })),
    ];
    for entry in catalog().entries() {
        let paged = entry.definition().input_schema["properties"].get("cursor").is_some();
        assert_eq!(pages.iter().any(|(tool, _)| *tool == entry.name), paged, "{}", entry.name);
    }
    for (tool, mut arguments) in pages {
        let first = twins.app.acme().call(tool, arguments.clone()).await;
        arguments["cursor"] = first.structured["next_cursor"].clone();
        assert!(arguments["cursor"].is_string(), "{tool} has a second page");
        all.push((tool, arguments));
    }
    all
}

#[tokio::test]
async fn nothing_of_another_customer_shows_in_any_answer() {
    for seed in 1..=SEEDS {
        let twins = Twins::new(seed).await;
        let questions = questions(&twins).await;
        // Once for what is prepared and remembered.
        twins.answers(&questions).await;
        let first = twins.answers(&questions).await;
        assert!(
            first.iter().filter(|(_, statements)| !statements.is_empty()).count() * 10 > questions.len() * 8
        );
        let used = json!({ "flow": "flow_netsuite_invoices", "idempotency_key": "used by both" });
        twins.app.acme().text("trigger_sync", used).await;
        twins.live().await;
        same(seed, "Acme lives", &questions, &first, &twins.answers(&questions).await);
        assert!(twins.started("used by both").await, "seed {seed}: the twin is given no run");

        let before = twins.answers(&questions).await;
        twins.wipe().await;
        same(seed, "Acme never was", &questions, &before, &twins.answers(&questions).await);
    }
}

/// A token that has ended is told the same of what is there and of what is not.
#[tokio::test]
async fn an_ended_token_learns_nothing_either() {
    for ended in ["revoked_at", "expires_at"] {
        let twins = Twins::new(9).await;
        let mut questions = questions(&twins).await;
        questions.retain(|(_, arguments)| arguments.get("wait_seconds").is_none());
        twins.answers(&questions[..1]).await;
        let sql = format!("update tokens set {ended} = $1 where customer_id = 'cus_twin'");
        sqlx::query(AssertSqlSafe(sql))
            .bind(twins.app.clock.now())
            .execute(&mut twins.app.owner().await)
            .await
            .unwrap();
        let remembered = twins.answers(&questions).await;
        twins.wipe().await;
        same(9, ended, &questions, &remembered, &twins.answers(&questions).await);
        for (question, (answer, statements)) in questions.iter().zip(&remembered) {
            // Acme's cursors are refused by their seal, before anything is looked up.
            let told = if statements.is_empty() { "INVALID_ARGUMENTS" } else { "TOKEN_REVOKED" };
            assert!(answer.contains(told), "{ended}: {question:?}: {answer}");
            assert!(!answer.contains("structuredContent"), "{ended}: {question:?}: {answer}");
        }
        twins.app.clock.advance(TimeDelta::seconds(2));
        let forgotten = twins.answers(&questions[..3]).await;
        assert!(forgotten.iter().all(|(answer, _)| answer.starts_with("401 ")), "{forgotten:?}");
    }
}

fn same(
    seed: u64,
    what: &str,
    questions: &[(&str, Value)],
    before: &[(String, Vec<String>)],
    after: &[(String, Vec<String>)],
) {
    for (question, (before, after)) in questions.iter().zip(before.iter().zip(after)) {
        assert_eq!(before.0, after.0, "seed {seed}, {what}: {question:?} is answered otherwise");
        assert_eq!(before.1, after.1, "seed {seed}, {what}: {question:?} is looked up otherwise");
    }
}
