//! Flows, listed, and the columns that every reading of flows shows.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

pub use super::flow_detail::{FlowDetail, FlowStats};
use super::flow_health::ScheduleColumns;
use super::runs::{Side, side};
use super::{Reader, StoreError};
use crate::domain::flow::{FlowState, FlowStatus, Health, StatusReason};
use crate::domain::ids::{ConnectorId, FlowId};
use crate::domain::run::{Records, RunStatus};
use crate::domain::schedule::Schedule;

/// The columns of [`FlowRow`], over `f` (flows), `sc`, `dc` (its connectors), `u` (its owner), `l` and `ls` (its last
/// run and last success), `o` (its open run).
macro_rules! flow_columns {
    () => {
        concat!(
            "f.flow_id, f.name, f.sort_key, f.description, f.state, f.state_reason, f.state_by, f.state_changed_at, f.health,
         f.health_reasons, f.source_connector_id, sc.name as source_name, sc.service as source_service, ",
            status_now!("sc"),
            " as source_status, f.source_objects, f.destination_connector_id, dc.name as destination_name,
         dc.service as destination_service, ",
            status_now!("dc"),
            " as destination_status, f.destination_objects,
         f.schedule_kind, f.schedule_cron, f.schedule_interval_s, f.schedule_timezone, f.next_run_at, f.tags,
         u.name as owner, f.current_version, f.last_decided_at, to_jsonb(l) as last_run, to_jsonb(ls) as last_success"
        )
    };
}

/// The columns of [`RunBrief`], over the runs that are called so.
macro_rules! brief_columns {
    ($run:literal) => {
        concat!(
            $run,
            ".run_id, ",
            $run,
            ".status, ",
            $run,
            ".started_at, ",
            $run,
            ".finished_at, ",
            $run,
            ".reason_code, ",
            $run,
            ".records_read, ",
            $run,
            ".records_written, ",
            $run,
            ".records_failed, ",
            $run,
            ".records_skipped, ",
            $run,
            ".records_unchanged"
        )
    };
}

/// What [`flow_columns`] stands on, after the `from flows f`.
macro_rules! flow_joins {
    () => {
        concat!(
            "join connectors sc on sc.customer_id = $1 and sc.connector_id = f.source_connector_id
         join connectors dc on dc.customer_id = $1 and dc.connector_id = f.destination_connector_id
         left join users u on u.customer_id = $1 and u.user_id = f.owner_user_id
         left join lateral (
              select ",
            brief_columns!("r"),
            "
                from runs r where r.customer_id = $1 and r.run_id = f.last_run_id) l on true
         left join lateral (
              select ",
            brief_columns!("r"),
            "
                from runs r where r.customer_id = $1 and r.run_id = f.last_success_run_id) ls on true"
        )
    };
}

pub(super) use {brief_columns, flow_columns, flow_joins};

/// What a list of flows may be narrowed by: `$4` states, `$5` healths (of active flows), `$6` words, each to
/// be found, `$7` connector, `$8` object read, `$9` object written. (Names and owners are gathered once, not for each flow.)
macro_rules! flow_filter {
    () => {
        "(case when $4::text[] is null and $5::text[] is null then f.state in ('active', 'paused')
               else f.state = any (coalesce($4, '{}')) or (f.state = 'active' and f.health = any (coalesce($5, '{}'))) end)
         and ($6::text[] is null or not exists (
              select 1 from unnest($6) w (word)
               where position(w.word in concat_ws(' ', f.sort_key, lower(array_to_string(f.tags, ' ')),
                     (select jsonb_object_agg(n.flow_id, n.keys)
                        from (select n.flow_id, string_agg(n.name_key, ' ') as keys
                                from flow_names n where n.customer_id = $1 group by n.flow_id) n) ->> f.flow_id,
                     (select jsonb_object_agg(u.user_id, lower(u.name))
                        from users u where u.customer_id = $1) ->> f.owner_user_id)) = 0))
         and ($7::text[] is null or f.source_connector_id = any ($7) or f.destination_connector_id = any ($7))
         and ($8::text is null or $8 = any (f.object_keys_read))
         and ($9::text is null or $9 = any (f.object_keys_written))"
    };
}

/// The columns of [`FlowCounts`] but `matching`, over `f` (flows).
macro_rules! flow_counts {
    () => {
        "count(*) filter (where f.state = 'active' and f.health = 'failing') as failing,
               count(*) filter (where f.state = 'active' and f.health = 'degraded') as degraded,
               count(*) filter (where f.state = 'active' and f.health = 'pending') as pending,
               count(*) filter (where f.state = 'active' and f.health = 'healthy') as healthy,
               count(*) filter (where f.state = 'paused') as paused,
               count(*) filter (where f.state = 'draft') as draft,
               count(*) filter (where f.state = 'archived') as archived,
               extract(epoch from $3 - min(f.next_run_at) filter (where f.state = 'active' and f.next_run_at <= $3))::bigint
                   as overdue_s"
    };
}

