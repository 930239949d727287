//! Round trips to the database are what a call costs. They are counted on the way: a proxy between the product and
//! PostgreSQL counts how often the product waits for an answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apixx_mcp::domain::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::support::app::{Agent, TestApp, demo_now};

/// Passes bytes on and counts the client's `Execute` and `Query` messages: each is one wait for the server
/// (PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats"). A pool's own look at a connection that
/// was given back is a bare `Sync`, which no caller waits for.
async fn count_round_trips(listener: UnixListener, server: PathBuf, count: Arc<AtomicUsize>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&server).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let count = count.clone();
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            let mut started = false;
            let mut chunk = [0; 16 * 1024];
            while let Ok(read @ 1..) = from_client.read(&mut chunk).await {
                if to_server.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
                buffer.extend_from_slice(&chunk[..read]);
                loop {
                    // The first message has no type byte.
                    let head = usize::from(started);
                    let Some(length) = buffer.get(head..head + 4) else { break };
                    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                    if buffer.len() < head + length {
                        break;
                    }
                    if started && matches!(buffer[0], b'E' | b'Q') {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    started = true;
                    buffer.drain(..head + length);
                }
            }
        });
    }
}

#[tokio::test]
async fn calls_cost_the_round_trips_they_need() {
    let demo = TestApp::demo().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = |dir: &std::path::Path| dir.join(format!(".s.PGSQL.{}", demo.database.server.get_port()));
    let listener = UnixListener::bind(socket(directory.path())).unwrap();
    let behind = socket(demo.database.server.get_socket().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(count_round_trips(listener, behind, count.clone()));

    let TestApp { database, .. } = demo;
    let mut counted = database;
    counted.server = counted.server.clone().socket(directory.path());
    let app = TestApp::on(counted, Clock::fixed(demo_now()), &[]).await;
    let acme = app.acme();
    // What is prepared, recognised and leased once is not what a call costs.
    for _ in 0..8 {
        for (tool, arguments, _) in calls() {
            acme.call(tool, arguments).await;
        }
    }
    for (tool, arguments, expected) in calls() {
        let cost = cost_of(&count, &acme, &call(tool, &arguments)).await;
        assert_eq!(cost, expected, "{tool}");
    }
    // A run that waits already: the flow's name, one transaction (begin, enter, lock, look, commit), no more.
    let trigger = call("trigger_sync", &json!({ "flow": "NetSuite → Snowflake invoices" }));
    acme.post(&trigger).await;
    let cost = cost_of(&count, &acme, &trigger).await;
    assert!(cost <= 10, "trigger_sync: {cost}");
    for message in [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }),
    ] {
        assert_eq!(cost_of(&count, &acme, &message).await, 0, "{message}");
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

/// The cheapest of three: a lease of request permits may fall into one of them.
async fn cost_of(count: &AtomicUsize, agent: &Agent<'_>, message: &Value) -> usize {
    let mut least = usize::MAX;
    for _ in 0..3 {
        let before = count.load(Ordering::SeqCst);
        let reply = agent.post(message).await;
        assert!(reply.body["result"].is_object(), "{}", reply.body);
        least = least.min(count.load(Ordering::SeqCst) - before);
    }
    least
}

/// How many statements were planned for the arguments of one call, of those that the product's own connections
/// prepared. Only they can tell: the door that every read goes through is replaced by one that counts.
async fn custom_plans(app: &TestApp) -> i64 {
    let door = "create table plans_seen (custom bigint, generic bigint);
        create or replace function live_caller(customer text, token bytea, at timestamptz) returns text
        language plpgsql volatile security definer as $$
        begin
            insert into plans_seen
            select sum(custom_plans), count(*) filter (where generic_plans > 0) from pg_prepared_statements;
            return customer;
        end $$";
    let mut owner = app.owner().await;
    sqlx::raw_sql(door).execute(&mut owner).await.unwrap();
    app.acme().call("list_connectors", json!({})).await;
    let (custom, generic): (i64, i64) =
        sqlx::query_as("select custom, generic from plans_seen").fetch_one(&mut owner).await.unwrap();
    assert!(generic >= 10, "{generic}");
    custom
}
