//! Daily operations.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::app::{TestApp, counted};

#[tokio::test]
async fn list_my_flows() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_flows", json!({})).await;
    let names: Vec<String> = app.column("select name from flows where customer_id = 'cus_acme'").await;
    assert_eq!(names.len(), 12);
    for name in names {
        assert!(told.contains(&name), "{name} is not in\n{told}");
    }
    assert!(
        told.starts_with(
            "12 flows in Acme Retail (Europe/Berlin): 3 failing, 2 degraded, 1 pending, 5 healthy, 1 paused."
        ),
        "{told}"
    );
}

#[tokio::test]
async fn which_flows_ran_in_the_last_24_hours_and_how_much() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_runs", json!({ "window": "24h", "group_by": "flow", "limit": 0 })).await;
    let rows: Vec<(String, i64, i64)> = app
        .rows(
            "select f.name, count(*), sum(r.records_written + r.records_failed + r.records_skipped)::bigint
               from runs r join flows f using (customer_id, flow_id)
              where r.customer_id = 'cus_acme'
                and (r.finished_at >= $1 - interval '24 hours' or r.finished_at is null)
              group by 1",
        )
        .await;
    assert!(rows.len() >= 8, "{rows:?}");
    for (name, runs, processed) in rows {
        let line =
            told.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{name}\n{told}"));
        assert!(line.contains(&format!("| {} run", counted(runs))), "{line}");
        assert!(line.contains(&format!("{} processed", counted(processed))), "{line} {processed}");
    }
}

#[tokio::test]
async fn what_is_failing_or_degraded() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_flows", json!({ "status": ["needs_attention"] })).await;
    let failing: Vec<&str> = told.lines().filter(|line| line.starts_with("FAILING ")).collect();
    let degraded: Vec<&str> = told.lines().filter(|line| line.starts_with("DEGRADED ")).collect();
    assert_eq!((failing.len(), degraded.len()), (3, 2), "{told}");
    assert!(failing.iter().all(|line| line.contains("HubSpot") && line.contains("AUTH_EXPIRED")), "{told}");
    assert!(
        degraded.iter().any(|line| line.contains("Shopify orders"))
            && degraded.iter().any(|line| line.contains("Snowflake customers"))
    );
    let health = app.acme().text("get_system_health", json!({})).await;
    let cause = health
        .lines()
        .find(|line| line.contains("HubSpot (Marketing) is down"))
        .unwrap_or_else(|| panic!("{health}"));
    assert!(cause.contains("3 flows failing"), "{cause}");
}

#[tokio::test]
async fn a_one_line_summary_for_each_flow() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_flows", json!({})).await;
    let rows: Vec<(String, String, String)> = app
        .rows(
            "select f.name, f.flow_id, upper(case when f.state = 'active' then f.health else f.state end)
               from flows f where f.customer_id = 'cus_acme' and $1::timestamptz is not null",
        )
        .await;
    for (name, id, status) in rows {
        let line = told.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("{id}\n{told}"));
        assert!(line.starts_with(&format!("{status} {name} [{id}]")), "{line}");
    }
}

#[tokio::test]
async fn the_last_successful_run_of_a_flow() {
    let app = TestApp::demo().await;
    let arguments = json!({ "flow": "Salesforce → Snowflake accounts", "status": ["succeeded"], "limit": 1 });
    let told = app.acme().text("list_flow_runs", arguments).await;
    let (run, written): (String, i64) = app
        .row(
            "select r.run_id, r.records_written from runs r join flows f using (customer_id, flow_id)
              where r.customer_id = 'cus_acme' and f.name = 'Salesforce → Snowflake accounts'
                and r.status = 'succeeded' and r.finished_at <= $1
              order by r.finished_at desc limit 1",
        )
        .await;
    assert!(told.contains(&run) && told.contains(&format!("{} written", counted(written))), "{told}");
    assert!(told.contains("started 2026-11-21 08:00 +01:00"), "{told}");
}

/// Models send empty lists for arguments that they leave out.
#[tokio::test]
async fn an_empty_list_narrows_nothing() {
    let app = TestApp::demo().await;
    for (tool, empty, absent) in [
        ("list_flows", json!({ "status": [] }), json!({})),
        ("list_connectors", json!({ "type": [""], "status": "[]", "auth_status": [] }), json!({})),
        ("list_runs", json!({ "status": [], "trigger": [null], "limit": 0 }), json!({ "limit": 0 })),
    ] {
        let told = app.acme().call(tool, empty).await;
        assert_eq!(told, app.acme().call(tool, absent).await);
        assert!(!told.is_error, "{}", told.text);
    }
}

#[tokio::test]
async fn flows_are_found_by_each_of_the_words() {
    let app = TestApp::demo().await;
    let accounts = ["Salesforce → Snowflake accounts"].as_slice();
    for (query, expected) in [
        ("Salesforce -> Snowflake", accounts),
        ("salesforce snowflake accounts", accounts),
        ("accounts, Salesforce", accounts),
        (" lead   SCORES ", &["Snowflake → Salesforce lead scores"]),
        ("lead orders", &[]),
        ("?!", &[]),
    ] {
        let told = app.acme().call("list_flows", json!({ "query": query })).await;
        let mut names: Vec<&str> = told.structured["flows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flow| flow["name"].as_str().unwrap())
            .collect();
        names.retain(|name| !name.starts_with("Snowflake → Salesforce") || query.contains("lead"));
        assert_eq!(names, expected, "{query}: {}", told.text);
    }
    // A tag and a word of the name, the owner's name and an alias's word.
    let tagged = "update flows set tags = '{Team-Finance}', owner_user_id = (
            select user_id from users where customer_id = 'cus_acme' and name = 'Jonas Weber')
        where flow_id = 'flow_netsuite_invoices'";
    sqlx::query(tagged).execute(&mut app.owner().await).await.unwrap();
    for query in ["finance snowflake", "team-finance", "weber netsuite invoices"] {
        let told = app.acme().call("list_flows", json!({ "query": query })).await;
        assert_eq!(told.structured["total"], 1, "{query}: {}", told.text);
    }
}

/// Without a window all is asked for, and what is no longer kept may have been.
#[tokio::test]
async fn no_runs_are_told_from_none_that_are_kept() {
    let app = TestApp::demo().await;
    app.clock.advance(TimeDelta::days(100));
    let flow = "NetSuite → Snowflake invoices";
    for (asked, notices) in [
        (
            json!({ "flow": flow, "status": ["succeeded"], "limit": 1 }),
            json!(["Runs are kept 90 days; older ones are not listed."]),
        ),
        (json!({ "flow": flow, "window": "24h" }), Value::Null),
    ] {
        let told = app.acme().call("list_flow_runs", asked).await;
        assert!(told.text.starts_with("No matching runs of NetSuite"), "{}", told.text);
        assert_eq!(told.structured["notices"], notices, "{}", told.text);
    }
}
