//! Those who call: each answer is looked at, and anything that is neither true nor "come again" is a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::plan::Wanted;
use crate::process::Seat;
use crate::world::FLOWS;

/// How long somebody who wants a run goes on asking.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is asked with a token that is about to end: everything there is.
const HELD: [&str; 12] = [
    "tools/list",
    "list_flows",
    "get_flow",
    "get_flow_mappings",
    "get_flow_error_summary",
    "list_flow_runs",
    "list_runs",
    "get_run",
    "get_run_errors",
    "list_connectors",
    "get_system_health",
    "trigger_sync",
];

/// What an answer over HTTP comes to.
#[derive(Debug)]
pub enum Heard {
    /// A result without an error.
    Result(Value),
    /// A tool's own refusal, by its code.
    Refused(String),
    /// 503 with `Retry-After`, or nobody there.
    ComeAgain,
    /// 401.
    Unauthorized,
}

/// A run that somebody was told of.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub flow: &'static str,
    pub run: String,
    pub key: Option<String>,
}

/// What the rows of a list say under `key`.
fn listed(result: &Value, list: &str, key: &str) -> BTreeSet<String> {
    let rows = result["structuredContent"][list].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row[key].as_str().map(str::to_owned)).collect()
}

/// What the callers of a schedule share.
pub struct Callers {
    http: reqwest::Client,
    serves: Vec<Arc<Seat>>,
    pub accepted: Mutex<Vec<Accepted>>,
    /// Requests of runs whose outcome nobody was told.
    pub unknown: AtomicU64,
    /// Tool calls that were sent, by token.
    pub sent: Mutex<BTreeMap<String, u64>>,
    pub violations: Mutex<Vec<String>>,
    pub answers: AtomicU64,
    pub come_again: AtomicU64,
    /// How often a server said so itself: 503 with `Retry-After`.
    pub put_off: AtomicU64,
    pub enough: AtomicBool,
}

