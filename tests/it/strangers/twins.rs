//! A world with two customers, Acme and a twin of it, and what can happen to them there.

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::domain::scope::Scopes;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::service::apply::{Rules, apply};
use apixx_mcp::store::customers::Actor;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{NOBODYS_CONNECTOR, NOBODYS_FLOW, NOBODYS_NAME};
use crate::support::app::{TestApp, demo_now};
use crate::support::proxy::Executed;

/// What a customer's things are made of, but for what must differ.
const NOT_COPIED: &[&str] = &["tokens", "usage_hourly", "allowances"];

/// A question: a tool and its arguments.
pub type Question = (&'static str, Value);

/// An answer with the statements that were run for it.
pub type Answer = (String, Vec<String>);

/// Acme, and a twin that has a part of what Acme has.
pub struct Twins {
    pub app: TestApp,
    executed: Executed,
    /// What happens to the twin is drawn from here: alike in two worlds of one seed.
    chance: IdSource,
    /// What happens to Acme.
    acmes_chance: IdSource,
    /// The twin's tokens; one ends by itself.
    pub tokens: Vec<PlainToken>,
    acmes_tokens: Vec<PlainToken>,
}

impl Twins {
    pub async fn new(seed: u64) -> Self {
        let TestApp { mut database, .. } = TestApp::demo().await;
        let mut owner = sqlx::ConnectOptions::connect(&database.owner).await.unwrap();
        owner.execute("update plans set requests_per_minute = 1000000, burst = 1000000").await.unwrap();
        let executed = Executed::on(&mut database);
        let clock = Clock::fixed(demo_now());
        // Far from the small seeds that the demo's tokens come from.
        let chance = IdSource::seeded(clock.clone(), 1_000 + seed);
        let acmes_chance = IdSource::seeded(clock.clone(), !seed);
        copy_acme(&mut owner).await;
        // Both come from one address, whose failures are counted whoever they are.
        let app = TestApp::on(database, clock, &[("auth.failed_attempts_per_minute", "1000000")]).await;
        let mut twins = Self { app, executed, chance, acmes_chance, tokens: vec![], acmes_tokens: vec![] };
        for ends_at in [None, None, Some(demo_now() + TimeDelta::hours(5))] {
            let token = twins.added_token("twin", &twins.chance, ends_at).await;
            twins.tokens.push(token);
            let token = twins.added_token("acme", &twins.acmes_chance, ends_at).await;
            twins.acmes_tokens.push(token);
        }
        twins.forget_some("cus_twin", &twins.chance, 1.0).await;
        // Nobody works on runs of the twin, so that it changes only as it is made to.
        let open = "delete from runs where customer_id = 'cus_twin'
                       and status in ('queued', 'running', 'retrying', 'cancelling')";
        owner.execute(open).await.unwrap();
        twins
    }

    pub async fn added_token(
        &self,
        slug: &str,
        chance: &IdSource,
        ends_at: Option<DateTime<Utc>>,
    ) -> PlainToken {
        let token = PlainToken::new(chance);
        let tenancy = self.app.store.customer_named(slug).await.unwrap().unwrap();
        let mut tx = self.app.store.begin(&tenancy).await.unwrap();
        let Actor::User { id, .. } = tx.owner().await.unwrap() else { panic!("an owner is a person") };
        tx.add_token(&id, "One more", &token, Scopes::all(), ends_at).await.unwrap();
        tx.commit().await.unwrap();
        token
    }

    pub async fn of(&self, customer: &str, column: &str, table: &str) -> Vec<String> {
        let sql = format!(
            "select distinct {column} from {table} where customer_id = '{customer}' and {column} is not null order by 1"
        );
        self.app.column(&sql).await
    }

    async fn owner_does(&self, sql: &str, ids: &[String]) {
        let done = sqlx::query(AssertSqlSafe(sql)).bind(ids).execute(&mut self.app.owner().await).await;
        done.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }

    /// Takes a part of a customer's flows with their runs, of its other runs and of its errors; `share` of what it takes
    /// of one that begins.
    async fn forget_some(&self, customer: &str, chance: &IdSource, share: f64) {
        let flows = some(chance, self.of(customer, "flow_id", "flows").await, 0.4 * share);
        let runs = some(chance, self.of(customer, "run_id", "runs").await, 0.3 * share);
        let errors = some(chance, self.of(customer, "error_id", "run_errors").await, 0.5 * share);
        let groups = some(chance, self.of(customer, "group_id", "error_groups").await, 0.3 * share);
        self.forget_flows(customer, &flows).await;
        for (table, id, ids) in [
            ("runs", "run_id", &runs),
            ("run_errors", "error_id", &errors),
            ("error_groups", "group_id", &groups),
        ] {
            let sql = format!("delete from {table} where customer_id = '{customer}' and {id} = any($1)");
            self.owner_does(&sql, ids).await;
        }
    }

    /// Takes flows, and the connectors that none uses then.
    async fn forget_flows(&self, customer: &str, flows: &[String]) {
        for table in ["runs", "run_stats", "flows"] {
            let sql = format!("delete from {table} where customer_id = '{customer}' and flow_id = any($1)");
            self.owner_does(&sql, flows).await;
        }
        let unused = format!(
            "delete from connectors c where customer_id = '{customer}' and $1::text[] is not null
                and not exists (select from flows f where f.customer_id = c.customer_id
                                   and c.connector_id in (f.source_connector_id, f.destination_connector_id))"
        );
        self.owner_does(&unused, &[]).await;
    }

    /// A part of the twin's things goes.
    pub async fn twin_forgets(&self) {
        self.forget_some("cus_twin", &self.chance, 0.2).await;
    }

    /// A part of Acme's things goes.
    pub async fn acme_forgets(&self) {
        self.forget_some("cus_acme", &self.acmes_chance, 0.4).await;
    }

    /// Acme starts runs, whichever of its tokens it takes; one that ended starts none.
    pub async fn acme_triggers(&self) {
        let flows = some(&self.acmes_chance, self.of("cus_acme", "flow_id", "flows").await, 0.4);
        let token = &self.acmes_tokens[chosen(&self.acmes_chance, self.acmes_tokens.len())];
        let acme = self.app.holder_of(token.reveal());
        for flow in &flows {
            let arguments = json!({ "flow": flow, "idempotency_key": format!("key {flow}") });
            let params = json!({ "name": "trigger_sync", "arguments": arguments });
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
            assert!(acme.post(&message).await.status.as_u16() < 500);
        }
    }

    /// What Acme has is renamed, breaks, and is paused.
    pub async fn acme_changes(&self) {
        let flows = some(&self.acmes_chance, self.of("cus_acme", "flow_id", "flows").await, 0.5);
        for sql in [
            "update flows set name = name || ' (old)', state = 'paused' where customer_id = 'cus_acme' and flow_id = any($1)",
            "update flow_names set name_key = 'quite another ' || flow_id, label = 'Quite another' where (customer_id, flow_id) in (select 'cus_acme', $1[1])
               and kind = 'name'",
            "update connectors set status = 'down', auth_status = 'revoked', auth_error = 'acme' where customer_id = 'cus_acme'
               and cardinality($1) >= 0",
            "update runs set records_read = records_read * 7, reason_message = 'acme' where customer_id = 'cus_acme' and flow_id = any($1)",
            "update customers set name = 'Twin', timezone = 'UTC' where customer_id = 'cus_acme' and cardinality($1) >= 0",
        ] {
            self.owner_does(sql, &flows).await;
        }
    }

    /// Acme makes, or makes otherwise, what has the ids and the name of what nobody has.
    pub async fn acme_applies(&self) {
        let Some(tenancy) = self.app.store.customer_named("acme").await.unwrap() else { return };
        let file = format!(
            "[[connector]]
             id = '{NOBODYS_CONNECTOR}'
             name = 'Nothing at all'
             description = 'Drawn: {}'
             kind = 'sim'
             sim = {{ auth_status = 'valid', objects = {{ things = {{ records = 9, spread = 0.1, seconds = 1, template = {{ id = '{{n}}' }} }} }} }}
             [[flow]]
             id = '{NOBODYS_FLOW}'
             name = '{NOBODYS_NAME}'
             source = 'Nothing at all'
             destination = 'Nothing at all'
             [[flow.stream]]
             from = 'things'
             to = 'others'
             key = 'id'",
            self.acmes_chance.fraction()
        );
        let rules = Rules { files_roots: &[], postgres_dsns: &[] };
        let mut tx = self.app.store.begin(&tenancy).await.unwrap();
        let by = Actor::Operator("ana".to_owned());
        apply(&mut tx, "flows.toml", file.as_bytes(), &rules, &by)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        tx.commit().await.unwrap();
    }

    /// A connector of Acme goes, with the flows that use it.
    pub async fn acme_removes_a_connector(&self) {
        let connectors = self.of("cus_acme", "connector_id", "connectors").await;
        if connectors.is_empty() {
            return;
        }
        let gone = &connectors[chosen(&self.acmes_chance, connectors.len())];
        let using = format!(
            "select flow_id from flows where customer_id = 'cus_acme' and '{gone}' in (source_connector_id, destination_connector_id)"
        );
        self.forget_flows("cus_acme", &self.app.column(&using).await).await;
    }

    /// A token of Acme is revoked, or expires.
    pub async fn a_token_of_acme_ends(&self) {
        self.a_token_ends(&self.acmes_tokens, &self.acmes_chance).await;
    }

    /// A token of the twin is revoked, or expires; the first never does.
    pub async fn a_token_of_the_twin_ends(&self) {
        self.a_token_ends(&self.tokens[1..], &self.chance).await;
    }

    async fn a_token_ends(&self, tokens: &[PlainToken], chance: &IdSource) {
        let token = &tokens[chosen(chance, tokens.len())];
        let ended = ["revoked_at", "expires_at"][chosen(chance, 2)];
        let sql = format!("update tokens set {ended} = $1 where digest = $2");
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.app.clock.now())
            .bind(token.digest().as_bytes().to_vec())
            .execute(&mut self.app.owner().await)
            .await
            .unwrap();
    }

    /// Whether the twin gets a run of some flow of its own for this key, which it never used.
    pub async fn started(&self, key: &str) -> bool {
        let twin = self.app.holder_of(self.tokens[0].reveal());
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
    pub async fn wipe(&self) {
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

    /// What the holder of a token of the twin is answered, with the statements that were run for it. What it has used
    /// itself is left out: that grows by its asking.
    pub async fn answers(&self, token: usize, questions: &[Question]) -> Vec<Answer> {
        let twin = self.app.holder_of(self.tokens[token].reveal());
        let own = regex::Regex::new(r#"API quota: [\d,]+ requests|"requests_today":\d+"#).unwrap();
        let mut answers = Vec::new();
        for (tool, arguments) in questions {
            let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
            self.executed.take();
            let reply = twin.post(&message).await;
            let mut statements = self.executed.take();
            // Permits are leased now and then; other processes are told aside; what is taken back belongs to the call before.
            statements.retain(|sql| {
                !sql.contains("lease_permits") && !sql.contains("pg_notify") && sql != "ROLLBACK"
            });
            let body = String::from_utf8(reply.bytes).unwrap();
            let body = own.replace_all(&body, "…");
            answers.push((format!("{} {body}", reply.status), statements));
        }
        answers
    }
}

/// A part of a list, by chance.
fn some(chance: &IdSource, mut all: Vec<String>, share: f64) -> Vec<String> {
    all.retain(|_| chance.fraction() < share);
    all
}

/// One of so many, by chance.
pub fn chosen(chance: &IdSource, of: usize) -> usize {
    (chance.fraction() * of as f64) as usize
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
