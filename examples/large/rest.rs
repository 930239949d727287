//! What the cases leave out: every shape of a list of runs, everything that happens by itself, and the pages. Nothing is
//! measured here; what no statement may do is judged.

use apixx_mcp::domain::person::Email;
use apixx_mcp::domain::token::Secret;
use apixx_mcp::store::people::Ends;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::probe::{Cost, Probe, run};
use super::seed::{self, DEEP, WIDE, connector_id, customer_id, flow_id, flow_name};

/// Statements of ours that must have been seen in the end.
const STATEMENTS: usize = 200;
/// Tables that runs leave empty, as full as a used installation has them: what is empty is read whole, and rightly.
const USED: &str = "
    insert into people (email, created_at) select email, created_at from users on conflict do nothing;
    insert into sessions (digest, email, opened_at, idle_until, ends_at)
    select sha256((u.email || n)::bytea), u.email, u.created_at, u.created_at + interval '1 day', u.created_at + interval '30 days'
      from users u cross join generate_series(1, 20) n
        on conflict do nothing;
    insert into usage_hourly (customer_id, token_id, tool, hour, calls, errors, duration_ms)
    select t.customer_id, t.token_id, 'list_runs', date_trunc('hour', t.created_at, 'UTC') + n * interval '1 hour', 9, 1, 90
      from tokens t cross join generate_series(1, 100) n
        on conflict do nothing;
    insert into flow_cursors (customer_id, flow_id, stream, cursor, run_id, updated_at)
    select customer_id, flow_id, 'load', '1', '', created_at from flows
        on conflict do nothing;
    analyze people, sessions, usage_hourly, flow_cursors;";
/// Pages that a list may touch which nothing matches, if it is told of all flows together.
const NOTHING: u64 = 500;
/// The same where ninety days of each flow are looked through, day by day or hour by hour.
const NOTHING_OF_FLOWS: u64 = 12_000;

/// Plays all of it and returns what is wrong.
pub async fn played(probe: &mut Probe) -> Vec<String> {
    run(&mut probe.admin, USED).await;
    let mut faults = shapes(probe).await;
    faults.extend(pages(probe).await);
    faults.extend(engine(probe).await);
    let (seen, all) = probe.seen();
    println!("{seen} of {all} statements were judged");
    if seen < STATEMENTS {
        faults.push(format!("{seen} statements were judged, fewer than {STATEMENTS}"));
    }
    faults
}

/// What was done since the last look, and what is wrong with it.
fn judged(probe: &mut Probe, what: &str, faults: &mut Vec<String>) -> Cost {
    let cost = probe.told();
    faults.extend(cost.faults.iter().map(|fault| format!("{what}: {fault}")));
    cost
}

/// Ninety days by everything, with every choice of filters: such that nothing matches where one can be chosen so, and
/// such that there is a second page.
async fn shapes(probe: &mut Probe) -> Vec<String> {
    let mut faults = Vec::new();
    let groupings =
        ["none", "flow", "source", "destination", "connector", "status", "trigger", "hour", "day"];
    for bits in 0..16_u8 {
        let has = |bit: u8| bits & bit != 0;
        let asked = |status: &str, trigger: &str| {
            let mut asked = json!({ "window": "90d", "limit": 1 });
            for (on, name, value) in [
                (has(1), "flow", flow_name(0).into()),
                (has(2), "connector", "HubSpot 0".into()),
                (has(4), "status", json!([status])),
                (has(8), "trigger", json!([trigger])),
            ] {
                if on {
                    asked[name] = value;
                }
            }
            asked
        };
        for grouping in groupings {
            let mut nothing = asked("cancelling", "webhook");
            nothing["group_by"] = grouping.into();
            // (hours are told of some days at most)
            if grouping == "hour" {
                nothing["window"] = "7d".into();
            }
            let (text, typed, failed) = probe.call(WIDE, "list_runs", &nothing).await;
            let name = format!("list_runs {nothing}");
            let cost = judged(probe, &name, &mut faults);
            if failed {
                faults.push(format!("{name}: {text}"));
            }
            let none = typed["runs"].as_array().is_some_and(Vec::is_empty);
            let of_flows = has(2) || matches!(grouping, "flow" | "source" | "destination" | "connector");
            let most = if of_flows { NOTHING_OF_FLOWS } else { NOTHING };
            if (has(4) || has(8)) && !(none && cost.pages <= most) {
                faults.push(format!("{name}: {} pages to find nothing", cost.pages));
            }
        }
        let mut some = asked("succeeded", "schedule");
        let (_, first, _) = probe.call(WIDE, "list_runs", &some).await;
        some["cursor"] = first["next_cursor"].clone();
        let (text, second, _) = probe.call(WIDE, "list_runs", &some).await;
        if second["runs"].as_array().is_none_or(Vec::is_empty) {
            faults.push(format!("list_runs {some}: {text}"));
        }
        judged(probe, &format!("list_runs {some}"), &mut faults);
    }
    faults
}

