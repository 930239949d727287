//! Errors, read: those of one run, and what those of a flow come to over a window.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use super::hours::Hours;
use super::{Reader, StoreError};
use crate::domain::error_class::{ErrorClass, ErrorGrouping, Origin, Stage};
use crate::domain::ids::{FlowId, RunId};
use crate::domain::window::Window;
use crate::json::{self, Plain};

/// What an error group is called at the level `$5`, over `g` (error_groups).
macro_rules! group_key {
    ($level:literal) => {
        concat!(
            "case ",
            $level,
            " when 'class' then g.error_class when 'code' then g.code
                  when 'field' then coalesce(g.field, '(none)') when 'group' then g.group_id else '' end"
        )
    };
}

statements! {
    RUN_ERRORS = tenant "
        select n.keys, n.errors, t.groups
          from (select count(distinct ", group_key!("$5"), ") as keys, coalesce(sum(c.count), 0)::bigint as errors
                  from run_error_counts c
                  join error_groups g on g.customer_id = $1 and g.group_id = c.group_id
                 where c.customer_id = $1 and c.run_id = $4
                   and ($6::text is null or lower($6) in (lower(g.error_class), lower(g.code), lower(g.group_id)))
                   and ($7::text is null or lower($7) = lower(coalesce(g.field, '(none)')))) n
         cross join lateral (
               select coalesce(jsonb_agg(jsonb_build_object(
                          'key', k.key, 'count', k.errors, 'error_class', k.error_class, 'code', k.code, 'stage', k.stage,
                          'origin', k.origin, 'field', k.field, 'message', k.message, 'first_seen_at', k.first_at,
                          'last_seen_at', k.last_at, 'last_run_id', $4, 'runs', 1, 'samples', coalesce(s.samples, '[]'))
                          order by k.errors desc, k.key), '[]') as groups
                 from (select ", group_key!("$5"), " as key, sum(c.count)::bigint as errors,
                              array_agg(c.group_id) as group_ids, min(c.first_at) as first_at, max(c.last_at) as last_at,
                              (array_agg(g.error_class order by c.count desc, g.group_id))[1] as error_class,
                              (array_agg(g.code order by c.count desc, g.group_id))[1] as code,
                              (array_agg(g.stage order by c.count desc, g.group_id))[1] as stage,
                              (array_agg(g.origin order by c.count desc, g.group_id))[1] as origin,
                              (array_agg(g.field order by c.count desc, g.group_id))[1] as field,
                              (array_agg(g.message order by c.count desc, g.group_id))[1] as message
                         from run_error_counts c
                         join error_groups g on g.customer_id = $1 and g.group_id = c.group_id
                        where c.customer_id = $1 and c.run_id = $4
                          and ($6::text is null or lower($6) in (lower(g.error_class), lower(g.code), lower(g.group_id)))
                          and ($7::text is null or lower($7) = lower(coalesce(g.field, '(none)')))
                        group by 1
                        order by errors desc, key
                        limit 50) k
                left join lateral (
                      select jsonb_agg(jsonb_build_object('error_id', e.error_id, 'occurred_at', e.occurred_at,
                                 'record_key', e.record_key, 'message', e.message, 'payload', e.payload,
                                 'truncated', e.payload_truncated) order by e.occurred_at, e.error_id) as samples
                        from (select e.* from run_errors e
                               where e.customer_id = $1 and e.run_id = $4 and e.group_id = any (k.group_ids)
                               order by e.occurred_at, e.error_id
                               limit $8) e) s on true) t
         where caller.id = $1
        offset 0";
    RUN_ERROR_ROWS = tenant "
        select e.error_id, e.occurred_at, g.error_class, g.code, g.stage, g.field, e.record_key, e.message,
               e.payload, e.payload_truncated
          from run_errors e
          join error_groups g on g.customer_id = $1 and g.group_id = e.group_id
         where e.customer_id = $1 and caller.id = $1 and e.run_id = $4
           and ($5::text is null or lower($5) in (lower(g.error_class), lower(g.code), lower(g.group_id)))
           and ($6::text is null or lower($6) = lower(coalesce(g.field, '(none)')))
           and ($7::timestamptz is null or (e.occurred_at, e.error_id) > ($7, $8::text))
         order by e.occurred_at, e.error_id
         limit $9";
    // A key is told by the pattern that most of its errors in the window follow, with the newest run in it that has some of
    // those; what was counted of that run may be gone by now, while the roll-ups stay: then by the newest run ever. Which
    // key a group has is looked up in one object: the planner takes all of these for few rows and would compare each with
    // each. For that reason `cells` stand by themselves too: what reads them is hashed then, and not sorted.
    FLOW_ERRORS = tenant "
        with groups as materialized (
            select g.key, g.group_id, g.error_class, g.code, g.stage, g.origin, g.field, g.message, g.last_seen_at,
                   g.last_seen_run_id, min(g.first_seen_at) over (partition by g.key) as first_seen_at
              from (select g.*, ", group_key!("$11"), " as key from error_groups g
                     where g.customer_id = $1 and g.flow_id = $4) g),
        keyed (of) as materialized (select jsonb_object_agg(g.group_id, g.key) from groups g),
        cut as materialized (
            select c.run_id, c.group_id, c.count
              from (values ($5::timestamptz, $7::timestamptz), ($8, $6::timestamptz)) cut (since, until)
             cross join lateral (
                   select c.run_id, c.group_id, c.count from run_error_counts c
                    where c.customer_id = $1 and c.flow_id = $4
                      and c.window_at >= cut.since and c.window_at < cut.until
                   offset 0) c),
        cells as materialized (
            select l.level, s.key, s.errors, s.runs
              from (select distinct unnest(array[$11::text, 'all', 'group'])) l (level)
             cross join (values ('hour', $7::timestamptz, $9::timestamptz), ('day', $9, $10), ('hour', $10, $8::timestamptz))
                   span (grain, since, until)
             cross join lateral (
                   select s.key, s.errors, s.runs from error_stats s
                    where s.customer_id = $1 and s.flow_id = $4 and s.level = l.level and s.grain = span.grain
                      and s.at >= span.since and s.at < span.until and span.since < span.until
                   offset 0) s
            union all
            select 'group', c.group_id, sum(c.count)::bigint, count(*) from cut c group by c.group_id
            union all
            select 'all', '', sum(c.count)::bigint, count(distinct c.run_id) from cut c having count(*) > 0
            union all
            select $11, k.of ->> c.group_id, sum(c.count)::bigint, count(distinct c.run_id)
              from cut c
             cross join keyed k
             where $11 <> 'group'
             group by 2),
        sums as materialized (
            select c.level, c.key, sum(c.errors)::bigint as errors, sum(c.runs)::bigint as runs
              from cells c
             group by c.level, c.key),
        keys as (select s.key, s.errors, s.runs from sums s where s.level = $11),
        most as materialized (
            select distinct on (k.of ->> s.key) k.of ->> s.key as key, s.key as group_id
              from sums s
             cross join keyed k
             where s.level = 'group'
             order by k.of ->> s.key, s.errors desc, s.key)
        select coalesce((select errors from sums where level = 'all'), 0) as errors,
               coalesce((select runs from sums where level = 'all'), 0) as runs,
               (select count(*) from keys) as keys,
               coalesce((
                   select jsonb_agg(jsonb_build_object('key', k.key, 'count', k.errors, 'runs', k.runs,
                              'error_class', d.error_class, 'code', d.code, 'stage', d.stage, 'origin', d.origin,
                              'field', d.field, 'message', d.message, 'first_seen_at', d.first_seen_at,
                              'last_seen_at', coalesce(l.last_at, d.last_seen_at),
                              'last_run_id', coalesce(l.run_id, d.last_seen_run_id),
                              'samples', coalesce(e.samples, '[]')) order by k.errors desc, k.key)
                     from (select * from keys order by errors desc, key limit $12) k
                     join most m on m.key = k.key
                     join groups d on d.group_id = m.group_id
                     left join lateral (
                          select c.run_id, c.last_at from run_error_counts c
                           where c.customer_id = $1 and c.group_id = d.group_id
                             and c.window_at >= $5 and c.window_at < $6
                           order by c.window_at desc, c.run_id desc limit 1) l on true
                     left join lateral (
                          select jsonb_agg(jsonb_build_object('error_id', e.error_id, 'occurred_at', e.occurred_at,
                                     'record_key', e.record_key, 'message', e.message, 'payload', e.payload,
                                     'truncated', e.payload_truncated)) as samples
                            from (select e.* from run_errors e
                                   where e.customer_id = $1 and e.run_id = l.run_id and e.group_id = d.group_id
                                   order by e.error_id desc limit 1) e) e on true), '[]') as groups
         where caller.id = $1
        offset 0";
}

