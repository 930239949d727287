//! One run: what happened, why, and what may still be done about it.

use std::convert::Infallible;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::ask::ask;
use super::guard::Here;
use super::trouble::Trouble;
use super::{Frame, Web, page};
use crate::domain::ids::RunId;
use crate::domain::person::Role;
use crate::view::text;

/// Samples that are shown of each class of error.
const SAMPLES: u32 = 3;

/// Seconds of one wait for a run to end, after which the page is told how far it is.
const WAIT: u32 = 5;

/// After so long a stream ends, and the browser asks for another. Shorter than the listener lets one answer take.
const LONGEST: Duration = Duration::from_secs(60);

/// Between two looks, should a wait end at once.
const BREATHE: Duration = Duration::from_secs(1);

#[derive(Template)]
#[template(path = "run.html", config = "src/web/askama.toml")]
struct RunPage {
    here: Frame,
    operates: bool,
    run: Run,
    groups: Vec<Group>,
}

#[derive(Template)]
#[template(path = "progress.html", config = "src/web/askama.toml")]
struct ProgressPart<'a> {
    run: &'a Run,
}

#[derive(Deserialize)]
struct Detail {
    run: Run,
}

#[derive(Deserialize)]
struct Run {
    run_id: String,
    flow_id: String,
    flow: String,
    status: String,
    done: bool,
    #[serde(default)]
    reason_code: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    trigger: String,
    #[serde(default)]
    triggered_by: Option<String>,
    queued_at: DateTime<Utc>,
    #[serde(default)]
    started_at: Option<DateTime<Utc>>,
    #[serde(default)]
    finished_at: Option<DateTime<Utc>>,
    #[serde(default)]
    duration_ms: Option<i64>,
    records: Records,
    bytes_read: i64,
    bytes_written: i64,
    #[serde(default)]
    progress: Option<Progress>,
    flow_version: i32,
    attempts: Vec<Attempt>,
    timeline: Vec<Line>,
    /// Events before these.
    #[serde(default)]
    older_events: i32,
    /// Classes of its errors.
    errors: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Records {
    read: i64,
    written: i64,
    failed: i64,
    skipped: i64,
    #[serde(default)]
    unchanged: i64,
}

#[derive(Deserialize)]
struct Progress {
    processed: i64,
    #[serde(default)]
    percent: Option<f64>,
}

#[derive(Deserialize)]
struct Attempt {
    attempt: i32,
    status: String,
    started_at: DateTime<Utc>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    at: DateTime<Utc>,
    message: String,
}

#[derive(Deserialize)]
struct Errors {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    error_class: String,
    message: String,
    count: i64,
    #[serde(default)]
    samples: Vec<Value>,
}

impl Run {
    fn took(&self) -> String {
        self.duration_ms.map(text::duration).unwrap_or_default()
    }

    fn why(&self) -> String {
        [self.reason_code.clone(), self.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ")
    }

    fn percent(&self) -> Option<i64> {
        self.progress.as_ref().and_then(|progress| progress.percent).map(|percent| percent as i64)
    }

    fn bytes(&self) -> String {
        format!("{} read, {} written", text::bytes(self.bytes_read), text::bytes(self.bytes_written))
    }
}

impl Group {
    /// The samples as they were kept, redacted.
    fn shown(&self) -> Vec<String> {
        self.samples.iter().map(|sample| format!("{sample:#}")).collect()
    }
}

async fn detail(web: &Web, here: &Here, run: &RunId, wait: u32) -> Result<Run, Trouble> {
    let asked = json!({ "run_id": run, "wait_seconds": wait });
    let Detail { run } = ask(web, here, "get_run", asked).await?;
    Ok(run)
}

fn id(text: &str) -> Result<RunId, Trouble> {
    RunId::parse(text).map_err(|_| Trouble::NotFound)
}

pub(super) async fn one(
    State(web): State<Web>,
    here: Here,
    Path((_, run)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let run = detail(&web, &here, &id(&run)?, 0).await?;
    let groups = if run.records.failed > 0 || !run.errors.is_empty() {
        let asked = json!({ "run_id": run.run_id, "samples_per_group": SAMPLES });
        ask::<Errors>(&web, &here, "get_run_errors", asked).await?.groups
    } else {
        Vec::new()
    };
    let operates = here.member.role.operates();
    page(&RunPage { here: Frame::new(&here, "flows"), operates, run, groups })
}

pub(super) async fn cancel(
    State(web): State<Web>,
    here: Here,
    Path((slug, run)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    here.must(Role::operates)?;
    let run = id(&run)?;
    let mut tx = web.0.store.begin(&here.member.tenancy).await?;
    tx.request_cancel(&run, &here.actor()).await?.ok_or(Trouble::NotFound)?;
    tx.commit().await?;
    Ok(Redirect::to(&format!("/w/{slug}/runs/{run}")).into_response())
}

/// How far a run is, told whenever it changes until it has ended; then the page is loaded again.
pub(super) async fn events(
    State(web): State<Web>,
    here: Here,
    Path((_, run)): Path<(String, String)>,
) -> Result<Response, Trouble> {
    let run = id(&run)?;
    let listening = web.0.streams.begin(&here.member.tenancy).ok_or(Trouble::Busy(1))?;
    let first = detail(&web, &here, &run, 0).await?;
    // A browser asks again after the end of a stream.
    let end = Instant::now() + LONGEST;
    // The stream is written after the request's own span has ended.
    let span = Span::current();
    let told = stream::unfold(Some((web, here, run, Some(first), listening)), move |state| {
        let next = async move {
            let (web, here, run, first, listening) = state.filter(|_| Instant::now() < end)?;
            let seen = match first {
                Some(first) => first,
                // A session that ended hears no more, and nobody hears of a server that stops.
                None => {
                    tokio::select! {
                        () = web.0.stopping.cancelled() => return None,
                        () = tokio::time::sleep(BREATHE) => {}
                    }
                    detail(&web, &here, &run, WAIT).await.ok()?
                }
            };
            let text = ProgressPart { run: &seen }.render().ok()?;
            let event = Event::default().event(if seen.done { "done" } else { "progress" }).data(text);
            Some((Ok::<_, Infallible>(event), (!seen.done).then_some((web, here, run, None, listening))))
        };
        next.instrument(span.clone())
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::default()).into_response())
}
