//! The ordinary past of a flow: a run at every tick of its schedule.

use chrono::{DateTime, Datelike, TimeDelta, Utc, Weekday};
use chrono_tz::Tz;

use super::dice::Dice;
use super::times::Times;
use crate::domain::connector::{AuthStatus, ConnectorStatus};
use crate::domain::health::{ConnectorCheck, connector_status};
use crate::domain::run::{ReasonCode, RunStatus, Trigger, open_window};
use crate::domain::schedule::Schedule;
use crate::store::checks::QuotaSeen;
use crate::store::past::{PastCheck, PastErrors, PastEvent, PastRun, WORKER};

/// Days of history.
pub(super) const DAYS: i64 = 30;

/// How a flow usually goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// The flow.
    pub flow: &'static str,
    /// The connector it reads.
    pub source: &'static str,
    /// The connector it writes.
    pub destination: &'static str,
    /// The version that all its runs had, unless told otherwise.
    pub version: i32,
    /// Records of a usual run.
    pub records: f64,
    /// How much that varies (log-normal).
    pub sigma: f64,
    /// Share of a working day's records that a day of the weekend has.
    pub weekend: f64,
    /// Share of the records that are filtered out or unchanged.
    pub skipped: f64,
    /// Seconds of a usual run.
    pub seconds: f64,
    /// Bytes of a record.
    pub bytes: i64,
}

/// Every tick of `schedule` from `from` on and before `until`.
pub(super) fn ticks(schedule: &Schedule, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    std::iter::successors(schedule.next_after(from), |tick| schedule.next_after(*tick))
        .take_while(|tick| *tick < until)
        .collect()
}

impl Habit {
    /// The run that answered `tick`, as runs of this flow usually go.
    pub(super) fn run(&self, tick: DateTime<Utc>, zone: Tz) -> PastRun {
        let mut dice = Dice::of(self.flow, tick);
        let weekend = matches!(tick.with_timezone(&zone).weekday(), Weekday::Sat | Weekday::Sun);
        let shape = if weekend { self.weekend } else { 1.0 };
        let read = (self.records * shape * dice.factor(self.sigma)).round() as i64;
        let skipped = (read as f64 * self.skipped * dice.factor(0.2)).round() as i64;
        let started = tick + TimeDelta::seconds(dice.between(1, 3));
        let seconds = self.seconds * dice.factor(0.04);
        let mut run = PastRun {
            run_id: dice.run_id(tick),
            flow_id: self.flow,
            flow_version: self.version,
            source_connector_id: self.source,
            destination_connector_id: self.destination,
            origin: "native",
            status: RunStatus::Succeeded,
            reason_code: None,
            reason_message: None,
            trigger: Trigger::Schedule,
            triggered_by: None,
            trigger_note: None,
            scheduled_for: Some(tick),
            queued_at: tick,
            available_at: tick,
            started_at: Some(started),
            finished_at: None,
            window_at: open_window(),
            phase: None,
            attempt: 1,
            max_attempts: 3,
            priority: 100,
            worker_id: WORKER,
            records_read: 0,
            records_written: 0,
            records_failed: 0,
            records_skipped: 0,
            records_unchanged: 0,
            records_estimated: None,
            bytes_read: 0,
            bytes_written: 0,
            error_groups: 0,
            events: Vec::new(),
            errors: Vec::new(),
        };
        self.count(&mut run, [read, read - skipped, 0, skipped]);
        end(&mut run, started + TimeDelta::milliseconds((seconds * 1_000.0) as i64));
        run
    }

    /// Makes the counts of a run those given: read, written, failed, skipped.
    pub(super) fn count(&self, run: &mut PastRun, [read, written, failed, skipped]: [i64; 4]) {
        run.records_read = read;
        run.records_written = written;
        run.records_failed = failed;
        run.records_skipped = skipped;
        run.bytes_read = read * self.bytes;
        run.bytes_written = written * self.bytes;
    }

