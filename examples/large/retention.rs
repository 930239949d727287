//! Retention on a large database: batches are bounded, and tools answer while it goes on.

use std::time::{Duration, Instant};

use apixx_mcp::embedded::{self, Embedded};
use apixx_mcp::store::retention::Retention;
use chrono::TimeDelta;
use serde_json::json;
use sqlx::ConnectOptions;
use tokio_util::sync::CancellationToken;

use super::probe::{Plans, Probe};
use super::seed;

/// Rows of each kind that go at once, as the product has it.
const AT_ONCE: i32 = 1_000;
/// How long a batch may take, and a tool meanwhile. Generous: it is no measurement, only no lock that is held for long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets ten days pass, drops what is old and asks meanwhile. Returns what went wrong.
pub async fn prove(server: &Embedded, plans: &Plans) -> Vec<String> {
    let addresses = server.addresses();
    let admin = addresses.role_options("postgres", embedded::DATABASE);
    let probe = Probe::start(&addresses.server_options(embedded::DATABASE), &admin, plans, false).await;
    let purging = Probe::start(&addresses.server_options(embedded::DATABASE), &admin, plans, false).await;
    let store = &purging.process.serving.store;
    let keep = Retention { audit_days: 400, usage_days: 400, stats_days: 400 };
    let mut conn = admin.connect().await.unwrap();
    let mut faults = Vec::new();

    let began = Instant::now();
    while store.purge(&keep, AT_ONCE).await.unwrap().more() {}
    let first = began.elapsed();
    let began = Instant::now();
    store.purge(&keep, AT_ONCE).await.unwrap();
    println!(
        "what was old already: {:.1} s; a look that finds nothing: {:.0} ms",
        first.as_secs_f64(),
        began.elapsed().as_secs_f64() * 1e3
    );

    let count = "select count(*) from runs";
    let stats = "select sum(runs)::bigint from run_stats";
    let open = "select count(*) from runs where finished_at is null";
    let mut ask =
        async |text: &'static str| -> i64 { sqlx::query_scalar(text).fetch_one(&mut conn).await.unwrap() };
    let before = (ask(count).await, ask(stats).await, ask(open).await);
    store.clock().advance(TimeDelta::days(10));
    let done = CancellationToken::new();
    let read = async {
        let (mut calls, mut slowest) = (0, Duration::ZERO);
        while !done.is_cancelled() {
            for place in [seed::WIDE, seed::DEEP] {
                let began = Instant::now();
                let (text, _, failed) = probe.call(place, "list_runs", &json!({ "window": "90d" })).await;
                assert!(!failed, "{text}");
                (calls, slowest) = (calls + 1, slowest.max(began.elapsed()));
            }
        }
        (calls, slowest)
    };
    let purge = async {
        let (mut batches, mut longest, mut large) = (0, Duration::ZERO, Vec::new());
        loop {
            let began = Instant::now();
            let gone = store.purge(&keep, AT_ONCE).await.unwrap();
            (batches, longest) = (batches + 1, longest.max(began.elapsed()));
            let too_many = |(_, rows): &&(String, i64)| *rows > i64::from(AT_ONCE);
            large.extend(gone.rows.iter().find(too_many).cloned());
            if !gone.more() {
                done.cancel();
                return (batches, longest, large);
            }
        }
    };
    let ((calls, slowest), (batches, longest, large)) = tokio::join!(read, purge);
    let after = (ask(count).await, ask(stats).await, ask(open).await);
    println!(
        "ten days later: {} runs went in {batches} batches, the longest {:.0} ms; {calls} calls meanwhile, the slowest {:.0} ms",
        before.0 - after.0,
        longest.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3
    );
    if after.0 >= before.0 {
        faults.push("nothing went".to_owned());
    }
    if (after.1, after.2) != (before.1, before.2) {
        faults.push("roll-ups or open runs changed".to_owned());
    }
    faults.extend(large.into_iter().map(|(kind, rows)| format!("{rows} {kind} went at once")));
    if longest > PATIENCE {
        faults.push(format!("a batch took {longest:?}"));
    }
    if slowest > PATIENCE {
        faults.push(format!("a tool took {slowest:?} meanwhile"));
    }
    probe.stop().await;
    purging.stop().await;
    faults
}
