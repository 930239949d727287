//! The queue: who may work on a run, and what becomes of it when they stop.

use std::collections::BTreeSet;

use apixx_mcp::domain::error_class::{ErrorClass, Stage};
use apixx_mcp::domain::failure::Failure;
use apixx_mcp::domain::ids::FlowId;
use apixx_mcp::domain::run::{Records, RunStatus};
use apixx_mcp::domain::schedule::Schedule;
use apixx_mcp::store::customers::Actor;
use apixx_mcp::store::lease_writes::Batch;
use apixx_mcp::store::leases::{Checkpoint, Lease};
use apixx_mcp::store::{Ending, FoundErrors, Sample, Store, StoreError, Tenancy};
use chrono::TimeDelta;
use futures_util::FutureExt;
use serde_json::json;
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use super::{LEASE, Lab, Policy, customer, flow_of, queue, streams};
use apixx_mcp::domain::connector::ConnectorKind;

fn done() -> Ending {
    Ending::Completed { message: "done".to_owned() }
}

fn outage() -> Failure {
    Failure::new(ErrorClass::Unavailable, "503", Stage::Extract, "the shop is down")
}

fn checkpoint(batch: i64) -> Checkpoint {
    Checkpoint { batch, position: Some(json!({ "given": batch })), ..Checkpoint::default() }
}

fn batch(number: i64, records: Records) -> Batch<'static> {
    Batch {
        checkpoint: checkpoint(number),
        records,
        bytes_read: 10,
        bytes_written: 5,
        estimated: Some(100),
        cursor: None,
        errors: FoundErrors::default(),
        event: None,
    }
}

async fn lab_with_a_run() -> (Lab, apixx_mcp::domain::ids::RunId) {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({}), json!({}), Policy::default()).await;
    let run = lab.queue(&flow).await;
    (lab, run)
}

#[tokio::test]
async fn who_pauses_a_flow_cancels_its_runs_that_wait() {
    let lab = Lab::start().await;
    let pause = async |flow: &FlowId| {
        let mut tx = lab.store.begin(&lab.tenancy).await.unwrap();
        let paused = tx.pause_flow(flow, &Actor::Operator("Ana".to_owned()), None).await.unwrap();
        tx.commit().await.unwrap();
        paused
    };
    let fails = json!({"records": 300, "fail_read": {"after": 200, "class": "UNAVAILABLE", "code": "503", "message": "later"}});
    let flow = lab.sim_flow(fails, json!({}), Policy::default()).await;
    let retrying = lab.queue(&flow).await;
    lab.work().await;
    let queued = lab.queue(&flow).await;
    assert_eq!(pause(&flow).await, Some(2));
    assert_eq!(lab.outcome(&retrying).await, "cancelled CANCELLED_BY_USER: 200 200 0 0");
    assert_eq!(lab.outcome(&queued).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    assert_eq!(lab.timeline(&queued).await, ["queued", "cancel_requested", "finished"]);
    lab.clock.advance(TimeDelta::hours(1));
    assert_eq!(lab.work().await, 0);
    assert_eq!(pause(&flow).await, None);
    let going = lab.sim_flow(json!({}), json!({}), Policy::default()).await;
    let run = lab.queue(&going).await;
    let lease = lab.claim().await;
    assert_eq!(pause(&going).await, Some(0), "a run that is going goes on");
    lab.store.finish_run(&lease, &done()).await.unwrap();
    assert_eq!(lab.outcome(&run).await, "succeeded: 0 0 0 0");
}

#[tokio::test]
async fn a_clock_follows_that_of_the_database() {
    let lab = Lab::start().await;
    let before = lab.store.database_time().await.unwrap();
    lab.store.follow_clock().await.unwrap();
    let after = lab.store.database_time().await.unwrap();
    assert!((before..=after).contains(&lab.clock.now()), "{}", lab.clock.now());
}

#[tokio::test]
async fn a_run_is_claimed_once() {
    let (lab, run) = lab_with_a_run().await;
    let (first, second) = tokio::join!(lab.claim_all(5), lab.claim_all(5));
    let mut leases = first;
    leases.extend(second);
    assert_eq!(leases.len(), 1);
    let lease = leases.pop().unwrap();
    assert_eq!((lease.run(), lease.attempt(), lease.max_attempts()), (&run, 1, 3));
    assert_eq!(lab.attempts(&run).await, ["running"]);
}

#[tokio::test]
async fn a_flow_has_one_run_waiting_and_one_going() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({}), json!({}), Policy::default()).await;
    lab.queue(&flow).await;
    assert_eq!(queue(&lab.store, &lab.tenancy, &flow).await, None);
    let first = lab.claim().await;
    lab.queue(&flow).await;
    assert!(lab.claim_all(5).await.is_empty(), "the first one is not done");
    lab.store.finish_run(&first, &done()).await.unwrap();
    let second = lab.claim().await;
    lab.store.finish_run(&second, &done()).await.unwrap();
}

