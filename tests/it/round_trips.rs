//! Round trips to the database are what a call costs. They are counted on the way: a proxy between the product and
//! PostgreSQL counts how often the product waits for an answer.

use apixx_mcp::domain::clock::Clock;
use serde_json::{Value, json};

use crate::support::app::{Agent, TestApp, demo_now};
use crate::support::proxy::Executed;

#[tokio::test]
async fn calls_cost_the_round_trips_they_need() {
    let TestApp { mut database, .. } = TestApp::demo().await;
    let executed = Executed::on(&mut database);
    let app = TestApp::on(database, Clock::fixed(demo_now()), &[]).await;
    let acme = app.acme();
    // What is prepared, recognised and leased once is not what a call costs.
    for _ in 0..8 {
        for (tool, arguments, _) in calls() {
            acme.call(tool, arguments).await;
        }
    }
    for (tool, arguments, expected) in calls() {
        let cost = cost_of(&executed, &acme, &call(tool, &arguments)).await;
        assert_eq!(cost, expected, "{tool}");
    }
    // A run is started and, once it waits, attached to: the flow's name, one transaction, and the run that is told.
    let trigger = call("trigger_sync", &json!({ "flow": "NetSuite → Snowflake invoices" }));
    let mut costs = Vec::new();
    for _ in 0..11 {
        let start = paid(&executed, &acme, &trigger).await;
        let attach = paid(&executed, &acme, &trigger).await;
        costs.push((start.len(), attach.len()));
        app.column("delete from runs where status = 'queued' and trigger = 'mcp' returning run_id").await;
    }
    assert_eq!(costs[8..], [(14, 9); 3]);
    for message in [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }),
    ] {
        assert_eq!(cost_of(&executed, &acme, &message).await, 0, "{message}");
    }
    assert_eq!(custom_plans(&app).await, 0, "nothing is planned for the arguments of one call");
}

/// Every tool that reads, its default question and how often it waits for the database: once for each of the things
/// that it tells, and once for a flow that is named.
fn calls() -> [(&'static str, Value, usize); 10] {
    let flow = "HubSpot → Salesforce contacts";
    [
        ("list_runs", json!({}), 1),
        ("list_flow_runs", json!({ "flow": flow }), 2),
        ("get_run", json!({ "run_id": "run_abc123" }), 1),
        ("get_run_errors", json!({ "run_id": "run_abc123" }), 2),
        ("get_flow_error_summary", json!({ "flow": flow }), 4),
        ("get_system_health", json!({}), 6),
        ("list_flows", json!({}), 2),
        ("get_flow", json!({ "flow": flow }), 2),
        ("get_flow_mappings", json!({ "flow": flow }), 2),
        ("list_connectors", json!({}), 1),
    ]
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } })
}

/// What a call costs, each time.
async fn cost_of(executed: &Executed, agent: &Agent<'_>, message: &Value) -> usize {
    let cost = paid(executed, agent, message).await.len();
    for _ in 0..2 {
        let again = paid(executed, agent, message).await;
        assert_eq!(again.len(), cost, "{message}: {again:#?}");
    }
    cost
}

/// The statements of one call. A lease of request permits is for many.
async fn paid(executed: &Executed, agent: &Agent<'_>, message: &Value) -> Vec<String> {
    executed.take();
    let reply = agent.post(message).await;
    assert!(reply.body["result"].is_object() && reply.body["result"]["isError"] != true, "{}", reply.body);
    let mut statements = executed.take();
    statements.retain(|sql| !sql.contains("lease_permits"));
    statements
}

/// How many statements were planned for the arguments of one call, of those that the product's own connections
/// prepared. Only they can tell: the door that every read goes through is replaced by one that counts.
async fn custom_plans(app: &TestApp) -> i64 {
    let door = "create table plans_seen (custom bigint, generic bigint);
        create function count_plans() returns text language plpgsql volatile security definer as $$
        begin
            insert into plans_seen
            select sum(custom_plans), count(*) filter (where generic_plans > 0) from pg_prepared_statements;
            return 'cus_acme';
        end $$;
        create or replace view live_token with (security_barrier) as
            select count_plans() as customer_id, null::timestamptz as expires_at";
    let mut owner = app.owner().await;
    sqlx::raw_sql(door).execute(&mut owner).await.unwrap();
    app.acme().call("list_connectors", json!({})).await;
    let (custom, generic): (i64, i64) =
        sqlx::query_as("select custom, generic from plans_seen").fetch_one(&mut owner).await.unwrap();
    assert!(generic >= 10, "{generic}");
    custom
}
