//! Answers "start this flow now". The one tool that changes anything. Needs the scope `sync:trigger`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cx::ToolCx;
use super::error::{ToolError, run_not_found};
use super::find::{self, Found};
use super::get_run::{NOTHING_CHANGED, ProgressView, changed_nothing, next_poll};
use super::tool::{Answer, Tool};
use crate::domain::flow::FlowState;
use crate::domain::run::{Records, RunStatus};
use crate::domain::scope::Scope;
use crate::service::trigger::{self, IfRunning, Outcome, Refusal, Request};
use crate::store::run_detail::RunDetail;
use crate::view::run::records;
use crate::view::text::{self, Page};

pub(super) struct TriggerSync;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Input {
    /// Flow name or id, e.g. "HubSpot → Salesforce contacts" or "flow_01jd…". Case-insensitive; '→', '->' and 'to' are the same; aliases work.
    #[schemars(length(min = 1, max = 200))]
    flow: String,
    /// attach: return the active run. queue: run once more after it. error: fail with ALREADY_RUNNING.
    #[serde(default = "attach")]
    if_running: IfRunning,
    /// Why, for the audit log.
    #[schemars(length(max = 300))]
    reason: Option<String>,
    /// Run id this re-runs, if any.
    #[schemars(length(max = 64))]
    retry_of: Option<String>,
    /// Repeat the same key to get the same run instead of another (24 h).
    #[schemars(length(max = 128))]
    idempotency_key: Option<String>,
    /// Also wait up to this long for it to finish.
    #[serde(default)]
    #[schemars(range(min = 0, max = 50))]
    wait_seconds: u8,
}

fn attach() -> IfRunning {
    IfRunning::Attach
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    summary: String,
    run_id: String,
    flow_id: String,
    flow: String,
    status: String,
    created: bool,
    outcome: String,
    queued_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
    done: bool,
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position_in_queue: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_duration_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_poll_seconds: Option<u32>,
}

impl Tool for TriggerSync {
    const NAME: &'static str = "trigger_sync";
    const TITLE: &'static str = "Trigger a sync";
    const DESCRIPTION: &'static str = "Start an on-demand run of a flow and return its run id. The flow must be named exactly (name, \
        alias or id); near misses are not guessed. If the flow is already running the running run is returned and no second one is \
        started (see if_running). Follow up with get_run. This is the only tool that changes anything.";
    const SCOPE: Scope = Scope::SyncTrigger;
    type Input = Input;
    type Output = Output;

    async fn call(cx: &ToolCx<'_>, input: Input) -> Result<Answer<Output>, ToolError> {
        let found = find::flow_exactly(cx, &input.flow).await?;
        let request = Request {
            flow: found.id.clone(),
            if_running: input.if_running,
            reason: input.reason,
            retry_of: input.retry_of,
            key: input.idempotency_key,
        };
        let triggered = match trigger::trigger(cx.serving, cx.principal, &cx.turn, &request).await {
            Ok(triggered) => triggered,
            Err(refusal) => return Err(refused(cx, &found, &request, refusal)),
        };
        let run = &triggered.run;
        let done = || match triggered.outcome.made_a_run() {
            true => format!("{run} was {}", triggered.outcome),
            false => format!("{run} is the answer, and no new run was started"),
        };
        if input.wait_seconds > 0 {
            cx.watch(run, input.wait_seconds).await.map_err(|error| error.after(done))?;
        }
        let gone = || run_not_found(run.as_str(), cx.principal.plan().run_retention_days);
        let detail = cx.read().run(run).await.map_err(|error| ToolError::from(error).after(done))?;
        let detail = detail.ok_or_else(gone)?;
        Ok(told(cx, &found, &detail, triggered.outcome))
    }
}

