//! What a scripted system is told to do.
//!
//! The configuration of a connector of kind `sim` is `{"sim": {…}, "tools": […]}`, every key optional:
//!
//! ```json
//! {"sim": {
//!   "auth_status": "valid",            // or expired, revoked, invalid, expiring_soon …: what a check reports;
//!                                      // a broken one fails every run before it reads (AUTH_EXPIRED)
//!   "auth_error": "invalid_grant: refresh token is invalid or revoked",
//!   "auth_expires_in_s": 518400,
//!   "down": "connection refused",      // checks and runs fail with this sentence (CONNECTIVITY)
//!   "quotas": [{"name": "daily_api_requests", "unit": "requests", "used": 87412, "limit": 100000,
//!               "resets_in_s": 54000, "throttled_1h": 0}],
//!                                      // or "resets_daily": true, at midnight UTC
//!
//!   // as a source
//!   "records": 8412,                   // how many a full run gives (default 100)
//!   "spread": 0.05,                    // +/- share of that, chosen per run
//!   "seconds": 16,                     // how long reading takes, evenly paced (default 0: at once)
//!   "template": {"id": "{n}", "name": "#{n}", "status": {"$pick": ["paid", "refunded"]}},
//!                                      // a record: "{n}" alone is its number (from 1), inside a text it is
//!                                      // spelt out, {"$pick": […]} takes one value per record
//!   "objects": {"invoice": {"records": 8412, "seconds": 16, "template": {…}}},
//!                                      // the same four keys for one object, before the general ones
//!   "fail_read": {"after": 500, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "…"},
//!                                      // the run fails so after that many records, in its first attempts
//!
//!   // as a destination
//!   "errors": [{"rate": 0.012, "class": "REFERENCE", "code": "INVALID_KEY_OR_REF", "field": "item",
//!               "message": "Invalid item reference key SKU-{n} for subsidiary 3"}],
//!                                      // each rejects that share of the records
//!   "unchanged": 0.25,                 // share of records that it has already
//!   "fail_write": {"after": 500, "attempts": 1, "class": "UNAVAILABLE", "code": "503", "message": "…"}
//! }}
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::connector::AuthStatus;
use crate::domain::error_class::{ErrorClass, Stage};
use crate::domain::failure::Failure;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) sim: Script,
    /// The tools of a scripted MCP server: lists show them, runs do not need them.
    #[serde(default, rename = "tools")]
    _tools: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) auth_status: Option<AuthStatus>,
    pub(super) auth_error: Option<String>,
    pub(super) auth_expires_in_s: Option<i32>,
    pub(super) down: Option<String>,
    #[serde(default)]
    pub(super) quotas: Vec<Quota>,
    pub(super) records: Option<i64>,
    pub(super) spread: Option<f64>,
    pub(super) seconds: Option<f64>,
    pub(super) template: Option<Map<String, Value>>,
    #[serde(default)]
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) fail_read: Option<Fault>,
    #[serde(default)]
    pub(super) errors: Vec<Rejects>,
    #[serde(default)]
    pub(super) unchanged: f64,
    pub(super) fail_write: Option<Fault>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    pub(super) records: Option<i64>,
    pub(super) spread: Option<f64>,
    pub(super) seconds: Option<f64>,
    pub(super) template: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    pub(super) name: String,
    #[serde(default = "requests")]
    pub(super) unit: String,
    pub(super) used: i64,
    pub(super) limit: i64,
    pub(super) resets_in_s: Option<i32>,
    #[serde(default)]
    pub(super) resets_daily: bool,
    #[serde(default)]
    pub(super) throttled_1h: i32,
}

fn requests() -> String {
    "requests".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) after: i64,
    pub(super) attempts: Option<i32>,
    pub(super) class: ErrorClass,
    pub(super) code: String,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn strikes(&self, records: i64, attempt: i32) -> bool {
        records >= self.after && self.attempts.is_none_or(|attempts| attempt <= attempts)
    }

    pub(super) fn failure(&self, stage: Stage) -> Failure {
        Failure::new(self.class, self.code.clone(), stage, &self.message).in_foreign_words()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejects {
    pub(super) rate: f64,
    pub(super) class: ErrorClass,
    pub(super) code: String,
    pub(super) field: Option<String>,
    pub(super) message: String,
}
