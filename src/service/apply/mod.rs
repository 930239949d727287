//! `apply`: connectors and flows from one TOML file, judged whole before anything is written.
//!
//! Applying a file twice changes nothing the second time. What the file does not mention stays as it is, and
//! a flow that a person paused stays paused unless the file says otherwise. A dry run is an apply whose
//! transaction is never committed.

mod check;
mod diff;
mod file;
mod section;

use std::fmt;

use chrono::{DateTime, Utc};

use crate::domain::flow::FlowState;
use crate::domain::ids::{ConnectorId, FlowId, IdSource};
use crate::domain::names::exact_key;
use crate::domain::schedule::Schedule;
use crate::store::customers::{Actor, Target};
use crate::store::definitions::{Definitions, FlowRecord, PutFlow, StoredFlow, Version};
use crate::store::flow_state::HeldFlows;
use crate::store::{StoreError, TenantTx};

pub use diff::Change;
use file::{Placed, WantedConnector, WantedFlow};
use section::Problems;

/// What a file may refer to outside of itself and the workspace.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The directories that the operator named.
    pub files_roots: &'a [String],
    /// The databases that the operator named.
    pub postgres_dsns: &'a [String],
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, e.g. `flow[2].stream[0].field[3].transform`; empty for the file as a whole.
    pub path: String,
    /// Why it cannot be used, and what can.
    pub reason: String,
}

/// Why a file was not applied. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The file is wrong, in every way listed.
    #[error("{}", listed(.file, .problems))]
    Invalid {
        /// The name of the file.
        file: String,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(file: &str, problems: &[Problem]) -> String {
    let line = |problem: &Problem| match problem.path.as_str() {
        "" => format!("{file}: {}", problem.reason),
        path => format!("{file}: {path}: {}", problem.reason),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What became of a connector or flow of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was different, so.
    Changed(Vec<Change>),
    /// It was just so.
    Unchanged,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// `connector` or `flow`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The version a flow has now.
    pub version: Option<i32>,
    /// Runs of a flow that waited and are cancelled, since it is not active any more.
    pub cancelled: usize,
}

/// What applying a file did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the file, connectors first.
    pub applied: Vec<Applied>,
}

impl Report {
    /// Whether everything was as the file says already.
    pub fn is_unchanged(&self) -> bool {
        self.applied.iter().all(|applied| applied.outcome == Outcome::Unchanged)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for applied in &self.applied {
            let version = applied.version.map(|version| format!(" (version {version})")).unwrap_or_default();
            let word = match &applied.outcome {
                Outcome::Created => "created",
                Outcome::Changed(_) => "changed",
                Outcome::Unchanged => "unchanged",
            };
            writeln!(f, "{} {}: {word}{version}", applied.kind, applied.name)?;
            if let Outcome::Changed(changes) = &applied.outcome {
                for change in changes {
                    writeln!(f, "  {change}")?;
                }
            }
            if applied.cancelled > 0 {
                writeln!(f, "  runs that waited, cancelled: {}", applied.cancelled)?;
            }
        }
        Ok(())
    }
}

/// Brings the customer's connectors and flows to what `bytes`, read from the file called `file`, says, in a
/// transaction that the caller commits (or, for a dry run, does not).
///
/// # Errors
/// [`ApplyError::Invalid`] with everything that is wrong with the file; when the database fails.
pub async fn apply(
    tx: &mut TenantTx,
    file: &str,
    bytes: &[u8],
    rules: &Rules<'_>,
    by: &Actor,
) -> Result<Report, ApplyError> {
    let zone = tx.lock_customer().await?;
    let mut stored = tx.definitions().await?;
    let problems = Problems::default();
    let table = file::table(bytes, &problems);
    let wanted = table.map(|table| file::wanted(&table, zone, &problems)).unwrap_or_default();
    check::check(&wanted, &stored, rules, tx.now(), &problems);
    let problems = problems.into_vec();
    if !problems.is_empty() {
        return Err(ApplyError::Invalid { file: file.to_owned(), problems });
    }
    let mut report = Report::default();
    for Placed { item, .. } in wanted.connectors {
        let WantedConnector { id, record } = item;
        let old = stored.connectors.iter().find(|old| exact_key(&old.record.name) == exact_key(&record.name));
        let (id, outcome) = match old {
            Some(old) => {
                let changes = diff::connector(&old.record, &record);
                let outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Changed(changes) };
                (old.id.clone(), outcome)
            }
            None => (id.unwrap_or_else(|| ConnectorId::new(tx.ids())), Outcome::Created),
        };
        if outcome != Outcome::Unchanged {
            tx.put_connector(&id, &record).await?;
            let (action, message) = match &outcome {
                Outcome::Changed(changes) => ("connector.changed", Some(diff::summary(changes))),
                Outcome::Created | Outcome::Unchanged => ("connector.created", None),
            };
            tx.audit(by, action, Target::Connector(&id), message.as_deref()).await?;
        }
        report.applied.push(Applied {
            kind: "connector",
            name: record.name,
            outcome,
            version: None,
            cancelled: 0,
        });
    }
    // Flows name connectors, new ones included.
    stored = Definitions { flows: stored.flows, ..tx.definitions().await? };
    let flows: Vec<Judged> =
        wanted.flows.into_iter().map(|flow| judged(tx.ids(), &stored, flow.item)).collect();
    let changed = flows.iter().filter(|flow| flow.old.is_some() && flow.outcome != Outcome::Unchanged);
    let held = tx.hold_flows(changed.map(|flow| &flow.id)).await?;
    tx.forget_names(held.keys()).await?;
    for flow in flows {
        report.applied.push(put(tx, &stored, flow, &held, by).await?);
    }
    Ok(report)
}

