//! Counts that come to what is said of them.

use serde_json::{Value, json};

use crate::support::app::{TestApp, counted, first_run};

/// Runs a statement that changes the demo.
async fn change(app: &TestApp, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut app.owner().await).await.unwrap();
}

/// The hour in which the last 24 begin is read run by run, the whole ones from the roll-up: a run at the turn of the
/// hour is in one of them.
#[tokio::test]
async fn a_run_that_ends_on_the_hour_counts_once() {
    let app = TestApp::demo().await;
    let flow: Vec<String> = app
        .column(
            "with moved as (select run_id from runs
                             where customer_id = 'cus_acme' and status = 'succeeded' and flow_id = 'flow_inventory'
                               and finished_at >= '2026-11-20T09:00:00Z' and finished_at < '2026-11-20T10:00:00Z'
                             order by finished_at limit 1)
             update runs r set finished_at = '2026-11-20T09:00:00Z', window_at = '2026-11-20T09:00:00Z'
               from moved m where r.run_id = m.run_id and r.customer_id = 'cus_acme'
             returning r.flow_id",
        )
        .await;
    assert_eq!(flow.len(), 1);
    let (runs,): (i64,) = app
        .row(
            "select count(*) from runs where customer_id = 'cus_acme' and flow_id = 'flow_inventory'
                and finished_at >= $1 - interval '24 hours'",
        )
        .await;
    let told = app.acme().call("get_flow", json!({ "flow": "flow_inventory" })).await;
    assert_eq!(told.structured["flow"]["stats"]["h24"]["runs"], runs, "{}", told.text);
}

#[tokio::test]
async fn the_states_of_flows_sum_to_their_number() {
    let app = TestApp::demo().await;
    change(
        &app,
        "update flows set state = 'draft' where flow_id in ('flow_inventory', 'flow_netsuite_invoices')",
    )
    .await;
    let told = app.acme().text("list_flows", json!({})).await;
    assert!(
        told.contains(": 3 failing, 2 degraded, 1 pending, 3 healthy, 1 paused; besides 2 draft."),
        "{told}"
    );
    assert!(told.starts_with("10 flows in "), "{told}");
    let health = app.acme().text("get_system_health", json!({})).await;
    let line = "Flows: 10 (3 failing, 2 degraded, 1 pending, 3 healthy, 1 paused; besides 2 draft)";
    assert!(health.contains(line), "{health}");
    let told = app.acme().text("list_flows", json!({ "status": ["draft"] })).await;
    assert!(told.starts_with("2 of 12 flows in Acme Retail (Europe/Berlin) are draft ("), "{told}");
    assert!(
        told.contains("(3 failing, 2 degraded, 1 pending, 3 healthy, 1 paused, 2 draft in all)"),
        "{told}"
    );

    change(&app, "update flows set state = 'archived' where customer_id = 'cus_acme' and state <> 'draft'")
        .await;
    let told = app.acme().text("list_flows", json!({ "status": ["archived"] })).await;
    assert!(
        told.starts_with("10 of 10 flows in Acme Retail (Europe/Berlin) are archived (10 archived in all).")
    );
    let told = app.acme().text("list_flows", json!({})).await;
    let none = "No flows in use in Acme Retail (Europe/Berlin): only 2 draft, 10 archived.";
    assert!(told.starts_with(none), "{told}");
    let told = app.acme().text("list_flows", json!({ "status": ["failing"] })).await;
    assert!(told.starts_with("0 of 0 flows in Acme Retail (Europe/Berlin) are failing."), "{told}");
}

#[tokio::test]
async fn objects_that_are_not_listed_are_counted() {
    let app = TestApp::demo().await;
    change(
        &app,
        "update flows set source_objects = (select array_agg('table_' || n) from generate_series(1, 25) n)
          where flow_id = 'flow_inventory'",
    )
    .await;
    let told = app.acme().call("list_flows", json!({})).await;
    assert!(told.text.contains("/table_1 (+24 more) → "), "{}", told.text);
    let flows = told.structured["flows"].as_array().unwrap();
    let source = &flows.iter().find(|flow| flow["id"] == "flow_inventory").unwrap()["source"];
    assert_eq!((source["objects"].as_array().unwrap().len(), &source["objects_more"]), (10, &json!(15)));
}