pub(super) use flow_counts;

statements! {
    ENDS = tenant "
        select f.flow_id, r.statuses
          from unnest($4::text[]) f (flow_id)
         cross join lateral (
               select array_agg(e.status order by e.window_at, e.run_id) as statuses
                 from (select x.status, x.window_at, x.run_id from runs x
                        where x.customer_id = $1 and caller.id = $1 and x.flow_id = f.flow_id
                          and x.window_at <= $3 and x.attempt >= 0
                        order by x.window_at desc, x.run_id desc limit $5) e) r
         where r.statuses is not null and caller.id = $1
        offset 0";
    FLOWS = tenant "
        select ", flow_columns!(), "
          from (select f.* from flows f
                 where f.customer_id = $1 and caller.id = $1
                   and (f.rank, f.sort_key, f.flow_id) > (coalesce($10, 0), coalesce($11::text, ''), coalesce($12::text, ''))
                   and ", flow_filter!(), "
                 order by f.rank, f.sort_key, f.flow_id
                 limit $13) f ", flow_joins!(), "
         order by f.rank, f.sort_key, f.flow_id
        offset 0";
    FLOW_COUNTS = tenant "
        select ", flow_counts!(), ",
               count(*) filter (where ", flow_filter!(), ") as matching
          from (select * from flows f where f.customer_id = $1 and caller.id = $1 order by f.flow_id) f
        having caller.id = $1
        offset 0";
}

/// A flow as lists show it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its id.
    pub id: FlowId,
    /// Its name.
    pub name: String,
    /// Its lower-cased name, by which lists are sorted.
    pub sort_key: String,
    /// What it is for.
    pub description: Option<String>,
    /// What people decided about it.
    pub state: FlowState,
    /// Why, in their words.
    pub state_reason: Option<String>,
    /// Who.
    pub state_by: Option<String>,
    /// When.
    pub state_changed_at: DateTime<Utc>,
    /// The one word shown for it.
    pub status: FlowStatus,
    /// Why it is not healthy.
    pub reasons: Vec<StatusReason>,
    /// Where its records come from.
    pub source: Side,
    /// Where they go.
    pub destination: Side,
    /// When it runs.
    pub schedule: Schedule,
    /// When it runs next.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its owner's name.
    pub owner: Option<String>,
    /// Its current version.
    pub version: i32,
    /// When its last run that succeeded or failed ended, whether it is kept or not.
    pub last_decided_at: Option<DateTime<Utc>>,
    /// Its last run that ended.
    pub last_run: Option<RunBrief>,
    /// Its last run that succeeded.
    pub last_success: Option<RunBrief>,
}

/// A run in a few words.
#[derive(Clone, Debug, Deserialize)]
pub struct RunBrief {
    /// Its id.
    pub run_id: String,
    /// Where it is.
    pub status: RunStatus,
    /// When it started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it ended so.
    pub reason_code: Option<String>,
    /// The version of the flow that ran, where that was asked for.
    #[serde(default)]
    pub flow_version: Option<i32>,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    records_unchanged: i64,
}

impl RunBrief {
    /// What happened to its records.
    pub fn records(&self) -> Records {
        Records::new(self.records_read, self.records_written, self.records_failed, self.records_skipped)
            .with_unchanged(self.records_unchanged)
    }
}

/// Those of [`flow_columns`].
#[derive(FromRow)]
pub(super) struct FlowRow {
    flow_id: String,
    name: String,
    sort_key: String,
    description: Option<String>,
    state: String,
    state_reason: Option<String>,
    state_by: Option<String>,
    state_changed_at: DateTime<Utc>,
    health: String,
    health_reasons: Json<Vec<StatusReason>>,
    source_connector_id: String,
    source_name: String,
    source_service: String,
    source_status: String,
    source_objects: Vec<String>,
    destination_connector_id: String,
    destination_name: String,
    destination_service: String,
    destination_status: String,
    destination_objects: Vec<String>,
    #[sqlx(flatten)]
    schedule: ScheduleColumns,
    next_run_at: Option<DateTime<Utc>>,
    tags: Vec<String>,
    owner: Option<String>,
    current_version: i32,
    last_decided_at: Option<DateTime<Utc>>,
    last_run: Option<Json<RunBrief>>,
    last_success: Option<Json<RunBrief>>,
}

impl TryFrom<FlowRow> for Flow {
    type Error = StoreError;

