//! Taking action.

use serde_json::json;
use sqlx::Connection;

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
        // Then it is looked at thrice: a check that was under way comes to an end, another begins, and sees it mended.
        let ended = "update connectors set last_check_at = $1
            where customer_id = 'cus_acme' and auth_status = 'revoked'";
        let mended = "update connectors set auth_status = 'valid', status = 'healthy',
                next_check_at = $1 + interval '5 minutes'
            where customer_id = 'cus_acme' and auth_status = 'revoked'";
        for seen in [ended, ended, mended] {
            let mut tx = owner.begin().await.unwrap();
            sqlx::query("lock table connectors").execute(&mut *tx).await.unwrap();
            let waits = "select pid::text from pg_locks join pg_stat_activity a using (pid)
                where relation = 'connectors'::regclass and not granted and a.datname = current_database()";
            let mut looks = 0;
            while app.column(waits).await.is_empty() {
                looks += 1;
                assert!(looks < 1_000, "nobody waits for another check");
            }
            sqlx::query(seen).bind(app.clock.now()).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
        }
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

/// A run that ends or waits for its next attempt is open, but does not run; one behind it does not wait for a worker.
#[tokio::test]
async fn an_open_run_is_told_as_it_is() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    let flow = "flow_globex_accounts";
    let attach = json!({ "flow": flow });
    let current = first_run(&app.globex().text("trigger_sync", attach.clone()).await);
    for (status, words) in [
        ("running", "is already running as run_"),
        ("cancelling", "(cancelling);"),
        ("retrying", "(retrying);"),
    ] {
        let begin =
            "update runs set status = $2, attempt = 2, started_at = $3::timestamptz - interval '5 minutes',
                            attempt_at = case when $2 <> 'retrying' then $3 end, records_written = 70
            where customer_id = 'cus_globex' and run_id = $1";
        let begin = sqlx::query(begin).bind(&current).bind(status).bind(app.clock.now());
        assert_eq!(begin.execute(&mut owner).await.unwrap().rows_affected(), 1);
        let attached = app.globex().call("trigger_sync", attach.clone()).await;
        assert_eq!(attached.structured["outcome"], "attached_to_running", "{}", attached.text);
        let first = attached.text.lines().next().unwrap();
        assert!(first.contains(words) && first.contains("; no new run was started."), "{first}");
        assert_eq!(first.contains("running as"), status == "running", "{first}");
        let refused = app.globex().call("trigger_sync", json!({ "flow": flow, "if_running": "error" })).await;
        let words = format!("ALREADY_RUNNING: {current} is {status}, started 5 min ago. No new run");
        assert!(refused.text.starts_with(&words), "{}", refused.text);
    }

    let next = app.globex().call("trigger_sync", json!({ "flow": flow, "if_running": "queue" })).await;
    assert!(next.text.contains("to run once more after the current run."), "{}", next.text);
    assert!(next.structured["position_in_queue"].is_null(), "{}", next.text);
    let held = json!({ "run_id": next.structured["run_id"] });
    let told = app.globex().call("get_run", held.clone()).await;
    assert_eq!(told.structured["run"]["waits_for_run"], json!(current));
    assert!(told.structured["run"]["position_in_queue"].is_null(), "{}", told.text);
    let words = format!("\nWaiting for the flow's current run, {current}, to end\n");
    assert!(told.text.contains(&words) && !told.text.contains("for a worker"), "{}", told.text);

    let end = "update runs set status = 'cancelled', finished_at = queued_at, window_at = queued_at where run_id = $1";
    sqlx::query(end).bind(&current).execute(&mut owner).await.unwrap();
    let told = app.globex().call("get_run", held).await;
    assert_eq!(told.structured["run"]["position_in_queue"], 1, "{}", told.text);
    assert!(told.structured["run"]["waits_for_run"].is_null(), "{}", told.text);
    assert!(told.text.contains("\nWaiting for a worker: position 1 in"), "{}", told.text);
}

/// Looks until a statement finds something.
async fn until_there_is(app: &TestApp, sql: &str) {
    let mut looks = 0;
    while app.column(sql).await.is_empty() {
        looks += 1;
        assert!(looks < 1_000, "nothing is found: {sql}");
    }
}

/// Who may no longer ask hears what was done before.
#[tokio::test]
async fn a_token_revoked_during_the_wait_hears_what_was_started() {
    let app = TestApp::demo().await;
    let revoked = async {
        until_there_is(&app, "select run_id from runs where trigger = 'mcp' and queued_at = $1").await;
        let revoke = "update tokens set revoked_at = $1 where customer_id = 'cus_acme'";
        sqlx::query(revoke).bind(app.clock.now()).execute(&mut app.owner().await).await.unwrap();
    };
    let acme = app.acme();
    let trigger = acme.call("trigger_sync", json!({ "flow": "Salesforce accounts", "wait_seconds": 50 }));
    let (told, ()) = tokio::join!(trigger, revoked);
    let run = app.column("select run_id from runs where trigger = 'mcp' and queued_at = $1").await.remove(0);
    let words = format!("TOKEN_REVOKED: {run} was started, but this token was revoked or has expired since.");
    assert!(told.is_error && told.text.starts_with(&words), "{}", told.text);
}