#[tokio::test]
async fn the_states_of_a_group_sum_to_its_runs() {
    let app = TestApp::demo().await;
    for grouping in ["status", "flow", "connector", "day"] {
        let arguments = json!({ "window": "30d", "group_by": grouping, "limit": 0 });
        let told = app.acme().call("list_runs", arguments).await;
        for group in told.structured["groups"].as_array().unwrap() {
            let states = ["succeeded", "partial", "failed", "active", "cancelled", "skipped"];
            let sum: i64 = states.iter().filter_map(|state| group[state].as_i64()).sum();
            assert_eq!(sum, group["runs"].as_i64().unwrap(), "{grouping}: {group}");
        }
        if grouping == "status" {
            assert!(told.text.contains("\ncancelled | 2 runs (2 cancelled) | "), "{}", told.text);
            let skipped =
                told.structured["groups"].as_array().unwrap().iter().find(|g| g["key"] == "skipped");
            assert_eq!(skipped.unwrap()["skipped"], 3);
            assert_eq!(skipped.unwrap()["cancelled"], Value::Null);
        }
    }
}

#[tokio::test]
async fn flows_that_a_name_fits_are_counted_and_a_connectors_name_is_suggested() {
    let app = TestApp::demo().await;
    change(
        &app,
        "insert into flow_names (customer_id, name_key, flow_id, label, kind)
         select f.customer_id, 'shopify ' || f.flow_id, f.flow_id, 'Shopify ' || f.flow_id, 'alias'
           from flows f where f.customer_id = 'cus_acme'",
    )
    .await;
    let told = app.acme().call("get_flow", json!({ "flow": "Shopify" })).await;
    assert!(told.text.starts_with("FLOW_AMBIGUOUS: \"Shopify\" fits 12 flows: \""), "{}", told.text);
    assert!(told.text.contains("\" and 7 more. Repeat with one of these names."), "{}", told.text);
    let told = app.acme().call("list_flows", json!({ "connector": "the Shopify EU store" })).await;
    assert!(
        told.text.starts_with(
            "CONNECTOR_NOT_FOUND: no connector is called \"the Shopify EU store\". Did you mean: \"Shopify (EU Store)\"?"
        ),
        "{}",
        told.text
    );
}

#[tokio::test]
async fn runs_with_errors_are_some_of_the_runs_they_are_told_of() {
    let app = TestApp::demo().await;
    change(
        &app,
        "with g as (insert into error_groups (customer_id, group_id, flow_id, fingerprint, grouping_version,
                        error_class, code, stage, origin, message, first_seen_at, last_seen_at, last_seen_run_id)
                    select r.customer_id, 'eg_open', r.flow_id, decode(repeat('00', 16), 'hex'), 1, 'VALIDATION', 'X',
                           'validate', 'mapping', 'wrong', r.started_at, r.started_at, r.run_id
                      from runs r where r.customer_id = 'cus_acme' and r.status = 'running'
                    returning *)
         insert into run_error_counts (customer_id, run_id, group_id, flow_id, count, first_at, last_at)
         select g.customer_id, g.last_seen_run_id, g.group_id, g.flow_id, 5, g.first_seen_at, g.last_seen_at from g",
    )
    .await;
    let (flow, finished, failed): (String, i64, i64) = app
        .row(
            "select o.flow_id, count(r.run_id), count(r.run_id) filter (where r.status = 'failed')
               from runs o
               left join runs r on r.customer_id = o.customer_id and r.flow_id = o.flow_id
                               and r.finished_at >= $1 - interval '30 minutes'
              where o.customer_id = 'cus_acme' and o.status = 'running' group by 1",
        )
        .await;
    let told = app.acme().text("get_flow_error_summary", json!({ "flow": flow, "window": "30m" })).await;
    let all = finished + 1;
    let runs = if all == 1 { "run" } else { "runs" };
    let words = format!(": 5 errors in 1 of {all} {runs} ({failed} failed, 1 still open).");
    assert!(told.contains(&words), "{words}\n{told}");
    let why = "Note: warnings and failures of whole runs are errors too, so their number is not that of failed records.";
    assert!(told.contains(why), "{told}");
}

#[tokio::test]
async fn a_last_run_that_is_not_kept_any_more_was_one() {
    let app = TestApp::demo().await;
    change(&app, "update flows set last_run_id = 'run_gone', last_decided_at = '2026-10-17T07:00:00Z' where flow_id = 'flow_inventory'")
        .await;
    let told = app.acme().text("list_flows", json!({})).await;
    let line =
        |id: &str| told.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}\n{told}"));
    assert!(
        line("flow_inventory").contains("| last run 2026-10-17 09:00 +02:00, 35 d ago, no longer kept"),
        "{told}"
    );
    assert_eq!(told.matches("no run yet").count(), 1, "{told}");
    assert!(told.lines().any(|line| line.starts_with("PENDING ") && line.contains("| no run yet")), "{told}");
}

