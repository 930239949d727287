//! The statements of lists of runs, composed by their shape.
//!
//! What totals and groups are summed from is told in `run_cells`.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use super::run_cells::CELL;
use super::runs::{run_columns, run_joins};
use crate::domain::run::RunGrouping;

/// Groups shown at most; the rest is one group `other`.
pub(super) const MAX_GROUPS: usize = 50;

/// The head of every shape.
const CALLER: &str = caller!();

/// Gives types to the parameters that a shape leaves out, or does not compare with a column first.
const TYPES: &str = "parameters as (
    select $4::timestamptz, $5::timestamptz, $6::timestamptz, $7::timestamptz, $9::text, $10::text, $11::text[],
           $12::text[], $13::text[], $14::timestamptz, $15::text, $16::timestamptz, $17::timestamptz)";

/// The shape of a statement: which filters it has and what it groups by, or that it goes on after a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) flow: bool,
    pub(super) connector: bool,
    pub(super) status: bool,
    pub(super) trigger: bool,
    pub(super) after: bool,
    pub(super) grouping: RunGrouping,
}

/// One text per shape, made once and kept for good, so that each is one prepared statement.
static TEXTS: LazyLock<Mutex<BTreeMap<Shape, &'static str>>> = LazyLock::new(Mutex::default);

impl Shape {
    pub(super) fn text(self) -> &'static str {
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

    /// The filters that it has on `x`: on the flow, the connectors, the states and the triggers.
    pub(super) fn filters(self) -> [&'static str; 4] {
        [
            (self.flow, " and x.flow_id = $10"),
            (
                self.connector,
                " and (x.source_connector_id = any ($11) or x.destination_connector_id = any ($11))",
            ),
            (self.status, " and x.status = any ($12)"),
            (self.trigger, " and x.trigger = any ($13)"),
        ]
        .map(|(on, text)| if on { text } else { "" })
    }