    fn try_from(row: FlowRow) -> Result<Self, StoreError> {
        let wrong = |column| StoreError::inconsistent("flows", column);
        let state = FlowState::parse(&row.state).ok_or(wrong("state"))?;
        let health = Health::parse(&row.health).ok_or(wrong("health"))?;
        Ok(Self {
            id: FlowId::parse(&row.flow_id).map_err(|_| wrong("flow_id"))?,
            name: row.name,
            sort_key: row.sort_key,
            description: row.description,
            state,
            state_reason: row.state_reason,
            state_by: row.state_by,
            state_changed_at: row.state_changed_at,
            status: FlowStatus::of(state, health),
            reasons: if state == FlowState::Active { row.health_reasons.0 } else { Vec::new() },
            source: side(
                &row.source_connector_id,
                row.source_name,
                row.source_service,
                &row.source_status,
                row.source_objects,
            )?,
            destination: side(
                &row.destination_connector_id,
                row.destination_name,
                row.destination_service,
                &row.destination_status,
                row.destination_objects,
            )?,
            schedule: row.schedule.schedule()?,
            next_run_at: row.next_run_at.filter(|_| state == FlowState::Active),
            tags: row.tags,
            owner: row.owner,
            version: row.current_version,
            last_decided_at: row.last_decided_at,
            last_run: row.last_run.map(|json| json.0),
            last_success: row.last_success.map(|json| json.0),
        })
    }
}

/// Which flows.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// In one of these states, or (active and) of one of these healths; both empty: active and paused ones.
    pub states: Vec<FlowState>,
    /// See `states`.
    pub healths: Vec<Health>,
    /// With each of these words, lower-cased, in name, alias, tag or owner; all of them when there are none.
    pub words: Vec<String>,
    /// Reading from or writing to one of these connectors.
    pub connectors: Option<Vec<ConnectorId>>,
    /// Reading this object.
    pub reads: Option<String>,
    /// Writing this object.
    pub writes: Option<String>,
}

/// How many flows there are, whatever the filter, and how many match.
#[derive(Clone, Debug, Default, FromRow)]
pub struct FlowCounts {
    /// Failing ones.
    pub failing: i64,
    /// Degraded ones.
    pub degraded: i64,
    /// Those that never ran.
    pub pending: i64,
    /// Healthy ones.
    pub healthy: i64,
    /// Paused ones.
    pub paused: i64,
    /// Drafts.
    pub draft: i64,
    /// Archived ones.
    pub archived: i64,
    /// Those that match the filter.
    pub matching: i64,
    /// For how long the schedule of the most overdue one has waited to be followed, in seconds.
    pub overdue_s: Option<i64>,
}

/// Where a page of flows begins: after this one.
#[derive(Clone, Debug)]
pub struct FlowAfter {
    /// Its rank: failing, degraded, pending, healthy, paused, draft, archived from 1.
    pub rank: i32,
    /// Its lower-cased name.
    pub sort_key: String,
    /// Its id.
    pub flow: String,
}

impl FlowAfter {
    /// The place after `flow`.
    pub fn of(flow: &Flow) -> Self {
        Self { rank: flow.status as i32 + 1, sort_key: flow.sort_key.clone(), flow: flow.id.to_string() }
    }
}

/// How a name for objects is looked up: lower-cased, whole.
pub fn object_key(object: &str) -> String {
    object.trim().to_lowercase()
}

/// Binds `$4` to `$9`, see [`flow_filter`].
macro_rules! bind_filter {
    ($query:expr, $filter:expr) => {{
        let filter: &FlowFilter = $filter;
        let states: Vec<&'static str> = filter.states.iter().map(|state| state.as_str()).collect();
        let healths: Vec<&'static str> = filter.healths.iter().map(|health| health.as_str()).collect();
        let connectors = filter
            .connectors
            .as_ref()
            .map(|ids| ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<String>>());
        $query
            .bind((!states.is_empty()).then_some(states))
            .bind((!healths.is_empty()).then_some(healths))
            .bind((!filter.words.is_empty()).then(|| filter.words.clone()))
            .bind(connectors)
            .bind(filter.reads.as_deref().map(object_key))
            .bind(filter.writes.as_deref().map(object_key))
    }};
}

impl Reader<'_> {
    /// How the last runs of each of these flows ended, oldest first, at most `most` of each.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_ends(
        &self,
        flows: &[String],
        most: i64,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        Ok(self.query_as(ENDS).bind(flows).bind(most).fetch_all(self.store().reads()).await?)
    }

    /// At most `limit` flows after `after`: failing ones first, then degraded, pending, healthy, paused, by name.
    ///
    /// # Errors
    /// When the database fails, or a row holds something this build does not know.
    pub async fn flows(
        &self,
        filter: &FlowFilter,
        after: Option<&FlowAfter>,
        limit: i64,
    ) -> Result<Vec<Flow>, StoreError> {
        let rows: Vec<FlowRow> = bind_filter!(self.query_as(FLOWS), filter)
            .bind(after.map(|after| after.rank))
            .bind(after.map(|after| after.sort_key.clone()))
            .bind(after.map(|after| after.flow.clone()))
            .bind(limit)
            .fetch_all(self.store().reads())
            .await?;
        rows.into_iter().map(Flow::try_from).collect()
    }

    /// How many flows there are, and how many match.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails.
    pub async fn flow_counts(&self, filter: &FlowFilter) -> Result<FlowCounts, StoreError> {
        Ok(bind_filter!(self.query_as(FLOW_COUNTS), filter).fetch_one(self.store().reads()).await?)
    }
}
