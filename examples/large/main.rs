//! A large installation, made and measured.
//!
//! `large seed --data-dir DIR --runs 1000000` fills a private PostgreSQL below DIR, which `apixx-mcp --data-dir DIR serve`
//! can use. `large gates` asks every tool there and fails where one touches more pages than it may, reads a table
//! whole, sorts many rows or is planned anew at each call; with `--against` it fails where a tool touches more than
//! one and a half times the pages that it touched on another, smaller installation. `large retention` lets time pass
//! and proves that what is old goes in bounded batches while tools answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program that cannot go on panics")]

mod gates;
mod probe;
mod retention;
mod seed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use apixx_mcp::domain::ids::CustomerId;
use apixx_mcp::domain::page::CursorKey;
use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgConnection};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use gates::{Case, Further, cases};
use probe::{Cost, Plans, Probe};

/// How much more a tool may cost on the larger installation.
const FLAT: f64 = 1.5;
/// Pages by which the height of an index and the raggedness of an hour may differ where hardly any are touched.
const SLACK: u64 = 20;
/// Microseconds of the processor by which the same may differ. Among ten times the runs more cells of the roll-ups are
/// taken (up to one for each hour, trigger and state, some two microseconds each), and the hours at the edges of a window,
/// which are counted run by run, hold ten times as many. What grows with the runs themselves passes this soon.
const CPU_SLACK: f64 = 5_000.0;

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
    /// Asks every tool and judges what it cost.
    Gates {
        /// Where the figures are written, as JSON.
        #[arg(long)]
        out: PathBuf,
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
        What::Gates { out, against, only } => measure(&server, &plans, &only, &out, against.as_deref()).await,
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
    only: &str,
    out: &Path,
    against: Option<&Path>,
) -> Vec<String> {
    let addresses = server.addresses();
    let admin = addresses.role_options("postgres", embedded::DATABASE);
    let serving = addresses.server_options(embedded::DATABASE);
    let mut probe = Probe::start(&serving, &admin, plans, true).await;
    let mut conn = admin.connect().await.unwrap();
    let (mut runs, mut retried) = (Vec::new(), Vec::new());
    for place in [seed::WIDE, seed::DEEP] {
        let incident = seed::flow_id(place, seed::INCIDENT);
        let newest = json!({ "flow": incident, "status": ["partial"], "limit": 1 });
        let (_, found, _) = probe.call(place, "list_flow_runs", &newest).await;
        runs.push(found["runs"][0]["run_id"].as_str().unwrap().to_owned());
        let newest = json!({ "window": "30d", "trigger": ["retry"], "limit": 1 });
        let (_, found, _) = probe.call(place, "list_runs", &newest).await;
        retried.push(found["runs"][0]["flow_id"].as_str().unwrap().to_owned());
    }
    let mut further = cursors(&mut conn).await;
    for (place, tool, arguments, pages) in [
        (seed::DEEP, "list_flow_runs", json!({ "flow": seed::flow_name(0), "limit": 100 }), 20),
        (seed::WIDE, "list_flows", json!({ "limit": 200 }), 20),
        (seed::DEEP, "get_run_errors", json!({ "run_id": runs[1], "limit": 100, "group_by": "none" }), 5),
    ] {
        further.push(paged(&probe, place, tool, arguments, pages).await);
    }
    let cases: Vec<Case> = cases([&runs[0], &runs[1]], [&retried[0], &retried[1]], further)
        .into_iter()
        .filter(|case| format!("{} {}", case.tool, case.name).contains(only))
        .collect();
    let mut costs = Vec::new();
    for case in &cases {
        costs.push(probe.pages(case).await);
    }
    let mut faults = probe.custom_plans().await;
    faults.extend(recounted(&probe, &mut conn).await);
    probe.stop().await;
    let mut probe = Probe::start(&serving, &admin, plans, false).await;
    for (case, cost) in cases.iter().zip(&mut costs) {
        cost.cpu_us = probe.cpu(case).await;
    }
    probe.stop().await;
    let before: Value =
        against.map_or(Value::Null, |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    faults.extend(told(&cases, &costs, &before));
    let figures: serde_json::Map<String, Value> = cases
        .iter()
        .zip(&costs)
        .map(|(case, cost)| {
            let figures = json!({ "statements": cost.statements, "pages": cost.pages, "cpu_us": cost.cpu_us, "chars": cost.chars,
                "bytes": cost.bytes });
            (format!("{} {}", case.tool, case.name), figures)
        })
        .collect();
    std::fs::write(out, serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
    faults
}

/// Prints the table and returns what is wrong with it.
fn told(cases: &[Case], costs: &[Cost], before: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    println!(
        "{:<23}{:<28}{:>5}{:>8}{:>8}{:>8}{:>7}{:>10}{:>7}{:>7}{:>7}",
        "tool", "case", "stmts", "most", "pages", "before", "ratio", "cpu us", "ratio", "chars", "bytes"
    );
    for (case, cost) in cases.iter().zip(costs) {
        let name = format!("{} {}", case.tool, case.name);
        let earlier = &before[&name];
        let (pages, cpu) = (earlier["pages"].as_u64(), earlier["cpu_us"].as_f64());
        let ratio = |now: f64, then: Option<f64>| {
            then.map_or_else(|| "-".to_owned(), |then| format!("{:.2}", now / then))
        };
        println!(
            "{:<23}{:<28}{:>5}{:>8}{:>8}{:>8}{:>7}{:>10.0}{:>7}{:>7}{:>7}",
            case.tool,
            case.name,
            cost.statements,
            case.most,
            cost.pages,
            pages.map_or_else(|| "-".to_owned(), |pages| pages.to_string()),
            ratio(cost.pages as f64, pages.map(|pages| pages as f64)),
            cost.cpu_us,
            ratio(cost.cpu_us, cpu),
            cost.chars,
            cost.bytes
        );
        faults.extend(cost.faults.iter().map(|fault| format!("{name}: {fault}")));
        if cost.bytes > BYTES {
            faults.push(format!("{name}: {} bytes, more than {BYTES}", cost.bytes));
        }
        if cost.pages > case.most {
            faults.push(format!("{name}: {} pages, more than {}", cost.pages, case.most));
        }
        if pages.is_some_and(|pages| cost.pages as f64 > pages as f64 * FLAT && cost.pages > pages + SLACK) {
            faults.push(format!("{name}: {} pages after {}", cost.pages, pages.unwrap_or_default()));
        }
        if cpu.is_some_and(|cpu| cost.cpu_us > cpu * FLAT && cost.cpu_us > cpu + CPU_SLACK) {
            let before = cpu.unwrap_or_default();
            faults.push(format!("{name}: {:.0} us of the processor after {before:.0}", cost.cpu_us));
        }
    }
    faults
}

/// Places after the first, the thousandth and the last but thousandth run of the deep workspace, sealed as the
/// product seals them.
async fn cursors(conn: &mut PgConnection) -> Vec<Further> {
    let key: Vec<u8> =
        sqlx::query_scalar("select cursor_key from installation").fetch_one(&mut *conn).await.unwrap();
    let key = CursorKey::new(&key.try_into().unwrap());
    let customer = CustomerId::parse(&seed::customer_id(seed::DEEP)).unwrap();
    let count: i64 =
        sqlx::query_scalar("select count(*) from runs where customer_id = $1 and finished_at is not null")
            .bind(customer.as_str())
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    let mut cursors = Vec::new();
    let depths =
        [(1, "after one"), (1_000, "after a thousand"), (count - 1_000, "a thousand before the end")];
    for (depth, name) in depths {
        let (at, run): (chrono::DateTime<chrono::Utc>, String) = sqlx::query_as(
            "select window_at, run_id from runs where customer_id = $1 and finished_at is not null
              order by window_at desc, run_id desc limit 1 offset $2",
        )
        .bind(customer.as_str())
        .bind(depth)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let filters = r#"{"status":null,"flow":null,"connector":null,"trigger":null,"window":"90d","since":null,"until":null,"timezone":null,"group_by":"none"}"#;
        let position = json!([at.to_rfc3339(), run]).to_string();
        let cursor = key.seal(&customer, &format!("list_runs{filters}"), &position);
        let arguments = json!({ "window": "90d", "cursor": cursor });
        cursors.push(Further {
            place: seed::DEEP,
            tool: "list_runs",
            name: format!("90d, {name}"),
            arguments,
        });
    }
    cursors
}

/// A list after so many pages, or on its last one if that comes before.
async fn paged(
    probe: &Probe,
    place: usize,
    tool: &'static str,
    mut arguments: Value,
    pages: usize,
) -> Further {
    let mut turned = 0;
    while turned < pages {
        let (text, typed, failed) = probe.call(place, tool, &arguments).await;
        assert!(!failed, "{tool} {arguments}: {text}");
        let Some(cursor) = typed["next_cursor"].as_str() else { break };
        arguments["cursor"] = cursor.into();
        turned += 1;
    }
    assert!(turned > 0, "{tool} {arguments} has one page");
    // As many at a time as usual.
    arguments.as_object_mut().unwrap().remove("limit");
    Further { place, tool, name: "far on".to_owned(), arguments }
}

/// Totals that a tool tells are those of a count, of runs in any state and in each, and of errors.
async fn recounted(probe: &Probe, conn: &mut PgConnection) -> Vec<String> {
    let mut faults = Vec::new();
    let states = ["succeeded", "partial", "failed", "cancelled", "skipped"];
    for (place, days) in [(seed::WIDE, 30), (seed::DEEP, 7)] {
        let window = format!("{days}d");
        let since = seed::now() - chrono::TimeDelta::days(days);
        for status in [&states[..], &states[..1], &states[1..2]] {
            let all = json!({ "window": window, "limit": 0 });
            let some = json!({ "window": window, "limit": 0, "status": status });
            let asked = if status.len() == states.len() { all } else { some };
            let (_, told, _) = probe.call(place, "list_runs", &asked).await;
            let counted: Value = sqlx::query_scalar(
                "select jsonb_build_array(count(*), count(*) filter (where status = 'succeeded'),
                        count(*) filter (where status = 'partial'), count(*) filter (where status = 'failed'),
                        count(*) filter (where status = 'cancelled'), count(*) filter (where status = 'skipped'),
                        sum(records_read))
                   from runs where customer_id = $1 and window_at >= $2 and ($3 or status = any ($4))",
            )
            .bind(seed::customer_id(place))
            .bind(since)
            .bind(status.len() == states.len())
            .bind(status)
            .fetch_one(&mut *conn)
            .await
            .unwrap();
            let totals = &told["totals"];
            let of_states = states.iter().map(|state| totals[state].clone());
            let told: Vec<Value> = std::iter::once(totals["runs"].clone())
                .chain(of_states)
                .chain([totals["records"]["read"].clone()])
                .collect();
            if Value::from(told.clone()) != counted {
                faults.push(format!("list_runs {days}d {status:?} tells {told:?}, there are {counted}"));
            }
        }
        let flow = seed::flow_id(place, 0);
        let (_, told, _) =
            probe.call(place, "get_flow_error_summary", &json!({ "flow": flow, "window": window })).await;
        let counted: (i64, i64) = sqlx::query_as(
            "select coalesce(sum(c.count), 0)::bigint, count(distinct r.run_id) from runs r join run_error_counts c using (customer_id, run_id)
              where r.customer_id = $1 and r.flow_id = $2 and r.window_at >= $3",
        )
        .bind(seed::customer_id(place))
        .bind(flow)
        .bind(since)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let told = (told["total_errors"].as_i64(), told["runs_with_errors"].as_i64());
        if told != (Some(counted.0), Some(counted.1)) {
            faults.push(format!("get_flow_error_summary {days}d tells {told:?}, there are {counted:?}"));
        }
    }
    faults
}
