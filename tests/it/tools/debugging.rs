//! Debugging a failed run.

use serde_json::json;

use crate::support::app::{TestApp, counted, first_run};

#[tokio::test]
async fn what_went_wrong_with_hubspot_contacts_this_morning() {
    let app = TestApp::demo().await;
    let arguments =
        json!({ "flow": "HubSpot contacts", "status": ["failed"], "window": "this_morning", "limit": 3 });
    let runs = app.acme().text("list_flow_runs", arguments).await;
    assert!(runs.contains("AUTH_EXPIRED"), "{runs}");
    let run = first_run(&runs);
    let newest: (String,) = app
        .row(
            "select r.run_id from runs r join flows f using (customer_id, flow_id)
              where f.customer_id = 'cus_acme' and f.name like 'HubSpot → Salesforce%' and r.status = 'failed'
                and r.finished_at <= $1 order by r.finished_at desc limit 1",
        )
        .await;
    assert_eq!(run, newest.0);
    let errors = app.acme().text("get_run_errors", json!({ "run_id": run })).await;
    assert!(errors.contains("AUTH") && errors.contains("invalid_grant"), "{errors}");
    let connector = app.acme().text("list_connectors", json!({ "query": "HubSpot" })).await;
    assert!(
        connector.contains("revoked") && connector.contains("since 2026-11-21 05:58 +01:00"),
        "{connector}"
    );
}

/// Class, how many, a word of the message, a word of the sample.
const ABC123: [(&str, i64, &str, &str); 5] = [
    ("REQUIRED_FIELD", 742, "Tax Code", "#48211"),
    ("REFERENCE", 311, "Invalid item reference", "#48377"),
    ("RATE_LIMIT", 96, "Concurrent request limit", "#49002"),
    ("DUPLICATE", 41, "already exists", "#47990"),
    ("VALIDATION", 13, "Currency CHF", "#48650"),
];

#[tokio::test]
async fn errors_of_a_run_by_type_with_a_sample_each() {
    let app = TestApp::demo().await;
    let arguments = json!({ "run_id": "run_abc123", "group_by": "class", "samples_per_group": 1 });
    let told = app.acme().text("get_run_errors", arguments).await;
    assert!(
        told.starts_with(
            "run_abc123 of Shopify orders → NetSuite sales orders (failed (ERROR_THRESHOLD)): 1,203 errors"
        ),
        "{told}"
    );
    let rows: Vec<(String, i64)> = app
        .rows(
            "select g.error_class, sum(c.count)::bigint from run_error_counts c join error_groups g using (customer_id, group_id)
              where c.customer_id = 'cus_acme' and c.run_id = 'run_abc123' and $1::timestamptz is not null
              group by 1 order by 2 desc",
        )
        .await;
    assert_eq!(
        rows.iter().map(|(class, count)| (class.as_str(), *count)).collect::<Vec<_>>(),
        ABC123.map(|(class, count, ..)| (class, count))
    );
    for (class, count, message, sample) in ABC123 {
        let at = told.find(&format!(" {class} {count} (")).unwrap_or_else(|| panic!("{class}\n{told}"));
        let part: String = told[at..].lines().take(2).collect();
        assert!(part.contains(message) && part.contains("<<data") && part.contains(sample), "{part}");
    }
    assert!(!told.contains("lena@"), "payloads are redacted");
}

