//! What is measured: which call on which server, with which requests.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::data::Customer;
use super::load::Requests;
use super::queries::Asked;
use super::sdks::Sdk;
use super::servers::Server;

/// The servers that are compared.
pub struct Servers {
    pub bare: Server,
    pub rmcp: Server,
    pub product: Server,
    pub sdks: Vec<Sdk>,
}

impl Servers {
    /// Each with its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Server)> {
        let fixed = [("bare", &self.bare), ("rmcp", &self.rmcp), ("product", &self.product)];
        fixed.into_iter().chain(self.sdks.iter().map(|sdk| (sdk.name, &sdk.server)))
    }
}

/// A call on one server.
pub struct Target {
    pub call: &'static str,
    pub server: &'static str,
    pub pid: u32,
    pub requests: Requests,
}

/// That all servers do the same work: every request is sent once, and shows what it shows at the first of them.
pub async fn check(targets: &mut [Target]) {
    let mut first: HashMap<&str, Vec<Vec<String>>> = HashMap::new();
    for Target { call, server, requests, .. } in targets {
        let bodies = requests.each().await;
        let shown: Vec<_> = bodies.iter().map(|body| shown(call, body)).collect();
        let expected = first.entry(call).or_insert_with(|| shown.clone());
        for (which, shown) in shown.iter().enumerate() {
            assert_eq!(expected[which % expected.len()], *shown, "{call} of {server}, request {which}");
        }
        let sizes = || bodies.iter().map(Bytes::len);
        eprintln!(
            "{call} of {server}: {} requests, {} bytes of answers",
            bodies.len(),
            sizes().sum::<usize>()
        );
        requests.least = sizes().min().unwrap_or(0) / 2;
    }
}

/// What an answer shows: the ids of its runs, or the names of the tools. A call that the product alone has shows something.
///
/// # Panics
/// When it is a refusal, or shows nothing.
fn shown(call: &str, body: &[u8]) -> Vec<String> {
    let answer: Value = serde_json::from_slice(body).expect("an answer in JSON");
    let right = answer.get("error").is_none() && answer["result"]["isError"] != true;
    // The bare server has no envelope, and gives rows without a name.
    let content = answer["result"].get("structuredContent").unwrap_or(&answer);
    let each = |rows: &Value, name: &str| -> Vec<String> {
        let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
        rows.iter().filter_map(|row| row[name].as_str()).map(str::to_owned).collect()
    };
    let shown = match call {
        "tools/list" => each(&answer["result"]["tools"], "name"),
        "get_run" => each(&json!([content.get("run").unwrap_or(content)]), "run_id"),
        "list_runs page" => each(content.get("runs").unwrap_or(content), "run_id"),
        _ => vec![call.to_owned()],
    };
    assert!(right && !shown.is_empty(), "{call}: {}", String::from_utf8_lossy(body));
    shown
}

/// `tools/list` of the product.
pub fn list_of_product(address: SocketAddr, customers: &[Customer]) -> Requests {
    product_requests(address, customers, "tools/list", |_, _| Value::Null)
}

/// What stands for it at the bare server.
pub fn list_of_bare(address: SocketAddr) -> Requests {
    plain(address, "/static", vec![call("tools/list", Value::Null)])
}

/// `tools/list` of a server on an SDK.
pub fn list_of_sdk(address: SocketAddr) -> Requests {
    plain(address, "/mcp", vec![call("tools/list", Value::Null)])
}

