//! Connectors are looked at, and what is seen reaches their flows.

use std::collections::BTreeMap;
use std::time::Duration;

use apixx_mcp::domain::connector::ConnectorKind;
use apixx_mcp::store::StoreError;
use apixx_mcp::store::checks::CheckSeen;
use apixx_mcp::store::definitions::ConnectorRecord;
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::{Lab, Policy, streams};

/// Rewrites what a scripted connector does.
async fn script(lab: &Lab, connector: &str, sim: Value) {
    let config = json!({ "sim": sim });
    lab.ask::<bool>(&format!(
        "with changed as (update connectors set config = '{config}' where connector_id = '{connector}' returning 1)
         select exists (select 1 from changed)"
    ))
    .await;
}

/// Status, failures in a row, and the first reason's code with its beginning.
async fn state(lab: &Lab, connector: &str) -> String {
    lab.ask(&format!(
        "select concat_ws(' ', status, consecutive_failures, status_reasons -> 0 ->> 'code',
                to_char((status_reasons -> 0 ->> 'since')::timestamptz, 'HH24:MI:SS'))
           from connectors where connector_id = '{connector}'"
    ))
    .await
}

async fn health(lab: &Lab) -> String {
    lab.ask("select concat_ws(' ', health, health_reasons -> 0 ->> 'code') from flows").await
}

#[tokio::test]
async fn a_connector_goes_down_after_three_failures_and_comes_back() {
    let lab = Lab::start().await;
    let shop = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let store = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    lab.flow(&shop, &store, streams("a", "b", json!({})), Policy::default()).await;
    let shop = shop.0.as_str();
    assert_eq!(state(&lab, shop).await, "unknown 0 NEVER_POLLED");
    let other = lab.other_engine("worker-2").await;
    let (first, second) = tokio::join!(lab.engine.check_tick(), other.check_tick());
    assert_eq!(first.unwrap() + second.unwrap(), 2, "each is checked by one");
    assert_eq!(state(&lab, shop).await, "healthy 0");
    assert_eq!(lab.engine.check_tick().await.unwrap(), 0, "they are not due");

    script(&lab, shop, json!({"down": "connection refused"})).await;
    lab.clock.advance(TimeDelta::seconds(331));
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, shop).await, "degraded 1 POLL_FAILED 08:12:31");
    assert_eq!(health(&lab).await, "degraded CONNECTOR_DEGRADED");
    lab.clock.advance(TimeDelta::seconds(34));
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, shop).await, "degraded 2 POLL_FAILED 08:12:31", "a reason keeps its beginning");
    lab.clock.advance(TimeDelta::seconds(67));
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, shop).await, "down 3 UNREACHABLE 08:14:12");
    assert_eq!(health(&lab).await, "failing CONNECTOR_DOWN");
    let said: String = lab.ask("select health_reasons -> 0 ->> 'message' from flows").await;
    assert!(said.ends_with("is down: 3 checks in a row failed: <<data connection refused data>>"), "{said}");

    script(&lab, shop, json!({})).await;
    lab.clock.advance(TimeDelta::seconds(133));
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, shop).await, "healthy 0");
    assert_eq!(health(&lab).await, "pending NEVER_RAN");
}

#[tokio::test]
async fn authorization_and_quotas_are_seen() {
    let lab = Lab::start().await;
    let hubspot =
        json!({"sim": {"auth_status": "revoked", "auth_error": "invalid_grant: refresh token is invalid"}});
    let hubspot = lab.connector(ConnectorKind::Sim, hubspot).await.0;
    let shopify = json!({"sim": {"auth_status": "valid", "quotas": [
        {"name": "graphql_cost", "unit": "points", "used": 1840, "limit": 2000, "throttled_1h": 14}]}});
    let shopify = lab.connector(ConnectorKind::Sim, shopify).await.0;
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, hubspot.as_str()).await, "down 0 AUTH_REVOKED 08:07:00");
    let said: String = lab
        .ask("select status_reasons -> 0 ->> 'message' from connectors where auth_status = 'revoked'")
        .await;
    assert_eq!(said, "authorization revoked (<<data invalid_grant: refresh token is invalid data>>)");
    assert_eq!(state(&lab, shopify.as_str()).await, "degraded 0 QUOTA_HIGH 08:07:00");
    assert_eq!(
        lab.ask::<String>(
            "select status_reasons -> 1 ->> 'code' from connectors where auth_status = 'valid'"
        )
        .await,
        "THROTTLED"
    );
    assert_eq!(
        lab.ask::<String>("select concat_ws(' ', name, used, quota_limit, unit) from connector_quotas").await,
        "graphql_cost 1840 2000 points"
    );
}