/// Errors that have something in common.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorGroup {
    /// What: a class, a code, a field, a group's id.
    pub key: String,
    /// How many, exactly.
    pub count: i64,
    /// In how many runs.
    pub runs: i64,
    /// The class of most of them, whose pattern tells all that follows.
    pub error_class: ErrorClass,
    /// Their code.
    pub code: String,
    /// The step they failed at.
    pub stage: Stage,
    /// Whose side they come from.
    pub origin: Origin,
    /// The field.
    pub field: Option<String>,
    /// The message without its particulars.
    pub message: String,
    /// When the first was seen.
    pub first_seen_at: DateTime<Utc>,
    /// When the last of them that is as most are was seen.
    pub last_seen_at: DateTime<Utc>,
    /// In which run.
    pub last_run_id: String,
    /// Samples.
    pub samples: Vec<Sample>,
}

/// One rejected record, as kept.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    /// Its id.
    pub error_id: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// The record's own key.
    pub record_key: Option<String>,
    /// What was said.
    pub message: String,
    /// What is kept of the record.
    #[serde(default, deserialize_with = "json::optional")]
    pub payload: Option<Value>,
    /// Whether something was left out.
    pub truncated: bool,
}

/// Errors in groups.
#[derive(Clone, Debug)]
pub struct Errors {
    /// How many, exactly.
    pub total: i64,
    /// In how many runs.
    pub runs: i64,
    /// How many groups there are.
    pub keys: i64,
    /// The largest groups.
    pub groups: Vec<ErrorGroup>,
}

