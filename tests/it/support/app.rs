//! The product as it is served, in process: HTTP in, JSON out, on a database of its own and a clock that
//! stands still.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use apixx_mcp::app::process::{Process, TimeOf};
use apixx_mcp::config::{Config, Sources};
use apixx_mcp::demo::{self, DemoToken};
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::engine::connectors::{Connectors, Pacer};
use apixx_mcp::engine::{Engine, EngineSettings};
use apixx_mcp::store::retention::Retention;
use apixx_mcp::store::{DatabaseIdentity, Store};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow, Row};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::database::TestDatabase;

/// A `tools/list`, as it is sent.
pub fn list() -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string()
}

/// A `tools/call`, as it is sent.
pub fn call(tool: &str, arguments: Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
}

/// The moment that the demo's expected answers are written for.
pub fn demo_now() -> DateTime<Utc> {
    "2026-11-21T09:07:00+01:00".parse().unwrap()
}

/// The product, as callers see it.
pub struct TestApp {
    pub database: TestDatabase,
    pub clock: Clock,
    pub store: Store,
    pub router: Router,
    process: Process,
}

/// The tokens that the demo's workspaces have in tests.
fn tokens() -> Vec<DemoToken> {
    let ids = IdSource::seeded(Clock::fixed(demo_now()), 7);
    ["acme", "globex", "lab"]
        .map(|customer| DemoToken { customer: customer.to_owned(), token: PlainToken::new(&ids) })
        .to_vec()
}

/// The name of a database that holds the demo, made once; tests use copies.
async fn demo_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let database = TestDatabase::create().await;
            let clock = Clock::fixed(demo_now());
            let ids = IdSource::seeded(clock.clone(), 1);
            let wait = std::time::Duration::from_secs(30);
            let store = Store::connect(&database.server, 1, wait, clock, ids).await.unwrap();
            demo::seed(&store, &tokens()).await.unwrap();
            store.close().await;
            let name = database.name.clone();
            std::mem::forget(database);
            name
        })
        .await
}

impl TestApp {
    /// The demo's three workspaces at [`demo_now`].
    pub async fn demo() -> Self {
        Self::on(TestDatabase::copy_of(demo_template().await).await, Clock::fixed(demo_now()), &[]).await
    }

    /// The demo with some settings otherwise.
    pub async fn demo_with(flags: &[(&str, &str)]) -> Self {
        Self::on(TestDatabase::copy_of(demo_template().await).await, Clock::fixed(demo_now()), flags).await
    }

    /// The product on `database`, living by `clock`.
    pub async fn on(database: TestDatabase, clock: Clock, flags: &[(&str, &str)]) -> Self {
        let mut all = vec![("database.pool_size".to_owned(), "2".to_owned())];
        all.extend(flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let environment = vec![("HOME".to_owned(), std::env::temp_dir().display().to_string())];
        let config = Config::load(&Sources { file: None, environment, flags: all }).unwrap();
        let stopping = CancellationToken::new();
        let process =
            Process::start(&database.server, config, clock.clone(), TimeOf::Own, stopping).await.unwrap();
        let (store, router) = (process.serving.store.clone(), process.router());
        Self { database, clock, store, router, process }
    }

    /// What the process tells its operator over HTTP.
    pub fn operator(&self, measures: metrics_exporter_prometheus::PrometheusHandle) -> Router {
        self.process.operator_router(measures)
    }

    /// What all calls of the process share.
    pub fn serving(&self) -> &apixx_mcp::service::Serving {
        &self.process.serving
    }

    /// Recognises the process's callers.
    pub fn access(&self) -> &apixx_mcp::service::access::Access {
        self.process.access()
    }

    /// Writes down what callers used, as happens once a second.
    pub async fn settle(&self) {
        self.access().settle(false).await.unwrap();
    }

    /// A caller with Acme's token.
    pub fn acme(&self) -> Agent<'_> {
        self.agent(0)
    }

