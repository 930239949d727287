//! Taking action.

use serde_json::json;

use crate::support::app::{TestApp, first_run};

#[tokio::test]
async fn trigger_a_sync_and_get_its_run() {
    let app = TestApp::demo().await;
    let before: (i64,) = app.row("select count(*) from runs where customer_id = 'cus_acme' and trigger = 'mcp' and $1::timestamptz is not null").await;
    let told =
        app.acme().call("trigger_sync", json!({ "flow": "Salesforce accounts", "reason": "asked to" })).await;
    assert_eq!(told.structured["outcome"], "started", "{}", told.text);
    let run = first_run(&told.text);
    let rows: Vec<(String, String, String, String)> = app
        .rows(
            "select r.run_id, r.status, r.trigger, f.name from runs r join flows f using (customer_id, flow_id)
              where r.customer_id = 'cus_acme' and r.trigger = 'mcp' and r.queued_at = $1",
        )
        .await;
    assert_eq!(rows.len() as i64, before.0 + 1);
    assert_eq!(
        rows[0],
        (run.clone(), "queued".into(), "mcp".into(), "Salesforce → Snowflake accounts".into())
    );
    let audit: (String, String) = app
        .row("select target_id, message from audit_log where action = 'run.triggered' and customer_id = 'cus_acme' and at = $1")
        .await;
    assert_eq!(audit, (run, "asked to".to_owned()));
}

#[tokio::test]
async fn re_running_what_failed_is_refused_while_its_connector_is_down() {
    let app = TestApp::demo().await;
    let told = app
        .acme()
        .call("list_runs", json!({ "status": ["failed"], "window": "1h", "group_by": "flow" }))
        .await;
    let groups = told.structured["groups"].as_array().unwrap().clone();
    assert_eq!(groups.len(), 3, "{}", told.text);
    for group in &groups {
        assert_eq!(group["latest_status"], "failed");
        let arguments = json!({ "flow": group["key"], "retry_of": group["latest_run_id"] });
        let answer = app.acme().call("trigger_sync", arguments).await;
        assert!(
            answer.is_error
                && answer
                    .text
                    .starts_with("CONNECTOR_UNAVAILABLE: HubSpot (Marketing) authorization is revoked"),
            "{}",
            answer.text
        );
        assert!(told.text.contains(group["latest_run_id"].as_str().unwrap()), "the text names the run");
    }
    let made: (i64,) =
        app.row("select count(*) from runs where customer_id = 'cus_acme' and queued_at = $1").await;
    assert_eq!(made.0, 0);
}

#[tokio::test]
async fn who_waits_for_a_check_keeps_nobody_from_being_served() {
    let app = TestApp::demo_with(&[("server.max_concurrent_calls", "1")]).await;
    let mut owner = app.owner().await;
    let worker = "insert into workers (worker_id, started_at, seen_at, running) values ('w', $1, $1, 0)";
    sqlx::query(worker).bind(app.clock.now()).execute(&mut owner).await.unwrap();
    let asked_for = "select connector_id from connectors where customer_id = 'cus_acme'
        and auth_status = 'revoked' and next_check_at = $1 and last_check_at <> $1";
    let meanwhile = async {
        let mut looks = 0;
        while app.column(asked_for).await.is_empty() {
            looks += 1;
            assert!(looks < 1_000, "no check is asked for");
        }
        // There is one place, and the call that waits has given it back.
        app.acme().text("list_flows", json!({})).await;
        let mend = "update connectors set auth_status = 'valid', status = 'healthy', last_check_at = $1
            where customer_id = 'cus_acme' and auth_status = 'revoked'";
        sqlx::query(mend).bind(app.clock.now()).execute(&mut owner).await.unwrap();
    };
    let acme = app.acme();
    let trigger = acme.call("trigger_sync", json!({ "flow": "HubSpot → Salesforce contacts" }));
    let (told, ()) = tokio::join!(trigger, meanwhile);
    assert_eq!(told.structured["outcome"], "started", "{}", told.text);
}

