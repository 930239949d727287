//! Who is calling: bearer text to [`Principal`].

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use tokio::sync::Semaphore;

pub use super::rate_limit::UnderWay;
use super::rate_limit::{Drawn, Limiter};
use super::usage::Usage;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::{PlainToken, TokenDigest};
use crate::store::customers::Actor;
use crate::store::people::Member;
use crate::store::tokens::{Caller, Plan, Presented, Workspace};
use crate::store::{Store, StoreError, Tenancy};

/// How long an owner is remembered: so late at most is a revocation felt by what needs no database.
const MEMORY: TimeDelta = TimeDelta::seconds(1);

/// Tokens remembered at most.
const MAX_REMEMBERED: u64 = 20_000;

/// Addresses whose failures are counted before the old ones are swept out.
const MAX_ADDRESSES: usize = 10_000;

/// Tokens that nobody made, remembered at most. One that is not valid does not become so by being sent again.
const MAX_UNKNOWN: u64 = 10_000;

/// Look-ups of tokens not seen before at the same time: a flood of made-up ones must not take the database from those
/// who are known.
const STRANGERS: usize = 2;

/// How long a token may wait for its look-up to begin.
const PATIENCE: Duration = Duration::from_secs(1);

/// Requests of one customer that one process has at the same time, waiting ones included: a quarter of the
/// connections that it takes by default.
const AT_ONCE: usize = 256;

/// What counts as one address: an IPv6 caller has a whole /64 (RFC 4291, section 2.5.4).
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// Who is calling, once recognised.
#[derive(Clone, Debug)]
pub struct Principal {
    caller: Arc<Caller>,
    address: Option<IpAddr>,
    drawn: Option<Drawn>,
    /// Counts this request as under way for as long as anybody answers it.
    _under_way: Option<Arc<UnderWay>>,
}

impl Principal {
    /// Somebody who is signed in, for what they do on the pages, at most with `scopes`.
    pub fn person(member: &Member, scopes: Scopes, address: Option<IpAddr>) -> Self {
        let caller = Caller {
            tenancy: member.tenancy.clone(),
            actor: Actor::User { id: member.user.clone(), name: member.name.clone() },
            scopes: member.role.scopes().and(scopes),
            expires_at: None,
            workspace: member.workspace.clone(),
            plan: member.plan.clone(),
        };
        Self { caller: Arc::new(caller), address, drawn: None, _under_way: None }
    }

    /// The right to touch the caller's rows.
    pub fn tenancy(&self) -> &Tenancy {
        &self.caller.tenancy
    }

    /// Everything known of the caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The caller's workspace.
    pub fn workspace(&self) -> &Workspace {
        &self.caller.workspace
    }

    /// What the caller's plan allows.
    pub fn plan(&self) -> &Plan {
        &self.caller.plan
    }

    /// Whether the caller's token carries `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        self.caller.scopes.has(scope)
    }

    /// The address the call came from.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// What was drawn for this request, for the rate limit headers.
    pub fn drawn(&self) -> Option<Drawn> {
        self.drawn
    }
}

/// Why a caller is not served.
#[derive(Debug)]
pub enum Refused {
    /// No token came.
    NoToken,
    /// The token is malformed, unknown, expired or revoked; only the operator is told which.
    BadToken(Bad),
    /// Too many requests; the wait until the next.
    Limited(Duration, Option<Drawn>),
    /// Too many failed attempts from this address; the wait until the next. Never said to a live token.
    TooManyFailures(Duration, Bad),
    /// The customer has as many requests under way as one may have.
    TooManyAtOnce,
    /// There is more to do than can be done now.
    Busy,
    /// The database failed.
    Failed(StoreError),
}

/// What is wrong with a token, for the log.
#[derive(Clone, Debug)]
pub struct Bad {
    /// `malformed_token`, `unknown_token`, `expired_token`, `revoked_token` or `suspended_customer`.
    pub cause: &'static str,
    /// Which token: its id if it was one, how it begins if it looks like one.
    pub which: Option<String>,
}

