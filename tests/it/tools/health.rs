//! Connectors and health.

use serde_json::json;

use crate::support::app::{TestApp, counted, first_run};

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
    // So far, against as much of the week before.
    let (failed, attempted): (i64, i64) = app
        .row(
            "select sum(records_failed)::bigint, sum(records_written + records_failed)::bigint
               from runs where customer_id = 'cus_acme' and finished_at >= '2026-11-09T00:00:00+01:00'
                and finished_at <= $1 - interval '7 days'",
        )
        .await;
    let before = format!("(same span last week: {:.1} %)", failed as f64 * 100.0 / attempted as f64);
    assert!(line("Records").contains(&before), "{before}\n{told}");
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

async fn report_a_worker(app: &TestApp) {
    let worker = "insert into workers values ('worker', $1, $1, 1)";
    sqlx::query(worker).bind(app.clock.now()).execute(&mut app.owner().await).await.unwrap();
}

/// A run that another of its flow holds back does not wait for a worker; one that nothing holds back does, and says so.
#[tokio::test]
async fn a_queue_stands_still_only_where_a_run_could_start() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    let (flow,): (String,) = app
        .row("select flow_id from flows where customer_id = 'cus_globex' and state = 'active' and $1::timestamptz is not null order by 1 limit 1")
        .await;
    let trigger = json!({ "flow": flow, "if_running": "queue" });
    let started = app.globex().call("trigger_sync", trigger.clone()).await;
    let going = first_run(&started.text);
    let start = "update runs set status = 'running', attempt = 1, started_at = queued_at where customer_id = 'cus_globex' and run_id = $1";
    sqlx::query(start).bind(&going).execute(&mut owner).await.unwrap();
    let queued = app.globex().call("trigger_sync", trigger).await;
    assert_eq!(queued.structured["outcome"], "queued", "{}", queued.text);
    let wait = "update runs set available_at = available_at - interval '20 minutes' where customer_id = 'cus_globex' and status = 'queued'";
    assert_eq!(sqlx::query(wait).execute(&mut owner).await.unwrap().rows_affected(), 1);

    report_a_worker(&app).await;

    let held = app.globex().call("get_system_health", json!({})).await;
    assert_eq!(held.structured["verdict"], "healthy", "{}", held.text);
    assert_eq!(held.structured["queue"]["queued"], 1);
    assert_eq!(held.structured["queue"]["ready"], 0);
    assert!(held.structured["queue"]["oldest_wait_seconds"].is_null(), "{}", held.text);
    let depth = app.store.queue_depth().await.unwrap();
    assert_eq!((depth.queued, depth.oldest_s), (2, Some(18.0)), "only the two that wait in Acme's");

    let end = "update runs set status = 'cancelled', finished_at = queued_at, window_at = queued_at where run_id = $1";
    sqlx::query(end).bind(&going).execute(&mut owner).await.unwrap();
    let stuck = app.globex().call("get_system_health", json!({})).await;
    assert_eq!(stuck.structured["verdict"], "critical", "{}", stuck.text);
    assert_eq!(stuck.structured["queue"]["ready"], 1);
    assert_eq!(stuck.structured["queue"]["oldest_wait_seconds"], 1_200);
    let causes = stuck.structured["attention"].as_array().unwrap();
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!((&causes[0]["severity"], &causes[0]["id"]), (&json!("critical"), &json!("queue")));
    assert_eq!(causes[0]["message"], "1 run is ready to start, the oldest for 20m 0s");
    assert!(stuck.text.contains("Globex is critical. 1 run is ready"), "{}", stuck.text);
    assert_eq!(app.store.queue_depth().await.unwrap().oldest_s, Some(1_200.0));

    // No worker takes runs of a workspace that is suspended.
    let suspend = "update customers set status = 'suspended' where customer_id = 'cus_globex'";
    sqlx::query(suspend).execute(&mut owner).await.unwrap();
    let depth = app.store.queue_depth().await.unwrap();
    assert_eq!((depth.queued, depth.oldest_s), (2, Some(18.0)), "only the two that wait in Acme's");
}

