//! Request limits: a bucket per customer, in the database, that every process draws on in small leases.
//!
//! Together the processes never admit more than the bucket grants. A process that is asked often leases more
//! at a time, one that is asked seldom leases one, so that little lies idle.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::access::Refused;
use crate::store::tokens::Plan;
use crate::store::usage::Permits;
use crate::store::{Store, Tenancy};

/// Leased permits that were not used within this time are let go.
const LEASE_SECONDS: i64 = 5;

/// Discovery requests a minute for one customer and process.
const DISCOVERIES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(300).unwrap();

/// What was drawn, for the headers `RateLimit` and `RateLimit-Policy`
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Requests a minute.
    pub limit: u32,
    /// Requests left now.
    pub left: u32,
    /// Seconds until one more is there.
    pub next_in_s: u64,
}

impl Drawn {
    /// The headers that tell a client where it stands.
    pub fn headers(&self) -> [(&'static str, String); 2] {
        [
            ("ratelimit-policy", format!("\"plan\";q={};w=60", self.limit)),
            ("ratelimit", format!("\"plan\";r={};t={}", self.left, self.next_in_s)),
        ]
    }
}

/// Draws requests from the buckets of customers. Cheap to clone; clones share their leases.
#[derive(Clone)]
pub(super) struct Limiter {
    store: Store,
    leases: Arc<Mutex<HashMap<String, Lease>>>,
    discovery: Arc<DefaultKeyedRateLimiter<String>>,
}

struct Lease {
    permits: u32,
    left: u32,
    size: u32,
    since: DateTime<Utc>,
}

impl Limiter {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            leases: Arc::default(),
            discovery: Arc::new(RateLimiter::keyed(Quota::per_minute(DISCOVERIES_PER_MINUTE))),
        }
    }

    /// Draws one request of the customer.
    pub(super) async fn draw(&self, tenancy: &Tenancy, plan: &Plan) -> Result<Drawn, Refused> {
        let now = self.store.now();
        let limit = u32::try_from(plan.requests_per_minute).unwrap_or(1).max(1);
        let drawn =
            |left| Drawn { limit, left, next_in_s: if left > 0 { 0 } else { (60 / limit).max(1).into() } };
        let wanted = match self.take(tenancy, plan, now) {
            Ok(left) => return Ok(drawn(left)),
            Err(wanted) => wanted,
        };
        match self.store.lease_permits(tenancy, wanted).await.map_err(Refused::Failed)? {
            Permits::Exhausted(wait) => {
                Err(Refused::Limited(wait, Some(Drawn { next_in_s: seconds(wait), ..drawn(0) })))
            }
            Permits::Granted { permits, left } => {
                let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
                let lease = leases.entry(tenancy.customer().to_string()).or_insert_with(|| Lease::empty(now));
                lease.permits += permits - 1;
                lease.left = left;
                lease.size = wanted;
                lease.since = now;
                Ok(drawn(lease.permits + left))
            }
        }
    }

    /// One permit of the lease in hand, telling how many are left; or how many to lease.
    fn take(&self, tenancy: &Tenancy, plan: &Plan, now: DateTime<Utc>) -> Result<u32, u32> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lease) = leases.get_mut(tenancy.customer().as_str()) else { return Err(1) };
        let age = now - lease.since;
        if age > TimeDelta::seconds(LEASE_SECONDS) {
            lease.permits = 0;
        }
        if lease.permits > 0 {
            lease.permits -= 1;
            return Ok(lease.permits + lease.left);
        }
        let most = u32::try_from(plan.burst / 8).unwrap_or(1).max(1);
        Err(if age < TimeDelta::seconds(1) { (lease.size * 2).min(most) } else { (lease.size / 2).max(1) })
    }

    /// Draws one discovery request of the customer, from a bucket of its own.
    pub(super) fn draw_discovery(&self, tenancy: &Tenancy) -> Result<(), Duration> {
        let key = tenancy.customer().to_string();
        self.discovery.check_key(&key).map_err(|not_until| {
            not_until.wait_time_from(governor::clock::Clock::now(self.discovery.clock()))
        })
    }
}

impl Lease {
    fn empty(since: DateTime<Utc>) -> Self {
        Self { permits: 0, left: 0, size: 1, since }
    }
}

/// Whole seconds, at least one, for `Retry-After`.
pub fn seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}