/// A caller who goes away while a transaction begins leaves no connection behind in it.
#[tokio::test]
async fn a_begin_that_is_dropped_leaves_no_transaction_open() {
    let lab = Lab::start().await;
    for polls in 0..60 {
        let mut begin = Box::pin(lab.store.begin(&lab.tenancy));
        for _ in 0..polls {
            if futures_util::poll!(&mut begin).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(begin);
    }
    // Each connection answers once more, after whatever it was left with.
    for _ in 0..8 {
        let all: Vec<_> = (0..4).map(|_| lab.store.database_time()).collect();
        futures_util::future::try_join_all(all).await.unwrap();
    }
    let open = "select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = 'apixx-mcp' and state like 'idle in %'";
    assert_eq!(lab.ask::<i64>(open).await, 0);
}

/// A caller who goes away in the middle of a read gives its connection back; one that was cut is replaced.
#[tokio::test]
async fn a_read_keeps_no_connection() {
    let (lab, run) = lab_with_a_run().await;
    let wait = std::time::Duration::from_secs(10);
    let ids = lab.store.ids().clone();
    let store = Store::connect(&lab.database.server, 1, wait, lab.clock.clone(), ids).await.unwrap();
    let reads = || async { store.read(&lab.tenancy).run_progress(&run).await };
    for polls in 0..60 {
        let mut read = Box::pin(reads());
        for _ in 0..polls {
            if futures_util::poll!(&mut read).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(read);
    }
    assert!(reads().await.unwrap().is_some());
    let mut server = lab.database.server.connect().await.unwrap();
    let cut = "select count(*) filter (where pg_terminate_backend(pid, 10000)) from pg_stat_activity
                where datname = current_database() and usename = current_user and pid <> pg_backend_pid()";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(&mut server).await.unwrap();
    assert!(cut >= 2, "{cut}");
    assert!(reads().await.unwrap_err().is_transient());
    assert!(reads().await.unwrap().is_some());
}

#[tokio::test]
async fn a_stale_worker_changes_nothing() {
    let (lab, run) = lab_with_a_run().await;
    let stale = lab.claim().await;
    lab.clock.advance(LEASE);
    assert_eq!(lab.engine.reap_tick().await.unwrap(), 1);
    let fresh = lab.claim().await;
    assert_eq!(fresh.attempt(), 2);
    let lost = |result: Result<_, StoreError>| matches!(result, Err(StoreError::LeaseLost));
    assert!(lost(lab.store.load_run(&stale).await.map(|_| ())));
    assert!(lost(lab.store.heartbeat(&stale, LEASE).await.map(|_| ())));
    assert!(lost(lab.store.save_batch(&stale, &batch(1, Records::new(5, 5, 0, 0))).await.map(|_| ())));
    assert!(lost(lab.store.finish_run(&stale, &done()).await.map(|_| ())));
    assert_eq!(lab.outcome(&run).await, "running: 0 0 0 0");
    lab.store.finish_run(&fresh, &done()).await.unwrap();
    assert_eq!(lab.outcome(&run).await, "succeeded: 0 0 0 0");
    assert_eq!(lab.attempts(&run).await, ["lost", "succeeded"]);
}

#[tokio::test]
async fn a_heartbeat_keeps_a_run() {
    let (lab, _) = lab_with_a_run().await;
    let lease = lab.claim().await;
    lab.clock.advance(LEASE - TimeDelta::seconds(1));
    assert!(!lab.store.heartbeat(&lease, LEASE).await.unwrap());
    lab.clock.advance(LEASE - TimeDelta::seconds(1));
    assert_eq!(lab.engine.reap_tick().await.unwrap(), 0);
    lab.store.finish_run(&lease, &done()).await.unwrap();
}

#[tokio::test]
async fn a_batch_counts_once() {
    let (lab, run) = lab_with_a_run().await;
    let lease = lab.claim().await;
    let mut first = batch(1, Records::new(10, 7, 2, 1));
    for place in 0..2 {
        let failure = Failure::new(ErrorClass::Reference, "NO_ITEM", Stage::Load, "item 'x' is unknown")
            .at_field("item");
        first.errors.add(failure, |failure| sample(place, &failure.message));
    }
    let standing = lab.store.save_batch(&lease, &first).await.unwrap();
    assert_eq!(standing.records, Records::new(10, 7, 2, 1));
    // The answer was lost on its way; the worker saves again.
    assert_eq!(lab.store.save_batch(&lease, &first).await.unwrap(), standing);
    assert_eq!(lab.outcome(&run).await, "running: 10 7 2 1");
    lab.store.save_batch(&lease, &batch(2, Records::new(5, 5, 0, 0))).await.unwrap();
    let skipped_ahead = lab.store.save_batch(&lease, &batch(9, Records::new(5, 5, 0, 0))).await;
    assert!(matches!(skipped_ahead, Err(StoreError::LeaseLost)));
    let claimed = lab.store.load_run(&lease).await.unwrap();
    assert_eq!(claimed.checkpoint, checkpoint(2));
    lab.store.finish_run(&lease, &done()).await.unwrap();
    assert_eq!(lab.outcome(&run).await, "partial: 15 12 2 1");
    assert_eq!(lab.timeline(&run).await, ["queued", "first_error", "finished"]);
    let errors: (i64, i64) = (
        lab.ask("select sum(count)::bigint from run_error_counts").await,
        lab.ask("select count(*) from run_errors").await,
    );
    assert_eq!(errors, (2, 2));
    let levels: Vec<String> =
        lab.ask("select array_agg(level || '=' || key || ':' || errors order by level) from error_stats where grain = 'day' and level <> 'group'").await;
    assert_eq!(levels, ["all=:2", "class=REFERENCE:2", "code=NO_ITEM:2", "field=item:2"]);
    assert_eq!(lab.ask::<i64>("select count(*) from error_stats where runs = 1").await, 10);
}

fn sample(index: i64, message: &str) -> Sample {
    Sample {
        stream: "a".to_owned(),
        message: message.to_owned(),
        record_key: None,
        record_index: index,
        payload: None,
    }
}

#[tokio::test]
async fn samples_are_capped_and_counts_are_not() {
    let (lab, _) = lab_with_a_run().await;
    let lease = lab.claim().await;
    for number in 1..=3 {
        let mut batch = batch(number, Records::new(60, 0, 60, 0));
        for index in 0..60 {
            let message = format!("'{index}' is no number");
            let failure = Failure::new(ErrorClass::Type, "INVALID_NUMBER", Stage::Transform, &message)
                .at_field("total");
            batch.errors.add(failure, |failure| sample(index, &failure.message));
        }
        lab.store.save_batch(&lease, &batch).await.unwrap();
    }
    lab.store.finish_run(&lease, &done()).await.unwrap();
    assert_eq!(lab.ask::<i64>("select count(*) from run_errors").await, 100);
    assert_eq!(lab.ask::<i64>("select count from run_error_counts").await, 180);
    assert_eq!(lab.ask::<String>("select top_error_class from runs").await, "TYPE");
    assert_eq!(lab.ask::<String>("select message from error_groups").await, "<str> is no number");
}

#[tokio::test]
async fn the_end_of_a_run_is_counted_once() {
    let (lab, run) = lab_with_a_run().await;
    let lease = lab.claim().await;
    lab.store.save_batch(&lease, &batch(1, Records::new(10, 9, 0, 1))).await.unwrap();
    // The answer to the first was lost on its way; the worker says it again.
    for _ in 0..2 {
        assert_eq!(lab.store.finish_run(&lease, &done()).await.unwrap(), RunStatus::Succeeded);
    }
    assert_eq!(lab.timeline(&run).await, ["queued", "finished"]);
    assert_eq!(lab.cancel(&run).await.as_deref(), Some("succeeded"));
    let stats: String =
        lab.ask("select concat_ws(' ', count(*), sum(runs), sum(records_read), sum(records_written)) from run_stats group by grain, flow_id = ''
              having count(*) = 1 and sum(runs) = 1 and sum(records_read) = 10 limit 1").await;
    assert_eq!(stats, "1 1 10 9");
    let flow: String =
        lab.ask("select concat_ws(' ', health, last_run_id, last_success_run_id) from flows").await;
    assert_eq!(flow, format!("healthy {run} {run}"));
    assert_eq!(lab.ask::<i64>("select count(*) from connectors where last_activity_at is not null").await, 2);
    assert!(lab.ask::<bool>("select window_at = finished_at and lease_until is null from runs").await);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_later() {
    let (lab, run) = lab_with_a_run().await;
    let first = lab.claim().await;
    lab.store.save_batch(&first, &batch(1, Records::new(10, 10, 0, 0))).await.unwrap();
    for _ in 0..2 {
        lab.store.retry_run(&first, lab.clock.now() + TimeDelta::seconds(30), &outage()).await.unwrap();
    }
    assert_eq!(lab.timeline(&run).await, ["queued", "retry"]);
    assert!(lab.claim_all(1).await.is_empty(), "it is too early");
    lab.clock.advance(TimeDelta::seconds(30));
    let second = lab.claim().await;
    assert_eq!(second.attempt(), 2);
    assert_eq!(lab.store.load_run(&second).await.unwrap().checkpoint.batch, 1);
    lab.store.save_batch(&second, &batch(2, Records::new(4, 4, 0, 0))).await.unwrap();
    lab.store.finish_run(&second, &done()).await.unwrap();
    assert_eq!(lab.outcome(&run).await, "succeeded: 14 14 0 0");
    assert_eq!(lab.attempts(&run).await, ["failed", "succeeded"]);
    let written: Vec<i64> =
        lab.ask("select array_agg(records_written order by attempt) from run_attempts").await;
    assert_eq!(written, [10, 4]);
}

#[tokio::test]
async fn a_released_run_uses_up_no_attempt() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({}), json!({}), Policy { max_attempts: 1, ..Policy::default() }).await;
    let run = lab.queue(&flow).await;
    for attempt in 1..=3 {
        let lease = lab.claim().await;
        assert_eq!((lease.attempt(), lease.max_attempts()), (attempt, attempt));
        for _ in 0..2 {
            lab.store.release_run(&lease).await.unwrap();
        }
    }
    assert_eq!(lab.work().await, 1);
    assert_eq!(lab.outcome(&run).await, "succeeded: 100 100 0 0");
    assert_eq!(lab.attempts(&run).await, ["released", "released", "released", "succeeded"]);
}

#[tokio::test]
async fn a_run_without_attempts_left_fails_when_its_worker_is_lost() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({}), json!({}), Policy { max_attempts: 1, ..Policy::default() }).await;
    let run = lab.queue(&flow).await;
    let lost = lab.claim().await;
    lab.clock.advance(LEASE);
    let other = lab.other_engine("worker-2").await;
    let (first, second) = tokio::join!(lab.engine.reap_tick(), other.reap_tick());
    assert_eq!(first.unwrap() + second.unwrap(), 1);
    assert_eq!(lab.outcome(&run).await, "failed HEARTBEAT_LOST: 0 0 0 0");
    assert_eq!(lab.attempts(&run).await, ["lost"]);
    assert_eq!(
        lab.ask::<i64>(
            "select sum(runs)::bigint from run_stats where grain = 'day' and status = '' and flow_id <> ''"
        )
        .await,
        1
    );
    assert_eq!(lab.ask::<String>("select health from flows").await, "failing");
    drop(lost);
}

