//! Runs, read: the columns that every list of runs shows, and how far a run is.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::postgres::PgRow;

use super::columns::Columns;
use super::{Reader, StoreError};
use crate::domain::connector::ConnectorStatus;
use crate::domain::error_class::ErrorClass;
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::{ReasonCode, Records, RunStatus, Trigger};

/// The columns of [`RunRow`], over `r` (runs), `f` (flows), `sc` and `dc` (the connectors as of the run).
macro_rules! run_columns {
    () => {
        "r.run_id, r.flow_id, f.name as flow_name, r.status, r.reason_code, r.reason_message,
         r.trigger, r.triggered_by, r.trigger_note, r.retry_of, r.flow_version,
         r.source_connector_id, sc.name as source_name, sc.service as source_service, sc.status as source_status,
         r.destination_connector_id, dc.name as destination_name, dc.service as destination_service,
         dc.status as destination_status, f.source_objects, f.destination_objects,
         r.scheduled_for, r.queued_at, r.started_at, r.finished_at, r.window_at, r.phase, r.attempt, r.max_attempts,
         r.records_read, r.records_written, r.records_failed, r.records_skipped, r.records_unchanged,
         r.records_estimated, r.bytes_read, r.bytes_written, r.error_groups, r.top_error_class"
    };
}

/// What [`run_columns`] stands on, after the `from runs r`. Each is looked up by its key: left to choose, the planner
/// takes a customer to have few connectors and reads them all, however short the list.
macro_rules! run_joins {
    () => {
        concat!(
            "cross join lateral (
            select f.name, f.source_objects, f.destination_objects
              from flows f where f.customer_id = $1 and f.flow_id = r.flow_id offset 0) f
         cross join lateral (
            select c.name, c.service, ",
            status_now!("c"),
            " as status
              from connectors c where c.customer_id = $1 and c.connector_id = r.source_connector_id offset 0) sc
         cross join lateral (
            select c.name, c.service, ",
            status_now!("c"),
            " as status
              from connectors c where c.customer_id = $1 and c.connector_id = r.destination_connector_id offset 0) dc"
        )
    };
}
pub(super) use {run_columns, run_joins};

statements! {
    RUN_STATE = tenant "
        select r.status, r.records_read, r.records_written, r.records_failed, r.records_skipped, r.records_unchanged,
               r.records_estimated
          from runs r
         where r.customer_id = $1 and caller.id = $1 and r.run_id = $4
         limit 1";
}

/// A run as lists show it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The flow that ran.
    pub flow: FlowId,
    /// The flow's name today.
    pub flow_name: String,
    /// Where the run is.
    pub status: RunStatus,
    /// Why it ended so.
    pub reason_code: Option<ReasonCode>,
    /// The same in words.
    pub reason: Option<String>,
    /// What caused it.
    pub trigger: Trigger,
    /// Who caused it, in words.
    pub triggered_by: Option<String>,
    /// The reason they gave.
    pub note: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<String>,
    /// The version of the flow that ran.
    pub version: i32,
    /// Where records came from, as of the run.
    pub source: Side,
    /// Where they went.
    pub destination: Side,
    /// When its schedule wanted it.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// When it was queued.
    pub queued_at: DateTime<Utc>,
    /// When its first attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The time that windows and lists go by.
    pub window_at: DateTime<Utc>,
    /// What it is doing.
    pub phase: Option<String>,
    /// Its current or last attempt, from 1; 0 before the first.
    pub attempt: i32,
    /// How many attempts it has.
    pub max_attempts: i32,
    /// What happened to its records.
    pub records: Records,
    /// How many records the source holds, where it can tell.
    pub estimated: Option<i64>,
    /// Bytes read.
    pub bytes_read: i64,
    /// Bytes written.
    pub bytes_written: i64,
    /// How many kinds of error.
    pub error_groups: i32,
    /// The class of most of them.
    pub top_error_class: Option<ErrorClass>,
}

