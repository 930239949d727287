//! One run with everything beside it: attempts, timeline, errors, neighbours, and what changed before it.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::flows::{RunBrief, brief_columns};
use super::runs::{Run, run_columns, run_joins};
use super::{Reader, StoreError};
use crate::domain::ids::RunId;

statements! {
    RUN = tenant "
        select ", run_columns!(), ",
               coalesce((select json_agg(json_build_object('attempt', a.attempt, 'status', a.status,
                            'started_at', a.started_at, 'finished_at', a.finished_at,
                            'records_written', a.records_written, 'error_class', a.error_class, 'message', a.message)
                            order by a.attempt)
                           from (select a.attempt, a.status, a.started_at, a.finished_at, a.records_written,
                                        a.error_class, a.message
                                   from run_attempts a where a.customer_id = $1 and a.run_id = r.run_id
                                 union all
                                 select r.attempt, 'running', r.attempt_at, null,
                                        r.records_written - (
                                            select coalesce(sum(b.records_written), 0)::bigint from run_attempts b
                                             where b.customer_id = $1 and b.run_id = r.run_id and b.attempt < r.attempt),
                                        null, null
                                  where r.attempt_at is not null and r.finished_at is null) a), '[]') as attempts,
               coalesce((select json_agg(json_build_object('seq', e.seq, 'at', e.at, 'kind', e.kind,
                            'message', e.message) order by e.seq)
                           from (select e.seq, e.at, e.kind, e.message from run_events e
                                  where e.customer_id = $1 and e.run_id = r.run_id
                                  order by e.seq desc limit 40) e), '[]') as events,
               coalesce((select json_agg(g order by g.count desc, g.key)
                           from (select eg.error_class as key, sum(c.count)::bigint as count
                                   from run_error_counts c
                                   join error_groups eg on eg.customer_id = $1 and eg.group_id = c.group_id
                                  where c.customer_id = $1 and c.run_id = r.run_id
                                  group by eg.error_class) g), '[]') as errors,
               (select to_json(p) from (
                    select ", brief_columns!("p"), ", p.flow_version
                      from runs p
                     where p.customer_id = $1 and p.flow_id = r.flow_id
                       and (p.window_at, p.run_id) < (r.window_at, r.run_id)
                       and p.status in ('succeeded', 'partial', 'failed', 'cancelled')
                     order by p.window_at desc, p.run_id desc limit 1) p) as previous_run,
               (select to_json(p) from (
                    select ", brief_columns!("p"), ", p.flow_version
                      from runs p
                     where p.customer_id = $1 and p.flow_id = r.flow_id
                       and (p.window_at, p.run_id) > (r.window_at, r.run_id)
                       and p.status in ('succeeded', 'partial', 'failed', 'cancelled')
                     order by p.window_at, p.run_id limit 1) p) as next_run,
               to_json(s) as last_success,
               coalesce((select json_agg(json_build_object('version', v.version, 'at', v.created_at,
                            'by', v.created_by, 'summary', v.summary) order by v.version)
                           from (select v.version, v.created_at, v.created_by, v.summary from flow_versions v
                                  where v.customer_id = $1 and v.flow_id = r.flow_id
                                    and v.version > s.flow_version
                                    and v.created_at <= coalesce(r.finished_at + interval '6 hours', $3)
                                  order by v.version desc limit 12) v), '[]') as versions,
               c.changes, c.changes_unlisted,
               (select count(*) from (
                    select 1 from runs q
                     where q.customer_id = $1 and q.origin = 'native' and q.status in ('queued', 'retrying')
                       and r.status = 'queued'
                       and (q.priority, q.available_at, q.run_id) <= (r.priority, r.available_at, r.run_id)
                     limit 1000) w) as queue_position,
               (select o.run_id from runs o
                 where o.customer_id = $1 and o.flow_id = r.flow_id and o.origin = 'native'
                   and o.status in ('running', 'retrying', 'cancelling')
                   and r.origin = 'native' and r.status = 'queued') as waits_for,
               (select percentile_cont(0.5) within group (order by extract(epoch from d.finished_at - d.started_at) * 1000)
                  from (select d.finished_at, d.started_at from runs d
                         where d.customer_id = $1 and d.flow_id = r.flow_id and d.status = 'succeeded'
                           and d.started_at is not null
                         order by d.window_at desc, d.run_id desc limit 20) d)::bigint as median_ms
          from runs r
          ", run_joins!(), "
          left join lateral (
               select ", brief_columns!("p"), ", p.flow_version
                 from runs p
                where p.customer_id = $1 and p.flow_id = r.flow_id and p.status = 'succeeded'
                  and (p.window_at, p.run_id) < (r.window_at, r.run_id)
                order by p.window_at desc, p.run_id desc limit 1) s on true
         cross join lateral (
               select coalesce(json_agg(json_build_object('at', l.at, 'action', l.action, 'by', l.actor_label,
                          'message', l.message) order by l.at, l.audit_id), '[]') as changes,
                      coalesce(max(l.matching), 0) - count(*) as changes_unlisted
                 from (select l.at, l.audit_id, l.action, l.actor_label, l.message, count(*) over () as matching
                         from audit_log l
                        where l.customer_id = $1 and l.target_id in (r.flow_id, r.source_connector_id, r.destination_connector_id)
                          and l.action not in ('run.triggered', 'flow.changed')
                          and l.at > coalesce(s.finished_at, r.queued_at)
                          and l.at <= coalesce(r.finished_at + interval '6 hours', $3)
                        order by l.at desc, l.audit_id desc limit 12) l) c
         where r.customer_id = $1 and caller.id = $1 and r.run_id = $4
         limit 1";
}

