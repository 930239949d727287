//! Acme Retail's story: a revoked authorization this morning, a bad mapping yesterday, a month of ordinary
//! days before.

mod errors;
mod incident;
mod standing;

use chrono::{DateTime, TimeDelta, Utc};

use super::past::{DAYS, Habit, end, fail, tell, ticks};
use super::times::Times;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::run::{ReasonCode, RunStatus, Trigger, open_window};
use crate::domain::schedule::Schedule;
use crate::store::definitions::StoredFlow;
use crate::store::past::{History, PastErrors, PastRun, PastSample};
use errors::{errors_of_contacts, errors_of_orders};
use incident::incident;
use standing::{checks, deeds, flow};

const ANA: &str = "Ana Ruiz";
const JONAS: &str = "Jonas Weber";
const PRIYA: &str = "Priya Nair";

const CONTACTS: &str = "flow_hubspot_contacts";
const DEALS: &str = "flow_hubspot_deals";
const COMPANIES: &str = "flow_hubspot_companies";
const ORDERS: &str = "flow_shopify_orders";
const ACCOUNTS: &str = "flow_salesforce_accounts";
const INVOICES: &str = "flow_netsuite_invoices";
const CUSTOMERS: &str = "flow_shopify_customers";
const ORDER_LINES: &str = "flow_order_lines";
const INVENTORY: &str = "flow_inventory";
const LEAD_SCORES: &str = "flow_lead_scores";
const LOYALTY: &str = "flow_loyalty_tags";

const REVOKED: &str = "invalid_grant: refresh token is invalid or revoked";

/// How Acme's flows usually go.
const HABITS: [Habit; 11] = [
    habit(CONTACTS, ["con_hubspot", "con_salesforce"], 12, [420.0, 0.12, 0.5, 0.06], 45.0, 640),
    habit(DEALS, ["con_hubspot", "con_snowflake"], 3, [310.0, 0.15, 0.4, 0.04], 38.0, 420),
    habit(COMPANIES, ["con_hubspot", "con_netsuite"], 2, [95.0, 0.18, 0.4, 0.10], 21.0, 510),
    habit(ORDERS, ["con_shopify", "con_netsuite"], 8, [430.0, 0.10, 1.15, 0.011], 70.0, 2_680),
    habit(ACCOUNTS, ["con_salesforce", "con_snowflake"], 4, [1_240.0, 0.05, 0.8, 0.02], 130.0, 380),
    habit(INVOICES, ["con_netsuite", "con_snowflake"], 5, [8_350.0, 0.06, 0.45, 0.0], 388.0, 540),
    habit(CUSTOMERS, ["con_shopify", "con_snowflake"], 3, [52_300.0, 0.01, 1.0, 0.03], 1_330.0, 460),
    habit(ORDER_LINES, ["con_ordersdb", "con_snowflake"], 2, [12_500.0, 0.14, 1.1, 0.0], 215.0, 210),
    habit(INVENTORY, ["con_netsuite", "con_ordersdb"], 6, [900.0, 0.06, 0.9, 0.22], 250.0, 180),
    habit(LEAD_SCORES, ["con_snowflake", "con_salesforce"], 2, [2_600.0, 0.07, 0.9, 0.30], 165.0, 150),
    habit(LOYALTY, ["con_loyalty", "con_shopify"], 1, [7_100.0, 0.04, 1.0, 0.15], 540.0, 120),
];

