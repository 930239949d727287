//! Reporting and stand-ups.

use serde_json::json;

use crate::support::app::{TestApp, counted};

#[tokio::test]
async fn a_summary_for_the_standup() {
    let app = TestApp::demo().await;
    let health = app.acme().text("get_system_health", json!({ "window": "24h" })).await;
    let flows = app.acme().text("list_flows", json!({ "status": ["needs_attention"] })).await;
    for part in [
        "HubSpot (Marketing) is down",
        "Shopify (EU Store) is degraded",
        "Shopify orders",
        "Salesforce (Production) is near its quota",
    ] {
        assert!(health.contains(part), "{part}\n{health}");
    }
    assert!(flows.starts_with("5 of 12 flows"), "{flows}");
    let runs: (i64,) = app
        .row("select count(*) from runs where customer_id = 'cus_acme' and (finished_at >= $1 - interval '24 hours' or finished_at is null)")
        .await;
    assert!(health.contains(&format!(": {} (", counted(runs.0))), "{health} {}", runs.0);
}

#[tokio::test]
async fn a_postmortem_of_yesterdays_failed_sync() {
    let app = TestApp::demo().await;
    let arguments = json!({ "connector": "Shopify", "status": ["failed"], "window": "yesterday" });
    let runs = app.acme().text("list_runs", arguments).await;
    assert!(runs.contains("run_abc123"), "{runs}");
    let run = app.acme().text("get_run", json!({ "run_id": "run_abc123" })).await;
    for part in [
        "flow version 6 → 7 at 2026-11-20 14:03 +01:00",
        "by Jonas Weber",
        "default VAT-STD removed",
        "flow paused at 2026-11-20 14:24 +01:00",
        "flow resumed at 2026-11-20 15:06 +01:00",
        "14:16:10",
        "Last success before: 2026-11-20 14:00 +01:00",
        "Run after: 2026-11-20 15:15 +01:00",
        "6,911 written",
    ] {
        assert!(run.contains(part), "{part} is not in\n{run}");
    }
    let errors = app.acme().text("get_run_errors", json!({ "run_id": "run_abc123" })).await;
    assert!(errors.contains("1,203 errors"), "{errors}");
    let flow = app.acme().text("get_flow", json!({ "flow": "Shopify orders" })).await;
    assert!(flow.contains("Version 8 since 2026-11-20 15:05 +01:00"), "{flow}");
    let summary =
        app.acme().text("get_flow_error_summary", json!({ "flow": "Shopify orders", "window": "7d" })).await;
    assert!(summary.contains("NEW in this window"), "{summary}");
}

#[tokio::test]
async fn records_moved_yesterday_by_destination() {
    let app = TestApp::demo().await;
    let arguments = json!({ "window": "yesterday", "group_by": "destination", "limit": 0 });
    let told = app.acme().text("list_runs", arguments).await;
    let rows: Vec<(String, i64, i64)> = app
        .rows(
            "select c.name, count(*), sum(r.records_written)::bigint from runs r
               join connectors c on c.customer_id = r.customer_id and c.connector_id = r.destination_connector_id
              where r.customer_id = 'cus_acme' and $1::timestamptz is not null
                and r.finished_at >= '2026-11-20T00:00:00+01:00' and r.finished_at < '2026-11-21T00:00:00+01:00'
              group by 1",
        )
        .await;
    let mut names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["NetSuite (ERP)", "Orders DB (Postgres)", "Salesforce (Production)", "Snowflake (Analytics)"]
    );
    for (name, runs, written) in rows {
        let line =
            told.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{name}\n{told}"));
        assert!(line.contains(&format!("({} written,", counted(written))), "{line} {written}");
        assert!(line.contains(&format!("| {} runs", counted(runs))), "{line} {runs}");
    }
}

/// Roll-ups are by the hour of UTC; a day begins where the zone says, at half past or a quarter to where it does.
#[tokio::test]
async fn days_begin_at_the_zones_midnight() {
    let app = TestApp::demo().await;
    for zone in ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns"] {
        for (window, grouping, key) in [
            ("7d", "day", "to_char(least(window_at, $1) at time zone '{zone}', 'YYYY-MM-DD')"),
            (
                "24h",
                "hour",
                "to_char(date_trunc('hour', least(window_at, $1), 'UTC') at time zone '{zone}', 'YYYY-MM-DD HH24:MI')",
            ),
        ] {
            let arguments = json!({ "window": window, "group_by": grouping, "timezone": zone, "limit": 0 });
            let told = app.acme().call("list_runs", arguments).await;
            let told: Vec<(String, i64)> = told.structured["groups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|group| (group["key"].as_str().unwrap().to_owned(), group["runs"].as_i64().unwrap()))
                .collect();
            let interval = if window == "7d" { "7 days" } else { "24 hours" };
            let key = key.replace("{zone}", zone);
            let counted: Vec<(String, i64)> = app
                .rows(&format!(
                    "select {key}, count(*) from runs
                      where customer_id = 'cus_acme' and window_at >= $1 - interval '{interval}'
                      group by 1 order by 1 desc"
                ))
                .await;
            assert!(counted.len() >= 7, "{counted:?}");
            assert_eq!(told, counted, "{zone}, by {grouping}");
        }
    }
}

