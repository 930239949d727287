//! What a call costs, side by side with the plainest server one could write and with servers on the official SDKs, on
//! one database in one run.
//!
//! ```text
//! cargo bench --bench side_by_side -- [--runs N] [--rounds N] [--cell-ms N] [--data DIR] [--only WORD]
//!                                     [--json FILE] [--write-results]
//! ```
//!
//! Every server is a process of its own. Cells are measured in turn, in several rounds whose order alternates; what is
//! shown is the median of the rounds' ratios. Rates of one machine mean little; ratios, and CPU for each request, mean
//! more. Nothing is asserted.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on panics, and it measures the time"
)]

mod bare;
mod claims;
mod data;
mod load;
mod peer;
mod queries;
mod report;
mod sdks;
#[allow(dead_code, reason = "shared with the program that makes such a database by itself")]
#[path = "../../examples/large/seed/mod.rs"]
mod seed;
mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use serde_json::{Value, json};

use data::{Customer, Data};
use load::Requests;
use queries::Asked;
use report::{Cell, Footprint, Report, Sample, median};
use servers::{Ran, Server};

/// How often each server is started to see how long it takes.
const STARTS: usize = 5;

#[derive(Parser)]
struct Options {
    /// Runs in the seeded database.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Rounds of each cell.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 700)]
    cell_ms: u64,
    /// Where the database is kept for the next time; one that is thrown away by default.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only calls whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the figures go.
    #[arg(long, default_value = "target/side_by_side.json")]
    json: PathBuf,
    /// Writes benches/RESULTS.md, and its essence into README.md.
    #[arg(long)]
    write_results: bool,
    /// As which server to run: `bare` or `rmcp`.
    #[arg(long, requires_all = ["listen", "database", "listing"], hide = true)]
    role: Option<String>,
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
    #[arg(long, hide = true)]
    database: Option<String>,
    #[arg(long, hide = true)]
    listing: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    // Tools that only want to see it start.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let options = Options::parse();
    match (&options.role, options.listen, &options.database, &options.listing) {
        (Some(role), Some(listen), Some(database), Some(listing)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(serve(role, listen, database, listing));
        }
        _ => {
            // One thread, so that the load takes no more of the machine than it must.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(compare(&options));
        }
    }
}

async fn serve(role: &str, listen: SocketAddr, database: &str, listing: &Path) {
    let listener = tokio::net::TcpListener::bind(listen).await.expect("the address is free");
    let listing = std::fs::read(listing).expect("the answer to tools/list");
    match role {
        "bare" => bare::serve(listener, database, listing).await,
        _ => peer::serve(listener, database, &listing).await,
    }
}

/// A call on one server.
struct Target {
    call: &'static str,
    server: &'static str,
    pid: u32,
    requests: Requests,
}

