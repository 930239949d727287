//! Lists of runs: the first page with the totals and groups of the whole window and the connectors that all
//! matching runs share, in one round trip; further pages without them.
//!
//! Totals and groups come from the roll-ups by day and hour, plus the two hours at most that the window cuts, which
//! are read from the runs themselves, together with the runs that are still open. What does not ask for a flow or
//! connector reads the roll-up of all flows.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Deserialize;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, Row, ValueRef};

use super::runs::{Run, run_columns, run_joins};
use super::{Reader, StoreError};
use crate::domain::ids::{ConnectorId, FlowId, RunId};
use crate::domain::run::{Records, RunGrouping, RunStatus, Trigger, open_window};
use crate::domain::window::Window;

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
    /// The zone that days are cut in.
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
    /// Bytes written.
    pub total_bytes: i64,
}

impl RunTotals {
    /// What happened to their records.
    pub fn records(&self) -> Records {
        Records::new(self.total_read, self.total_written, self.total_failed, self.total_skipped)
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
    /// Records read.
    pub read: i64,
    /// Records written.
    pub written: i64,
    /// Records rejected.
    pub rejected: i64,
    /// Records skipped.
    pub skipped: i64,
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
    /// The fifty largest groups, and one `other` for the rest.
    pub groups: Vec<RunGroup>,
    /// Connectors that all of at least two matching runs share.
    pub shared: Vec<SharedConnector>,
}

/// Groups shown at most; the rest is one group `other`.
const MAX_GROUPS: usize = 50;

/// Gives types to the parameters that a shape leaves out.
const UNUSED: &str = "parameters as (
    select $6::timestamptz, $7::timestamptz, $9::text, $10::text, $11::text[], $12::text[], $13::text[],
           $14::timestamptz, $15::text, $16::timestamptz, $17::timestamptz)";

/// The shape of a statement: which filters it has and what it groups by, or that it goes on after a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    flow: bool,
    connector: bool,
    status: bool,
    trigger: bool,
    after: bool,
    grouping: RunGrouping,
}

/// One text per shape, made once and kept for good, so that each is one prepared statement.
static TEXTS: LazyLock<Mutex<BTreeMap<Shape, &'static str>>> = LazyLock::new(Mutex::default);

