//! Counts that come to what is said of them.

use serde_json::json;

use crate::support::app::TestApp;

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