/// An id that there is not is not read as words.
#[tokio::test]
async fn an_id_of_no_flow_starts_nothing() {
    let app = TestApp::demo().await;
    for id in ["flow_orders", "flow_the_orders", "FLOW_Shopify-orders"] {
        let told = app.acme().call("trigger_sync", json!({ "flow": id })).await;
        let words = format!("FLOW_NOT_FOUND: no flow is called \"{id}\". Did you mean: \"Shopify ");
        assert!(told.is_error && told.text.starts_with(&words), "{}", told.text);
    }
    let made = app.column("select run_id from runs where customer_id = 'cus_acme' and queued_at = $1").await;
    assert!(made.is_empty(), "{made:?}");
    let rename = "update flow_names set label = 'Flow_Orders', name_key = 'flow orders'
        where customer_id = 'cus_acme' and label = 'Salesforce accounts'";
    assert_eq!(sqlx::query(rename).execute(&mut app.owner().await).await.unwrap().rows_affected(), 1);
    let told = app.acme().call("trigger_sync", json!({ "flow": "flow_orders" })).await;
    assert_eq!(told.structured["flow"], "Salesforce → Snowflake accounts", "{}", told.text);
}

#[tokio::test]
async fn what_ended_during_the_wait_is_told_as_what_was() {
    let app = TestApp::demo().await;
    let first = app.acme().call("trigger_sync", json!({ "flow": "Salesforce accounts" })).await;
    let work = async {
        until_there_is(&app, "select run_id from idempotency_keys where key = 'k'").await;
        app.work_until_idle().await;
    };
    let arguments = json!({ "flow": "Salesforce accounts", "idempotency_key": "k", "wait_seconds": 50 });
    let acme = app.acme();
    let (told, ()) = tokio::join!(acme.call("trigger_sync", arguments), work);
    let run = first.structured["run_id"].as_str().unwrap();
    let words = format!(
        "A run of \"Salesforce → Snowflake accounts\" was already waiting as {run} (succeeded now); no new run was started."
    );
    assert!(told.text.starts_with(&words), "{}", told.text);

    let begin =
        "update runs set status = 'running', attempt = 1, started_at = queued_at, attempt_at = queued_at
        where customer_id = 'cus_globex' and run_id = $1";
    let flow = json!({ "flow": "flow_globex_accounts" });
    let current = first_run(&app.globex().text("trigger_sync", flow).await);
    sqlx::query(begin).bind(&current).execute(&mut app.owner().await).await.unwrap();
    let end = async {
        let next = "select run_id from runs where customer_id = 'cus_globex' and status = 'queued' and queued_at = $1";
        until_there_is(&app, next).await;
        let end = "update runs set status = 'cancelled', finished_at = queued_at, window_at = queued_at
            where customer_id = 'cus_globex' and queued_at = $1";
        sqlx::query(end).bind(app.clock.now()).execute(&mut app.owner().await).await.unwrap();
    };
    let arguments = json!({ "flow": "flow_globex_accounts", "if_running": "queue", "wait_seconds": 50 });
    let globex = app.globex();
    let (told, ()) = tokio::join!(globex.call("trigger_sync", arguments), end);
    assert_eq!(told.structured["outcome"], "queued", "{}", told.text);
    assert!(
        told.text.contains("was queued to run once more after the run before it (cancelled)."),
        "{}",
        told.text
    );
}

/// A wait ends before its call is ended, also of a call that comes late in a batch.
#[tokio::test]
async fn a_call_that_waits_answers_in_time() {
    let app = TestApp::demo_with(&[("server.call_timeout_s", "5")]).await;
    let run = first_run(&app.acme().text("trigger_sync", json!({ "flow": "NetSuite invoices" })).await);
    let call = |id: i32, tool: &str, arguments: serde_json::Value| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
    let batch = json!([
        call(1, "get_run", json!({ "run_id": run, "wait_seconds": 50 })),
        call(2, "trigger_sync", json!({ "flow": "Salesforce accounts", "wait_seconds": 20 })),
    ]);
    let mut request = app.acme().request(batch.to_string());
    request.headers_mut().insert("mcp-protocol-version", "2025-03-26".parse().unwrap());
    let answers = app.send(request).await.body;
    for (place, words) in [(0, "not done yet"), (1, "Started run_")] {
        let text = answers[place]["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains(words), "{answers}");
    }
}