/// A retry is delayed until its time has come; then it waits like any other run.
#[tokio::test]
async fn a_retry_whose_time_has_come_is_ready() {
    let app = TestApp::demo().await;
    report_a_worker(&app).await;
    let started = app.globex().text("trigger_sync", json!({ "flow": "flow_globex_accounts" })).await;
    let later = "update runs set status = 'retrying', attempt = 1, started_at = queued_at,
                        available_at = $2::timestamptz + make_interval(mins => $3)
        where customer_id = 'cus_globex' and run_id = $1";
    for (minutes, queue, verdict) in [(1, [0, 0, 1], "healthy"), (-20, [0, 1, 0], "critical")] {
        sqlx::query(later)
            .bind(first_run(&started))
            .bind(app.clock.now())
            .bind(minutes)
            .execute(&mut app.owner().await)
            .await
            .unwrap();
        let told = app.globex().call("get_system_health", json!({})).await;
        let counts = ["queued", "ready", "delayed"].map(|word| told.structured["queue"][word].clone());
        assert_eq!(counts, queue.map(|count| json!(count)), "{}", told.text);
        assert_eq!(told.structured["verdict"], verdict, "{}", told.text);
        let waits = told.text.contains("1 ready, oldest waits 20m 0s, 0 delayed");
        assert_eq!(waits, minutes < 0, "{}", told.text);
        let depth = app.store.queue_depth().await.unwrap();
        let all = if minutes < 0 { (3, Some(1_200.0)) } else { (2, Some(18.0)) };
        assert_eq!((depth.queued, depth.oldest_s), all, "two wait in Acme's");
    }
}

/// Gives flows of Acme's a health for a reason.
async fn ail(app: &TestApp, health: &str, code: &str, which: &str) -> u64 {
    let set = format!(
        "update flows set state = 'active', health = '{health}',
                health_reasons = '[{{\"code\": \"{code}\", \"message\": \"it is so\"}}]'
          where customer_id = 'cus_acme' and ({which})"
    );
    sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut app.owner().await).await.unwrap().rows_affected()
}

/// However many symptoms a cause has, the others are told beside it.
#[tokio::test]
async fn what_fails_by_itself_is_told_beside_a_connector_that_is_down() {
    let app = TestApp::demo().await;
    report_a_worker(&app).await;
    let moved = "update flows set source_connector_id = 'con_hubspot' where customer_id = 'cus_acme' and name like 'NetSuite %'";
    assert_eq!(sqlx::query(moved).execute(&mut app.owner().await).await.unwrap().rows_affected(), 2);
    assert_eq!(ail(&app, "failing", "CONNECTOR_DOWN", "name like 'NetSuite %'").await, 2);
    assert_eq!(ail(&app, "failing", "LAST_RUN_FAILED", "name like 'Support %'").await, 1);
    let told = app.acme().call("get_system_health", json!({})).await;
    let causes: Vec<String> = told.structured["attention"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| format!("{} {}", cause["severity"].as_str().unwrap(), cause["name"].as_str().unwrap()))
        .collect();
    let expected = [
        "critical HubSpot (Marketing)",
        "critical Support ticket triage",
        "warning Shopify (EU Store)",
        "warning Shopify orders → NetSuite sales orders",
        "info NetSuite (ERP)",
        "info Salesforce (Production)",
    ];
    assert_eq!(causes, expected, "{}", told.text);
    assert_eq!(told.structured["attention_more"], 0);
    assert!(told.text.contains("5 flows failing; "), "{}", told.text);
}