#[tokio::test]
async fn a_workspace_that_has_nothing_yet_says_so() {
    let app = TestApp::demo().await;
    for table in ["runs", "run_stats", "error_stats", "flows", "connectors"] {
        change(&app, &format!("delete from {table} where customer_id = 'cus_globex'")).await;
    }
    let connectors = app.globex().text("list_connectors", json!({})).await;
    assert!(connectors.starts_with("No connectors yet. As of "), "{connectors}");
    let health = app.globex().text("get_system_health", json!({})).await;
    for line in
        ["Flows: 0 (none yet)", "Connectors: 0 (none yet)", "Runs, 24h to 2026-11-21 03:07 -05:00: none | "]
    {
        assert!(health.contains(line), "{line}\n{health}");
    }
    let none = app.globex().call("get_flow", json!({ "flow": "orders" })).await;
    assert_eq!(none.text, "FLOW_NOT_FOUND: no flow is called \"orders\". There are none yet.");
}

#[tokio::test]
async fn one_is_told_as_one() {
    let app = TestApp::demo().await;
    change(
        &app,
        "update connectors set config = jsonb_set(config, '{tools}', jsonb_build_array(config -> 'tools' -> 0))
          where connector_id = 'con_crm_mcp';
         update connector_quotas set throttled_1h = 1 where connector_id = 'con_shopify';
         update flows set max_attempts = 1 where flow_id = 'flow_inventory'",
    )
    .await;
    let connectors = app.acme().text("list_connectors", json!({})).await;
    assert!(connectors.contains("| 1 tool, 1 enabled"), "{connectors}");
    assert!(connectors.contains(", throttled 1 time in the last hour"), "{connectors}");
    let flow = app.acme().text("get_flow", json!({ "flow": "flow_inventory" })).await;
    assert!(flow.contains("Policy: 1 attempt, time-out"), "{flow}");
}

#[tokio::test]
async fn events_that_are_not_told_are_counted() {
    let app = TestApp::demo().await;
    change(
        &app,
        "delete from run_events where run_id = 'run_abc123';
         insert into run_events (customer_id, run_id, seq, at, kind, message)
         select 'cus_acme', 'run_abc123', n, '2026-11-20T13:15:00Z', 'note', 'event ' || n || ' ' || repeat('x', 300)
           from generate_series(1, 61) n",
    )
    .await;
    let told = app.acme().call("get_run", json!({ "run_id": "run_abc123" })).await;
    assert_eq!(told.structured["run"]["older_events"], 21, "{}", told.text);
    assert!(told.text.contains("\nTimeline (21 earlier events are left out):\n"), "{}", told.text);
    let shown = told.text.lines().filter(|line| line.contains("<<data event ")).count();
    assert!((1..40).contains(&shown), "{}", told.text);
    assert!(told.text.contains(&format!("\n… {} more events\n", 40 - shown)), "{}", told.text);
}

