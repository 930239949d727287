//! Request limits: a bucket per customer, in the database, that every process draws on in small leases.
//!
//! Bucket and leases together never hold more than the plan's burst, and only the bucket is refilled: so the
//! processes together never admit more than the burst and the rate grant, in any stretch of time. A process that is
//! asked often leases more at a time, one that is asked seldom next to nothing; what lies idle is given back each
//! second, so that hardly anything is lost either. A customer who has used up everything is refused from memory.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::OwnedMutexGuard;

use super::access::Refused;
use crate::store::tokens::Plan;
use crate::store::usage::Permits;
use crate::store::{Store, StoreError, Tenancy};

/// How long leased permits may be used.
const LEASE: TimeDelta = TimeDelta::seconds(5);

/// How long the bucket counts them as held: longer, because the clocks of two processes may differ.
const HELD: TimeDelta = TimeDelta::seconds(7);

/// The part of a burst that a process leases at most,
const MOST_OF_BURST: i32 = 8;

/// and the part that it begins with: a handful of calls one after the other should not each wait for the bucket.
const FIRST_OF_BURST: i32 = 64;

/// How much more it leases each time that it soon needs more.
const GROWTH: u32 = 4;

/// A lease that is older lies idle.
const IDLE: TimeDelta = TimeDelta::seconds(1);

/// An empty bucket is asked again after this time at most, should a plan have changed.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(1);

/// An empty bucket is left alone for this time at least, so that several permits are there when it is asked.
const LEAVE_ALONE: Duration = Duration::from_millis(200);