/// Every call on every server that has it.
pub async fn all(servers: &Servers, customers: &[Customer]) -> Vec<Target> {
    let Servers { bare, rmcp, product, sdks } = servers;
    let page = |customer: &Customer| json!({ "since": customer.since, "until": customer.until });
    let cursors = cursors(product, customers, page).await;
    let of_run = asked(customers, |which, customer| &customer.runs[which % customer.runs.len()]);
    let of_page = asked(customers, |_, customer| &customer.page_end);
    let calls = |name: &'static str, arguments: &[Value]| {
        arguments
            .iter()
            .map(|arguments| call("tools/call", json!({ "name": name, "arguments": arguments })))
            .collect()
    };
    let tool = |name: &'static str, arguments: Value| json!({ "name": name, "arguments": arguments });
    let ours = |arguments: &dyn Fn(usize, &Customer) -> Value| {
        product_requests(product.address, customers, "tools/call", arguments)
    };

    let target = |call, server, pid, requests| Target { call, server, pid, requests };
    let mut targets = vec![
        target("tools/list", "bare", bare.pid(), list_of_bare(bare.address)),
        target("tools/list", "rmcp", rmcp.pid(), list_of_sdk(rmcp.address)),
        target("tools/list", "product", product.pid(), list_of_product(product.address, customers)),
        target("get_run", "bare", bare.pid(), plain(bare.address, "/get_run", of_run.clone())),
        target("get_run", "rmcp", rmcp.pid(), plain(rmcp.address, "/mcp", calls("get_run", &of_run))),
        target(
            "get_run",
            "product",
            product.pid(),
            ours(&|which, customer| {
                tool("get_run", json!({ "run_id": customer.runs[which % customer.runs.len()].0 }))
            }),
        ),
        target("list_runs page", "bare", bare.pid(), plain(bare.address, "/list_runs", of_page.clone())),
        target(
            "list_runs page",
            "rmcp",
            rmcp.pid(),
            plain(rmcp.address, "/mcp", calls("list_runs", &of_page)),
        ),
        target(
            "list_runs page",
            "product",
            product.pid(),
            ours(&|which, customer| {
                let mut arguments = page(customer);
                arguments["cursor"] = json!(cursors[which % cursors.len()]);
                tool("list_runs", arguments)
            }),
        ),
        target(
            "list_runs with totals",
            "product",
            product.pid(),
            ours(&|_, customer| tool("list_runs", page(customer))),
        ),
        target(
            "get_flow_error_summary",
            "product",
            product.pid(),
            ours(&|_, customer| {
                let mut arguments = page(customer);
                arguments["flow"] = json!(customer.flow);
                tool("get_flow_error_summary", arguments)
            }),
        ),
        target(
            "get_system_health",
            "product",
            product.pid(),
            ours(&|_, _| tool("get_system_health", json!({}))),
        ),
    ];
    for sdk in sdks {
        for (call, name, asked) in
            [("get_run", "get_run", &of_run), ("list_runs page", "list_runs", &of_page)]
        {
            let requests = plain(sdk.server.address, "/mcp", calls(name, asked));
            let place = targets.iter().rposition(|target| target.call == call).unwrap();
            targets.insert(place, target(call, sdk.name, sdk.server.pid(), requests));
        }
    }
    targets
}

fn call(method: &str, params: Value) -> Value {
    match params {
        Value::Null => json!({ "jsonrpc": "2.0", "id": 1, "method": method }),
        params => json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }),
    }
}

fn plain(address: SocketAddr, path: &'static str, bodies: Vec<Value>) -> Requests {
    let all = bodies.iter().map(|body| (None, Bytes::from(body.to_string()))).collect();
    Requests { address, path, all, least: 0 }
}

/// Requests of every customer to the product, several of each, in turn.
fn product_requests(
    address: SocketAddr,
    customers: &[Customer],
    method: &str,
    params: impl Fn(usize, &Customer) -> Value,
) -> Requests {
    let most = customers.iter().map(|customer| customer.runs.len()).max().unwrap_or(1);
    let all = (0..most * customers.len()).map(|which| {
        let customer = &customers[which % customers.len()];
        let place = if method == "tools/call" { which } else { 0 };
        let body = call(method, params(place, customer));
        (Some(format!("Bearer {}", customer.token)), Bytes::from(body.to_string()))
    });
    Requests { address, path: "/mcp", all: all.collect(), least: 0 }
}

/// What the servers beside the product are asked for: a run of each customer, or the page that begins after it.
fn asked(customers: &[Customer], run: impl Fn(usize, &Customer) -> &(String, DateTime<Utc>)) -> Vec<Value> {
    let most = customers.iter().map(|customer| customer.runs.len()).max().unwrap_or(1);
    (0..most * customers.len())
        .map(|which| {
            let customer = &customers[which % customers.len()];
            let (run_id, window_at) = run(which, customer).clone();
            json!(Asked {
                customer: customer.id.clone(),
                run_id,
                window_at,
                now: customer.until,
                since: customer.since,
                until: customer.until,
            })
        })
        .collect()
}

/// For each customer, the cursor that goes on after the first page.
async fn cursors(product: &Server, customers: &[Customer], page: impl Fn(&Customer) -> Value) -> Vec<String> {
    let mut cursors = Vec::new();
    for (place, customer) in customers.iter().enumerate() {
        let params = json!({ "name": "list_runs", "arguments": page(customer) });
        let requests = product_requests(product.address, customers, "tools/call", |_, _| params.clone());
        let answer: Value = serde_json::from_slice(&requests.one(place).await).unwrap();
        let cursor = answer["result"]["structuredContent"]["next_cursor"].as_str();
        cursors.push(cursor.unwrap_or_else(|| panic!("no second page: {answer}")).to_owned());
    }
    cursors
}
