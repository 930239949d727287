//! What the operator sees: health and measures; and what happens to who asks too much.

use apixx_mcp::domain::token::PlainToken;
use apixx_mcp::observe::metrics as measures;
use apixx_mcp::service::access::{Access, Refused, Wants};
use chrono::TimeDelta;
use http::HeaderValue;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::Connection;
use tower::ServiceExt;

use crate::support::app::{TestApp, call, first_run, get, list};
use crate::support::log::Log;

#[tokio::test]
async fn the_operator_hears_of_health_and_asks_the_database_once_a_second() {
    let app = TestApp::demo().await;
    let recorder = measures::recorder().unwrap();
    let _measured = metrics::set_default_local_recorder(&recorder);
    let operator = app.operator(recorder.handle());
    assert_eq!(get(&operator, "/healthz").await, (200, r#"{"status":"alive"}"#.into()));
    for _ in 0..10 {
        assert_eq!(get(&operator, "/readyz").await, (200, r#"{"status":"ready"}"#.into()));
    }
    let (_, text) = get(&operator, "/metrics").await;
    assert!(text.contains("\napixx_database_round_trip_seconds_count 1\n"), "{text}");
    app.store.close().await;
    assert_eq!(get(&operator, "/readyz").await.0, 200, "as of a second ago");
    app.clock.advance(TimeDelta::seconds(1));
    assert_eq!(get(&operator, "/readyz").await, (503, r#"{"status":"not ready"}"#.into()));
    assert_eq!(get(&operator, "/healthz").await.0, 200);
    assert_eq!(get(&operator, "/metrics").await.0, 200, "measures are told whatever the database does");
    assert_eq!(get(&operator, "/mcp").await.0, 404);
}

#[tokio::test]
async fn measures_say_what_was_done_and_nothing_of_for_whom() {
    let recorder = measures::recorder().unwrap();
    let _measured = metrics::set_default_local_recorder(&recorder);
    let app = TestApp::demo().await;
    let operator = app.operator(recorder.handle());
    app.acme().post(&serde_json::from_str(&list()).unwrap()).await;
    app.acme().text("list_flows", json!({})).await;
    assert!(app.acme().call("get_run", json!({ "run_id": "run_none" })).await.is_error);
    let told = app.acme().text("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })).await;
    app.work_until_idle().await;
    app.clock.advance(TimeDelta::seconds(5));
    let (_, text) = get(&operator, "/metrics").await;
    for line in [
        "apixx_http_requests_total{status=\"200\"} 4",
        "apixx_http_requests_total{status=\"401\"} 0",
        "apixx_http_request_seconds_count 4",
        "mcp_requests_total{method=\"tools/call\"} 3",
        "mcp_requests_total{method=\"tools/list\"} 1",
        "apixx_tool_calls_total{tool=\"list_flows\",outcome=\"ok\"} 1",
        "apixx_tool_calls_total{tool=\"get_run\",outcome=\"refused\"} 1",
        "apixx_tool_calls_total{tool=\"get_run\",outcome=\"failed\"} 0",
        "apixx_refusals_total{cause=\"RUN_NOT_FOUND\"} 1",
        "apixx_calls_under_way 0",
        "apixx_queue_runs{state=\"queued\"} 0",
        "apixx_runs_claimed_total 3",
        "apixx_runs_ended_total{status=\"succeeded\"} 3",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "no {line} in\n{text}");
    }
    assert!(text.contains("\napixx_records_total{result=\"written\"} "), "{text}");
    assert!(
        text.contains("\nprocess_resident_memory_bytes ") && text.contains("\nprocess_start_time_seconds ")
    );
    for secret in ["acme", "Acme", "cus_", "mtk_", "127.0.0.1", &first_run(&told), &app.acme().token()] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    // Each name is one that is described; and each that is described stands in the README.
    let known: Vec<&str> = measures::names().collect();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(known.contains(&name) || name.starts_with("process_"), "{name}");
    }
    let readme = include_str!("../../README.md");
    for name in known {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}

#[tokio::test]
async fn a_call_on_a_stream_that_takes_too_long_is_told_with_its_request() {
    let app = TestApp::demo_with(&[("server.call_timeout_s", "4")]).await;
    let log = Log::keep();
    let runs = "select run_id from runs where customer_id = 'cus_acme' and status = 'running'";
    let run = app.column(runs).await.remove(0);
    let params = json!({
        "name": "get_run", "arguments": { "run_id": run, "wait_seconds": 50 }, "_meta": { "progressToken": 1 }
    });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let mut request = app.acme().request(message.to_string());
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("req-8"));
    log.lines();
    let response = app.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    // A wait ends in time for its answer, which the database now keeps from being read.
    let mut owner = app.owner().await;
    let mut holder = owner.begin().await.unwrap();
    sqlx::query("lock table runs in access exclusive mode").execute(&mut *holder).await.unwrap();
    response.into_body().collect().await.unwrap();
    let lines = log.lines();
    let too_long =
        |line: &&Value| line["fields"]["message"].as_str().unwrap().contains("took longer than 4 s");
    let line = lines.iter().find(too_long).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(line.to_string().contains("req-8"), "{line}");
}

#[tokio::test]
async fn unknown_tokens_cost_one_look_and_malformed_ones_none() {
    let app = TestApp::demo().await;
    let message = serde_json::from_str(&list()).unwrap();
    let unknown = PlainToken::new(app.store.ids());
    assert_eq!(app.holder_of(unknown.reveal()).post(&message).await.status, 401);
    assert_eq!(app.acme().post(&message).await.status, 200);
    app.store.close().await;
    assert_eq!(app.holder_of(unknown.reveal()).post(&message).await.status, 401);
    assert_eq!(app.holder_of("mcp_junk").post(&message).await.status, 401);
    let other = PlainToken::new(app.store.ids());
    assert_eq!(app.holder_of(other.reveal()).post(&message).await.status, 503);
}

#[tokio::test]
async fn one_customer_has_so_many_requests_and_waits_at_once() {
    let app = TestApp::demo().await;
    let access = Access::new(app.store.clone(), 100.try_into().unwrap());
    let token = app.globex().token();
    let mut under_way = Vec::new();
    for _ in 0..256 {
        under_way.push(access.recognise(Some(&token), None, Wants::Service).await.unwrap());
    }
    let more = access.recognise(Some(&token), None, Wants::Service).await;
    assert!(matches!(more, Err(Refused::TooManyAtOnce)), "{more:?}");
    assert!(access.recognise(Some(&app.acme().token()), None, Wants::Service).await.is_ok());
    let first = under_way.pop().unwrap();
    let same = first.clone();
    drop(first);
    assert!(access.recognise(Some(&token), None, Wants::Service).await.is_err(), "still under way");
    drop(same);
    assert!(access.recognise(Some(&token), None, Wants::Service).await.is_ok());
    // A wait too many is answered at once with what is known.
    let run =
        first_run(&app.acme().text("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })).await);
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    let waits: Vec<_> = (0..64).map(|_| app.serving().waits.begin(&acme).unwrap()).collect();
    let told = app.acme().call("get_run", json!({ "run_id": run, "wait_seconds": 50 })).await;
    assert_eq!((told.is_error, &told.structured["run"]["done"]), (false, &json!(false)));
    drop(waits);
    assert!(app.serving().waits.begin(&acme).is_some());
}

#[tokio::test]
async fn a_call_that_nobody_waited_for_is_counted_too() {
    let recorder = measures::recorder().unwrap();
    let _measured = metrics::set_default_local_recorder(&recorder);
    let app = TestApp::demo().await;
    let operator = app.operator(recorder.handle());
    let run =
        first_run(&app.acme().text("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })).await);
    let wait = app.acme().request(call("get_run", json!({ "run_id": run, "wait_seconds": 50 })));
    let waits = async {
        let mut looks = 0;
        while !get(&operator, "/metrics").await.1.contains("\napixx_waits 1\n") {
            looks += 1;
            assert!(looks < 1_000, "it does not wait");
            app.column("select 'a while'").await;
        }
    };
    tokio::select! {
        _ = app.send(wait) => panic!("the run goes on"),
        () = waits => {}
    }
    let (_, text) = get(&operator, "/metrics").await;
    for line in [
        "apixx_tool_calls_total{tool=\"get_run\",outcome=\"failed\"} 1",
        "apixx_waits 0",
        "apixx_calls_under_way 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn who_finds_no_connection_in_time_is_told_to_come_again() {
    let app =
        TestApp::demo_with(&[("database.pool_size", "1"), ("database.acquire_timeout_ms", "300")]).await;
    app.acme().text("list_flows", json!({})).await;
    let acme = app.store.customer_named("acme").await.unwrap().unwrap();
    let taken = app.store.begin(&acme).await.unwrap();
    let trigger = call("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" }));
    let reply = app.acme().post(&serde_json::from_str(&trigger).unwrap()).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(reply.body["error"]["data"]["retry_after_seconds"], 1);
    app.acme().text("list_flows", json!({})).await;
    drop(taken);
    app.acme().text("trigger_sync", json!({ "flow": "NetSuite → Snowflake invoices" })).await;
}
