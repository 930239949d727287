//! The product on a large database, called over HTTP, with PostgreSQL telling what each of its statements did.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apixx_mcp::app::process::{Process, TimeOf};
use apixx_mcp::config::{Config, Sources};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::token::Secret;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::gates::Case;
use super::seed;

/// Times that all cases are measured one after another. Of each the cheapest time counts: what disturbs a processor only
/// ever adds, and what lasts for seconds then spoils no case every time. A build for debugging compares with nothing.
const ROUNDS: usize = if cfg!(debug_assertions) { 2 } else { 10 };
/// Calls of a round.
const CALLS: u32 = 4;
/// Microseconds after which a round has enough of them: what takes long is told well by few.
const ENOUGH: f64 = 40_000.0;

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
    /// Microseconds of the server's processor.
    pub server_us: f64,
    /// Characters of the answer's text.
    pub chars: usize,
    /// Bytes of the text and of the typed answer together.
    pub bytes: usize,
    /// Whether something stands in a list of the typed answer; `None` if it has no list.
    pub lists: Option<bool>,
    /// What no statement may do, and this one did.
    pub faults: Vec<String>,
}

/// The product, serving.
pub struct Probe {
    base: String,
    client: reqwest::Client,
    pub admin: PgConnection,
    plans: Plans,
    statements: HashSet<&'static str>,
    /// Those of them that were executed and told of.
    seen: HashSet<&'static str>,
    pub process: Process,
    /// The server has a thread of its own, whose processor time is told apart from that of who asks.
    runtime: Runtime,
    /// Where the system tells of it.
    thread: String,
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
        run(&mut admin, "update allowances set permits = 10000000, requests = 0, held = '{}'").await;
        let environment = vec![("HOME".to_owned(), std::env::temp_dir().display().to_string())];
        let flags = vec![("database.pool_size".to_owned(), "1".to_owned())];
        let config = Config::load(&Sources { file: None, environment, flags }).unwrap();
        let clock = Clock::fixed(seed::now());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = server.clone();
        let serving = async move {
            let never = CancellationToken::new();
            let process = Process::start(&server, config, clock, TimeOf::Own, never).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, process.router()).into_future());
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            (process, base, format!("/proc/{}/schedstat", thread.display()))
        };
        let (process, base, thread) = runtime.spawn(serving).await.unwrap();
        Self {
            base,
            client: reqwest::Client::new(),
            admin,
            plans: plans.clone(),
            statements: apixx_mcp::store::all_statements().into_iter().collect(),
            seen: HashSet::new(),
            process,
            runtime,
            thread,
        }
    }

    /// Calls a tool of the customer at `place`; returns the text of its answer, the typed one, and whether it failed.
    pub async fn call(&self, place: usize, tool: &str, arguments: &Value) -> (String, Value, bool) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": arguments } });
        let reply = self
            .client
            .post(format!("{}/mcp", self.base))
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

    /// What a page says to whoever holds the session.
    pub async fn page(&self, path: &str, session: &Secret) -> String {
        let cookie = format!("apixx={}", session.reveal());
        let reply = self.client.get(format!("{}{path}", self.base)).header("cookie", cookie).send().await;
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        reply.text().await.unwrap()
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
            let (chars, lists) = (text.chars().count(), lists(&typed));
            let mut cost = Cost { chars, bytes, lists, ..self.told() };
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

    /// What the statements did that ended since this was asked last.
    pub fn told(&mut self) -> Cost {
        let mut cost = Cost::default();
        for plan in self.plans.take() {
            self.count(&plan, &mut cost);
        }
        cost.faults.sort();
        cost.faults.dedup();
        cost
    }

    /// How many of our statements were told of, and how many there are.
    pub fn seen(&self) -> (usize, usize) {
        (self.seen.len(), self.statements.len())
    }

    fn count(&mut self, plan: &Value, cost: &mut Cost) {
        // What a function does is told by itself and in the statement that calls it.
        let ours = plan["Query Text"].as_str().and_then(|text| self.statements.get(text));
        let root = &plan["Plan"];
        if let Some(text) = ours {
            self.seen.insert(text);
            cost.statements += 1;
            cost.pages += pages(root);
            if std::env::var_os("LARGE_PLANS").is_some() {
                println!("{}", serde_json::to_string_pretty(plan).unwrap());
            }
        }
        judge(root, &mut cost.faults);
    }

    /// The microseconds of the processor that the backend and the server spend on a warm call of each case.
    pub async fn cpu(&mut self, cases: &[Case]) -> Vec<(f64, f64)> {
        let mut cheapest = vec![(f64::MAX, f64::MAX); cases.len()];
        // The connection is there once it was used.
        self.ask(&cases[0]).await;
        let of_backend: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where application_name = 'apixx-mcp' and usename = $1",
        )
        .bind(apixx_mcp::embedded::SERVER)
        .fetch_all(&mut self.admin)
        .await
        .unwrap();
        let of_backend: Vec<String> = of_backend.iter().map(|pid| format!("/proc/{pid}/schedstat")).collect();
        let of_server = [self.thread.clone()];
        let spent = || (spent(&of_backend), spent(&of_server));
        for round in 0..ROUNDS {
            for (case, cheapest) in cases.iter().zip(&mut cheapest) {
                // Prepared in the first round; afterwards other cases were there between.
                for _ in 0..if round == 0 { 2 } else { 1 } {
                    self.ask(case).await;
                }
                let (before, mut calls) = (spent(), 0);
                let (backend, server) = loop {
                    self.ask(case).await;
                    calls += 1;
                    let now = spent();
                    if calls == CALLS || now.0 - before.0 > ENOUGH {
                        break (now.0 - before.0, now.1 - before.1);
                    }
                };
                let of_one = |all: f64| all / f64::from(calls);
                *cheapest = (cheapest.0.min(of_one(backend)), cheapest.1.min(of_one(server)));
            }
        }
        cheapest
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
        self.runtime.shutdown_background();
    }
}