#[tokio::test]
async fn a_run_is_cancelled_wherever_it_is() {
    let (lab, queued) = lab_with_a_run().await;
    assert_eq!(lab.cancel(&queued).await.as_deref(), Some("cancelled"));
    assert_eq!(lab.outcome(&queued).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    assert_eq!(lab.ask::<String>("select reason_message from runs").await, "cancelled by Ana");
    assert_eq!(lab.timeline(&queued).await, ["queued", "cancel_requested", "finished"]);

    let flow = lab.sim_flow(json!({}), json!({}), Policy::default()).await;
    let retrying = lab.queue(&flow).await;
    let lease = lab.claim().await;
    lab.store.retry_run(&lease, lab.clock.now() + TimeDelta::seconds(30), &outage()).await.unwrap();
    assert_eq!(lab.cancel(&retrying).await.as_deref(), Some("cancelled"));
    assert_eq!(lab.attempts(&retrying).await, ["failed"]);

    let running = lab.queue(&flow).await;
    let lease = lab.claim().await;
    assert_eq!(lab.cancel(&running).await.as_deref(), Some("cancelling"));
    assert_eq!(lab.cancel(&running).await.as_deref(), Some("cancelling"));
    assert!(lab.store.heartbeat(&lease, LEASE).await.unwrap());
    assert!(
        lab.store.save_batch(&lease, &batch(1, Records::new(1, 1, 0, 0))).await.unwrap().cancel_requested
    );
    lab.store.finish_run(&lease, &Ending::Cancelled).await.unwrap();
    assert_eq!(lab.outcome(&running).await, "cancelled CANCELLED_BY_USER: 1 1 0 0");

    let orphan = lab.queue(&flow).await;
    let lost = lab.claim().await;
    lab.cancel(&orphan).await;
    lab.clock.advance(LEASE);
    lab.engine.reap_tick().await.unwrap();
    assert_eq!(lab.outcome(&orphan).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    drop(lost);

    let nobody = apixx_mcp::domain::ids::RunId::parse("run_nobody").unwrap();
    assert_eq!(lab.cancel(&nobody).await, None);
}

#[tokio::test]
async fn a_run_asked_to_stop_is_not_tried_again() {
    let (lab, failing) = lab_with_a_run().await;
    let lease = lab.claim().await;
    lab.cancel(&failing).await;
    lab.store.retry_run(&lease, lab.clock.now() + TimeDelta::seconds(30), &outage()).await.unwrap();
    assert_eq!(lab.outcome(&failing).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    assert_eq!(lab.attempts(&failing).await, ["failed"]);

    let flow = lab.sim_flow(json!({}), json!({}), Policy::default()).await;
    let released = lab.queue(&flow).await;
    let lease = lab.claim().await;
    lab.cancel(&released).await;
    lab.store.release_run(&lease).await.unwrap();
    assert_eq!(lab.outcome(&released).await, "cancelled CANCELLED_BY_USER: 0 0 0 0");
    assert_eq!(lab.attempts(&released).await, ["released"]);
    assert!(lab.claim_all(5).await.is_empty());
}

#[tokio::test]
async fn one_broken_flow_holds_up_no_other() {
    let lab = Lab::start().await;
    let hourly = || Policy { schedule: Schedule::Interval { seconds: 3_600 }, ..Policy::default() };
    let broken = lab.sim_flow(json!({}), json!({}), hourly()).await;
    let sound = lab.sim_flow(json!({}), json!({}), hourly()).await;
    let refuse = format!(
        "update flows set health = 'healthy';
         create function refuse() returns trigger language plpgsql as $$
           begin if new.flow_id = '{broken}' then raise 'broken'; end if; return new; end $$;
         create trigger refuse before update of status on runs for each row execute function refuse();
         create trigger refuse before update of next_run_at, health on flows for each row execute function refuse()"
    );
    let [lost, found] = [lab.queue(&broken).await, lab.queue(&sound).await];
    let leases = lab.claim_all(2).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&mut lab.owner().await).await.unwrap();
    lab.clock.advance(LEASE);
    assert_eq!(lab.engine.reap_tick().await.unwrap(), 1);
    assert_eq!(lab.outcome(&lost).await, "running: 0 0 0 0");
    assert_eq!(lab.outcome(&found).await, "retrying: 0 0 0 0");
    drop(leases);

    lab.clock.advance(TimeDelta::hours(3));
    assert_eq!(lab.engine.watch_tick().await.unwrap(), 2);
    let health = |flow: &FlowId| format!("select health from flows where flow_id = '{flow}'");
    assert_eq!(lab.ask::<String>(&health(&broken)).await, "healthy");
    assert_ne!(lab.ask::<String>(&health(&sound)).await, "healthy");

    assert_eq!(lab.engine.schedule_tick().await.unwrap(), 2);
    let skipped: String =
        lab.ask("select string_agg(flow_id, ' ') from runs where trigger = 'schedule'").await;
    assert_eq!(skipped, sound.to_string());
}

#[tokio::test]
async fn a_worker_stops_at_the_next_batch_of_a_cancelled_run() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({"records": 1000}), json!({}), Policy::default()).await;
    let run = lab.queue(&flow).await;
    // The first batch of the run sees the request.
    let mut changes = lab.wakes.changed();
    let stop = CancellationToken::new();
    let watch = async {
        while lab.ask::<i64>("select records_read from runs").await == 0 {
            changes.changed().await.unwrap();
        }
        lab.cancel(&run).await
    };
    let (worked, cancelled) = tokio::join!(lab.engine.worker().tick(&stop), watch);
    assert_eq!(worked.unwrap(), 1);
    let outcome = lab.outcome(&run).await;
    match cancelled.as_deref() {
        Some("cancelling") => assert!(outcome.starts_with("cancelled CANCELLED_BY_USER: "), "{outcome}"),
        other => assert_eq!(other, Some("succeeded"), "the run was faster than the request"),
    }
}

