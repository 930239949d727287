//! The fixture, and tools that misbehave or can be watched.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apixx_mcp::protocol::{
    CallError, CallTool, ClientInfo, Exchange, Implementation, LogLevel, Revision, Server, ToolAnswer,
    ToolList,
};
use http::{HeaderMap, HeaderValue};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::fixture::{Caller, Fixture, definition};

/// What a waiting call tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Started,
    Dropped,
}

/// Hears what waiting calls tell.
pub struct Heard(UnboundedReceiver<Event>);

impl Heard {
    /// The next event; a test whose event never comes fails instead of hanging.
    pub async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(30), self.0.recv()).await;
        event.expect("a call told nothing for half a minute").expect("the probe is gone")
    }

    /// Whether everything told so far was heard.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub struct Probe {
    fixture: Fixture,
    events: UnboundedSender<Event>,
    /// How many further messages of batches are admitted.
    pub admits: AtomicUsize,
    pub met: Mutex<Vec<ClientInfo>>,
}

impl Probe {
    pub fn new() -> (Arc<Self>, Heard) {
        let (events, heard) = unbounded_channel();
        let any = || json!({"type": "object"});
        let more = [
            ("wait", "Waits for ever; with `report`, reports progress first."),
            ("panic", "Panics; with `report`, reports progress first."),
            ("fail", "Fails for a reason of ours."),
            ("away", "Cannot answer now; with `report`, reports progress first."),
            ("strict", "Takes no arguments."),
            ("structured", "Answers with the `value` it is given, as structured content."),
            ("backwards", "Reports progress that goes back and stands still."),
            ("chatty", "Reports progress a hundred times."),
            ("levels", "Logs a line of each level."),
        ];
        let more = more.map(|(name, description)| definition(name, description, any()));
        let (admits, met) = (AtomicUsize::new(usize::MAX), Mutex::default());
        (Arc::new(Self { fixture: Fixture::with(more.to_vec()), events, admits, met }), Heard(heard))
    }
}

struct Dropped(UnboundedSender<Event>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped);
    }
}

impl Server for Probe {
    type Caller = Caller;

    fn implementation(&self) -> &Implementation {
        self.fixture.implementation()
    }

    fn instructions(&self) -> &str {
        ""
    }

    fn tools(&self, caller: &Caller) -> Arc<ToolList> {
        self.fixture.tools(caller)
    }

    fn met(&self, _caller: &Caller, client: &ClientInfo, _revision: Revision) {
        self.met.lock().expect("no test panics while it holds the list").push(client.clone());
    }

    async fn admit(&self, _caller: &Caller) -> Result<(), Duration> {
        self.admits
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .map(drop)
            .map_err(|_| Duration::from_millis(1500))
    }

    fn headers(&self, caller: &Caller, headers: &mut HeaderMap) {
        headers.insert("x-probe", HeaderValue::from_str(&caller.0).expect("test tokens are visible ASCII"));
    }

    fn caller_key(&self, caller: &Caller) -> String {
        caller.0.clone()
    }

    async fn call_tool(
        &self,
        caller: &Caller,
        mut call: CallTool,
        exchange: &Exchange,
    ) -> Result<ToolAnswer, CallError> {
        if call.arguments.contains_key("report") {
            exchange.progress(1.0, None, None).await;
        }
        match call.name.as_str() {
            "wait" => {
                let _dropped = Dropped(self.events.clone());
                let _ = self.events.send(Event::Started);
                std::future::pending().await
            }
            "panic" => panic!("as asked"),
            "fail" => Err(CallError::Internal { request_id: exchange.request_id.clone() }),
            "away" => Err(CallError::Unavailable {
                message: "Nothing was changed: come again.".into(),
                request_id: exchange.request_id.clone(),
            }),
            "strict" if call.arguments.is_empty() => Ok(ToolAnswer::text("fine")),
            "strict" => Err(CallError::InvalidArguments {
                message: "This tool takes no arguments.".into(),
                data: json!({"errors": [{"path": "", "message": "no arguments", "expected": "{}"}]}),
                answer: ToolAnswer::error("INVALID_ARGUMENTS: This tool takes no arguments."),
            }),
            "structured" => {
                let value = call.arguments.remove("value").unwrap_or_default();
                let meta = json!({"com.example/rows": 1});
                Ok(ToolAnswer {
                    structured: Some(to_raw_value(&value).expect("JSON serialises")),
                    meta: meta.as_object().cloned(),
                    ..ToolAnswer::text(value.to_string())
                })
            }
            "backwards" => {
                for progress in [1.0, 1.0, 0.5, f64::NAN, 2.0] {
                    exchange.progress(progress, Some(f64::INFINITY), None).await;
                }
                Ok(ToolAnswer::text(if exchange.wants_progress() { "heard" } else { "unheard" }))
            }
            "chatty" => {
                for progress in 0..100_u8 {
                    exchange.progress(f64::from(progress), Some(100.0), None).await;
                }
                Ok(ToolAnswer::text("done"))
            }
            "levels" => {
                use LogLevel::{Alert, Critical, Debug, Emergency, Error, Info, Notice, Warning};
                for level in [Debug, Info, Notice, Warning, Error, Critical, Alert, Emergency] {
                    exchange.log(level, "probe", Value::Null).await;
                }
                Ok(ToolAnswer::text("done"))
            }
            _ => self.fixture.call_tool(caller, call, exchange).await,
        }
    }
}
