//! A large installation, made and measured.
//!
//! `large seed --data-dir DIR --runs 1000000` fills a private PostgreSQL below DIR; `apixx-mcp --data-dir DIR serve`
//! can use it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program that cannot go on panics")]

mod seed;

use std::path::PathBuf;

use apixx_mcp::embedded::{self, Embedded, EmbeddedConfig};
use apixx_mcp::store::migrate;
use clap::{Parser, Subcommand};

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
    }
}