#[tokio::test]
async fn kick_off_the_nightly_sync_and_watch_it_until_it_finishes() {
    let app = TestApp::demo().await;
    let started = app.acme().call("trigger_sync", json!({ "flow": "nightly NetSuite invoice sync" })).await;
    let run = first_run(&started.text);
    let waiting = app.acme().call("get_run", json!({ "run_id": run })).await;
    assert_eq!(waiting.structured["run"]["done"], false, "{}", waiting.text);
    assert!(waiting.text.contains("not done yet; call get_run again in 3 s"), "{}", waiting.text);
    app.work_until_idle().await;
    let done = app.acme().call("get_run", json!({ "run_id": run, "wait_seconds": 20 })).await;
    assert_eq!(done.structured["run"]["done"], true, "{}", done.text);
    let (status, written): (String, i64) = app
        .row(&format!(
            "select status, records_written from runs where run_id = '{run}' and $1::timestamptz is not null"
        ))
        .await;
    assert_eq!(status, "succeeded", "{}", done.text);
    assert!(
        written > 0 && done.text.contains(&format!("written {}", crate::support::app::counted(written))),
        "{}",
        done.text
    );
}

#[tokio::test]
async fn a_second_request_attaches_queues_or_is_refused_as_asked() {
    let app = TestApp::demo().await;
    let flow = "NetSuite → Postgres inventory";
    let attached = app.acme().call("trigger_sync", json!({ "flow": flow })).await;
    assert_eq!(attached.structured["outcome"], "attached_to_running", "{}", attached.text);
    assert_eq!(attached.structured["created"], false);
    let refused = app.acme().call("trigger_sync", json!({ "flow": flow, "if_running": "error" })).await;
    assert!(refused.is_error && refused.text.starts_with("ALREADY_RUNNING: "), "{}", refused.text);
    let flow = "Salesforce accounts";
    let first = app.acme().call("trigger_sync", json!({ "flow": flow, "idempotency_key": "k1" })).await;
    let again = app.acme().call("trigger_sync", json!({ "flow": flow, "idempotency_key": "k1" })).await;
    assert_eq!(again.structured["outcome"], "deduplicated");
    assert_eq!(again.structured["run_id"], first.structured["run_id"]);
    let other = app
        .acme()
        .call("trigger_sync", json!({ "flow": "NetSuite invoices", "idempotency_key": "k1" }))
        .await;
    assert!(other.text.starts_with("IDEMPOTENCY_KEY_REUSED: "), "{}", other.text);
    // The run that a key was first answered with need not be one that it started.
    let inventory = json!({ "flow": "NetSuite → Postgres inventory", "idempotency_key": "k2" });
    let first = app.acme().call("trigger_sync", inventory.clone()).await;
    assert_eq!(first.structured["outcome"], "attached_to_running", "{}", first.text);
    let again = app.acme().text("trigger_sync", inventory).await;
    let run = first.structured["run_id"].as_str().unwrap();
    assert!(
        again.starts_with(&format!("This idempotency_key was answered before with {run} of ")),
        "{again}"
    );
    let waiting = app.acme().call("trigger_sync", json!({ "flow": flow, "if_running": "queue" })).await;
    assert_eq!(waiting.structured["outcome"], "attached_to_queued", "{}", waiting.text);
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_the_reason() {
    let app = TestApp::demo().await;
    for (flow, code) in [
        (
            "MongoDB loyalty → Shopify customer tags",
            "FLOW_PAUSED: \"MongoDB loyalty → Shopify customer tags\" was paused by Ana Ruiz on 2026-11-12 (<<data loyalty migration data>>)",
        ),
        (
            "lead scores",
            "FLOW_NAME_NOT_EXACT: trigger_sync needs the exact name. \"lead scores\" probably means \"Snowflake → Salesforce lead scores\"",
        ),
        ("Shopify", "FLOW_AMBIGUOUS: \"Shopify\" fits 3 flows"),
        (
            "hubspot contcts",
            "FLOW_NOT_FOUND: no flow is called \"hubspot contcts\". Did you mean: \"HubSpot → Salesforce contacts\"",
        ),
    ] {
        let answer = app.acme().call("trigger_sync", json!({ "flow": flow })).await;
        assert!(answer.is_error && answer.text.starts_with(code), "{}", answer.text);
        assert!(answer.structured.is_null(), "errors carry no structured content");
    }
    let answer = app
        .acme()
        .call("trigger_sync", json!({ "flow": "Salesforce accounts", "retry_of": "run_abc123" }))
        .await;
    assert!(answer.text.starts_with("RUN_NOT_FOUND: "), "{}", answer.text);
}
