//! Whole runs, from the queue to their end.

use apixx_mcp::domain::connector::ConnectorKind;
use apixx_mcp::domain::ids::RunId;
use chrono::TimeDelta;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Lab, Policy, streams};

#[tokio::test]
async fn a_scripted_run_succeeds_and_its_counts_add_up() {
    let lab = Lab::start().await;
    let flow = lab
        .sim_flow(json!({"records": 842, "seconds": 16}), json!({"unchanged": 0.25}), Policy::default())
        .await;
    let run = lab.queue(&flow).await;
    assert_eq!(lab.work().await, 1);
    let (read, written, skipped): (i64, i64, i64) = {
        let mut owner = lab.owner().await;
        sqlx::query_as("select records_read, records_written, records_skipped from runs")
            .fetch_one(&mut owner)
            .await
            .unwrap()
    };
    assert_eq!((read, written + skipped), (842, 842));
    assert!((150..=270).contains(&skipped), "about a quarter is there already, not {skipped}");
    assert_eq!(lab.ask::<i64>("select records_estimated from runs").await, 842);
    assert_eq!(lab.timeline(&run).await, ["queued", "finished"]);
}

#[tokio::test]
async fn rejected_records_make_a_run_partial_with_samples() {
    let lab = Lab::start().await;
    let rejects = json!({"errors": [{"rate": 0.05, "class": "REFERENCE", "code": "INVALID_KEY_OR_REF", "field": "item",
                                     "message": "Invalid item reference key SKU-{n} for subsidiary 3"}]});
    let source =
        json!({"records": 1000, "template": {"id": "{n}", "email": "buyer{n}@example.com", "token": "t{n}"}});
    let flow = lab.sim_flow(source, rejects, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    let outcome = lab.outcome(&run).await;
    assert!(outcome.starts_with("partial: 1000 9"), "{outcome}");
    let failed: i64 = lab.ask("select records_failed from runs").await;
    assert_eq!(lab.ask::<i64>("select count from run_error_counts").await, failed);
    let group: String =
        lab.ask("select concat_ws(' ', error_class, code, stage, origin, field) from error_groups").await;
    assert_eq!(group, "REFERENCE INVALID_KEY_OR_REF load destination item");
    let payloads: Vec<String> = lab.ask("select array_agg(payload::text) from run_errors").await;
    assert!(
        payloads.iter().all(|text| text.contains("b***@example.com") && text.contains("[redacted]")),
        "{payloads:?}"
    );
    assert!(lab.ask::<bool>("select bool_and(record_key ~ '^[0-9]+$') from run_errors").await);
}

#[tokio::test]
async fn too_many_rejected_records_end_a_run() {
    let lab = Lab::start().await;
    let rejects = json!({"errors": [{"rate": 0.5, "class": "VALIDATION", "code": "X", "message": "no"}]});
    let flow = lab.sim_flow(json!({"records": 5000}), rejects, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    let outcome = lab.outcome(&run).await;
    assert!(outcome.starts_with("failed ERROR_THRESHOLD: 100 "), "{outcome}");
    let message: String = lab.ask("select reason_message from runs").await;
    assert!(message.contains("of 100 records were rejected") && message.contains("> 10.0 %"), "{message}");
    assert_eq!(lab.attempts(&run).await, ["failed"]);
}

#[tokio::test]
async fn a_short_run_is_judged_at_its_end() {
    let lab = Lab::start().await;
    let rejects = json!({"errors": [{"rate": 1.0, "class": "VALIDATION", "code": "X", "message": "no"}]});
    let flow = lab.sim_flow(json!({"records": 12}), rejects, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "failed ERROR_THRESHOLD: 12 0 12 0");
    let message: String = lab.ask("select reason_message from runs").await;
    assert_eq!(message, "12 of 12 records were rejected (100.0 % > 10.0 %)");
    assert_eq!(lab.timeline(&run).await.last().map(String::as_str), Some("finished"));
}

#[tokio::test]
async fn a_run_that_finds_nothing_new_does_not_fail_of_the_few_it_rejects() {
    let lab = Lab::start().await;
    let rejects = json!({"unchanged": 1.0, "errors": [{"rate": 0.05, "class": "VALIDATION", "code": "X", "message": "no"}]});
    let flow = lab.sim_flow(json!({"records": 5000}), rejects, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    let outcome = lab.outcome(&run).await;
    assert!(outcome.starts_with("partial: 5000 0 2"), "{outcome}");
}

#[tokio::test]
async fn a_revoked_authorization_fails_a_run_before_it_reads() {
    let lab = Lab::start().await;
    let source =
        json!({"auth_status": "revoked", "auth_error": "invalid_grant: refresh token is invalid or revoked"});
    let flow = lab.sim_flow(source, json!({}), Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "failed AUTH_EXPIRED: 0 0 0 0");
    assert_eq!(
        lab.ask::<String>("select reason_message from runs").await,
        "invalid_grant: refresh token is invalid or revoked"
    );
    let group: String =
        lab.ask("select concat_ws(' ', error_class, code, stage, origin) from error_groups").await;
    assert_eq!(group, "AUTH AUTH_EXPIRED extract source");
    assert_eq!(
        lab.ask::<String>("select concat_ws(' ', error_groups, top_error_class) from runs").await,
        "1 AUTH"
    );
    assert_eq!(
        lab.ask::<String>("select health_reasons -> 0 ->> 'message' from flows").await,
        "the last run failed (AUTH_EXPIRED: <<data invalid_grant: refresh token is invalid or revoked data>>)"
    );
}

#[tokio::test]
async fn a_connector_that_is_switched_off_is_neither_read_nor_written() {
    let lab = Lab::start().await;
    lab.write("a.csv", "id\n1\n");
    let on = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    let (id, mut record) = lab.connector(ConnectorKind::Files, json!({"root": "mine"})).await;
    record.enabled = false;
    let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
    tx.put_connector(&id, &record).await.unwrap();
    tx.commit().await.unwrap();
    let off = (id, record);
    for (source, destination) in [(&on, &off), (&off, &on)] {
        let flow =
            lab.flow(source, destination, streams("a.csv", "b.jsonl", json!({})), Policy::default()).await;
        let run = lab.queue(&flow).await;
        lab.work().await;
        assert_eq!(lab.outcome(&run).await, "failed CONFIG_INVALID: 0 0 0 0");
        let said: String = lab.ask(&format!("select reason_message from runs where run_id = '{run}'")).await;
        assert_eq!(said, format!("the connector '{}' is switched off", off.1.name));
        let told: String = lab
            .ask(&format!(
                "select health || ': ' || health_reasons::text from flows where flow_id = '{flow}'"
            ))
            .await;
        assert!(told.starts_with("failing") && told.contains("CONNECTOR_DISABLED"), "{told}");
    }
    assert!(!lab.files.path().join("b.jsonl").exists());
}

#[tokio::test]
async fn a_retry_goes_on_where_the_first_attempt_stopped() {
    let lab = Lab::start().await;
    let source = json!({"records": 1000, "fail_read": {"after": 450, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "try later"}});
    let flow = lab.sim_flow(source, json!({}), Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "retrying: 450 450 0 0");
    let wait: f64 = lab
        .ask(&format!(
            "select extract(epoch from available_at - '{}'::timestamptz)::float8 from runs",
            lab.clock.now()
        ))
        .await;
    assert!((24.0..=36.0).contains(&wait), "{wait}");
    lab.clock.advance(TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 1000 1000 0 0");
    assert_eq!(lab.timeline(&run).await, ["queued", "retry", "finished"]);
    assert_eq!(lab.attempts(&run).await, ["failed", "succeeded"]);
}

#[tokio::test]
async fn attempts_run_out() {
    let lab = Lab::start().await;
    let destination =
        json!({"fail_write": {"class": "CONFLICT", "code": "UNABLE_TO_LOCK_ROW", "message": "locked"}});
    let flow = lab.sim_flow(json!({}), destination, Policy { max_attempts: 2, ..Policy::default() }).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    lab.clock.advance(TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "failed DESTINATION_ERROR: 0 0 0 0");
    assert_eq!(lab.attempts(&run).await, ["failed", "failed"]);
    assert_eq!(lab.ask::<i64>("select count from run_error_counts").await, 1);
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_up() {
    let lab = Lab::start().await;
    let source = json!({"records": 1000, "fail_read": {"after": 500, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "later"}});
    let flow = lab.sim_flow(source, json!({}), Policy { timeout_s: 10, ..Policy::default() }).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    lab.clock.advance(TimeDelta::seconds(36));
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "failed TIMEOUT: 600 600 0 0");
    assert_eq!(
        lab.ask::<String>("select reason_message from runs").await,
        "it took longer than the 10 s that its flow allows"
    );
}

#[tokio::test]
async fn a_definition_that_does_not_compile_fails_its_run_with_the_place() {
    let lab = Lab::start().await;
    let sim = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let wrong = streams("a", "b", json!({"record_filter": "record.long.trm()"}));
    let flow = lab.flow(&sim, &sim, wrong, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "failed CONFIG_INVALID: 0 0 0 0");
    assert_eq!(
        lab.ask::<String>("select reason_message from runs").await,
        "the flow's definition is wrong: stream[0].filter: there is no function `trm` here"
    );
}

/// One code stands for many reasons, each of which is told.
#[tokio::test]
async fn runs_that_are_configured_wrongly_in_two_ways_have_two_errors() {
    let lab = Lab::start().await;
    let (id, mut record) = lab.connector(ConnectorKind::Files, json!({"root": "elsewhere"})).await;
    let sink = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let source = (id, record.clone());
    let flow = lab.flow(&source, &sink, streams("a.csv", "b.jsonl", json!({})), Policy::default()).await;
    lab.queue(&flow).await;
    lab.work().await;
    record.enabled = false;
    let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
    tx.put_connector(&source.0, &record).await.unwrap();
    tx.commit().await.unwrap();
    lab.queue(&flow).await;
    lab.work().await;
    let told: Vec<String> =
        lab.ask("select array_agg(code || ': ' || message order by message) from error_groups").await;
    assert_eq!(
        told,
        [
            "CONFIG_INVALID: the connector <str> is switched off",
            "CONFIG_INVALID: the operator named no directory <str>"
        ]
    );
}

#[tokio::test]
async fn streams_come_one_after_the_other() {
    let lab = Lab::start().await;
    let source = lab
        .connector(
            ConnectorKind::Sim,
            json!({"sim": {"objects": {"a": {"records": 30}, "b": {"records": 12}}}}),
        )
        .await;
    let sink = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let mut both = streams("a", "x", json!({}));
    both.as_array_mut().unwrap().extend(streams("b", "y", json!({})).as_array().unwrap().clone());
    let flow = lab.flow(&source, &sink, both, Policy::default()).await;
    let run = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.outcome(&run).await, "succeeded: 42 42 0 0");
    assert_eq!(lab.timeline(&run).await, ["queued", "checkpoint", "checkpoint", "finished"]);
    assert_eq!(lab.ask::<i64>("select records_estimated from runs").await, 42);
}

/// Starts a run whose source gives nothing for hours, lets `meanwhile` happen, and waits for its end.
async fn slow_run(
    lab: &Lab,
    policy: Policy,
    meanwhile: impl AsyncFnOnce(&Lab, &RunId, CancellationToken),
) -> RunId {
    let flow = lab.sim_flow(json!({"records": 100, "seconds": 80_000}), json!({}), policy).await;
    let run = lab.queue(&flow).await;
    let (engine, stop) = (lab.slow_engine().await, CancellationToken::new());
    let mut changes = lab.wakes.changed();
    let interfere = async {
        changes.changed().await.unwrap();
        meanwhile(lab, &run, stop.clone()).await;
    };
    let (worked, ()) = tokio::join!(engine.worker().tick(&stop), interfere);
    assert_eq!(worked.unwrap(), 1);
    run
}

#[tokio::test]
async fn a_source_that_gives_nothing_is_not_waited_for() {
    let lab = Lab::start().await;
    let silent =
        slow_run(&lab, Policy::default(), async |lab, _, _| lab.clock.advance(TimeDelta::seconds(31))).await;
    assert_eq!(lab.outcome(&silent).await, "failed TIMEOUT: 0 0 0 0");
    let said: String = lab.ask("select concat_ws(' ', error_class, code, stage) from error_groups").await;
    assert_eq!(said, "UNAVAILABLE TIMEOUT platform");
    let policy = Policy { timeout_s: 10, ..Policy::default() };
    let late = slow_run(&lab, policy, async |lab, _, _| lab.clock.advance(TimeDelta::seconds(11))).await;
    assert_eq!(lab.outcome(&late).await, "failed TIMEOUT: 0 0 0 0");
}

#[tokio::test]
async fn a_slow_run_is_cancelled_or_released_at_once() {
    let lab = Lab::start().await;
    let cancelled = slow_run(&lab, Policy::default(), async |lab, run, _| {
        lab.cancel(run).await;
    })
    .await;
    assert_eq!(lab.outcome(&cancelled).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    let released = slow_run(&lab, Policy::default(), async |_, _, stop| stop.cancel()).await;
    assert_eq!(lab.outcome(&released).await, "retrying: 0 0 0 0");
    assert_eq!(lab.attempts(&released).await, ["released"]);
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_lets_go() {
    let lab = Lab::start().await;
    let run = slow_run(&lab, Policy::default(), async |lab, _, _| {
        lab.ask::<bool>("with stolen as (update runs set attempt = 2, lease_until = lease_until returning 1) select exists (select 1 from stolen)").await;
    })
    .await;
    assert_eq!(lab.outcome(&run).await, "running: 0 0 0 0", "whoever has it now goes on");
}