    /// A tick that was passed over because the run before it was still going.
    pub(super) fn skipped(&self, tick: DateTime<Utc>, zone: Tz) -> PastRun {
        let mut run = self.run(tick, zone);
        self.count(&mut run, [0; 4]);
        run.status = RunStatus::Skipped;
        run.reason_code = Some(ReasonCode::PreviousRunActive);
        run.reason_message = Some("the run before it had not ended".to_owned());
        run.attempt = 0;
        run.started_at = None;
        end(&mut run, tick);
        run
    }
}

/// Ends a run at `at`.
pub(super) fn end(run: &mut PastRun, at: DateTime<Utc>) {
    run.finished_at = Some(at);
    run.window_at = at;
}

/// Ends a run as failed.
pub(super) fn fail(run: &mut PastRun, reason: ReasonCode, message: &str, at: DateTime<Utc>) {
    run.status = RunStatus::Failed;
    run.reason_code = Some(reason);
    run.reason_message = Some(message.to_owned());
    end(run, at);
}

/// Records of a run that went through are rejected instead.
pub(super) fn reject(run: &mut PastRun, errors: PastErrors) {
    run.records_written -= errors.count;
    run.records_failed += errors.count;
    run.bytes_written = run.bytes_written.min(run.bytes_read);
    if run.status == RunStatus::Succeeded {
        run.status = RunStatus::Partial;
    }
    run.errors.push(errors);
}

/// Writes the timeline of a run that has none, from what is known of it.
pub(super) fn tell(run: &mut PastRun) {
    if !run.events.is_empty() {
        return;
    }
    let mut tell = |at, kind, message| run.events.push(PastEvent { at, kind, message });
    if run.status == RunStatus::Skipped {
        return tell(run.queued_at, "skipped", "skipped: the run before it had not ended".to_owned());
    }
    let by = run.triggered_by.map(|by| format!(" by {by}")).unwrap_or_default();
    tell(run.queued_at, "queued", format!("queued ({}{by})", run.trigger));
    if let Some(started) = run.started_at {
        tell(started, "claimed", "a worker took it (attempt 1)".to_owned());
    }
    if let Some(errors) =
        run.errors.iter().min_by_key(|errors| errors.first_at).filter(|_| run.records_failed > 0)
    {
        tell(errors.first_at, "first_error", format!("first error: {}", errors.message));
    }
    if let Some(finished) = run.finished_at {
        let why = match (run.reason_code, &run.reason_message) {
            (Some(code), Some(message)) => format!(" ({code}: {message})"),
            _ => String::new(),
        };
        let [read, written, failed, skipped] =
            [run.records_read, run.records_written, run.records_failed, run.records_skipped];
        let counts = format!("{read} read, {written} written, {failed} rejected, {skipped} skipped");
        tell(finished, "finished", format!("{}{why}; {counts}", run.status));
    }
}

/// A connector that answered its last check, so many seconds ago.
pub(super) fn checked(
    times: &Times,
    connector: &'static str,
    seconds_ago: i64,
    took_ms: i32,
    quotas: Vec<QuotaSeen>,
) -> PastCheck {
    let at = times.now - TimeDelta::seconds(seconds_ago);
    PastCheck {
        connector,
        auth_status: AuthStatus::Valid,
        auth_error: None,
        auth_expires_at: None,
        at,
        took_ms,
        next_at: at + TimeDelta::seconds(300),
        status: ConnectorStatus::Unknown,
        reasons: Vec::new(),
        since: times.now - TimeDelta::days(DAYS),
        quotas,
    }
}

/// Gives a check the status that follows from what it found.
pub(super) fn judge(check: &mut PastCheck) {
    let found = ConnectorCheck {
        auth_status: check.auth_status,
        auth_error: check.auth_error.map(str::to_owned),
        consecutive_failures: 0,
        last_error: None,
        quotas: check.quotas.iter().map(|quota| (quota.name.clone(), quota.used, quota.limit)).collect(),
        throttled_1h: check.quotas.iter().map(|quota| quota.throttled_1h).sum(),
    };
    (check.status, check.reasons) = connector_status(&found);
    check.reasons.iter_mut().for_each(|reason| reason.since = Some(check.since));
}
