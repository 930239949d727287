//! Lists of runs: the first page with the totals and groups of the whole window and the connectors that all
//! matching runs share, in one round trip; further pages without them.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, Row, ValueRef};

use super::hours::Hours;
use super::run_shapes::{MAX_GROUPS, Shape};
use super::runs::Run;
use super::{Reader, StoreError};
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::{Records, RunGrouping, RunStatus, Trigger};
use crate::domain::window::{Window, hour_name};

/// The key of the group that holds what the others leave.
pub const OTHER: &str = "other";

/// Which runs.
#[derive(Clone, Debug)]
pub struct RunFilter {
    /// Ended in this window, or still open when it reaches now.
    pub window: Window,
    /// Of this flow.
    pub flow: Option<FlowId>,
    /// Reading from or writing to one of these connectors.
    pub connectors: Option<Vec<ConnectorId>>,
    /// In one of these states; empty: any.
    pub status: Vec<RunStatus>,
    /// Caused by one of these; empty: any.
    pub trigger: Vec<Trigger>,
    /// The zone that days are cut in and hours are named in.
    pub zone: chrono_tz::Tz,
}

/// What is known of every run that matches.
#[derive(Clone, Debug, Default, FromRow)]
pub struct RunTotals {
    /// How many.
    pub runs: i64,
    /// How many succeeded.
    pub succeeded: i64,
    /// How many rejected some records.
    pub partial: i64,
    /// How many failed.
    pub failed: i64,
    /// How many were cancelled.
    pub cancelled: i64,
    /// How many never started.
    pub skipped: i64,
    /// How many are still open.
    pub active: i64,
    /// Records read.
    pub total_read: i64,
    /// Records written.
    pub total_written: i64,
    /// Records rejected.
    pub total_failed: i64,
    /// Records skipped.
    pub total_skipped: i64,
    /// Of these, unchanged.
    pub total_unchanged: i64,
    /// Bytes written.
    pub total_bytes: i64,
}

impl RunTotals {
    /// What happened to their records.
    pub fn records(&self) -> Records {
        Records::new(self.total_read, self.total_written, self.total_failed, self.total_skipped)
            .with_unchanged(self.total_unchanged)
    }

    /// Failed runs as a share of those that decide something, 0 to 1; `None` when there is none.
    pub fn failure_rate(&self) -> Option<f64> {
        let decided = self.succeeded + self.partial + self.failed;
        (decided > 0).then(|| self.failed as f64 / decided as f64)
    }
}

/// Runs that have something in common.
#[derive(Clone, Debug, Deserialize)]
pub struct RunGroup {
    /// What: an id, a state, an hour.
    pub key: String,
    /// What people call it.
    pub label: String,
    /// How many.
    pub runs: i64,
    /// How many succeeded.
    pub succeeded: i64,
    /// How many rejected some records.
    pub partial: i64,
    /// How many failed.
    pub failed: i64,
    /// How many are still open.
    pub active: i64,
    /// How many were cancelled.
    pub cancelled: i64,
    /// How many never started.
    pub skipped_runs: i64,
    /// Records read.
    pub read: i64,
    /// Records written.
    pub written: i64,
    /// Records rejected.
    pub rejected: i64,
    /// Records skipped.
    pub skipped: i64,
    /// Of these, unchanged.
    pub unchanged: i64,
    /// Bytes written.
    pub bytes: i64,
    /// The newest run of the flow (groups by flow only), whether it matches or not.
    pub latest_run_id: Option<String>,
    /// Its state.
    pub latest_status: Option<String>,
}

/// A connector that every matching run read from or wrote to.
#[derive(Clone, Debug, Deserialize)]
pub struct SharedConnector {
    /// Its id.
    pub connector_id: String,
    /// Its name.
    pub name: String,
    /// Its status now.
    pub status: String,
    /// Its authorization now.
    pub auth_status: String,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

/// Where a page of runs begins: after this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Its time in the list.
    pub window_at: DateTime<Utc>,
    /// Its id.
    pub run: RunId,
}

/// The first page of runs with what is known of all that match.
#[derive(Clone, Debug)]
pub struct RunList {
    /// The page, newest first; open runs come first of all.
    pub runs: Vec<Run>,
    /// Of all that match.
    pub totals: RunTotals,
    /// The fifty largest groups (of hours the newest), and one [`OTHER`] for the rest.
    pub groups: Vec<RunGroup>,
    /// Connectors that all of at least two matching runs share.
    pub shared: Vec<SharedConnector>,
}