const fn habit(
    flow: &'static str,
    [source, destination]: [&'static str; 2],
    version: i32,
    [records, sigma, weekend, skipped]: [f64; 4],
    seconds: f64,
    bytes: i64,
) -> Habit {
    Habit { flow, source, destination, version, records, sigma, weekend, skipped, seconds, bytes }
}

/// What Acme lived through before now, with its flows as they are defined.
pub(super) fn history(times: &Times, flows: &[StoredFlow]) -> History {
    let mut history = History { deeds: deeds(times), checks: checks(times), ..History::default() };
    for stored in flows {
        let habit = HABITS.iter().find(|habit| habit.flow == stored.id.as_str());
        let (runs, next) =
            habit.map_or_else(Default::default, |habit| past(times, habit, &stored.record.schedule));
        history.runs.extend(runs);
        history.flows.extend(flow(times, stored, next));
        if stored.id.as_str() == ORDERS {
            history.cleared.push((stored.id.clone(), times.at(1, [14, 0, 0]), times.at(1, [15, 16, 0])));
        }
    }
    history.runs.extend(waiting(times));
    history.runs.iter_mut().for_each(tell);
    history.runs.sort_by(|a, b| (a.queued_at, &a.run_id).cmp(&(b.queued_at, &b.run_id)));
    history
}

/// The runs of one flow, and when it runs next.
fn past(times: &Times, habit: &Habit, schedule: &Schedule) -> (Vec<PastRun>, Option<DateTime<Utc>>) {
    let until = if habit.flow == LOYALTY { paused(times) } else { times.now };
    let ticks = ticks(schedule, times.now - TimeDelta::days(DAYS), until);
    let mut runs: Vec<PastRun> = ticks.iter().map(|tick| habit.run(*tick, times.zone)).collect();
    match habit.flow {
        CONTACTS | DEALS | COMPANIES => revoke(times, habit, &mut runs),
        ORDERS => incident(times, habit, &mut runs),
        _ => {}
    }
    mishaps(times, habit, &mut runs);
    // A run that would still be going has not begun yet: the schedule is about to start it.
    runs.retain(|run| run.finished_at.is_some_and(|finished| finished < times.now));
    if habit.flow == INVENTORY {
        go(times, habit, &mut runs);
    }
    match habit.flow {
        ORDERS => errors_of_orders(times, habit, &mut runs),
        CONTACTS => errors_of_contacts(&mut runs),
        INVOICES => last_night(habit, runs.last_mut()),
        _ => {}
    }
    let last = runs.iter().filter_map(|run| run.scheduled_for).max();
    let next = last.and_then(|last| schedule.next_after(last)).or_else(|| schedule.next_after(times.now));
    (runs, next.filter(|_| habit.flow != LOYALTY))
}

fn paused(times: &Times) -> DateTime<Utc> {
    times.at(9, [16, 40, 0])
}

/// Since its authorization was revoked, every run that reads HubSpot fails before the first record.
fn revoke(times: &Times, habit: &Habit, runs: &mut [PastRun]) {
    for run in runs.iter_mut().filter(|run| run.queued_at >= times.revoked()) {
        // Always the same few seconds, so that any hour has exactly one of them.
        let (started, finished) =
            (run.queued_at + TimeDelta::seconds(1), run.queued_at + TimeDelta::seconds(4));
        run.started_at = Some(started);
        habit.count(run, [0; 4]);
        fail(run, ReasonCode::AuthExpired, REVOKED, finished);
        run.errors.push(PastErrors {
            class: ErrorClass::Auth,
            code: "AUTH_EXPIRED",
            stage: Stage::Extract,
            field: None,
            message: REVOKED.to_owned(),
            count: 1,
            first_at: finished,
            last_at: finished,
            samples: vec![PastSample {
                at: finished,
                message: REVOKED.to_owned(),
                record_key: None,
                payload: None,
            }],
        });
    }
}

/// The invoices of last night, which people ask for.
fn last_night(habit: &Habit, run: Option<&mut PastRun>) {
    if let Some(run) = run {
        habit.count(run, [8_412, 8_412, 0, 0]);
        if let Some(started) = run.started_at {
            end(run, started + TimeDelta::seconds(391));
        }
    }
}

/// What went wrong on single days long ago.
fn mishaps(times: &Times, habit: &Habit, runs: &mut [PastRun]) {
    let on_day = |runs: &[PastRun], days: i64| {
        let from = times.now - TimeDelta::days(days) - TimeDelta::hours(6);
        runs.iter().position(|run| run.queued_at >= from)
    };
    let days = |table: &'static [(&str, i64)]| {
        table.iter().filter(|(flow, _)| *flow == habit.flow).map(|(_, days)| *days).collect::<Vec<_>>()
    };
    let mut timed_out = |days: i64, seconds: i64, share: i64| {
        let Some(run) = on_day(runs, days).and_then(|n| runs.get_mut(n)) else { return };
        let read = run.records_read * share / 100;
        habit.count(run, [read, read, 0, 0]);
        let started = run.started_at.unwrap_or(run.queued_at);
        let message = format!("it took longer than the {} min that the flow allows", seconds / 60);
        fail(run, ReasonCode::Timeout, &message, started + TimeDelta::seconds(seconds));
    };
    for day in days(&[(ORDER_LINES, 8), (ORDER_LINES, 28)]) {
        timed_out(day, 1_500, 64);
    }
    for day in days(&[(ACCOUNTS, 11), (LEAD_SCORES, 15), (LEAD_SCORES, 24)]) {
        timed_out(day, 3_600, 30);
    }
    for day in days(&[(CUSTOMERS, 19)]) {
        timed_out(day, 7_200, 88);
    }
    for day in days(&[(ORDER_LINES, 5), (ACCOUNTS, 12)]) {
        let Some(run) = on_day(runs, day).and_then(|n| runs.get_mut(n)) else { continue };
        let read = run.records_read / 3;
        habit.count(run, [read, read, 0, 0]);
        run.status = RunStatus::Cancelled;
        run.reason_code = Some(ReasonCode::CancelledByUser);
        let by = if habit.flow == ORDER_LINES { PRIYA } else { JONAS };
        run.reason_message = Some(format!("{by} asked it to stop"));
        end(run, run.started_at.unwrap_or(run.queued_at) + TimeDelta::seconds(80));
    }
    for day in days(&[(INVENTORY, 3), (INVENTORY, 9), (INVENTORY, 16)]) {
        let Some(n) = on_day(runs, day).filter(|n| n + 1 < runs.len()) else { continue };
        let started = runs[n].started_at.unwrap_or(runs[n].queued_at);
        end(&mut runs[n], started + TimeDelta::seconds(683));
        runs[n + 1] = habit.skipped(runs[n + 1].queued_at, times.zone);
    }
}