/// What the request wants, for the bucket it draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Anything; draws from the plan's bucket.
    Service,
    /// `server/discover`, which clients use to tell the protocol era and must not be refused lightly.
    Discovery,
}

/// Recognises callers. Cheap to clone (each request does); clones share what is remembered.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    store: Store,
    limiter: Limiter,
    usage: Usage,
    remembered: Cache<TokenDigest, Known>,
    /// Tokens that were not valid, and since when that is known.
    unknown: Cache<TokenDigest, (Bad, DateTime<Utc>)>,
    strangers: Semaphore,
    failures: DefaultKeyedRateLimiter<IpAddr>,
    /// Addresses that failed too often: their look-ups pass one at a time, but they pass.
    slowed: Cache<IpAddr, ()>,
    slow_lane: Semaphore,
}

/// The owner of a token, since when that is known, and the turn to ask again.
#[derive(Clone)]
struct Known {
    owner: Arc<Caller>,
    since: DateTime<Utc>,
    asking: Arc<Semaphore>,
}

impl Access {
    /// Recognition over `store`; `failures_per_minute` attempts of one address may fail before the rest is refused.
    pub fn new(store: Store, failures_per_minute: NonZeroU32) -> Self {
        Self(Arc::new(Shared {
            limiter: Limiter::new(store.clone()),
            usage: Usage::default(),
            store,
            remembered: Cache::new(MAX_REMEMBERED),
            unknown: Cache::new(MAX_UNKNOWN),
            strangers: Semaphore::new(STRANGERS),
            failures: RateLimiter::keyed(Quota::per_minute(failures_per_minute)),
            slowed: Cache::builder()
                .max_capacity(MAX_ADDRESSES as u64)
                .time_to_live(Duration::from_secs(60))
                .build(),
            slow_lane: Semaphore::new(1),
        }))
    }

    /// What callers have used since the last flush.
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// Writes down what callers used and gives back what they may still use but do not, everything if this process
    /// `ends`. Once a second.
    ///
    /// # Errors
    /// When the database fails; it is done the next time then.
    pub async fn settle(&self, ends: bool) -> Result<(), StoreError> {
        self.0.usage.flush(&self.0.store).await?;
        self.0.limiter.give_back(ends).await
    }

