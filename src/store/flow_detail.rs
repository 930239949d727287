//! One flow, in full.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::flows::{Flow, FlowRow, RunBrief, brief_columns, flow_columns, flow_joins};
use super::run_detail::VersionChange;
use super::{Reader, StoreError};
use crate::domain::definition::FlowDefinition;
use crate::domain::ids::FlowId;
use crate::domain::run::Records;

statements! {
    FLOW = tenant "
        select ", flow_columns!(), ",
               f.max_attempts, f.timeout_s, f.max_error_rate, f.degraded_error_rate,
               v.definition, v.created_at as version_at, v.created_by as version_by, v.summary as version_summary,
               to_jsonb(o) as open_run,
               coalesce((select jsonb_agg(n.label order by n.label) from flow_names n
                          where n.customer_id = $1 and n.flow_id = f.flow_id and n.kind = 'alias'), '[]') as aliases,
               coalesce((select jsonb_agg(s) from (
                    select w.hours, x.*
                      from (select hours, $3 - hours * interval '1 hour' as since,
                                   date_trunc('day', $3 - hours * interval '1 hour', 'UTC') + interval '1 day' as midnight
                              from (values (24), (168)) w (hours)) w
                     cross join lateral (
                           select sum(h.runs)::bigint as runs,
                                  sum(h.failed)::bigint as failed,
                                  sum(h.records_read)::bigint as read, sum(h.records_written)::bigint as written,
                                  sum(h.records_failed)::bigint as rejected, sum(h.records_skipped)::bigint as skipped,
                                  sum(h.records_unchanged)::bigint as unchanged
                             from (select h.runs, h.failed, h.records_read, h.records_written, h.records_failed, h.records_skipped,
                                          h.records_unchanged
                                     from run_stats h
                                    where h.customer_id = $1 and h.flow_id = f.flow_id and h.grain = 'hour' and h.status = ''
                                      and h.at > w.since and h.at < w.midnight
                                    union all
                                   select h.runs, h.failed, h.records_read, h.records_written, h.records_failed, h.records_skipped,
                                          h.records_unchanged
                                     from run_stats h
                                    where h.customer_id = $1 and h.flow_id = f.flow_id and h.grain = 'day' and h.status = ''
                                      and h.at >= w.midnight
                                    union all
                                   select 1, (r.status = 'failed')::integer, r.records_read, r.records_written, r.records_failed, r.records_skipped,
                                          r.records_unchanged
                                     from runs r
                                    where r.customer_id = $1 and r.flow_id = f.flow_id
                                      and r.window_at >= w.since
                                      and r.window_at < date_trunc('hour', w.since, 'UTC') + interval '1 hour') h) x
                     where x.runs is not null) s), '[]') as stats,
               (select percentile_cont(0.5) within group (order by extract(epoch from d.finished_at - d.started_at) * 1000)
                  from (select d.finished_at, d.started_at from runs d
                         where d.customer_id = $1 and d.flow_id = f.flow_id and d.status = 'succeeded'
                           and d.started_at is not null
                         order by d.window_at desc, d.run_id desc limit 20) d)::bigint as median_ms
          from flows f ", flow_joins!(), "
          join flow_versions v on v.customer_id = $1 and v.flow_id = f.flow_id and v.version = f.current_version
          left join lateral (
               select ", brief_columns!("r"), "
                 from runs r
                where r.customer_id = $1 and r.flow_id = f.flow_id
                  and r.status in ('queued', 'running', 'retrying', 'cancelling')
                order by (r.status = 'queued'), r.queued_at limit 1) o on true
         where f.customer_id = $1 and caller.id = $1 and f.flow_id = $4
         limit 1";
    DEFINITION = tenant "
        select f.current_version, v.definition
          from flows f
          join flow_versions v on v.customer_id = $1 and v.flow_id = f.flow_id and v.version = f.current_version
         where f.customer_id = $1 and caller.id = $1 and f.flow_id = $4
         limit 1";
}

/// A flow in full.
#[derive(Clone, Debug)]
pub struct FlowDetail {
    /// The flow.
    pub flow: Flow,
    /// Its other names.
    pub aliases: Vec<String>,
    /// What its current version does.
    pub definition: FlowDefinition,
    /// Its current version, as a change.
    pub version: VersionChange,
    /// Attempts per run.
    pub max_attempts: i32,
    /// Longest run, in seconds.
    pub timeout_s: i32,
    /// Share of rejected records from which a run fails, 0 to 1.
    pub max_error_rate: f64,
    /// Share of rejected records from which the flow is degraded, 0 to 1.
    pub degraded_error_rate: f64,
    /// The run that is queued or going.
    pub open_run: Option<RunBrief>,
    /// Figures of the last 24 hours and 7 days.
    pub stats: Vec<FlowStats>,
    /// Median duration of its last twenty successful runs.
    pub median_ms: Option<i64>,
}

/// What the runs of a flow came to in the last hours.
#[derive(Clone, Debug, Deserialize)]
pub struct FlowStats {
    /// How many hours.
    pub hours: i32,
    /// Runs that ended.
    pub runs: i64,
    /// Of these, failed.
    pub failed: i64,
    read: i64,
    written: i64,
    rejected: i64,
    skipped: i64,
    unchanged: i64,
}

impl FlowStats {
    /// What happened to their records.
    pub fn records(&self) -> Records {
        Records::new(self.read, self.written, self.rejected, self.skipped).with_unchanged(self.unchanged)
    }
}

#[derive(FromRow)]
struct DetailRow {
    #[sqlx(flatten)]
    flow: FlowRow,
    aliases: Json<Vec<String>>,
    definition: Json<FlowDefinition>,
    version_at: DateTime<Utc>,
    version_by: Option<String>,
    version_summary: Option<String>,
    max_attempts: i32,
    timeout_s: i32,
    max_error_rate: f64,
    degraded_error_rate: f64,
    open_run: Option<Json<RunBrief>>,
    stats: Json<Vec<FlowStats>>,
    median_ms: Option<i64>,
}
impl Reader<'_> {
    /// A flow in full, or `None` when the customer has no flow with that id.
    ///
    /// # Errors
    /// When the database fails, or the row holds something this build does not know.
    pub async fn flow(&self, id: &FlowId) -> Result<Option<FlowDetail>, StoreError> {
        let row: Option<DetailRow> =
            self.query_as(FLOW).bind(id.as_str().to_owned()).fetch_optional(self.store().reads()).await?;
        let Some(row) = row else { return Ok(None) };
        let flow: Flow = row.flow.try_into()?;
        Ok(Some(FlowDetail {
            version: VersionChange {
                version: flow.version,
                at: row.version_at,
                by: row.version_by,
                summary: row.version_summary,
            },
            flow,
            aliases: row.aliases.0,
            definition: row.definition.0,
            max_attempts: row.max_attempts,
            timeout_s: row.timeout_s,
            max_error_rate: row.max_error_rate,
            degraded_error_rate: row.degraded_error_rate,
            open_run: row.open_run.map(|json| json.0),
            stats: row.stats.0,
            median_ms: row.median_ms,
        }))
    }

    /// What the current version of a flow does, with its number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn definition(&self, id: &FlowId) -> Result<Option<(i32, FlowDefinition)>, StoreError> {
        let row: Option<(i32, Json<FlowDefinition>)> = self
            .query_as(DEFINITION)
            .bind(id.as_str().to_owned())
            .fetch_optional(self.store().reads())
            .await?;
        Ok(row.map(|(version, definition)| (version, definition.0)))
    }
}