fn told(cx: &ToolCx<'_>, found: &Found, detail: &RunDetail, outcome: Outcome) -> Answer<Output> {
    let (run, now) = (&detail.run, cx.now());
    let name = text::named(&found.name);
    let done = run.status.is_final();
    let position = detail.queue_position;
    let usual = detail
        .median_ms
        .map(|ms| format!("; usually takes about {}", text::duration(ms)))
        .unwrap_or_default();
    let place = position.map(|position| format!(", position {position}")).unwrap_or_default();
    let so_far = {
        let progress = ProgressView::new(run.records.processed, run.estimated, run.duration_ms(now));
        let percent = progress.percent().map(|percent| format!(" ({percent:.0} %)")).unwrap_or_default();
        run.duration_ms(now).map(|ms| format!(" since {}{percent}", text::duration(ms))).unwrap_or_default()
    };
    let summary = match outcome {
        Outcome::Started => format!("Started {} of \"{name}\" ({}{place}{usual}).", run.id, run.status),
        Outcome::Queued if detail.waits_for.is_some() => {
            format!("Queued {} of \"{name}\", to run once more after the current run.", run.id)
        }
        Outcome::Queued => {
            format!(
                "{} of \"{name}\" was queued to run once more after the run before it ({}{place}).",
                run.id, run.status
            )
        }
        Outcome::AttachedToRunning if run.status == RunStatus::Running => {
            format!("\"{name}\" is already running as {}{so_far}; no new run was started.", run.id)
        }
        Outcome::AttachedToRunning if done => {
            format!("\"{name}\" was already running as {}; no new run was started.", run.id)
        }
        Outcome::AttachedToRunning => {
            format!(
                "{} of \"{name}\" has not ended yet ({}); no new run was started. if_running=queue runs once more after it.",
                run.id, run.status
            )
        }
        Outcome::AttachedToQueued if run.status != RunStatus::Queued => {
            format!(
                "A run of \"{name}\" was already waiting as {} ({} now); no new run was started.",
                run.id, run.status
            )
        }
        Outcome::AttachedToQueued => {
            format!("A run of \"{name}\" is already waiting as {}{place}; no new run was started.", run.id)
        }
        Outcome::Deduplicated => {
            format!(
                "This idempotency_key was answered before with {} of \"{name}\" ({}); no new run was started.",
                run.id, run.status
            )
        }
    };
    let next_poll_seconds = (!done).then(|| next_poll(run.duration_ms(now)));
    let mut page = Page::new(&summary);
    if done {
        let why =
            run.reason.as_deref().map(|reason| format!(" ({})", text::fenced(reason))).unwrap_or_default();
        let took =
            run.duration_ms(now).map(|ms| format!(" after {}", text::duration(ms))).unwrap_or_default();
        page.line(format!("Finished: {}{why}{took} | {}", run.status, records(&run.records)));
        if changed_nothing(&run.records) {
            page.line(NOTHING_CHANGED);
        }
    }
    let next = if done && run.records.failed > 0 {
        format!("get_run_errors run_id={}", run.id)
    } else if done {
        format!("get_run run_id={}", run.id)
    } else {
        format!("get_run run_id={} wait_seconds=20", run.id)
    };
    let notices = found.notices();
    let output = Output {
        summary,
        run_id: run.id.to_string(),
        flow_id: found.id.to_string(),
        flow: name,
        status: run.status.to_string(),
        created: outcome.made_a_run(),
        outcome: outcome.to_string(),
        queued_at: run.queued_at,
        started_at: run.started_at,
        finished_at: run.finished_at,
        done,
        records: run.records,
        reason_code: run.reason_code.map(|code| code.to_string()),
        reason: run.reason.as_deref().map(text::fenced),
        position_in_queue: position,
        estimated_duration_ms: detail.median_ms,
        next_poll_seconds,
    };
    Answer { page, output, notices, next: vec![next] }
}

fn refused(cx: &ToolCx<'_>, found: &Found, request: &Request, refusal: Refusal) -> ToolError {
    let name = text::named(&found.name);
    let (code, message) = match refusal {
        Refusal::Failed(error) => return ToolError::Store(error),
        Refusal::Busy => return ToolError::Busy,
        Refusal::NoFlow => ("FLOW_NOT_FOUND", "the flow was just removed. list_flows shows all.".to_owned()),
        Refusal::NotARunOfIt => {
            let asked = request.retry_of.as_deref().unwrap_or_default();
            return ToolError::refused(
                "RUN_NOT_FOUND",
                format!(
                    "\"{}\" is no run of \"{name}\" (retry_of must name a run of the same flow). list_flow_runs shows its runs.",
                    text::named(asked)
                ),
            );
        }
        Refusal::Paused(flow) => {
            let by = flow.state_by.as_deref().map(|by| format!(" by {}", text::named(by))).unwrap_or_default();
            let why = flow.state_reason.as_deref().map(|why| format!(" ({})", text::fenced(why))).unwrap_or_default();
            let day = flow.state_changed_at.with_timezone(&cx.zone()).format("%Y-%m-%d");
            ("FLOW_PAUSED", format!("\"{name}\" was paused{by} on {day}{why}. Resume it first; no run was started."))
        }
        Refusal::NotRunnable(state) => {
            let why = if state == FlowState::Draft { "is a draft" } else { "is archived" };
            ("FLOW_NOT_RUNNABLE", format!("\"{name}\" {why}. Only active flows run; no run was started."))
        }
        Refusal::AlreadyRunning(run) => {
            let progress = ProgressView::new(run.processed, run.estimated, None);
            let percent = progress.percent().map(|percent| format!(" ({percent:.0} %)")).unwrap_or_default();
            let since = run
                .started_at
                .map(|at| format!(", started {}", text::age(at, cx.now())))
                .unwrap_or_default();
            (
                "ALREADY_RUNNING",
                format!("{} is {}{since}{percent}. No new run was started; if_running=queue runs once more after it.", run.run, run.status),
            )
        }
        Refusal::Unavailable(broken) => ("CONNECTOR_UNAVAILABLE", broken.in_words(cx.now())),
        Refusal::Quota(why) => ("QUOTA_EXCEEDED", format!("{why}. No run was started.")),
        Refusal::KeyReused => (
            "IDEMPOTENCY_KEY_REUSED",
            "this idempotency_key was used for another request in the last 24 h. Use a new key for a new request; no run was started.".to_owned(),
        ),
    };
    ToolError::refused(code, message)
}