async fn compare(options: &Options) {
    let scratch = std::env::temp_dir().join(format!("apixx-mcp-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let data = Data::ready(options.data.as_deref().unwrap_or(&scratch), options.runs).await;
    let server_url = data.server_url.clone();

    eprintln!("starting the servers");
    let product = |scratch: PathBuf| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_apixx-mcp"));
        command.arg("serve").env_clear().env("HOME", scratch).env("APIXX_DATABASE__URL", &server_url);
        command
    };
    let listen = |command: &mut Command, address: SocketAddr| {
        command.env("APIXX_SERVER__LISTEN", address.to_string());
    };
    let first = |address| product_requests(address, &data.customers, "tools/list", |_, _| Value::Null);
    let log = scratch.join("product.log");
    let mut product_starts = Vec::new();
    for _ in 1..STARTS {
        let server = Server::start(product(scratch.clone()), &log, listen, first).await;
        product_starts.push(server.started_in.as_secs_f64() * 1e3);
    }
    let product = Server::start(product(scratch.clone()), &log, listen, first).await;
    product_starts.push(product.started_in.as_secs_f64() * 1e3);

    let tools_list = first(product.address);
    let listing = scratch.join("tools-list.json");
    std::fs::write(&listing, tools_list.one(0).await).unwrap();
    let other = |role: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--role", role, "--database", &data.owner_url]).arg("--listing").arg(&listing);
        command
    };
    let listen = |command: &mut Command, address: SocketAddr| {
        command.args(["--listen", &address.to_string()]);
    };
    let bare = Server::start(other("bare"), &scratch.join("bare.log"), listen, |address| {
        plain(address, "/static", vec![json!({})])
    })
    .await;
    let rmcp_first = |address| plain(address, "/mcp", vec![call("tools/list", Value::Null)]);
    let rmcp = Server::start(other("rmcp"), &scratch.join("rmcp.log"), listen, rmcp_first).await;
    let sdks = sdks::start(&scratch, &data, &listing, rmcp_first).await;

    let page = |customer: &Customer| json!({ "since": customer.since, "until": customer.until });
    let cursors = cursors(&product, &data.customers, page).await;
    let asked = asked(&data.customers);
    let arguments: Vec<Value> = asked.iter().map(|asked| json!(asked)).collect();
    let calls = |name: &'static str| {
        arguments
            .iter()
            .map(|arguments| call("tools/call", json!({ "name": name, "arguments": arguments })))
            .collect()
    };
    let tool = |name: &'static str, arguments: Value| json!({ "name": name, "arguments": arguments });
    let ours = |arguments: &dyn Fn(usize, &Customer) -> Value| {
        product_requests(product.address, &data.customers, "tools/call", arguments)
    };

    let target = |call, server, pid, requests| Target { call, server, pid, requests };
    let mut targets = vec![
        target(
            "tools/list",
            "bare",
            bare.pid(),
            plain(bare.address, "/static", vec![call("tools/list", Value::Null)]),
        ),
        target("tools/list", "rmcp", rmcp.pid(), rmcp_first(rmcp.address)),
        target("tools/list", "product", product.pid(), tools_list),
        target("get_run", "bare", bare.pid(), plain(bare.address, "/get_run", arguments.clone())),
        target("get_run", "rmcp", rmcp.pid(), plain(rmcp.address, "/mcp", calls("get_run"))),
        target(
            "get_run",
            "product",
            product.pid(),
            ours(&|which, customer| {
                tool("get_run", json!({ "run_id": customer.runs[which % customer.runs.len()].0 }))
            }),
        ),
        target("list_runs page", "bare", bare.pid(), plain(bare.address, "/list_runs", arguments.clone())),
        target("list_runs page", "rmcp", rmcp.pid(), plain(rmcp.address, "/mcp", calls("list_runs"))),
        target(
            "list_runs page",
            "product",
            product.pid(),
            ours(&|which, customer| {
                let mut arguments = page(customer);
                arguments["cursor"] = json!(cursors[which % cursors.len()]);
                tool("list_runs", arguments)
            }),
        ),
        target(
            "list_runs with totals",
            "product",
            product.pid(),
            ours(&|_, customer| tool("list_runs", page(customer))),
        ),
        target(
            "get_flow_error_summary",
            "product",
            product.pid(),
            ours(&|_, customer| {
                let mut arguments = page(customer);
                arguments["flow"] = json!(customer.flow);
                tool("get_flow_error_summary", arguments)
            }),
        ),
        target(
            "get_system_health",
            "product",
            product.pid(),
            ours(&|_, _| tool("get_system_health", json!({}))),
        ),
    ];
    for sdk in &sdks {
        for name in ["get_run", "list_runs"] {
            let call = if name == "get_run" { name } else { "list_runs page" };
            let requests = plain(sdk.server.address, "/mcp", calls(name));
            let place = targets.iter().rposition(|target| target.call == call).unwrap();
            targets.insert(place, target(call, sdk.name, sdk.server.pid(), requests));
        }
    }
    targets.retain(|target| target.call.contains(&options.only));
    for target in &targets {
        check(target).await;
    }

    tokio::time::sleep(Duration::from_millis(500)).await;
    let idle: Vec<(&'static str, f64)> = [("bare", &bare), ("rmcp", &rmcp), ("product", &product)]
        .into_iter()
        .chain(sdks.iter().map(|sdk| (sdk.name, &sdk.server)))
        .map(|(name, server)| (name, server.memory().0))
        .collect();
    let cells = measure(options, &targets, data.postmaster).await;
    let footprints = [("bare", &bare), ("rmcp", &rmcp), ("product", &product)]
        .into_iter()
        .chain(sdks.iter().map(|sdk| (sdk.name, &sdk.server)))
        .zip(idle)
        .map(|((name, server), (_, idle_mb))| Footprint {
            server: name,
            idle_mb,
            at_64_mb: server.memory().1,
            start_ms: match name {
                "product" => median(product_starts.iter().copied()),
                _ => server.started_in.as_secs_f64() * 1e3,
            },
        })
        .collect();
    drop((product, bare, rmcp, sdks));
    let claims = if options.only.is_empty() { claims::measure(&data, options.rounds).await } else { vec![] };

    let report = Report {
        date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
        machine: machine(),
        data: format!(
            "{} runs, {} callers, {} rounds of {} ms",
            options.runs,
            data.customers.len(),
            options.rounds,
            options.cell_ms
        ),
        cells,
        footprints,
        claims,
    };
    let tables = report.tables();
    println!("{tables}");
    if let Some(parent) = options.json.parent() {
        std::fs::create_dir_all(parent).expect("a directory for the figures");
    }
    std::fs::write(&options.json, serde_json::to_vec_pretty(&report).unwrap())
        .expect("the figures are written");
    if options.write_results {
        let head = "# Side by side\n\nWritten by `cargo bench --bench side_by_side -- --write-results`. ";
        std::fs::write("benches/RESULTS.md", format!("{head}{tables}"))
            .expect("benches/RESULTS.md is written");
        quote(&report.summary());
    }
    data.postgres.stop().await;
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// Puts the few figures that matter most into the README.
fn quote(summary: &str) {
    let (begin, end) = ("<!-- speed: written by the benchmark -->\n", "<!-- /speed -->");
    let readme = std::fs::read_to_string("README.md").expect("README.md");
    let (before, rest) = readme.split_once(begin).expect("its place for the figures");
    let (_, after) = rest.split_once(end).expect("the end of that place");
    std::fs::write("README.md", format!("{before}{begin}{summary}{end}{after}"))
        .expect("README.md is written");
}

async fn measure(options: &Options, targets: &[Target], postmaster: u32) -> Vec<Cell> {
    let time = Duration::from_millis(options.cell_ms);
    let mut cells = Vec::new();
    for connections in [1, 8, 64] {
        let mut rounds = vec![Vec::new(); targets.len()];
        for round in 0..options.rounds {
            eprintln!("{connections} connections, round {} of {}", round + 1, options.rounds);
            let forth = round % 2 == 0;
            for step in 0..targets.len() {
                let place = if forth { step } else { targets.len() - 1 - step };
                let target = &targets[place];
                let mut edges = Vec::new();
                let seen =
                    target.requests.drive(connections, time, || edges.push(Ran::now(target.pid, postmaster)));
                let seen = seen.await;
                rounds[place].push(Sample::new(seen, edges[1].since(&edges[0])));
            }
        }
        for (target, rounds) in targets.iter().zip(rounds) {
            cells.push(Cell { call: target.call, server: target.server, connections, rounds });
        }
    }
    cells.sort_by_key(|cell| targets.iter().position(|target| target.call == cell.call));
    cells
}

/// That a server does what is measured: it answers with what was asked for.
async fn check(target: &Target) {
    let body = target.requests.one(0).await;
    let text = String::from_utf8_lossy(&body);
    let right = match target.call {
        "tools/list" => text.contains("get_flow_error_summary"),
        _ => text.contains("run_") && !text.contains("\"isError\":true") && !text.contains("\"error\":{"),
    };
    assert!(right, "{} of {}: {text}", target.call, target.server);
    eprintln!("{} of {}: {} bytes", target.call, target.server, body.len());
}

fn call(method: &str, params: Value) -> Value {
    match params {
        Value::Null => json!({ "jsonrpc": "2.0", "id": 1, "method": method }),
        params => json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }),
    }
}