/// Pages that a node and what is below it touched.
fn pages(node: &Value) -> u64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|key| node[key].as_u64()).sum()
}

/// Tables of a handful of rows, which are read whole whatever the size of an installation.
const TINY: &[&str] = &["plans", "installation", "workers"];

/// Rows that may go into a sort.
const SORTED: f64 = 1_000.0;
/// Rows that may be looked through for the first of them: the flows of the largest workspace.
const PICKED: f64 = 2_000.0;

/// Sequential scans, and sorts of many rows.
fn judge(node: &Value, faults: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let loops = node["Actual Loops"].as_f64().unwrap_or(1.0);
    let rows = node["Actual Rows"].as_f64().unwrap_or(0.0);
    let table = node["Relation Name"].as_str().unwrap_or_default();
    // (what PostgreSQL keeps of itself does not grow with runs)
    if kind == "Seq Scan" && !TINY.contains(&table) && !table.starts_with("pg_") {
        faults.push(format!("reads all of {table}"));
    }
    if let Some(below) = node["Plans"].as_array() {
        let input = below.first().and_then(|node| node["Actual Rows"].as_f64()).unwrap_or(rows);
        // The first of many are picked in a heap of as many as are wanted: of the flows of one customer, or of what is
        // summed up of them, but of nothing that grows with runs.
        let most = if node["Sort Method"] == "top-N heapsort" { PICKED } else { SORTED };
        if kind == "Sort" && loops > 0.0 && input > most {
            faults.push(format!("sorts {input} rows"));
        }
        below.iter().for_each(|node| judge(node, faults));
    }
}

/// Whether something stands in a list of a typed answer.
fn lists(typed: &Value) -> Option<bool> {
    let lists = typed.as_object()?.iter().filter(|(name, _)| *name != "notices");
    lists
        .filter_map(|(_, list)| list.as_array())
        .map(|list| !list.is_empty())
        .reduce(|one, other| one || other)
}

/// Microseconds of the processor that processes or threads have spent.
fn spent(files: &[String]) -> f64 {
    let of = |file: &String| -> f64 {
        let text = std::fs::read_to_string(file).unwrap();
        text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1_000.0
    };
    files.iter().map(of).sum()
}

pub async fn run(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(conn).await.unwrap();
}
