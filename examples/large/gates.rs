//! What every tool costs on a large database, in pages and processor time, and what it may cost.

use serde_json::{Value, json};

use super::seed::{DEEP, INCIDENT, WIDE, flow_id, flow_name};

/// A question to a tool.
pub struct Case {
    /// The customer that asks.
    pub place: usize,
    /// The tool.
    pub tool: &'static str,
    /// What is special about it.
    pub name: String,
    /// What it is asked.
    pub arguments: Value,
    /// Pages that it may touch at most, at any number of runs.
    pub most: u64,
    /// With which code it is refused, if it is to be.
    pub refused: Option<&'static str>,
    /// What takes back what a call did.
    pub undo: Option<&'static str>,
}

impl Case {
    /// What its figures are kept under.
    pub fn title(&self) -> String {
        format!("{} {}", self.tool, self.name)
    }

    /// Whether its answer lists nothing.
    pub fn finds_nothing(&self) -> bool {
        self.name.ends_with("nothing matches")
    }
}

/// A place in the middle of a list.
pub struct Further {
    pub place: usize,
    pub tool: &'static str,
    pub name: String,
    /// The question, with its cursor.
    pub arguments: Value,
}

/// Takes back the run that was asked for here, with everything that says so.
const UNDO: &str = "
    delete from audit_log where action = 'run.triggered';
    delete from runs where status = 'queued' and trigger_note = 'large';";

/// What a row of a list of runs costs beyond its own page: the root, branch and leaf of the indexes of its flow and two
/// connectors, and their rows.
const RUN_ROW: u64 = 1 + 3 * 4;
/// Rows that are read for a default page, one more than shown.
const ROWS: u64 = 26;
/// Totals of a window from the roll-up of all flows, the hours at its edges and the token's check included.
const TOTALS: u64 = 140;
/// A default page of runs with the totals of its window.
const PAGE: u64 = ROWS * RUN_ROW + TOTALS;
/// Thirty days of two thousand flows, day by day and hour by hour on the first of them: some 90,000 cells, 35 a page.
const ALL_FLOWS: u64 = 3_000;
/// A row of a list of flows shows two connectors, an owner and two runs, each found by its key.
const FLOW_ROW: u64 = 1 + 3 + 3 + 3 + 5 + 5;
/// The flows of the largest workspace, read whole: ten rows a page.
const FLOWS: u64 = 250;

/// The connectors of the largest workspace: each row says when its connector was last checked.
const CONNECTORS: u64 = 100;

/// A request for a run: the flow's name, the flow, its open runs, its connectors, the load, the run itself; and the run read
/// again, which tells its place among those that wait.
const TRIGGER: u64 = 400;

