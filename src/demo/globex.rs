//! Globex's story: two flows that just work.

use chrono::TimeDelta;

use super::past::{DAYS, Habit, checked, judge, tell, ticks};
use super::times::Times;
use crate::domain::flow::FlowState;
use crate::store::checks::QuotaSeen;
use crate::store::definitions::StoredFlow;
use crate::store::past::{History, PastFlow, PastVersion};

const HANK: &str = "Hank Scorpio";
const SALESFORCE: &str = "con_globex_salesforce";
const SNOWFLAKE: &str = "con_globex_snowflake";
const ACCOUNTS: &str = "flow_globex_accounts";
const OPPORTUNITIES: &str = "flow_globex_opportunities";

const HABITS: [Habit; 2] = [
    Habit {
        flow: ACCOUNTS,
        source: SALESFORCE,
        destination: SNOWFLAKE,
        version: 1,
        records: 310.0,
        sigma: 0.09,
        weekend: 0.5,
        skipped: 0.02,
        seconds: 52.0,
        bytes: 360,
    },
    Habit {
        flow: OPPORTUNITIES,
        source: SALESFORCE,
        destination: SNOWFLAKE,
        version: 1,
        records: 145.0,
        sigma: 0.12,
        weekend: 0.4,
        skipped: 0.03,
        seconds: 40.0,
        bytes: 410,
    },
];

/// What Globex lived through before now, with its flows as they are defined.
pub(super) fn history(times: &Times, flows: &[StoredFlow]) -> History {
    let mut history = History::default();
    let before = times.at(DAYS + 11, [10, 20, 0]);
    for stored in flows {
        let Some(habit) = HABITS.iter().find(|habit| habit.flow == stored.id.as_str()) else { continue };
        let schedule = &stored.record.schedule;
        let ticks = ticks(schedule, times.now - TimeDelta::days(DAYS), times.now);
        let mut runs: Vec<_> = ticks.iter().map(|tick| habit.run(*tick, times.zone)).collect();
        runs.retain(|run| run.finished_at.is_some_and(|finished| finished < times.now));
        if let Some(last) = runs.last_mut().filter(|_| habit.flow == ACCOUNTS) {
            last.run_id = "run_globex01".to_owned();
        }
        let last = runs.last().and_then(|run| run.scheduled_for).unwrap_or(times.now);
        history.flows.push(PastFlow {
            flow: stored.id.clone(),
            versions: vec![PastVersion {
                number: 1,
                at: before,
                by: HANK,
                summary: "created",
                definition: stored.record.definition.clone(),
            }],
            state: FlowState::Active,
            state_since: before,
            state_by: None,
            state_reason: None,
            next_run_at: schedule.next_after(last),
        });
        history.runs.extend(runs);
    }
    history.runs.iter_mut().for_each(tell);
    history.runs.sort_by(|a, b| (a.queued_at, &a.run_id).cmp(&(b.queued_at, &b.run_id)));
    let daily = QuotaSeen {
        name: "daily_api_requests".to_owned(),
        unit: "requests".to_owned(),
        used: 8_120,
        limit: 100_000,
        resets_at: Some(times.utc_midnight()),
        throttled_1h: 0,
    };
    history.checks =
        vec![checked(times, SALESFORCE, 80, 230, vec![daily]), checked(times, SNOWFLAKE, 140, 310, vec![])];
    history.checks.iter_mut().for_each(judge);
    history
}
