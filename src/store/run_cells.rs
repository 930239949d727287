//! What the totals and groups of a list of runs are summed from.
//!
//! Whole days and hours come from the roll-ups, the two hours at most that the window cuts from the runs themselves,
//! together with the runs that are still open; and so do, where days are asked for, the hours that midnight cuts in zones
//! such as India's. What does not ask for a flow or connector reads the roll-up of all flows.

use super::run_shapes::Shape;
use crate::domain::run::RunGrouping;

/// The columns of a cell. The state is told where something asks for it; what succeeded is what no other column counts.
pub(super) const CELL: &str = "hour, flow_id, source_connector_id, destination_connector_id, trigger, status, runs,
    partial, failed, cancelled, skipped, active, records_read, records_written, records_failed, records_skipped,
    records_unchanged, bytes_written";

/// What is summed up of many rows.
const RECORDS: &str =
    "sum(x.records_read)::bigint as records_read, sum(x.records_written)::bigint as records_written,
    sum(x.records_failed)::bigint as records_failed, sum(x.records_skipped)::bigint as records_skipped,
    sum(x.records_unchanged)::bigint as records_unchanged, sum(x.bytes_written)::bigint as bytes_written";

impl Shape {
    /// The cells of the window, each of one flow and pair of connectors or each of all; `$n` are those of [`Shape`]'s
    /// statements.
    pub(super) fn cells(self, of_flows: bool) -> String {
        let cut = |since, until| {
            let any = self.any(since, until);
            self.run_by_run("caller", since, until, &any, of_flows)
        };
        let mut cells = vec![self.rolled_up(of_flows), cut("$4", "$6"), cut("$7", "$5")];
        if self.grouping == RunGrouping::Day {
            let split = "caller cross join split h";
            cells.push(self.run_by_run(split, "h.at", "h.at + interval '1 hour'", "", of_flows));
        }
        cells.join(" union all ")
    }

