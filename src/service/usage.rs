//! What tokens were used for, counted in memory and flushed once a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::domain::ids::TokenId;
use crate::store::usage::Used;
use crate::store::{Store, StoreError, Tenancy};

/// The tool name under which requests are counted that called none; its errors are those that limits refused.
const NO_TOOL: &str = "-";

/// Longest client name kept, in characters.
const MAX_CLIENT_CHARS: usize = 120;

/// Counts what tokens are used for. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Mutex<HashMap<(TokenId, String), Used>>>);

impl Usage {
    /// A request of this token came.
    pub fn heard(&self, tenancy: &Tenancy, token: &TokenId, address: Option<IpAddr>, at: DateTime<Utc>) {
        self.with(tenancy, token, NO_TOOL, at, |used| {
            used.ip = address.map(|address| address.to_string()).or(used.ip.take());
        });
    }

    /// A request of this token was refused by the limits of its plan.
    pub fn throttled(&self, tenancy: &Tenancy, token: &TokenId, at: DateTime<Utc>) {
        self.with(tenancy, token, NO_TOOL, at, |used| used.errors += 1);
    }

    /// The client behind this token introduced itself.
    pub fn met(&self, tenancy: &Tenancy, token: &TokenId, client: &str, at: DateTime<Utc>) {
        let client: String = client.chars().filter(|c| !c.is_control()).take(MAX_CLIENT_CHARS).collect();
        self.with(tenancy, token, NO_TOOL, at, |used| used.client = Some(client));
    }

    /// A tool was called.
    pub fn called(&self, tenancy: &Tenancy, token: &TokenId, call: Call<'_>, at: DateTime<Utc>) {
        self.with(tenancy, token, call.tool, at, |used| {
            used.calls += 1;
            used.errors += i64::from(call.failed);
            used.duration_ms += call.duration_ms;
        });
    }

    fn with(
        &self,
        tenancy: &Tenancy,
        token: &TokenId,
        tool: &str,
        at: DateTime<Utc>,
        change: impl FnOnce(&mut Used),
    ) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = counted.entry((token.clone(), tool.to_owned())).or_insert_with(|| Used {
            tenancy: tenancy.clone(),
            token: token.clone(),
            tool: tool.to_owned(),
            calls: 0,
            errors: 0,
            duration_ms: 0,
            last_used_at: at,
            client: None,
            ip: None,
        });
        used.last_used_at = used.last_used_at.max(at);
        change(used);
    }

    /// Writes what was counted since the last flush; nothing is sent when nothing was.
    ///
    /// # Errors
    /// When the database fails; what was counted is kept for the next flush, unless it may have been written:
    /// nobody is charged twice.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            return Ok(());
        }
        let used: Vec<Used> = taken.into_values().collect();
        let done = store.flush_usage(&used).await;
        if done.as_ref().is_err_and(|error| !matches!(error, StoreError::Unknown(_))) {
            let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for lost in used {
                let key = (lost.token.clone(), lost.tool.clone());
                match counted.get_mut(&key) {
                    Some(newer) => {
                        newer.calls += lost.calls;
                        newer.errors += lost.errors;
                        newer.duration_ms += lost.duration_ms;
                        newer.client = newer.client.take().or(lost.client);
                        newer.ip = newer.ip.take().or(lost.ip);
                    }
                    None => drop(counted.insert(key, lost)),
                }
            }
        }
        done
    }
}

/// One call of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which tool.
    pub tool: &'a str,
    /// Whether it was answered with an error.
    pub failed: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
}
