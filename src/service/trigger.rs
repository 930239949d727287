//! Starting a run because somebody asked for it: at most one is made, however often and by however many it is
//! asked for, and none that could not succeed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::Serving;
use super::access::Principal;
use super::turns::{Busy, Held};
use crate::domain::connector::ConnectorStatus;
use crate::domain::counts::counted;
use crate::domain::flow::FlowState;
use crate::domain::ids::{FlowId, RunId};
use crate::domain::run::{RunStatus, Trigger};
use crate::domain::untrusted::named;
use crate::domain::words;
use crate::store::customers::{Actor, Target};
use crate::store::queue::NewRun;
use crate::store::tokens::Plan;
use crate::store::triggers::{Load, OpenRun, Readiness, Wanted};
use crate::store::{StoreError, TenantTx};

/// How long a key is remembered.
const KEY_HOURS: i64 = 24;

/// How long a connector that looks broken is given to prove otherwise.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks whether it has: each is a transaction.
const BREATHE: Duration = Duration::from_millis(300);

/// How long a run whose commit broke off is looked for.
const RESOLVE: Duration = Duration::from_secs(3);

/// The priority of runs that somebody waits for; schedules have 100.
const PRIORITY: i32 = 50;

words! {
    /// What happens when the flow is already running.
    IfRunning {
        /// The run that is going is the answer.
        Attach = "attach",
        /// One more run follows it.
        Queue = "queue",
        /// The request is refused.
        Error = "error",
    }
}

words! {
    /// What came of a request.
    Outcome {
        /// A run was made and may start at once.
        Started = "started",
        /// A run was made and waits for the one before it.
        Queued = "queued",
        /// The run that is going is the answer; none was made.
        AttachedToRunning = "attached_to_running",
        /// The run that waits is the answer; none was made.
        AttachedToQueued = "attached_to_queued",
        /// The key was answered with this run before; none was made.
        Deduplicated = "deduplicated",
    }
}

impl Outcome {
    /// Whether a run was made.
    pub fn made_a_run(self) -> bool {
        matches!(self, Self::Started | Self::Queued)
    }
}

/// A request for a run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of which flow.
    pub flow: FlowId,
    /// What happens when it is already running.
    pub if_running: IfRunning,
    /// Why.
    pub reason: Option<String>,
    /// The run that it repeats, as the caller wrote it.
    pub retry_of: Option<String>,
    /// Repeated keys give the same run.
    pub key: Option<String>,
}

impl Request {
    /// What must be the same for a repeated key to be the same request.
    fn hash(&self) -> [u8; 32] {
        let parts = [self.flow.as_str(), self.if_running.as_str(), self.retry_of.as_deref().unwrap_or("")];
        Sha256::digest(parts.join("\u{1f}").as_bytes()).into()
    }
}

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Triggered {
    /// The run that is the answer.
    pub run: RunId,
    /// Whether and how it was made.
    pub outcome: Outcome,
}

/// Why no run was made.
#[derive(Debug)]
pub enum Refusal {
    /// The flow is gone.
    NoFlow,
    /// The flow is paused: by whom, when and why.
    Paused(Box<Wanted>),
    /// The flow is a draft or archived.
    NotRunnable(FlowState),
    /// It is running, and the request said not to attach.
    AlreadyRunning(OpenRun),
    /// A connector cannot serve a run.
    Unavailable(Box<Readiness>),
    /// The plan's limits are reached; which, in words.
    Quota(String),
    /// The key was used for another request.
    KeyReused,
    /// `retry_of` names no run of this flow.
    NotARunOfIt,
    /// The database failed.
    Failed(StoreError),
    /// No place came free in time to look again.
    Busy,
}