/// Every question that is measured. `runs` is a run with errors, as many at any number of runs, and `retried` a flow that
/// was retried lately, of either workspace.
pub fn cases(runs: [&str; 2], retried: [&str; 2], further: Vec<Further>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, who) in [(WIDE, "wide"), (DEEP, "deep")] {
        let mut add = |tool, name: &str, arguments: Value, most| {
            let name = format!("{who}: {name}");
            cases.push(Case { place, tool, name, arguments, most, refused: None, undo: None });
        };
        let flow = flow_name(0);
        add("list_runs", "24h", json!({}), PAGE);
        for window in ["30m", "7d", "30d", "90d"] {
            add("list_runs", window, json!({ "window": window }), PAGE);
        }
        for (window, months) in [("30d", 1), ("90d", 3)] {
            let mut by = |grouping: &str, most| {
                let arguments = json!({ "window": window, "group_by": grouping, "limit": 0 });
                add("list_runs", &format!("{window} by {grouping}"), arguments, most);
            };
            for grouping in ["flow", "source", "destination", "connector"] {
                by(grouping, months * ALL_FLOWS);
            }
            for grouping in ["status", "trigger"] {
                by(grouping, months * TOTALS);
            }
            // Days of a time zone are made of hours.
            by("day", months * 700);
        }
        add("list_runs", "24h by hour", json!({ "group_by": "hour", "limit": 0 }), TOTALS);
        add("list_runs", "24h by flow", json!({ "group_by": "flow", "limit": 0 }), ALL_FLOWS);
        for (window, months) in [("30d", 1), ("90d", 3)] {
            add(
                "list_runs",
                &format!("{window}, failed"),
                json!({ "window": window, "status": ["failed"] }),
                700,
            );
            let none = json!({ "window": window, "trigger": ["webhook"] });
            add("list_runs", &format!("{window}, nothing matches"), none, TOTALS);
            let none = json!({ "window": window, "status": ["cancelling"] });
            add("list_runs", &format!("{window}, no state: nothing matches"), none, TOTALS);
            // One run in a hundred: what lies between is passed over in the index.
            add(
                "list_runs",
                &format!("{window}, retries"),
                json!({ "window": window, "trigger": ["retry"] }),
                700,
            );
            let connector = json!({ "window": window, "connector": "HubSpot 0" });
            add("list_runs", &format!("{window}, one connector"), connector, months * ALL_FLOWS);
        }
        add("list_runs", "30d, one flow", json!({ "window": "30d", "flow": flow }), PAGE);
        add("list_flow_runs", "default", json!({ "flow": flow }), PAGE);
        for window in ["30d", "90d"] {
            add("list_flow_runs", window, json!({ "flow": flow, "window": window }), PAGE);
        }
        // The planner may walk the newest successes of all flows until it meets one of this.
        add(
            "list_flow_runs",
            "last success",
            json!({ "flow": flow, "status": ["succeeded"], "limit": 1 }),
            1_500,
        );
        let none = json!({ "flow": flow, "status": ["cancelled"], "trigger": ["webhook"] });
        add("list_flow_runs", "nothing matches", none, TOTALS);
        // One run in a hundred of the flow, each on a page of its own.
        let retries = json!({ "flow": retried[place], "window": "30d", "trigger": ["retry"] });
        add("list_flow_runs", "30d, retries", retries, 1_500);
        let retries = json!({ "flow": retried[place], "window": "90d", "trigger": ["retry"] });
        add("list_flow_runs", "90d, retries", retries, 1_500);
        add("get_run", "with errors", json!({ "run_id": runs[place] }), 200);
        // Up to a hundred samples of each group lie apart.
        add("get_run_errors", "classes", json!({ "run_id": runs[place] }), 700);
        // Two million errors; or those of a run that ended just now.
        let erring = flow_name(if place == DEEP { 0 } else { INCIDENT });
        for window in ["24h", "7d", "30d", "90d"] {
            add("get_flow_error_summary", window, json!({ "flow": erring, "window": window }), 700);
        }
        for window in ["30d", "90d"] {
            let groups = json!({ "flow": erring, "window": window, "group_by": "group", "limit": 50 });
            add("get_flow_error_summary", &format!("{window} by group"), groups, 1_000);
        }
        for window in ["24h", "30d", "90d"] {
            // Flows read whole, to be counted and with the connectors; those listed; open runs; totals of two windows.
            let most = 2 * FLOWS + 5 * FLOW_ROW + TOTALS + CONNECTORS;
            add("get_system_health", window, json!({ "window": window }), most);
        }
        add("list_flows", "first page", json!({}), FLOWS + 51 * FLOW_ROW);
        add("list_flows", "in trouble", json!({ "status": ["needs_attention"] }), FLOWS + 51 * FLOW_ROW);
        // In the order of the list the flows lie apart.
        add("list_flows", "nothing matches", json!({ "query": "zzz" }), 5 * FLOWS);
        add("list_flows", "one connector", json!({ "connector": "HubSpot 0" }), 8 * FLOWS);
        add("get_flow", "by name", json!({ "flow": flow }), 200);
        add("get_flow", "by id", json!({ "flow": flow_id(place, 1) }), 200);
        add("get_flow", "by alias", json!({ "flow": "Pipeline 10" }), 200);
        add("get_flow_mappings", "by name", json!({ "flow": flow }), 60);
        add("list_connectors", "all", json!({}), 2 * FLOWS);
        let mut refuse = |tool, name: &str, arguments: Value, most, code| {
            let name = format!("{who}: {name}");
            cases.push(Case { place, tool, name, arguments, most, refused: Some(code), undo: None });
        };
        refuse("get_run", "no such run", json!({ "run_id": "run_nothinglikethat" }), 10, "RUN_NOT_FOUND");
        let misspelt = json!({ "flow": "HubSpt Snowflak contcts" });
        refuse("get_flow", "did you mean", misspelt, FLOWS, "FLOW_NOT_FOUND");
        refuse("get_flow", "ambiguous", json!({ "flow": "contacts" }), FLOWS, "FLOW_AMBIGUOUS");
        // The seed lets the first flow run, and lets none run from here on.
        let free = if place == WIDE { 150 } else { 10 };
        for (name, number) in [("attach", 0), ("start", free)] {
            let arguments = json!({ "flow": flow_id(place, number), "reason": "large" });
            cases.push(Case {
                place,
                tool: "trigger_sync",
                name: format!("{who}: {name}"),
                arguments,
                most: TRIGGER,
                refused: None,
                undo: Some(UNDO),
            });
        }
    }
    cases.extend(further.into_iter().map(|Further { place, tool, name, arguments }| {
        let most = match tool {
            // In the order of the list the flows lie apart, in its index too.
            "list_flows" => 2 * FLOWS + 51 * (FLOW_ROW + 1),
            "get_run_errors" => 700,
            // What lies between is passed over in the index.
            _ if name.contains("retries") || name.contains("one connector") => 2 * PAGE,
            _ => PAGE,
        };
        let name = format!("{}: {name}", if place == WIDE { "wide" } else { "deep" });
        Case { place, tool, name, arguments, most, refused: None, undo: None }
    }));
    cases
}
