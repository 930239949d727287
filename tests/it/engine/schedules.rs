//! Schedules that fall due.

use apixx_mcp::domain::schedule::Schedule;
use chrono::TimeDelta;
use serde_json::json;

use super::{Lab, Policy};

fn hourly() -> Policy {
    Policy { schedule: Schedule::Interval { seconds: 3_600 }, ..Policy::default() }
}

#[tokio::test]
async fn a_tick_fires_once_however_many_look() {
    let lab = Lab::start().await;
    lab.sim_flow(json!({}), json!({}), hourly()).await;
    let other = lab.other_engine("worker-2").await;
    assert_eq!(lab.engine.schedule_tick().await.unwrap(), 0, "it is not due before nine");
    lab.clock.advance(TimeDelta::minutes(53));
    let (first, second) = tokio::join!(lab.engine.schedule_tick(), other.schedule_tick());
    assert!(first.unwrap() + second.unwrap() >= 1);
    let runs: String =
        lab.ask("select string_agg(concat_ws(' ', status, trigger, scheduled_for), ',') from runs").await;
    assert_eq!(runs, "queued schedule 2026-11-21 09:00:00+00");
    assert_eq!(lab.ask::<String>("select next_run_at::text from flows").await, "2026-11-21 10:00:00+00");
}

#[tokio::test]
async fn after_a_pause_one_run_catches_up() {
    let lab = Lab::start().await;
    lab.sim_flow(json!({}), json!({}), hourly()).await;
    lab.clock.advance(TimeDelta::hours(40));
    assert_eq!(lab.engine.schedule_tick().await.unwrap(), 1);
    assert_eq!(lab.engine.schedule_tick().await.unwrap(), 0);
    assert_eq!(lab.ask::<i64>("select count(*) from runs").await, 1);
    assert_eq!(lab.ask::<String>("select next_run_at::text from flows").await, "2026-11-23 01:00:00+00");
}

#[tokio::test]
async fn a_tick_is_skipped_while_the_run_before_goes_on() {
    let lab = Lab::start().await;
    lab.sim_flow(json!({}), json!({}), hourly()).await;
    lab.clock.advance(TimeDelta::minutes(53));
    lab.engine.schedule_tick().await.unwrap();
    let going = lab.claim().await;
    lab.clock.advance(TimeDelta::hours(1));
    assert_eq!(lab.engine.schedule_tick().await.unwrap(), 1);
    let skipped: String =
        lab.ask("select concat_ws(' ', status, reason_code, scheduled_for, window_at = finished_at) from runs where status = 'skipped'").await;
    assert_eq!(skipped, "skipped PREVIOUS_RUN_ACTIVE 2026-11-21 10:00:00+00 t");
    assert_eq!(
        lab.ask::<i64>(
            "select runs from run_stats where status = 'skipped' and grain = 'hour' and flow_id = ''"
        )
        .await,
        1
    );
    // A skipped run says nothing about the health of its flow.
    assert_eq!(lab.ask::<String>("select health from flows").await, "pending");
    drop(going);
}

#[tokio::test]
async fn a_flow_that_does_not_run_is_noticed() {
    let lab = Lab::start().await;
    lab.sim_flow(json!({}), json!({}), hourly()).await;
    lab.clock.advance(TimeDelta::minutes(53));
    lab.engine.schedule_tick().await.unwrap();
    lab.work().await;
    assert_eq!(lab.ask::<String>("select health from flows").await, "healthy");
    // No scheduler lives; only the lateness tick looks.
    lab.clock.advance(TimeDelta::minutes(80));
    assert_eq!(lab.engine.watch_tick().await.unwrap(), 1);
    assert_eq!(lab.engine.watch_tick().await.unwrap(), 0, "once a minute is enough");
    assert_eq!(
        lab.ask::<String>("select health || ' ' || (health_reasons -> 0 ->> 'code') from flows").await,
        "degraded LATE"
    );
    lab.clock.advance(TimeDelta::hours(3));
    lab.engine.watch_tick().await.unwrap();
    assert_eq!(
        lab.ask::<String>("select health || ' ' || (health_reasons -> 0 ->> 'code') from flows").await,
        "failing STALLED"
    );
}

#[tokio::test]
async fn a_run_that_is_not_kept_any_more_was_one() {
    let lab = Lab::start().await;
    let seldom = Policy { schedule: Schedule::Interval { seconds: 400 * 86_400 }, ..Policy::default() };
    let flow = lab.sim_flow(json!({}), json!({}), seldom).await;
    lab.queue(&flow).await;
    lab.work().await;
    lab.clock.advance(TimeDelta::days(91));
    assert_eq!(lab.engine.purge_tick().await.unwrap(), 1);
    lab.engine.watch_tick().await.unwrap();
    let health = "select health || ' ' || (health_reasons -> 0 ->> 'code') from flows";
    assert_eq!(lab.ask::<String>(health).await, "pending NO_RUN_KEPT");
}

#[tokio::test]
async fn what_outlived_its_time_goes_in_batches() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({"records": 1}), json!({}), Policy::default()).await;
    let old = lab.queue(&flow).await;
    lab.work().await;
    lab.clock.advance(TimeDelta::days(91));
    let new = lab.queue(&flow).await;
    lab.work().await;
    assert_eq!(lab.engine.purge_tick().await.unwrap(), 1);
    let left: Vec<String> = lab.ask("select array_agg(run_id) from runs").await;
    assert_eq!(left, [new.to_string()]);
    let events: i64 = lab.ask(&format!("select count(*) from run_events where run_id = '{old}'")).await;
    assert_eq!(events, 0);
}
