//! Serves the fixture for the official conformance suite: `cargo run --example conformance -- --listen ADDRESS`.
//! With `--token TOKEN` it takes only requests with that bearer token. Prints the address once it listens.

#![expect(clippy::expect_used, reason = "the fixture's own constants decode")]

use std::sync::Arc;

use apixx_mcp::protocol::http::{HttpConfig, router};
use fixture::{Fixture, Gate};
use tokio::net::TcpListener;

mod fixture;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut listen = String::from("127.0.0.1:0");
    let mut gate = Gate::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--listen", Some(address)) => listen = address,
            ("--token", Some(token)) => gate.tokens.push(token),
            _ => anyhow::bail!("usage: conformance [--listen ADDRESS] [--token TOKEN]"),
        }
    }
    let listener = TcpListener::bind(&listen).await?;
    println!("{}", listener.local_addr()?);
    let router = router(Arc::new(Fixture::with(Vec::new())), HttpConfig::default()).with_state(gate);
    axum::serve(listener, router).await?;
    Ok(())
}
