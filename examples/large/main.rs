//! A large installation, made and measured.
//!
//! `large seed --data-dir DIR --runs 1000000` fills a private PostgreSQL below DIR, which `apixx-mcp --data-dir DIR serve`
//! can use. `large gates` asks every tool there and fails where one touches more pages than it may, reads a table
//! whole, sorts many rows or is planned anew at each call, or where the installation is smaller than it says; with
//! `--against` it fails where a tool costs more than one and a half times what it cost on another, smaller installation,
//! in pages or in the processor time of the database or the server, or answers otherwise there. In the end it lets a run
//! go on and opens the pages, and judges their statements alike: it is for a fresh installation. `large retention` lets
//! time pass and proves that what is old goes in bounded batches while tools answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program that cannot go on panics")]

mod counts;
mod far;
mod gates;
mod probe;
mod rest;
mod retention;
mod seed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use gates::{Case, cases};
use probe::{Cost, Plans, Probe};

/// How much more a tool may cost on the larger installation.
const FLAT: f64 = 1.5;
/// Pages by which the height of an index and the raggedness of an hour may differ where hardly any are touched.
const PAGE_SLACK: f64 = 20.0;
/// Microseconds of the processor by which two measurements of the same may differ.
const CPU_SLACK: f64 = 300.0;
/// By how much of its size an answer may differ.
const LIKE: f64 = 0.15;

/// Bytes of the largest answer, its text and the same rows typed.
const BYTES: usize = 96 * 1024;

