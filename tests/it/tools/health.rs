//! Connectors and health.

use serde_json::json;

use crate::support::app::{TestApp, counted};

#[tokio::test]
async fn every_connector_and_its_authorization() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_connectors", json!({})).await;
    let rows: Vec<(String, String, String)> = app
        .rows("select name, upper(status), auth_status from connectors where customer_id = 'cus_acme' and $1::timestamptz is not null")
        .await;
    assert_eq!(rows.len(), 9);
    for (name, status, auth) in rows {
        let line = told.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}\n{told}"));
        assert!(line.starts_with(&format!("{status} {name}")), "{line}");
        assert!(line.contains(&format!("auth {}", auth.replace('_', " "))), "{line}");
    }
    assert!(told.starts_with("9 connectors: 1 down, 1 degraded, 6 healthy, 1 disabled."), "{told}");
}

#[tokio::test]
async fn connectors_close_to_a_limit() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_connectors", json!({ "quota_above_percent": 80 })).await;
    let rows: Vec<(String, f64)> = app
        .rows(
            "select c.name, q.used * 100.0::float8 / q.quota_limit from connector_quotas q join connectors c using (customer_id, connector_id)
              where q.customer_id = 'cus_acme' and q.used * 100.0 / q.quota_limit > 80 and $1::timestamptz is not null",
        )
        .await;
    assert_eq!(rows.len(), 2);
    for (name, percent) in rows {
        let line = told.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}\n{told}"));
        assert!(line.contains(&format!("({percent:.1} %)")), "{line}");
    }
    assert!(!told.contains("NetSuite (ERP)"), "{told}");
    let health = app.acme().text("get_system_health", json!({})).await;
    assert!(
        health.contains("Near quota: Shopify (EU Store) graphql_cost 1,840 / 2,000 (92.0 %)"),
        "{health}"
    );
    assert!(health.contains("Your API quota:"), "{health}");
}

#[tokio::test]
async fn the_error_rate_of_this_week() {
    let app = TestApp::demo().await;
    let told = app.acme().text("get_system_health", json!({ "window": "this_week" })).await;
    let (failed_runs, decided, failed, attempted): (i64, i64, i64, i64) = app
        .row(
            "select count(*) filter (where status = 'failed'), count(*) filter (where status in ('succeeded', 'partial', 'failed')),
                    sum(records_failed)::bigint, sum(records_written + records_failed)::bigint
               from runs where customer_id = 'cus_acme'
                and (finished_at >= '2026-11-16T00:00:00+01:00' and finished_at <= $1 or finished_at is null)",
        )
        .await;
    let line =
        |word: &str| told.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{told}"));
    assert!(
        line("Runs").contains(&format!("{} failed of {} decided", counted(failed_runs), counted(decided))),
        "{told}"
    );
    assert!(
        line("Records").contains(&format!("{} failed of {} attempted", counted(failed), counted(attempted))),
        "{told} {failed} {attempted}"
    );
    let share = format!("{:.1} %", failed as f64 * 100.0 / attempted as f64);
    assert!(line("Records").contains(&format!("record error rate {share}")), "{told}");
    assert!(line("Records").contains("span before: "), "{told}");
}

#[tokio::test]
async fn the_system_health_of_today() {
    let app = TestApp::demo().await;
    let told = app.acme().text("get_system_health", json!({ "window": "today" })).await;
    assert!(told.starts_with("Acme Retail is critical. HubSpot (Marketing) is down"), "{told}");
    assert!(told.contains("(2026-11-21, Europe/Berlin)"), "{told}");
    let queue: (i64, i64, i64) = app
        .row(
            "select count(*) filter (where status = 'queued'), count(*) filter (where status = 'running'),
                    extract(epoch from $1 - min(available_at) filter (where status = 'queued'))::bigint
               from runs where customer_id = 'cus_acme' and finished_at is null",
        )
        .await;
    assert_eq!(queue, (2, 1, 18));
    assert!(told.contains("Queue: 2 ready, oldest waits 18s, 0 delayed, 1 running"), "{told}");
    let order: Vec<&str> =
        ["CRITICAL |", "WARNING |", "INFO |"].into_iter().filter(|word| told.contains(word)).collect();
    assert_eq!(order, ["CRITICAL |", "WARNING |", "INFO |"], "{told}");
    assert!(
        told.find("CRITICAL |") < told.find("WARNING |") && told.find("WARNING |") < told.find("INFO |"),
        "{told}"
    );
}