impl From<Busy> for Refusal {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What one look at the flow came to.
enum Look {
    Done(Triggered),
    /// A connector looks broken; it is being checked.
    Checking(Box<Readiness>),
}

/// Makes a run, or says which run is the answer, or why there is none. All of it happens or nothing. While a connector
/// is checked, others have the call's `turn`.
///
/// # Errors
/// See [`Refusal`].
pub async fn trigger(
    serving: &Serving,
    principal: &Principal,
    turn: &Held<'_>,
    request: &Request,
) -> Result<Triggered, Refusal> {
    let broken = match resolved(serving, principal, request, true).await? {
        Look::Done(triggered) => return Ok(triggered),
        Look::Checking(broken) => broken,
    };
    turn.give_back();
    wait_for_check(serving, principal, &broken).await?;
    turn.take_again().await?;
    match resolved(serving, principal, request, false).await? {
        Look::Done(triggered) => Ok(triggered),
        Look::Checking(broken) => Err(Refusal::Unavailable(broken)),
    }
}

/// A look whose commit broke off is followed by another, which tells whether it took place: a transaction that
/// still ends somewhere keeps its turn until it has.
async fn resolved(
    serving: &Serving,
    principal: &Principal,
    request: &Request,
    may_check: bool,
) -> Result<Look, Refusal> {
    let mut made = None;
    let deadline = Instant::now() + RESOLVE;
    loop {
        match look(serving, principal, request, may_check, &mut made).await {
            Err(Refusal::Failed(error)) if error.is_transient() && made.is_some() => {
                if Instant::now() >= deadline {
                    return Err(Refusal::Failed(error.unknown()));
                }
                sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

/// Looks once. `made` is a run that may have been made before, and afterwards one that may have been made now.
async fn look(
    serving: &Serving,
    principal: &Principal,
    request: &Request,
    may_check: bool,
    made: &mut Option<Triggered>,
) -> Result<Look, Refusal> {
    let mut tx = serving.store.begin(principal.tenancy()).await?;
    // Requests of one customer take turns, so that limits and keys hold; the flow's row is locked against others.
    tx.take_turn().await?;
    if let Some(before) = made.clone()
        && tx.flow_of_run(&before.run).await?.is_some()
    {
        serving.wakes.run_queued();
        return Ok(Look::Done(before));
    }
    *made = None;
    let flow = tx.wanted_flow(&request.flow).await?;
    // Turn and flow were waited for: a token that was revoked meanwhile learns and starts nothing.
    tx.still_live().await?;
    let flow = flow.ok_or(Refusal::NoFlow)?;
    if let Some(key) = &request.key
        && let Some((hash, run)) = tx.remembered_request(key).await?
    {
        if hash != request.hash() {
            return Err(Refusal::KeyReused);
        }
        return Ok(Look::Done(Triggered { run, outcome: Outcome::Deduplicated }));
    }
    let retry_of = match &request.retry_of {
        None => None,
        Some(text) => {
            let run = RunId::parse(text).map_err(|_| Refusal::NotARunOfIt)?;
            if tx.flow_of_run(&run).await?.as_ref() != Some(&flow.flow) {
                return Err(Refusal::NotARunOfIt);
            }
            Some(run)
        }
    };
    match flow.state {
        FlowState::Active => {}
        FlowState::Paused => return Err(Refusal::Paused(Box::new(flow))),
        FlowState::Draft | FlowState::Archived => return Err(Refusal::NotRunnable(flow.state)),
    }
    let open = tx.open_runs(&flow.flow).await?;
    let going = open.iter().find(|run| run.status != RunStatus::Queued);
    let waiting = open.iter().find(|run| run.status == RunStatus::Queued);
    let attached = match (going, waiting, request.if_running) {
        (Some(run), _, IfRunning::Error) => return Err(Refusal::AlreadyRunning(run.clone())),
        (Some(run), _, IfRunning::Attach) => Some((run.run.clone(), Outcome::AttachedToRunning)),
        (_, Some(run), _) => Some((run.run.clone(), Outcome::AttachedToQueued)),
        (_, None, _) => None,
    };
    if let Some((run, outcome)) = attached {
        remember(&mut tx, request, &run).await?;
        tx.commit().await?;
        return Ok(Look::Done(Triggered { run, outcome }));
    }
    if let Some(why) = over_limit(&tx.load().await?, principal.plan(), tx.now()) {
        return Err(Refusal::Quota(why));
    }
    let readiness = tx.readiness(&flow.source, &flow.destination).await?;
    if let Some(broken) = readiness.into_iter().find(Readiness::is_broken) {
        let off = broken.status == ConnectorStatus::Disabled;
        if off || !may_check || !tx.ask_for_check(&broken.connector).await? {
            return Err(Refusal::Unavailable(Box::new(broken)));
        }
        tx.commit().await?;
        return Ok(Look::Checking(Box::new(broken)));
    }
    let outcome = if going.is_some() { Outcome::Queued } else { Outcome::Started };
    let run = make(&mut tx, principal, request, &flow, retry_of).await?;
    remember(&mut tx, request, &run).await?;
    let triggered = Triggered { run, outcome };
    *made = Some(triggered.clone());
    tx.commit().await?;
    serving.wakes.run_queued();
    Ok(Look::Done(triggered))
}

async fn make(
    tx: &mut TenantTx,
    principal: &Principal,
    request: &Request,
    flow: &Wanted,
    retry_of: Option<RunId>,
) -> Result<RunId, Refusal> {
    let actor = &principal.caller().actor;
    let trigger = match (&retry_of, actor) {
        (Some(_), _) => Trigger::Retry,
        (None, Actor::User { .. }) => Trigger::Manual,
        (None, _) => Trigger::Mcp,
    };
    let new = NewRun {
        triggered_by: Some(actor.label().to_owned()),
        note: request.reason.clone(),
        priority: PRIORITY,
        retry_of,
        ..NewRun::new(flow.flow.clone(), trigger)
    };
    // (the flow is locked and nothing waits: nobody else can have queued one)
    let run = tx.add_run(&new).await?.ok_or(StoreError::Conflict("a run of the flow is queued already"))?;
    tx.audit(actor, "run.triggered", Target::Run(&run), request.reason.as_deref()).await?;
    Ok(run)
}

async fn remember(tx: &mut TenantTx, request: &Request, run: &RunId) -> Result<(), StoreError> {
    match &request.key {
        Some(key) => tx.remember_request(key, &request.hash(), run, TimeDelta::hours(KEY_HOURS)).await,
        None => Ok(()),
    }
}

/// Which limit of the plan another run would break, in words.
fn over_limit(load: &Load, plan: &Plan, now: DateTime<Utc>) -> Option<String> {
    if load.waiting >= i64::from(plan.max_queued_runs) {
        return Some(format!(
            "{} already waiting (plan limit). Wait until some have run",
            counted(load.waiting, "run is", "runs are")
        ));
    }
    if load.last_minute >= i64::from(plan.triggers_per_minute) {
        return Some(format!(
            "{} triggered in the last minute (plan limit). Try again in a minute",
            counted(load.last_minute, "run was", "runs were")
        ));
    }
    let most = plan.daily_runs.filter(|most| load.today >= i64::from(*most))?;
    let reset = (now.date_naive() + chrono::Days::new(1)).format("%Y-%m-%d");
    Some(format!(
        "the daily allowance of {} is used up; it resets at {reset} 00:00 UTC",
        counted(most.into(), "run", "runs")
    ))
}

/// Waits until the connector was checked again, or patience ends; not at all when the customer has too many waits. A check
/// that another follows had begun before it was asked for, and may have seen what was before.
async fn wait_for_check(serving: &Serving, principal: &Principal, broken: &Readiness) -> Result<(), Refusal> {
    let Some(_waiting) = serving.waits.begin(principal.tenancy()) else { return Ok(()) };
    let deadline = Instant::now() + CHECK_PATIENCE;
    while Instant::now() < deadline {
        tokio::select! {
            () = serving.stopping.cancelled() => return Ok(()),
            () = sleep(BREATHE) => {}
        }
        let mut tx = serving.store.begin(principal.tenancy()).await?;
        let now = tx.readiness(&broken.connector, &broken.connector).await?;
        drop(tx);
        if now.iter().any(|seen| seen.last_check_at != broken.last_check_at && !seen.is_being_checked) {
            return Ok(());
        }
    }
    Ok(())
}

impl Readiness {
    /// Why a run through the connector cannot succeed, and what to do about it.
    pub fn in_words(&self, now: DateTime<Utc>) -> String {
        let name = named(&self.name);
        if self.status == ConnectorStatus::Disabled {
            return format!("{name} is switched off. Switch it on; a run now would fail.");
        }
        let checked = self
            .last_check_at
            .map(|at| format!(", checked {} s ago", (now - at).num_seconds().max(0)))
            .unwrap_or_default();
        if self.auth_status.is_broken() {
            let said = self
                .auth_error
                .as_deref()
                .map(|error| format!("{}{checked}", crate::domain::untrusted::fenced(error)))
                .unwrap_or_else(|| checked.trim_start_matches(", ").to_owned());
            let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
            return format!(
                "{name} authorization is {}{said}. Reconnect it; a run now would fail.",
                self.auth_status
            );
        }
        let said = self
            .last_check_error
            .as_deref()
            .map(|error| format!(": {}", crate::domain::untrusted::fenced(error)))
            .unwrap_or_default();
        format!("{name} is {}{said}{checked}. Repair the connector; a run now would fail.", self.status)
    }
}