/// One end of a flow or run.
#[derive(Clone, Debug)]
pub struct Side {
    /// The connector.
    pub connector: ConnectorId,
    /// Its name.
    pub name: String,
    /// The service behind it.
    pub service: String,
    /// Its status now.
    pub status: ConnectorStatus,
    /// The objects that the flow reads or writes there.
    pub objects: Vec<String>,
}

impl Run {
    /// How long it ran: to its end, or so far.
    pub fn duration_ms(&self, now: DateTime<Utc>) -> Option<i64> {
        let started = self.started_at?;
        Some((self.finished_at.unwrap_or(now) - started).num_milliseconds().max(0))
    }
}

impl FromRow<'_, PgRow> for Run {
    /// In the order of [`run_columns`].
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let mut columns = Columns::from(row, "run_id")?;
        let id = columns.word(|text| RunId::parse(text).ok())?;
        let flow = columns.word(|text| FlowId::parse(text).ok())?;
        let flow_name = columns.next()?;
        let status = columns.word(RunStatus::parse)?;
        let reason_code = columns.word_if_any(ReasonCode::parse)?;
        let reason = columns.next()?;
        let trigger = columns.word(Trigger::parse)?;
        let triggered_by = columns.next()?;
        let note = columns.next()?;
        let retry_of = columns.next()?;
        let version = columns.next()?;
        let mut source = Side::without_objects(&mut columns)?;
        let mut destination = Side::without_objects(&mut columns)?;
        source.objects = columns.next()?;
        destination.objects = columns.next()?;
        Ok(Self {
            id,
            flow,
            flow_name,
            status,
            reason_code,
            reason,
            trigger,
            triggered_by,
            note,
            retry_of,
            version,
            source,
            destination,
            scheduled_for: columns.next()?,
            queued_at: columns.next()?,
            started_at: columns.next()?,
            finished_at: columns.next()?,
            window_at: columns.next()?,
            phase: columns.next()?,
            attempt: columns.next()?,
            max_attempts: columns.next()?,
            records: Records::new(columns.next()?, columns.next()?, columns.next()?, columns.next()?)
                .with_unchanged(columns.next()?),
            estimated: columns.next()?,
            bytes_read: columns.next()?,
            bytes_written: columns.next()?,
            error_groups: columns.next()?,
            top_error_class: columns.word_if_any(ErrorClass::parse)?,
        })
    }
}

impl Side {
    fn without_objects(columns: &mut Columns<'_>) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connector: columns.word(|text| ConnectorId::parse(text).ok())?,
            name: columns.next()?,
            service: columns.next()?,
            status: columns.word(ConnectorStatus::parse)?,
            objects: Vec::new(),
        })
    }
}

/// One end of a flow or run, from its columns.
pub(super) fn side(
    connector: &str,
    name: String,
    service: String,
    status: &str,
    objects: Vec<String>,
) -> Result<Side, StoreError> {
    Ok(Side {
        connector: ConnectorId::parse(connector)
            .map_err(|_| StoreError::inconsistent("connectors", "connector_id"))?,
        name,
        service,
        status: ConnectorStatus::parse(status).ok_or(StoreError::inconsistent("connectors", "status"))?,
        objects,
    })
}

/// What a wait looks at again and again.
#[derive(Clone, Debug, FromRow)]
pub struct RunProgress {
    status: String,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    records_unchanged: i64,
    /// How many records the source holds, where it can tell.
    pub records_estimated: Option<i64>,
}

impl RunProgress {
    /// Whether the run has ended.
    pub fn is_final(&self) -> bool {
        RunStatus::parse(&self.status).is_some_and(RunStatus::is_final)
    }

    /// What happened to its records so far.
    pub fn records(&self) -> Records {
        Records::new(self.records_read, self.records_written, self.records_failed, self.records_skipped)
            .with_unchanged(self.records_unchanged)
    }
}

impl Reader<'_> {
    /// How far a run is, or `None` when the customer has no run with that id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_progress(&self, id: &RunId) -> Result<Option<RunProgress>, StoreError> {
        Ok(self.query_as(RUN_STATE).bind(id.as_str().to_owned()).fetch_optional(self.store().reads()).await?)
    }
}
