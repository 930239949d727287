//! What the servers beside the product ask of the database: the product's own statements without the head that sets
//! the customer and checks the token, run by a role that row-level security does not hold for.

use std::str::FromStr;

use apixx_mcp::config::{Config, DEFAULTS};
use apixx_mcp::store::all_statements;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, SqlSafeStr, SqlStr};

/// As many connections as the product has by default.
pub fn pool_size() -> u32 {
    let defaults: Config = toml::from_str(DEFAULTS).expect("the product's defaults");
    defaults.database.pool_size.get()
}

/// Rows asked for: a page and one more, which tells that there are more.
pub const ROWS: i64 = 26;

/// The statements as text that any driver can prepare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Texts {
    /// Customer, time, run.
    pub get_run: String,
    /// Customer, time, since, until, rows, and the time and id of the run to go on after.
    pub list_runs: String,
}

impl Texts {
    /// The product's statements without their heads.
    pub fn of_product() -> Self {
        let all: Vec<String> = all_statements()
            .iter()
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let filters = ["x.flow_id =", "any ($11)", "any ($12)", "any ($13)", "wanted"];
        let run = all.iter().find(|text| text.contains("as previous_run"));
        let page = all.iter().find(|text| {
            text.contains("< ($14, $15)") && filters.iter().all(|filter| !text.contains(filter))
        });
        let bare = |text: Option<&String>, from: &str, to: &str| {
            let text = text.expect("the product has this statement");
            let begin = text.find(from).expect("its head") + from.len();
            let end = text.rfind(to).expect("its end");
            renumbered(&text[begin..end].replace(" and caller.id = $1", ""))
        };
        Self {
            get_run: bare(run, "cross join lateral (", ") q"),
            list_runs: bare(page, "left join lateral (", ") p on true"),
        }
    }
}

/// The same statement with its parameters numbered from one, without holes.
fn renumbered(text: &str) -> String {
    let mut used: Vec<u32> =
        text.split('$').skip(1).map(|rest| number(rest).expect("a parameter's number")).collect();
    used.sort_unstable();
    used.dedup();
    let mut out = String::new();
    for (place, piece) in text.split('$').enumerate() {
        if place == 0 {
            out.push_str(piece);
            continue;
        }
        let old = number(piece).expect("a parameter's number");
        let new = used.iter().position(|one| *one == old).expect("it is used") + 1;
        out.push_str(&format!("${new}{}", piece.trim_start_matches(|c: char| c.is_ascii_digit())));
    }
    out
}

fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// What is asked for, in the words of the servers beside the product.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub customer: String,
    pub run_id: String,
    pub now: DateTime<Utc>,
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub window_at: DateTime<Utc>,
}

/// A run, as the statements give it.
#[derive(FromRow, Serialize)]
pub struct Run {
    run_id: String,
    flow_id: String,
    flow_name: String,
    status: String,
    reason_code: Option<String>,
    reason_message: Option<String>,
    trigger: String,
    triggered_by: Option<String>,
    trigger_note: Option<String>,
    retry_of: Option<String>,
    flow_version: i32,
    source_connector_id: String,
    source_name: String,
    source_service: String,
    source_status: String,
    destination_connector_id: String,
    destination_name: String,
    destination_service: String,
    destination_status: String,
    source_objects: Vec<String>,
    destination_objects: Vec<String>,
    scheduled_for: Option<DateTime<Utc>>,
    queued_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    window_at: DateTime<Utc>,
    phase: Option<String>,
    attempt: i32,
    max_attempts: i32,
    records_read: i64,
    records_written: i64,
    records_failed: i64,
    records_skipped: i64,
    records_unchanged: i64,
    records_estimated: Option<i64>,
    bytes_read: i64,
    bytes_written: i64,
    error_groups: i32,
    top_error_class: Option<String>,
}

/// A run with everything beside it; what the database has made JSON of stays as it is.
#[derive(FromRow, Serialize)]
pub struct Detail {
    #[sqlx(flatten)]
    run: Run,
    attempts: Json<Box<RawValue>>,
    events: Json<Box<RawValue>>,
    errors: Json<Box<RawValue>>,
    previous_run: Option<Json<Box<RawValue>>>,
    next_run: Option<Json<Box<RawValue>>>,
    last_success: Option<Json<Box<RawValue>>>,
    versions: Json<Box<RawValue>>,
    changes: Json<Box<RawValue>>,
    queue_position: i64,
    median_ms: Option<i64>,
}

/// The database as a hand-written server uses it.
#[derive(Clone)]
pub struct Queries {
    pool: PgPool,
    get_run: SqlStr,
    list_runs: SqlStr,
}

impl Queries {
    /// Connects, with plans made once as in the product.
    pub async fn connect(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).expect("a URL").options([
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
            ("timezone", "UTC"),
        ]);
        let pool = PgPoolOptions::new()
            .min_connections(pool_size())
            .max_connections(pool_size())
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .expect("the database answers");
        let Texts { get_run, list_runs } = Texts::of_product();
        // Trusted: the product's own text.
        let safe = |text: String| AssertSqlSafe(text).into_sql_str();
        Self { pool, get_run: safe(get_run), list_runs: safe(list_runs) }
    }

    /// One run.
    pub async fn run(&self, asked: &Asked) -> Option<Detail> {
        sqlx::query_as(self.get_run.clone())
            .bind(&asked.customer)
            .bind(asked.now)
            .bind(&asked.run_id)
            .fetch_optional(&self.pool)
            .await
            .expect("the database answers")
    }

    /// One page of runs.
    pub async fn runs(&self, asked: &Asked) -> Vec<Run> {
        let mut rows: Vec<Run> = sqlx::query_as(self.list_runs.clone())
            .bind(&asked.customer)
            .bind(asked.now)
            .bind(asked.since)
            .bind(asked.until)
            .bind(ROWS)
            .bind(asked.window_at)
            .bind(&asked.run_id)
            .fetch_all(&self.pool)
            .await
            .expect("the database answers");
        rows.truncate(ROWS as usize - 1);
        rows
    }
}
