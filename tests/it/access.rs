//! What callers use is counted, what they may use is shared by all processes, and what is old goes.

use std::num::NonZeroU32;

use apixx_mcp::domain::clock::Clock;
use apixx_mcp::domain::ids::IdSource;
use apixx_mcp::service::access::{Access, Refused, Wants};
use apixx_mcp::service::usage::Call;
use apixx_mcp::store::Store;
use apixx_mcp::store::retention::Retention;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use crate::support::app::{TestApp, demo_now};
use crate::support::browser::Browser;
use crate::support::proxy::Executed;

/// Recognition as another process of the same installation has it.
async fn process(app: &TestApp) -> Access {
    let wait = std::time::Duration::from_secs(10);
    let ids = IdSource::random(app.clock.clone());
    let store = Store::connect(&app.database.server, 2, wait, app.clock.clone(), ids).await.unwrap();
    Access::new(store, NonZeroU32::new(100).unwrap())
}

/// How many requests two processes admit in turn until both refuse.
async fn admitted(processes: [&Access; 2], token: &str) -> u32 {
    let (mut admitted, mut refused) = (0, 0);
    for process in processes.iter().cycle().take(1_000) {
        match process.recognise(Some(token), None, Wants::Service).await {
            Ok(_) => (admitted, refused) = (admitted + 1, 0),
            Err(Refused::Limited(wait, _)) => {
                assert!(!wait.is_zero());
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        if refused == 2 {
            break;
        }
    }
    admitted
}

#[tokio::test]
async fn processes_together_admit_what_the_plan_allows_and_no_more() {
    let app = TestApp::demo().await;
    let sql =
        "update plans set burst = 40, requests_per_minute = 60, daily_requests = 55 where plan_code = 'team'";
    sqlx::query(sql).execute(&mut app.owner().await).await.unwrap();
    let (one, two) = (process(&app).await, process(&app).await);
    let token = app.globex().token();
    assert_eq!(admitted([&one, &two], &token).await, 40);
    app.clock.advance(TimeDelta::seconds(10));
    assert_eq!(admitted([&one, &two], &token).await, 10, "a request a second");
    app.clock.advance(TimeDelta::seconds(10));
    assert_eq!(admitted([&one, &two], &token).await, 5, "the day's allowance is used up");
    app.clock.advance(TimeDelta::days(1));
    assert_eq!(admitted([&one, &two], &token).await, 40, "a new day");
    // Others have a bucket of their own.
    assert!(one.recognise(Some(&app.acme().token()), None, Wants::Service).await.is_ok());
    // Finding out what the server speaks does not draw on it.
    assert!(one.recognise(Some(&token), None, Wants::Discovery).await.is_ok());
}

/// When it is asked again whose token it is, calls that come at once ask once.
#[tokio::test]
async fn one_asks_for_all_who_hold_the_same_token() {
    let TestApp { mut database, .. } = TestApp::demo().await;
    let executed = Executed::on(&mut database);
    let app = TestApp::on(database, Clock::fixed(demo_now()), &[]).await;
    let (access, token) = (process(&app).await, app.globex().token());
    assert!(access.recognise(Some(&token), None, Wants::Service).await.is_ok());
    app.clock.advance(TimeDelta::seconds(2));
    executed.take();
    let all = (0..16).map(|_| access.recognise(Some(&token), None, Wants::Service));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let asked = executed.take();
    assert_eq!(asked.iter().filter(|text| text.contains("token_owner")).count(), 1, "{asked:?}");
}

#[tokio::test]
async fn what_a_token_was_used_for_is_kept() {
    let app = TestApp::demo().await;
    let access = process(&app).await;
    let address = "192.0.2.7".parse().unwrap();
    let principal =
        access.recognise(Some(&app.globex().token()), Some(address), Wants::Service).await.unwrap();
    let (tenancy, token) = (principal.tenancy(), principal.caller().token().unwrap());
    let now = app.clock.now();
    access.usage().met(tenancy, token, "claude-code 2.1\u{1b}", now);
    for failed in [false, false, true] {
        let call = Call { tool: "list_runs", failed, duration_ms: 5 };
        access.usage().called(tenancy, token, call, now);
    }
    access.settle(false).await.unwrap();
    access.settle(false).await.unwrap();
    let (used, client, ip): (DateTime<Utc>, String, String) = app
        .row("select last_used_at, last_used_client, last_used_ip from tokens where customer_id = 'cus_globex' and $1::timestamptz is not null")
        .await;
    assert_eq!((used, client.as_str(), ip.as_str()), (now, "claude-code 2.1", "192.0.2.7"));
    let rows: Vec<(i64, i64, i64)> = app
        .rows("select calls, errors, duration_ms from usage_hourly where tool = 'list_runs' and hour = date_trunc('hour', $1::timestamptz, 'UTC')")
        .await;
    assert_eq!(rows, [(3, 1, 15)]);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_call_waits_starts_nothing() {
    for has_open_run in [false, true] {
        revoked_while_waiting(has_open_run).await;
    }
}

async fn revoked_while_waiting(has_open_run: bool) {
    let app = TestApp::demo().await;
    let wanted = json!({ "flow": "nightly NetSuite invoice sync" });
    if has_open_run {
        assert!(!app.acme().call("trigger_sync", wanted.clone()).await.is_error);
    }
    let acme = app.acme();
    let runs = "select run_id from runs where customer_id = 'cus_acme' and status = 'queued'";
    let before = app.column(runs).await;
    let principal = app.access().recognise(Some(&acme.token()), None, Wants::Service).await.unwrap();
    let mut turn = app.serving().store.begin(principal.tenancy()).await.unwrap();
    turn.take_turn().await.unwrap();
    let revoke = async {
        let waiting = "select 'waits' from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())";
        let mut looks = 0;
        while app.column(waiting).await.is_empty() {
            looks += 1;
            assert!(looks < 1_000, "the call does not wait");
        }
        let revoked =
            "update tokens set revoked_at = created_at where customer_id = 'cus_acme' returning token_id";
        assert!(!app.column(revoked).await.is_empty());
        turn.commit().await.unwrap();
    };
    let (told, ()) = tokio::join!(acme.call("trigger_sync", wanted), revoke);
    assert!(told.is_error && told.text.contains("revoked or has expired"), "{}", told.text);
    assert_eq!(app.column(runs).await, before);
}

/// What is done on a page waits for others, too.
#[tokio::test]
async fn a_session_that_ends_while_a_page_waits_changes_nothing() {
    let app = TestApp::demo().await;
    let one = async |sql: &str| app.column(sql).await.remove(0);
    let active = one("select flow_id from flows where customer_id = 'cus_acme' and state = 'active'").await;
    let paused = one("select flow_id from flows where customer_id = 'cus_acme' and state = 'paused'").await;
    let run = one("select run_id from runs where customer_id = 'cus_acme' and status = 'queued'").await;
    let cases = [
        (format!("flows/{active}"), "paused", "customers where customer_id = 'cus_acme'".to_owned()),
        (format!("flows/{paused}"), "active", format!("flows where flow_id = '{paused}'")),
        (format!("runs/{run}/cancel"), "", format!("runs where run_id = '{run}'")),
    ];
    let all = "select string_agg(concat(flow_id, state), ' ' order by flow_id) from flows
        union all select string_agg(concat(run_id, status, cancel_requested_by), ' ' order by run_id) from runs
        union all select count(*)::text from audit_log where action ~ '^(flow|run)'";
    let before = app.column(all).await;
    for (path, state, held) in cases {
        let priya = Browser::of(&app, "priya.nair@acme.example").await;
        let mut owner = app.owner().await;
        let mut holder = owner.begin().await.unwrap();
        let hold = format!("select from {held} for no key update");
        sqlx::query(AssertSqlSafe(hold)).execute(&mut *holder).await.unwrap();
        let path = format!("/w/acme/{path}");
        let form = [("state", state)];
        let end = async {
            until_it_waits(&app).await;
            sqlx::query("delete from sessions").execute(&mut app.owner().await).await.unwrap();
            holder.commit().await.unwrap();
        };
        let (page, ()) = tokio::join!(priya.post(&path, &form), end);
        assert!(!page.status.is_success() && !page.to().starts_with("/w/"), "{path}: {page:?}");
        assert_eq!(app.column(all).await, before, "{path}");
    }
}

#[tokio::test]
async fn a_suspended_customer_and_an_expired_token_are_nobody() {
    let app = TestApp::demo().await;
    let access = process(&app).await;
    let token = app.globex().token();
    let mut owner = app.owner().await;
    let end = app.clock.now() + TimeDelta::hours(1);
    sqlx::query("update tokens set expires_at = $1 where customer_id = 'cus_globex'")
        .bind(end)
        .execute(&mut owner)
        .await
        .unwrap();
    assert!(access.recognise(Some(&token), None, Wants::Service).await.is_ok());
    app.clock.advance(TimeDelta::hours(1));
    assert!(matches!(access.recognise(Some(&token), None, Wants::Service).await, Err(Refused::BadToken(_))));
    let acme = app.acme().token();
    assert!(access.recognise(Some(&acme), None, Wants::Service).await.is_ok());
    sqlx::query("update customers set status = 'suspended' where customer_id = 'cus_acme'")
        .execute(&mut owner)
        .await
        .unwrap();
    app.clock.advance(TimeDelta::seconds(1));
    assert!(matches!(access.recognise(Some(&acme), None, Wants::Service).await, Err(Refused::BadToken(_))));
}

/// Each kind has a time of its own; a batch is bounded and says whether there may be more.
#[tokio::test]
async fn what_is_old_goes_kind_by_kind() {
    let app = TestApp::demo().await;
    let count = async |table: &str| -> i64 {
        app.row::<(i64,)>(&format!("select count(*) from {table} where $1::timestamptz is not null")).await.0
    };
    let keep = Retention { audit_days: 400, usage_days: 400, stats_days: 400 };
    let kept =
        [count("runs").await, count("run_errors").await, count("audit_log").await, count("run_stats").await];
    let mut full = std::collections::BTreeSet::new();
    let mut purge = async |most: i32| {
        let gone = app.store.purge(&keep, most).await.unwrap();
        for (kind, rows) in &gone.rows {
            assert!(*rows <= i64::from(most), "{rows} {kind} at once, {most} at most");
            if *rows == i64::from(most) {
                full.insert(kind.clone());
            }
        }
        gone.more()
    };
    assert!(!purge(500).await);
    assert_eq!(
        kept,
        [count("runs").await, count("run_errors").await, count("audit_log").await, count("run_stats").await]
    );
    // Samples lose their payload first; their counts stay with the run.
    app.clock.advance(TimeDelta::days(31));
    while purge(100).await {}
    assert_eq!(count("(select from run_errors where payload is not null) e").await, 0);
    assert_eq!(count("run_errors").await, kept[1]);
    // Then runs go with everything below them, in bounded batches.
    app.clock.advance(TimeDelta::days(60));
    let many = "insert into run_errors select (jsonb_populate_record(e, jsonb_build_object('error_id', 'err_' || n))).*
        from run_errors e, generate_series(1, 250) n where e.error_id = (select min(error_id) from run_errors)";
    sqlx::query(many).execute(&mut app.owner().await).await.unwrap();
    assert!(purge(100).await, "more than one batch");
    assert!(count("runs").await >= kept[0] - 100);
    while purge(100).await {}
    for table in ["run_errors", "run_error_counts", "(select from runs where finished_at is not null) r"] {
        assert_eq!(count(table).await, 0, "{table}");
    }
    assert_eq!(count("run_stats").await, kept[3], "roll-ups stay longer");
    app.clock.advance(TimeDelta::days(400));
    while purge(100).await {}
    for table in ["run_stats", "error_stats", "audit_log", "usage_hourly", "idempotency_keys"] {
        assert_eq!(count(table).await, 0, "{table}");
    }
    // Each kind that the demo has much of took batches, none of which was larger.
    let bounded = ["error_stats", "payloads", "run_stats", "runs", "samples"];
    assert!(bounded.iter().all(|kind| full.contains(*kind)), "{full:?}");
}

/// Lists count by the roll-ups, which stay for as long as any runs that they count.
#[tokio::test]
async fn runs_that_a_plan_keeps_longer_than_roll_ups_are_counted_all_the_same() {
    let app = TestApp::demo().await;
    let years = "update plans set run_retention_days = 730";
    sqlx::query(years).execute(&mut app.owner().await).await.unwrap();
    app.clock.advance(TimeDelta::days(500));
    let keep = Retention { audit_days: 400, usage_days: 400, stats_days: 400 };
    while app.store.purge(&keep, 1_000).await.unwrap().more() {}
    let flow = "NetSuite → Snowflake invoices";
    for filter in
        [json!({ "flow": flow, "status": ["succeeded"] }), json!({ "flow": flow, "trigger": ["schedule"] })]
    {
        let told = app.acme().call("list_flow_runs", filter).await;
        let listed = told.structured["runs"].as_array().unwrap().len();
        assert!(listed > 0 && told.structured["total"].as_u64() >= Some(listed as u64), "{}", told.text);
    }
}

/// What a shorter plan let go is not counted under a longer one.
#[tokio::test]
async fn runs_that_an_earlier_plan_did_not_keep_are_not_counted() {
    let app = TestApp::demo().await;
    let tenancy = app.store.customer_named("acme").await.unwrap().unwrap();
    app.clock.advance(TimeDelta::days(15));
    for plan in ["free", "team"] {
        let mut tx = app.store.begin(&tenancy).await.unwrap();
        tx.set_customer(Some(plan.to_owned()), None).await.unwrap();
        tx.commit().await.unwrap();
        let keep = Retention { audit_days: 400, usage_days: 400, stats_days: 400 };
        while app.store.purge(&keep, 1_000).await.unwrap().more() {}
    }
    app.clock.advance(TimeDelta::seconds(1));
    let (kept,): (i64,) = app
        .row("select count(*) from runs where customer_id = 'cus_acme' and $1::timestamptz is not null")
        .await;
    let told = app.acme().call("list_runs", json!({ "window": "80d", "limit": 0 })).await;
    assert!(kept > 0 && told.structured["total"] == kept, "{kept} {}", told.text);
    let notice = "Runs are kept since 2026-11-06 09:07 +01:00; the window was cut to them.";
    assert_eq!(told.structured["notices"], json!([notice]), "{}", told.text);
}

/// Looks until something waits for a row that another transaction changed.
async fn until_it_waits(app: &TestApp) {
    let waiting = "select 'waits' from pg_locks join pg_stat_activity a using (pid)
        where locktype = 'transactionid' and not granted and a.datname = current_database()";
    let mut looks = 0;
    while app.column(waiting).await.is_empty() {
        looks += 1;
        assert!(looks < 1_000, "nothing waits");
    }
}

/// Whoever sees an error again while its group goes must find the group still there.
#[tokio::test]
async fn a_group_that_is_seen_again_meanwhile_stays() {
    let app = TestApp::demo().await;
    app.clock.advance(TimeDelta::days(500));
    let mut keep = Retention { audit_days: 1_000, usage_days: 1_000, stats_days: 1_000 };
    while app.store.purge(&keep, 500).await.unwrap().more() {}
    let groups = app.column("select group_id from error_groups order by group_id").await;
    let [again, _, ..] = &groups[..] else { panic!("two groups outlive their runs: {groups:?}") };
    let mut owner = app.owner().await;
    let mut seen = owner.begin().await.unwrap();
    sqlx::query("update error_groups set last_seen_at = $1 where group_id = $2")
        .bind(app.clock.now())
        .bind(again)
        .execute(&mut *seen)
        .await
        .unwrap();
    let commit = async {
        until_it_waits(&app).await;
        seen.commit().await.unwrap();
    };
    keep.stats_days = 1;
    let (gone, ()) = tokio::join!(app.store.purge(&keep, 500), commit);
    gone.unwrap();
    assert_eq!(app.column("select group_id from error_groups").await, [again.as_str()]);
}

/// Whoever uses a key again after its time, while it goes, is remembered by it.
#[tokio::test]
async fn a_key_that_is_used_again_meanwhile_stays() {
    let app = TestApp::demo().await;
    let mut owner = app.owner().await;
    let keys = "insert into idempotency_keys (customer_id, key, request_hash, run_id, expires_at)
        select customer_id, key, sha256('x'), run_id, $1 from runs, unnest(array['again', 'over']) key
         where run_id = (select min(run_id) from runs where customer_id = 'cus_acme')";
    let over = app.clock.now() - TimeDelta::hours(1);
    sqlx::query(keys).bind(over).execute(&mut owner).await.unwrap();
    let mut used = owner.begin().await.unwrap();
    sqlx::query("update idempotency_keys set expires_at = $1 where key = 'again'")
        .bind(app.clock.now() + TimeDelta::hours(24))
        .execute(&mut *used)
        .await
        .unwrap();
    let commit = async {
        until_it_waits(&app).await;
        used.commit().await.unwrap();
    };
    let keep = Retention { audit_days: 1_000, usage_days: 1_000, stats_days: 1_000 };
    let (gone, ()) = tokio::join!(app.store.purge(&keep, 500), commit);
    gone.unwrap();
    assert_eq!(
        app.column("select key from idempotency_keys where key in ('again', 'over')").await,
        ["again"]
    );
}