/// A flow of the file beside the one that is stored.
struct Judged<'a> {
    id: FlowId,
    old: Option<&'a StoredFlow>,
    record: FlowRecord,
    /// Whether the file says what its state is.
    state_said: bool,
    outcome: Outcome,
    /// What changes apart from its definition.
    settings: Vec<Change>,
    /// What changes of its definition, where it had one.
    definition: Option<Vec<Change>>,
}

fn judged<'a>(ids: &IdSource, stored: &'a Definitions, wanted: WantedFlow) -> Judged<'a> {
    let mut record = wanted.record;
    let old = stored.flows.iter().find(|old| exact_key(&old.record.name) == exact_key(&record.name));
    if let (Some(old), None) = (old, wanted.state) {
        record.state = old.record.state;
    }
    let settings = old.map(|old| diff::settings(&old.record, &record)).unwrap_or_default();
    let definition = old.map(|old| diff::definition(&old.record.definition, &record.definition));
    let outcome = match &definition {
        Some(definition) => {
            let changes = [settings.clone(), definition.clone()].concat();
            if changes.is_empty() { Outcome::Unchanged } else { Outcome::Changed(changes) }
        }
        None => Outcome::Created,
    };
    let id = old.map(|old| old.id.clone()).or(wanted.id).unwrap_or_else(|| FlowId::new(ids));
    Judged { id, old, record, state_said: wanted.state.is_some(), outcome, settings, definition }
}

/// Writes a flow unless it is as the file says already.
async fn put(
    tx: &mut TenantTx,
    stored: &Definitions,
    flow: Judged<'_>,
    held: &HeldFlows,
    by: &Actor,
) -> Result<Applied, ApplyError> {
    let Judged { id, old, mut record, state_said, outcome, settings, definition } = flow;
    let mut version = old.map(|old| old.version);
    let mut cancelled = 0;
    if outcome != Outcome::Unchanged {
        let summary = definition.as_deref().map_or_else(|| "created".to_owned(), diff::summary);
        let was = match (old, held.get(&id)) {
            (Some(old), Some((state, next))) => Some((&old.record.schedule, *state, *next)),
            (Some(_), None) => return Err(StoreError::Conflict("a flow of the file is gone").into()),
            (None, _) => None,
        };
        // Somebody may have paused it since it was read.
        if let (Some((_, state, _)), false) = (was, state_said) {
            record.state = state;
        }
        let same = version.filter(|_| definition.as_ref().is_some_and(Vec::is_empty));
        let connector = |name: &str| {
            let found = stored.connectors.iter().find(|one| exact_key(&one.record.name) == exact_key(name));
            found.map(|one| &one.id).ok_or(StoreError::Conflict("a connector of the flow is gone"))
        };
        let put = PutFlow {
            id: &id,
            record: &record,
            source: connector(&record.source)?,
            destination: connector(&record.destination)?,
            owner: record.owner_email.as_ref().and_then(|owner| stored.users.get(owner)),
            next_run_at: next_run(tx, was, &record),
            version: same.map_or(Version::New(&summary), Version::Same),
            by,
        };
        version = Some(tx.put_flow(&put).await?);
        match definition {
            None => tx.audit(by, "flow.created", Target::Flow(&id), None).await?,
            // Apart, as a new version tells of the definition only.
            Some(definition) => {
                for (action, changes) in [("flow.changed", definition), ("flow.settings_changed", settings)] {
                    if !changes.is_empty() {
                        tx.audit(by, action, Target::Flow(&id), Some(&diff::summary(&changes))).await?;
                    }
                }
            }
        }
        if record.state != FlowState::Active {
            cancelled = tx.cancel_waiting(&id, by).await?;
        }
    }
    Ok(Applied { kind: "flow", name: record.name, outcome, version, cancelled })
}

/// When a flow runs next: as it was (its schedule, its state and that time), unless schedule or state changes.
fn next_run(
    tx: &TenantTx,
    was: Option<(&Schedule, FlowState, Option<DateTime<Utc>>)>,
    record: &FlowRecord,
) -> Option<DateTime<Utc>> {
    if record.state != FlowState::Active {
        return None;
    }
    match was {
        Some((schedule, FlowState::Active, next)) if *schedule == record.schedule => next,
        _ => record.schedule.next_after(tx.now()),
    }
}