impl Reader<'_> {
    /// The first page, of at most `limit` runs, with what is known of all that match.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile, [`StoreError::UnknownZone`] when days are asked for of
    /// a zone that PostgreSQL does not know; when the database fails, or a row holds
    /// something this build does not know.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        grouping: RunGrouping,
        limit: i64,
    ) -> Result<RunList, StoreError> {
        let query = self.list(filter, grouping, None, limit);
        let rows: Vec<ListRow> = query.fetch_all(self.store().reads()).await.map_err(StoreError::of_zone)?;
        let mut figures = None;
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            runs.extend(row.run);
            figures = figures.or(row.figures);
        }
        let Figures { totals, mut groups, shared } = figures.ok_or(StoreError::NotLive)?;
        if grouping == RunGrouping::Hour {
            name_hours(&mut groups, filter.zone)?;
        }
        add_other(&mut groups, &totals, grouping);
        Ok(RunList { runs, totals, groups, shared })
    }

    /// A further page, of at most `limit` runs after `after`.
    ///
    /// # Errors
    /// As for [`Reader::runs`].
    pub async fn runs_after(
        &self,
        filter: &RunFilter,
        after: &After,
        limit: i64,
    ) -> Result<Vec<Run>, StoreError> {
        let query = self.list(filter, RunGrouping::None, Some(after), limit);
        let rows: Vec<PageRow> = query.fetch_all(self.store().reads()).await?;
        if rows.is_empty() {
            return Err(StoreError::NotLive);
        }
        Ok(rows.into_iter().filter_map(|row| row.0).collect())
    }

    fn list<T>(
        &self,
        filter: &RunFilter,
        grouping: RunGrouping,
        after: Option<&After>,
        limit: i64,
    ) -> QueryAs<'_, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let shape = Shape {
            flow: filter.flow.is_some(),
            connector: filter.connectors.is_some(),
            status: !filter.status.is_empty(),
            trigger: !filter.trigger.is_empty(),
            after: after.is_some(),
            grouping,
        };
        let hours = Hours::of(&filter.window);
        let words = |words: Vec<&'static str>| (!words.is_empty()).then_some(words);
        self.query_as(shape.text())
            .bind(filter.window.since)
            .bind(hours.end)
            .bind(hours.whole_from)
            .bind(hours.whole_to)
            .bind(limit)
            .bind(filter.zone.name())
            .bind(filter.flow.as_ref().map(|flow| flow.as_str().to_owned()))
            .bind(
                filter
                    .connectors
                    .as_ref()
                    .map(|ids| ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()),
            )
            .bind(words(filter.status.iter().map(|status| status.as_str()).collect()))
            .bind(words(filter.trigger.iter().map(|trigger| trigger.as_str()).collect()))
            .bind(after.map(|after| after.window_at))
            .bind(after.map(|after| after.run.as_str().to_owned()))
            .bind(hours.days_from)
            .bind(hours.days_to)
    }
}

/// Gives groups by the hour, which the database tells by the moment it began, the hour's name in `zone`.
fn name_hours(groups: &mut [RunGroup], zone: chrono_tz::Tz) -> Result<(), StoreError> {
    for group in groups {
        let hour = group.key.parse().map_err(|_| StoreError::inconsistent("run_stats", "at"))?;
        group.key = hour_name(hour, zone);
        group.label.clone_from(&group.key);
    }
    Ok(())
}

/// What the groups beyond the largest fifty come to. Groups by connector overlap and add up to nothing.
fn add_other(groups: &mut Vec<RunGroup>, totals: &RunTotals, grouping: RunGrouping) {
    let shown: i64 = groups.iter().map(|group| group.runs).sum();
    if groups.len() < MAX_GROUPS || shown >= totals.runs || grouping == RunGrouping::Connector {
        return;
    }
    let rest = |total: i64, of: fn(&RunGroup) -> i64| total - groups.iter().map(of).sum::<i64>();
    groups.push(RunGroup {
        key: OTHER.to_owned(),
        label: OTHER.to_owned(),
        runs: totals.runs - shown,
        succeeded: rest(totals.succeeded, |group| group.succeeded),
        partial: rest(totals.partial, |group| group.partial),
        failed: rest(totals.failed, |group| group.failed),
        active: rest(totals.active, |group| group.active),
        cancelled: rest(totals.cancelled, |group| group.cancelled),
        skipped_runs: rest(totals.skipped, |group| group.skipped_runs),
        read: rest(totals.total_read, |group| group.read),
        written: rest(totals.total_written, |group| group.written),
        rejected: rest(totals.total_failed, |group| group.rejected),
        skipped: rest(totals.total_skipped, |group| group.skipped),
        unchanged: rest(totals.total_unchanged, |group| group.unchanged),
        bytes: rest(totals.total_bytes, |group| group.bytes),
        latest_run_id: None,
        latest_status: None,
    });
}

/// A row of a first page; one of them carries the figures.
struct ListRow {
    figures: Option<Figures>,
    run: Option<Run>,
}

struct Figures {
    totals: RunTotals,
    groups: Vec<RunGroup>,
    shared: Vec<SharedConnector>,
}

impl FromRow<'_, PgRow> for ListRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let figures = if row.try_get("first_row")? { Some(Figures::from_row(row)?) } else { None };
        Ok(Self { figures, run: PageRow::from_row(row)?.0 })
    }
}

impl FromRow<'_, PgRow> for Figures {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let groups: Option<Json<Vec<RunGroup>>> = row.try_get("groups")?;
        let shared: Option<Json<Vec<SharedConnector>>> = row.try_get("shared")?;
        Ok(Self {
            totals: RunTotals::from_row(row)?,
            groups: groups.map(|json| json.0).unwrap_or_default(),
            shared: shared.map(|json| json.0).unwrap_or_default(),
        })
    }
}

/// A row that may stand for no run.
struct PageRow(Option<Run>);

impl FromRow<'_, PgRow> for PageRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let none = row.try_get_raw("run_id")?.is_null();
        Ok(Self(if none { None } else { Some(Run::from_row(row)?) }))
    }
}
