//! What every tool costs on a large database, in pages and processor time, and what it may cost.

use serde_json::{Value, json};

use super::seed::{DEEP, WIDE, flow_id, flow_name};

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
    /// Pages that it may touch at most.
    pub most: u64,
}

/// Every question that is measured; `run` is a recent failed run of each customer.
pub fn cases(runs: [&str; 2], cursors: &[(String, Value)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, who) in [(WIDE, "wide"), (DEEP, "deep")] {
        let mut add = |tool, name: &str, arguments: Value, most| {
            cases.push(Case { place, tool, name: format!("{who}: {name}"), arguments, most });
        };
        let flow = flow_name(0);
        add("list_runs", "24 h", json!({}), 700);
        for window in ["7d", "30d", "90d"] {
            add("list_runs", window, json!({ "window": window }), 700);
        }
        add("list_runs", "page only", json!({ "window": "30m" }), 200);
        for grouping in ["flow", "source", "destination", "connector", "status", "trigger", "day"] {
            add(
                "list_runs",
                &format!("30 d by {grouping}"),
                json!({ "window": "30d", "group_by": grouping, "limit": 0 }),
                700,
            );
        }
        add("list_runs", "24 h by flow", json!({ "group_by": "flow", "limit": 0 }), 700);
        add("list_runs", "24 h by hour", json!({ "group_by": "hour", "limit": 0 }), 700);
        for window in ["30d", "90d"] {
            add(
                "list_runs",
                &format!("{window}, failed"),
                json!({ "window": window, "status": ["failed"] }),
                700,
            );
            add(
                "list_runs",
                &format!("{window}, no such trigger"),
                json!({ "window": window, "trigger": ["webhook"] }),
                700,
            );
            add(
                "list_runs",
                &format!("{window}, by retry"),
                json!({ "window": window, "trigger": ["retry"] }),
                700,
            );
            add(
                "list_runs",
                &format!("{window}, one connector"),
                json!({ "window": window, "connector": "HubSpot 0" }),
                700,
            );
        }
        add("list_runs", "30d, one flow", json!({ "window": "30d", "flow": flow }), 700);
        add("list_flow_runs", "default", json!({ "flow": flow }), 700);
        add(
            "list_flow_runs",
            "last success",
            json!({ "flow": flow, "status": ["succeeded"], "limit": 1 }),
            700,
        );
        add(
            "list_flow_runs",
            "no match",
            json!({ "flow": flow, "status": ["cancelled"], "trigger": ["webhook"] }),
            700,
        );
        add(
            "list_flow_runs",
            "30d, retry",
            json!({ "flow": flow, "window": "30d", "trigger": ["retry"] }),
            700,
        );
        add("get_run", "a failed run", json!({ "run_id": runs[place] }), 200);
        add("get_run", "no such run", json!({ "run_id": "run_nothinglikethat" }), 20);
        add("get_run_errors", "a failed run", json!({ "run_id": runs[place] }), 400);
        for window in ["24h", "7d", "30d", "90d"] {
            add("get_flow_error_summary", window, json!({ "flow": flow, "window": window }), 700);
        }
        add(
            "get_flow_error_summary",
            "30d by group",
            json!({ "flow": flow, "window": "30d", "group_by": "group", "limit": 50 }),
            1_500,
        );
        add("get_system_health", "24 h", json!({}), 1_500);
        add("get_system_health", "30d", json!({ "window": "30d" }), 1_500);
        add("list_flows", "first page", json!({}), 700);
        add("list_flows", "needs attention", json!({ "status": ["needs_attention"] }), 700);
        add("list_flows", "no match", json!({ "query": "zzz" }), 700);
        add("list_flows", "one connector", json!({ "connector": "HubSpot 0" }), 700);
        add("get_flow", "by name", json!({ "flow": flow }), 400);
        add("get_flow", "by id", json!({ "flow": flow_id(place, 1) }), 400);
        add("get_flow", "by alias", json!({ "flow": "Pipeline 10" }), 400);
        add("get_flow", "did you mean", json!({ "flow": "HubSpt Snowflak contcts" }), 400);
        add("get_flow", "ambiguous", json!({ "flow": "contacts" }), 400);
        add("get_flow_mappings", "by name", json!({ "flow": flow }), 100);
        add("list_connectors", "all", json!({}), 700);
    }
    for (name, arguments) in cursors {
        cases.push(Case {
            place: DEEP,
            tool: "list_runs",
            name: format!("deep: {name}"),
            arguments: arguments.clone(),
            most: 700,
        });
    }
    cases
}