/// One rejected record with what went wrong.
#[derive(Clone, Debug, FromRow)]
pub struct ErrorRow {
    /// Its id.
    pub error_id: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// The class.
    pub error_class: String,
    /// The code.
    pub code: String,
    /// The step it failed at.
    pub stage: String,
    /// The field.
    pub field: Option<String>,
    /// The record's own key.
    pub record_key: Option<String>,
    /// What was said.
    pub message: String,
    /// What is kept of the record.
    pub payload: Option<Json<Plain>>,
    /// Whether something was left out.
    pub payload_truncated: bool,
}

/// Which errors of a run.
#[derive(Clone, Debug, Default)]
pub struct ErrorFilter {
    /// Of this class, code or group.
    pub kind: Option<String>,
    /// On this field.
    pub field: Option<String>,
}

impl Reader<'_> {
    /// The errors of a run in at most fifty groups, each with at most `samples` records.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails.
    pub async fn run_errors(
        &self,
        run: &RunId,
        grouping: ErrorGrouping,
        filter: &ErrorFilter,
        samples: i64,
    ) -> Result<Errors, StoreError> {
        let (keys, total, groups): (i64, i64, Json<Vec<ErrorGroup>>) = self
            .query_as(RUN_ERRORS)
            .bind(run.as_str().to_owned())
            .bind(grouping.as_str())
            .bind(filter.kind.clone())
            .bind(filter.field.clone())
            .bind(samples)
            .fetch_one(self.store().reads())
            .await?;
        Ok(Errors { total, runs: 1, keys, groups: groups.0 })
    }

    /// At most `limit` single errors of a run after `after` (time and id), oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_error_rows(
        &self,
        run: &RunId,
        filter: &ErrorFilter,
        after: Option<&(DateTime<Utc>, String)>,
        limit: i64,
    ) -> Result<Vec<ErrorRow>, StoreError> {
        Ok(self
            .query_as(RUN_ERROR_ROWS)
            .bind(run.as_str().to_owned())
            .bind(filter.kind.clone())
            .bind(filter.field.clone())
            .bind(after.map(|after| after.0))
            .bind(after.map(|after| after.1.clone()))
            .bind(limit)
            .fetch_all(self.store().reads())
            .await?)
    }

    /// What the errors of a flow come to in a window, in its `limit` largest groups. Whole days and hours
    /// come from the roll-ups, the cut hours and the open runs from what was counted run by run.
    ///
    /// # Errors
    /// [`StoreError::NotLive`] when the token was revoked meanwhile; when the database fails.
    pub async fn flow_errors(
        &self,
        flow: &FlowId,
        window: &Window,
        grouping: ErrorGrouping,
        limit: i64,
    ) -> Result<Errors, StoreError> {
        let hours = Hours::of(window);
        let (total, runs, keys, groups): (i64, i64, i64, Json<Vec<ErrorGroup>>) = self
            .query_as(FLOW_ERRORS)
            .bind(flow.as_str().to_owned())
            .bind(window.since)
            .bind(hours.end)
            .bind(hours.whole_from)
            .bind(hours.whole_to)
            .bind(hours.days_from)
            .bind(hours.days_to)
            .bind(grouping.as_str())
            .bind(limit)
            .fetch_one(self.store().reads())
            .await?;
        Ok(Errors { total, runs, keys, groups: groups.0 })
    }
}