impl Shape {
    fn text(self) -> &'static str {
        let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        texts.entry(self).or_insert_with(|| Box::leak(self.compose().into_boxed_str()))
    }

    /// Every shape there is.
    fn all() -> impl Iterator<Item = Self> {
        let first = RunGrouping::ALL.iter().map(|grouping| (*grouping, false));
        first.chain([(RunGrouping::None, true)]).flat_map(|(grouping, after)| {
            (0..16_u8).map(move |bits| Self {
                flow: bits & 1 != 0,
                connector: bits & 2 != 0,
                status: bits & 4 != 0,
                trigger: bits & 8 != 0,
                after,
                grouping,
            })
        })
    }

    /// Which rows of the roll-up are read, and how the filters on flows and states are written for them.
    fn cells(self) -> String {
        let filter = |on: bool, text: &'static str| if on { text } else { "" };
        let connector = filter(
            self.connector,
            " and (x.source_connector_id = any ($11) or x.destination_connector_id = any ($11))",
        );
        let trigger = filter(self.trigger, " and x.trigger = any ($13)");
        let sides = self.connector
            || self.status
            || matches!(
                self.grouping,
                RunGrouping::Flow | RunGrouping::Source | RunGrouping::Destination | RunGrouping::Connector
            );
        let which = match (self.flow, sides) {
            (true, _) => "x.flow_id = $10",
            (false, true) => "x.flow_id <> ''",
            (false, false) => "x.flow_id = ''",
        };
        // The index of single flows leads with the state: it is always named.
        let status = match (self.status, sides && !self.flow) {
            (true, _) => " and x.status = any ($12)",
            (false, true) => " and x.status = any ('{succeeded,partial,failed,cancelled,skipped}')",
            (false, false) => "",
        };
        let span = |grain: &str, from: &str, to: &str| {
            format!(
                "select x.at, x.flow_id, x.source_connector_id, x.destination_connector_id, x.trigger, x.status, x.runs,
                        x.records_read, x.records_written, x.records_failed, x.records_skipped, x.bytes_written
                   from caller cross join lateral (
                        select * from run_stats x
                         where x.customer_id = $1 and caller.id = $1 and {which} and x.grain = '{grain}'
                           and x.at >= {from} and x.at < {to}{status}{connector}{trigger}
                        offset 0) x"
            )
        };
        match self.grouping {
            // A day of the zone asked for is no day of the roll-up.
            RunGrouping::Hour | RunGrouping::Day => span("hour", "$6", "$7"),
            _ => format!(
                "{} union all {} union all {}",
                span("hour", "$6", "$16"),
                span("day", "$16", "$17"),
                span("hour", "$17", "$7")
            ),
        }
    }

    /// `$4..$5` the page's window, `$6..$7` whole hours, `$4..$6` and `$7..$5` the cut hours, `$16..$17` the whole
    /// days among them, `$8` rows, `$9` zone, `$10` flow, `$11` connectors, `$12` states, `$13` triggers, `$14, $15`
    /// where to go on; the unused `parameters` give the types of those that a shape leaves out.
    fn compose(self) -> String {
        let filter = |on: bool, text: &'static str| if on { text } else { "" };
        let flow = filter(self.flow, " and x.flow_id = $10");
        // An hour of the customer's runs is a few pages of the index on their time; those of the flow lie each on
        // a page of its own.
        let one_flow = filter(self.flow, " and x.flow_id || '' = $10");
        let connector = filter(
            self.connector,
            " and (x.source_connector_id = any ($11) or x.destination_connector_id = any ($11))",
        );
        let status = filter(self.status, " and x.status = any ($12)");
        let trigger = filter(self.trigger, " and x.trigger = any ($13)");
        let after = filter(self.after, " and (x.window_at, x.run_id) < ($14, $15)");
        let cut = |from: &str, to: &str| {
            format!(
                "select least(date_trunc('hour', x.window_at, 'UTC'), $3), x.flow_id, x.source_connector_id,
                        x.destination_connector_id, x.trigger, x.status, 1::bigint, x.records_read, x.records_written,
                        x.records_failed, x.records_skipped, x.bytes_written
                   from caller cross join lateral (
                        select * from runs x
                         where x.customer_id = $1 and caller.id = $1
                           and x.window_at >= {from} and x.window_at < {to}{one_flow}{connector}{status}{trigger}
                        offset 0) x"
            )
        };
        // No index has all filters: what nothing matches is known from the totals and not looked for.
        let any =
            filter(!self.after && (self.connector || self.trigger), " and (select t.runs from totals t) > 0");
        let page = match (self.status, self.flow, self.connector || self.trigger) {
            (true, ..) => format!(
                "select r.* from (select distinct unnest($12::text[])) as wanted (status)
                  cross join lateral (
                        select * from runs x
                         where x.customer_id = $1 and caller.id = $1 and x.status = wanted.status{any}
                           and x.window_at >= $4 and x.window_at < $5{flow}{connector}{trigger}{after}
                         order by x.window_at desc, x.run_id desc limit $8) r
                  order by r.window_at desc, r.run_id desc limit $8"
            ),
            // What the filter passes over is passed over in the index.
            (false, false, true) => format!(
                "select r.* from (
                        select x.run_id from runs x
                         where x.customer_id = $1 and caller.id = $1{any}
                           and x.window_at >= $4 and x.window_at < $5{connector}{trigger}{after}
                         order by x.window_at desc, x.run_id desc limit $8) x
                   join runs r on r.customer_id = $1 and r.run_id = x.run_id
                  order by r.window_at desc, r.run_id desc limit $8"
            ),
            _ => format!(
                "select * from runs x
                  where x.customer_id = $1 and caller.id = $1{any}
                    and x.window_at >= $4 and x.window_at < $5{flow}{connector}{trigger}{after}
                  order by x.window_at desc, x.run_id desc limit $8"
            ),
        };
        let (columns, joins) = (run_columns!(), run_joins!());
        if self.after {
            return format!(
                "with caller as materialized (
                    select set_config('app.customer_id', live_caller($1, $2, $3), true) as id),
                 {UNUSED}
                 select p.*
                   from caller
                   left join lateral (
                        select {columns} from ({page}) r {joins} offset 0) p on true
                  where caller.id = $1
                  order by p.window_at desc, p.run_id desc"
            );
        }
        let (cells, cut_before, cut_after) = (self.cells(), cut("$4", "$6"), cut("$7", "$5"));
        let sums = "sum(c.runs)::bigint as runs,
            coalesce(sum(c.runs) filter (where c.status = 'succeeded'), 0)::bigint as succeeded,
            coalesce(sum(c.runs) filter (where c.status = 'partial'), 0)::bigint as partial,
            coalesce(sum(c.runs) filter (where c.status = 'failed'), 0)::bigint as failed,
            coalesce(sum(c.runs) filter (where c.status in ('queued', 'running', 'retrying', 'cancelling')), 0)::bigint as active,
            sum(c.records_read)::bigint as read, sum(c.records_written)::bigint as written,
            sum(c.records_failed)::bigint as rejected, sum(c.records_skipped)::bigint as skipped,
            sum(c.bytes_written)::bigint as bytes";
        let groups = self.groups(sums);
        // Which connector runs share is only a question when they were picked by something else.
        let shared = if self.status || self.flow {
            "(select json_agg(json_build_object('connector_id', n.connector_id, 'name', n.name, 'status', n.status,
                        'auth_status', n.auth_status, 'reason', n.status_reasons -> 0 ->> 'message') order by n.name)
                from (select k.connector_id from cells c
                       cross join lateral (select c.source_connector_id union select c.destination_connector_id) k (connector_id)
                       group by k.connector_id
                      having sum(c.runs) >= (select runs from totals) and (select runs from totals) >= 2) k
                join connectors n on n.customer_id = $1 and n.connector_id = k.connector_id)"
        } else {
            "null::json"
        };
        format!(
            "with caller as materialized (
                select set_config('app.customer_id', live_caller($1, $2, $3), true) as id),
             {UNUSED},
             cells (hour, flow_id, source_connector_id, destination_connector_id, trigger, status, runs,
                    records_read, records_written, records_failed, records_skipped, bytes_written) as materialized (
                {cells}
                union all {cut_before}
                union all {cut_after}),
             totals as materialized (
                select coalesce(sum(c.runs), 0)::bigint as runs,
                       coalesce(sum(c.runs) filter (where c.status = 'succeeded'), 0)::bigint as succeeded,
                       coalesce(sum(c.runs) filter (where c.status = 'partial'), 0)::bigint as partial,
                       coalesce(sum(c.runs) filter (where c.status = 'failed'), 0)::bigint as failed,
                       coalesce(sum(c.runs) filter (where c.status = 'cancelled'), 0)::bigint as cancelled,
                       coalesce(sum(c.runs) filter (where c.status = 'skipped'), 0)::bigint as skipped,
                       coalesce(sum(c.runs) filter (where c.status in ('queued', 'running', 'retrying', 'cancelling')), 0)::bigint as active,
                       coalesce(sum(c.records_read), 0)::bigint as total_read,
                       coalesce(sum(c.records_written), 0)::bigint as total_written,
                       coalesce(sum(c.records_failed), 0)::bigint as total_failed,
                       coalesce(sum(c.records_skipped), 0)::bigint as total_skipped,
                       coalesce(sum(c.bytes_written), 0)::bigint as total_bytes
                  from cells c),
             page as (
                select {columns}
                  from caller cross join lateral ({page}) r
                  {joins})
             select t.runs, t.succeeded, t.partial, t.failed, t.cancelled, t.skipped, t.active, t.total_read,
                    t.total_written, t.total_failed, t.total_skipped, t.total_bytes,
                    (row_number() over ()) = 1 as first_row,
                    case when (row_number() over ()) = 1 then {groups} end as groups,
                    case when (row_number() over ()) = 1 then {shared} end as shared, p.*
               from totals t
               left join page p on true
              where (select id from caller) = $1
              order by p.window_at desc, p.run_id desc"
        )
    }

    fn groups(self, sums: &str) -> String {
        let key = match self.grouping {
            RunGrouping::None => return "null::json".to_owned(),
            RunGrouping::Flow => "c.flow_id",
            RunGrouping::Source => "c.source_connector_id",
            RunGrouping::Destination => "c.destination_connector_id",
            RunGrouping::Connector => "k.connector_id",
            RunGrouping::Status => "c.status",
            RunGrouping::Trigger => "c.trigger",
            RunGrouping::Hour => {
                "to_char(date_trunc('hour', c.hour, $9) at time zone $9, 'YYYY-MM-DD HH24:MI')"
            }
            RunGrouping::Day => "to_char(c.hour at time zone $9, 'YYYY-MM-DD')",
        };
        let from = match self.grouping {
            RunGrouping::Connector => {
                "cells c cross join lateral (select c.source_connector_id
                    union select c.destination_connector_id) k (connector_id)"
            }
            _ => "cells c",
        };
        let label = match self.grouping {
            RunGrouping::Flow => {
                "(select f.name from flows f where f.customer_id = $1 and f.flow_id = g.key)"
            }
            RunGrouping::Source | RunGrouping::Destination | RunGrouping::Connector => {
                "(select n.name from connectors n where n.customer_id = $1 and n.connector_id = g.key)"
            }
            _ => "g.key",
        };
        let order = match self.grouping {
            RunGrouping::Hour | RunGrouping::Day => "g.key desc",
            _ => "g.runs desc, g.key",
        };
        let latest = match self.grouping {
            // What every run satisfies keeps the planner from walking the index on time, which holds no attempt, until
            // it meets a run of the flow.
            RunGrouping::Flow => {
                "left join lateral (select n.run_id, n.status from runs n
                     where n.customer_id = $1 and n.flow_id = g.key and n.attempt >= 0
                     order by n.window_at desc, n.run_id desc limit 1) l on true"
            }
            _ => "left join lateral (select null::text as run_id, null::text as status) l on true",
        };
        format!(
            "(select json_agg(json_build_object('key', g.key, 'label', coalesce({label}, g.key), 'runs', g.runs,
                    'succeeded', g.succeeded, 'partial', g.partial, 'failed', g.failed, 'active', g.active,
                    'read', g.read, 'written', g.written, 'rejected', g.rejected, 'skipped', g.skipped,
                    'bytes', g.bytes, 'latest_run_id', l.run_id, 'latest_status', l.status) order by {order})
                from (select g.* from (select {key} as key, {sums} from {from} group by 1) g
                       order by {order} limit {MAX_GROUPS}) g
                {latest})"
        )
    }
}