/// Every page that shows something of a workspace.
async fn pages(probe: &mut Probe) -> Vec<String> {
    let mut faults = Vec::new();
    let store = probe.process.serving.store.clone();
    let email = Email::parse("owner@0.example").unwrap();
    let session = Secret::new(store.ids());
    let ends = Ends { idle: store.now() + TimeDelta::hours(1), at_last: store.now() + TimeDelta::days(1) };
    store.open_session(&session, &email, ends).await.unwrap();
    let (_, found, _) = probe.call(WIDE, "list_runs", &json!({ "limit": 1 })).await;
    judged(probe, "a session", &mut faults);
    let (flow, run) = (flow_id(WIDE, 0), found["runs"][0]["run_id"].as_str().unwrap().to_owned());
    let paths = [
        String::new(),
        "/flows".to_owned(),
        format!("/flows/{flow}"),
        format!("/runs/{run}"),
        "/connectors".to_owned(),
        "/usage".to_owned(),
        "/audit".to_owned(),
        "/try".to_owned(),
        "/settings/mcp".to_owned(),
        "/settings/mcp/new".to_owned(),
        "/settings/connect".to_owned(),
    ];
    for path in paths {
        let path = format!("/w/large-{WIDE}{path}");
        let text = probe.page(&path, &session).await;
        let cost = judged(probe, &path, &mut faults);
        if cost.statements == 0 || !text.contains("Wide") {
            faults.push(format!("{path} does not show the workspace"));
        }
    }
    faults
}

/// A schedule, a run from its claim to its end, one that is taken back, a check, and a look at a flow.
async fn engine(probe: &mut Probe) -> Vec<String> {
    let mut faults = Vec::new();
    let deep = customer_id(DEEP);
    let (now, past) = (seed::now(), seed::now() - TimeDelta::minutes(2));
    // Of each kind one is due; of the runs that wait only one may begin, the deep workspace's.
    let due = [
        format!("update flows set next_run_at = '{past}' where flow_id = '{}'", flow_id(DEEP, 10)),
        format!("update flows set health_checked_at = '{past}' where flow_id = '{}'", flow_id(DEEP, 11)),
        format!(
            "update connectors set next_check_at = '{past}' where connector_id = '{}'",
            connector_id(DEEP, 3)
        ),
        format!("update runs set lease_until = '{past}' where customer_id = '{deep}' and status = 'running'"),
        format!(
            r#"update connectors set config = '{{"sim": {{"records": 1200, "errors": [{{"rate": 0.05,
                "class": "VALIDATION", "code": "REQUIRED", "message": "no"}}]}}}}' where customer_id = '{deep}'"#
        ),
        format!(
            "update runs set available_at = '{now}'::timestamptz + interval '1 day' where status = 'queued' and customer_id <> '{deep}'"
        ),
    ];
    for text in due {
        run(&mut probe.admin, &text).await;
    }
    let engine = probe.process.engine().await.unwrap();
    let store = probe.process.serving.store.clone();
    judged(probe, "an engine", &mut faults);
    store.worker_seen("large", now, 0).await.unwrap();
    judged(probe, "a worker that is seen", &mut faults);
    let never = CancellationToken::new();
    let mut ticked = async |probe: &mut Probe, what: &str, count: usize| {
        let cost = judged(probe, what, &mut faults);
        println!("{what}: {} statements, {} pages", cost.statements, cost.pages);
        if count == 0 {
            faults.push(format!("{what}: nothing happened"));
        }
    };
    let count = engine.schedule_tick().await.unwrap();
    ticked(probe, "a schedule", count).await;
    let count = engine.worker().tick(&never).await.unwrap();
    ticked(probe, "a run", count).await;
    let count = engine.reap_tick().await.unwrap();
    ticked(probe, "a run that nobody has", count).await;
    let count = engine.check_tick().await.unwrap();
    ticked(probe, "a check", count).await;
    let count = engine.watch_tick().await.unwrap();
    ticked(probe, "a flow that is looked at", count).await;
    store.worker_gone("large").await.unwrap();
    ticked(probe, "a worker that goes", 1).await;
    let again = format!(
        "update runs set available_at = queued_at where status = 'queued' and customer_id <> '{deep}'"
    );
    run(&mut probe.admin, &again).await;
    let ended: Value = sqlx::query_scalar(
        "select coalesce(jsonb_agg(distinct status), '[]') from runs
          where customer_id = $1 and worker_id <> 'seed' and records_failed > 0",
    )
    .bind(deep)
    .fetch_one(&mut probe.admin)
    .await
    .unwrap();
    if ended != json!(["partial"]) {
        faults.push(format!("runs with errors ended as {ended}"));
    }
    faults
}