#[tokio::test]
async fn causes_that_are_not_told_are_counted() {
    let app = TestApp::demo().await;
    let copies = "do $$
        declare columns text;
        begin
            select string_agg(column_name, ', ') into columns from information_schema.columns
             where table_schema = 'public' and table_name = 'flows' and is_generated = 'NEVER'
               and column_name not in ('flow_id', 'name', 'sort_key');
            execute format('insert into flows (flow_id, name, sort_key, %1$s)
                select flow_id || n, name || n, sort_key || n, %1$s from flows, generate_series(1, 20) n
                 where flow_id = ''flow_order_lines''', columns);
        end $$";
    sqlx::raw_sql(copies).execute(&mut app.owner().await).await.unwrap();
    assert_eq!(ail(&app, "degraded", "ERROR_RATE", "flow_id like 'flow_order_lines%'").await, 21);
    let told = app.acme().call("get_system_health", json!({})).await;
    let listed = told.structured["attention"].as_array().unwrap().len() as i64;
    // Two connectors, no worker, the flows that are degraded by themselves, an authorization and a quota.
    let own: (i64,) = app
        .row(
            "select count(*) from flows where customer_id = 'cus_acme' and health = 'degraded' and $1::timestamptz is not null
                and health_reasons @? '$[*] ? (@.code != \"CONNECTOR_DEGRADED\")'",
        )
        .await;
    assert_eq!((listed, told.structured["attention_more"].as_i64().unwrap()), (12, 3 + own.0 + 2 - 12));
    let headline = format!(
        "; {} things more need attention, and {} flows in trouble are not listed.",
        2 + own.0,
        3 + 2 + 21 - 5
    );
    assert!(told.text.contains(&headline), "{headline}\n{}", told.text);

    // One cause alone, with more flows behind it than are listed.
    assert!(ail(&app, "healthy", "", "health = 'degraded'").await > 20);
    report_a_worker(&app).await;
    let well =
        "update connectors set status = 'healthy' where customer_id = 'cus_acme' and status = 'degraded'";
    sqlx::query(well).execute(&mut app.owner().await).await.unwrap();
    let moved = "update flows set source_connector_id = 'con_hubspot' where customer_id = 'cus_acme' and flow_id like 'flow_order_lines%'";
    sqlx::query(moved).execute(&mut app.owner().await).await.unwrap();
    assert_eq!(ail(&app, "failing", "CONNECTOR_DOWN", "flow_id like 'flow_order_lines%'").await, 21);
    let told = app.acme().text("get_system_health", json!({})).await;
    let first = told.lines().next().unwrap();
    assert!(first.contains("; 24 flows failing, and 19 flows in trouble are not listed."), "{told}");
}

/// Everything that happens by itself happens in workers: without one nothing is ever queued that could tell.
#[tokio::test]
async fn an_engine_that_stands_still_is_told_with_what_to_do() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    let health = async || app.globex().call("get_system_health", json!({})).await;
    let dead = health().await;
    assert_eq!(
        (&dead.structured["verdict"], &dead.structured["queue"]["queued"]),
        (&json!("critical"), &json!(0))
    );
    assert_eq!(dead.structured["attention"][0]["id"], "workers");
    assert!(
        dead.text.contains("Globex is critical. no worker has reported in the last 2 minutes"),
        "{}",
        dead.text
    );
    assert!(dead.text.contains("next: start a worker (apixx-mcp worker)"), "{}", dead.text);

    report_a_worker(&app).await;
    let well = health().await;
    assert!(well.text.starts_with("Globex is healthy. Nothing needs attention."), "{}", well.text);

    let late = |table: &str, column: &str, minutes: i32| {
        format!(
            "update {table} set {column} = $1 - interval '{minutes} minutes' where customer_id = 'cus_globex'"
        )
    };
    for (table, column, verdict, part) in [
        ("connectors", "next_check_at", "degraded", "checks"),
        ("flows", "next_run_at", "critical", "scheduler"),
    ] {
        for (minutes, verdict) in [(4, "healthy"), (6, verdict), (-1, "healthy")] {
            let update = sqlx::AssertSqlSafe(late(table, column, minutes));
            sqlx::query(update).bind(app.clock.now()).execute(&mut owner).await.unwrap();
            let told = health().await;
            assert_eq!(told.structured["verdict"], verdict, "{column} {minutes}: {}", told.text);
            let causes = told.structured["attention"].as_array().unwrap();
            assert_eq!(causes.iter().any(|cause| cause["id"] == part), minutes == 6, "{}", told.text);
        }
    }
}

/// What a check found is not known for good.
#[tokio::test]
async fn a_connector_that_was_not_checked_lately_is_unknown() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    for (seconds, status) in [(3 * 300 + 60, "healthy"), (3 * 300 + 61, "unknown")] {
        let checked = "update connectors set last_check_at = $1::timestamptz - make_interval(secs => $2)
            where customer_id = 'cus_globex'";
        sqlx::query(checked)
            .bind(app.clock.now())
            .bind(f64::from(seconds))
            .execute(&mut owner)
            .await
            .unwrap();
        let told = app.globex().call("list_connectors", json!({})).await;
        assert_eq!(told.structured["counts"][status], 2, "{}", told.text);
        for connector in told.structured["connectors"].as_array().unwrap() {
            assert_eq!(connector["status"], status, "{}", told.text);
            let stale = &connector["status_reasons"][0]["code"];
            assert_eq!(stale == "STALE", status == "unknown", "{}", told.text);
        }
        let health = app.globex().call("get_system_health", json!({})).await;
        assert_eq!(health.structured["connectors"][status], 2, "{}", health.text);
        let flows = app.globex().call("list_flows", json!({})).await.structured;
        let runs = app.globex().call("list_runs", json!({ "limit": 1 })).await.structured;
        let flow = app.globex().call("get_flow", json!({ "flow": flows["flows"][0]["id"] })).await.structured;
        for told in [&flows["flows"][0], &runs["runs"][0], &flow["flow"]] {
            assert_eq!(
                (&told["source"]["status"], &told["destination"]["status"]),
                (&json!(status), &json!(status))
            );
        }
    }
    let told = app.globex().call("list_connectors", json!({ "status": ["unknown"] })).await;
    assert!(told.text.contains("not checked lately"), "{}", told.text);

    // What is down or switched off stays so.
    let long_ago = "update connectors set last_check_at = $1::timestamptz - interval '1 day' where customer_id = 'cus_acme'";
    sqlx::query(long_ago).bind(app.clock.now()).execute(&mut owner).await.unwrap();
    let told = app.acme().text("list_connectors", json!({})).await;
    assert!(told.starts_with("9 connectors: 1 down, 7 unknown, 1 disabled."), "{told}");
}

#[tokio::test]
async fn a_connector_that_is_down_is_trouble_whoever_uses_it() {
    let app = TestApp::demo().await;
    report_a_worker(&app).await;
    let pause = "update flows set state = 'paused', next_run_at = null where customer_id = 'cus_globex'";
    sqlx::query(pause).execute(&mut app.owner().await).await.unwrap();
    let down = "update connectors set status = 'down', status_reasons = '[{\"code\": \"UNREACHABLE\", \"message\": \"no answer\"}]'
        where connector_id = 'con_globex_snowflake'";
    sqlx::query(down).execute(&mut app.owner().await).await.unwrap();
    let told = app.globex().call("get_system_health", json!({})).await;
    assert_eq!(told.structured["verdict"], "degraded", "{}", told.text);
    assert!(told.text.lines().next().unwrap().contains(" is down: no answer."), "{}", told.text);
}

/// What is switched off has no quota to run out of, and is the one cause of what its flows suffer; a quota that started
/// anew is not nearly used up.
#[tokio::test]
async fn a_connector_that_is_switched_off_is_told_as_such() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    let off = "update connectors set enabled = false, status = 'disabled', status_reasons = '[]',
                      last_check_error = 'it was so once' where connector_id = 'con_shopify'";
    sqlx::query(off).execute(&mut owner).await.unwrap();
    let anew = "update connector_quotas set resets_at = $1 where connector_id = 'con_salesforce'";
    sqlx::query(anew).bind(app.clock.now()).execute(&mut owner).await.unwrap();
    let hit = ail(
        &app,
        "failing",
        "CONNECTOR_DISABLED",
        "'con_shopify' in (source_connector_id, destination_connector_id)",
    );
    let hit = hit.await;
    assert!(hit > 1, "{hit}");

    let near = app.acme().call("list_connectors", json!({ "quota_above_percent": 80 })).await;
    assert_eq!(near.structured["total"], 0, "{}", near.text);
    let told = app.acme().call("get_system_health", json!({})).await;
    assert_eq!(told.structured["connectors"]["near_quota"], json!([]), "{}", told.text);
    assert!(!told.text.contains("near its quota"), "{}", told.text);
    let causes = told.structured["attention"].as_array().unwrap();
    let off: Vec<_> =
        causes.iter().filter(|cause| cause["message"].as_str().unwrap().contains("switched off")).collect();
    assert_eq!(off.len(), 1, "{causes:#?}");
    assert_eq!((&off[0]["id"], &off[0]["severity"]), (&json!("con_shopify"), &json!("critical")));
    let message = format!("Shopify (EU Store) is switched off; {hit} flows failing");
    assert_eq!(off[0]["message"], message);
    assert!(
        causes
            .iter()
            .all(|cause| cause["message"] == message || !cause["name"].as_str().unwrap().contains("Shopify"))
    );

    let refused = app.acme().call("trigger_sync", json!({ "flow": "flow_shopify_orders" })).await;
    let words =
        "CONNECTOR_UNAVAILABLE: Shopify (EU Store) is switched off. Switch it on; a run now would fail.";
    assert_eq!(refused.text, words);
}

/// A day's requests are counted by the day of UTC.
#[tokio::test]
async fn what_a_day_allows_says_when_it_starts_anew() {
    let app = TestApp::demo().await;
    let unlimited = app.acme().call("get_system_health", json!({})).await;
    assert!(unlimited.structured["api_quota"]["resets_at"].is_null(), "{}", unlimited.text);
    let told = app.globex().call("get_system_health", json!({})).await;
    assert_eq!(told.structured["api_quota"]["resets_at"], "2026-11-22T00:00:00Z", "{}", told.text);
    assert!(told.text.contains(" (of 200,000 a day, resets 2026-11-"), "{}", told.text);
}