    /// The whole hours that midnight cuts, each with its comma; nothing where nobody asks for days.
    pub(super) fn split(self) -> &'static str {
        match self.grouping {
            RunGrouping::Day => {
                "split (at) as materialized (
                    select date_trunc('hour', n.midnight, 'UTC')
                      from (select d at time zone $9 as midnight
                              from generate_series(date_trunc('day', $6 at time zone $9),
                                       least($7, $3) at time zone $9, interval '1 day') d) n
                     where n.midnight > date_trunc('hour', n.midnight, 'UTC')
                       and date_trunc('hour', n.midnight, 'UTC') >= $6
                       and date_trunc('hour', n.midnight, 'UTC') < $7),"
            }
            _ => "",
        }
    }

    /// Whole days and hours of the window.
    fn rolled_up(self, of_flows: bool) -> String {
        let [.., trigger] = self.filters();
        // Of few rows the planner thinks that they are best sorted to be summed up, and they may be very many. Of this
        // condition, and of a span whose end it does not see to belong to its beginning (below), it expects more.
        let connector = if self.connector {
            " and coalesce(x.source_connector_id = any ($11) or x.destination_connector_id = any ($11), false)"
        } else {
            ""
        };
        let which = match (self.flow, of_flows) {
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
        let split = match self.grouping {
            RunGrouping::Day => " and x.at <> all (array(select h.at from split h))",
            _ => "",
        };
        let (keys, by) = self.keys(of_flows, "x.at");
        let by = if by.is_empty() { "()" } else { &by };
        // An empty span is not looked for.
        let span = |grain: &str, since: &str, until: &str| {
            format!(
                "select x.at, x.flow_id, x.source_connector_id, x.destination_connector_id, x.trigger, {state},
                        {sign}x.runs, {sign}x.partial, {sign}x.failed, {sign}x.cancelled, {sign}x.skipped, 0,
                        {sign}x.records_read, {sign}x.records_written, {sign}x.records_failed,
                        {sign}x.records_skipped, {sign}x.records_unchanged, {sign}x.bytes_written
                   from {from} cross join lateral (
                        select {keys}, {each} as status, sum(x.runs)::bigint as runs, sum(x.partial) as partial,
                               sum(x.failed) as failed, sum(x.cancelled) as cancelled, sum(x.skipped) as skipped,
                               {RECORDS}
                          from run_stats x
                         where x.customer_id = $1 and caller.id = $1 and {which} and x.grain = '{grain}'
                           and x.status = {each} and x.at >= {since} and (x.at, x.trigger) < ({until}, '') and {since} < {until}
                           {connector}{trigger}{split}
                         group by {by}
                        having count(*) > 0
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

    /// That of the runs of a cut hour some may match: of a filter that matches few the roll-up of that hour often knows
    /// none, and then all of them would be read for nothing. Open runs, which are in no roll-up, come after all hours.
    fn any(self, since: &str, until: &str) -> String {
        let [.., trigger] = self.filters();
        if !(self.status || self.trigger) {
            return String::new();
        }
        let flow = if self.flow { "$10" } else { "''" };
        let (states, open) = if self.status {
            (
                "case when 'succeeded' = any ($12) then '{\"\"}' else $12 end",
                "$12 && '{queued,running,retrying,cancelling}'",
            )
        } else {
            ("'{\"\"}'::text[]", "true")
        };
        format!(
            " and case when {since} >= '9999-12-31T00:00:00Z' then {open} else
                 (select true
                    from unnest({states}) each (status)
                   cross join lateral (
                         select from run_stats x
                          where x.customer_id = $1 and caller.id = $1 and x.flow_id = {flow} and x.grain = 'hour'
                            and x.status = each.status and x.at >= date_trunc('hour', {since}, 'UTC')
                            and x.at < {until}{trigger}
                          limit 1) x
                   limit 1) end"
        )
    }

    /// Runs that ended between two times, for each row of `from`, unless there cannot be `any`.
    fn run_by_run(self, from: &str, since: &str, until: &str, any: &str, of_flows: bool) -> String {
        let [flow, connector, status, trigger] = self.filters();
        let at = match self.grouping {
            RunGrouping::Day => "date_trunc('day', least(x.window_at, $3), $9)",
            _ => "date_trunc('hour', least(x.window_at, $3), 'UTC')",
        };
        let (keys, by) = self.keys(of_flows, at);
        let by = if by.is_empty() { "x.status".to_owned() } else { format!("x.status, {by}") };
        let when = |states: &str| format!("case when x.status in ({states}) then x.runs else 0 end");
        let [partial, failed, cancelled, skipped] =
            ["'partial'", "'failed'", "'cancelled'", "'skipped'"].map(when);
        let active = when("'queued', 'running', 'retrying', 'cancelling'");
        format!(
            "select x.at, x.flow_id, x.source_connector_id, x.destination_connector_id, x.trigger, x.status, x.runs,
                    {partial}, {failed}, {cancelled}, {skipped}, {active}, x.records_read,
                    x.records_written, x.records_failed, x.records_skipped, x.records_unchanged, x.bytes_written
               from {from} cross join lateral (
                    select {keys}, x.status, count(*) as runs, {RECORDS}
                      from runs x
                     where x.customer_id = $1 and caller.id = $1{any}
                       and x.window_at >= {since} and x.window_at < {until}{flow}{connector}{status}{trigger}
                     group by {by}
                    offset 0) x"
        )
    }

    /// By what, beside the state, cells differ that are summed up where they are read, as columns and as what to group by:
    /// they are many, and what nobody asks for makes them more.
    fn keys(self, of_flows: bool, at: &str) -> (String, String) {
        let by = |groupings: &[RunGrouping]| groupings.contains(&self.grouping);
        let sides = by(&[RunGrouping::Source, RunGrouping::Destination, RunGrouping::Connector])
            || of_flows && (self.status || self.flow);
        let keys = [
            ("at", at, by(&[RunGrouping::Hour, RunGrouping::Day])),
            ("flow_id", "x.flow_id", by(&[RunGrouping::Flow])),
            ("source_connector_id", "x.source_connector_id", sides),
            ("destination_connector_id", "x.destination_connector_id", sides),
            ("trigger", "x.trigger", by(&[RunGrouping::Trigger])),
        ];
        let columns = keys.map(|(name, key, asked)| match (asked, name) {
            (true, _) => format!("{key} as {name}"),
            (false, "at") => "null::timestamptz as at".to_owned(),
            (false, _) => format!("'' as {name}"),
        });
        let asked: Vec<_> = keys.iter().filter(|(.., asked)| *asked).map(|(_, key, _)| *key).collect();
        (columns.join(", "), asked.join(", "))
    }

    /// Whether filters or groups ask of which flow and connectors a cell is.
    pub(super) fn of_flows(self) -> bool {
        self.flow
            || self.connector
            || matches!(
                self.grouping,
                RunGrouping::Flow | RunGrouping::Source | RunGrouping::Destination | RunGrouping::Connector
            )
    }
}
