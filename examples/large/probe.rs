//! The product on a large database, called over HTTP, with PostgreSQL telling what each of its statements did.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apixx_mcp::app::process::{Process, TimeOf};
use apixx_mcp::config::{Config, Sources};
use apixx_mcp::domain::clock::Clock;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::gates::Case;
use super::seed;

/// Rounds of calls of which the cheapest counts: what disturbs a processor only ever adds.
const ROUNDS: usize = 10;

/// What PostgreSQL told of the statements that ended (module `auto_explain`), in order.
#[derive(Clone, Default)]
pub struct Plans(Arc<Mutex<Vec<Value>>>);

impl Plans {
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Picks the plans out of what the driver logs: PostgreSQL sends them as notices.
impl<S: tracing::Subscriber> Layer<S> for Plans {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "message" {
                    value.clone_into(&mut self.0);
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() != "sqlx::postgres::notice" {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        if let Some((_, plan)) = text.0.split_once("plan:\n") {
            self.0.lock().unwrap().push(serde_json::from_str(plan).unwrap());
        }
    }
}

/// What one call cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Pages that its statements touched, warm.
    pub pages: u64,
    /// Statements.
    pub statements: u64,
    /// Microseconds of the backend's processor.
    pub cpu_us: f64,
    /// Characters of the answer's text.
    pub chars: usize,
    /// Bytes of the text and of the typed answer together.
    pub bytes: usize,
    /// What no statement may do, and this one did.
    pub faults: Vec<String>,
}

/// The product, serving.
pub struct Probe {
    url: String,
    client: reqwest::Client,
    admin: PgConnection,
    plans: Plans,
    statements: HashSet<&'static str>,
    pub process: Process,
}

impl Probe {
    /// Starts it on one connection, as the role that serves. With `explain`, PostgreSQL tells what statements do, which
    /// costs processor time itself.
    pub async fn start(
        server: &PgConnectOptions,
        admin: &PgConnectOptions,
        plans: &Plans,
        explain: bool,
    ) -> Self {
        let mut admin = admin.connect().await.unwrap();
        let role = apixx_mcp::embedded::SERVER;
        run(&mut admin, &format!("alter role {role} reset all")).await;
        if explain {
            for setting in [
                "session_preload_libraries = 'auto_explain'",
                "auto_explain.log_min_duration = 0",
                "auto_explain.log_analyze = on",
                "auto_explain.log_buffers = on",
                "auto_explain.log_timing = off",
                "auto_explain.log_nested_statements = on",
                "auto_explain.log_format = json",
                "auto_explain.log_level = notice",
            ] {
                run(&mut admin, &format!("alter role {role} set {setting}")).await;
            }
        }
        // What a plan allows is not what is measured.
        run(
            &mut admin,
            "update plans set requests_per_minute = 100000000, burst = 10000000, daily_requests = null",
        )
        .await;
        // Time stands still here: what an earlier program drew would never come back.
        run(&mut admin, "delete from allowances").await;
        let environment = vec![("HOME".to_owned(), std::env::temp_dir().display().to_string())];
        let flags = vec![("database.pool_size".to_owned(), "1".to_owned())];
        let config = Config::load(&Sources { file: None, environment, flags }).unwrap();
        let clock = Clock::fixed(seed::now());
        let process =
            Process::start(server, config, clock, TimeOf::Own, CancellationToken::new()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, process.router()).into_future());
        let statements = apixx_mcp::store::all_statements().into_iter().collect();
        Self { url, client: reqwest::Client::new(), admin, plans: plans.clone(), statements, process }
    }

