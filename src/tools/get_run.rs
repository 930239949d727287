//! Answers "how did this run go, and is it done?". Needs the scope `runs:read`.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::{ToolError, run_not_found};
use super::tool::{Answer, Tool};
use crate::domain::ids::RunId;
use crate::domain::run::{Records, RunStatus};
use crate::domain::scope::Scope;
use crate::store::run_detail::{Change, RunDetail, VersionChange};
use crate::view::run::{RunBriefView, RunView};
use crate::view::text::{self, Page};

pub(super) struct GetRun;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    /// Run id, e.g. "run_abc123".
    #[schemars(length(min = 1, max = 64))]
    run_id: String,
    /// Wait up to this long for the run to finish. Use 3 if your client gives up on slow calls, else 20.
    #[serde(default)]
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: u8,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    run: DetailView,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_poll_seconds: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct DetailView {
    #[serde(flatten)]
    run: RunView,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position_in_queue: Option<i64>,
    /// The run of its flow that must end first.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_for: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_wait_ms: Option<i64>,
    bytes_read: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    triggered_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    flow_version: i32,
    changes_since_last_success: Vec<ChangeView>,
    /// Flow versions since then that are older than those listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    older_versions: Option<i32>,
    /// Other changes since then that are older than those listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    older_changes: Option<i64>,
    attempts: Vec<AttemptView>,
    timeline: Vec<EventView>,
    /// Events before those listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    older_events: Option<i32>,
    errors: Vec<ClassView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<RunBriefView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_run: Option<RunBriefView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run: Option<RunBriefView>,
    /// Its page, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// How far a run is.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProgressView {
    processed: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_total: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct ChangeView {
    at: DateTime<Utc>,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct AttemptView {
    attempt: i32,
    status: String,
    started_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
    records_written: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct EventView {
    at: DateTime<Utc>,
    kind: String,
    message: String,
}

#[derive(Serialize, JsonSchema)]
struct ClassView {
    error_class: String,
    count: i64,
}

impl Tool for GetRun {
    const NAME: &'static str = "get_run";
    const TITLE: &'static str = "Get run";
    const DESCRIPTION: &'static str = "Full detail of one run: status and reason, timing (queued, started, finished, duration), \
        record counts, bytes, attempts, timeline, flow version and what changed since the last success, neighbouring runs. To watch \
        a run, pass wait_seconds: the call returns when the run finishes or the time is up; call again until done is true.";
    const SCOPE: Scope = Scope::RunsRead;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let unknown = || run_not_found(&input.run_id, cx.principal.plan().run_retention_days);
        let id = RunId::parse(&input.run_id).map_err(|_| unknown())?;
        if input.wait_seconds > 0 {
            cx.watch(&id, input.wait_seconds).await?;
        }
        let detail = cx.read().run(&id).await?.ok_or_else(unknown)?;
        Ok(told(cx, &detail))
    }
}

fn told(cx: &ToolCx<'_>, detail: &RunDetail) -> Answer<Output> {
    let (now, zone) = (cx.now(), cx.zone());
    let run = &detail.run;
    let view = view(cx, detail);
    let done = run.status.is_final();
    let why = match (run.reason_code, &view.run.reason) {
        (Some(code), Some(reason)) => format!(" ({code}: {reason})"),
        (Some(code), None) => format!(" ({code})"),
        (None, Some(reason)) => format!(" ({reason})"),
        (None, None) => String::new(),
    };
    let summary = format!(
        "{} {}{why} — {}, trigger {}, flow version {}",
        run.id,
        run.status.as_str().to_uppercase(),
        view.run.flow,
        run.trigger,
        run.version
    );
    let next_poll_seconds = (!done).then(|| next_poll(run.duration_ms(now)));
    let mut page = Page::new(&summary);
    page.line(timing(detail, now, zone));
    if let Some(progress) = &view.progress {
        page.line(progress.in_words());
    }
    if let Some(position) = view.position_in_queue {
        page.line(format!("Waiting for a worker: position {position} in this workspace's queue"));
    }
    if let Some(current) = &view.waits_for_run {
        page.line(format!("Waiting for the flow's current run, {current}, to end"));
    }
    let unchanged = match run.records.unchanged {
        0 => String::new(),
        unchanged => format!(" ({} of them unchanged)", text::count(unchanged)),
    };
    page.line(format!(
        "Records: read {} | written {} | failed {} | skipped {}{unchanged}{}. Bytes read {}, written {}",
        text::count(run.records.read),
        text::count(run.records.written),
        text::count(run.records.failed),
        text::count(run.records.skipped),
        run.records
            .error_rate()
            .filter(|rate| *rate > 0.0)
            .map(|rate| format!(" | error rate {}", text::percent(rate)))
            .unwrap_or_default(),
        text::bytes(run.bytes_read),
        text::bytes(run.bytes_written)
    ));
    if done && changed_nothing(&run.records) {
        page.line(NOTHING_CHANGED);
    }
    page.line(format!(
        "{} ({}) → {} ({})",
        view.run.source.in_words(),
        view.run.source.status,
        view.run.destination.in_words(),
        view.run.destination.status
    ));
    let by = view.triggered_by.as_deref().map(|by| format!("Triggered by {by}")).unwrap_or_default();
    let note = view.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
    let retry = view.run.retry_of.as_deref().map(|run| format!(" (retry of {run})")).unwrap_or_default();
    if !by.is_empty() || !retry.is_empty() {
        page.line(format!("{by}{note}{retry}"));
    }
    if !view.errors.is_empty() {
        let errors: Vec<String> = view
            .errors
            .iter()
            .map(|class| format!("{} {}", class.error_class, text::count(class.count)))
            .collect();
        page.line(format!("Errors: {}", errors.join(", ")));
    }
    for (word, neighbour) in [
        ("Last success before", &view.last_success),
        ("Run before", &view.previous_run),
        ("Run after", &view.next_run),
    ] {
        if let Some(neighbour) = neighbour {
            let version =
                neighbour.flow_version.map(|version| format!(", version {version}")).unwrap_or_default();
            page.line(format!(
                "{word}: {}{version}, {} written",
                neighbour.in_words(now, zone),
                text::count(neighbour.records.written)
            ));
        }
    }
    if let Some(url) = &view.url {
        page.line(format!("Page: {url}"));
    }
    write_history(&mut page, &view, run.queued_at, now, zone);
    let mut notices = Vec::new();
    let mut next = Vec::new();
    if let Some(seconds) = next_poll_seconds {
        notices.push(format!("not done yet; call get_run again in {seconds} s, or with wait_seconds."));
        next.push(format!("get_run run_id={} wait_seconds=20", run.id));
    } else if run.records.failed > 0 || run.status == RunStatus::Failed {
        next.push(format!("get_run_errors run_id={}", run.id));
    }
    Answer { page, output: Output { summary, run: view, next_poll_seconds }, notices, next }
}

/// What changed before the run, its attempts and its timeline: as much of each as the page has room for.
fn write_history(page: &mut Page, view: &DetailView, queued_at: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) {
    let changes = view.changes_since_last_success.iter().map(|change| change.in_words(now, zone));
    let older = view.older_versions.map_or(0, i64::from) + view.older_changes.unwrap_or(0);
    let more = rows(page, changes) as i64 + older;
    if more > 0 {
        page.line(format!("… {}", text::counted(more, "more change", "more changes")));
    }
    if view.attempts.len() > 1 {
        let more = rows(page, view.attempts.iter().map(|attempt| attempt.in_words(zone)));
        if more > 0 {
            page.line(format!("… {}", text::counted(more as i64, "more attempt", "more attempts")));
        }
    }
    if !view.timeline.is_empty() {
        let older = view.older_events.map(|older| {
            format!(" ({} left out)", text::counted(older.into(), "earlier event is", "earlier events are"))
        });
        page.line(format!("Timeline{}:", older.unwrap_or_default()));
        let event = |event: &EventView| {
            format!("  {} {}", text::clock_time(event.at, queued_at, zone), event.message)
        };
        let more = rows(page, view.timeline.iter().map(event));
        if more > 0 {
            page.line(format!("… {}", text::counted(more as i64, "more event", "more events")));
        }
    }
}

/// Writes rows while there is room; how many there was none for.
fn rows(page: &mut Page, rows: impl Iterator<Item = String>) -> usize {
    // Lines stand before them: not even the first has a right to a place.
    rows.skip_while(|row| page.row(row, 1)).count()
}

/// What is told of a run that wrote nothing though it had records.
pub(super) const NOTHING_CHANGED: &str = "Nothing changed at the destination.";

/// Whether a run wrote nothing though it had records.
pub(super) fn changed_nothing(records: &Records) -> bool {
    records.written == 0 && records.processed > 0
}

/// Seconds until another look is worth it: soon at first, then less often.
pub(super) fn next_poll(running_ms: Option<i64>) -> u32 {
    match running_ms.unwrap_or(0) {
        ms if ms < 60_000 => 3,
        ms if ms < 600_000 => 10,
        _ => 30,
    }
}

fn view(cx: &ToolCx<'_>, detail: &RunDetail) -> DetailView {
    let (run, now) = (&detail.run, cx.now());
    let open = !run.status.is_final();
    DetailView {
        run: RunView::new(run.clone(), now),
        done: !open,
        phase: run.phase.clone().filter(|_| open),
        progress: (open && run.started_at.is_some())
            .then(|| ProgressView::new(run.records.processed, run.estimated, run.duration_ms(now))),
        position_in_queue: detail.queue_position,
        waits_for_run: detail.waits_for.as_ref().map(ToString::to_string),
        scheduled_for: run.scheduled_for,
        queue_wait_ms: run.started_at.map(|started| (started - run.queued_at).num_milliseconds().max(0)),
        bytes_read: run.bytes_read,
        error_rate: run.records.error_rate(),
        triggered_by: run.triggered_by.as_deref().map(text::named),
        note: run.note.as_deref().map(text::fenced),
        flow_version: run.version,
        changes_since_last_success: changes(&detail.versions, &detail.changes),
        older_versions: Some(detail.versions_unlisted()).filter(|older| *older > 0),
        older_changes: Some(detail.changes_unlisted).filter(|older| *older > 0),
        attempts: detail
            .attempts
            .iter()
            .map(|attempt| AttemptView {
                attempt: attempt.attempt,
                status: attempt.status.clone(),
                started_at: attempt.started_at,
                finished_at: attempt.finished_at,
                records_written: attempt.records_written,
                error_class: attempt.error_class.clone(),
                message: attempt.message.as_deref().map(text::fenced),
            })
            .collect(),
        timeline: detail
            .events
            .iter()
            .map(|event| EventView {
                at: event.at,
                kind: event.kind.clone(),
                message: text::named(&event.message),
            })
            .collect(),
        older_events: Some(detail.events_unlisted()).filter(|older| *older > 0),
        errors: detail
            .errors
            .iter()
            .map(|class| ClassView { error_class: class.key.clone(), count: class.count })
            .collect(),
        last_success: detail
            .last_success
            .as_ref()
            .filter(|_| run.status != RunStatus::Succeeded)
            .map(Into::into),
        previous_run: detail.previous_run.as_ref().map(Into::into),
        next_run: detail.next_run.as_ref().map(Into::into),
        url: cx.page_url(&format!("runs/{}", run.id)),
    }
}

/// New versions and what people did, in the order in which it happened.
fn changes(versions: &[VersionChange], changes: &[Change]) -> Vec<ChangeView> {
    let versions = versions.iter().map(|version| ChangeView {
        at: version.at,
        what: format!("flow version {} → {}", version.version - 1, version.version),
        by: version.by.as_deref().map(text::named),
        message: version.summary.as_deref().map(text::fenced),
    });
    let others = changes.iter().map(|change| ChangeView {
        at: change.at,
        what: change.action.replace(['.', '_'], " "),
        by: change.by.as_deref().map(text::named),
        message: change.message.as_deref().map(text::fenced),
    });
    let mut all: Vec<ChangeView> = versions.chain(others).collect();
    all.sort_by_key(|change| change.at);
    all
}

impl ChangeView {
    fn in_words(&self, now: DateTime<Utc>, zone: Tz) -> String {
        let by = self.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let message = self.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!("Change: {} at {}{by}{message}", self.what, text::moment_and_age(self.at, now, zone))
    }
}

impl AttemptView {
    fn in_words(&self, zone: Tz) -> String {
        let took = self
            .finished_at
            .map(|end| format!(", {}", text::duration((end - self.started_at).num_milliseconds())))
            .unwrap_or_default();
        let class = self.error_class.as_deref().map(|class| format!(" {class}")).unwrap_or_default();
        let message = self.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!(
            "Attempt {}: {}{class}{message} (started {}{took}, {} written)",
            self.attempt,
            self.status,
            text::moment(self.started_at, zone),
            text::count(self.records_written)
        )
    }
}

impl ProgressView {
    /// `processed` of `estimated` records after `running_ms`.
    pub(super) fn new(processed: i64, estimated: Option<i64>, running_ms: Option<i64>) -> Self {
        let percent = estimated
            .filter(|total| *total > 0)
            .map(|total| (processed as f64 * 1000.0 / total as f64).round().min(1000.0) / 10.0);
        let eta_seconds = match (estimated, running_ms) {
            (Some(total), Some(ms)) if processed > 0 && total > processed => {
                Some((ms as f64 * (total - processed) as f64 / processed as f64 / 1000.0).ceil() as i64)
            }
            _ => None,
        };
        Self { processed, estimated_total: estimated, percent, eta_seconds }
    }

    /// How far, in percent, where the source can tell.
    pub(super) fn percent(&self) -> Option<f64> {
        self.percent
    }

    fn in_words(&self) -> String {
        let of =
            self.estimated_total.map(|total| format!(" of about {}", text::count(total))).unwrap_or_default();
        let percent = self.percent.map(|percent| format!(" ({percent:.0} %)")).unwrap_or_default();
        let eta = self
            .eta_seconds
            .map(|seconds| format!(", about {} to go", text::duration(seconds * 1000)))
            .unwrap_or_default();
        format!("Progress: {}{of} records processed{percent}{eta}", text::count(self.processed))
    }
}

fn timing(detail: &RunDetail, now: DateTime<Utc>, zone: Tz) -> String {
    let run = &detail.run;
    let at = |moment: DateTime<Utc>| text::clock_time(moment, run.queued_at, zone);
    let mut parts = Vec::new();
    if let Some(due) = run.scheduled_for {
        parts.push(format!("due {}", at(due)));
    }
    parts.push(format!("queued {}", at(run.queued_at)));
    if let Some(started) = run.started_at {
        parts.push(format!("started {}", at(started)));
    }
    if let Some(finished) = run.finished_at {
        parts.push(format!("finished {}", at(finished)));
    }
    if let Some(duration) = run.duration_ms(now) {
        parts.push(format!(
            "duration {}{}",
            text::duration(duration),
            if run.finished_at.is_none() { " so far" } else { "" }
        ));
    }
    let usual = detail.median_ms.map(|ms| format!(", usually {}", text::duration(ms))).unwrap_or_default();
    format!(
        "Timing on {}: {}{usual}; attempt {} of {}",
        text::day(run.queued_at, zone),
        parts.join(", "),
        run.attempt,
        run.max_attempts
    )
}