/// Every statement of this file.
pub(super) fn all() -> Vec<&'static str> {
    Shape::all().map(Shape::text).collect()
}

impl Reader<'_> {
    /// The first page, of at most `limit` runs, with what is known of all that match.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails, or a row holds
    /// something this build does not know.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        grouping: RunGrouping,
        limit: i64,
    ) -> Result<RunList, StoreError> {
        let rows: Vec<ListRow> =
            self.list(filter, grouping, None, limit).fetch_all(self.store().reads()).await?;
        let mut figures = None;
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            runs.extend(row.run);
            figures = figures.or(row.figures);
        }
        let Figures { totals, mut groups, shared } = figures.ok_or(StoreError::NotLive)?;
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

/// What the groups beyond the largest fifty come to. Groups by connector overlap and add up to nothing.
fn add_other(groups: &mut Vec<RunGroup>, totals: &RunTotals, grouping: RunGrouping) {
    let shown: i64 = groups.iter().map(|group| group.runs).sum();
    if groups.len() < MAX_GROUPS || shown >= totals.runs || grouping == RunGrouping::Connector {
        return;
    }
    let rest = |total: i64, of: fn(&RunGroup) -> i64| total - groups.iter().map(of).sum::<i64>();
    groups.push(RunGroup {
        key: "other".to_owned(),
        label: "other".to_owned(),
        runs: totals.runs - shown,
        succeeded: rest(totals.succeeded, |group| group.succeeded),
        partial: rest(totals.partial, |group| group.partial),
        failed: rest(totals.failed, |group| group.failed),
        active: rest(totals.active, |group| group.active),
        read: rest(totals.total_read, |group| group.read),
        written: rest(totals.total_written, |group| group.written),
        rejected: rest(totals.total_failed, |group| group.rejected),
        skipped: rest(totals.total_skipped, |group| group.skipped),
        bytes: rest(totals.total_bytes, |group| group.bytes),
        latest_run_id: None,
        latest_status: None,
    });
}