/// Versions of a flow that are listed with a run at most.
const MAX_VERSIONS: usize = 12;

/// Everything there is to say of one run.
#[derive(Clone, Debug)]
pub struct RunDetail {
    /// The run.
    pub run: Run,
    /// Its attempts, first to last.
    pub attempts: Vec<Attempt>,
    /// Its last forty events, in order.
    pub events: Vec<Event>,
    /// Its errors by class, most first.
    pub errors: Vec<ClassCount>,
    /// The run of the flow that ended before it.
    pub previous_run: Option<RunBrief>,
    /// The run of the flow that ended after it.
    pub next_run: Option<RunBrief>,
    /// The last run before it that succeeded.
    pub last_success: Option<RunBrief>,
    /// The newest twelve versions of the flow made since then, until six hours after the run.
    pub versions: Vec<VersionChange>,
    /// The newest twelve things that people did to the flow and its connectors since then, until six hours after the run,
    /// but for new versions.
    pub changes: Vec<Change>,
    /// How many more came before those listed.
    pub changes_unlisted: i64,
    /// Its place in the customer's queue, from 1, while it waits for nothing but a worker.
    pub queue_position: Option<i64>,
    /// The run of its flow that holds it back in the queue.
    pub waits_for: Option<RunId>,
    /// Median duration of the flow's last twenty successful runs.
    pub median_ms: Option<i64>,
}

impl RunDetail {
    /// How many versions of the flow were made since the last success and before the oldest of those listed: they are
    /// numbered one by one.
    pub fn versions_unlisted(&self) -> i32 {
        match (self.versions.first(), self.last_success.as_ref().and_then(|run| run.flow_version)) {
            (Some(oldest), Some(success)) if self.versions.len() == MAX_VERSIONS => {
                oldest.version - success - 1
            }
            _ => 0,
        }
    }

    /// How many events came before those listed.
    pub fn events_unlisted(&self) -> i32 {
        self.events.first().map_or(0, |first| first.seq - 1)
    }
}

/// One try of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: i32,
    /// How it went.
    pub status: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Records it wrote.
    pub records_written: i64,
    /// What went wrong.
    pub error_class: Option<String>,
    /// The same in words.
    pub message: Option<String>,
}

/// A line of the timeline.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// From 1, one by one.
    pub seq: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// What sort of thing happened.
    pub kind: String,
    /// One sentence.
    pub message: String,
}

/// How many errors of a class a run had.
#[derive(Clone, Debug, Deserialize)]
pub struct ClassCount {
    /// The class.
    pub key: String,
    /// How many.
    pub count: i64,
}

/// A version of a flow, as a change.
#[derive(Clone, Debug, Deserialize)]
pub struct VersionChange {
    /// Its number.
    pub version: i32,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: Option<String>,
    /// What changed.
    pub summary: Option<String>,
}

/// Something that people did to a flow or connector.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    /// When.
    pub at: DateTime<Utc>,
    /// What, e.g. `flow.paused`.
    pub action: String,
    /// Who.
    pub by: Option<String>,
    /// Their words.
    pub message: Option<String>,
}

#[derive(FromRow)]
struct DetailRow {
    #[sqlx(flatten)]
    run: Run,
    attempts: Json<Vec<Attempt>>,
    events: Json<Vec<Event>>,
    errors: Json<Vec<ClassCount>>,
    previous_run: Option<Json<RunBrief>>,
    next_run: Option<Json<RunBrief>>,
    last_success: Option<Json<RunBrief>>,
    versions: Json<Vec<VersionChange>>,
    changes: Json<Vec<Change>>,
    changes_unlisted: i64,
    queue_position: i64,
    waits_for: Option<String>,
    median_ms: Option<i64>,
}

impl Reader<'_> {
    /// Everything there is to say of a run, or `None` when the customer has no run with that id.
    ///
    /// # Errors
    /// When the database fails, or the row holds something this build does not know.
    pub async fn run(&self, id: &RunId) -> Result<Option<RunDetail>, StoreError> {
        let row: Option<DetailRow> =
            self.query_as(RUN).bind(id.as_str().to_owned()).fetch_optional(self.store().reads()).await?;
        let Some(row) = row else { return Ok(None) };
        let waits_for = row.waits_for.map(|run| RunId::parse(&run)).transpose();
        let waits_for = waits_for.map_err(|_| StoreError::inconsistent("runs", "run_id"))?;
        Ok(Some(RunDetail {
            run: row.run,
            attempts: row.attempts.0,
            events: row.events.0,
            errors: row.errors.0,
            previous_run: row.previous_run.map(|json| json.0),
            next_run: row.next_run.map(|json| json.0),
            last_success: row.last_success.map(|json| json.0),
            versions: row.versions.0,
            changes: row.changes.0,
            changes_unlisted: row.changes_unlisted,
            queue_position: Some(row.queue_position).filter(|place| *place > 0 && waits_for.is_none()),
            waits_for,
            median_ms: row.median_ms,
        }))
    }
}