    /// The principal behind `bearer` (the text after `Bearer `), having drawn one request from its plan.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn recognise(
        &self,
        bearer: Option<&str>,
        address: Option<IpAddr>,
        wants: Wants,
    ) -> Result<Principal, Refused> {
        let Some(bearer) = bearer else { return Err(Refused::NoToken) };
        let Some(token) = PlainToken::parse(bearer) else {
            return Err(self.failed(address, Bad { cause: "malformed_token", which: None }));
        };
        let owner = match self.owner(&token, address).await? {
            Ok(owner) => owner,
            Err(bad) => return Err(self.failed(address, bad)),
        };
        let (drawn, under_way) = match wants {
            Wants::Discovery => {
                self.0.limiter.draw_discovery(&owner.tenancy).map_err(|wait| Refused::Limited(wait, None))?;
                (None, None)
            }
            Wants::Service => {
                let under_way =
                    self.0.limiter.begin(&owner.tenancy, AT_ONCE).ok_or(Refused::TooManyAtOnce)?;
                (Some(self.draw(&owner).await?), Some(Arc::new(under_way)))
            }
        };
        if let Some(token) = owner.token() {
            self.0.usage.heard(&owner.tenancy, token, address, self.0.store.now());
        }
        Ok(Principal { caller: owner, address, drawn, _under_way: under_way })
    }

    /// Counts a page of the customer as under way, beside the requests of its tokens; `None` when there are enough.
    pub fn enter(&self, tenancy: &Tenancy) -> Option<UnderWay> {
        self.0.limiter.begin(tenancy, AT_ONCE)
    }

    /// Draws one more request for a caller recognised already (the further messages of a batch, a tool tried on a page).
    ///
    /// # Errors
    /// The wait until the next request.
    pub async fn draw_again(&self, principal: &Principal) -> Result<(), Duration> {
        match self.draw(principal.caller()).await {
            Ok(_) => Ok(()),
            Err(Refused::Limited(wait, _)) => Err(wait),
            Err(_) => Err(Duration::from_secs(1)),
        }
    }

    async fn draw(&self, caller: &Caller) -> Result<Drawn, Refused> {
        let drawn = self.0.limiter.draw(&caller.tenancy, &caller.plan).await;
        if let (Err(Refused::Limited(..)), Some(token)) = (&drawn, caller.token()) {
            self.0.usage.throttled(&caller.tenancy, token, self.0.store.now());
        }
        drawn
    }

    async fn owner(
        &self,
        token: &PlainToken,
        address: Option<IpAddr>,
    ) -> Result<Result<Arc<Caller>, Bad>, Refused> {
        let digest = token.digest();
        if let Some(recalled) = self.recall(&digest) {
            return Ok(recalled);
        }
        // Of those who hold a token known a moment ago one asks for all; all others share a narrow way, and those that
        // failed too often a narrower one.
        let asking = self.0.remembered.get(&digest).map(|known| known.asking);
        let slowed = address.map(network).is_some_and(|address| self.0.slowed.contains_key(&address));
        let way = match (&asking, slowed) {
            (Some(asking), _) => asking,
            (None, false) => &self.0.strangers,
            (None, true) => &self.0.slow_lane,
        };
        let _turn = tokio::time::timeout(PATIENCE, way.acquire()).await.map_err(|_| Refused::Busy)?;
        if let Some(recalled) = self.recall(&digest) {
            return Ok(recalled);
        }
        let now = self.0.store.now();
        let bad = match self.0.store.token_owner(digest).await.map_err(Refused::Failed)? {
            Presented::Live(owner) => {
                let owner = Arc::from(owner);
                let asking = asking.clone().unwrap_or_else(|| Arc::new(Semaphore::new(1)));
                self.0.remembered.insert(digest, Known { owner: Arc::clone(&owner), since: now, asking });
                return Ok(Ok(owner));
            }
            Presented::Dead { cause, token } => Bad { cause, which: Some(token) },
            Presented::Unknown => Bad { cause: "unknown_token", which: Some(token.beginning()) },
        };
        self.0.remembered.invalidate(&digest);
        self.0.unknown.insert(digest, (bad.clone(), now));
        Ok(Err(bad))
    }

    /// What is known of a token since a moment.
    fn recall(&self, digest: &TokenDigest) -> Option<Result<Arc<Caller>, Bad>> {
        let now = self.0.store.now();
        let fresh = |since: DateTime<Utc>| (TimeDelta::zero()..MEMORY).contains(&(now - since));
        if let Some(known) = self.0.remembered.get(digest)
            && known.owner.expires_at.is_none_or(|end| end > now)
            && fresh(known.since)
        {
            return Some(Ok(known.owner));
        }
        let (bad, since) = self.0.unknown.get(digest)?;
        fresh(since).then_some(Err(bad))
    }

    fn failed(&self, address: Option<IpAddr>, bad: Bad) -> Refused {
        let wait = address.map(network).and_then(|address| {
            let not_until = self.0.failures.check_key(&address).err()?;
            self.0.slowed.insert(address, ());
            Some(not_until.wait_time_from(governor::clock::Clock::now(self.0.failures.clock())))
        });
        if self.0.failures.len() > MAX_ADDRESSES {
            self.0.failures.retain_recent();
        }
        match wait {
            Some(wait) => Refused::TooManyFailures(wait, bad),
            None => Refused::BadToken(bad),
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}