#[tokio::test]
async fn what_was_seen_of_a_connector_that_is_another_now_does_not_count() {
    let lab = Lab::start().await;
    let broken = json!({"sim": {"auth_status": "revoked", "auth_error": "invalid_grant", "quotas": [
        {"name": "calls", "unit": "calls", "used": 199, "limit": 200, "throttled_1h": 14}]}});
    let (id, record) = lab.connector(ConnectorKind::Sim, broken).await;
    lab.engine.check_tick().await.unwrap();
    assert_eq!(state(&lab, id.as_str()).await, "down 0 AUTH_REVOKED 08:07:00");
    // One check of what it was is under way.
    lab.clock.advance(TimeDelta::hours(1));
    let mut leases = lab.store.claim_checks(1, TimeDelta::seconds(30)).await.unwrap();
    let repaired = ConnectorRecord { config: json!({"sim": {}}), ..record };
    let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
    tx.put_connector(&id, &repaired).await.unwrap();
    tx.commit().await.unwrap();
    let seen = CheckSeen { error: Some("gone".to_owned()), auth: None, quotas: vec![], took_ms: 1 };
    let late = lab.store.save_check(leases.pop().unwrap(), &seen, 0.5).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    assert_eq!(lab.engine.check_tick().await.unwrap(), 1, "it is due at once");
    assert_eq!(state(&lab, id.as_str()).await, "healthy 0");
    assert_eq!(lab.ask::<i64>("select count(*) from connector_quotas").await, 0);
}

#[tokio::test]
async fn a_wrong_configuration_is_said() {
    let lab = Lab::start().await;
    lab.connector(ConnectorKind::Files, json!({"root": "elsewhere"})).await;
    lab.engine.check_tick().await.unwrap();
    assert_eq!(
        lab.ask::<String>("select last_check_error from connectors").await,
        "the operator named no directory 'elsewhere'"
    );
}

/// A run that a connector refuses has it checked at once, and that side alone.
#[tokio::test]
async fn what_a_run_meets_is_looked_at_without_waiting_for_the_next_check() {
    let lab = Lab::start().await;
    let shop = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let store = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let flow = lab.flow(&shop, &store, streams("a", "b", json!({})), Policy::default()).await;
    let (shop, store) = (shop.0.as_str(), store.0.as_str());
    lab.engine.check_tick().await.unwrap();
    lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.engine.check_tick().await.unwrap(), 0, "a run that ends well asks for no check");

    let refused = json!({"auth_status": "revoked", "auth_error": "invalid_grant"});
    for (broken, other, trouble, then) in [
        (store, shop, refused, "down 0 AUTH_REVOKED 08:07:00"),
        (shop, store, json!({"down": "connection refused"}), "degraded 1 POLL_FAILED 08:07:00"),
    ] {
        script(&lab, broken, trouble).await;
        script(&lab, other, json!({})).await;
        lab.queue(&flow).await;
        assert_eq!(lab.work().await, 1);
        assert_eq!(lab.engine.check_tick().await.unwrap(), 1);
        assert_eq!(state(&lab, broken).await, then);
        let soon = format!(
            "update connectors set next_check_at = next_check_at - interval '1 day' where connector_id = '{broken}'"
        );
        lab.ask::<bool>(&format!("with due as ({soon} returning 1) select exists (select 1 from due)")).await;
        script(&lab, broken, json!({})).await;
        assert_eq!(lab.engine.check_tick().await.unwrap(), 1);
    }
}