/// A record that the destination has already counts as one that it takes: in the second run of a steady sync as in the
/// first, and wherever a rate is told.
#[tokio::test]
async fn records_that_were_there_already_are_no_reason_to_worry() {
    let app = TestApp::demo().await;
    let script = json!({ "sim": { "auth_status": "valid", "unchanged": 1.0, "errors": [
        { "rate": 0.05, "class": "VALIDATION", "code": "X", "message": "no" }] } });
    let steady = "update connectors set config = $1 where connector_id = 'con_globex_snowflake'";
    sqlx::query(steady).bind(script).execute(&mut app.owner().await).await.unwrap();
    let flow = "flow_globex_accounts";
    let started = app.globex().call("trigger_sync", json!({ "flow": flow })).await;
    let run = first_run(&started.text);
    app.work_until_idle().await;

    let told = app.globex().call("get_run", json!({ "run_id": run })).await;
    let records = &told.structured["run"]["records"];
    let count = |what: &str| records[what].as_i64().unwrap();
    let (unchanged, failed) = (count("unchanged"), count("failed"));
    assert!(count("written") == 0 && failed > 0 && unchanged > failed, "{}", told.text);
    assert!(count("skipped") >= unchanged && count("processed") == count("read"), "{}", told.text);
    assert!(told.text.contains(&format!("({} of them unchanged)", counted(unchanged))), "{}", told.text);
    let rate = failed as f64 / (unchanged + failed) as f64;
    assert_eq!(told.structured["run"]["error_rate"], rate);

    let mine = json!({ "flow": flow, "trigger": ["mcp"], "window": "today", "group_by": "flow" });
    let listed = app.globex().call("list_runs", mine).await;
    assert_eq!(listed.structured["totals"]["record_error_rate"], rate, "{}", listed.text);
    assert_eq!(listed.structured["totals"]["records"], *records);
    assert_eq!(listed.structured["groups"][0]["records"], *records);
    assert_eq!(listed.structured["runs"][0]["records"], *records);

    let worried = app.globex().call("get_flow", json!({ "flow": flow })).await;
    let reason = format!("the last run rejected {failed} of {} records", unchanged + failed);
    assert!(worried.text.contains(&reason), "{reason}\n{}", worried.text);
    assert!(worried.text.contains(&format!("{} of {} failed", counted(failed), counted(unchanged + failed))));
    let day: (i64, i64) = app
        .row(
            "select sum(records_failed)::bigint, sum(records_written + records_unchanged + records_failed)::bigint
               from runs where customer_id = 'cus_globex' and flow_id = 'flow_globex_accounts'
                and window_at >= $1 - interval '24 hours' and finished_at is not null",
        )
        .await;
    assert_eq!(worried.structured["flow"]["stats"]["h24"]["error_rate"], day.0 as f64 / day.1 as f64);
    assert_eq!(worried.structured["flow"]["stats"]["h24"]["records"]["unchanged"], unchanged);
    let health = app.globex().text("get_system_health", json!({ "window": "today" })).await;
    assert!(health.contains(&format!(" = {} failed of ", counted(failed))), "{health}");
}

/// What the attempts before it wrote is not what the attempt under way has written.
#[tokio::test]
async fn each_attempt_is_told_with_what_it_wrote() {
    let app = TestApp::demo().await;
    let started = app.globex().text("trigger_sync", json!({ "flow": "flow_globex_accounts" })).await;
    let run = first_run(&started);
    change(
        &app,
        &format!(
            "update runs set status = 'running', attempt = 2, started_at = queued_at, attempt_at = queued_at,
                    records_written = 70 where run_id = '{run}';
             insert into run_attempts (customer_id, run_id, attempt, status, started_at, finished_at, records_written)
             select customer_id, run_id, 1, 'failed', queued_at, queued_at, 50 from runs where run_id = '{run}'"
        ),
    )
    .await;
    let told = app.globex().call("get_run", json!({ "run_id": run })).await;
    let attempts = told.structured["run"]["attempts"].as_array().unwrap();
    let written: Vec<_> = attempts.iter().map(|attempt| attempt["records_written"].clone()).collect();
    assert_eq!(written, [50, 20], "{}", told.text);
    assert!(told.text.contains("Attempt 2: running (started "), "{}", told.text);
    assert!(told.text.contains(", 20 written)"), "{}", told.text);
}

/// The newest of what was changed about a flow stands with a run, though it made no new version; the rest is counted.
#[tokio::test]
async fn changes_that_made_no_version_are_told_with_a_run() {
    let app = TestApp::demo().await;
    change(
        &app,
        "delete from audit_log where customer_id = 'cus_acme';
         insert into audit_log (customer_id, audit_id, at, actor_kind, actor_label, action, target_kind, target_id, message)
         select 'cus_acme', 'aud_' || n, r.queued_at + n * interval '1 second', 'operator', 'Ana', 'flow.settings_changed',
                'flow', r.flow_id, 'change ' || n
           from runs r, generate_series(1, 14) n where r.run_id = 'run_abc123'",
    )
    .await;
    let told = app.acme().call("get_run", json!({ "run_id": "run_abc123" })).await;
    let changes = told.structured["run"]["changes_since_last_success"].as_array().unwrap();
    let settings: Vec<String> = changes
        .iter()
        .filter(|change| change["what"] == "flow settings changed")
        .map(|change| change["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(settings, (3..=14).map(|n| format!("<<data change {n} data>>")).collect::<Vec<_>>());
    assert_eq!(told.structured["run"]["older_changes"], 2);
    assert!(told.text.contains("\nChange: flow settings changed at "), "{}", told.text);
    assert!(told.text.contains("\n… 2 more changes\n"), "{}", told.text);
}