/// How long a caller waits for another one who asks the bucket for both.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// A request under way, counted until it is dropped.
#[derive(Debug)]
pub struct UnderWay(#[expect(dead_code, reason = "its being there is what counts")] Arc<()>);

/// Draws requests from the buckets of customers. Cheap to clone; clones share their leases.
#[derive(Clone)]
pub(super) struct Limiter {
    store: Store,
    /// What the buckets know this process as.
    process: Arc<str>,
    leases: Arc<Mutex<HashMap<String, Lease>>>,
    discovery: Arc<DefaultKeyedRateLimiter<String>>,
}

/// What this process has of one customer's permits.
struct Lease {
    tenancy: Tenancy,
    permits: u32,
    /// Permits of earlier leases that ran out unused.
    unused: u32,
    /// Whether the bucket counts any as held by this process.
    held: bool,
    /// What the bucket had left.
    left: u32,
    /// How many were wanted last.
    size: u32,
    since: DateTime<Utc>,
    /// The bucket is empty: it is not asked before the first, and has a permit at the second time.
    empty_until: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Held by who asks the bucket: one asks for all.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// As many more of these as the customer has requests under way.
    under_way: Arc<()>,
}

/// What a look at the lease in hand gives.
enum Look {
    /// A permit; how many are left.
    Taken(u32),
    /// The bucket is known to be empty; the wait until it is not.
    Empty(Duration),
    /// The bucket must be asked.
    Ask(Arc<tokio::sync::Mutex<()>>),
}

impl Limiter {
    pub(super) fn new(store: Store) -> Self {
        Self {
            process: store.ids().process_name().into(),
            store,
            leases: Arc::default(),
            discovery: Arc::new(RateLimiter::keyed(Quota::per_minute(DISCOVERIES_PER_MINUTE))),
        }
    }

    /// Draws one request of the customer.
    pub(super) async fn draw(&self, tenancy: &Tenancy, plan: &Plan) -> Result<Drawn, Refused> {
        let limit = u32::try_from(plan.requests_per_minute).unwrap_or(1).max(1);
        let drawn =
            |left| Drawn { limit, left, next_in_s: if left > 0 { 0 } else { (60 / limit).max(1).into() } };
        let empty = |wait| Refused::Limited(wait, Some(Drawn { next_in_s: seconds(wait), ..drawn(0) }));
        let asking = match self.look(tenancy) {
            Look::Taken(left) => return Ok(drawn(left)),
            Look::Empty(wait) => return Err(empty(wait)),
            Look::Ask(asking) => asking,
        };
        let turn = tokio::time::timeout(PATIENCE, asking.lock_owned()).await.map_err(|_| Refused::Busy)?;
        match self.look(tenancy) {
            Look::Taken(left) => return Ok(drawn(left)),
            Look::Empty(wait) => return Err(empty(wait)),
            Look::Ask(_) => {}
        }
        // A caller who goes away meanwhile must not take along what was leased for all.
        let asked = tokio::spawn(self.clone().ask(tenancy.clone(), plan.clone(), turn)).await;
        match asked.map_err(|_| Refused::Busy)?.map_err(Refused::Failed)? {
            Ok(left) => Ok(drawn(left)),
            Err(wait) => Err(empty(wait)),
        }
    }

    /// Counts one more request of the customer as under way, of which one may have `most`.
    pub(super) fn begin(&self, tenancy: &Tenancy, most: usize) -> Option<UnderWay> {
        let mut leases = self.leases();
        let customer = tenancy.customer();
        if !leases.contains_key(customer.as_str()) {
            leases.insert(customer.to_string(), Lease::none(tenancy, self.store.now()));
        }
        let under_way = &leases.get(customer.as_str())?.under_way;
        (Arc::strong_count(under_way) <= most).then(|| UnderWay(Arc::clone(under_way)))
    }

    /// One permit of the lease in hand, if there is one.
    fn look(&self, tenancy: &Tenancy) -> Look {
        let now = self.store.now();
        let mut leases = self.leases();
        let Some(lease) = leases.get_mut(tenancy.customer().as_str()) else {
            let lease = Lease::none(tenancy, now);
            let asking = Arc::clone(&lease.asking);
            leases.insert(tenancy.customer().to_string(), lease);
            return Look::Ask(asking);
        };
        lease.lapse(now);
        if lease.permits > 0 {
            lease.permits -= 1;
            return Look::Taken(lease.permits + lease.left);
        }
        match lease.empty_until {
            Some((ask_at, full_at)) if now < ask_at => {
                Look::Empty((full_at.max(ask_at) - now).to_std().unwrap_or_default())
            }
            _ => Look::Ask(Arc::clone(&lease.asking)),
        }
    }

    /// Asks the bucket, and takes one permit of what it gives; or the wait until it has one.
    async fn ask(
        self,
        tenancy: Tenancy,
        plan: Plan,
        _turn: OwnedMutexGuard<()>,
    ) -> Result<Result<u32, Duration>, StoreError> {
        let now = self.store.now();
        let (wanted, unused) = {
            let mut leases = self.leases();
            let lease =
                leases.entry(tenancy.customer().to_string()).or_insert_with(|| Lease::none(&tenancy, now));
            let part = |of: i32| u32::try_from(plan.burst / of).unwrap_or(1).max(1);
            let often = lease.held && now - lease.since < IDLE;
            lease.size = match often {
                true => lease.size.saturating_mul(GROWTH).min(part(MOST_OF_BURST)),
                false => (lease.size / GROWTH).max(part(FIRST_OF_BURST)),
            };
            (lease.size, std::mem::take(&mut lease.unused))
        };
        let asked = self.store.lease_permits(&tenancy, &self.process, wanted, unused, HELD).await;
        let mut leases = self.leases();
        let lease =
            leases.entry(tenancy.customer().to_string()).or_insert_with(|| Lease::none(&tenancy, now));
        let permits = match asked {
            Ok(permits) => permits,
            Err(error) => {
                // (what may have been given back is not given back again)
                if !matches!(error, StoreError::Unknown(_)) {
                    lease.unused += unused;
                }
                return Err(error);
            }
        };
        lease.since = now;
        lease.held = matches!(permits, Permits::Granted { .. });
        Ok(match permits {
            Permits::Granted { permits, left } => {
                lease.permits = permits - 1;
                lease.left = left;
                lease.empty_until = None;
                Ok(lease.permits + left)
            }
            Permits::Exhausted(wait) => {
                let rate = f64::from(plan.requests_per_minute.max(1)) / 60.0;
                let eighth = Duration::from_secs_f64(f64::from(plan.burst.max(1)) / rate / 8.0);
                let alone = TimeDelta::from_std(LEAVE_ALONE.min(eighth)).unwrap_or_default();
                let full = TimeDelta::from_std(wait).unwrap_or(TimeDelta::days(1));
                lease.left = 0;
                lease.empty_until = Some((now + full.max(alone).min(ASK_AGAIN), now + full));
                Err(wait)
            }
        })
    }

    /// Gives back what lies idle; everything, with `all`.
    ///
    /// # Errors
    /// When the database fails; it is given back later then, unless it may have been already.
    pub(super) async fn give_back(&self, all: bool) -> Result<(), StoreError> {
        let now = self.store.now();
        let mut turns = Vec::new();
        let unused: Vec<(Tenancy, u32)> = {
            let mut leases = self.leases();
            leases.retain(|_, lease| {
                let busy = Arc::strong_count(&lease.under_way) + Arc::strong_count(&lease.asking) > 2;
                busy || lease.held || lease.unused > 0 || now - lease.since < LEASE
            });
            let mut idle = |lease: &mut Lease| {
                lease.lapse(now);
                if !(lease.held || lease.unused > 0) || !(all || now - lease.since >= IDLE) {
                    return None;
                }
                // Who asks the bucket just now gives back, too.
                turns.push(Arc::clone(&lease.asking).try_lock_owned().ok()?);
                lease.held = false;
                let unused = std::mem::take(&mut lease.unused) + std::mem::take(&mut lease.permits);
                Some((lease.tenancy.clone(), unused))
            };
            leases.values_mut().filter_map(&mut idle).collect()
        };
        if unused.is_empty() {
            return Ok(());
        }
        let returned = self.store.return_permits(&self.process, &unused).await;
        if returned.as_ref().is_err_and(|error| !matches!(error, StoreError::Unknown(_))) {
            let mut leases = self.leases();
            for (tenancy, permits) in unused {
                if let Some(lease) = leases.get_mut(tenancy.customer().as_str()) {
                    lease.unused += permits;
                }
            }
        }
        returned
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<String, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn none(tenancy: &Tenancy, since: DateTime<Utc>) -> Self {
        Self {
            tenancy: tenancy.clone(),
            permits: 0,
            unused: 0,
            held: false,
            left: 0,
            size: 1,
            since,
            empty_until: None,
            asking: Arc::default(),
            under_way: Arc::default(),
        }
    }

    /// Permits that are too old may not be used any more. A clock that was set back makes everything old.
    fn lapse(&mut self, now: DateTime<Utc>) {
        if now < self.since || now - self.since > LEASE {
            self.unused += std::mem::take(&mut self.permits);
        }
        if now < self.since {
            self.since = now;
            self.empty_until = None;
        }
    }
}

/// Whole seconds, at least one, for `Retry-After`.
pub fn seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}
