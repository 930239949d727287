//! A large installation, made and measured.
//!
//! `large seed --data-dir DIR --runs 1000000` fills a private PostgreSQL below DIR; `apixx-mcp --data-dir DIR serve`
//! can use it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program that cannot go on panics")]

mod gates;
mod probe;
mod seed;

use std::path::PathBuf;

use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use clap::{Parser, Subcommand};
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Fills a new private PostgreSQL and prints the tokens of the wide and the deep workspace.
    Seed {
        /// Where it keeps everything; not there yet.
        #[arg(long)]
        data_dir: PathBuf,
        /// Runs in all.
        #[arg(long, default_value_t = 1_000_000)]
        runs: u64,
    },
    /// Asks every tool and tells what it cost.
    Gates {
        /// What `seed` filled.
        #[arg(long)]
        data_dir: PathBuf,
        /// Where the figures are written.
        #[arg(long)]
        out: PathBuf,
        /// Only cases whose tool and name hold these words.
        #[arg(long, default_value = "")]
        only: String,
        /// Processor time too.
        #[arg(long)]
        cpu: bool,
    },
}

#[tokio::main]
async fn main() {
    match Arguments::parse().what {
        What::Seed { data_dir, runs } => {
            let server = Embedded::start(EmbeddedConfig { data_dir, bin_dir: None }).await.unwrap();
            let addresses = server.addresses();
            migrate(&addresses.owner_options(embedded::DATABASE), embedded::SERVER, None).await.unwrap();
            let admin = addresses.role_options("postgres", embedded::DATABASE);
            seed::seed(&admin, &seed::Large::of(runs)).await;
            println!("wide {}\ndeep {}", seed::token(seed::WIDE).reveal(), seed::token(seed::DEEP).reveal());
            server.stop().await;
        }
        What::Gates { data_dir, out, only, cpu } => {
            let plans = probe::Plans::default();
            tracing_subscriber::registry().with(plans.clone()).init();
            let server = Embedded::start(EmbeddedConfig { data_dir, bin_dir: None }).await.unwrap();
            let addresses = server.addresses();
            let admin = addresses.role_options("postgres", embedded::DATABASE);
            let serving = addresses.server_options(embedded::DATABASE);
            let mut probe = probe::Probe::start(&serving, &admin, &plans, true).await;
            let mut runs = Vec::new();
            for place in [seed::WIDE, seed::DEEP] {
                let newest =
                    json!({ "flow": seed::flow_id(place, 0), "status": ["partial", "failed"], "limit": 1 });
                let (_, found, _) = probe.call(place, "list_flow_runs", &newest).await;
                runs.push(found["runs"][0]["run_id"].as_str().unwrap().to_owned());
            }
            let cases = gates::cases([&runs[0], &runs[1]], &[]);
            let mut figures = Vec::new();
            for case in cases.iter().filter(|case| format!("{} {}", case.tool, case.name).contains(&only)) {
                let cost = probe.pages(case.place, case.tool, &case.arguments).await;
                figures.push((case, cost));
            }
            probe.stop().await;
            if cpu {
                probe = probe::Probe::start(&serving, &admin, &plans, false).await;
                for (case, cost) in &mut figures {
                    cost.cpu_us = probe.cpu(case.place, case.tool, &case.arguments).await;
                }
                probe.stop().await;
            }
            let mut table = String::new();
            for (case, cost) in &figures {
                table += &format!(
                    "{:<24}{:<28}{:>3}{:>8}{:>10.0}{:>7} {}\n",
                    case.tool,
                    case.name,
                    cost.statements,
                    cost.pages,
                    cost.cpu_us,
                    cost.chars,
                    cost.faults.join("; ")
                );
            }
            print!("{table}");
            std::fs::write(out, table).unwrap();
            server.stop().await;
        }
    }
}