#[tokio::test]
async fn customers_share_the_workers_and_keep_to_their_plans() {
    let lab = Lab::start().await;
    let other = customer(&lab.store, "small", "free").await;
    let connector = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    for _ in 0..10 {
        let flow = lab.flow(&connector, &connector, streams("a", "b", json!({})), Policy::default()).await;
        lab.queue(&flow).await;
    }
    let small = {
        let mut tx = lab.store.begin(&other).await.unwrap();
        tx.put_connector(&connector.0, &connector.1).await.unwrap();
        tx.commit().await.unwrap();
        connector.clone()
    };
    for _ in 0..5 {
        let flow =
            flow_of(&lab.store, &other, &small, &small, streams("a", "b", json!({})), Policy::default())
                .await;
        queue(&lab.store, &other, &flow).await.unwrap();
    }
    let owners = |leases: &[Lease]| {
        let small = leases.iter().filter(|lease| lease.tenancy().customer() == other.customer()).count();
        (leases.len() - small, small)
    };
    let first = lab.claim_all(4).await;
    assert_eq!(owners(&first), (2, 2), "nobody waits behind the other's ten");
    let rest = lab.claim_all(20).await;
    assert_eq!(owners(&rest), (8, 0), "a free plan runs two at once");
    for lease in first.into_iter().chain(rest) {
        lab.store.finish_run(&lease, &done()).await.unwrap();
    }
    assert_eq!(owners(&lab.claim_all(20).await), (0, 2));
}

