//! What a customer asks of a stranger's things.

use apixx_mcp::tools::catalog;
use serde_json::json;

use super::twins::{Question, Twins};
use super::{NOBODYS_CONNECTOR, NOBODYS_FLOW, NOBODYS_NAME, USED_KEY};

/// Every tool with every argument that names a thing: things of both, of Acme alone, and of nobody.
pub async fn questions(twins: &Twins) -> Vec<Question> {
    let mut all = Vec::new();
    let flows = twins.of("cus_acme", "flow_id", "flows").await;
    let names = twins.of("cus_acme", "name", "flows").await;
    for flow in flows.iter().chain(&names).map(String::as_str).chain([NOBODYS_FLOW, NOBODYS_NAME]) {
        for tool in ["get_flow", "get_flow_mappings", "list_flow_runs", "get_flow_error_summary"] {
            all.push((tool, json!({ "flow": flow })));
        }
        all.push(("list_runs", json!({ "flow": flow, "window": "30d" })));
    }
    let foreign: Vec<String> = {
        let own = twins.of("cus_twin", "flow_id", "flows").await;
        flows.into_iter().filter(|flow| !own.contains(flow)).collect()
    };
    for flow in &foreign {
        all.push(("trigger_sync", json!({ "flow": flow, "idempotency_key": USED_KEY })));
    }
    for name in names.iter().map(String::as_str).chain([NOBODYS_NAME]) {
        all.push(("list_flows", json!({ "query": name })));
    }
    for (argument, column) in
        [("source_object", "unnest(source_objects)"), ("destination_object", "unnest(destination_objects)")]
    {
        for object in twins
            .app
            .column(&format!("select distinct {column} from flows where customer_id = 'cus_acme' order by 1"))
            .await
        {
            all.push(("list_flows", json!({ argument: object })));
        }
        all.push(("list_flows", json!({ argument: "nothing of the kind" })));
    }
    let own_flow = twins.of("cus_twin", "flow_id", "flows").await.remove(0);
    let own_runs = twins.of("cus_twin", "run_id", "runs").await;
    let runs = twins.of("cus_acme", "run_id", "runs").await;
    let foreign_runs: Vec<String> = runs.into_iter().filter(|run| !own_runs.contains(run)).collect();
    assert!(foreign.len() > 1 && foreign_runs.len() > 10, "the twin has all that Acme has");
    let sample = foreign_runs.iter().step_by(foreign_runs.len() / 5).map(String::as_str);
    for run in sample.chain(["run_xyz789", own_runs[0].as_str(), own_runs[own_runs.len() / 2].as_str()]) {
        all.push(("get_run", json!({ "run_id": run })));
        all.push(("get_run_errors", json!({ "run_id": run, "limit": 5 })));
        if !own_runs.iter().any(|own| own == run) {
            all.push(("get_run", json!({ "run_id": run, "wait_seconds": 1 })));
            all.push(("trigger_sync", json!({ "flow": own_flow, "retry_of": run })));
        }
    }
    let own_groups = twins.of("cus_twin", "group_id", "error_groups").await;
    let groups = twins.of("cus_acme", "group_id", "error_groups").await;
    for group in groups.iter().take(4).chain(own_groups.first()) {
        all.push((
            "get_run_errors",
            json!({ "run_id": own_runs[0], "error_class": group, "group_by": "group" }),
        ));
    }
    for code in twins.of("cus_acme", "code", "error_groups").await.iter().take(6) {
        all.push(("get_run_errors", json!({ "run_id": own_runs[0], "error_class": code })));
    }
    for field in twins.of("cus_acme", "field", "error_groups").await.iter().take(6) {
        all.push(("get_run_errors", json!({ "run_id": own_runs[0], "field": field, "group_by": "field" })));
    }
    let fields = "select distinct m ->> 'destination_field' from flow_versions,
                         jsonb_path_query(definition, '$.streams[*].mappings[*]') m
                   where customer_id = 'cus_acme' order by 1";
    for field in twins.app.column(fields).await.iter().step_by(9).map(String::as_str).chain(["nothing"]) {
        for flow in [&own_flow, &foreign[0]] {
            all.push(("get_flow_mappings", json!({ "flow": flow, "field": field })));
        }
    }
    let mut connectors = twins.of("cus_acme", "connector_id", "connectors").await;
    connectors.extend(twins.of("cus_acme", "name", "connectors").await);
    connectors.push(NOBODYS_CONNECTOR.to_owned());
    for connector in &connectors {
        all.push(("list_flows", json!({ "connector": connector })));
        all.push(("list_runs", json!({ "connector": connector, "window": "30d" })));
        all.push(("list_connectors", json!({ "query": connector })));
    }
    for grouping in ["none", "flow", "connector", "destination", "day"] {
        all.push(("list_runs", json!({ "window": "30d", "group_by": grouping })));
    }
    all.push(("list_flows", json!({ "limit": 200 })));
    all.push(("list_flows", json!({ "query": "hubspot" })));
    all.push(("list_connectors", json!({})));
    all.push(("get_system_health", json!({ "window": "30d" })));
    // Cursors that Acme was given, for the very same questions.
    let pages = [
        ("list_runs", json!({ "window": "30d", "limit": 2 })),
        ("list_flow_runs", json!({ "flow": "flow_shopify_orders", "window": "30d", "limit": 2 })),
        ("get_run_errors", json!({ "run_id": "run_abc123", "limit": 2 })),
        ("list_flows", json!({ "limit": 2 })),
        ("get_flow_mappings", json!({ "flow": "flow_shopify_orders", "limit": 2 })),
        ("list_connectors", json!({ "limit": 1 })),
    ];
    for entry in catalog().entries() {
        let paged = entry.definition().input_schema["properties"].get("cursor").is_some();
        assert_eq!(pages.iter().any(|(tool, _)| *tool == entry.name), paged, "{}", entry.name);
    }
    for (tool, mut arguments) in pages {
        let first = twins.app.acme().call(tool, arguments.clone()).await;
        arguments["cursor"] = first.structured["next_cursor"].clone();
        assert!(arguments["cursor"].is_string(), "{tool} has a second page");
        all.push((tool, arguments));
    }
    all
}