#[derive(Parser)]
struct Arguments {
    /// The private PostgreSQL.
    #[arg(long, global = true, default_value = "large")]
    data_dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Fills a new private PostgreSQL and prints the tokens of the wide and the deep workspace.
    Seed {
        /// Runs in all.
        #[arg(long, default_value_t = 1_000_000)]
        runs: u64,
    },
    /// Asks every tool and judges what it cost, once.
    Gates {
        /// Runs in all, as it was filled with.
        #[arg(long, default_value_t = 1_000_000)]
        runs: u64,
        /// Where the figures are written, as JSON.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The figures of a smaller installation.
        #[arg(long)]
        against: Option<PathBuf>,
        /// Only cases whose tool and name hold these words.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Lets ten days pass and drops what is old.
    Retention,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plans = Plans::default();
    tracing_subscriber::registry().with(plans.clone()).init();
    let server =
        Embedded::start(EmbeddedConfig { data_dir: arguments.data_dir, bin_dir: None }).await.unwrap();
    let faults = match arguments.what {
        What::Seed { runs } => {
            let addresses = server.addresses();
            migrate(&addresses.owner_options(embedded::DATABASE), embedded::SERVER, None).await.unwrap();
            seed::seed(&addresses.role_options("postgres", embedded::DATABASE), &seed::Large::of(runs)).await;
            println!("wide {}\ndeep {}", seed::token(seed::WIDE).reveal(), seed::token(seed::DEEP).reveal());
            Vec::new()
        }
        What::Gates { runs, out, against, only } => {
            measure(&server, &plans, runs, &only, out.as_deref(), against.as_deref()).await
        }
        What::Retention => retention::prove(&server, &plans).await,
    };
    server.stop().await;
    for fault in &faults {
        println!("FAULT {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(
    server: &Embedded,
    plans: &Plans,
    runs: u64,
    only: &str,
    out: Option<&Path>,
    against: Option<&Path>,
) -> Vec<String> {
    let addresses = server.addresses();
    let admin = addresses.role_options("postgres", embedded::DATABASE);
    let serving = addresses.server_options(embedded::DATABASE);
    let mut conn = admin.connect().await.unwrap();
    let mut faults = counts::sizes(&mut conn, &seed::Large::of(runs)).await;
    let probe = Probe::start(&serving, &admin, plans, false).await;
    let mut erring = Vec::new();
    for place in [seed::WIDE, seed::DEEP] {
        let incident = seed::flow_id(place, seed::INCIDENT);
        let newest = json!({ "flow": incident, "status": ["partial"], "limit": 1 });
        let (_, found, _) = probe.call(place, "list_flow_runs", &newest).await;
        erring.push(found["runs"][0]["run_id"].as_str().unwrap().to_owned());
    }
    let newest = json!({ "window": "30d", "trigger": ["retry"], "limit": 1 });
    let (_, found, _) = probe.call(seed::WIDE, "list_runs", &newest).await;
    let retried = [found["runs"][0]["flow_id"].as_str().unwrap().to_owned(), seed::flow_id(seed::DEEP, 0)];
    let further = far::on(&probe, &mut conn, &erring[1]).await;
    faults.extend(counts::totals(&probe, &mut conn).await);
    probe.stop().await;
    let cases: Vec<Case> = cases([&erring[0], &erring[1]], [&retried[0], &retried[1]], further)
        .into_iter()
        .filter(|case| case.title().contains(only))
        .collect();
    let mut probe = Probe::start(&serving, &admin, plans, true).await;
    let mut costs = Vec::new();
    for case in &cases {
        costs.push(probe.pages(case).await);
    }
    faults.extend(probe.custom_plans().await);
    probe.stop().await;
    let mut probe = Probe::start(&serving, &admin, plans, false).await;
    for (cost, (cpu_us, server_us)) in costs.iter_mut().zip(probe.cpu(&cases).await) {
        (cost.cpu_us, cost.server_us) = (cpu_us, server_us);
    }
    probe.stop().await;
    if only.is_empty() {
        let mut probe = Probe::start(&serving, &admin, plans, true).await;
        faults.extend(rest::played(&mut probe).await);
        faults.extend(probe.custom_plans().await);
        probe.stop().await;
    }
    let before: Value =
        against.map_or(Value::Null, |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    faults.extend(told(&cases, &costs, &before));
    let figures: serde_json::Map<String, Value> = cases
        .iter()
        .zip(&costs)
        .map(|(case, cost)| {
            let figures = json!({ "statements": cost.statements, "pages": cost.pages, "cpu_us": cost.cpu_us,
                "server_us": cost.server_us, "chars": cost.chars, "bytes": cost.bytes });
            (case.title(), figures)
        })
        .collect();
    if let Some(out) = out {
        std::fs::write(out, serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
    }
    faults
}

/// Prints the table and returns what is wrong with it.
fn told(cases: &[Case], costs: &[Cost], before: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    println!(
        "{:<23}{:<34}{:>5}{:>7}{:>7}{:>8}{:>7}{:>9}{:>7}{:>10}{:>7}{:>7}{:>7}{:>7}",
        "tool",
        "case",
        "stmts",
        "most",
        "pages",
        "before",
        "ratio",
        "cpu us",
        "ratio",
        "server us",
        "ratio",
        "chars",
        "bytes",
        "ratio"
    );
    for (case, cost) in cases.iter().zip(costs) {
        let name = case.title();
        let earlier = before.get(&name);
        let then = |key: &str| earlier.and_then(|earlier| earlier[key].as_f64());
        let ratio = |now: f64, then: Option<f64>| {
            then.map_or_else(|| "-".to_owned(), |then| format!("{:.2}", now / then))
        };
        let pages = then("pages");
        println!(
            "{:<23}{:<34}{:>5}{:>7}{:>7}{:>8}{:>7}{:>9.0}{:>7}{:>10.0}{:>7}{:>7}{:>7}{:>7}",
            case.tool,
            case.name,
            cost.statements,
            case.most,
            cost.pages,
            pages.map_or_else(|| "-".to_owned(), |pages| pages.to_string()),
            ratio(cost.pages as f64, pages),
            cost.cpu_us,
            ratio(cost.cpu_us, then("cpu_us")),
            cost.server_us,
            ratio(cost.server_us, then("server_us")),
            cost.chars,
            cost.bytes,
            ratio(cost.bytes as f64, then("bytes"))
        );
        faults.extend(cost.faults.iter().map(|fault| format!("{name}: {fault}")));
        if cost.bytes > BYTES {
            faults.push(format!("{name}: {} bytes, more than {BYTES}", cost.bytes));
        }
        if case.refused.is_none() && cost.lists == Some(case.finds_nothing()) {
            faults.push(format!(
                "{name}: lists {}",
                if case.finds_nothing() { "something" } else { "nothing" }
            ));
        }
        if cost.pages > case.most {
            faults.push(format!("{name}: {} pages, more than {}", cost.pages, case.most));
        }
        if before.is_null() {
            continue;
        }
        let (Some(pages), Some(cpu), Some(server), Some(bytes)) =
            (pages, then("cpu_us"), then("server_us"), then("bytes"))
        else {
            faults.push(format!("{name}: not measured before"));
            continue;
        };
        for (what, now, then, slack) in [
            ("pages", cost.pages as f64, pages, PAGE_SLACK),
            ("us of the database's processor", cost.cpu_us, cpu, CPU_SLACK),
            ("us of the server's processor", cost.server_us, server, CPU_SLACK),
        ] {
            if now > then * FLAT && now > then + slack {
                faults.push(format!("{name}: {now:.0} {what} after {then:.0}"));
            }
        }
        if then("statements").is_some_and(|then| cost.statements as f64 > then) {
            faults.push(format!("{name}: {} statements, more than before", cost.statements));
        }
        // What answers otherwise costs otherwise, and says nothing.
        if (cost.bytes as f64 / bytes - 1.0).abs() > LIKE {
            faults.push(format!("{name}: {} bytes after {bytes}", cost.bytes));
        }
    }
    faults
}