fn plain(address: SocketAddr, path: &'static str, bodies: Vec<Value>) -> Requests {
    let all = bodies.iter().map(|body| (None, Bytes::from(body.to_string()))).collect();
    Requests { address, path, all }
}

/// Requests of every customer to the product, several of each, in turn.
fn product_requests(
    address: SocketAddr,
    customers: &[Customer],
    method: &str,
    params: impl Fn(usize, &Customer) -> Value,
) -> Requests {
    let most = customers.iter().map(|customer| customer.runs.len()).max().unwrap_or(1);
    let all = (0..most * customers.len()).map(|which| {
        let customer = &customers[which % customers.len()];
        let place = if method == "tools/call" { which } else { 0 };
        let body = call(method, params(place, customer));
        (Some(format!("Bearer {}", customer.token)), Bytes::from(body.to_string()))
    });
    Requests { address, path: "/mcp", all: all.collect() }
}

/// What the servers beside the product are asked for: each customer's runs, and the page after each first page.
fn asked(customers: &[Customer]) -> Vec<Asked> {
    let most = customers.iter().map(|customer| customer.runs.len()).max().unwrap_or(1);
    (0..most * customers.len())
        .map(|which| {
            let customer = &customers[which % customers.len()];
            let (run_id, window_at) = customer.runs[which % customer.runs.len()].clone();
            Asked {
                customer: customer.id.clone(),
                run_id,
                window_at,
                now: customer.until,
                since: customer.since,
                until: customer.until,
            }
        })
        .collect()
}

/// For each customer, the cursor that goes on after the first page.
async fn cursors(product: &Server, customers: &[Customer], page: impl Fn(&Customer) -> Value) -> Vec<String> {
    let mut cursors = Vec::new();
    for (place, customer) in customers.iter().enumerate() {
        let params = json!({ "name": "list_runs", "arguments": page(customer) });
        let requests = product_requests(product.address, customers, "tools/call", |_, _| params.clone());
        let answer: Value = serde_json::from_slice(&requests.one(place).await).unwrap();
        let cursor = answer["result"]["structuredContent"]["next_cursor"].as_str();
        cursors.push(cursor.unwrap_or_else(|| panic!("no second page: {answer}")).to_owned());
    }
    cursors
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} ({cores} cores)", model.trim_start_matches(['\t', ' ', ':']))
}
