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
mod targets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;

use data::Data;
use report::{Cell, Footprint, Report, Sample, median};
use servers::{Memory, Ran, Server};
use targets::{Servers, Target};

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
    let first = |address| targets::list_of_product(address, &data.customers);
    let log = scratch.join("product.log");
    let mut product_starts = Vec::new();
    for _ in 1..STARTS {
        let server = Server::start(product(scratch.clone()), &log, listen, first).await;
        product_starts.push(server.started_in.as_secs_f64() * 1e3);
    }
    let product = Server::start(product(scratch.clone()), &log, listen, first).await;
    product_starts.push(product.started_in.as_secs_f64() * 1e3);

    let listing = scratch.join("tools-list.json");
    std::fs::write(&listing, first(product.address).one(0).await).unwrap();
    let other = |role: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--role", role, "--database", &data.owner_url]).arg("--listing").arg(&listing);
        command
    };
    let listen = |command: &mut Command, address: SocketAddr| {
        command.args(["--listen", &address.to_string()]);
    };
    let bare = Server::start(other("bare"), &scratch.join("bare.log"), listen, targets::list_of_bare).await;
    let rmcp = Server::start(other("rmcp"), &scratch.join("rmcp.log"), listen, targets::list_of_sdk).await;
    let sdks = sdks::start(&scratch, &data, &listing, targets::list_of_sdk).await;

    let servers = Servers { bare, rmcp, product, sdks };
    let mut targets = targets::all(&servers, &data.customers).await;
    targets.retain(|target| target.call.contains(&options.only));
    // Idle is who has answered each of its calls once.
    for target in &targets {
        target.requests.one(0).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let idle: Vec<Memory> = servers.all().map(|(_, server)| server.memory()).collect();
    targets::check(&mut targets).await;
    let cells = measure(options, &targets, data.postmaster).await;
    let footprints = servers
        .all()
        .zip(idle)
        .map(|((name, server), idle)| Footprint {
            server: name,
            idle_mb: idle.resident,
            idle_private_mb: idle.private,
            at_64_mb: server.memory().most,
            start_ms: match name {
                "product" => median(product_starts.iter().copied()),
                _ => server.started_in.as_secs_f64() * 1e3,
            },
        })
        .collect();
    drop(servers);
    let claims = if options.only.is_empty() { claims::measure(&data, options.rounds).await } else { vec![] };

    let report = Report {
        date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
        machine: machine(),
        data: format!(
            "{} runs, {} customers, {} rounds of {} ms",
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
        std::fs::write("benches/RESULTS.md", format!("{}{tables}", report::HEAD))
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

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} ({cores} cores)", model.trim_start_matches(['\t', ' ', ':']))
}
