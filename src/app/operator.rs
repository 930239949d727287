//! What the operator asks a process: does it live, can it work, how does it do. On an address of its own.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use metrics::{gauge, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use serde_json::json;
use tokio::sync::Mutex;

use crate::store::Store;

/// However often somebody asks, the database is asked once in this time whether it answers.
const LOOK: TimeDelta = TimeDelta::seconds(1);

/// And once in this time how long the queue is.
const COUNT: TimeDelta = TimeDelta::seconds(5);

/// What the operator's address knows.
#[derive(Clone)]
struct Desk {
    store: Store,
    measures: PrometheusHandle,
    process: Collector,
    looked: Arc<Mutex<Looked>>,
}

/// When the database was asked what last.
#[derive(Default)]
struct Looked {
    answers: Option<(DateTime<Utc>, bool)>,
    counted: Option<DateTime<Utc>>,
}

/// Answers `/healthz`, `/readyz` and `/metrics`, for a process that uses `store`.
pub(super) fn router(store: Store, measures: PrometheusHandle) -> Router {
    let process = Collector::default();
    process.describe();
    let desk = Desk { store, measures, process, looked: Arc::default() };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(measured))
        .with_state(desk)
}

/// The process answers.
pub(super) async fn alive() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// The database answers too.
async fn ready(State(desk): State<Desk>) -> Response {
    if desk.database_answers().await {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let answer = Json(json!({ "status": "not ready" }));
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], answer).into_response()
}

/// Everything that is counted and measured, in Prometheus' text format 0.0.4.
async fn measured(State(desk): State<Desk>) -> Response {
    if desk.database_answers().await {
        desk.count_queue().await;
    }
    let (idle, busy) = desk.store.connections();
    gauge!("apixx_database_connections", "state" => "idle").set(f64::from(idle));
    gauge!("apixx_database_connections", "state" => "busy").set(f64::from(busy));
    desk.process.collect();
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, desk.measures.render()).into_response()
}

impl Desk {
    /// Whether `at` is no longer ago than that. What a clock that was set back calls the future is over.
    fn is_within(&self, time: TimeDelta, at: DateTime<Utc>) -> bool {
        (TimeDelta::zero()..time).contains(&(self.store.now() - at))
    }

    /// Whether the database answers, as of a second ago at most.
    async fn database_answers(&self) -> bool {
        let mut looked = self.looked.lock().await;
        if let Some((_, answers)) = looked.answers.filter(|(at, _)| self.is_within(LOOK, *at)) {
            return answers;
        }
        let answers = match self.store.probe().await {
            Ok(probe) => {
                histogram!("apixx_database_acquire_seconds").record(probe.acquire);
                histogram!("apixx_database_round_trip_seconds").record(probe.round_trip);
                true
            }
            Err(error) => {
                tracing::warn!("not ready: {error}");
                false
            }
        };
        looked.answers = Some((self.store.now(), answers));
        answers
    }

    async fn count_queue(&self) {
        let mut looked = self.looked.lock().await;
        if looked.counted.is_some_and(|at| self.is_within(COUNT, at)) {
            return;
        }
        looked.counted = Some(self.store.now());
        match self.store.queue_depth().await {
            Ok(depth) => {
                gauge!("apixx_queue_runs", "state" => "queued").set(depth.queued as f64);
                gauge!("apixx_queue_runs", "state" => "running").set(depth.running as f64);
                gauge!("apixx_queue_oldest_seconds").set(depth.oldest_s.unwrap_or(0.0).max(0.0));
            }
            Err(error) => tracing::warn!("the queue could not be counted: {error}"),
        }
    }
}