/// Where the clock is put back, two hours have one time of day; each is told by itself, the later one first.
#[tokio::test]
async fn the_hour_that_comes_twice_is_two_groups() {
    let app = TestApp::demo().await;
    let arguments = |until: &str| json!({ "since": "2026-10-25T00:00:00+02:00", "until": until, "group_by": "hour", "limit": 0 });
    let told = app.acme().call("list_runs", arguments("2026-10-26T00:00:00+01:00")).await;
    let groups = told.structured["groups"].as_array().unwrap();
    let keys: Vec<&str> = groups.iter().map(|group| group["key"].as_str().unwrap()).collect();
    let night: Vec<&str> = keys.iter().rev().copied().take(5).collect();
    let expected = [
        "2026-10-25 00:00",
        "2026-10-25 01:00",
        "2026-10-25 02:00 +02:00",
        "2026-10-25 02:00 +01:00",
        "2026-10-25 03:00",
    ];
    assert_eq!((keys.len(), night.as_slice()), (25, expected.as_slice()), "{keys:?}");
    let rows: Vec<(i64,)> = app
        .rows(
            "select count(*) from runs
              where customer_id = 'cus_acme' and $1::timestamptz is not null
                and window_at >= '2026-10-25T00:00:00+02:00' and window_at < '2026-10-26T00:00:00+01:00'
              group by date_trunc('hour', window_at) order by date_trunc('hour', window_at) desc",
        )
        .await;
    let runs: Vec<i64> = groups.iter().map(|group| group["runs"].as_i64().unwrap()).collect();
    assert_eq!(runs, rows.into_iter().map(|(runs,)| runs).collect::<Vec<_>>());
}

#[tokio::test]
async fn until_alone_ends_the_window_that_would_be_without_it() {
    let app = TestApp::demo().await;
    let until = "2026-11-20T12:00:00+01:00";
    for (tool, arguments, since) in [
        ("list_runs", json!({ "until": until, "limit": 0 }), "2026-11-19T11:00:00Z"),
        ("list_runs", json!({ "until": until, "window": "3d", "limit": 0 }), "2026-11-17T11:00:00Z"),
        (
            "get_flow_error_summary",
            json!({ "until": until, "flow": "Shopify orders" }),
            "2026-11-13T11:00:00Z",
        ),
        ("list_runs", json!({ "until": until, "window": "this_week", "limit": 0 }), "2026-11-15T23:00:00Z"),
    ] {
        let told = app.acme().call(tool, arguments.clone()).await;
        let window = &told.structured["window"];
        assert_eq!(
            (&window["since"], &window["until"]),
            (&json!(since), &json!("2026-11-20T11:00:00Z")),
            "{}",
            told.text
        );
        let cut = "Note: Of the window only the part before until is told.";
        assert_eq!(told.text.contains(cut), arguments["window"] == "this_week", "{}", told.text);
    }
    let told = app.acme().call("list_flow_runs", json!({ "flow": "Shopify orders", "until": until })).await;
    let (kept,): (i64,) = app
        .row(
            "select count(*) from runs where customer_id = 'cus_acme' and flow_id = 'flow_shopify_orders'
                and finished_at < '2026-11-20T12:00:00+01:00' and $1::timestamptz is not null",
        )
        .await;
    assert_eq!(told.structured["total"], kept, "{}", told.text);
    let told = app.acme().call("list_runs", json!({ "until": until, "window": "today" })).await;
    let begin = "INVALID_WINDOW: the window's beginning (2026-11-21 00:00 +01:00) is not before until (2026-11-20 12:00 +01:00).";
    assert!(told.is_error && told.text.starts_with(begin), "{}", told.text);
}

/// PostgreSQL may be installed with fewer time zones than are known here.
#[tokio::test]
async fn a_zone_that_the_database_does_not_know_is_a_mistake_of_the_argument() {
    let app = TestApp::demo().await;
    let known = app.column("select name from pg_timezone_names").await;
    let all = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let unknown = all.filter(|zone| !known.iter().any(|name| name == zone)).take(5);
    for zone in unknown.chain(["US/Eastern", "Europe/Berlin"]) {
        let told = app.acme().call("list_runs", json!({ "group_by": "day", "timezone": zone })).await;
        assert!(!told.is_error || told.code == "INVALID_ARGUMENTS", "{zone}: {}", told.text);
        assert!(!told.is_error || zone != "Europe/Berlin", "{}", told.text);
    }
}
