//! What the servers answer once it is quiet, against what the database holds.

use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::time::{Duration, Instant, sleep};

use crate::callers::{Callers, Heard};
use crate::world::FLOWS;

/// How long a server may say "come again" when nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(PartialEq, sqlx::FromRow)]
struct Run {
    run_id: String,
    status: String,
    attempt: i32,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
}

/// Compares what each server says of runs, totals and health with a recount, within `patience` (where clocks disagree a
/// moment longer, what ended lately is still to come).
pub async fn all(
    control: &mut PgConnection,
    callers: &Callers,
    token: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    for serve in 0..callers.serves() {
        let deadline = Instant::now() + patience;
        loop {
            let before = recount(control).await?;
            let mut wrong = Vec::new();
            of_runs(callers, serve, token, &before, &mut wrong).await;
            in_total(callers, serve, token, &before, &mut wrong).await;
            // (a request that nobody waits for any more may have made another run meanwhile)
            let same = before == recount(control).await?;
            if same && (wrong.is_empty() || Instant::now() >= deadline) {
                wrong.into_iter().for_each(|wrong| callers.violation(wrong));
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

async fn recount(control: &mut PgConnection) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(
        "select run_id, status, attempt, records_read, records_written, records_failed, records_skipped
           from runs order by run_id",
    )
    .fetch_all(control)
    .await
}

/// The structured answer of a tool.
async fn ask(callers: &Callers, serve: usize, token: &str, tool: &str, arguments: Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match callers.tool(serve, token, tool, arguments.clone()).await {
            Heard::Result(mut result) => return result["structuredContent"].take(),
            Heard::ComeAgain if Instant::now() < deadline => sleep(Duration::from_millis(100)).await,
            other => {
                callers.violation(format!("{tool} when it was quiet: {other:?}"));
                return Value::Null;
            }
        }
    }
}

async fn of_runs(callers: &Callers, serve: usize, token: &str, runs: &[Run], wrong: &mut Vec<String>) {
    for run in runs {
        let told = ask(callers, serve, token, "get_run", json!({ "run_id": run.run_id })).await;
        let (told, records) = (&told["run"], &told["run"]["records"]);
        let same = told["run_id"] == run.run_id
            && told["status"] == run.status
            && told["attempt"] == run.attempt
            && told["done"] == true
            && records["read"] == run.records_read
            && records["written"] == run.records_written
            && records["failed"] == run.records_failed
            && records["skipped"] == run.records_skipped;
        if !same {
            wrong.push(format!("get_run of server {serve} tells of {}: {told}", run.run_id));
        }
    }
}

async fn in_total(callers: &Callers, serve: usize, token: &str, runs: &[Run], wrong: &mut Vec<String>) {
    let of = |status: &str| runs.iter().filter(|run| run.status == status).count();
    let sum = |of: fn(&Run) -> i64| runs.iter().map(of).sum::<i64>();
    let counts = [
        ("succeeded", of("succeeded")),
        ("partial", of("partial")),
        ("failed", of("failed")),
        ("cancelled", of("cancelled")),
        ("skipped", of("skipped")),
        ("active", 0),
    ];
    let records = [
        ("read", sum(|run| run.records_read)),
        ("written", sum(|run| run.records_written)),
        ("failed", sum(|run| run.records_failed)),
        ("skipped", sum(|run| run.records_skipped)),
    ];
    let totals = |told: &Value| {
        told["runs"] == runs.len()
            && counts.iter().all(|(name, count)| told[name] == *count)
            && records.iter().all(|(name, count)| told["records"][name] == *count)
    };
    let always = json!({ "since": "2000-01-01", "until": "2100-01-01", "limit": 100 });
    let list = ask(callers, serve, token, "list_runs", always).await;
    let listed = list["runs"].as_array().map_or(0, Vec::len);
    if !totals(&list["totals"]) || listed != runs.len().min(100) {
        wrong.push(format!(
            "list_runs of server {serve} has {listed} of {} runs: {}",
            runs.len(),
            list["totals"]
        ));
    }
    let health = ask(callers, serve, token, "get_system_health", json!({})).await;
    let quiet = health["queue"]["queued"] == 0
        && health["queue"]["running"] == 0
        && health["flows"]["total"] == FLOWS.len()
        && health["connectors"]["total"] == 2;
    if !totals(&health["totals"]) || !quiet {
        let (queue, totals) = (&health["queue"], &health["totals"]);
        wrong.push(format!("get_system_health of server {serve} for {} runs: {queue} {totals}", runs.len()));
    }
}