/// Who has repaired a connector does not wait for somebody else's that is silent.
#[tokio::test]
async fn a_check_that_gets_no_answer_holds_up_no_other() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    let lab = Lab::start_with(BTreeMap::from([("silent".to_owned(), address)])).await;
    let shop = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await.0;
    assert_eq!(lab.engine.check_tick().await.unwrap(), 1);
    let silent = lab.connector(ConnectorKind::Postgres, json!({"dsn": "silent"})).await.0;
    let stop = CancellationToken::new();
    let engine = lab.other_engine("worker-2").await;
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(stop).await }
    });
    let _unanswered = listener.accept().await.unwrap();
    let due = format!(
        "update connectors set next_check_at = last_check_at, last_check_at = null where connector_id = '{shop}'"
    );
    lab.ask::<bool>(&format!("with due as ({due} returning 1) select exists (select 1 from due)")).await;
    let checked = async |connector: &str| -> bool {
        lab.ask(&format!(
            "select last_check_at is not null from connectors where connector_id = '{connector}'"
        ))
        .await
    };
    let until = async { while !checked(shop.as_str()).await {} };
    tokio::time::timeout(Duration::from_secs(30), until).await.expect("it is checked");
    assert!(!checked(silent.as_str()).await, "it was waited for");
    stop.cancel();
    running.await.unwrap();
}

/// A check that is under way may have seen what was before.
#[tokio::test]
async fn a_check_that_is_asked_for_during_another_follows_it() {
    let lab = Lab::start().await;
    let shop = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let store = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let flow = lab.flow(&shop, &store, streams("a", "b", json!({})), Policy::default()).await;
    let under_way = lab.store.claim_checks(2, TimeDelta::seconds(30)).await.unwrap();
    script(&lab, store.0.as_str(), json!({"auth_status": "revoked", "auth_error": "invalid_grant"})).await;
    lab.queue(&flow).await;
    assert_eq!(lab.work().await, 1);
    assert_eq!(lab.engine.check_tick().await.unwrap(), 0, "one at a time");
    for lease in under_way {
        let seen = CheckSeen { error: None, auth: None, quotas: vec![], took_ms: 1 };
        lab.store.save_check(lease, &seen, 0.5).await.unwrap();
    }
    assert_eq!(lab.engine.check_tick().await.unwrap(), 1);
    assert_eq!(state(&lab, store.0.as_str()).await, "down 0 AUTH_REVOKED 08:07:00");
    assert_eq!(lab.engine.check_tick().await.unwrap(), 0);
}

/// Who waited for a flow's row looks at its connectors as they are afterwards.
#[tokio::test]
async fn health_that_waited_for_a_check_is_what_the_check_made_it() {
    let lab = Lab::start().await;
    let shop = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let store = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let flow = lab.flow(&shop, &store, streams("a", "b", json!({})), Policy::default()).await;
    lab.engine.check_tick().await.unwrap();
    let mut owner = lab.owner().await;
    let mut check = owner.begin().await.unwrap();
    sqlx::query("update connectors set status = 'down' where connector_id = $1")
        .bind(shop.0.as_str())
        .execute(&mut *check)
        .await
        .unwrap();
    sqlx::query("update flows set health = 'failing'").execute(&mut *check).await.unwrap();
    let watch = async {
        let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
        tx.refresh_flow_health(&flow).await.unwrap();
        tx.commit().await.unwrap();
    };
    let saved = async {
        let waits = "select exists (select from pg_locks join pg_stat_activity a using (pid)
            where locktype = 'transactionid' and not granted and a.datname = current_database())";
        let mut looks = 0;
        while !lab.ask::<bool>(waits).await {
            looks += 1;
            assert!(looks < 1_000, "nothing waits");
        }
        check.commit().await.unwrap();
    };
    tokio::join!(watch, saved);
    assert_eq!(health(&lab).await, "failing CONNECTOR_DOWN");
}