    /// A caller with Globex' token: a stranger to Acme.
    pub fn globex(&self) -> Agent<'_> {
        self.agent(1)
    }

    /// A caller with Lab's token.
    pub fn lab(&self) -> Agent<'_> {
        self.agent(2)
    }

    fn agent(&self, place: usize) -> Agent<'_> {
        self.holder_of(tokens()[place].token.reveal())
    }

    /// A caller with this token.
    pub fn holder_of(&self, token: &str) -> Agent<'_> {
        Agent { app: self, token: token.to_owned() }
    }

    /// A connection as the owner of the tables, who sees every row.
    pub async fn owner(&self) -> PgConnection {
        self.database.owner.connect().await.unwrap()
    }

    /// The rows of a statement whose `$1` is the time now.
    pub async fn rows<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let now = self.clock.now();
        let rows = sqlx::query_as(AssertSqlSafe(sql)).bind(now).fetch_all(&mut self.owner().await).await;
        rows.unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    /// The only row of a statement whose `$1` is the time now.
    pub async fn row<T>(&self, sql: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows.remove(0)
    }

    /// The only column of a statement.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        let query = sqlx::query(AssertSqlSafe(sql));
        let query = if sql.contains("$1") { query.bind(self.clock.now()) } else { query };
        let rows = query.fetch_all(&mut self.owner().await).await;
        rows.unwrap_or_else(|error| panic!("{error}\n{sql}")).iter().map(|row| row.get(0)).collect()
    }

    /// Everything that happens by itself, to be ticked by hand. Scripted connectors do not wait.
    pub fn engine(&self) -> Engine {
        self.engine_with(BTreeMap::new(), BTreeMap::new())
    }

    /// The same, with directories and databases that flows may use.
    pub fn engine_with(
        &self,
        files_roots: BTreeMap<String, PathBuf>,
        postgres_dsns: BTreeMap<String, PgConnectOptions>,
    ) -> Engine {
        let connectors = Connectors {
            files_roots,
            postgres_dsns,
            own: DatabaseIdentity { system: 0, database: self.database.name.clone(), roles: vec![] },
            pacer: Pacer::Instant,
            clock: self.clock.clone(),
        };
        let settings = EngineSettings {
            workers: 4,
            lease: TimeDelta::seconds(60),
            heartbeat: std::time::Duration::from_secs(15),
            poll: std::time::Duration::from_secs(1),
            seen_every: TimeDelta::seconds(5),
            page_records: 500,
            no_progress: TimeDelta::minutes(30),
            retention: Retention { audit_days: 400, usage_days: 400, stats_days: 400 },
        };
        Engine::new(self.store.clone(), self.process.serving.wakes.clone(), settings, connectors, "test")
    }

    /// Executes queued runs until none is left that may start.
    pub async fn work_until_idle(&self) {
        let (engine, never) = (self.engine(), CancellationToken::new());
        while engine.worker().tick(&never).await.unwrap() > 0 {}
    }

    /// Sends a request as it is; the answer's body is JSON or nothing.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let mut request = request;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("not JSON: {bytes:?}"))
        };
        Reply { status, headers, body, bytes: bytes.to_vec() }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub bytes: Vec<u8>,
}

/// A caller with a token.
pub struct Agent<'a> {
    app: &'a TestApp,
    token: String,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub text: String,
    pub structured: Value,
    pub is_error: bool,
    pub code: Value,
}

impl Agent<'_> {
    /// The token it holds.
    pub fn token(&self) -> String {
        self.token.clone()
    }

    /// A request with a body, as a client of the newest legacy revision sends it.
    pub fn request(&self, body: impl Into<Body>) -> Request<Body> {
        Request::builder()
            .method(Method::POST)
            .uri("/mcp")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(body.into())
            .unwrap()
    }

    /// Sends one message.
    pub async fn post(&self, message: &Value) -> Reply {
        self.app.send(self.request(message.to_string())).await
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Told {
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments }
        });
        let reply = self.post(&message).await;
        let result = &reply.body["result"];
        assert!(result.is_object(), "{tool}: {} {}", reply.status, reply.body);
        let told = Told {
            text: result["content"][0]["text"].as_str().unwrap().to_owned(),
            structured: result["structuredContent"].clone(),
            is_error: result["isError"] == true,
            code: result["_meta"]["io.apixx/error"]["code"].clone(),
        };
        // Some clients show nothing but the text, others nothing but the JSON.
        let notes: Vec<&str> = told.text.lines().filter_map(|line| line.strip_prefix("Note: ")).collect();
        let noted = told.structured.get("notices").cloned().unwrap_or_else(|| json!([]));
        assert!(told.is_error || noted == json!(notes), "{tool}: {}\n{noted}", told.text);
        told
    }

    /// The text of a tool's answer, which must not be an error.
    pub async fn text(&self, tool: &str, arguments: Value) -> String {
        let told = self.call(tool, arguments).await;
        assert!(!told.is_error, "{tool}: {}", told.text);
        assert_eq!(
            told.structured["summary"].as_str().map(|summary| told.text.starts_with(summary)),
            Some(true)
        );
        told.text
    }
}

/// A count as answers write it.
pub fn counted(number: i64) -> String {
    apixx_mcp::view::text::count(number)
}

/// The first run id in a text.
pub fn first_run(text: &str) -> String {
    let at = text.find("run_").unwrap_or_else(|| panic!("no run id in\n{text}"));
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// What a router answers to a GET: the status and the body.
pub async fn get(router: &Router, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
