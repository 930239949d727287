//! What the totals and groups of a list of runs are summed from.
//!
//! Whole days and hours come from the roll-ups, the two hours at most that the window cuts from the runs themselves,
//! together with the runs that are still open. What does not ask for a flow or connector reads the roll-up of all flows.

use super::run_shapes::Shape;
use crate::domain::run::RunGrouping;

/// The columns of a cell. The state is told where something asks for it; what succeeded is what no other column counts.
pub(super) const CELL: &str = "hour, flow_id, source_connector_id, destination_connector_id, trigger, status, runs,
    partial, failed, cancelled, skipped, active, records_read, records_written, records_failed, records_skipped,
    bytes_written";

impl Shape {
    /// The cells of the window; `$n` are those of [`Shape`]'s statements.
    pub(super) fn cells(self) -> String {
        format!(
            "{} union all {} union all {}",
            self.rolled_up(),
            self.run_by_run("$4", "$6"),
            self.run_by_run("$7", "$5")
        )
    }

    /// Whole days and hours of the window.
    fn rolled_up(self) -> String {
        let [_, connector, _, trigger] = self.filters();
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
        // What succeeded is what stands in the rows of all states without what stands in those of others.
        let every = "'{\"\",partial,failed,cancelled,skipped}'::text[]";
        let states = match (self.status, self.grouping) {
            (true, _) => Some(format!("case when 'succeeded' = any ($12) then {every} else $12 end")),
            (false, RunGrouping::Status) => Some(every.to_owned()),
            (false, _) => None,
        };
        let wanted = if self.status { "where s.status = any ($12)" } else { "" };
        // The indexes lead with the state: each is looked up by itself, lest the planner read all of them.
        let (from, each, state, sign, parts) = match states {
            Some(states) => (
                format!("caller cross join (select distinct unnest({states})) each (status)"),
                "each.status",
                "s.status",
                "s.sign * ",
                format!(
                    "cross join lateral (values (coalesce(nullif(x.status, ''), 'succeeded'), 1),
                        ('succeeded', case x.status when '' then 0 else -1 end)) s (status, sign) {wanted}"
                ),
            ),
            None => ("caller".to_owned(), "''", "''", "", String::new()),
        };
        // An empty span is not looked for.
        let span = |grain: &str, since: &str, until: &str| {
            format!(
                "select x.at, x.flow_id, x.source_connector_id, x.destination_connector_id, x.trigger, {state},
                        {sign}x.runs, {sign}x.partial, {sign}x.failed, {sign}x.cancelled, {sign}x.skipped, 0,
                        {sign}x.records_read, {sign}x.records_written, {sign}x.records_failed,
                        {sign}x.records_skipped, {sign}x.bytes_written
                   from {from} cross join lateral (
                        select * from run_stats x
                         where x.customer_id = $1 and caller.id = $1 and {which} and x.grain = '{grain}'
                           and x.status = {each} and x.at >= {since} and x.at < {until} and {since} < {until}
                           {connector}{trigger}
                        offset 0) x {parts}"
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

    /// Runs that ended between two times.
    fn run_by_run(self, since: &str, until: &str) -> String {
        let [flow, connector, status, trigger] = self.filters();
        format!(
            "select least(date_trunc('hour', x.window_at, 'UTC'), $3), x.flow_id, x.source_connector_id,
                    x.destination_connector_id, x.trigger, x.status, 1::bigint, (x.status = 'partial')::integer,
                    (x.status = 'failed')::integer, (x.status = 'cancelled')::integer, (x.status = 'skipped')::integer,
                    (x.status in ('queued', 'running', 'retrying', 'cancelling'))::integer, x.records_read,
                    x.records_written, x.records_failed, x.records_skipped, x.bytes_written
               from caller cross join lateral (
                    select * from runs x
                     where x.customer_id = $1 and caller.id = $1
                       and x.window_at >= {since} and x.window_at < {until}{flow}{connector}{status}{trigger}
                    offset 0) x"
        )
    }
}