#[tokio::test]
async fn top_error_classes_over_the_last_week() {
    let app = TestApp::demo().await;
    let arguments = json!({ "flow": "Shopify orders", "window": "7d", "limit": 5 });
    let told = app.acme().text("get_flow_error_summary", arguments).await;
    let rows: Vec<(String, i64, i64)> = app
        .rows(
            "select g.error_class, sum(c.count)::bigint, count(distinct r.run_id)
               from runs r
               join flows f using (customer_id, flow_id)
               join run_error_counts c using (customer_id, run_id)
               join error_groups g on g.customer_id = c.customer_id and g.group_id = c.group_id
              where r.customer_id = 'cus_acme' and f.name like 'Shopify orders%'
                and (r.finished_at >= $1 - interval '7 days' or r.finished_at is null)
              group by 1 order by 2 desc",
        )
        .await;
    let expected = [
        ("REQUIRED_FIELD", 742),
        ("REFERENCE", 475),
        ("RATE_LIMIT", 154),
        ("DUPLICATE", 63),
        ("VALIDATION", 17),
    ];
    assert_eq!(
        rows.iter().take(5).map(|(class, count, _)| (class.as_str(), *count)).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(rows.iter().map(|(_, count, _)| count).sum::<i64>(), 1_460);
    for (place, (class, count, runs)) in rows.iter().take(5).enumerate() {
        let line = told
            .lines()
            .find(|line| line.starts_with(&format!("{} {class} ", place + 1)))
            .unwrap_or_else(|| panic!("{class}\n{told}"));
        assert!(line.contains(&format!("{class} {} (", counted(*count))), "{line}");
        assert!(*runs == 1 || line.contains(&format!("{} runs", counted(*runs))), "{line} {runs}");
    }
    assert!(told.contains("1,460 errors") && told.contains("1 more class (9 errors)"), "{told}");
}

/// One error more of each of three patterns, two of them of one class, in the newest run with errors of Shopify's orders.
/// Their ids come before all others.
const LATE_ERRORS: &str = "
    with newest as (
        select r.* from runs r
         where r.customer_id = 'cus_acme' and r.flow_id = 'flow_shopify_orders' and r.records_failed > 0
         order by r.window_at desc limit 1),
    late as (
        insert into error_groups
        select r.customer_id, l.id, r.flow_id, decode(md5(l.id), 'hex'), 1, l.class, l.code, 'load', 'destination', l.field,
               'a late one', r.finished_at, r.finished_at, r.run_id
          from newest r, (values ('eg_00late1', 'VALIDATION', 'INVALID_EMAIL', 'email'), ('eg_00late2', 'AUTH', 'DENIED', null),
                               ('eg_00late3', 'VALIDATION', 'INVALID_PHONE', 'phone'))
               l (id, class, code, field)
        returning *),
    counted as (
        insert into run_error_counts
        select customer_id, run_id, group_id, r.flow_id, window_at, 1, finished_at, finished_at from newest r join late using (customer_id))
    insert into error_stats as s
    select r.customer_id, r.flow_id, g.grain, k.level, date_trunc(g.grain, r.finished_at, 'UTC'), k.key, count(*), 1
      from newest r join late e using (customer_id)
     cross join (values ('hour'), ('day')) g (grain)
     cross join lateral (values ('all', ''), ('class', e.error_class), ('code', e.code), ('field', coalesce(e.field, '(none)')),
                                ('group', e.group_id)) k (level, key)
     group by r.customer_id, r.flow_id, g.grain, k.level, r.finished_at, k.key
        on conflict (customer_id, flow_id, level, grain, at, key) do update set errors = s.errors + excluded.errors";

/// Groups of errors are counted exactly and told by what most of them are in the window, not by what came last, in it or
/// after it.
#[tokio::test]
async fn groups_are_told_by_what_most_of_them_are() {
    let app = TestApp::demo().await;
    sqlx::raw_sql(LATE_ERRORS).execute(&mut app.owner().await).await.unwrap();
    let yesterday = "window_at >= '2026-11-20T00:00:00+01:00' and window_at < '2026-11-21T00:00:00+01:00'";
    // Cuts the hour of the run whose errors came late.
    let late: Vec<String> = app
        .column(
            "select to_char(window_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from run_error_counts
              where group_id = 'eg_00late1' and $1::timestamptz is not null",
        )
        .await;
    let since_late = format!("window_at >= '{}'", late[0]);
    for (window, span) in [
        (json!({ "window": "7d" }), "window_at >= $1 - interval '7 days'"),
        (json!({ "window": "30d" }), "window_at >= $1 - interval '30 days'"),
        (json!({ "window": "3h" }), "window_at >= $1 - interval '3 hours'"),
        (json!({ "window": "yesterday" }), yesterday),
        (json!({ "since": late[0] }), &since_late),
    ] {
        for (grouping, key) in [
            ("class", "error_class"),
            ("code", "code"),
            ("field", "coalesce(field, '(none)')"),
            ("group", "group_id"),
        ] {
            let mut asked = json!({ "flow": "Shopify orders", "group_by": grouping, "limit": 50 });
            asked.as_object_mut().unwrap().extend(window.as_object().unwrap().clone());
            let told = app.acme().call("get_flow_error_summary", asked).await;
            let groups = told.structured["groups"].as_array().unwrap();
            let word = |group: &serde_json::Value, name: &str| group[name].as_str().unwrap_or("-").to_owned();
            let mut rows: Vec<_> = groups
                .iter()
                .map(|group| {
                    let names = ["key", "error_class", "code", "field", "last_run_id"];
                    let words = names.map(|name| word(group, name)).join(" ");
                    format!("{words} {} {}", group["count"], group["runs"])
                })
                .collect();
            rows.sort_unstable();
            let counted: Vec<String> = app
                .column(&format!(
                    "with counts as (
                        select {key} as key, error_class, g.code, g.field, c.*, {span} as inside
                          from run_error_counts c join error_groups g using (customer_id, flow_id, group_id)
                         where customer_id = 'cus_acme' and flow_id = 'flow_shopify_orders' and $1::timestamptz is not null),
                     keys as (
                        select key, sum(count) as errors, count(distinct run_id) as runs from counts where inside group by 1),
                     sums as (
                        select distinct on (key) key, group_id, sum(count) as errors from counts where inside
                         group by 1, 2 order by 1, 3 desc, 2)
                     select distinct on (key collate \"C\")
                            concat_ws(' ', key, error_class, code, coalesce(field, '-'), run_id, keys.errors, keys.runs)
                       from sums join counts using (key, group_id) join keys using (key)
                      where inside order by key collate \"C\", window_at desc, run_id desc"
                ))
                .await;
            assert!(counted.len() > 2, "{window} by {grouping}: {counted:?}");
            let mut counted = counted;
            counted.sort_unstable();
            assert_eq!(rows, counted, "{window} by {grouping}");
            let all: Vec<String> = app
                .column(&format!(
                    "select concat_ws(' ', sum(count), count(distinct run_id)) from run_error_counts
                      where customer_id = 'cus_acme' and flow_id = 'flow_shopify_orders' and $1::timestamptz is not null
                        and {span}"
                ))
                .await;
            let structured = &told.structured;
            let told = format!("{} {}", structured["total_errors"], structured["runs_with_errors"]);
            assert_eq!(told, all[0], "{window} by {grouping}");
        }
    }
}

#[tokio::test]
async fn failed_runs_of_the_last_hour_and_what_they_share() {
    let app = TestApp::demo().await;
    let told = app.acme().text("list_runs", json!({ "status": ["FAILED"], "window": "1h" })).await;
    let runs: Vec<String> = app
        .column(
            "select run_id from runs where customer_id = 'cus_acme' and status = 'failed'
                and finished_at >= $1 - interval '1 hour' and finished_at <= $1",
        )
        .await;
    assert_eq!(runs.len(), 3, "{told}");
    assert!(runs.iter().all(|run| told.contains(run)), "{told}");
    assert!(told.contains("all use HubSpot (Marketing)") && told.contains("status down"), "{told}");
    let connectors = app.acme().text("list_connectors", json!({ "query": "HubSpot" })).await;
    assert!(
        connectors.contains("DOWN HubSpot (Marketing)") && connectors.contains("3 flows, all failing"),
        "{connectors}"
    );
}

#[tokio::test]
async fn full_detail_of_a_run() {
    let app = TestApp::demo().await;
    let told = app.acme().text("get_run", json!({ "run_id": "run_abc123" })).await;
    for part in [
        "run_abc123 FAILED (ERROR_THRESHOLD",
        "queued 14:15:00, started 14:15:03, finished 14:22:47, duration 7m 44s",
        "read 4,812 | written 3,561 | failed 1,203 | skipped 48",
        "error rate 25.3 %",
        "9.1 MB",
        "attempt 1 of 3",
        "flow version 6 → 7 at 2026-11-20 14:03 +01:00",
        "REQUIRED_FIELD 742, REFERENCE 311, RATE_LIMIT 96, DUPLICATE 41, VALIDATION 13",
        "2026-11-20",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

/// What an answer tells between the marks of the fence, whole or not a plain word, is asked for as it was told.
#[tokio::test]
async fn what_was_told_can_be_asked_for() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    for change in [
        "update flows set name = 'Salesforce → Snowflake: accounts' where flow_id = 'flow_salesforce_accounts'",
        "update error_groups set field = 'Order Date', code = repeat('long ', 30) || repeat('x', 50)
          where error_class = 'REQUIRED_FIELD'",
    ] {
        assert!(sqlx::query(change).execute(&mut owner).await.unwrap().rows_affected() > 0, "{change}");
    }
    let flows = app.acme().call("list_flows", json!({})).await;
    let flows = flows.structured["flows"].as_array().unwrap().clone();
    let name = &flows.iter().find(|flow| flow["id"] == "flow_salesforce_accounts").unwrap()["name"];
    assert_eq!(name, "<<data Salesforce → Snowflake: accounts data>>");
    let told = app.acme().text("get_flow", json!({ "flow": name })).await;
    assert!(told.contains("flow_salesforce_accounts"), "{told}");
    for (grouping, argument) in [("field", "field"), ("code", "error_class")] {
        let arguments = json!({ "run_id": "run_abc123", "group_by": grouping });
        let told = app.acme().call("get_run_errors", arguments).await;
        let key = &told.structured["groups"][0]["key"];
        assert!(key.as_str().unwrap().starts_with("<<data "), "{}", told.text);
        let again = app.acme().call("get_run_errors", json!({ "run_id": "run_abc123", argument: key })).await;
        assert_eq!(again.structured["total_errors"], 742, "{}", again.text);
    }
}