    /// Calls a tool of the customer at `place`; returns the text of its answer, the typed one, and whether it failed.
    pub async fn call(&self, place: usize, tool: &str, arguments: &Value) -> (String, Value, bool) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": arguments } });
        let reply = self
            .client
            .post(&self.url)
            .header("authorization", format!("Bearer {}", seed::token(place).reveal()))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(message.to_string())
            .send()
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        let result = &body["result"];
        assert!(result.is_object(), "{tool} {arguments}: {body}");
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        (text, result["structuredContent"].clone(), result["isError"] == true)
    }

    /// Asks what a case asks, and takes back what that did. Returns the text and the typed answer, and whether it failed.
    async fn ask(&mut self, case: &Case) -> (String, Value, bool) {
        let answer = self.call(case.place, case.tool, &case.arguments).await;
        if let Some(undo) = case.undo {
            run(&mut self.admin, undo).await;
        }
        answer
    }

    /// What a warm call costs in pages.
    pub async fn pages(&mut self, case: &Case) -> Cost {
        let mut cheapest = Cost { pages: u64::MAX, ..Cost::default() };
        for _ in 0..3 {
            self.plans.take();
            let (text, typed, failed) = self.ask(case).await;
            let bytes = text.len() + typed.to_string().len();
            let mut cost = Cost { chars: text.chars().count(), bytes, ..Cost::default() };
            for plan in self.plans.take() {
                self.count(&plan, &mut cost);
            }
            // What is answered otherwise, or from nowhere, costs what says nothing.
            if failed != case.refused.is_some_and(|code| text.starts_with(code)) {
                cost.faults.push(format!("answers: {text}"));
            }
            if cost.statements == 0 {
                cost.faults.push("asks the database nothing".to_owned());
            }
            if cost.pages < cheapest.pages {
                cheapest = cost;
            }
        }
        cheapest
    }

    fn count(&self, plan: &Value, cost: &mut Cost) {
        // What a function does is told by itself and in the statement that calls it.
        let ours = plan["Query Text"].as_str().is_some_and(|text| self.statements.contains(text));
        let root = &plan["Plan"];
        if ours {
            cost.statements += 1;
            cost.pages += pages(root);
            if std::env::var_os("LARGE_PLANS").is_some() {
                println!("{}", serde_json::to_string_pretty(plan).unwrap());
            }
        }
        judge(root, &mut cost.faults);
    }

    /// The processor time that the backend spends on a warm call, in microseconds.
    pub async fn cpu(&mut self, case: &Case) -> f64 {
        for _ in 0..3 {
            self.ask(case).await;
        }
        let pids: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where application_name = 'apixx-mcp' and usename = $1",
        )
        .bind(apixx_mcp::embedded::SERVER)
        .fetch_all(&mut self.admin)
        .await
        .unwrap();
        let spent = || -> f64 {
            let of = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
            let time = |text: String| text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
            pids.iter().map(|pid| time(of(pid)) / 1_000.0).sum()
        };
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let before = spent();
            for _ in 0..4 {
                self.ask(case).await;
            }
            rounds.push((spent() - before) / 4.0);
        }
        rounds.into_iter().fold(f64::MAX, f64::min)
    }

    /// Whether PostgreSQL planned any statement for its arguments, or none once for all. The server's role tells it
    /// itself, in the door that every read goes through, which counts for the purpose.
    pub async fn custom_plans(&mut self) -> Vec<String> {
        let original: String = sqlx::query_scalar("select pg_get_viewdef('live_token'::regclass)")
            .fetch_one(&mut self.admin)
            .await
            .unwrap();
        let door =
            |body: &str| format!("create or replace view live_token with (security_barrier) as {body}");
        let counted = format!("select t.* from ({}) t where plans_counted()", original.trim_end_matches(';'));
        for text in [
            "create table plans_seen (statements bigint, custom bigint, generic bigint)",
            "create function plans_counted() returns boolean language plpgsql volatile security definer as $$
             begin
                 insert into public.plans_seen select count(*), sum(custom_plans), sum(generic_plans) from pg_prepared_statements;
                 return true;
             end $$",
            &door(&counted),
        ] {
            run(&mut self.admin, text).await;
        }
        self.call(seed::WIDE, "list_connectors", &json!({})).await;
        let (statements, custom, generic): (i64, i64, i64) =
            sqlx::query_as("select statements, custom, generic from plans_seen limit 1")
                .fetch_one(&mut self.admin)
                .await
                .unwrap();
        run(&mut self.admin, &door(&original)).await;
        run(&mut self.admin, "drop function plans_counted(); drop table plans_seen").await;
        println!("{statements} statements: {custom} plans for arguments of one call, {generic} for all");
        let fault = custom > 0 || generic == 0;
        fault
            .then(|| format!("{custom} statements were planned for the arguments of one call"))
            .into_iter()
            .collect()
    }

    /// Ends it.
    pub async fn stop(self) {
        let _closed = tokio::time::timeout(Duration::from_secs(5), self.process.serving.store.close()).await;
    }
}

/// Pages that a node and what is below it touched.
fn pages(node: &Value) -> u64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|key| node[key].as_u64()).sum()
}

/// Tables of a handful of rows, which are read whole whatever the size of an installation.
const TINY: &[&str] = &["plans", "installation", "workers"];

/// Sequential scans, and sorts of more than a thousand rows.
fn judge(node: &Value, faults: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let loops = node["Actual Loops"].as_f64().unwrap_or(1.0);
    let rows = node["Actual Rows"].as_f64().unwrap_or(0.0);
    let table = node["Relation Name"].as_str().unwrap_or_default();
    if kind == "Seq Scan" && !TINY.contains(&table) {
        faults.push(format!("reads all of {table}"));
    }
    if let Some(below) = node["Plans"].as_array() {
        let input = below.first().and_then(|node| node["Actual Rows"].as_f64()).unwrap_or(rows);
        // The first of many, picked in a heap of as many as are wanted, is not a sort of all.
        let few = node["Sort Method"] == "top-N heapsort";
        if kind == "Sort" && !few && loops > 0.0 && input > 1_000.0 {
            faults.push(format!("sorts {input} rows"));
        }
        below.iter().for_each(|node| judge(node, faults));
    }
}

async fn run(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(conn).await.unwrap();
}