/// A customer with so many flows, each with a run that waits.
async fn waiting(lab: &Lab, slug: &str, plan: &str, flows: usize) -> Tenancy {
    let tenancy = customer(&lab.store, slug, plan).await;
    let connector = lab.connector(ConnectorKind::Sim, json!({"sim": {}})).await;
    let mut tx = lab.store.begin(&tenancy).await.unwrap();
    tx.put_connector(&connector.0, &connector.1).await.unwrap();
    tx.commit().await.unwrap();
    for _ in 0..flows {
        let definition = streams("a", "b", json!({}));
        let flow = flow_of(&lab.store, &tenancy, &connector, &connector, definition, Policy::default()).await;
        queue(&lab.store, &tenancy, &flow).await.unwrap();
    }
    tenancy
}

/// A claim locks a run of one customer more than it takes.
#[tokio::test]
async fn who_pauses_a_flow_waits_for_the_claim_that_may_take_its_run() {
    let lab = Lab::start().await;
    let both = [waiting(&lab, "a", "team", 1).await, waiting(&lab, "b", "team", 1).await];
    let (mut owner, mut onlooker) = (lab.owner().await, lab.owner().await);
    let mut claim = owner.begin().await.unwrap();
    let claimed: String = sqlx::query_scalar("select customer_id from claim_runs('w', $1, $1, 1, '')")
        .bind(lab.clock.now())
        .fetch_one(&mut *claim)
        .await
        .unwrap();
    let other = both.iter().find(|tenancy| tenancy.customer().as_str() != claimed).unwrap();
    let flow = format!("select flow_id from flows where customer_id = '{}'", other.customer().as_str());
    let flow = FlowId::parse(&lab.ask::<String>(&flow).await).unwrap();
    let pause = async {
        let mut tx = lab.store.begin(other).await.unwrap();
        let paused = tx.pause_flow(&flow, &Actor::Operator("Ana".to_owned()), None).await.unwrap();
        tx.commit().await.unwrap();
        paused
    };
    let commit = async {
        let waiting = "select exists (select 1 from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database()))";
        let mut looks = 0;
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut onlooker).await.unwrap() {
            looks += 1;
            assert!(looks < 10_000, "the pause does not wait");
        }
        claim.commit().await.unwrap();
    };
    let (paused, ()) = tokio::join!(pause, commit);
    assert_eq!(paused, Some(1));
    assert!(lab.claim_all(5).await.is_empty(), "no run of a paused flow starts");
}

