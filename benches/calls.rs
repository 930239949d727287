//! What a call costs, over HTTP on loopback, against the demo's data: requests a second and latencies, each as a
//! ratio to the plainest server that one could write (axum answering the same bytes, or running one indexed query).
//!
//! `cargo bench` prints a table; nothing is asserted. Rates of one machine mean little, ratios within one run more:
//! cells are measured in turn, several rounds, and the median of the rounds' ratios is shown.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on panics"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use apixx_mcp::app::process::{Process, TimeOf};
use apixx_mcp::config::{Config, Sources};
use apixx_mcp::demo;
use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::{Store, migrate};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const CELL: Duration = Duration::from_millis(800);
const CONNECTIONS: [usize; 3] = [1, 8, 64];

struct Target {
    name: &'static str,
    against: &'static str,
    url: String,
    token: Option<String>,
    body: String,
}

fn main() {
    // `cargo test --benches` and tools that only want to see it compile.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let scratch = std::env::temp_dir().join(format!("apixx-mcp-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let server =
        Embedded::start(EmbeddedConfig { data_dir: scratch.join("data"), bin_dir: None }).await.unwrap();
    let addresses = server.addresses();
    migrate(&addresses.owner_options(embedded::DATABASE), embedded::SERVER, None).await.unwrap();
    let options = addresses.server_options(embedded::DATABASE);
    let clock = Clock::system();
    let store =
        Store::connect(&options, 1, Duration::from_secs(5), clock.clone(), IdSource::random(clock.clone()))
            .await
            .unwrap();
    let tokens = demo::seed(&store, &[]).await.unwrap();
    store.close().await;
    sqlx::query("analyze")
        .execute(&PgPool::connect_with(addresses.owner_options(embedded::DATABASE)).await.unwrap())
        .await
        .unwrap();

    let environment = vec![("HOME".to_owned(), scratch.display().to_string())];
    let flags = vec![("server.max_connections".to_owned(), "1000".to_owned())];
    let config = Config::load(&Sources { file: None, environment, flags }).unwrap();
    let process =
        Process::start(&options, config, clock, TimeOf::Own, CancellationToken::new()).await.unwrap();
    let product = serve(process.router()).await;
    let token = tokens[0].token.reveal().to_owned();
    // The plan's limits are not what is measured.
    let owner = PgPool::connect_with(addresses.owner_options(embedded::DATABASE)).await.unwrap();
    sqlx::query("update plans set requests_per_minute = 100000000, burst = 10000000, daily_requests = null")
        .execute(&owner)
        .await
        .unwrap();

    let call = |name: &str, arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
        )
    };
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned();
    let bytes = Arc::new(fetch(&product, &token, &list).await);
    let pool = PgPoolOptions::new()
        .min_connections(6)
        .max_connections(6)
        .test_before_acquire(false)
        .connect_with(
            addresses.owner_options(embedded::DATABASE).options([("plan_cache_mode", "force_generic_plan")]),
        )
        .await
        .unwrap();
    let plain = Router::new()
        .route(
            "/static",
            post(move || {
                let bytes = bytes.clone();
                async move { bytes.to_vec() }
            }),
        )
        .route("/query", post(query))
        .with_state(pool);
    let plain = serve(plain).await;

    let target = |name, against, url: &str, token: Option<&String>, body: &str| Target {
        name,
        against,
        url: url.to_owned(),
        token: token.cloned(),
        body: body.to_owned(),
    };
    let mcp = format!("{product}/mcp");
    let targets = [
        target("plain static", "plain static", &format!("{plain}/static"), None, &list),
        target("plain query", "plain query", &format!("{plain}/query"), None, &list),
        target("tools/list", "plain static", &mcp, Some(&token), &list),
        target("get_run", "plain query", &mcp, Some(&token), &call("get_run", r#"{"run_id":"run_abc123"}"#)),
        target("list_runs", "plain query", &mcp, Some(&token), &call("list_runs", "{}")),
        target(
            "list_runs 30d by flow",
            "plain query",
            &mcp,
            Some(&token),
            &call("list_runs", r#"{"window":"30d","group_by":"flow","limit":0}"#),
        ),
        target("list_flows", "plain query", &mcp, Some(&token), &call("list_flows", "{}")),
        target("get_system_health", "plain query", &mcp, Some(&token), &call("get_system_health", "{}")),
    ];
    println!(
        "{:<24}{:>6}{:>12}{:>10}{:>10}{:>8}  against",
        "call", "c", "requests/s", "p50 us", "p99 us", "ratio"
    );
    for connections in CONNECTIONS {
        let mut rounds: Vec<Vec<Measured>> = Vec::new();
        for _ in 0..ROUNDS {
            let mut round = Vec::new();
            for target in &targets {
                round.push(load(target, connections).await);
            }
            rounds.push(round);
        }
        for (place, target) in targets.iter().enumerate() {
            let base = targets.iter().position(|other| other.name == target.against).unwrap();
            let ratio = median(rounds.iter().map(|round| round[place].rate / round[base].rate));
            println!(
                "{:<24}{:>6}{:>12.0}{:>10.0}{:>10.0}{:>8.2}  {}",
                target.name,
                connections,
                median(rounds.iter().map(|round| round[place].rate)),
                median(rounds.iter().map(|round| round[place].p50)),
                median(rounds.iter().map(|round| round[place].p99)),
                ratio,
                target.against
            );
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown");
    println!(
        "peak memory of server and load generator together: {}",
        memory.trim_start_matches("VmHWM:").trim()
    );
    server.stop().await;
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// One indexed query, without recognition, row-level security or a protocol.
async fn query(State(pool): State<PgPool>) -> Vec<u8> {
    let row: (String, String, i64) = sqlx::query_as(
        "select run_id, status, records_written from runs where customer_id = 'cus_acme' and run_id = $1",
    )
    .bind("run_abc123")
    .fetch_one(&pool)
    .await
    .unwrap();
    format!("{row:?}").into_bytes()
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}")
}

fn request(client: &reqwest::Client, url: &str, token: Option<&str>, body: &str) -> reqwest::RequestBuilder {
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25")
        .body(body.to_owned());
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

async fn fetch(base: &str, token: &str, body: &str) -> Vec<u8> {
    let client = reqwest::Client::new();
    request(&client, &format!("{base}/mcp"), Some(token), body)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec()
}

struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
}

async fn load(target: &Target, connections: usize) -> Measured {
    let client = reqwest::Client::builder().pool_max_idle_per_host(connections).build().unwrap();
    let (token, began) = (target.token.as_deref(), Instant::now());
    let workers = (0..connections).map(|_| {
        let client = client.clone();
        async move {
            let mut times = Vec::new();
            while began.elapsed() < CELL {
                let start = Instant::now();
                let reply = request(&client, &target.url, token, &target.body).send().await.unwrap();
                assert_eq!(reply.status(), 200, "{}", target.name);
                reply.bytes().await.unwrap();
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            times
        }
    });
    let mut times: Vec<f64> = futures_util::future::join_all(workers).await.concat();
    let seconds = began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Measured { rate: times.len() as f64 / seconds, p50: at(0.5), p99: at(0.99) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