/// The whole hours and days (UTC) inside a window, and its end with the open runs in or out. What has ended in a
/// window that reaches now ends with whole hours and days: nothing comes after now.
pub(super) struct Hours {
    pub(super) whole_from: DateTime<Utc>,
    pub(super) whole_to: DateTime<Utc>,
    pub(super) days_from: DateTime<Utc>,
    pub(super) days_to: DateTime<Utc>,
    pub(super) end: DateTime<Utc>,
}

impl Hours {
    pub(super) fn of(window: &Window) -> Self {
        let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
        let floor = |moment: DateTime<Utc>, unit| moment.duration_trunc(unit).unwrap_or(moment);
        let ceiling = |moment, unit| match floor(moment, unit) {
            floor if floor == moment => floor,
            floor => floor + unit,
        };
        let last = if window.reaches_now { open_window() } else { window.until };
        let (from, to) = (ceiling(window.since, hour), floor(last, hour));
        // A window inside one hour is all cut: [since, until) and nothing else; likewise with days.
        let (whole_from, whole_to) = if from >= to { (last, last) } else { (from, to) };
        let (from, to) = (ceiling(whole_from, day), floor(whole_to, day));
        let (days_from, days_to) = if from >= to { (whole_to, whole_to) } else { (from, to) };
        let end = if window.reaches_now { open_window() + hour } else { window.until };
        Self { whole_from, whole_to, days_from, days_to, end }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(since: &str, until: &str, reaches_now: bool) -> Hours {
        let (since, until) = (since.parse().unwrap(), until.parse().unwrap());
        Hours::of(&Window { since, until, label: None, reaches_now })
    }

    #[test]
    fn a_window_is_whole_hours_and_two_cut_ones() {
        let day = hours("2026-11-20T08:07:00Z", "2026-11-21T08:07:00Z", false);
        assert_eq!(day.whole_from.to_rfc3339(), "2026-11-20T09:00:00+00:00");
        assert_eq!(day.whole_to.to_rfc3339(), "2026-11-21T08:00:00+00:00");
        let inside = hours("2026-11-21T08:07:00Z", "2026-11-21T08:37:00Z", false);
        assert_eq!((inside.whole_from, inside.whole_to), (inside.end, inside.end));
        let even = hours("2026-11-20T08:00:00Z", "2026-11-20T09:00:00Z", false);
        assert_eq!(even.whole_from.to_rfc3339(), "2026-11-20T08:00:00+00:00");
        assert_eq!(even.whole_to, even.end);
        let across = hours("2026-11-20T08:30:00Z", "2026-11-20T09:30:00Z", false);
        assert!(across.whole_from >= across.whole_to || across.whole_from == across.end);
    }

    #[test]
    fn whole_days_lie_inside_the_hours() {
        let week = hours("2026-11-14T08:07:00Z", "2026-11-21T08:07:00Z", false);
        assert_eq!(week.days_from.to_rfc3339(), "2026-11-15T00:00:00+00:00");
        assert_eq!(week.days_to.to_rfc3339(), "2026-11-21T00:00:00+00:00");
        let short = hours("2026-11-21T02:00:00Z", "2026-11-21T08:00:00Z", false);
        assert_eq!((short.days_from, short.days_to), (short.whole_to, short.whole_to));
    }

    #[test]
    fn a_window_that_reaches_now_is_cut_at_its_beginning_only() {
        let week = hours("2026-11-14T08:07:00Z", "2026-11-21T08:07:00Z", true);
        assert_eq!(week.whole_from.to_rfc3339(), "2026-11-14T09:00:00+00:00");
        assert_eq!(week.days_from.to_rfc3339(), "2026-11-15T00:00:00+00:00");
        assert_eq!((week.whole_to, week.days_to), (open_window(), open_window()));
        assert!(week.end > open_window(), "open runs belong to it");
    }
}