impl Callers {
    pub fn new(serves: Vec<Arc<Seat>>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().context("a client")?,
            serves,
            accepted: Mutex::default(),
            unknown: AtomicU64::new(0),
            sent: Mutex::default(),
            violations: Mutex::default(),
            answers: AtomicU64::new(0),
            come_again: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
            enough: AtomicBool::new(false),
        }))
    }

    /// How many servers there are.
    pub fn serves(&self) -> usize {
        self.serves.len()
    }

    pub fn violation(&self, text: String) {
        self.violations.lock().unwrap().push(text);
    }

    /// Somebody was told of a run.
    pub fn accept(&self, flow: &'static str, run: String, key: Option<String>) {
        self.accepted.lock().unwrap().push(Accepted { flow, run, key });
    }

    pub async fn tool(&self, serve: usize, token: &str, tool: &str, arguments: Value) -> Heard {
        *self.sent.lock().unwrap().entry(token.to_owned()).or_default() += 1;
        self.message(serve, token, "tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Sends a message and judges the form of its answer.
    pub async fn message(&self, serve: usize, token: &str, method: &str, params: Value) -> Heard {
        let seat = &self.serves[serve];
        let present = seat.present();
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = self
            .http
            .post(seat.url())
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&message)
            .send()
            .await;
        self.answers.fetch_add(1, Ordering::Relaxed);
        let answered = match sent {
            Ok(response) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                response.text().await.map(|text| (status, headers, text))
            }
            Err(error) => Err(error),
        };
        let (status, headers, text) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                if present.is_some() && present == seat.present() {
                    self.violation(format!("{} was there all the time, but: {error:?}", seat.name));
                }
                return self.later();
            }
        };
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let wrong = |why: &str| {
            self.violation(format!("{method} {}: {why}: {status} {text}", params["name"]));
            Heard::ComeAgain
        };
        match status {
            200 if body["error"].is_object() => wrong("a protocol error"),
            200 if body["result"]["isError"] == true => {
                let code = body["result"]["_meta"]["io.apixx/error"]["code"].as_str().unwrap_or_default();
                Heard::Refused(code.to_owned())
            }
            200 if body["result"].is_object() => Heard::Result(body["result"].clone()),
            401 => Heard::Unauthorized,
            503 if !headers.contains_key("retry-after") => wrong("503 without Retry-After"),
            503 if !body["error"]["message"].is_string() => wrong("503 that says nothing"),
            503 => {
                self.put_off.fetch_add(1, Ordering::Relaxed);
                self.later()
            }
            _ => wrong("an answer that nobody should see"),
        }
    }

    fn later(&self) -> Heard {
        self.come_again.fetch_add(1, Ordering::Relaxed);
        Heard::ComeAgain
    }

    /// Wants a run and asks until it is told of one.
    pub async fn want(&self, seed: u64, place: usize, wanted: Wanted, token: &str) {
        let mut dice = StdRng::seed_from_u64(seed ^ (place as u64) << 32);
        let flow = FLOWS[wanted.flow].name;
        sleep(wanted.after).await;
        let key = wanted.key.then(|| format!("key-{seed}-{place}"));
        let deadline = Instant::now() + PATIENCE;
        let mut told: Option<String> = None;
        loop {
            let mut arguments = json!({ "flow": flow, "if_running": wanted.if_running });
            if let Some(key) = &key {
                arguments["idempotency_key"] = key.as_str().into();
            }
            let serve = dice.random_range(0..self.serves.len());
            match self.tool(serve, token, "trigger_sync", arguments).await {
                Heard::Result(result) => {
                    let run = result["structuredContent"]["run_id"].as_str().unwrap_or_default().to_owned();
                    match &told {
                        Some(before) if *before != run => {
                            self.violation(format!("key {key:?} gave {before} and then {run}"));
                        }
                        Some(_) => return,
                        None => {
                            self.accept(flow, run.clone(), key.clone());
                            // The same key once more gives the same run.
                            if key.is_none() || dice.random_bool(0.5) {
                                return;
                            }
                            told = Some(run);
                        }
                    }
                }
                Heard::Refused(code) if code == "CONNECTOR_UNAVAILABLE" => {}
                Heard::ComeAgain if key.is_none() => {
                    // Without a key nobody can ask again without making another run.
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Heard::ComeAgain => {}
                other => self.violation(format!("trigger_sync: {other:?}")),
            }
            if Instant::now() >= deadline {
                return self.violation(format!("{flow} could not be triggered"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads this and that until it is enough; a run never goes back.
    pub async fn read(&self, seed: u64, token: &str) {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut seen: BTreeMap<String, (i64, i64, bool)> = BTreeMap::new();
        while !self.enough.load(Ordering::Relaxed) {
            let serve = dice.random_range(0..self.serves.len());
            let known = self.accepted.lock().unwrap().clone();
            let (tool, arguments) = match dice.random_range(0..6) {
                0..3 if !known.is_empty() => {
                    ("get_run", json!({ "run_id": known[dice.random_range(0..known.len())].run }))
                }
                // A clock that jumps may let a run end hours from now.
                3 => ("list_runs", json!({ "since": "2000-01-01", "until": "2100-01-01", "limit": 100 })),
                4 => ("get_system_health", json!({})),
                _ => ("list_flows", json!({})),
            };
            match self.tool(serve, token, tool, arguments).await {
                Heard::Result(result) if tool == "get_run" => {
                    let run = &result["structuredContent"]["run"];
                    let id = run["run_id"].as_str().unwrap_or_default().to_owned();
                    let now = (
                        run["attempt"].as_i64().unwrap_or(-1),
                        run["records"]["read"].as_i64().unwrap_or(-1),
                        run["done"] == true,
                    );
                    if seen.get(&id).is_some_and(|before| now < *before || (before.2 && now != *before)) {
                        self.violation(format!("{id} went from {:?} back to {now:?}", seen[&id]));
                    }
                    seen.insert(id, now);
                }
                Heard::Result(result) if tool == "list_flows" => {
                    let names = listed(&result, "flows", "name");
                    if let Some(flow) = FLOWS.iter().find(|flow| !names.contains(flow.name)) {
                        self.violation(format!("list_flows leaves out {}: {names:?}", flow.name));
                    }
                }
                Heard::Result(result) if tool == "list_runs" => self.all_there(&result, &known),
                Heard::Result(_) | Heard::ComeAgain => {}
                other => self.violation(format!("{tool}: {other:?}")),
            }
            sleep(Duration::from_millis(dice.random_range(30..120))).await;
        }
    }

    /// A list of runs has each that somebody was told of before it was asked for, as far as its page goes.
    pub fn all_there(&self, result: &Value, known: &[Accepted]) {
        let runs = listed(result, "runs", "run_id");
        let page_ends = result["structuredContent"]["next_cursor"].is_string();
        if let Some(told) = known.iter().find(|told| !page_ends && !runs.contains(&told.run)) {
            self.violation(format!("list_runs leaves out {} of {}: {runs:?}", told.run, told.flow));
        }
    }

    /// Uses a token until `until`; since `revoked` it must be refused.
    pub async fn hold(
        &self,
        token: &str,
        revoked: &Mutex<Option<Instant>>,
        maybe: &AtomicBool,
        until: &AtomicBool,
    ) {
        let mut turn = 0;
        while !until.load(Ordering::Relaxed) {
            turn += 1;
            let since = revoked.lock().unwrap().map(|at| at.elapsed());
            let serve = turn / HELD.len() % self.serves.len();
            let what = HELD[turn % HELD.len()];
            let ends = since.is_some() || maybe.load(Ordering::SeqCst);
            let known = self.accepted.lock().unwrap().first().map(|told| told.run.clone());
            let key = format!("held-{turn}");
            let arguments = match (what, known) {
                // (as long as it may, it makes no runs: what a seed makes is not chance)
                ("trigger_sync", _) if ends => json!({ "flow": FLOWS[0].name, "idempotency_key": key }),
                ("get_run" | "get_run_errors", Some(run)) => json!({ "run_id": run }),
                ("trigger_sync" | "get_run" | "get_run_errors", _) => continue,
                ("list_runs" | "list_flows" | "list_connectors" | "get_system_health" | "tools/list", _) => {
                    json!({})
                }
                _ => json!({ "flow": FLOWS[0].name }),
            };
            let heard = match what {
                "tools/list" => self.message(serve, token, what, arguments).await,
                _ => self.tool(serve, token, what, arguments).await,
            };
            // What needs no database may lag by the second that a token is remembered.
            let lags =
                what == "tools/list" && since.is_some_and(|since| since < Duration::from_millis(1_050));
            match heard {
                Heard::ComeAgain => {}
                Heard::Result(_) if since.is_some() && !lags => {
                    self.violation(format!("{what} was answered {since:?} after the token was revoked"));
                }
                Heard::Result(result) if what == "trigger_sync" => {
                    let run = result["structuredContent"]["run_id"].as_str().unwrap_or_default().to_owned();
                    self.accept(FLOWS[0].name, run, Some(key));
                }
                Heard::Result(_) => {}
                Heard::Refused(code) if what == "trigger_sync" && code == "CONNECTOR_UNAVAILABLE" => {}
                Heard::Unauthorized if since.is_some() || maybe.load(Ordering::SeqCst) => {}
                Heard::Refused(code)
                    if code == "TOKEN_REVOKED" && (since.is_some() || maybe.load(Ordering::SeqCst)) => {}
                other => self.violation(format!("{what} with a live token: {other:?}")),
            }
            sleep(Duration::from_millis(40)).await;
        }
    }
}