#[tokio::test]
async fn a_plan_holds_however_many_claim_at_once() {
    let lab = Lab::start().await;
    let customers = [
        (waiting(&lab, "one", "free", 6).await, 2),
        (waiting(&lab, "two", "team", 7).await, 5),
        (waiting(&lab, "three", "business", 9).await, 9),
    ];
    let mut leases = Vec::new();
    loop {
        let claims = (0..8).map(|_| lab.claim_all(3));
        let claimed: Vec<Lease> =
            futures_util::future::join_all(claims).await.into_iter().flatten().collect();
        if claimed.is_empty() {
            break;
        }
        leases.extend(claimed);
    }
    for (tenancy, allowed) in &customers {
        let theirs = leases.iter().filter(|lease| lease.tenancy().customer() == tenancy.customer());
        assert_eq!(theirs.count(), *allowed);
    }
    assert_eq!(leases.len(), 16);
}

#[tokio::test]
async fn nobody_is_second_before_everybody_was_first() {
    let lab = Lab::start().await;
    for slug in ["a", "b", "c", "d", "e", "f"] {
        waiting(&lab, slug, "team", 3).await;
    }
    for most in [1, 2, 3] {
        let mut served = BTreeSet::new();
        let mut leases = Vec::new();
        for _ in 0..6 / most {
            leases.extend(lab.claim_all(most).await);
        }
        served.extend(leases.iter().map(|lease| lease.tenancy().customer().to_string()));
        assert_eq!((leases.len(), served.len()), (6, 6), "{most} at a time");
        for lease in &leases {
            lab.store.finish_run(lease, &done()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn customers_whose_runs_wait_for_later_are_not_locked() {
    let lab = Lab::start().await;
    for slug in ["a", "b", "c"] {
        waiting(&lab, slug, "team", 1).await;
    }
    for lease in lab.claim_all(3).await {
        lab.store.retry_run(&lease, lab.clock.now() + TimeDelta::hours(1), &outage()).await.unwrap();
    }
    let mut owner = lab.owner().await;
    let mut tx = owner.begin().await.unwrap();
    let claimed: i64 = sqlx::query_scalar("select count(*) from claim_runs('w', $1, $1, 4, '')")
        .bind(lab.clock.now())
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let locks: i64 = sqlx::query_scalar(
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    assert_eq!((claimed, locks), (0, 0));
}

#[tokio::test]
async fn an_engine_that_stops_gives_its_runs_back() {
    let lab = Lab::start().await;
    let flow = lab.sim_flow(json!({"records": 10}), json!({}), Policy::default()).await;
    let run = lab.queue(&flow).await;
    let stop = CancellationToken::new();
    stop.cancel();
    // What is claimed when the process ends goes back untouched.
    assert_eq!(lab.engine.worker().tick(&stop).await.unwrap(), 1);
    assert_eq!(lab.attempts(&run).await, ["released"]);

    let stop = CancellationToken::new();
    let engine = lab.other_engine("worker-2").await;
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(stop).await }
    });
    let mut changes = lab.wakes.changed();
    while lab.outcome(&run).await != "succeeded: 10 10 0 0" {
        changes.changed().await.unwrap();
    }
    assert_eq!(lab.ask::<i64>("select count(*) from workers where worker_id = 'worker-2'").await, 1);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(lab.ask::<i64>("select count(*) from workers").await, 0);
}

#[tokio::test]
async fn a_process_hears_of_runs_that_another_one_queued() {
    let lab = Lab::start().await;
    let here = apixx_mcp::store::Wakes::default();
    let stop = CancellationToken::new();
    let relays = [lab.wakes.clone(), here.clone()].map(|wakes| {
        let (options, stop) = (lab.database.server.clone(), stop.clone());
        tokio::spawn(async move { wakes.relay(options, stop).await })
    });
    // Told again until it is heard: the other one may not be listening yet.
    let mut told = 0;
    while here.queued().now_or_never().is_none() {
        told += 1;
        assert!(told < 100_000, "nobody hears");
        lab.wakes.run_queued();
        lab.ask::<i32>("select 1").await;
    }
    stop.cancel();
    for relay in relays {
        relay.await.unwrap();
    }
}