    /// `$4..$5` the page's window, `$6..$7` whole hours, `$4..$6` and `$7..$5` the cut hours, `$16..$17` the whole
    /// days among them, `$8` rows, `$9` zone, `$10` flow, `$11` connectors, `$12` states, `$13` triggers, `$14, $15`
    /// where to go on; `parameters` give types to all that have none by their use.
    fn compose(self) -> String {
        let filter = |on: bool, text: &'static str| if on { text } else { "" };
        let [flow, connector, _, trigger] = self.filters();
        let after = filter(self.after, " and (x.window_at, x.run_id) < ($14, $15)");
        // No index has all filters: what nothing matches is known from the totals and not looked for.
        let any =
            filter(!self.after && (self.connector || self.trigger), " and (select t.runs from totals t) > 0");
        let page = match (self.status, self.connector || self.trigger) {
            (true, _) => format!(
                "select r.* from (select distinct unnest($12::text[])) as wanted (status)
                  cross join lateral (
                        select * from runs x
                         where x.customer_id = $1 and caller.id = $1 and x.status = wanted.status{any}
                           and x.window_at >= $4 and x.window_at < $5{flow}{connector}{trigger}{after}
                         order by x.window_at desc, x.run_id desc limit $8) r
                  order by r.window_at desc, r.run_id desc limit $8"
            ),
            // What the filter passes over is passed over in the index.
            (false, true) => format!(
                "select r.* from (
                        select x.run_id from runs x
                         where x.customer_id = $1 and caller.id = $1{any}
                           and x.window_at >= $4 and x.window_at < $5{flow}{connector}{trigger}{after}
                         order by x.window_at desc, x.run_id desc limit $8) x
                   join runs r on r.customer_id = $1 and r.run_id = x.run_id
                  order by r.window_at desc, r.run_id desc limit $8"
            ),
            (false, false) => format!(
                "select * from runs x
                  where x.customer_id = $1 and caller.id = $1{any}
                    and x.window_at >= $4 and x.window_at < $5{flow}{after}
                  order by x.window_at desc, x.run_id desc limit $8"
            ),
        };
        let (columns, joins) = (run_columns!(), run_joins!());
        if self.after {
            // One caller's row beside them leaves the rows of a page in their order; to ask for it again would sort them.
            return format!(
                "with {CALLER}, {TYPES}
                 select p.*
                   from caller
                   left join lateral (
                        select {columns} from ({page}) r {joins} order by r.window_at desc, r.run_id desc) p on true
                  where caller.id = $1"
            );
        }
        let (cells, split) = (self.cells(self.of_flows()), self.split());
        let sums = "sum(c.runs)::bigint as runs,
            sum(c.runs - c.partial - c.failed - c.cancelled - c.skipped - c.active)::bigint as succeeded,
            sum(c.partial)::bigint as partial, sum(c.failed)::bigint as failed, sum(c.active)::bigint as active,
            sum(c.cancelled)::bigint as cancelled, sum(c.skipped)::bigint as skipped_runs,
            sum(c.records_read)::bigint as read, sum(c.records_written)::bigint as written,
            sum(c.records_failed)::bigint as rejected, sum(c.records_skipped)::bigint as skipped,
            sum(c.records_unchanged)::bigint as unchanged,
            sum(c.bytes_written)::bigint as bytes";
        let groups = self.groups(sums);
        let (shared, flow_cells) = self.shared();
        format!(
            "with {CALLER}, {TYPES}, {split}
             cells ({CELL}) as materialized ({cells}),{flow_cells}
             totals as materialized (
                select coalesce(sum(c.runs), 0)::bigint as runs,
                       coalesce(sum(c.runs - c.partial - c.failed - c.cancelled - c.skipped - c.active), 0)::bigint as succeeded,
                       coalesce(sum(c.partial), 0)::bigint as partial,
                       coalesce(sum(c.failed), 0)::bigint as failed,
                       coalesce(sum(c.cancelled), 0)::bigint as cancelled,
                       coalesce(sum(c.skipped), 0)::bigint as skipped,
                       coalesce(sum(c.active), 0)::bigint as active,
                       coalesce(sum(c.records_read), 0)::bigint as total_read,
                       coalesce(sum(c.records_written), 0)::bigint as total_written,
                       coalesce(sum(c.records_failed), 0)::bigint as total_failed,
                       coalesce(sum(c.records_skipped), 0)::bigint as total_skipped,
                       coalesce(sum(c.records_unchanged), 0)::bigint as total_unchanged,
                       coalesce(sum(c.bytes_written), 0)::bigint as total_bytes
                  from cells c),
             page as (
                select {columns}
                  from caller cross join lateral ({page}) r
                  {joins})
             select t.runs, t.succeeded, t.partial, t.failed, t.cancelled, t.skipped, t.active, t.total_read,
                    t.total_written, t.total_failed, t.total_skipped, t.total_unchanged, t.total_bytes,
                    (row_number() over ()) = 1 as first_row,
                    case when (row_number() over ()) = 1 then {groups} end as groups,
                    case when (row_number() over ()) = 1 then {shared} end as shared, p.*
               from totals t
               left join page p on true
              where (select id from caller) = $1
              order by p.window_at desc, p.run_id desc"
        )
    }

    /// The connectors that all runs share, and the cells that this takes besides.
    fn shared(self) -> (String, String) {
        // Only a question when they were picked by something else.
        if !(self.status || self.flow) {
            return ("null::json".to_owned(), String::new());
        }
        let (cells, flow_cells) = if self.of_flows() {
            ("cells", String::new())
        } else {
            ("flow_cells", format!(" flow_cells ({CELL}) as materialized ({}),", self.cells(true)))
        };
        // What the runs of the page do not share, all runs do not, and the many cells of flows are not read.
        let shared = format!(
            concat!(
                "case when not exists (select 1 from page) or exists (
                    select 1
                      from page r
                     cross join lateral (select r.source_connector_id union select r.destination_connector_id) k (connector_id)
                     group by k.connector_id
                    having count(*) = (select count(*) from page)) then
                (select json_agg(json_build_object('connector_id', n.connector_id, 'name', n.name, 'status', ",
                status_now!("n"),
                ", 'auth_status', n.auth_status, 'reason', case when not ",
                stale!("n"),
                " then n.status_reasons -> 0 ->> 'message' end) order by n.name)
                from (select k.connector_id
                        from {cells} c
                       cross join lateral (select c.source_connector_id
                    union all select c.destination_connector_id where c.destination_connector_id <> c.source_connector_id) k (connector_id)
                       group by k.connector_id
                      having sum(c.runs) >= (select runs from totals) and (select runs from totals) >= 2) k
                join connectors n on n.customer_id = $1 and n.connector_id = k.connector_id) end"
            ),
            cells = cells
        );
        (shared, flow_cells)
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
            // (the moment itself, in the order of which they come; it is named where it is read)
            RunGrouping::Hour => "c.hour",
            RunGrouping::Day => "to_char(c.hour at time zone $9, 'YYYY-MM-DD')",
        };
        let from = match self.grouping {
            RunGrouping::Connector => {
                "cells c
                  cross join lateral (select c.source_connector_id
                    union all select c.destination_connector_id where c.destination_connector_id <> c.source_connector_id) k (connector_id)"
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
                    'cancelled', g.cancelled, 'skipped_runs', g.skipped_runs,
                    'read', g.read, 'written', g.written, 'rejected', g.rejected, 'skipped', g.skipped,
                    'unchanged', g.unchanged,
                    'bytes', g.bytes, 'latest_run_id', l.run_id, 'latest_status', l.status) order by {order})
                from (select g.* from (select {key} as key, {sums} from {from} group by 1
                                        having sum(c.runs) > 0) g
                       order by {order} limit {MAX_GROUPS}) g
                {latest})"
        )
    }
}

/// Every statement of this file.
pub(super) fn all() -> Vec<&'static str> {
    Shape::all().map(Shape::text).collect()
}