/// The run that is going now: the ERP's own scheduler reports it, two fifths done.
fn go(times: &Times, habit: &Habit, runs: &mut Vec<PastRun>) {
    let begun = times.now - TimeDelta::seconds(60);
    let tick =
        ticks(&Schedule::Interval { seconds: 600 }, begun - TimeDelta::seconds(601), begun).into_iter().max();
    let Some(tick) = tick else { return };
    runs.retain(|run| run.scheduled_for != Some(tick));
    let mut run = habit.run(tick, times.zone);
    habit.count(&mut run, [380, 291, 0, 71]);
    run.origin = "ingested";
    run.status = RunStatus::Running;
    run.phase = Some("load");
    run.records_estimated = Some(904);
    run.finished_at = None;
    run.window_at = open_window();
    runs.push(run);
}

/// Two runs that people asked for and no worker has taken yet.
fn waiting(times: &Times) -> Vec<PastRun> {
    let asked = [
        (ORDER_LINES, 18, Trigger::Manual, PRIYA, "after the schema change"),
        (LEAD_SCORES, 7, Trigger::Api, "Airflow", "scores were recomputed"),
    ];
    let run = |(flow, seconds, trigger, by, note)| {
        let habit = HABITS.iter().find(|habit| habit.flow == flow)?;
        let queued = times.now - TimeDelta::seconds(seconds);
        let mut run = habit.run(queued, times.zone);
        habit.count(&mut run, [0; 4]);
        run.status = RunStatus::Queued;
        run.trigger = trigger;
        run.triggered_by = Some(by);
        run.trigger_note = Some(note);
        run.scheduled_for = None;
        run.attempt = 0;
        run.started_at = None;
        run.finished_at = None;
        run.window_at = open_window();
        Some(run)
    };
    asked.into_iter().filter_map(run).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::demo::dice::Dice;
    use crate::domain::definition::FlowDefinition;
    use crate::domain::flow::{FlowState, FlowStatus};
    use crate::domain::health::{ConnectorFacts, DEGRADED_ERROR_RATE, Decided, FlowFacts, flow_health};
    use crate::domain::ids::FlowId;
    use crate::store::definitions::FlowRecord;

    const BERLIN: chrono_tz::Tz = chrono_tz::Europe::Berlin;

    /// The flows of the file, as far as the story asks about them.
    fn flows() -> Vec<StoredFlow> {
        let file: toml::Table = include_str!("../acme.toml").parse().unwrap();
        let flow = |flow: &toml::Value| StoredFlow {
            id: FlowId::parse(flow["id"].as_str().unwrap()).unwrap(),
            version: 1,
            next_run_at: None,
            record: FlowRecord {
                name: flow["name"].as_str().unwrap().to_owned(),
                aliases: vec![],
                description: None,
                state: FlowState::Active,
                owner_email: None,
                tags: vec![],
                source: String::new(),
                destination: String::new(),
                schedule: flow.get("schedule").map_or(Schedule::Manual, |text| {
                    Schedule::parse(text.as_str().unwrap(), BERLIN).unwrap()
                }),
                max_attempts: 3,
                timeout_s: 21_600,
                max_error_rate: 0.1,
                degraded_error_rate: DEGRADED_ERROR_RATE,
                definition: FlowDefinition { streams: vec![] },
            },
        };
        file["flow"].as_array().unwrap().iter().map(flow).collect()
    }

    fn status(history: &History, stored: &StoredFlow, now: DateTime<Utc>) -> FlowStatus {
        let past = history.flows.iter().find(|flow| flow.flow == stored.id).unwrap();
        let mut runs: Vec<&PastRun> =
            history.runs.iter().filter(|run| run.flow_id == stored.id.as_str()).collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.window_at));
        let counts = |run: &&&PastRun| {
            matches!(run.status, RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed)
        };
        let decided = runs.iter().filter(counts).take(20).map(|run| Decided {
            status: run.status,
            reason: run.reason_code,
            message: run.reason_message.clone(),
            finished_at: run.finished_at.unwrap(),
            accepted: run.records_written,
            failed: run.records_failed,
        });
        let took = |run: &&&PastRun| run.finished_at.unwrap() - run.started_at.unwrap();
        let mut good: Vec<_> =
            runs.iter().filter(|run| run.status == RunStatus::Succeeded).take(20).collect::<Vec<_>>();
        good.sort_by_key(took);
        let day = runs.iter().filter(|run| run.finished_at.is_some_and(|at| at > now - TimeDelta::hours(24)));
        let connectors = runs.first().into_iter().flat_map(|run| {
            let sides = [run.source_connector_id, run.destination_connector_id];
            history.checks.iter().filter(move |check| sides.contains(&check.connector))
        });
        let facts = FlowFacts {
            schedule: stored.record.schedule.clone(),
            since: past.state_since,
            last_decided_at: None,
            decided: decided.collect(),
            active_since: runs
                .iter()
                .find(|run| run.status == RunStatus::Running)
                .and_then(|run| run.started_at),
            has_open_run: runs.iter().any(|run| !run.status.is_final()),
            median_ms: good.get(good.len() / 2).map(|run| took(run).num_milliseconds()),
            day: day.fold((0, 0), |(w, f), run| (w + run.records_written, f + run.records_failed)),
            connectors: connectors
                .map(|check| ConnectorFacts {
                    name: check.connector.to_owned(),
                    status: check.status,
                    since: check.since,
                    reason: None,
                })
                .collect(),
            degraded_error_rate: DEGRADED_ERROR_RATE,
        };
        FlowStatus::of(past.state, flow_health(&facts, now).0)
    }

    #[test]
    fn the_story_is_the_same_at_any_time() {
        let flows = flows();
        let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut dice = Dice::of("nows", start);
        for _ in 0..8 {
            // Any second of three years.
            let now = start + TimeDelta::seconds(dice.between(0, 3 * 365 * 86_400));
            let history = history(&Times::new(now, BERLIN), &flows);
            let mut statuses: BTreeMap<FlowStatus, usize> = BTreeMap::new();
            for stored in &flows {
                *statuses.entry(status(&history, stored, now)).or_default() += 1;
            }
            let told = [
                (FlowStatus::Failing, 3),
                (FlowStatus::Degraded, 2),
                (FlowStatus::Pending, 1),
                (FlowStatus::Healthy, 5),
                (FlowStatus::Paused, 1),
            ];
            assert_eq!(statuses, BTreeMap::from(told), "{now}");
            let last_hour =
                |run: &&PastRun| run.window_at >= now - TimeDelta::hours(1) && run.window_at < now;
            let failed = history.runs.iter().filter(last_hour).filter(|run| run.status == RunStatus::Failed);
            assert_eq!(failed.filter(|run| run.source_connector_id == "con_hubspot").count(), 3, "{now}");
            let incident = history.runs.iter().find(|run| run.run_id == "run_abc123").unwrap();
            assert_eq!(incident.errors.iter().map(|errors| errors.count).sum::<i64>(), 1_203);
            assert_eq!(
                incident.queued_at.with_timezone(&BERLIN).date_naive(),
                Times::new(now, BERLIN).today.pred_opt().unwrap()
            );
            for run in &history.runs {
                let [read, written] = [run.records_read, run.records_written];
                assert!(read >= 0 && written >= 0 && run.records_skipped >= 0, "{now} {run:?}");
                assert!(run.finished_at.is_none_or(|finished| finished < now), "{now} {run:?}");
                assert_eq!(run.finished_at.is_none(), run.window_at == open_window(), "{now} {run:?}");
            }
            let ids: std::collections::BTreeSet<&str> =
                history.runs.iter().map(|run| run.run_id.as_str()).collect();
            assert_eq!(ids.len(), history.runs.len(), "{now}");
        }
    }
}
