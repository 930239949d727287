//! What is counted and measured, for Prometheus. Never by customer, token or address.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Upper bounds of the classes of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// What there is, by kind; what it means is its second word. The README lists the same.
const COUNTERS: &[(&str, &str)] = &[
    ("apixx_http_requests_total", "HTTP requests, by status"),
    ("apixx_refusals_total", "requests and calls that were refused, by cause; each has a line in the log"),
    ("mcp_requests_total", "MCP requests, by method"),
    ("apixx_tool_calls_total", "tool calls, by tool and outcome (ok, refused, failed)"),
    ("apixx_connections_evicted_total", "connections that were closed to make room for new ones"),
    ("apixx_runs_claimed_total", "runs that this process's workers claimed"),
    ("apixx_runs_ended_total", "runs that this process's workers ended, by status"),
    ("apixx_runs_retried_total", "runs that this process's workers gave back for another attempt"),
    ("apixx_records_total", "records that this process's workers accounted for, by result"),
    ("apixx_leases_lost_total", "runs that another worker took over from this process"),
    ("apixx_leases_reaped_total", "runs that this process took from workers that went silent"),
    ("apixx_schedules_fired_total", "schedules that fell due and were followed by this process"),
    ("apixx_connector_checks_total", "connectors that this process checked, by result"),
    (
        "apixx_retention_batches_total",
        "batches in which this process looked for what had outlived its time and deleted it",
    ),
];

/// As above.
const GAUGES: &[(&str, &str)] = &[
    ("apixx_build_info", "1, labelled with the version"),
    ("apixx_connections_open", "connections that are open, those to the operator's address included"),
    ("apixx_calls_under_way", "tool calls under way"),
    ("apixx_waits", "tool calls that wait for a run to end, or for a connector to be checked"),
    ("apixx_database_connections", "connections to the database, by state (idle, busy)"),
    (
        "apixx_queue_runs",
        "runs of all customers that are open, by state (queued, running); counted up to 10000",
    ),
    ("apixx_queue_oldest_seconds", "how long the oldest queued run has been ready to start"),
];

/// As above.
const HISTOGRAMS: &[(&str, &str)] = &[
    ("apixx_http_request_seconds", "time from a request's head to the head of its answer"),
    ("apixx_tool_call_seconds", "time that a tool call took, by tool, waits included"),
    ("apixx_database_acquire_seconds", "how long a probe, at most once a second, waited for a connection"),
    ("apixx_database_round_trip_seconds", "how long its statement then took"),
];

/// Measures for the whole process from now on. Once per process.
///
/// # Errors
/// When somebody measures already.
pub fn init() -> Result<PrometheusHandle, BuildError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

/// What keeps the measures, for a test to set for its thread.
///
/// # Errors
/// None, as long as there are classes of durations.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new().set_buckets(&SECONDS)?.build_recorder())
}

/// Every name there is.
pub fn names() -> impl Iterator<Item = &'static str> {
    [COUNTERS, GAUGES, HISTOGRAMS].into_iter().flatten().map(|(name, _)| *name)
}

fn describe() {
    for (name, meaning) in COUNTERS {
        describe_counter!(*name, Unit::Count, *meaning);
    }
    for (name, meaning) in GAUGES {
        describe_gauge!(*name, *meaning);
    }
    for (name, meaning) in HISTOGRAMS {
        describe_histogram!(*name, Unit::Seconds, *meaning);
    }
    metrics::gauge!("apixx_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
